//! The lease table of one subscription.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nsquorum_environment::Monotonic;
use nsquorum_topic::{ChannelIncarnation, Seq};

use super::delivery::{Delivery, DeliveryToken, LeaseEvent, LeaseOutcome};

/// The subscription does not hold this message (any more).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotHeld;

/// How many leases an emptied channel took from the subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emptied(pub usize);

#[derive(Clone, Copy, Debug)]
struct Lease {
    token: DeliveryToken,
    deadline: Monotonic,
    /// TOUCH cannot push the deadline beyond this: delivery time + `max_msg_timeout`.
    deadline_max: Monotonic,
}

/// Messages that one consumer holds. Bounded by the ready count, which the topic leader enforces.
#[derive(Debug)]
pub struct LeaseTable {
    msg_timeout: Duration,
    max_msg_timeout: Duration,
    leases: BTreeMap<Seq, Lease>,
    deadlines: BTreeSet<(Monotonic, Seq)>,
}

impl LeaseTable {
    /// An empty table. `msg_timeout` is the consumer's own, `max_msg_timeout` the node's bound for TOUCH.
    pub fn new(msg_timeout: Duration, max_msg_timeout: Duration) -> Self {
        Self {
            msg_timeout,
            max_msg_timeout,
            leases: BTreeMap::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// The message is being written to the socket: its lease begins.
    pub fn delivered(&mut self, delivery: &Delivery, now: Monotonic) {
        let seq = delivery.token.seq;
        // A redelivery to the same consumer replaces the lease of the earlier one: nsqd accepts the late FIN then, too.
        self.remove(seq);
        let lease = Lease {
            token: delivery.token,
            deadline: now + self.msg_timeout,
            deadline_max: now + self.max_msg_timeout,
        };
        self.deadlines.insert((lease.deadline, seq));
        self.leases.insert(seq, lease);
    }

    /// FIN.
    pub fn finish(&mut self, seq: Seq) -> Result<LeaseEvent, NotHeld> {
        self.end(seq, LeaseOutcome::Finished)
    }

    /// REQ with a delay that has been clamped to the node's `max_req_timeout`.
    pub fn requeue(&mut self, seq: Seq, delay_ms: u32) -> Result<LeaseEvent, NotHeld> {
        self.end(seq, LeaseOutcome::Requeued { delay_ms })
    }

    /// TOUCH: the lease runs for a full `msg_timeout` from now, silently capped at the delivery time + `max_msg_timeout`.
    pub fn touch(&mut self, seq: Seq, now: Monotonic) -> Result<(), NotHeld> {
        let lease = self.leases.get_mut(&seq).ok_or(NotHeld)?;
        self.deadlines.remove(&(lease.deadline, seq));
        lease.deadline = (now + self.msg_timeout).min(lease.deadline_max);
        self.deadlines.insert((lease.deadline, seq));
        Ok(())
    }

    /// The leases that have run out by `now`, in order of their deadlines.
    pub fn expire(&mut self, now: Monotonic) -> Vec<LeaseEvent> {
        self.expire_as(now, LeaseOutcome::TimedOut)
    }

    /// When [`expire`](Self::expire) has something to do next.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Messages held.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// The channel was emptied: nothing is held any more, and late FINs are refused.
    pub fn empty(&mut self) -> Emptied {
        let count = self.leases.len();
        self.leases.clear();
        self.deadlines.clear();
        Emptied(count)
    }

    /// The connection is gone: what it held stays in flight until its own deadline (nsqd's rule).
    pub fn disconnect(self) -> OrphanedLeases {
        OrphanedLeases { table: self }
    }

    fn expire_as(&mut self, now: Monotonic, outcome: LeaseOutcome) -> Vec<LeaseEvent> {
        let mut events = Vec::new();
        while let Some((deadline, seq)) = self.deadlines.first().copied() {
            if deadline > now {
                break;
            }
            events.extend(self.end(seq, outcome));
        }
        events
    }

    fn end(&mut self, seq: Seq, outcome: LeaseOutcome) -> Result<LeaseEvent, NotHeld> {
        let lease = self.remove(seq).ok_or(NotHeld)?;
        Ok(LeaseEvent {
            token: lease.token,
            outcome,
        })
    }

    fn remove(&mut self, seq: Seq) -> Option<Lease> {
        let lease = self.leases.remove(&seq)?;
        self.deadlines.remove(&(lease.deadline, seq));
        Some(lease)
    }
}

/// Leases whose consumer is gone. They only run out.
#[derive(Debug)]
pub struct OrphanedLeases {
    table: LeaseTable,
}

impl OrphanedLeases {
    /// The leases that have run out by `now`.
    pub fn expire(&mut self, now: Monotonic) -> Vec<LeaseEvent> {
        self.table.expire_as(now, LeaseOutcome::Disconnected)
    }

    /// When the next one runs out.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        self.table.next_deadline()
    }

    /// The channel that they are of; `None` if all have run out.
    pub(crate) fn channel(&self) -> Option<ChannelIncarnation> {
        self.table.leases.values().next().map(|lease| lease.token.channel)
    }

    /// Whether all have run out.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Whether this delivery of the message is among them: it was written to the socket.
    pub(crate) fn holds(&self, seq: Seq, delivery: u64) -> bool {
        self.table
            .leases
            .get(&seq)
            .is_some_and(|lease| lease.token.delivery == delivery)
    }

    /// The channel was emptied.
    pub fn empty(&mut self) -> Emptied {
        self.table.empty()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use nsquorum_topic::{Attempts, ChannelIncarnation, LogTime, Term};

    use super::*;

    fn delivery(seq: u64, attempts: u16) -> Delivery {
        Delivery {
            token: DeliveryToken {
                channel: ChannelIncarnation::new(1),
                seq: Seq::new(seq),
                attempts: Attempts::new(attempts),
                term: Term::new(1),
                delivery: seq * 10 + u64::from(attempts),
            },
            published_at: LogTime::new(0),
            body: Bytes::from_static(b"x"),
            crc32c: 0,
        }
    }

    fn at(ms: u64) -> Monotonic {
        Monotonic::START + Duration::from_millis(ms)
    }

    fn table() -> LeaseTable {
        LeaseTable::new(Duration::from_millis(100), Duration::from_millis(250))
    }

    #[test]
    fn a_lease_ends_once() {
        let mut table = table();
        table.delivered(&delivery(1, 1), at(0));
        let event = table.finish(Seq::new(1)).expect("held");
        assert_eq!((event.token.seq, event.outcome), (Seq::new(1), LeaseOutcome::Finished));
        assert_eq!(table.finish(Seq::new(1)), Err(NotHeld));
        assert_eq!(table.requeue(Seq::new(1), 0), Err(NotHeld));
        assert!(table.expire(at(10_000)).is_empty());
    }

    #[test]
    fn leases_run_out_at_their_deadline_and_not_before() {
        let mut table = table();
        table.delivered(&delivery(2, 1), at(0));
        table.delivered(&delivery(1, 1), at(50));
        assert_eq!(table.next_deadline(), Some(at(100)));
        assert!(table.expire(at(99)).is_empty());
        let events = table.expire(at(150));
        assert_eq!(events.iter().map(|e| e.token.seq.get()).collect::<Vec<_>>(), [2, 1]);
        assert!(events.iter().all(|e| e.outcome == LeaseOutcome::TimedOut));
        assert_eq!(table.finish(Seq::new(1)), Err(NotHeld));
    }

    #[test]
    fn touch_extends_up_to_the_cap() {
        let mut table = table();
        table.delivered(&delivery(1, 1), at(0));
        table.touch(Seq::new(1), at(90)).expect("held");
        assert_eq!(table.next_deadline(), Some(at(190)));
        table.touch(Seq::new(1), at(180)).expect("held");
        assert_eq!(
            table.next_deadline(),
            Some(at(250)),
            "capped at delivery + max_msg_timeout"
        );
        assert_eq!(table.touch(Seq::new(2), at(0)), Err(NotHeld));
    }

    #[test]
    fn a_redelivery_to_the_same_consumer_takes_over_the_lease() {
        let mut table = table();
        table.delivered(&delivery(1, 1), at(0));
        table.delivered(&delivery(1, 2), at(60));
        assert!(
            table.expire(at(100)).is_empty(),
            "the first delivery's deadline is gone"
        );
        assert_eq!(
            table.finish(Seq::new(1)).expect("held").token.attempts,
            Attempts::new(2)
        );
    }

    #[test]
    fn what_a_lost_consumer_held_runs_out_as_disconnected() {
        let mut table = table();
        table.delivered(&delivery(1, 1), at(0));
        let mut orphans = table.disconnect();
        assert!(orphans.expire(at(99)).is_empty());
        assert_eq!(orphans.expire(at(100))[0].outcome, LeaseOutcome::Disconnected);
        assert!(orphans.is_empty());
    }

    #[test]
    fn an_emptied_channel_takes_every_lease() {
        let mut table = table();
        table.delivered(&delivery(1, 1), at(0));
        table.delivered(&delivery(2, 1), at(0));
        assert_eq!(table.empty(), Emptied(2));
        assert!(table.is_empty());
        assert_eq!(table.finish(Seq::new(1)), Err(NotHeld));
        assert!(table.expire(at(10_000)).is_empty());
    }
}
