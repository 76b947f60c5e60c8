//! One thing at a time.

use std::time::Duration;

use nsquorum_consensus::Cluster as _;
use nsquorum_environment::Environment;
use nsquorum_storage::NodeStore as _;
use nsquorum_topic::{GroupId, NodeId};

use crate::cluster::{TestCluster, name, node, until, within};
use crate::disk::{Disk, MemoryDisk, RocksDisk};
use crate::ledger::Ledger;
use crate::writer::{Written, create_channel, finish_up_to};

async fn others<D: Disk>(cluster: &TestCluster<D>, id: NodeId) -> Vec<NodeId> {
    cluster.alive().into_iter().filter(|other| *other != id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_through_any_node_and_led_there() {
    let cluster = TestCluster::<MemoryDisk>::start(3).await;
    for (through, topic) in [(1, "a"), (2, "b"), (3, "c")] {
        let record = cluster.create(node(through), topic).await;
        assert_eq!(record.replicas, cluster.ids());
        let leader = cluster.leader(record.group).await;
        for id in cluster.ids() {
            until("every node knows the leader", || {
                cluster
                    .location(id, record.group)
                    .filter(|location| location.node == leader)
            })
            .await;
        }
        assert_eq!(record.first_leader, node(through));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_survives_the_leader() {
    survive_the_leader::<MemoryDisk>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_survives_the_leader_on_rocksdb() {
    survive_the_leader::<RocksDisk>().await;
}

async fn survive_the_leader<D: Disk>() {
    let mut cluster = TestCluster::<D>::start(3).await;
    let mut ledger = Ledger::default();
    let group = cluster.create(node(1), "orders").await.group;
    for round in 0..3 {
        for message in 0..20 {
            cluster.write(group, &format!("{round}/{message}"), &mut ledger).await;
        }
        let leader = cluster.leader(group).await;
        cluster.kill(leader);
        for message in 0..20 {
            cluster
                .write(group, &format!("{round}/after {message}"), &mut ledger)
                .await;
        }
        cluster.boot(leader).await;
        until("the group runs again", || cluster.topic(leader, group)).await;
    }
    assert_eq!(ledger.count(), 120);
    ledger.settle(&mut cluster, group).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_long_before_its_lease_ends() {
    let mut cluster = TestCluster::<MemoryDisk>::start(3).await;
    let mut ledger = Ledger::default();
    let group = cluster.create(node(1), "orders").await.group;
    // The fastest of several, so that a busy machine does not decide: by lease alone none could be below 900 ms.
    let clock = Environment::system().clock;
    let mut fastest = Duration::MAX;
    for round in 0..5 {
        cluster.write(group, &format!("before {round}"), &mut ledger).await;
        let leader = cluster.leader(group).await;
        cluster.kill(leader);
        let begin = clock.now();
        cluster.write(group, &format!("after {round}"), &mut ledger).await;
        fastest = fastest.min(clock.now().since(begin));
        cluster.boot(leader).await;
        until("the group runs again", || cluster.topic(leader, group)).await;
    }
    assert!(fastest < Duration::from_millis(600), "{fastest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_learns_that_it_leads_no_more() {
    let mut cluster = TestCluster::<MemoryDisk>::start(3).await;
    let mut ledger = Ledger::default();
    let group = cluster.create(node(2), "orders").await.group;
    cluster.write(group, "before", &mut ledger).await;
    let old = cluster.leader(group).await;
    let rest = others(&cluster, old).await;
    cluster.mesh.isolate(old);
    ledger.sent("from the minority");
    let lost = cluster.submit(old, group, Some("from the minority"), Vec::new());
    // Nobody answers: its own node deposes it, though openraft goes on calling it a leader.
    until("the old leader is deposed", || {
        cluster
            .topic(old, group)
            .filter(|topic| topic.seen.lock().leading.is_none())
    })
    .await;
    assert_ne!(
        within(lost).await.unwrap_or(Written::Unknown),
        Written::Ok(2.into_seq())
    );
    let topic = cluster.topic(old, group).unwrap();
    let term = *topic.seen.lock().started.last().unwrap();
    assert!(!topic.log.leads(term));
    let mut number = 0;
    let bodies = || {
        number += 1;
        format!("from the majority {number}")
    };
    cluster.write_among(&rest, group, bodies, &mut ledger).await;
    cluster.mesh.heal_all();
    for id in cluster.ids() {
        until("everybody knows the new leader", || {
            cluster.location(id, group).filter(|location| location.node != old)
        })
        .await;
    }
    ledger.settle(&mut cluster, group).await;
}

trait IntoSeq {
    fn into_seq(self) -> nsquorum_topic::Seq;
}

impl IntoSeq for u64 {
    fn into_seq(self) -> nsquorum_topic::Seq {
        nsquorum_topic::Seq::new(self)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_nobody_hears_is_replaced_and_one_that_one_node_does_not_hear_is_not() {
    let mut cluster = TestCluster::<MemoryDisk>::start(3).await;
    let mut ledger = Ledger::default();
    let group = cluster.create(node(1), "orders").await.group;
    cluster.write(group, "first", &mut ledger).await;
    let leader = cluster.leader(group).await;
    let rest = others(&cluster, leader).await;
    let term = cluster.location(leader, group).unwrap().term;
    // One follower hears nothing of it, but the other one does: three leases long nothing changes.
    cluster.mesh.cut_one_way(leader, rest[0]);
    tokio::time::sleep(Duration::from_millis(2700)).await;
    assert_eq!(cluster.location(rest[1], group).unwrap().term, term);
    cluster.write(group, "second", &mut ledger).await;
    // Nobody hears it, though it hears everybody.
    cluster.mesh.cut_one_way(leader, rest[1]);
    until("another leader", || {
        cluster
            .location(rest[1], group)
            .filter(|location| location.node != leader)
    })
    .await;
    let mut number = 0;
    let bodies = || {
        number += 1;
        format!("third {number}")
    };
    cluster.write_among(&rest, group, bodies, &mut ledger).await;
    cluster.mesh.heal_all();
    ledger.settle(&mut cluster, group).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_group_takes_a_write_after_a_long_pause_without_an_election() {
    let cluster = TestCluster::<MemoryDisk>::start(3).await;
    let mut ledger = Ledger::default();
    let group = cluster.create(node(1), "orders").await.group;
    cluster.write(group, "first", &mut ledger).await;
    let leader = cluster.leader(group).await;
    let before = cluster.location(leader, group);
    // Longer than a group stays active, and than openraft's lease after that.
    tokio::time::sleep(Duration::from_millis(4500)).await;
    cluster.write(group, "second", &mut ledger).await;
    assert_eq!(cluster.location(leader, group), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_hands_its_leaderships_over_first() {
    let mut cluster = TestCluster::<MemoryDisk>::start(3).await;
    let mut ledger = Ledger::default();
    let mut groups = Vec::new();
    for (through, topic) in [(1, "a"), (2, "b"), (3, "c"), (1, "d"), (2, "e"), (3, "f")] {
        groups.push(cluster.create(node(through), topic).await.group);
    }
    for group in &groups {
        cluster.leader(*group).await;
    }
    let led: Vec<GroupId> = groups
        .iter()
        .copied()
        .filter(|group| cluster.location(node(2), *group).unwrap().node == node(2))
        .collect();
    assert!(!led.is_empty());
    cluster.stop(node(2)).await;
    let mut number = 0;
    for group in led {
        // No lease had to end: the others lead when the stop returns, or are about to hear of it.
        until("the new leader is known", || {
            cluster
                .location(node(1), group)
                .filter(|location| location.node != node(2))
        })
        .await;
        let bodies = || {
            number += 1;
            format!("after {number}")
        };
        cluster
            .write_among(&[node(1), node(3)], group, bodies, &mut Ledger::default())
            .await;
    }
    cluster.boot(node(2)).await;
    let group = groups[0];
    until("the group runs again", || cluster.topic(node(2), group)).await;
    cluster.write(group, "last", &mut ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_stands_still_gives_way_to_one_whose_disk_does_not() {
    let mut cluster = TestCluster::<MemoryDisk>::start(3).await;
    let mut ledger = Ledger::default();
    let group = cluster.create(node(1), "orders").await.group;
    cluster.write(group, "before", &mut ledger).await;
    let slow = cluster.leader(group).await;
    cluster.stall_disk(slow, true);
    let rest = others(&cluster, slow).await;
    // The followers write what the leader sends them, so they get ahead of it.
    ledger.sent("at the slow one");
    drop(cluster.submit(slow, group, Some("at the slow one"), Vec::new()));
    until("another leader", || {
        cluster
            .location(rest[0], group)
            .filter(|location| location.node != slow)
    })
    .await;
    let mut number = 0;
    let bodies = || {
        number += 1;
        format!("at a fast one {number}")
    };
    cluster.write_among(&rest, group, bodies, &mut ledger).await;
    cluster.stall_disk(slow, false);
    ledger.settle(&mut cluster, group).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_for_long_gets_a_snapshot_and_the_log_after_it() {
    let mut cluster = TestCluster::<MemoryDisk>::start_with(3, 16 << 10).await;
    let mut ledger = Ledger::default();
    let group = cluster.create(node(1), "orders").await.group;
    let leader = cluster.leader(group).await;
    let created = cluster.submit(leader, group, None, vec![create_channel("work")]);
    assert!(matches!(within(created).await, Ok(Written::Ok(_))));
    let away = others(&cluster, leader).await[0];
    cluster.write(group, "before", &mut ledger).await;
    cluster.kill(away);
    let body = "x".repeat(1000);
    let mut written = 0;
    // What is finished is purged, on the leader and on the follower that is there.
    until_purged(
        &cluster,
        group,
        || {
            written += 1;
            format!("{body} {written}")
        },
        &mut ledger,
    )
    .await;
    cluster.boot(away).await;
    until("the group runs again", || cluster.topic(away, group)).await;
    for message in 0..10 {
        cluster.write(group, &format!("after {message}"), &mut ledger).await;
    }
    until("the snapshot is installed", || cluster.purged(away, group)).await;
    ledger.settle(&mut cluster, group).await;
}

async fn until_purged(
    cluster: &TestCluster<MemoryDisk>,
    group: GroupId,
    mut body: impl FnMut() -> String,
    ledger: &mut Ledger,
) {
    loop {
        let nodes = cluster.alive();
        let seq = cluster.write_among(&nodes, group, &mut body, ledger).await;
        let leader = cluster.leader(group).await;
        let finished = cluster.submit(leader, group, None, vec![finish_up_to(seq)]);
        drop(within(finished).await);
        if nodes
            .iter()
            .all(|id| cluster.purged(*id, group).is_some_and(|purged| purged.get() > 20))
        {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_survives_when_all_nodes_lose_power_at_once() {
    let mut cluster = TestCluster::<MemoryDisk>::start(3).await;
    let mut ledger = Ledger::default();
    let group = cluster.create(node(3), "orders").await.group;
    for message in 0..50 {
        cluster.write(group, &format!("{message}"), &mut ledger).await;
    }
    for id in cluster.ids() {
        cluster.kill(id);
    }
    for id in cluster.ids() {
        cluster.boot(id).await;
    }
    for id in cluster.ids() {
        within(cluster.cluster(id).ready()).await.unwrap();
        until("the group runs again", || cluster.topic(id, group)).await;
    }
    cluster.write(group, "after", &mut ledger).await;
    ledger.settle(&mut cluster, group).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_is_gone_on_every_node_also_on_one_that_was_away() {
    let mut cluster = TestCluster::<MemoryDisk>::start(3).await;
    let mut ledger = Ledger::default();
    let record = cluster.create(node(1), "orders").await;
    let last = cluster.write(record.group, "only", &mut ledger).await;
    cluster.kill(node(3));
    let deleted = cluster
        .cluster(node(2))
        .delete_topic(name("orders"), record.group, last);
    within(deleted).await.unwrap();
    for id in [node(1), node(2)] {
        until("the group has stopped", || {
            cluster.host(id).stopped.lock().contains(&record.group).then_some(())
        })
        .await;
    }
    let tombstones = |id| cluster.cluster(id).metadata().borrow().tombstones().count();
    assert_eq!(tombstones(node(1)), 1, "one replica has not deleted its data");
    cluster.boot(node(3)).await;
    for id in cluster.ids() {
        until("no tombstone is left", || {
            (cluster.cluster(id).metadata().borrow().tombstones().count() == 0).then_some(())
        })
        .await;
    }
    let again = cluster.create(node(3), "orders").await;
    assert_ne!(again.group, record.group);
    assert_eq!(again.seq_base, last);
    for id in cluster.ids() {
        cluster.kill(id);
        let groups = cluster.store(id).groups().unwrap();
        assert!(!groups.contains(&record.group), "node {id} still has the deleted group");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_created_and_nothing_breaks() {
    let mut cluster = TestCluster::<MemoryDisk>::start(3).await;
    let mut ledger = Ledger::default();
    let group = cluster.create(node(1), "orders").await.group;
    cluster.write(group, "before", &mut ledger).await;
    cluster.kill(node(2));
    cluster.kill(node(3));
    let error = within(cluster.cluster(node(1)).create_topic(name("invoices")))
        .await
        .unwrap_err();
    assert!(error.is_retryable(), "{error}");
    cluster.boot(node(2)).await;
    until("the group runs again", || cluster.topic(node(2), group)).await;
    cluster.write(group, "after", &mut ledger).await;
    within(async { while cluster.cluster(node(1)).create_topic(name("invoices")).await.is_err() {} }).await;
    cluster.boot(node(3)).await;
    until("the group runs again", || cluster.topic(node(3), group)).await;
    ledger.settle(&mut cluster, group).await;
}

/// A leader that has lost its majority gives up and hands over when somebody answers again. That is a node that has just started, and nothing is written
/// that could show how far its log reaches: it must take over all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_leadership_that_was_given_up_goes_to_a_node_that_has_just_started() {
    let mut cluster = TestCluster::<MemoryDisk>::start(3).await;
    cluster.create(node(1), "orders").await;
    let leader = until("somebody leads the metadata", || {
        cluster.location(node(1), GroupId::METADATA)
    });
    let leader = leader.await.node;
    let others: Vec<NodeId> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    for other in &others {
        cluster.kill(*other);
    }
    // The lease runs out; what is proposed before that would be appended, and would hide the case.
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.boot(others[0]).await;
    within(async { while cluster.cluster(leader).create_topic(name("invoices")).await.is_err() {} }).await;
}
