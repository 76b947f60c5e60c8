//! The consuming half of a connection: what was offered, what is written, what is held.
//!
//! A delivery passes three places: the channel from the topic leader (not ours yet), the output buffer (ours, not yet with the client) and the
//! lease table (with the client). The lease begins when the first byte of the message is handed to the kernel, not when it is put into the buffer:
//! a client that reads slowly does not lose time for messages that it has not got, and what is still in the buffer when the connection
//! breaks is returned without costing an attempt.
//!
//! Order: the leader hears of a lowered RDY after it has sent more. What arrives beyond RDY is left in the channel from the leader for a moment
//! ([`RETURN_AFTER`]), and taken if the client makes room by then; otherwise it goes back, all of it at once. If each went back as it came,
//! a FIN in between would make room for the later ones, and the client would see them before those that have to come again.

use std::collections::VecDeque;
use std::time::Duration;

use nsquorum_broker::{Delivery, LeaseEvent, LeaseOutcome, LeaseTable, NotHeld, OrphanedLeases};
use nsquorum_environment::{Monotonic, Random};
use nsquorum_protocol::{ChannelName, MessageId, TopicName, frame};
use nsquorum_topic::Seq;

use super::output::Output;
use crate::config::Corruption;

/// How long deliveries beyond a lowered RDY wait for room. Longer than the leader needs to hear of it, wherever it is: then nothing is on its way
/// behind what goes back. Short, because another consumer may have room.
const RETURN_AFTER: Duration = Duration::from_millis(100);

/// What the next delivery that arrives meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Fewer messages are held than RDY says: it can be written.
    Free,
    /// None, but RDY was lowered a moment ago.
    Awaited,
    /// None: it goes back.
    None,
}

/// A message in the output buffer.
#[derive(Debug)]
struct Unwritten {
    /// Where its frame begins in everything that the connection writes.
    position: u64,
    delivery: Delivery,
}

/// What goes to the topic leader.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ToLeader {
    /// The latest RDY, if it changed. Goes first: RDY 0 before FIN must not let the FIN trigger a delivery.
    pub(crate) ready: Option<u32>,
    /// What became of deliveries, in order.
    pub(crate) events: Vec<LeaseEvent>,
}

/// The state of one subscription.
#[derive(Debug)]
pub(crate) struct Consumer {
    topic: TopicName,
    channel: ChannelName,
    sample_rate: u8,
    ready: u32,
    /// When RDY was last lowered, until what is beyond it goes back.
    lowered_at: Option<Monotonic>,
    leases: LeaseTable,
    unwritten: VecDeque<Unwritten>,
    to_leader: ToLeader,
}

impl Consumer {
    pub(crate) fn new(topic: TopicName, channel: ChannelName, sample_rate: u8, leases: LeaseTable) -> Self {
        let unwritten = VecDeque::new();
        Self {
            topic,
            channel,
            sample_rate,
            ready: 0,
            lowered_at: None,
            leases,
            unwritten,
            to_leader: ToLeader::default(),
        }
    }

    /// RDY.
    pub(crate) fn set_ready(&mut self, count: u32, now: Monotonic) {
        if count < self.ready {
            self.lowered_at = Some(now);
        }
        self.ready = count;
        self.to_leader.ready = Some(count);
    }

    /// CLS: nothing more is taken, whatever the client makes room for.
    pub(crate) fn close(&mut self) {
        self.ready = 0;
        self.lowered_at = None;
        self.to_leader.ready = Some(0);
    }

    pub(crate) fn room(&self) -> Room {
        if self.leases.len() + self.unwritten.len() < self.ready as usize {
            Room::Free
        } else if self.lowered_at.is_some() {
            Room::Awaited
        } else {
            Room::None
        }
    }

    /// A delivery arrives. It goes into the output, or back.
    pub(crate) fn deliver(
        &mut self,
        delivery: Delivery,
        output: &mut Output,
        random: &dyn Random,
    ) -> Result<(), Corruption> {
        let has_room = self.room() == Room::Free;
        let mut end = |outcome| {
            self.to_leader.events.push(LeaseEvent {
                token: delivery.token,
                outcome,
            })
        };
        if !has_room {
            end(LeaseOutcome::Returned);
            return Ok(());
        }
        // nsqd's comparison: a rate of r lets r + 1 of 100 pass; what does not pass is gone for this channel.
        if self.sample_rate > 0 && random.below(100) > u64::from(self.sample_rate) {
            end(LeaseOutcome::Finished);
            return Ok(());
        }
        let seq = delivery.token.seq;
        if crc32c::crc32c(&delivery.body) != delivery.crc32c {
            return Err(Corruption {
                topic: self.topic.clone(),
                channel: self.channel.clone(),
                seq,
            });
        }
        let position = output.end_position();
        let timestamp_ns = i64::try_from(delivery.published_at.get()).unwrap_or(i64::MAX);
        let (attempts, id) = (delivery.token.attempts.get(), MessageId::from_seq(seq.get()));
        output.append(|tail| frame::message_head(tail, timestamp_ns, attempts, id, delivery.body.len()));
        output.append_body(&delivery.body);
        // The body is in the output; here only the token matters.
        let delivery = Delivery {
            body: bytes::Bytes::new(),
            ..delivery
        };
        self.unwritten.push_back(Unwritten { position, delivery });
        Ok(())
    }

    /// The socket has taken everything before `written_bytes`. Returns how many deliveries began.
    pub(crate) fn written(&mut self, written_bytes: u64, now: Monotonic) -> u64 {
        let mut count = 0;
        while let Some(first) = self.unwritten.front()
            && first.position < written_bytes
        {
            self.leases.delivered(&first.delivery, now);
            self.unwritten.pop_front();
            count += 1;
        }
        if self.unwritten.is_empty() && self.unwritten.capacity() > 64 {
            self.unwritten = VecDeque::new();
        }
        count
    }

    /// The channel was emptied. Messages that are in the output still go out, but nobody waits for their FIN.
    pub(crate) fn emptied(&mut self) {
        self.leases.empty();
        self.unwritten.clear();
    }

    pub(crate) fn finish(&mut self, seq: Seq) -> Result<(), NotHeld> {
        let event = self.leases.finish(seq)?;
        self.to_leader.events.push(event);
        Ok(())
    }

    pub(crate) fn requeue(&mut self, seq: Seq, delay_ms: u32) -> Result<(), NotHeld> {
        let event = self.leases.requeue(seq, delay_ms)?;
        self.to_leader.events.push(event);
        Ok(())
    }

    pub(crate) fn touch(&mut self, seq: Seq, now: Monotonic) -> Result<(), NotHeld> {
        self.leases.touch(seq, now)
    }

    pub(crate) fn expire(&mut self, now: Monotonic) {
        self.to_leader.events.extend(self.leases.expire(now));
        self.lowered_at = self.lowered_at.filter(|at| *at + RETURN_AFTER > now);
    }

    pub(crate) fn next_deadline(&self) -> Option<Monotonic> {
        let go_back = self.lowered_at.map(|at| at + RETURN_AFTER);
        self.leases.next_deadline().into_iter().chain(go_back).min()
    }

    /// What is to be sent to the topic leader now.
    pub(crate) fn take_to_leader(&mut self) -> ToLeader {
        std::mem::take(&mut self.to_leader)
    }

    /// The connection is over: what never reached the client goes back at once, the rest runs out by itself.
    pub(crate) fn end(mut self) -> (Vec<LeaseEvent>, OrphanedLeases) {
        let mut events = self.to_leader.events;
        let unwritten = self.unwritten.drain(..);
        events.extend(unwritten.map(|u| LeaseEvent {
            token: u.delivery.token,
            outcome: LeaseOutcome::Returned,
        }));
        (events, self.leases.disconnect())
    }
}
