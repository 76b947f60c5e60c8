//! What waits to be sent to one peer in one class: a step machine.
//!
//! Each lane has a queue and an account of the bytes that are on their way. Lanes with something queued take turns, a chunk each, so a
//! large frame of one group delays another group's frame by one chunk, not by its length. Callers that wait for room wait *with*
//! their frames, in the order of their calls; when room comes the frame goes straight into the queue. (Waking the caller instead, to
//! try again, lets small frames overtake a large one for ever.)

#[cfg(test)]
mod histories;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::limits::charge;
use crate::{ClassLimits, Frame, Lane, LinkEpoch};

/// Why nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Down,
    Full,
}

/// A part of a frame on its way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) lane: Lane,
    /// Length of the whole frame in bytes, in its first chunk.
    pub(crate) begins: Option<usize>,
    pub(crate) data: Bytes,
    /// Whether this ends the frame.
    pub(crate) ends: bool,
}

/// The peer returned more credit than was used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ExcessCredit;

type Waiter = (Frame, oneshot::Sender<Result<LinkEpoch, Refusal>>);

#[derive(Default)]
struct Queue {
    /// Charges of frames queued, travelling, or held by the receiver.
    outstanding: u64,
    frames: VecDeque<Frame>,
    /// Bytes of the first frame that are sent already.
    sent: usize,
    waiting: VecDeque<Waiter>,
}

impl Queue {
    fn forget_callers_gone(&mut self) {
        while self.waiting.front().is_some_and(|(_, waiter)| waiter.is_closed()) {
            self.waiting.pop_front();
        }
    }
}

/// The frames for one peer in one class.
pub(crate) struct Outbox {
    limits: ClassLimits,
    epoch: Option<LinkEpoch>,
    lanes: BTreeMap<Lane, Queue>,
    /// Lanes with frames, in turn; each once.
    ready: VecDeque<Lane>,
    /// Lanes with waiting callers; each once.
    blocked: VecDeque<Lane>,
    /// Charges of frames that are queued.
    queued: u64,
}

impl Outbox {
    pub(crate) fn new(limits: ClassLimits) -> Self {
        Self {
            limits,
            epoch: None,
            lanes: BTreeMap::new(),
            ready: VecDeque::new(),
            blocked: VecDeque::new(),
            queued: 0,
        }
    }

    /// A connection is there.
    pub(crate) fn open(&mut self, epoch: LinkEpoch) {
        assert!(
            self.epoch.is_none(),
            "the outbox of an earlier connection was not closed"
        );
        self.epoch = Some(epoch);
    }

    /// The connection is gone, and with it everything that waits. Returns how many frames were dropped.
    pub(crate) fn close(&mut self) -> usize {
        self.epoch = None;
        self.ready.clear();
        self.blocked.clear();
        self.queued = 0;
        let mut dropped = 0;
        for queue in std::mem::take(&mut self.lanes).into_values() {
            dropped += queue.frames.len();
            for (_, waiter) in queue.waiting {
                // A caller that does not wait any more does not need to know.
                let _ = waiter.send(Err(Refusal::Down));
            }
        }
        dropped
    }

    pub(crate) const fn epoch(&self) -> Option<LinkEpoch> {
        self.epoch
    }

    /// Queues a frame if there is room.
    pub(crate) fn push(&mut self, lane: Lane, frame: Frame) -> Result<LinkEpoch, Refusal> {
        let epoch = self.epoch.ok_or(Refusal::Down)?;
        if let Some(queue) = self.lanes.get_mut(&lane) {
            queue.forget_callers_gone();
        }
        let queue = self.lanes.get(&lane);
        let fits = queue.is_none_or(|queue| queue.waiting.is_empty()) && self.fits(queue, frame.len());
        if !fits {
            return Err(Refusal::Full);
        }
        self.enqueue(lane, frame);
        Ok(epoch)
    }

    /// Queues a frame, or lets it wait for room; the receiver then hears what became of it.
    pub(crate) fn push_or_wait(
        &mut self,
        lane: Lane,
        frame: Frame,
    ) -> Result<LinkEpoch, Option<oneshot::Receiver<Result<LinkEpoch, Refusal>>>> {
        match self.push(lane, frame.clone()) {
            Ok(epoch) => Ok(epoch),
            Err(Refusal::Down) => Err(None),
            Err(Refusal::Full) => {
                let (waiter, told) = oneshot::channel();
                let queue = self.lanes.entry(lane).or_default();
                if !self.blocked.contains(&lane) {
                    self.blocked.push_back(lane);
                }
                queue.waiting.push_back((frame, waiter));
                Err(Some(told))
            }
        }
    }

    /// The receiver dropped frames of this lane.
    pub(crate) fn credit(&mut self, lane: Lane, bytes: u64) -> Result<(), ExcessCredit> {
        let queue = self.lanes.get_mut(&lane).ok_or(ExcessCredit)?;
        queue.outstanding = queue.outstanding.checked_sub(bytes).ok_or(ExcessCredit)?;
        self.admit_waiting();
        self.forget(lane);
        Ok(())
    }

    /// Chunks to send now: about `bytes`, at least one if anything waits.
    pub(crate) fn take(&mut self, bytes: usize, chunk_bytes: usize) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let mut taken = 0;
        while taken < bytes
            && let Some(lane) = self.ready.pop_front()
        {
            let chunk = self.chunk(lane, chunk_bytes);
            taken += chunk.data.len() + 32;
            chunks.push(chunk);
        }
        if !chunks.is_empty() {
            self.admit_waiting();
        }
        chunks
    }

    /// Lanes with frames.
    pub(crate) fn ready(&self) -> impl Iterator<Item = Lane> + '_ {
        self.ready.iter().copied()
    }

    /// The whole next frame of a lane.
    pub(crate) fn take_frame(&mut self, lane: Lane) -> Option<Bytes> {
        let at = self.ready.iter().position(|ready| *ready == lane)?;
        self.ready.remove(at);
        let chunk = self.chunk(lane, usize::MAX);
        self.admit_waiting();
        Some(chunk.data)
    }

    /// The next chunk of a lane that has been taken out of `ready`; puts it back behind the others if more waits.
    fn chunk(&mut self, lane: Lane, chunk_bytes: usize) -> Chunk {
        let queue = self.lanes.get_mut(&lane).expect("a ready lane has a queue");
        let frame = queue.frames.front().expect("a ready lane has a frame");
        let bytes = frame.len();
        let begins = (queue.sent == 0).then_some(bytes);
        let data = frame.slice(queue.sent, chunk_bytes);
        queue.sent += data.len();
        let ends = queue.sent == bytes;
        if ends {
            queue.frames.pop_front();
            queue.sent = 0;
            self.queued -= charge(bytes);
        }
        if !queue.frames.is_empty() {
            self.ready.push_back(lane);
        }
        Chunk {
            lane,
            begins,
            data,
            ends,
        }
    }

    fn fits(&self, queue: Option<&Queue>, frame_bytes: usize) -> bool {
        let outstanding = queue.map_or(0, |queue| queue.outstanding);
        let room = |used: u64, limit: u64| used == 0 || used + charge(frame_bytes) <= limit;
        room(outstanding, self.limits.lane_credit_bytes) && room(self.queued, self.limits.queued_bytes_max)
    }

    fn enqueue(&mut self, lane: Lane, frame: Frame) {
        let queue = self.lanes.entry(lane).or_default();
        queue.outstanding += charge(frame.len());
        self.queued += charge(frame.len());
        if queue.frames.is_empty() {
            self.ready.push_back(lane);
        }
        queue.frames.push_back(frame);
    }

    /// Lets frames of waiting callers in, lane by lane in turn, while there is room.
    fn admit_waiting(&mut self) {
        let Some(epoch) = self.epoch else { return };
        for _ in 0..self.blocked.len() {
            let Some(lane) = self.blocked.pop_front() else { return };
            while let Some(queue) = self.lanes.get_mut(&lane) {
                queue.forget_callers_gone();
                let Some((frame, _)) = queue.waiting.front() else { break };
                let bytes = frame.len();
                if !self.fits(self.lanes.get(&lane), bytes) {
                    self.blocked.push_back(lane);
                    break;
                }
                let queue = self.lanes.get_mut(&lane).expect("looked at just now");
                let (frame, waiter) = queue.waiting.pop_front().expect("looked at just now");
                // Told first: if the caller left in this moment, the frame is not sent.
                if waiter.send(Ok(epoch)).is_ok() {
                    self.enqueue(lane, frame);
                }
            }
            self.forget(lane);
        }
    }

    /// Drops the account of a lane that nothing concerns any more: there may be as many lanes as groups ever were.
    fn forget(&mut self, lane: Lane) {
        if let Some(queue) = self.lanes.get(&lane)
            && queue.outstanding == 0
            && queue.frames.is_empty()
            && queue.waiting.is_empty()
        {
            self.lanes.remove(&lane);
        }
    }
}
