//! The subscribing side of a connection.

use std::future::poll_fn;

use bytes::Bytes;
use nsquorum_protocol::{ChannelName, MessageId, TopicName, encode};

use crate::error::{ClientError, ServerError};
use crate::identify::ServerSettings;
use crate::shared::{Delivery, Handle};

/// One delivery.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Names the message in FIN, REQ and TOUCH; the same on every redelivery.
    pub id: MessageId,
    /// Which delivery of this message on this channel it is, from 1.
    pub attempts: u16,
    /// When the server took the message, in nanoseconds since the Unix epoch.
    pub timestamp_ns: i64,
    /// The bytes that were published.
    pub body: Bytes,
}

/// What the server sends to a consumer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A message, from now on in flight on this connection.
    Message(Message),
    /// A FIN, REQ or TOUCH came too late: the message is no longer in flight here. The connection goes on.
    Refused(ServerError),
}

impl Event {
    pub(crate) fn body_bytes(&self) -> usize {
        match self {
            Self::Message(message) => message.body.len(),
            Self::Refused(_) => 0,
        }
    }
}

/// Receives the messages of one channel.
///
/// FIN, REQ, TOUCH and RDY have no answer in NSQ: the calls return when the command is queued for sending, and many of
/// them share one write. A command that came too late shows up as [`Event::Refused`]. Dropping the consumer sends what
/// is queued and ends the connection; messages still in flight then come back after their timeout.
#[derive(Debug)]
pub struct Consumer {
    handle: Handle,
    settings: ServerSettings,
}

impl Consumer {
    pub(crate) fn new(handle: Handle, settings: ServerSettings) -> Self {
        Self { handle, settings }
    }

    pub(crate) async fn subscribe(&mut self, topic: &TopicName, channel: &ChannelName) -> Result<(), ClientError> {
        // Before SUB is sent: messages may follow its answer in the same read.
        self.handle.0.lock().delivery = Delivery::Open;
        let answer = self
            .handle
            .0
            .send_awaited(0, |out| encode::sub(out, topic, channel))
            .await?;
        answer
            .await
            .expect("the end of a connection answers every command that was taken")
    }

    /// What the server answered to IDENTIFY.
    #[must_use]
    pub fn settings(&self) -> &ServerSettings {
        &self.settings
    }

    /// The next event; `None` after [`cls`](Self::cls) when nothing more comes.
    ///
    /// # Errors
    /// What ended the connection, after all events that came before.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        poll_fn(|cx| self.handle.0.poll_event(cx)).await
    }

    /// Waits for an event, then moves it and all that came with it to the end of `into`: one lock for many messages.
    /// False after [`cls`](Self::cls) when nothing more comes.
    ///
    /// # Errors
    /// What ended the connection, after all events that came before.
    pub async fn next_many(&mut self, into: &mut Vec<Event>) -> Result<bool, ClientError> {
        let Some(first) = self.next().await? else {
            return Ok(false);
        };
        into.push(first);
        self.handle.0.take_events(into);
        Ok(true)
    }

    /// RDY: the most messages that may be in flight on this connection; 0 stops delivery. Lowered to the server's
    /// `max_rdy_count`, because more would end the connection.
    ///
    /// # Errors
    /// [`ClientError::SendBufferFull`] or [`ClientError::NotSent`].
    pub fn set_rdy(&self, ready: u32) -> Result<(), ClientError> {
        let ready = ready.min(self.settings.max_rdy_count);
        self.handle.0.send_unanswered(|out| encode::rdy(out, ready))
    }

    /// FIN: the message is done with on this channel.
    ///
    /// # Errors
    /// [`ClientError::SendBufferFull`] or [`ClientError::NotSent`].
    pub fn fin(&self, id: MessageId) -> Result<(), ClientError> {
        self.handle.0.send_unanswered(|out| encode::fin(out, id))
    }

    /// REQ: the message is to be delivered again, `delay_ms` milliseconds from now at the earliest.
    ///
    /// # Errors
    /// [`ClientError::SendBufferFull`] or [`ClientError::NotSent`].
    pub fn req(&self, id: MessageId, delay_ms: u64) -> Result<(), ClientError> {
        self.handle.0.send_unanswered(|out| encode::req(out, id, delay_ms))
    }

    /// TOUCH: the message timeout starts again from now.
    ///
    /// # Errors
    /// [`ClientError::SendBufferFull`] or [`ClientError::NotSent`].
    pub fn touch(&self, id: MessageId) -> Result<(), ClientError> {
        self.handle.0.send_unanswered(|out| encode::touch(out, id))
    }

    /// CLS: no new message comes; those in flight can still be finished. [`next`](Self::next) returns what is under
    /// way and then `None`.
    ///
    /// # Errors
    /// [`ClientError::SendBufferFull`] or [`ClientError::NotSent`].
    pub fn cls(&self) -> Result<(), ClientError> {
        self.handle.0.send_unanswered(encode::cls)
    }

    /// Sends what is queued and ends the connection. The server has read all of it when this returns, unless it did not
    /// close its side within two seconds.
    ///
    /// # Errors
    /// What ended the connection before that.
    pub async fn close(self) -> Result<(), ClientError> {
        self.handle.0.drain();
        self.handle.0.until_ended().await
    }
}
