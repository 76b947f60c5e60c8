//! Credit on its way back to a sender, and the stream that carries it.
//!
//! A message for each small frame would double the wake-ups of a link, so credit gathers: it goes at once when a lane could run
//! short, otherwise after a few milliseconds.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tonic::Status;

use super::keep_alive::KeepAlive;
use super::wire::{Answered, Credit, Credits, answered, service_to_wire};
use crate::Lane;
use crate::frame::Returned;

/// How long credit that nobody needs urgently may gather.
const GATHER: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Gathered {
    lanes: BTreeMap<Lane, u64>,
    urgent: bool,
    closed: bool,
}

/// The credit that goes back over one stream.
pub(super) struct CreditReturn {
    gathered: Mutex<Gathered>,
    writer: AtomicWaker,
    /// Of one lane: a part of what the sender may have on its way.
    urgent_bytes: u64,
}

impl CreditReturn {
    pub(super) fn new(lane_credit_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            gathered: Mutex::default(),
            writer: AtomicWaker::new(),
            urgent_bytes: lane_credit_bytes / 8,
        })
    }

    fn give(&self, lane: Lane, bytes: u64) {
        let wake = {
            let mut gathered = self.gathered.lock();
            if gathered.closed {
                return;
            }
            let first = gathered.lanes.is_empty();
            let sum = gathered.lanes.entry(lane).or_default();
            *sum += bytes;
            let urgent = *sum >= self.urgent_bytes && !gathered.urgent;
            gathered.urgent |= urgent;
            first || urgent
        };
        if wake {
            self.writer.wake();
        }
    }

    /// The link is gone: credit goes nowhere any more, and the stream ends.
    pub(super) fn close(&self) {
        let mut gathered = self.gathered.lock();
        gathered.closed = true;
        gathered.lanes.clear();
        drop(gathered);
        self.writer.wake();
    }
}

/// The credit of one frame.
pub(super) struct FrameCredit {
    pub(super) way: Arc<CreditReturn>,
    pub(super) lane: Lane,
    pub(super) bytes: u64,
}

impl Returned for FrameCredit {
    fn give_back(self: Box<Self>) {
        self.way.give(self.lane, self.bytes);
    }
}

/// What the answering end puts into its stream.
pub(super) enum Step {
    /// A message of the handshake.
    Say(Answered),
    /// The handshake is over.
    Carry(Arc<CreditReturn>),
}

/// The response stream of one connection.
pub(super) struct Answers {
    handshake: mpsc::Receiver<Step>,
    carrying: Option<Arc<CreditReturn>>,
    /// Since something gathers.
    gathering: Option<Pin<Box<Sleep>>>,
    keep_alive: KeepAlive,
}

impl Answers {
    pub(super) fn new(handshake: mpsc::Receiver<Step>, keep_alive: KeepAlive) -> Self {
        Self {
            handshake,
            carrying: None,
            gathering: None,
            keep_alive,
        }
    }

    fn say(&mut self, lanes: BTreeMap<Lane, u64>) -> Poll<Option<Result<Answered, Status>>> {
        self.gathering = None;
        self.keep_alive.said();
        let credits = lanes.into_iter().map(|(lane, bytes)| Credit {
            service: service_to_wire(lane.service),
            group: lane.group.get(),
            bytes,
        });
        Poll::Ready(Some(Ok(Answered {
            say: Some(answered::Say::Credits(Credits {
                credits: credits.collect(),
            })),
        })))
    }
}

impl Stream for Answers {
    type Item = Result<Answered, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let way = match &self.carrying {
            Some(way) => Arc::clone(way),
            None => match std::task::ready!(self.handshake.poll_recv(cx)) {
                None => return Poll::Ready(None),
                Some(Step::Say(say)) => return Poll::Ready(Some(Ok(say))),
                Some(Step::Carry(way)) => {
                    self.carrying = Some(Arc::clone(&way));
                    way
                }
            },
        };
        way.writer.register(cx.waker());
        let mut gathered = way.gathered.lock();
        if gathered.closed {
            return Poll::Ready(None);
        }
        if gathered.lanes.is_empty() {
            self.gathering = None;
        } else {
            let gathering = self
                .gathering
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(GATHER)));
            if gathered.urgent || gathering.as_mut().poll(cx).is_ready() {
                gathered.urgent = false;
                let lanes = std::mem::take(&mut gathered.lanes);
                drop(gathered);
                return self.say(lanes);
            }
        }
        drop(gathered);
        if self.keep_alive.poll_due(cx).is_ready() {
            return self.say(BTreeMap::new());
        }
        Poll::Pending
    }
}
