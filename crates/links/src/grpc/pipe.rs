//! The sending side of one class of one link: an outbox, and the stream that empties it into the connection.
//!
//! The connection's own task pulls: there is no queue between the outbox and HTTP/2 and no task in between. Whatever gathered since the
//! last pull goes out as one message and usually as one system call.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use futures_util::task::AtomicWaker;
use metrics::{Counter, Histogram, counter, histogram};
use nsquorum_topic::NodeId;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::keep_alive::KeepAlive;
use super::wire::{Chunk, Dialled, Write, dialled, service_to_wire};
use crate::outbox::{ExcessCredit, Outbox, Refusal};
use crate::{Class, Frame, Lane, Limits, LinkEpoch, SendError, Sending};

/// About how much goes into one message.
const WRITE_BYTES: usize = 1 << 20;

/// One class of the link to a peer. Lives as long as the peer is known; connections come and go.
pub(super) struct Pipe {
    node: NodeId,
    outbox: Mutex<Outbox>,
    /// Of the task that writes.
    writer: AtomicWaker,
    chunk_bytes: usize,
    frames: Counter,
    bytes: Counter,
    dropped: Counter,
    chunks_per_write: Histogram,
}

impl Pipe {
    pub(super) fn new(node: NodeId, class: Class, limits: &Limits) -> Self {
        let labels = || [("peer", node.to_string()), ("class", class.name().to_owned())];
        Self {
            node,
            outbox: Mutex::new(Outbox::new(*limits.class(class))),
            writer: AtomicWaker::new(),
            chunk_bytes: limits.chunk_bytes,
            frames: counter!("nsquorum_link_sent_frames_total", &labels()),
            bytes: counter!("nsquorum_link_sent_bytes_total", &labels()),
            dropped: counter!("nsquorum_link_dropped_frames_total", &labels()),
            chunks_per_write: histogram!("nsquorum_link_chunks_per_write", &labels()),
        }
    }

    fn counted(&self, bytes: usize) {
        self.frames.increment(1);
        self.bytes.increment(bytes as u64);
        self.writer.wake();
    }

    const fn refused(&self, refusal: Refusal) -> SendError {
        match refusal {
            Refusal::Down => SendError::Down(self.node),
            Refusal::Full => SendError::Full(self.node),
        }
    }

    pub(super) fn try_send(&self, lane: Lane, frame: Frame) -> Result<LinkEpoch, SendError> {
        let bytes = frame.len();
        let pushed = self.outbox.lock().push(lane, frame);
        let epoch = pushed.map_err(|refusal| self.refused(refusal))?;
        self.counted(bytes);
        Ok(epoch)
    }

    pub(super) fn send(self: Arc<Self>, lane: Lane, frame: Frame) -> Sending {
        let bytes = frame.len();
        let pushed = self.outbox.lock().push_or_wait(lane, frame);
        match pushed {
            Ok(epoch) => {
                self.counted(bytes);
                Box::pin(std::future::ready(Ok(epoch)))
            }
            Err(None) => Box::pin(std::future::ready(Err(SendError::Down(self.node)))),
            Err(Some(told)) => Box::pin(async move {
                let told = told.await.unwrap_or(Err(Refusal::Down));
                let epoch = told.map_err(|refusal| self.refused(refusal))?;
                self.counted(bytes);
                Ok(epoch)
            }),
        }
    }

    pub(super) fn open(&self, epoch: LinkEpoch) {
        self.outbox.lock().open(epoch);
    }

    pub(super) fn close(&self) {
        let dropped = self.outbox.lock().close();
        self.dropped.increment(dropped as u64);
        self.writer.wake();
    }

    pub(super) fn credit(&self, lane: Lane, bytes: u64) -> Result<(), ExcessCredit> {
        self.outbox.lock().credit(lane, bytes)?;
        // Callers that waited may have got their frames in.
        self.writer.wake();
        Ok(())
    }
}

/// What the dialling end puts into its stream.
pub(super) enum Step {
    /// A message of the handshake.
    Say(Dialled),
    /// The handshake is over: from now on the frames of this pipe, as long as its connection is this one.
    Carry(Arc<Pipe>, LinkEpoch),
}

/// The request stream of one connection.
pub(super) struct Outgoing {
    handshake: mpsc::Receiver<Step>,
    carrying: Option<(Arc<Pipe>, LinkEpoch)>,
    keep_alive: KeepAlive,
}

impl Outgoing {
    pub(super) fn new(handshake: mpsc::Receiver<Step>, keep_alive: KeepAlive) -> Self {
        Self {
            handshake,
            carrying: None,
            keep_alive,
        }
    }

    fn write(&mut self, write: Write) -> Poll<Option<Dialled>> {
        self.keep_alive.said();
        Poll::Ready(Some(Dialled {
            say: Some(dialled::Say::Write(write)),
        }))
    }
}

impl Stream for Outgoing {
    type Item = Dialled;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Dialled>> {
        let (pipe, epoch) = match &self.carrying {
            Some((pipe, epoch)) => (Arc::clone(pipe), *epoch),
            None => match std::task::ready!(self.handshake.poll_recv(cx)) {
                None => return Poll::Ready(None),
                Some(Step::Say(say)) => return Poll::Ready(Some(say)),
                Some(Step::Carry(pipe, epoch)) => {
                    self.carrying = Some((Arc::clone(&pipe), epoch));
                    (pipe, epoch)
                }
            },
        };
        // Before looking: a frame queued after the look wakes this task again.
        pipe.writer.register(cx.waker());
        let chunks = {
            let mut outbox = pipe.outbox.lock();
            if outbox.epoch() != Some(epoch) {
                return Poll::Ready(None);
            }
            outbox.take(WRITE_BYTES, pipe.chunk_bytes)
        };
        if !chunks.is_empty() {
            pipe.chunks_per_write.record(chunks.len() as f64);
            let chunks = chunks.into_iter().map(|chunk| Chunk {
                service: service_to_wire(chunk.lane.service),
                group: chunk.lane.group.get(),
                begins: chunk.begins.map_or(0, |bytes| bytes as u64 + 1),
                data: chunk.data,
            });
            let chunks = chunks.collect();
            return self.write(Write { chunks });
        }
        if self.keep_alive.poll_due(cx).is_ready() {
            return self.write(Write::default());
        }
        Poll::Pending
    }
}
