//! Many random histories.
//!
//! `NSQUORUM_HISTORIES` sets how many (300), `NSQUORUM_SEED` the seed of the first (0); history *i* has seed + *i*. The seeds in
//! `seeds.txt` run first, always. After a failure:
//! `NSQUORUM_SEED=<seed> NSQUORUM_HISTORIES=1 cargo test -p nsquorum-broker --lib histories`.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::history::History;

/// What a run contained: agreement proves little about what the histories do not contain.
#[derive(Debug, Default)]
struct Census {
    void: u64,
    refused: u64,
    leaderships: u64,
    reads: u64,
    fetches: u64,
    messages: u64,
    safe: u64,
    deliveries: u64,
    redeliveries: u64,
    returned: u64,
    deferred: u64,
    late_fins: u64,
    deleted: u64,
}

impl Census {
    fn add(&mut self, history: &History) {
        let seen = history.model.seen;
        self.void += history.group.void;
        self.refused += history.group.refused;
        self.leaderships += history.leaderships;
        self.reads += history.reads;
        self.fetches += history.fetches;
        self.messages += history.group.stored.len() as u64;
        self.safe += history.publishers.safe.len() as u64;
        self.deliveries += seen.deliveries;
        self.redeliveries += seen.redeliveries;
        self.returned += seen.returned;
        self.deferred += seen.deferred;
        self.late_fins += seen.late_fins;
        self.deleted += u64::from(history.deleted.is_some());
    }

    fn assert_rich(&self, histories: u64) {
        assert!(self.void > histories, "void batches: {self:?}");
        assert!(self.refused > histories, "refused proposals: {self:?}");
        assert!(self.leaderships > 2 * histories, "leaderships: {self:?}");
        assert!(self.reads > 5 * histories, "reads of the log: {self:?}");
        assert!(self.fetches > histories, "single messages from the log: {self:?}");
        assert!(self.safe > 20 * histories, "publishes: {self:?}");
        assert!(self.deliveries > 50 * histories, "deliveries: {self:?}");
        assert!(self.redeliveries > 2 * histories, "redeliveries: {self:?}");
        assert!(self.returned > 2 * histories, "returned: {self:?}");
        assert!(self.deferred > histories, "deferred: {self:?}");
        assert!(self.late_fins > histories / 10, "FINs of earlier deliveries: {self:?}");
        assert!(self.deleted > histories / 40, "deleted topics: {self:?}");
    }
}

fn number_from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} is not a number"))
    })
}

fn run(seed: u64, census: &mut Census) {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut history = History::new(seed);
        history.run();
        history.finish();
        history
    }));
    match outcome {
        Ok(history) => census.add(&history),
        Err(cause) => {
            eprintln!("history failed; run it again with:");
            eprintln!("  NSQUORUM_SEED={seed} NSQUORUM_HISTORIES=1 cargo test -p nsquorum-broker --lib histories");
            eprintln!(
                "and keep the seed: echo '{seed} # what went wrong' >> crates/broker/src/topic_leader/tests/seeds.txt"
            );
            resume_unwind(cause);
        }
    }
}

#[test]
fn random_histories_keep_every_promise() {
    let mut census = Census::default();
    for line in include_str!("seeds.txt").lines() {
        let seed = line.split('#').next().unwrap_or_default().trim();
        if !seed.is_empty() {
            run(seed.parse().expect("a seed is a number"), &mut census);
        }
    }
    let (base, histories) = (
        number_from_env("NSQUORUM_SEED", 0),
        number_from_env("NSQUORUM_HISTORIES", 300),
    );
    for seed in (0..histories).map(|i| base.wrapping_add(i)) {
        run(seed, &mut census);
    }
    println!("{histories} histories from seed {base}: {census:?}");
    if histories >= 100 {
        census.assert_rich(histories);
    }
}
