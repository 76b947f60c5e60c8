//! Random histories of kills, cuts, transfers and power cuts, with writes in between.
//!
//! `NSQUORUM_HISTORIES` sets how many (2 by default), `NSQUORUM_SEED` where they begin; a failure prints its seed. The seed decides what
//! happens and in which order, not how the threads of the nodes interleave.

use std::time::Duration;

use nsquorum_environment::{Random, SeededRandom};
use nsquorum_topic::{GroupId, NodeId};

use crate::cluster::{TestCluster, until};
use crate::disk::{Disk, MemoryDisk};
use crate::ledger::Ledger;
use crate::writer::{Written, create_channel, finish_up_to};

const STEPS: u64 = 30;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().unwrap())
}

struct History<D: Disk> {
    cluster: TestCluster<D>,
    ledger: Ledger,
    group: GroupId,
    random: SeededRandom,
    written: u64,
    did: Vec<String>,
}

impl<D: Disk> History<D> {
    fn any(&self, nodes: &[NodeId]) -> NodeId {
        nodes[usize::try_from(self.random.below(nodes.len() as u64)).unwrap()]
    }

    /// A few writes wherever somebody believes to lead, none of them waited for very long.
    async fn write(&mut self) {
        for _ in 0..=self.random.below(12) {
            self.written += 1;
            // Large ones make checkpoints, and with them purges and snapshots.
            let filling = usize::try_from(self.random.below(3) * 900).unwrap();
            let body = format!("{} {}", self.written, "x".repeat(filling));
            let leading: Vec<_> = self
                .cluster
                .alive()
                .into_iter()
                .filter(|id| self.cluster.leader_among(self.group, &[*id]).is_some())
                .collect();
            if leading.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            let to = self.any(&leading);
            self.ledger.sent(&body);
            let events = match self.ledger.last() {
                Some(last) if self.random.below(4) == 0 => vec![finish_up_to(last)],
                _ => Vec::new(),
            };
            let outcome = self.cluster.submit(to, self.group, Some(&body), events);
            if let Ok(Ok(Written::Ok(seq))) = tokio::time::timeout(Duration::from_millis(300), outcome).await {
                self.ledger.acknowledged(seq, &body);
            }
        }
    }

    async fn step(&mut self) {
        let ids = self.cluster.ids();
        let alive = self.cluster.alive();
        let (a, b) = (self.any(&ids), self.any(&ids));
        let did = match self.random.below(12) {
            0 | 1 if alive.len() > 1 => {
                let victim = self.any(&alive);
                self.cluster.kill(victim);
                format!("kill {victim}")
            }
            2 if alive.len() == ids.len() => {
                let victim = self.any(&alive);
                self.cluster.stop(victim).await;
                format!("stop {victim}")
            }
            3 => {
                for id in alive {
                    self.cluster.kill(id);
                }
                for id in ids {
                    self.cluster.boot(id).await;
                }
                "power cut".into()
            }
            4 => {
                self.cluster.mesh.isolate(a);
                format!("isolate {a}")
            }
            5 if a != b => {
                self.cluster.mesh.cut_one_way(a, b);
                format!("cut {a} to {b}")
            }
            6 if a != b => {
                self.cluster.mesh.break_link(a, b);
                format!("break {a} to {b}")
            }
            7 | 8 => {
                self.cluster.mesh.heal_all();
                "heal".into()
            }
            9 => {
                let pause = self.random.below(1200);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                format!("pause {pause} ms")
            }
            _ => {
                let down: Vec<_> = ids.into_iter().filter(|id| !alive.contains(id)).collect();
                for id in &down {
                    self.cluster.boot(*id).await;
                }
                format!("boot {down:?}")
            }
        };
        self.did.push(did);
    }

    async fn settle(mut self) {
        self.cluster.mesh.heal_all();
        for id in self.cluster.ids() {
            if !self.cluster.alive().contains(&id) {
                self.cluster.boot(id).await;
            }
        }
        for id in self.cluster.ids() {
            until("the group runs", || self.cluster.topic(id, self.group)).await;
        }
        // Without healing by hand: service returns by itself.
        self.cluster.write(self.group, "at the end", &mut self.ledger).await;
        self.ledger.settle(&mut self.cluster, self.group).await;
    }
}

async fn run(seed: u64) {
    let cluster = TestCluster::<MemoryDisk>::start_with(3, 8 << 10).await;
    let group = cluster.create(NodeId::new(1), "orders").await.group;
    let leader = cluster.leader(group).await;
    drop(cluster.submit(leader, group, None, vec![create_channel("work")]).await);
    let mut history = History {
        cluster,
        ledger: Ledger::default(),
        group,
        random: SeededRandom::new(seed),
        written: 0,
        did: Vec::new(),
    };
    for _ in 0..STEPS {
        history.write().await;
        history.step().await;
    }
    println!(
        "seed {seed}: {} acknowledged; {}",
        history.ledger.count(),
        history.did.join(", ")
    );
    history.settle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_histories_keep_every_promise() {
    let first = number("NSQUORUM_SEED", 1);
    for seed in first..first + number("NSQUORUM_HISTORIES", 2) {
        println!("NSQUORUM_SEED={seed}");
        run(seed).await;
    }
}
