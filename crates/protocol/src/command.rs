//! The commands of TCP protocol V2.

use bytes::Bytes;

use crate::message_id::MessageId;
use crate::name::{ChannelName, TopicName};

/// A command that passed every check that needs only its own bytes, the connection's state and the limits.
///
/// What is left to the executor is what depends on the node: authorisation, whether a message is in flight, storing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// IDENTIFY with its JSON, not yet parsed (see [`IdentifyRequest::parse`](crate::IdentifyRequest::parse)).
    Identify(Bytes),
    /// AUTH with its secret.
    Auth(Bytes),
    /// SUB: become a consumer.
    Sub {
        /// The topic, created if absent.
        topic: TopicName,
        /// The channel, created if absent.
        channel: ChannelName,
    },
    /// RDY: the most messages that may be in flight to this connection. A ceiling, never used up.
    Rdy(u32),
    /// FIN: the message is done.
    Fin(MessageId),
    /// REQ: put the message back.
    Req {
        /// The message.
        id: MessageId,
        /// Delay in milliseconds, already cut to the limit; 0 is at once.
        timeout_ms: u64,
    },
    /// TOUCH: restart the message's timeout.
    Touch(MessageId),
    /// CLS: send no more messages.
    Cls,
    /// NOP, and what nsqd ignores in silence: RDY after CLS.
    Nop,
    /// PUB: one message.
    Pub {
        /// The topic, created if absent.
        topic: TopicName,
        /// The message, 1 byte to the limit.
        body: Bytes,
    },
    /// MPUB: messages that are stored all or none.
    Mpub {
        /// The topic, created if absent.
        topic: TopicName,
        /// The messages in order, at least one, each 1 byte to the limit.
        bodies: Vec<Bytes>,
    },
    /// DPUB: one message that is not to be delivered at once.
    Dpub {
        /// The topic, created if absent.
        topic: TopicName,
        /// Delay in milliseconds, at most the limit; 0 is a PUB.
        defer_ms: u64,
        /// The message, 1 byte to the limit.
        body: Bytes,
    },
}

/// What a connection may do now. The states that nsqd declares but never enters are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectionState {
    /// Connected; may identify, authenticate and subscribe.
    #[default]
    Init,
    /// Consumes a channel, for the rest of its life.
    Subscribed,
    /// Sent CLS: gets no more messages and answers for those it has.
    Closing,
}

impl ConnectionState {
    /// nsqd's number of the state, which `/stats` shows.
    pub const fn number(self) -> u8 {
        match self {
            Self::Init => 0,
            Self::Subscribed => 3,
            Self::Closing => 4,
        }
    }
}

/// The first word of a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Identify,
    Auth,
    Sub,
    Rdy,
    Fin,
    Req,
    Touch,
    Cls,
    Nop,
    Pub,
    Mpub,
    Dpub,
}

impl Verb {
    /// The verb with this spelling; upper case only.
    pub(crate) fn parse(word: &[u8]) -> Option<Self> {
        Some(match word {
            b"IDENTIFY" => Self::Identify,
            b"AUTH" => Self::Auth,
            b"SUB" => Self::Sub,
            b"RDY" => Self::Rdy,
            b"FIN" => Self::Fin,
            b"REQ" => Self::Req,
            b"TOUCH" => Self::Touch,
            b"CLS" => Self::Cls,
            b"NOP" => Self::Nop,
            b"PUB" => Self::Pub,
            b"MPUB" => Self::Mpub,
            b"DPUB" => Self::Dpub,
            _ => return None,
        })
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Identify => "IDENTIFY",
            Self::Auth => "AUTH",
            Self::Sub => "SUB",
            Self::Rdy => "RDY",
            Self::Fin => "FIN",
            Self::Req => "REQ",
            Self::Touch => "TOUCH",
            Self::Cls => "CLS",
            Self::Nop => "NOP",
            Self::Pub => "PUB",
            Self::Mpub => "MPUB",
            Self::Dpub => "DPUB",
        }
    }

    /// nsqd's table of which command is legal when. RDY while closing is legal here: it is ignored, not refused.
    pub(crate) const fn allowed_in(self, state: ConnectionState) -> bool {
        use ConnectionState::{Closing, Init, Subscribed};
        match self {
            Self::Identify | Self::Auth | Self::Sub => matches!(state, Init),
            Self::Rdy | Self::Fin | Self::Req | Self::Touch => matches!(state, Subscribed | Closing),
            Self::Cls => matches!(state, Subscribed),
            Self::Nop | Self::Pub | Self::Mpub | Self::Dpub => true,
        }
    }
}
