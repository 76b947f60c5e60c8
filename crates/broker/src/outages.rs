//! How long publishing has been failing, topic by topic: what a repeated failure waits before it is told.
//!
//! NSQ's publish errors end the connection, so its clients come back at once and publish again. While a topic cannot store anything that would be a
//! storm of connections, and the worse the more clients there are. So the answer to a failure is held back for half of the time for which
//! the topic has been failing on this node: not at all for the first, then ever longer, up to [`DELAY_MAX`]. Whoever tries again is slowed down by as
//! much, however many they are; and nobody waits for longer than half of what the outage has lasted already. The first publish that is stored ends
//! it.
//!
//! The state belongs to the node, because the connection that failed is gone with its error. It is bounded: beyond [`TOPICS_MAX`] failing topics each
//! failure of a further one waits the longest time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nsquorum_environment::Monotonic;
use nsquorum_protocol::TopicName;
use parking_lot::Mutex;

use crate::publish::PublishError;

/// The longest that a failure is held back. Clients wait for it beyond the publish timeout.
const DELAY_MAX: Duration = Duration::from_secs(5);
/// A topic whose last failure is this old, and into which nothing was published since, begins anew. Longer than any sensible publish timeout and
/// [`DELAY_MAX`] together: that is how far apart the failures of one client are.
const FORGET_AFTER: Duration = Duration::from_secs(120);
/// Failing topics that are remembered: about 2 MiB.
const TOPICS_MAX: usize = 16_384;

#[derive(Clone, Copy, Debug)]
struct Outage {
    since: Monotonic,
    last: Monotonic,
}

#[derive(Debug, Default)]
struct Shared {
    /// How many topics fail: nearly always none, and then a stored publish takes no lock.
    count: AtomicUsize,
    topics: Mutex<BTreeMap<TopicName, Outage>>,
}

/// The topics of this node whose publishes fail; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Outages(Arc<Shared>);

impl Outages {
    /// A publish has failed: how long its answer is to be held back. Zero for failures that another attempt does not meet again on this node (the
    /// topic is being deleted, the node is stopping), and for those that are no outage.
    pub fn failed(&self, topic: &TopicName, error: PublishError, now: Monotonic) -> Duration {
        match error {
            PublishError::Exiting
            | PublishError::Stopping
            | PublishError::ChannelNotFound
            | PublishError::TopicPaused => return Duration::ZERO,
            PublishError::DiskFull
            | PublishError::TooManyDeferred
            | PublishError::TimedOut
            | PublishError::Quarantined => {}
        }
        let mut topics = self.0.topics.lock();
        if let Some(outage) = topics.get_mut(topic)
            && now.since(outage.last) < FORGET_AFTER
        {
            outage.last = now;
            return (now.since(outage.since) / 2).min(DELAY_MAX);
        }
        if topics.len() >= TOPICS_MAX {
            topics.retain(|_, outage| now.since(outage.last) < FORGET_AFTER);
        }
        let has_room = topics.len() < TOPICS_MAX;
        if has_room {
            tracing::warn!(%topic, %error, "publishes fail");
            topics.insert(topic.clone(), Outage { since: now, last: now });
        }
        self.count(topics.len());
        if has_room { Duration::ZERO } else { DELAY_MAX }
    }

    /// A publish was stored: the topic's next failure is a first one.
    pub fn stored(&self, topic: &TopicName, now: Monotonic) {
        if self.0.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut topics = self.0.topics.lock();
        if let Some(outage) = topics.remove(topic) {
            tracing::info!(%topic, failing_for = ?now.since(outage.since), "publishes succeed again");
            self.count(topics.len());
        }
    }

    fn count(&self, topics: usize) {
        self.0.count.store(topics, Ordering::Relaxed);
        metrics::gauge!("nsquorum_failing_topics").set(topics as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(number: usize) -> TopicName {
        format!("topic-{number}").parse().expect("valid")
    }

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_nanos(ms * 1_000_000)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_client_that_comes_back_at_once_waits_ever_longer() {
        let outages = Outages::default();
        let (topic, timeout) = (topic(1), ms(5_000));
        let mut now = at(0);
        let mut delays = Vec::new();
        for _ in 0..5 {
            now = now + timeout;
            let delay = outages.failed(&topic, PublishError::TimedOut, now);
            delays.push(delay);
            now = now + delay;
        }
        assert_eq!(delays, [ms(0), ms(2_500), ms(5_000), ms(5_000), ms(5_000)]);
    }

    #[test]
    fn refusals_without_a_timeout_are_slowed_down_too() {
        let outages = Outages::default();
        let (mut now, mut attempts) = (at(0), 0);
        while now < at(60_000) {
            now = now + ms(1) + outages.failed(&topic(1), PublishError::DiskFull, now);
            attempts += 1;
        }
        assert!(attempts < 50, "{attempts} attempts of one client in a minute");
    }

    #[test]
    fn many_clients_make_nobody_wait_longer() {
        let outages = Outages::default();
        let topic = topic(1);
        for _ in 0..1000 {
            assert_eq!(outages.failed(&topic, PublishError::TimedOut, at(5_000)), ms(0));
        }
        assert_eq!(outages.failed(&topic, PublishError::TimedOut, at(6_000)), ms(500));
    }

    #[test]
    fn a_stored_publish_ends_it_for_its_topic_only() {
        let outages = Outages::default();
        for number in [1, 2] {
            outages.failed(&topic(number), PublishError::TimedOut, at(0));
        }
        outages.stored(&topic(1), at(1_000));
        assert_eq!(outages.failed(&topic(1), PublishError::TimedOut, at(2_000)), ms(0));
        assert_eq!(outages.failed(&topic(2), PublishError::TimedOut, at(2_000)), ms(1_000));
    }

    #[test]
    fn an_old_failure_is_forgotten() {
        let outages = Outages::default();
        outages.failed(&topic(1), PublishError::TimedOut, at(0));
        let later = at(0) + FORGET_AFTER;
        assert_eq!(outages.failed(&topic(1), PublishError::TimedOut, later), ms(0));
    }

    #[test]
    fn the_end_of_a_topic_or_node_is_told_at_once() {
        let outages = Outages::default();
        for error in [PublishError::Exiting, PublishError::Stopping] {
            for now in [0, 10_000] {
                assert_eq!(outages.failed(&topic(1), error, at(now)), ms(0));
            }
        }
    }

    #[test]
    fn the_memory_is_bounded_and_beyond_it_everybody_waits() {
        let outages = Outages::default();
        for number in 0..TOPICS_MAX {
            assert_eq!(outages.failed(&topic(number), PublishError::TimedOut, at(0)), ms(0));
        }
        let one_more = topic(TOPICS_MAX);
        assert_eq!(outages.failed(&one_more, PublishError::TimedOut, at(1)), DELAY_MAX);
        assert_eq!(outages.0.topics.lock().len(), TOPICS_MAX);
        let later = at(0) + FORGET_AFTER;
        assert_eq!(outages.failed(&one_more, PublishError::TimedOut, later), ms(0));
        assert_eq!(outages.0.topics.lock().len(), 1, "what was quiet is gone");
    }
}
