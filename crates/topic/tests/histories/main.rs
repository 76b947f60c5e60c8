//! Random histories of a topic, machine against naive model.
//!
//! `NSQUORUM_HISTORIES` sets how many (1,000), `NSQUORUM_SEED` the seed of the first (0); history *i* has seed + *i*. The
//! seeds in `tests/seeds.txt` run first, always. After a failure:
//! `NSQUORUM_SEED=<seed> NSQUORUM_HISTORIES=1 cargo test -p nsquorum-topic --test histories`.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod compare;
mod content;
mod dice;
mod history;
mod naive;
mod routers;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use history::{Census, History};

fn number_from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} is not a number"))
    })
}

fn run(seed: u64, census: &mut Census) {
    match catch_unwind(AssertUnwindSafe(|| History::run(seed))) {
        Ok(counted) => census.add(&counted),
        Err(cause) => {
            eprintln!("history failed; run it again with:");
            eprintln!("  NSQUORUM_SEED={seed} NSQUORUM_HISTORIES=1 cargo test -p nsquorum-topic --test histories");
            eprintln!("and keep the seed: echo '{seed} # what went wrong' >> crates/topic/tests/seeds.txt");
            resume_unwind(cause);
        }
    }
}

#[test]
fn machine_and_model_agree() {
    let mut census = Census::default();
    for line in include_str!("../seeds.txt").lines() {
        let seed = line.split('#').next().unwrap_or_default().trim();
        if !seed.is_empty() {
            run(seed.parse().expect("a seed is a number"), &mut census);
        }
    }
    let (base, histories) = (
        number_from_env("NSQUORUM_SEED", 0),
        number_from_env("NSQUORUM_HISTORIES", 1_000),
    );
    for seed in (0..histories).map(|i| base.wrapping_add(i)) {
        run(seed, &mut census);
    }
    println!("{histories} histories from seed {base}: {census:?}");
    if histories >= 100 {
        census.assert_rich(histories);
    }
}

impl Census {
    fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.void += other.void;
        self.refused += other.refused;
        self.terms += other.terms;
        self.restarts += other.restarts;
        self.deleted += other.deleted;
        self.deferred += other.deferred;
        self.requeued += other.requeued;
        self.pruned_points += other.pruned_points;
        self.sent_again += other.sent_again;
        self.sessions_ended += other.sessions_ended;
    }

    /// Agreement proves little about what the histories do not contain.
    fn assert_rich(&self, histories: u64) {
        assert!(self.accepted > 10 * histories, "accepted batches: {self:?}");
        assert!(self.void > histories, "void batches: {self:?}");
        assert!(self.refused > histories, "refused proposals: {self:?}");
        assert!(self.terms > 2 * histories, "terms: {self:?}");
        assert!(self.restarts > 2 * histories, "restarts: {self:?}");
        assert!(self.deleted > histories / 50, "deleted topics: {self:?}");
        assert!(self.deferred > histories, "deferred messages: {self:?}");
        assert!(self.requeued > histories, "requeued messages: {self:?}");
        assert!(self.pruned_points > histories / 10, "pruned points: {self:?}");
        assert!(self.sent_again > histories, "publishes sent again: {self:?}");
        assert!(self.sessions_ended > histories / 10, "ended sessions: {self:?}");
    }
}
