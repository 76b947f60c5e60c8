//! Clients of a cluster that come back after every error, and what they saw.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nsquorum_node_tests::{
    Answer, BodyId, Evidence, Habits, History, Life, Manner, Records, Rule, VerifyReport, Violation, check, consume,
    drain, get, post, publish, until,
};
use nsquorum_protocol::{ChannelName, TopicName};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use crate::metrics::metric;
use crate::trio::Trio;

/// The topic of every load.
pub const TOPIC: &str = "orders";
/// Its group: that of the first topic of a cluster.
pub const TOPIC_GROUP: u64 = 1;
/// Its channels. The first is consumed under load; the second only at the end, by one connection, so that it shows the order.
pub const CHANNELS: [&str; 2] = ["ledger", "archive"];
/// Load must come this far, also through elections and reconnects.
const PROGRESS_DEADLINE: Duration = Duration::from_secs(120);
/// Both channels must become empty.
const DRAIN_DEADLINE: Duration = Duration::from_secs(120);
/// What a client rests between two connections.
const RECONNECT_REST: Duration = Duration::from_millis(100);
/// Longer than a change of leaders takes; what a lost connection held comes back after it.
const MSG_TIMEOUT: Duration = Duration::from_secs(5);

/// What the clients at each node do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A connection each.
    pub publishers: Vec<Manner>,
    /// A connection each, on the first channel.
    pub consumers: Vec<Habits>,
}

impl Plan {
    /// A bit of everything at a pace that leaves a machine with two cores time for elections.
    #[must_use]
    pub fn steady() -> Self {
        let rest = Duration::from_millis(20);
        Self {
            publishers: vec![
                Manner::lone().resting(rest / 4),
                Manner::pipelined().resting(rest),
                Manner {
                    length_max: 60_000,
                    ..Manner::large().resting(rest * 5)
                },
            ],
            consumers: vec![Habits {
                requeued: 0,
                forgotten: 3,
                msg_timeout: MSG_TIMEOUT,
                ready: 50,
            }],
        }
    }

    /// A few small messages.
    #[must_use]
    pub fn gentle() -> Self {
        Self {
            publishers: vec![Manner::lone()],
            consumers: Vec::new(),
        }
    }

    /// As hard as it gets, for short lives.
    #[must_use]
    pub fn hard() -> Self {
        Self {
            publishers: vec![Manner::lone(), Manner::pipelined(), Manner::large()],
            consumers: vec![Habits::careful(), Habits::forgetful()],
        }
    }
}

/// Connections are numbered over the whole history; this says at which node each publisher's was.
type Nodes = Arc<Mutex<BTreeMap<u32, usize>>>;

/// The clients of one cluster, over all that happens to it.
#[derive(Debug)]
pub struct Clients {
    history: Arc<History>,
    nodes: Nodes,
    random: StdRng,
    life: Life,
    clients: JoinSet<()>,
}

impl Clients {
    /// No clients yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            history: Arc::default(),
            nodes: Arc::default(),
            random: StdRng::seed_from_u64(seed),
            life: Life::default(),
            clients: JoinSet::new(),
        }
    }

    /// A random number below `bound`, from the seed.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.random_range(0..bound)
    }

    /// The history so far.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Starts clients at every node.
    pub fn start(&mut self, trio: &Trio, plan: &Plan) {
        for (node, replica) in trio.nodes.iter().enumerate() {
            let address = replica.place().tcp();
            for manner in &plan.publishers {
                self.start_publisher(node, address.clone(), *manner);
            }
            for habits in &plan.consumers {
                self.start_consumer(address.clone(), *habits);
            }
        }
    }

    fn start_publisher(&mut self, node: usize, address: String, manner: Manner) {
        let (history, nodes) = (Arc::clone(&self.history), Arc::clone(&self.nodes));
        let mut random = StdRng::from_rng(&mut self.random);
        self.clients.spawn(async move {
            loop {
                let connection = connection(&nodes, node);
                let random = StdRng::from_rng(&mut random);
                let names = (address.clone(), topic());
                drop(publish(names.0, names.1, Arc::clone(&history), connection, manner, random).await);
                tokio::time::sleep(RECONNECT_REST).await;
            }
        });
    }

    fn start_consumer(&mut self, address: String, habits: Habits) {
        let (history, nodes, life) = (Arc::clone(&self.history), Arc::clone(&self.nodes), self.life);
        let mut random = StdRng::from_rng(&mut self.random);
        self.clients.spawn(async move {
            loop {
                let place = (life, 0, connection(&nodes, usize::MAX));
                let (history, random) = (Arc::clone(&history), StdRng::from_rng(&mut random));
                let names = (topic(), channel(0));
                drop(consume(address.clone(), names, history, place, habits, random).await);
                tokio::time::sleep(RECONNECT_REST).await;
            }
        });
    }

    /// Ends all clients where they stand: what they had sent and was not answered has an unknown outcome. A new life of the cluster begins.
    pub async fn stop(&mut self) {
        self.clients.shutdown().await;
        self.life.0 += 1;
    }

    /// Waits until so many further messages were answered OK, whoever published them.
    ///
    /// # Errors
    /// If they are not.
    pub async fn until_oks(&self, further: u64) -> Result<()> {
        let target = self.history.oks() + further;
        until(
            &format!("{target} messages are answered OK"),
            PROGRESS_DEADLINE,
            async || Ok(self.history.oks() >= target),
        )
        .await
    }

    /// One publish over HTTP to a node; part of the history like any other. Says whether it was answered OK.
    pub async fn publish_once(&self, trio: &Trio, node: usize) -> bool {
        let first = BodyId {
            publisher: connection(&self.nodes, node),
            serial: 0,
        };
        let id = self.history.sending(first, 1, Duration::ZERO);
        let path = format!("/pub?topic={TOPIC}");
        let answer = post(&trio.nodes[node].place().http(), &path, &first.body(100)).await;
        let is_ok = answer.is_ok_and(|answer| answer.status == 200);
        // Whether a failed one was stored is unknown.
        self.history
            .answered(id, if is_ok { Answer::Ok } else { Answer::Unknown });
        is_ok
    }

    /// Waits until every node takes a publish.
    ///
    /// # Errors
    /// If one does not.
    pub async fn until_all_accept(&self, trio: &Trio) -> Result<()> {
        for node in 0..trio.nodes.len() {
            let what = format!("node {node} accepts a publish");
            let accepts = until(&what, PROGRESS_DEADLINE, async || {
                Ok(self.publish_once(trio, node).await)
            });
            accepts.await.with_context(|| trio.logs())?;
        }
        Ok(())
    }

    /// Publishes to a node that were sent after one moment and answered OK before the other: it had no majority then, so there may be none.
    #[must_use]
    pub fn acknowledged_between(&self, node: usize, from: u64, to: u64) -> Vec<BodyId> {
        let records = self.history.snapshot();
        let nodes = self.nodes.lock().expect("no client panics while it holds this");
        let is_wrong = |publish: &&nsquorum_node_tests::Publish| {
            nodes.get(&publish.first.publisher) == Some(&node)
                && publish.sent > from
                && publish.answer == Answer::Ok
                && publish.answered.is_some_and(|answered| answered <= to)
        };
        records
            .publishes
            .iter()
            .filter(is_wrong)
            .map(|publish| publish.first)
            .collect()
    }

    /// What every directory of a majority must hold after a loss of power: fails if a number was delivered that fewer than two hold.
    ///
    /// # Errors
    /// If that is so.
    pub fn check_majority(&self, reports: &[VerifyReport]) -> Result<()> {
        let mut ends = Vec::new();
        for report in reports {
            ends.push(report.topic(TOPIC)?.map_or(0, |topic| topic.next_seq.saturating_sub(1)));
        }
        ends.sort_unstable();
        let delivered = self.history.snapshot().deliveries.iter().map(|one| one.number).max();
        match delivered {
            Some(last) if last > ends[ends.len() / 2] => {
                bail!("message {last} was delivered, and the directories end at {ends:?}")
            }
            _ => Ok(()),
        }
    }

    /// Everything is consumed and finished, the second channel by one connection. Then the cluster ends with equal logs, and all that was ever seen
    /// is judged. Returns every broken promise.
    ///
    /// # Errors
    /// If the channels do not become empty, or the logs do not become equal.
    pub async fn verdict(mut self, trio: &mut Trio) -> Result<Vec<Violation>> {
        self.stop().await;
        let last = connection(&self.nodes, usize::MAX);
        let (first, second) = (trio.nodes[1].place().tcp(), trio.nodes[2].place().tcp());
        let consumers = [(first, 0, connection(&self.nodes, usize::MAX)), (second, 1, last)];
        for (address, place, consumer) in consumers {
            let random = StdRng::from_rng(&mut self.random);
            let (history, life) = (Arc::clone(&self.history), self.life);
            let names = (topic(), channel(place));
            self.clients.spawn(async move {
                drop(drain(address, names, history, (life, place, consumer), random).await);
            });
        }
        let addresses: Vec<String> = trio.nodes.iter().map(|node| node.place().http()).collect();
        let drained = until("both channels are empty", DRAIN_DEADLINE, async || {
            is_drained(&addresses).await
        });
        drained.await.with_context(|| trio.logs())?;
        // FINs wait a moment for company before they go into the log; a publish takes them along, and its OK covers them.
        for node in 0..trio.nodes.len() {
            if !self.publish_once(trio, node).await {
                bail!(
                    "node {node} refuses a publish after everything is over\n{}",
                    trio.logs()
                );
            }
        }
        let drained = until("both channels are empty again", DRAIN_DEADLINE, async || {
            is_drained(&addresses).await
        });
        drained.await.with_context(|| trio.logs())?;
        self.clients.shutdown().await;
        let reports = trio.end_equal(TOPIC).await?;
        let mut cuts = Vec::new();
        for report in &reports {
            cuts.push((self.life, report.topic(TOPIC)?.context("the topic is there")?));
        }
        let records = self.history.snapshot();
        println_summary(&records);
        Ok(judge(records, cuts, last))
    }
}

/// The order in which first deliveries arrive is promised to a connection that is alone: with several, what a lost node gives back without an
/// attempt comes to somebody who has later messages already. The last consumer of the second channel is alone.
fn judge(records: Records, cuts: Vec<(Life, nsquorum_node_tests::TopicState)>, alone: u32) -> Vec<Violation> {
    let mut evidence = Evidence {
        records,
        channels: CHANNELS.map(str::to_owned).to_vec(),
        cuts,
    };
    let mut violations = check(&evidence);
    violations.retain(|violation| violation.rule != Rule::DeliveryOrder);
    evidence
        .records
        .deliveries
        .retain(|delivery| delivery.consumer == alone);
    // They name places in the list of all deliveries, and were judged above.
    evidence.records.requeues.clear();
    let order = check(&evidence);
    violations.extend(
        order
            .into_iter()
            .filter(|violation| violation.rule == Rule::DeliveryOrder),
    );
    violations
}

#[allow(clippy::print_stdout, reason = "a test says what it did")]
fn println_summary(records: &Records) {
    let count = |answer: Answer| {
        records
            .publishes
            .iter()
            .filter(|publish| publish.answer == answer)
            .count()
    };
    println!(
        "publishes: {} OK, {} unknown, {} refused, {} unanswered; deliveries: {}",
        count(Answer::Ok),
        count(Answer::Unknown),
        count(Answer::Refused),
        count(Answer::Waiting),
        records.deliveries.len()
    );
}

/// Whether the topic has a leader, and nothing is left in its channels: only the leader's node has metrics of it. (Counts in `/stats` are 0 on the
/// others, and on all if the topic has lost everything.)
async fn is_drained(addresses: &[String]) -> Result<bool> {
    let left = |channel: &'static str| ["depth", "in_flight", "deferred"].map(|count| (channel, count));
    let mut is_led = false;
    for address in addresses {
        let Ok(metrics) = get(address, "/metrics").await else {
            return Ok(false);
        };
        let value = |(channel, count): (&str, &str)| {
            let name = format!("nsquorum_channel_{count}{{topic=\"{TOPIC}\",channel=\"{channel}\"}}");
            metric(&metrics.text, &name)
        };
        let values: Vec<_> = CHANNELS.into_iter().flat_map(left).map(value).collect();
        if values.iter().flatten().any(|value| *value != 0) {
            return Ok(false);
        }
        is_led |= values.iter().all(Option::is_some);
    }
    Ok(is_led)
}

fn connection(nodes: &Nodes, node: usize) -> u32 {
    let mut nodes = nodes.lock().expect("no client panics while it holds this");
    let number = u32::try_from(nodes.len()).expect("a test has fewer connections") + 1;
    nodes.insert(number, node);
    number
}

fn topic() -> TopicName {
    TOPIC.parse().expect("the name is valid")
}

fn channel(place: usize) -> ChannelName {
    CHANNELS[place].parse().expect("the name is valid")
}
