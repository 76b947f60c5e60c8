//! Answers that a client waits for, in the order of its commands.
//!
//! NSQ clients match answers to commands by position, so an answer that is ready waits for all before it. What is not ready yet is a publish
//! (waits for the disk) or the question which of two texts a refused FIN gets (waits for the topic leader).

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use nsquorum_environment::Monotonic;
use nsquorum_protocol::{InFlightError, MessageId, ProtocolError, TopicName};
use nsquorum_topic::Seq;

/// What one answer weighs beside the bytes of its messages: commands without bodies are bounded too.
const ANSWER_WEIGHT_BYTES: usize = 128;

/// Which command published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublishKind {
    Pub,
    Mpub,
    Dpub,
}

impl PublishKind {
    pub(crate) fn failed(self, cause: impl fmt::Display) -> ProtocolError {
        match self {
            Self::Pub => ProtocolError::pub_failed(cause),
            Self::Mpub => ProtocolError::mpub_failed(cause),
            Self::Dpub => ProtocolError::dpub_failed(cause),
        }
    }
}

/// Which command named a message that the connection does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseCommand {
    Fin,
    Req,
    Touch,
}

impl LeaseCommand {
    pub(crate) fn failed(self, id: MessageId, cause: InFlightError) -> ProtocolError {
        match self {
            Self::Fin => ProtocolError::fin_failed(id, cause),
            Self::Req => ProtocolError::req_failed(id, cause),
            Self::Touch => ProtocolError::touch_failed(id, cause),
        }
    }
}

/// A publish on its way.
#[derive(Clone, Debug)]
pub(crate) struct PendingPublish {
    pub(crate) kind: PublishKind,
    pub(crate) topic: TopicName,
    pub(crate) message_count: u64,
    pub(crate) bytes: usize,
    /// When the command had been read completely.
    pub(crate) received: Monotonic,
    /// When it fails for lack of an answer.
    pub(crate) deadline: Monotonic,
}

/// One answer.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Publish(PendingPublish),
    /// A publish that has failed; the client is told later, see [`nsquorum_broker::Outages`].
    Failed {
        error: ProtocolError,
        tell_at: Monotonic,
    },
    NotHeld {
        command: LeaseCommand,
        id: MessageId,
        seq: Seq,
    },
    Response(Bytes),
    Error(ProtocolError),
}

impl Reply {
    fn weight(&self) -> usize {
        match self {
            Self::Publish(publish) => publish.bytes + ANSWER_WEIGHT_BYTES,
            _ => ANSWER_WEIGHT_BYTES,
        }
    }
}

/// The answers of one connection, first in first out.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    queue: VecDeque<Reply>,
    weight_bytes: usize,
}

impl Replies {
    pub(crate) fn push(&mut self, reply: Reply) {
        self.weight_bytes += reply.weight();
        self.queue.push_back(reply);
    }

    /// Puts an answer back in the place of the one that was popped.
    pub(crate) fn push_front(&mut self, reply: Reply) {
        self.weight_bytes += reply.weight();
        self.queue.push_front(reply);
    }

    pub(crate) fn front(&self) -> Option<&Reply> {
        self.queue.front()
    }

    pub(crate) fn pop(&mut self) -> Option<Reply> {
        let reply = self.queue.pop_front()?;
        self.weight_bytes -= reply.weight();
        if self.queue.is_empty() && self.queue.capacity() > 64 {
            self.queue = VecDeque::new();
        }
        Some(reply)
    }

    /// After a fatal error nothing else is answered.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }
}
