//! Acceptance 7 (and the cut-off part of 3) of "Three replicas": networks that break. Each node runs in a network namespace of its own.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nsquorum_client::{ClientError, Connection, Consumer, Event, IdentifyOptions};
use nsquorum_cluster_tests::{CHANNELS, Clients, Network, Plan, Replica, TOPIC, TOPIC_GROUP, Trio, in_own_network};
use nsquorum_faults::MountOptions;
use nsquorum_node_tests::{Disk, count, get, post, seed, until};

/// For hanging, not for slowness.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long a node is cut off before its consumers' connections close.
const CUT_OFF_MAX: Duration = Duration::from_secs(5);

/// What breaks. Nodes are numbers from 0; the letters are places in a random order of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    /// Nothing from or to the topic's leader.
    IsolatedLeader,
    /// Nothing from or to a node that does not lead the topic.
    IsolatedFollower,
    /// The leader hears the others and cannot be heard.
    MuteLeader,
    /// The leader can be heard and hears nobody.
    DeafLeader,
    /// One direction between the leader and one follower.
    LeaderToFollower,
    /// The other one.
    FollowerToLeader,
    /// Nothing between the leader and one follower; the third hears both.
    Bridge,
    /// Nothing between anybody.
    Everything,
}

const BREAKS: [Break; 8] = [
    Break::IsolatedLeader,
    Break::IsolatedFollower,
    Break::MuteLeader,
    Break::DeafLeader,
    Break::LeaderToFollower,
    Break::FollowerToLeader,
    Break::Bridge,
    Break::Everything,
];

/// What a break does.
struct Damage {
    /// Directions that are cut.
    cuts: Vec<(usize, usize)>,
    /// Nodes that cannot reach a majority in both directions, so must not acknowledge anything.
    without_majority: Vec<usize>,
    /// Whether a majority is left that can go on.
    goes_on: bool,
}

impl Break {
    fn damage(self, leader: usize, follower: usize, third: usize) -> Damage {
        let both = |a: usize, b: usize| vec![(a, b), (b, a)];
        let (cuts, without_majority, goes_on) = match self {
            Self::IsolatedLeader => (
                [both(leader, follower), both(leader, third)].concat(),
                vec![leader],
                true,
            ),
            Self::IsolatedFollower => (
                [both(follower, leader), both(follower, third)].concat(),
                vec![follower],
                true,
            ),
            Self::MuteLeader => (vec![(leader, follower), (leader, third)], vec![leader], true),
            Self::DeafLeader => (vec![(follower, leader), (third, leader)], vec![leader], true),
            Self::LeaderToFollower => (vec![(leader, follower)], vec![], true),
            Self::FollowerToLeader => (vec![(follower, leader)], vec![], true),
            Self::Bridge => (both(leader, follower), vec![], true),
            Self::Everything => (
                [both(leader, follower), both(leader, third), both(follower, third)].concat(),
                vec![leader, follower, third],
                false,
            ),
        };
        Damage {
            cuts,
            without_majority,
            goes_on,
        }
    }
}

async fn partitions(rounds: u64) {
    let seed = seed();
    println!("{rounds} rounds of {} breaks; NSQUORUM_SEED={seed}", BREAKS.len());
    let network = Network::new(3).unwrap();
    let mut trio = Trio::found(network.places(), Disk::plain, &[]).await.unwrap();
    trio.create(TOPIC, &CHANNELS).await.unwrap();
    let mut load = Clients::new(seed);
    load.start(&trio, &Plan::steady());
    // To look at some of them alone, by their names.
    let wanted = std::env::var("NSQUORUM_BREAKS").unwrap_or_default();
    let is_wanted = |kind: &Break| wanted.is_empty() || wanted.split(',').any(|name| name == format!("{kind:?}"));
    for round in 0..rounds {
        for kind in BREAKS.into_iter().filter(is_wanted) {
            load.until_all_accept(&trio).await.unwrap();
            load.until_oks(200).await.unwrap();
            let first = trio.leader(TOPIC_GROUP);
            let turn = 1 + usize::try_from(load.below(2)).unwrap();
            let damage = kind.damage(first, (first + turn) % 3, (first + 2 * turn) % 3);
            let before = load.history().oks();
            for (from, to) in &damage.cuts {
                network.cut(*from, *to).unwrap();
            }
            let cut = load.history().moment();
            if damage.goes_on {
                load.until_oks(300 + load.history().oks() - before).await.unwrap();
            }
            // Where there is no majority a publish has the time to fail.
            let tries = [0, 1, 2].map(|node| {
                let (load, trio, is_cut) = (&load, &trio, damage.without_majority.contains(&node));
                async move { is_cut && load.publish_once(trio, node).await }
            });
            let [first_node, second_node, third_node] = tries;
            let acknowledged = tokio::join!(first_node, second_node, third_node);
            assert_eq!(
                acknowledged,
                (false, false, false),
                "{kind:?}: a node without a majority says OK"
            );
            let mended = load.history().moment();
            for node in &damage.without_majority {
                let wrong = load.acknowledged_between(*node, cut, mended);
                assert!(wrong.is_empty(), "{kind:?}: node {node} acknowledged {wrong:?}");
            }
            for (from, to) in &damage.cuts {
                network.mend(*from, *to).unwrap();
            }
            load.until_all_accept(&trio).await.unwrap();
            let oks = load.history().oks();
            println!(
                "round {round}: {kind:?} around {first}; {oks} messages answered OK so far, {} of them meanwhile",
                oks - before
            );
        }
    }
    let violations = load.verdict(&mut trio).await.unwrap();
    assert!(violations.is_empty(), "NSQUORUM_SEED={seed} {violations:#?}");
    println!(
        "figure: {rounds} rounds of {} kinds of partitions, all promises held",
        BREAKS.len()
    );
}

#[test]
fn promises_hold_in_partitions() {
    let rounds = count("NSQUORUM_ROUNDS", 1);
    in_own_network("promises_hold_in_partitions", partitions(rounds));
}

/// As `nothing_is_lost_when_one_loses_power_while_the_others_are_paused_in_turn`, with networks that break instead of pauses.
async fn power_loss(rounds: u64) {
    let seed = seed();
    println!("{rounds} rounds; NSQUORUM_SEED={seed}");
    let options = MountOptions {
        seed,
        ..MountOptions::default()
    };
    let network = Network::new(3).unwrap();
    let disk = || Disk::faulty(options.clone());
    let mut trio = Trio::found(network.places(), disk, &[]).await.unwrap();
    trio.create(TOPIC, &CHANNELS).await.unwrap();
    let mut load = Clients::new(seed);
    load.start(&trio, &Plan::steady());
    for round in 0..rounds {
        load.until_oks(300).await.unwrap();
        let first = usize::try_from(load.below(3)).unwrap();
        let turn = 1 + usize::try_from(load.below(2)).unwrap();
        let (away, victim, last) = (first, (first + turn) % 3, (first + 2 * turn) % 3);
        let isolated = |node: usize| {
            let others = (0..3).filter(move |other| *other != node);
            others.flat_map(move |other| [(node, other), (other, node)])
        };
        isolated(away).for_each(|(from, to)| network.cut(from, to).unwrap());
        load.until_oks(200).await.unwrap();
        trio.nodes[victim].lose_power().unwrap();
        isolated(last)
            .filter(|(from, to)| *from != away && *to != away)
            .for_each(|(from, to)| network.cut(from, to).unwrap());
        isolated(away)
            .filter(|(from, to)| *from != last && *to != last)
            .for_each(|(from, to)| network.mend(from, to).unwrap());
        trio.nodes[victim].start().unwrap();
        load.until_oks(200).await.unwrap();
        trio.nodes[last].lose_power().unwrap();
        isolated(last).for_each(|(from, to)| network.mend(from, to).unwrap());
        trio.nodes[last].start().unwrap();
        trio.until_serving().await.unwrap();
        load.until_all_accept(&trio).await.unwrap();
        let oks = load.history().oks();
        println!(
            "round {round}: {away} cut off, {victim} without power, then {last}; {oks} messages answered OK so far"
        );
    }
    let violations = load.verdict(&mut trio).await.unwrap();
    assert!(violations.is_empty(), "NSQUORUM_SEED={seed} {violations:#?}");
    println!("figure: {rounds} rounds of cuts and losses of power in turn, nothing lost");
}

#[test]
fn nothing_is_lost_when_one_loses_power_while_the_others_are_cut_off_in_turn() {
    let rounds = count("NSQUORUM_ROUNDS", 1);
    in_own_network(
        "nothing_is_lost_when_one_loses_power_while_the_others_are_cut_off_in_turn",
        power_loss(rounds),
    );
}

async fn subscribe(node: &Replica, channel: &str) -> Consumer {
    let connection = Connection::connect(&node.place().tcp(), IdentifyOptions::default())
        .await
        .unwrap();
    let (topic, channel) = (TOPIC.parse().unwrap(), channel.parse().unwrap());
    connection.subscribe(&topic, &channel, 1).await.unwrap()
}

async fn publish(node: &Replica, body: &str) {
    until("a publish is answered OK", DEADLINE, async || {
        let answer = post(&node.place().http(), &format!("/pub?topic={TOPIC}"), body.as_bytes()).await?;
        Ok(answer.status == 200)
    })
    .await
    .unwrap();
}

/// Takes and finishes messages until there was each of these.
async fn take(consumer: &mut Consumer, expected: &BTreeSet<String>) {
    let mut missing = expected.clone();
    while !missing.is_empty() {
        let event = tokio::time::timeout(DEADLINE, consumer.next()).await;
        let event = event.unwrap_or_else(|_| panic!("{missing:?} never came"));
        if let Event::Message(message) = event.unwrap().expect("the connection stays") {
            missing.remove(&String::from_utf8(message.body.to_vec()).unwrap());
            consumer.fin(message.id).unwrap();
        }
    }
}

/// What ends a connection.
async fn end_of(consumer: &mut Consumer) -> Option<ClientError> {
    loop {
        match consumer.next().await {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(error) => return Some(error),
        }
    }
}

/// Nothing passes between the leader and one follower, who holds a message. The third reaches both.
async fn cut_off() {
    let network = Network::new(3).unwrap();
    let mut trio = Trio::found(network.places(), Disk::plain, &[]).await.unwrap();
    trio.create(TOPIC, &CHANNELS).await.unwrap();
    let leader = trio.leader(TOPIC_GROUP);
    let (follower, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let mut cut = subscribe(&trio.nodes[follower], CHANNELS[0]).await;
    let mut other = subscribe(&trio.nodes[third], CHANNELS[1]).await;
    publish(&trio.nodes[leader], "held").await;
    while !matches!(cut.next().await.unwrap(), Some(Event::Message(_))) {}

    let began = Instant::now();
    network.cut(leader, follower).unwrap();
    network.cut(follower, leader).unwrap();
    let mut bodies: BTreeSet<String> = (0..20).map(|number| format!("meanwhile {number}")).collect();
    for body in &bodies {
        publish(&trio.nodes[third], body).await;
    }
    bodies.insert("held".to_owned());
    take(&mut other, &bodies).await;
    let end = tokio::time::timeout(DEADLINE, end_of(&mut cut)).await;
    let end = end.unwrap_or_else(|_| panic!("the connection stays\n{}", trio.logs()));
    assert!(
        !matches!(end, Some(ClientError::Server(_))),
        "nsqd closes without an error frame, not with {end:?}"
    );
    let elapsed = began.elapsed();
    assert!(elapsed >= CUT_OFF_MAX, "closed after {elapsed:?}");
    println!("figure: a consumer of a node that is cut off from the leader was let go after {elapsed:?}");
    let metrics = get(&trio.nodes[follower].place().http(), "/metrics")
        .await
        .unwrap()
        .text;
    assert!(
        metrics.contains("nsquorum_subscriptions_closed_total{why=\"cut_off\"} 1"),
        "{metrics}"
    );

    // Elsewhere there is everything, also what it held.
    let mut cut = subscribe(&trio.nodes[third], CHANNELS[0]).await;
    take(&mut cut, &bodies).await;
    network.mend(leader, follower).unwrap();
    network.mend(follower, leader).unwrap();
    publish(&trio.nodes[follower], "after").await;
    let after = BTreeSet::from(["after".to_owned()]);
    take(&mut cut, &after).await;
    take(&mut other, &after).await;
    trio.end_equal(TOPIC).await.unwrap();
}

#[test]
fn a_node_that_is_cut_off_from_the_leader_closes_its_consumers_connections() {
    in_own_network(
        "a_node_that_is_cut_off_from_the_leader_closes_its_consumers_connections",
        cut_off(),
    );
}
