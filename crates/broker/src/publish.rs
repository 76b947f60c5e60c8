//! Publishing: a request, and the answer that resolves when the messages are safe.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

/// Why a publish was not answered `OK`. The outcome is *unknown* unless the text says that nothing was stored: NSQ clients see it as
/// the cause in `E_PUB_FAILED PUB failed <cause>` and decide themselves whether to send again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The topic is being deleted; nothing was stored. NSQ's own word for it.
    #[error("exiting")]
    Exiting,
    /// Free disk space is below the watermark; nothing was stored. Publishing returns by itself when there is space.
    #[error("disk space is below the watermark")]
    DiskFull,
    /// A limit of the topic (deferred messages) is reached; nothing was stored.
    #[error("too many deferred messages in the topic")]
    TooManyDeferred,
    /// The messages were for one channel, and the topic has no such channel; nothing was stored.
    #[error("the channel does not exist")]
    ChannelNotFound,
    /// The messages were for one channel, and the topic is paused: what has not left the topic belongs to all its channels alike. Nothing was
    /// stored.
    #[error("the topic is paused")]
    TopicPaused,
    /// No answer within `publish_timeout`; the messages may still be stored.
    #[error("timed out waiting for the replicas")]
    TimedOut,
    /// The group that stores this topic is quarantined on this node: its log contains what cannot be.
    #[error("the topic is quarantined on this node")]
    Quarantined,
    /// The node is stopping; the messages may still be stored.
    #[error("the node is stopping")]
    Stopping,
}

impl PublishError {
    /// Whether sending the same messages again may succeed.
    pub fn is_retryable(self) -> bool {
        !matches!(self, Self::Quarantined)
    }
}

/// The answer to a publish, in the making.
#[derive(Debug)]
pub struct PublishTicket {
    answer: oneshot::Receiver<Result<(), PublishError>>,
}

impl PublishTicket {
    pub(crate) fn new(answer: oneshot::Receiver<Result<(), PublishError>>) -> Self {
        Self { answer }
    }
}

impl Future for PublishTicket {
    type Output = Result<(), PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A leader that ends without answering is a node that stops: the outcome is unknown.
        Pin::new(&mut self.answer)
            .poll(cx)
            .map(|answer| answer.unwrap_or(Err(PublishError::Stopping)))
    }
}
