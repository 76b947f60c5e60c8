//! Requests to peers that wait for their answers.
//!
//! A request leaves over this node's own connection and its answer comes back over the peer's. Links never repeat anything, so a
//! request is lost when the connection that it was queued for ends, and its answer may be lost when the peer's connection ends: either
//! way it fails here, at once, and openraft decides what goes again. Nothing waits for an answer that cannot come.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use nsquorum_links::{Class, Lane, LinkEpoch, Links, SendError, Sending, Service};
use nsquorum_topic::{GroupId, NodeId};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::wire::{Answer, CallId, NoReplica, Request};

/// Calls of one life of a node; far more than it can make.
const CALLS_PER_LIFE_BITS: u32 = 44;

/// Why a request has no answer. Another try may help in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// No link, or it ended before the answer.
    #[error("no link to the peer")]
    LinkDown,
    /// A frame that no link takes. It would fail again, so it is loud where it happens.
    #[error("the request is larger than a frame may be")]
    TooLarge,
    /// The peer answered that it cannot.
    #[error(transparent)]
    Refused(#[from] NoReplica),
}

struct Waiting {
    to: NodeId,
    /// The connection that the request was queued for, once it is.
    epoch: Option<LinkEpoch>,
    answer: oneshot::Sender<Answer>,
}

/// All calls of this node.
pub(crate) struct Calls {
    links: Arc<dyn Links>,
    next: AtomicU64,
    waiting: Mutex<BTreeMap<CallId, Waiting>>,
}

impl Calls {
    pub(crate) fn new(links: Arc<dyn Links>) -> Arc<Self> {
        let life = links.local().incarnation.get();
        Arc::new(Self {
            links,
            next: AtomicU64::new(life << CALLS_PER_LIFE_BITS),
            waiting: Mutex::default(),
        })
    }

    /// Sends a request. Its place among the requests of its group and class is that of this call.
    pub(crate) fn call(self: &Arc<Self>, to: NodeId, group: GroupId, class: Class, request: Request) -> Call {
        let id = CallId(self.next.fetch_add(1, Ordering::Relaxed));
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().insert(
            id,
            Waiting {
                to,
                epoch: None,
                answer: sender,
            },
        );
        let frame = request.encode(id, group);
        let sending = self.links.send(to, Lane::new(Service::Raft, group), class, frame);
        Call {
            calls: Arc::clone(self),
            id,
            to,
            stage: Stage::Sending(sending),
            answer,
        }
    }

    /// An answer has arrived. Nobody waits for it any more if the call has failed or was given up.
    pub(crate) fn answered(&self, from: NodeId, id: CallId, answer: Answer) {
        let waiting = {
            let mut calls = self.waiting.lock();
            match calls.get(&id) {
                Some(waiting) if waiting.to == from => calls.remove(&id),
                _ => None,
            }
        };
        if let Some(waiting) = waiting {
            drop(waiting.answer.send(answer));
        }
    }

    /// The peer's connection has ended or was made anew: answers may have been lost with, or for want of, the one before.
    pub(crate) fn answers_lost(&self, from: NodeId) {
        self.waiting.lock().retain(|_, waiting| waiting.to != from);
    }

    /// The own connection to a peer has ended or was made anew: what was queued for an earlier one is lost.
    pub(crate) fn requests_lost(&self, to: NodeId, now: Option<LinkEpoch>) {
        self.waiting
            .lock()
            .retain(|_, waiting| waiting.to != to || waiting.epoch.is_none() || waiting.epoch == now);
    }

    fn sent(&self, id: CallId, to: NodeId, epoch: LinkEpoch) {
        if let Some(waiting) = self.waiting.lock().get_mut(&id) {
            waiting.epoch = Some(epoch);
        }
        // The connection may have ended before the line above, and its end been told before too.
        let now = self.links.peers().borrow().get(&to).and_then(|peer| peer.epoch());
        if now != Some(epoch) {
            self.waiting.lock().remove(&id);
        }
    }
}

/// A request under way. Dropping it gives the answer up; the request may still arrive.
pub(crate) struct Call {
    calls: Arc<Calls>,
    id: CallId,
    to: NodeId,
    stage: Stage,
    answer: oneshot::Receiver<Answer>,
}

enum Stage {
    Sending(Sending),
    Sent,
    /// It was never queued; whoever waits for the answer hears it.
    Failed(CallError),
}

impl Call {
    /// Ready when the request is queued, or can never be. The call's own outcome tells which.
    pub(crate) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Stage::Sending(sending) = &mut self.stage else {
            return Poll::Ready(());
        };
        let Poll::Ready(sent) = sending.as_mut().poll(cx) else {
            return Poll::Pending;
        };
        self.stage = match sent {
            Ok(epoch) => {
                self.calls.sent(self.id, self.to, epoch);
                Stage::Sent
            }
            Err(SendError::TooLarge { bytes, limit }) => {
                tracing::error!(bytes, limit, "a request to a peer is larger than any frame");
                Stage::Failed(CallError::TooLarge)
            }
            Err(SendError::Down(_) | SendError::Full(_)) => Stage::Failed(CallError::LinkDown),
        };
        Poll::Ready(())
    }
}

impl Future for Call {
    type Output = Result<Answer, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.poll_sent(cx).is_pending() {
            return Poll::Pending;
        }
        if let Stage::Failed(error) = self.stage {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.answer).poll(cx).map(|answer| match answer {
            Ok(Answer::Refused(why)) => Err(why.into()),
            Ok(answer) => Ok(answer),
            Err(_) => Err(CallError::LinkDown),
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.calls.waiting.lock().remove(&self.id);
    }
}
