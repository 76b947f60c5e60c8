//! What a topic leader knows while it leads.

use std::collections::BTreeMap;

use nsquorum_environment::Monotonic;
use nsquorum_topic::{ChannelIncarnation, LogIndex, LogTime, Seq, Term, TopicState};

use super::dispatch::Dispatch;
use super::window::Window;

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
    clock_start: LogTime,
    clock_started_at: Monotonic,
}

impl Leading {
    pub(super) fn new(term: Term, state: Box<TopicState>, now: Monotonic) -> Self {
        let dispatches =
            state.channels().map(|channel| (channel.incarnation(), Dispatch::new(channel, &state))).collect();
        Self {
            term,
            // The LeaderStart entry has raised it to the wall clock at the start, if that was ahead.
            clock_start: state.time(),
            clock_started_at: now,
            applied_end: LogIndex::new(0),
            state,
            dispatches,
            window: Window::default(),
            deliveries: 0,
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

    /// The lowest number that some channel still has to read.
    pub(super) fn needed_from(&self) -> Seq {
        self.dispatches.values().map(Dispatch::needed_from).min().unwrap_or_else(|| self.state.next_seq())
    }
}
