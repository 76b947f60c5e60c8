//! What a topic leader knows while it leads.

use std::collections::{BTreeMap, BTreeSet};

use nsquorum_environment::Monotonic;
use nsquorum_topic::{Channel, ChannelIncarnation, EntryPosition, LogIndex, LogTime, NodeId, Seq, Term, TopicState};

use super::dispatch::Dispatch;
use super::repeats::Repeats;
use super::window::Window;

/// Encoded bytes of a requeued message.
const EXCEPTION_BYTES: u64 = 27;
/// Encoded bytes of a number that is finished out of order, at worst.
const OUT_OF_ORDER_BYTES: u64 = 4;

/// Claims that a new leader waits for.
#[derive(Debug)]
pub(super) struct Awaited {
    /// The own node is among them.
    pub(super) nodes: BTreeSet<NodeId>,
    pub(super) until: Monotonic,
}

/// One leadership.
#[derive(Debug)]
pub(super) struct Leading {
    pub(super) term: Term,
    /// This leader's own copy, kept up by applying what the group applies.
    pub(super) state: Box<TopicState>,
    /// One past the last applied entry: readers stop there.
    pub(super) applied_end: LogIndex,
    pub(super) dispatches: BTreeMap<ChannelIncarnation, Dispatch>,
    pub(super) window: Window,
    pub(super) deliveries: u64,
    /// Nodes that have not said yet what their consumers hold, and until when that is waited for. Nothing is delivered before.
    pub(super) awaited: Option<Awaited>,
    /// Nobody has used the topic, and it is not known yet which channels it has elsewhere: nothing is proposed before.
    pub(super) is_asking: bool,
    pub(super) repeats: Repeats,
    clock_start: LogTime,
    clock_started_at: Monotonic,
}

impl Leading {
    pub(super) fn new(term: Term, state: Box<TopicState>, now: Monotonic) -> Self {
        let dispatches = state
            .channels()
            .map(|channel| (channel.incarnation(), Dispatch::new(channel, &state)))
            .collect();
        Self {
            term,
            // The LeaderStart entry has raised it to the wall clock at the start, if that was ahead.
            clock_start: state.time(),
            clock_started_at: now,
            applied_end: state.applied().map_or(LogIndex::new(0), |(index, _)| index.next()),
            state,
            dispatches,
            window: Window::default(),
            deliveries: 0,
            awaited: None,
            is_asking: false,
            repeats: Repeats::default(),
        }
    }

    /// The leader clock: never back, whatever the wall clock does.
    pub(super) fn clock(&self, now: Monotonic) -> LogTime {
        let elapsed = now.since(self.clock_started_at).as_nanos();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        LogTime::new(self.clock_start.get().saturating_add(elapsed)).max(self.state.time())
    }

    /// When the leader clock will have reached `time`.
    pub(super) fn when(&self, time: LogTime) -> Monotonic {
        let ahead = time.get().saturating_sub(self.clock_start.get());
        self.clock_started_at + std::time::Duration::from_nanos(ahead)
    }

    /// Moves the state over entries that say nothing to a topic (memberships): the group does not report them.
    pub(super) fn pass_others(&mut self, up_to: EntryPosition) {
        while let Some((index, _)) = self.state.applied()
            && index.next() < up_to.index
        {
            let other = EntryPosition {
                index: index.next(),
                term: up_to.term,
                encoded_bytes: 0,
            };
            self.state
                .apply_other(other)
                .expect("the next entry of a term that does not go back");
        }
    }

    /// Whether a channel may begin messages that it has not delivered yet, under a bound for what deliveries add to the encoded state:
    /// requeues, and numbers finished out of order. (Index points of a long backlog do not count: only reading makes it shorter.)
    ///
    /// A channel within its share always may, so that one that nobody serves does not hold up the others; the topic stays below
    /// twice the bound.
    pub(super) fn has_room(&self, channel: &Channel, bytes_max: u64) -> bool {
        let usage = self.state.usage();
        if delivered_bytes(usage.exceptions, usage.out_of_order) <= bytes_max {
            return true;
        }
        let own = delivered_bytes(channel.exceptions().len() as u64, channel.finished_above_floor_count());
        own <= bytes_max / self.state.channels().len() as u64
    }

    /// The lowest number that some channel still has to read.
    pub(super) fn needed_from(&self) -> Seq {
        self.dispatches
            .values()
            .map(Dispatch::needed_from)
            .min()
            .unwrap_or_else(|| self.state.next_seq())
    }
}

fn delivered_bytes(exceptions: u64, out_of_order: u64) -> u64 {
    exceptions * EXCEPTION_BYTES + out_of_order * OUT_OF_ORDER_BYTES
}
