//! What applying an entry says.

use nsquorum_protocol::ChannelName;
use thiserror::Error;

use crate::acceptance::VoidReason;
use crate::{
    Attempts, ChannelIncarnation, FeatureLevel, LogIndex, LogTime, Seq, SeqRange, SessionId, SessionVerdict, Term,
};

/// Where an entry stands in the group's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryPosition {
    /// Its index.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// Bytes of the whole encoded entry, header included. Index points depend on it, and they are part of the state: it
    /// must be the same on every replica.
    pub encoded_bytes: u32,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Applied {
    /// It counts; its publishers may be answered.
    Accepted(Accepted),
    /// It had no effect at all. If its leader still leads, it re-reads the next number and proposes again.
    Void(VoidReason),
}

/// An accepted batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Number of its first message, also when it has none.
    pub first_seq: Seq,
    /// How many messages it has.
    pub count: u32,
    /// The log clock after it.
    pub time: LogTime,
    /// What it changed, in the order of its events and then of its messages. Events that change nothing (a repeated
    /// FIN, a pause of what is paused, a channel that is gone) say nothing, but for a creation, which says which
    /// channel has the name.
    pub effects: Vec<Effect>,
}

/// A change made by an accepted batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The name has a channel.
    ChannelCreated {
        /// The name.
        name: ChannelName,
        /// The channel.
        channel: ChannelIncarnation,
        /// The first number that belongs to it.
        begin: Seq,
        /// Whether it was there before.
        existed: bool,
    },
    /// A channel is gone.
    ChannelDeleted {
        /// The channel.
        channel: ChannelIncarnation,
        /// Its name.
        name: ChannelName,
    },
    /// A channel dropped what had reached it.
    ChannelEmptied {
        /// The channel.
        channel: ChannelIncarnation,
        /// Everything below this number was dropped.
        up_to: Seq,
    },
    /// Deliveries of a channel stop.
    ChannelPaused(ChannelIncarnation),
    /// Deliveries of a channel go on.
    ChannelUnpaused(ChannelIncarnation),
    /// The flow to the channels stops.
    TopicPaused,
    /// The flow to the channels goes on.
    TopicUnpaused,
    /// What had not left the topic was dropped.
    TopicEmptied,
    /// The topic is gone, with its channels.
    TopicDeleted {
        /// The number that its next message would have got.
        next_seq: Seq,
    },
    /// A deferred message was released to the channels.
    Deferred {
        /// The message.
        seq: Seq,
        /// Log clock at which it may be delivered.
        due: LogTime,
    },
    /// A delivered message came back.
    Requeued {
        /// The channel.
        channel: ChannelIncarnation,
        /// The message.
        seq: Seq,
        /// Deliveries made so far: the highest count ever reported.
        attempts: Attempts,
        /// Log clock before which it is not delivered again.
        not_before: Option<LogTime>,
        /// It queues behind all messages below this number.
        behind: Seq,
    },
    /// Messages were finished that were not before.
    Finished {
        /// The channel.
        channel: ChannelIncarnation,
        /// How many; never 0.
        newly: u64,
        /// Those that consumers named: some of their numbers may have been finished before, or not have reached the channel.
        ranges: Vec<SeqRange>,
    },
}

/// What a state holds, for limits that turn into back-pressure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requeued messages of all channels.
    pub exceptions: u64,
    /// Numbers finished above the floors of all channels.
    pub out_of_order: u64,
    /// Deferred messages, released or not.
    pub deferred: u64,
    /// About how many bytes the encoded state has.
    pub encoded_bytes: u64,
}

/// An entry that cannot come from a correct leader, or that this program does not understand.
///
/// The state is unchanged. Trying again cannot help: the caller quarantines the group on this node. The other groups,
/// and the cluster, go on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Impossible {
    /// Entries must be applied one after the other.
    #[error("entry {index} of term {term} applied after entry {last_index} of term {last_term}")]
    Order {
        /// Index of the entry.
        index: LogIndex,
        /// Term of the entry.
        term: Term,
        /// Index of the last applied entry.
        last_index: LogIndex,
        /// Term of the last applied entry.
        last_term: Term,
    },
    /// The batch gives numbers again that were given in its own term.
    #[error("batch begins at {first_seq}, but {next_seq} is next and term {term} gave the numbers before it")]
    NumbersReused {
        /// First number of the batch.
        first_seq: Seq,
        /// The next number.
        next_seq: Seq,
        /// The term.
        term: Term,
    },
    /// The batch was made for a meaning of apply that this program does not know.
    #[error("batch of feature level {found}, this program knows {known}")]
    FeatureLevel {
        /// Level of the batch.
        found: FeatureLevel,
        /// Highest level known here.
        known: FeatureLevel,
    },
    /// A message was finished that does not exist.
    #[error("finished {range}, but {next_seq} is next")]
    FinishedUnknown {
        /// The finished range.
        range: SeqRange,
        /// The next number.
        next_seq: Seq,
    },
    /// The batch stores a publish again, or one whose session has ended, or one out of bounds.
    #[error("publish {number} of session {session} cannot be stored: {verdict:?}")]
    Session {
        /// The session.
        session: SessionId,
        /// Number of the publish.
        number: u64,
        /// What the state knows about it.
        verdict: SessionVerdict,
    },
    /// A message came back that does not exist.
    #[error("{seq} came back, but {next_seq} is next")]
    RequeuedUnknown {
        /// The message.
        seq: Seq,
        /// The next number.
        next_seq: Seq,
    },
}
