//! What the entries of a topic's log add up to.

mod apply;
mod encoding;
mod outcome;

use std::collections::BTreeMap;

use nsquorum_protocol::ChannelName;

use crate::acceptance::Cursor;
use crate::batch::{LeaderStart, Origin};
use crate::channel::Channel;
use crate::deferral::Deferrals;
use crate::digest::Digest;
use crate::index_points::{IndexPoint, IndexPoints};
use crate::session::{SessionId, SessionVerdict, Sessions};
use crate::{ChannelIncarnation, FeatureLevel, LogIndex, LogTime, Seq, Term};

pub use outcome::{Accepted, Applied, Effect, EntryPosition, Impossible, Usage};

/// The highest meaning of apply that this program knows.
const FEATURE_LEVEL: FeatureLevel = FeatureLevel::new(1);

/// The state of one topic.
///
/// Changed only by the `apply` functions, one entry of the group's log after the other. Where messages are:
///
/// - Without channels the topic accumulates from its *floor* on. The first channel gets all of that.
/// - While paused, what comes in stays in the topic from `paused_at` on.
/// - Otherwise a message has left the topic, for all channels at once, as soon as it is applied.
///
/// [`TopicState::readable_end`] is the line between "in the channels" and "still in the topic" in all three cases.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicState {
    seq_base: Seq,
    cursor: Cursor,
    time: LogTime,
    leader: Option<LeaderStart>,
    applied: Option<(LogIndex, Term)>,
    /// Where the topic accumulates from while it has no channel; else unused, and 0.
    floor: Seq,
    paused_at: Option<Seq>,
    last_incarnation: ChannelIncarnation,
    channels: BTreeMap<ChannelIncarnation, Channel>,
    /// Always the names of `channels`; not encoded.
    names: BTreeMap<ChannelName, ChannelIncarnation>,
    deferrals: Deferrals,
    points: IndexPoints,
    sessions: Sessions,
    counters: Counters,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    messages: u64,
    message_bytes: u64,
    void_batches: u64,
}

impl TopicState {
    /// The highest feature level whose meaning of apply this program knows: what a replica announces, and the most that
    /// a leader may put into a batch.
    pub const FEATURE_LEVEL: FeatureLevel = FEATURE_LEVEL;

    /// A new topic. Its first message gets number `seq_base + 1`: 1 for a new name, more for a name that was deleted
    /// before, so that ids of one name never repeat.
    pub fn new(seq_base: Seq) -> Self {
        Self {
            seq_base,
            cursor: Cursor::at_start(seq_base),
            time: LogTime::default(),
            leader: None,
            applied: None,
            floor: seq_base.next(),
            paused_at: None,
            last_incarnation: ChannelIncarnation::default(),
            channels: BTreeMap::new(),
            names: BTreeMap::new(),
            deferrals: Deferrals::default(),
            points: IndexPoints::default(),
            sessions: Sessions::default(),
            counters: Counters::default(),
        }
    }

    /// The number below its first message.
    pub const fn seq_base(&self) -> Seq {
        self.seq_base
    }

    /// The number that the next message gets.
    pub const fn next_seq(&self) -> Seq {
        self.cursor.next_seq()
    }

    /// The acceptance rule as it stands for the next batch.
    pub const fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The log clock: the highest time of all that was accepted.
    pub const fn time(&self) -> LogTime {
        self.time
    }

    /// The last leader that announced itself.
    pub const fn leader(&self) -> Option<&LeaderStart> {
        self.leader.as_ref()
    }

    /// The last entry that was applied.
    pub const fn applied(&self) -> Option<(LogIndex, Term)> {
        self.applied
    }

    /// Whether the topic was deleted. [`TopicState::next_seq`] minus 1 is then the `seq_base` of a successor.
    pub const fn is_deleted(&self) -> bool {
        self.cursor.is_deleted()
    }

    /// The channels, by incarnation: oldest first.
    pub fn channels(&self) -> impl DoubleEndedIterator<Item = &Channel> + ExactSizeIterator + '_ {
        self.channels.values()
    }

    /// The channel of that incarnation.
    pub fn channel(&self, incarnation: ChannelIncarnation) -> Option<&Channel> {
        self.channels.get(&incarnation)
    }

    /// The channel that has the name now.
    pub fn channel_by_name(&self, name: &ChannelName) -> Option<&Channel> {
        self.channels.get(self.names.get(name)?)
    }

    /// Whether it never had a channel.
    pub fn never_had_channel(&self) -> bool {
        self.last_incarnation == ChannelIncarnation::default()
    }

    /// Whether nobody has used the topic yet: it never had a message nor a channel.
    pub fn is_untouched(&self) -> bool {
        self.counters.messages == 0 && self.never_had_channel()
    }

    /// While the topic is paused: the first number that stays in the topic.
    pub const fn paused_at(&self) -> Option<Seq> {
        self.paused_at
    }

    /// The first number that has not left the topic: channels read below it.
    pub fn readable_end(&self) -> Seq {
        if self.channels.is_empty() {
            self.floor
        } else {
            self.paused_at.unwrap_or(self.next_seq())
        }
    }

    /// How many messages are in the topic and not in its channels: they accumulate while there is no channel, or while
    /// it is paused.
    pub fn held_count(&self) -> u64 {
        self.next_seq().get() - self.readable_end().get()
    }

    /// Every number below it is needed by nobody: not by a channel, nor by one that is yet to be created.
    pub fn purge_floor(&self) -> Seq {
        // From the readable end on everything is needed: by channels later, or by one that is yet to be created.
        self.channels
            .values()
            .map(Channel::floor)
            .fold(self.readable_end(), Seq::min)
    }

    /// The first entry that a reader may still ask for: where [`TopicState::purge_floor`] is read from, or the entry
    /// after the last applied one if there is nothing to read. Entries below it hold no message that is needed.
    pub fn purge_index(&self) -> LogIndex {
        match self.points.at(self.purge_floor()) {
            Some(point) => point.index,
            None => self.applied.map_or(LogIndex::default(), |(index, _)| index.next()),
        }
    }

    /// What is known about a publish that came through a session. A leader asks before it proposes one: apply refuses a
    /// batch whose publishes are not all [`SessionVerdict::New`].
    pub fn session_verdict(&self, origin: &Origin) -> SessionVerdict {
        self.sessions.verdict(origin)
    }

    /// The publish sessions that have not ended.
    pub fn sessions(&self) -> impl DoubleEndedIterator<Item = SessionId> + '_ {
        self.sessions.open()
    }

    /// When a released deferred message falls due; `None` if it is due, or never was deferred.
    pub fn due_of(&self, seq: Seq) -> Option<LogTime> {
        self.deferrals.due_of(seq)
    }

    /// Released messages that are not due, in the order in which they fall due.
    pub fn deferred(&self) -> impl DoubleEndedIterator<Item = (LogTime, Seq)> + ExactSizeIterator + '_ {
        self.deferrals.due()
    }

    /// Deferred messages that have not left the topic, with the delay in milliseconds that begins when they do.
    pub fn unreleased(&self) -> impl DoubleEndedIterator<Item = (Seq, u32)> + ExactSizeIterator + '_ {
        self.deferrals.unreleased()
    }

    /// The last index point at or before a message: where a reader begins that wants it. Is there for every message
    /// from [`TopicState::purge_floor`] on.
    pub fn index_point(&self, seq: Seq) -> Option<IndexPoint> {
        self.points.at(seq)
    }

    /// All index points, ascending.
    pub fn index_points(&self) -> impl DoubleEndedIterator<Item = IndexPoint> + ExactSizeIterator + '_ {
        self.points.iter()
    }

    /// How many batches and leader starts were void.
    pub const fn void_batches(&self) -> u64 {
        self.counters.void_batches
    }

    /// Messages ever accepted.
    pub const fn message_count(&self) -> u64 {
        self.counters.messages
    }

    /// Bytes of all bodies ever accepted.
    pub const fn message_bytes(&self) -> u64 {
        self.counters.message_bytes
    }

    /// What the state holds, for the limits that turn into back-pressure. Costs a walk over the channels.
    pub fn usage(&self) -> Usage {
        let exceptions: usize = self.channels().map(|channel| channel.exceptions().len()).sum();
        let out_of_order = self.channels().map(Channel::finished_above_floor_count).sum::<u64>();
        let deferred = self.deferrals.len();
        Usage {
            exceptions: exceptions as u64,
            out_of_order,
            deferred: deferred as u64,
            encoded_bytes: encoding::estimate(
                self.channels.len(),
                exceptions,
                out_of_order,
                deferred,
                self.points.len(),
                self.sessions.usage(),
            ),
        }
    }

    /// SHA-256 of the canonical encoding.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }
}
