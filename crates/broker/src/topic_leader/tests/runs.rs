//! Many random histories: 300 unless [`crate::histories`] is told otherwise.

use super::history::History;
use crate::histories;

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
    passed_over: u64,
    dropped: u64,
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
        self.passed_over += seen.passed_over;
        self.dropped += seen.dropped;
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
        assert!(self.passed_over > histories, "passed over: {self:?}");
        assert!(self.dropped > histories, "dropped by ephemeral channels: {self:?}");
        assert!(self.deleted > histories / 40, "deleted topics: {self:?}");
    }
}

#[test]
fn random_histories_keep_every_promise() {
    let mut census = Census::default();
    let kept = include_str!("seeds.txt");
    let (histories, base) = histories::run_all(kept, "topic_leader/tests/seeds.txt", 300, |seed| {
        let mut history = History::new(seed);
        history.run();
        history.finish();
        census.add(&history);
    });
    println!("{histories} histories from seed {base}: {census:?}");
    if histories >= 100 {
        census.assert_rich(histories);
    }
}
