//! The events of a batch: everything but messages.

use bytes::BufMut;
use nsquorum_protocol::ChannelName;

use crate::format::{FormatError, Reader};
use crate::{Attempts, ChannelIncarnation, LogTime, NodeId, NodeIncarnation, Seq, SeqRange, SessionId};

use super::EVENT_HEADER_BYTES;
use super::extension::Fields;

/// A change of the topic's state that is not a message.
///
/// Events of a batch are applied in order, before its messages. One that names a channel that does not exist (any more)
/// does nothing: a late FIN for a deleted channel must not stop a replica, nor finish messages of a successor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Creates a channel, or does nothing if the name exists.
    CreateChannel {
        /// Its name.
        name: ChannelName,
    },
    /// Deletes a channel with all that it holds.
    DeleteChannel {
        /// The channel.
        channel: ChannelIncarnation,
    },
    /// Drops all messages that have reached the channel.
    EmptyChannel {
        /// The channel.
        channel: ChannelIncarnation,
    },
    /// Stops deliveries of the channel.
    PauseChannel {
        /// The channel.
        channel: ChannelIncarnation,
    },
    /// Lets deliveries of the channel go on.
    UnpauseChannel {
        /// The channel.
        channel: ChannelIncarnation,
    },
    /// Stops the flow from the topic to its channels.
    PauseTopic,
    /// Lets messages flow to the channels again.
    UnpauseTopic,
    /// Drops the messages that have not left the topic yet; channels keep theirs.
    EmptyTopic,
    /// Ends the topic: every later batch is void. Must be the last event of a batch without messages.
    DeleteTopic,
    /// Consumers of the channel are done with these messages.
    Finish {
        /// The channel.
        channel: ChannelIncarnation,
        /// The finished numbers; at least one range.
        ranges: Vec<SeqRange>,
    },
    /// A delivered message comes back.
    Requeue {
        /// The channel.
        channel: ChannelIncarnation,
        /// The message.
        seq: Seq,
        /// Deliveries made so far.
        attempts: Attempts,
        /// Log clock before which it is not delivered again; `None` for at once.
        not_before: Option<LogTime>,
        /// Why it comes back.
        cause: RequeueCause,
    },
    /// A start of a node is over: the publish sessions of this start and of all earlier ones end.
    EndSession {
        /// The last session that ends.
        last: SessionId,
    },
}

/// Why a delivered message comes back to its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequeueCause {
    /// The consumer sent REQ.
    Requeue,
    /// Neither FIN, REQ nor TOUCH came in time.
    Timeout,
    /// The consumer's connection ended.
    Disconnect,
}

mod kind {
    pub(super) const CREATE_CHANNEL: u8 = 1;
    pub(super) const DELETE_CHANNEL: u8 = 2;
    pub(super) const EMPTY_CHANNEL: u8 = 3;
    pub(super) const PAUSE_CHANNEL: u8 = 4;
    pub(super) const UNPAUSE_CHANNEL: u8 = 5;
    pub(super) const PAUSE_TOPIC: u8 = 6;
    pub(super) const UNPAUSE_TOPIC: u8 = 7;
    pub(super) const EMPTY_TOPIC: u8 = 8;
    pub(super) const DELETE_TOPIC: u8 = 9;
    pub(super) const FINISH: u8 = 10;
    pub(super) const REQUEUE: u8 = 11;
    pub(super) const END_SESSION: u8 = 12;
}

const RANGE_BYTES: usize = 16;

impl Event {
    const fn kind(&self) -> u8 {
        match self {
            Self::CreateChannel { .. } => kind::CREATE_CHANNEL,
            Self::DeleteChannel { .. } => kind::DELETE_CHANNEL,
            Self::EmptyChannel { .. } => kind::EMPTY_CHANNEL,
            Self::PauseChannel { .. } => kind::PAUSE_CHANNEL,
            Self::UnpauseChannel { .. } => kind::UNPAUSE_CHANNEL,
            Self::PauseTopic => kind::PAUSE_TOPIC,
            Self::UnpauseTopic => kind::UNPAUSE_TOPIC,
            Self::EmptyTopic => kind::EMPTY_TOPIC,
            Self::DeleteTopic => kind::DELETE_TOPIC,
            Self::Finish { .. } => kind::FINISH,
            Self::Requeue { .. } => kind::REQUEUE,
            Self::EndSession { .. } => kind::END_SESSION,
        }
    }

    fn content_bytes(&self) -> usize {
        match self {
            Self::CreateChannel { name } => name.as_str().len(),
            Self::DeleteChannel { .. }
            | Self::EmptyChannel { .. }
            | Self::PauseChannel { .. }
            | Self::UnpauseChannel { .. } => 8,
            Self::PauseTopic | Self::UnpauseTopic | Self::EmptyTopic | Self::DeleteTopic => 0,
            Self::Finish { ranges, .. } => 8 + ranges.len() * RANGE_BYTES,
            Self::Requeue { .. } => 28,
            Self::EndSession { .. } => 16,
        }
    }

    /// Bytes that the event takes in a batch.
    pub fn encoded_len(&self) -> usize {
        EVENT_HEADER_BYTES + self.content_bytes()
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(self.kind());
        out.put_u8(0);
        out.put_u16_le(0);
        out.put_u32_le(
            u32::try_from(self.content_bytes())
                .expect("an event is smaller than an entry, which is smaller than 4 GiB"),
        );
        match self {
            Self::CreateChannel { name } => out.put_slice(name.as_str().as_bytes()),
            Self::DeleteChannel { channel }
            | Self::EmptyChannel { channel }
            | Self::PauseChannel { channel }
            | Self::UnpauseChannel { channel } => out.put_u64_le(channel.get()),
            Self::PauseTopic | Self::UnpauseTopic | Self::EmptyTopic | Self::DeleteTopic => {}
            Self::Finish { channel, ranges } => {
                assert!(!ranges.is_empty(), "a Finish event names at least one range");
                out.put_u64_le(channel.get());
                for range in ranges {
                    out.put_u64_le(range.first().get());
                    out.put_u64_le(range.last().get());
                }
            }
            Self::Requeue {
                channel,
                seq,
                attempts,
                not_before,
                cause,
            } => {
                out.put_u64_le(channel.get());
                out.put_u64_le(seq.get());
                out.put_u16_le(attempts.get());
                out.put_u8(match cause {
                    RequeueCause::Requeue => 0,
                    RequeueCause::Timeout => 1,
                    RequeueCause::Disconnect => 2,
                });
                out.put_u8(u8::from(not_before.is_some()));
                out.put_u64_le(not_before.map_or(0, LogTime::get));
            }
            Self::EndSession { last } => {
                out.put_u64_le(last.node.get());
                out.put_u64_le(last.incarnation.get());
            }
        }
    }

    /// Reads the next event of a section.
    pub(super) fn read(section: &mut Reader<'_>) -> Result<Self, FormatError> {
        let kind = section.u8("event kind")?;
        if section.u8("event reserve")? != 0 {
            return Err(FormatError::Value { what: "event reserve" });
        }
        let extension_bytes = usize::from(section.u16("event extension length")?);
        let content_bytes = section.u32("event length")? as usize;
        let mut content = Reader::new(section.take(content_bytes, "event")?);
        Fields::read(section.take(extension_bytes, "event extension")?)?;
        let event = Self::read_content(kind, &mut content)?;
        content.end("event")?;
        Ok(event)
    }

    fn read_content(kind: u8, content: &mut Reader<'_>) -> Result<Self, FormatError> {
        Ok(match kind {
            kind::CREATE_CHANNEL => Self::CreateChannel {
                name: read_name(content, content.remaining())?,
            },
            kind::DELETE_CHANNEL => Self::DeleteChannel {
                channel: read_channel(content)?,
            },
            kind::EMPTY_CHANNEL => Self::EmptyChannel {
                channel: read_channel(content)?,
            },
            kind::PAUSE_CHANNEL => Self::PauseChannel {
                channel: read_channel(content)?,
            },
            kind::UNPAUSE_CHANNEL => Self::UnpauseChannel {
                channel: read_channel(content)?,
            },
            kind::PAUSE_TOPIC => Self::PauseTopic,
            kind::UNPAUSE_TOPIC => Self::UnpauseTopic,
            kind::EMPTY_TOPIC => Self::EmptyTopic,
            kind::DELETE_TOPIC => Self::DeleteTopic,
            kind::FINISH => Self::Finish {
                channel: read_channel(content)?,
                ranges: read_ranges(content)?,
            },
            kind::REQUEUE => read_requeue(content)?,
            kind::END_SESSION => Self::EndSession {
                last: SessionId {
                    node: NodeId::new(content.u64("session")?),
                    incarnation: NodeIncarnation::new(content.u64("session")?),
                },
            },
            unknown => return Err(FormatError::EventKind(unknown)),
        })
    }
}

/// Reads a channel name of `len` bytes.
pub(crate) fn read_name(reader: &mut Reader<'_>, len: usize) -> Result<ChannelName, FormatError> {
    ChannelName::try_from(reader.take(len, "channel name")?).map_err(|_| FormatError::Value { what: "channel name" })
}

fn read_channel(content: &mut Reader<'_>) -> Result<ChannelIncarnation, FormatError> {
    Ok(ChannelIncarnation::new(content.u64("channel incarnation")?))
}

fn read_ranges(content: &mut Reader<'_>) -> Result<Vec<SeqRange>, FormatError> {
    let count = content.remaining() / RANGE_BYTES;
    if count == 0 {
        return Err(FormatError::Bounds {
            what: "finished ranges",
        });
    }
    (0..count)
        .map(|_| {
            let first = Seq::new(content.u64("finished range")?);
            let last = Seq::new(content.u64("finished range")?);
            SeqRange::new(first, last).ok_or(FormatError::Value { what: "finished range" })
        })
        .collect()
}

fn read_requeue(content: &mut Reader<'_>) -> Result<Event, FormatError> {
    let channel = read_channel(content)?;
    let seq = Seq::new(content.u64("requeued number")?);
    let attempts = Attempts::new(content.u16("attempts")?);
    let cause = match content.u8("requeue cause")? {
        0 => RequeueCause::Requeue,
        1 => RequeueCause::Timeout,
        2 => RequeueCause::Disconnect,
        _ => return Err(FormatError::Value { what: "requeue cause" }),
    };
    let is_set = content.flag("not before")?;
    let time = content.u64("not before")?;
    if !is_set && time != 0 {
        return Err(FormatError::Value { what: "not before" });
    }
    let not_before = is_set.then_some(LogTime::new(time));
    Ok(Event::Requeue {
        channel,
        seq,
        attempts,
        not_before,
        cause,
    })
}
