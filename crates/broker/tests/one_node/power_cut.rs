//! A power cut at every step of append, vote, checkpoint and purge.
//!
//! The store in memory makes one operation durable at a time; the cut comes after a given number of them. The places are spread over
//! the whole run, so that over many of them each kind of step is hit. `NSQUORUM_FAILURES` sets how many.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nsquorum_broker::AdminAction;
use nsquorum_storage::{Durability, MemoryStore};
use parking_lot::Mutex;

use crate::harness::{Node, name, within};

/// Small, so that checkpoints and purges happen all the time.
const CHECKPOINT_BYTES: u64 = 32 << 10;
const ROUNDS: u64 = 60;

/// The disk: makes operations durable until its power is cut.
struct Disk {
    steps: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Disk {
    fn spin(store: &MemoryStore, steps_max: u64) -> Self {
        let (steps, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (store, steps, stop) = (store.clone(), Arc::clone(&steps), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) && steps.load(Ordering::Relaxed) < steps_max {
                    if store.step() {
                        steps.fetch_add(1, Ordering::Relaxed);
                    } else {
                        std::thread::sleep(Duration::from_micros(20));
                    }
                }
            }
        });
        Self {
            steps,
            stop,
            thread: Some(thread),
        }
    }

    fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    async fn powered_off(&self, steps_max: u64) {
        while self.steps() < steps_max {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// What the clients know.
#[derive(Default)]
struct Known {
    attempted: Vec<String>,
    acknowledged: Vec<String>,
    finished: BTreeSet<String>,
}

/// Publishes, finishes three of four, requeues the rest once, and makes and deletes a channel now and then.
async fn load(store: MemoryStore, known: Arc<Mutex<Known>>) {
    let node = Node::start_with(&store, 1, CHECKPOINT_BYTES).await;
    let mut consumer = node.subscribe("c", 100).await;
    for round in 0..ROUNDS {
        let body = format!("{round}-{}", "x".repeat(4000));
        known.lock().attempted.push(body.clone());
        node.publish(&[&body]).await;
        known.lock().acknowledged.push(body);
        let delivery = consumer.receive().await;
        if delivery.token.seq.get() % 4 == 0 && delivery.token.attempts.get() == 1 {
            consumer.requeue(&delivery, 0);
        } else {
            known
                .lock()
                .finished
                .insert(String::from_utf8(delivery.body.to_vec()).expect("text"));
            consumer.finish(&delivery);
        }
        if round % 10 == 5 {
            node.administer(AdminAction::CreateChannel(name("other")))
                .await
                .expect("created");
        }
        if round % 10 == 9 {
            node.administer(AdminAction::DeleteChannel(name("other")))
                .await
                .expect("deleted");
        }
    }
    // The checkpoints and purges that the last rounds began are steps, too.
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// Everything that was acknowledged and not finished arrives once, in order; nothing else does; publishing goes on.
async fn recovered(store: MemoryStore, known: &Known, cut: u64) {
    let node = Node::start_with(&store, 2, CHECKPOINT_BYTES).await;
    node.publish(&["last"]).await;
    let mut consumer = node.subscribe("c", 2500).await;
    let mut seen = Vec::new();
    let mut last_first_delivery = 0;
    loop {
        let delivery = consumer.receive().await;
        let body = String::from_utf8(delivery.body.to_vec()).expect("text");
        if delivery.token.attempts.get() == 1 {
            assert!(
                delivery.token.seq.get() > last_first_delivery,
                "cut {cut}: out of order"
            );
            last_first_delivery = delivery.token.seq.get();
        }
        consumer.finish(&delivery);
        let is_last = body == "last";
        seen.push(body);
        // What was requeued before the cut stands at the tail, which may lie behind the last message.
        if is_last {
            break;
        }
    }
    let missing = |seen: &[String]| {
        known
            .acknowledged
            .iter()
            .filter(|body| !known.finished.contains(*body) && !seen.contains(body))
            .cloned()
            .collect::<Vec<_>>()
    };
    while !missing(&seen).is_empty() {
        let delivery = consumer.receive().await;
        seen.push(String::from_utf8(delivery.body.to_vec()).expect("text"));
        consumer.finish(&delivery);
    }
    let unique: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "cut {cut}: something came twice");
    for body in &seen {
        assert!(
            body == "last" || known.attempted.contains(body),
            "cut {cut}: a message that nobody sent"
        );
    }
    node.cluster.stop().await;
}

fn run(steps_max: u64) -> u64 {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime");
    let store = MemoryStore::new(Durability::Stepped);
    let known = Arc::new(Mutex::new(Known::default()));
    let disk = Disk::spin(&store, steps_max);
    runtime.block_on(async {
        let load = tokio::spawn(load(store.clone(), Arc::clone(&known)));
        tokio::select! {
            result = load => result.expect("no panic before the cut"),
            () = disk.powered_off(steps_max) => {}
        }
    });
    let steps = disk.steps();
    // The processes' memory is gone with the power.
    drop(disk);
    let survived = store.crash();
    runtime.shutdown_background();
    let known = std::mem::take(&mut *known.lock());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime");
    let disk = Disk::spin(&survived, u64::MAX);
    runtime.block_on(async { within(recovered(survived.clone(), &known, steps_max)).await });
    drop(disk);
    runtime.shutdown_background();
    steps
}

#[test]
fn a_power_cut_after_any_step_loses_nothing_that_was_acknowledged() {
    let cuts = std::env::var("NSQUORUM_FAILURES").map_or(40, |cuts| cuts.parse::<u64>().expect("a number") * 10);
    let steps = run(u64::MAX);
    assert!(steps > ROUNDS, "the run has steps to cut at: {steps}");
    for cut in 0..cuts {
        run(cut * steps / cuts);
    }
}
