//! The publishing side of a connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use nsquorum_protocol::{TopicName, encode};
use tokio::sync::oneshot;

use crate::error::ClientError;
use crate::shared::Handle;

/// What a command takes beyond its bodies, roughly: the line, the lengths.
const COMMAND_OVERHEAD_BYTES: usize = 100;

/// Publishes over one connection. Clones share it; it ends in order when the last clone is dropped.
///
/// The plain calls return when the server has answered, which for nsquorum means: on stable storage. The `_async`
/// calls return when the command is queued for sending, with a future for the answer; they wait for room when
/// [`IdentifyOptions::in_flight_max`](crate::IdentifyOptions) commands are unanswered. Commands of one caller are sent
/// in the order of the calls.
#[derive(Clone, Debug)]
pub struct Producer {
    handle: Arc<Handle>,
}

/// The answer to a publish that was sent. Dropping it does not take the publish back.
#[derive(Debug)]
#[must_use = "without the answer nobody knows whether the message is stored"]
pub struct PublishAck(oneshot::Receiver<Result<(), ClientError>>);

impl Future for PublishAck {
    type Output = Result<(), ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.0).poll(cx);
        answer.map(|answer| answer.expect("the end of a connection answers every command that was taken"))
    }
}

impl Producer {
    pub(crate) fn new(handle: Handle) -> Self {
        Self {
            handle: Arc::new(handle),
        }
    }

    /// PUB: publishes one message and waits for the answer.
    ///
    /// # Errors
    /// See [`ClientError::outcome`] for what each means for the message.
    pub async fn publish(&self, topic: &TopicName, body: &[u8]) -> Result<(), ClientError> {
        self.publish_async(topic, body).await?.await
    }

    /// PUB without waiting for the answer.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] for an empty body, [`ClientError::NotSent`] if the connection is over.
    pub async fn publish_async(&self, topic: &TopicName, body: &[u8]) -> Result<PublishAck, ClientError> {
        check(body)?;
        self.send(body.len(), |out| encode::publish(out, topic, body)).await
    }

    /// MPUB: publishes all `bodies` or none, and waits for the answer.
    ///
    /// # Errors
    /// See [`ClientError::outcome`] for what each means for the messages.
    pub async fn mpub<B: AsRef<[u8]>>(&self, topic: &TopicName, bodies: &[B]) -> Result<(), ClientError> {
        self.mpub_async(topic, bodies).await?.await
    }

    /// MPUB without waiting for the answer.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] for no or an empty body, [`ClientError::NotSent`] if the connection is over.
    pub async fn mpub_async<B: AsRef<[u8]>>(&self, topic: &TopicName, bodies: &[B]) -> Result<PublishAck, ClientError> {
        if bodies.is_empty() {
            return Err(ClientError::Invalid("MPUB of no message"));
        }
        let mut bytes = 0;
        for body in bodies {
            check(body.as_ref())?;
            bytes += body.as_ref().len() + size_of::<u32>();
        }
        self.send(bytes, |out| encode::mpub(out, topic, bodies)).await
    }

    /// DPUB: publishes one message that is delivered `delay_ms` milliseconds after it reaches a channel, and waits for
    /// the answer.
    ///
    /// # Errors
    /// See [`ClientError::outcome`] for what each means for the message.
    pub async fn dpub(&self, topic: &TopicName, delay_ms: u64, body: &[u8]) -> Result<(), ClientError> {
        self.dpub_async(topic, delay_ms, body).await?.await
    }

    /// DPUB without waiting for the answer.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] for an empty body, [`ClientError::NotSent`] if the connection is over.
    pub async fn dpub_async(&self, topic: &TopicName, delay_ms: u64, body: &[u8]) -> Result<PublishAck, ClientError> {
        check(body)?;
        self.send(body.len(), |out| encode::dpub(out, topic, delay_ms, body))
            .await
    }

    async fn send(&self, bytes: usize, encode: impl FnOnce(&mut BytesMut)) -> Result<PublishAck, ClientError> {
        self.handle
            .0
            .send_awaited(bytes + COMMAND_OVERHEAD_BYTES, encode)
            .await
            .map(PublishAck)
    }

    /// Takes no further publish, also from clones, waits for all answers, and ends the connection.
    ///
    /// # Errors
    /// What ended the connection before that.
    pub async fn close(self) -> Result<(), ClientError> {
        self.handle.0.drain();
        self.handle.0.until_ended().await
    }
}

/// NSQ has no empty messages; sending one would cost the connection.
fn check(body: &[u8]) -> Result<(), ClientError> {
    if body.is_empty() {
        Err(ClientError::Invalid("an empty body"))
    } else {
        Ok(())
    }
}
