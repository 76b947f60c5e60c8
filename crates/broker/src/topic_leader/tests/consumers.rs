//! A consumer with its frontend: what it was given, what is written to its socket, what it holds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use nsquorum_environment::Monotonic;
use nsquorum_protocol::ChannelName;
use nsquorum_topic::Seq;
use tokio::sync::{mpsc, oneshot};

use crate::dice::Dice;
use crate::leases::{Delivery, LeaseEvent, LeaseOutcome, LeaseTable, OrphanedLeases};
use crate::nearness::Nearness;
use crate::subscription::{SubscribeError, SubscriptionEvent, SubscriptionId, SubscriptionOptions};
use crate::topic_leader::input::Subscribe;

/// A message that the client has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) delivery: u64,
    pub(super) deadline: Monotonic,
    deadline_max: Monotonic,
}

/// A subscription as its frontend sees it.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) id: SubscriptionId,
    pub(super) channel: ChannelName,
    pub(super) receiver: mpsc::UnboundedReceiver<SubscriptionEvent>,
    /// Until it was answered.
    pub(super) answer: Option<oneshot::Receiver<Result<(), SubscribeError>>>,
    pub(super) is_closed: bool,
    pub(super) ready: u32,
    msg_timeout: Duration,
    table: LeaseTable,
    pub(super) held: BTreeMap<Seq, Held>,
    /// In the channel from the leader.
    pub(super) offered: VecDeque<SubscriptionEvent>,
    /// In the output buffer.
    unwritten: VecDeque<Delivery>,
}

impl Consumer {
    pub(super) fn subscribe(id: u64, channel: ChannelName, msg_timeout: Duration) -> (Self, Subscribe) {
        let id = SubscriptionId(id);
        let options = SubscriptionOptions {
            client: Arc::default(),
            msg_timeout,
            nearness: [
                None,
                Some(Nearness::Zone),
                Some(Nearness::Region),
                Some(Nearness::Global),
            ][id.0 as usize % 4],
        };
        let (deliveries, receiver) = mpsc::unbounded_channel();
        let (answer, answered) = oneshot::channel();
        let consumer = Self {
            id,
            channel: channel.clone(),
            receiver,
            answer: Some(answered),
            is_closed: false,
            ready: 0,
            msg_timeout,
            table: LeaseTable::new(msg_timeout, msg_timeout * 3),
            held: BTreeMap::new(),
            offered: VecDeque::new(),
            unwritten: VecDeque::new(),
        };
        (
            consumer,
            Subscribe {
                id,
                channel,
                options,
                deliveries,
                answer,
            },
        )
    }

    pub(super) fn is_attached(&self) -> bool {
        self.answer.is_none() && !self.is_closed
    }

    /// The frontend takes up to `count` events of its subscription. What is beyond RDY goes back, and one in a while for no reason.
    pub(super) fn take(&mut self, count: usize, dice: &mut Dice) -> Vec<LeaseEvent> {
        self.take_unless(count, || dice.one_in(25))
    }

    /// The frontend takes everything.
    pub(super) fn take_all(&mut self) -> Vec<LeaseEvent> {
        self.take_unless(usize::MAX, || false)
    }

    fn take_unless(&mut self, count: usize, mut goes_back: impl FnMut() -> bool) -> Vec<LeaseEvent> {
        let mut back = Vec::new();
        for event in self.offered.drain(..count.min(self.offered.len())) {
            match event {
                SubscriptionEvent::Deliver(delivery) => {
                    if self.held.len() + self.unwritten.len() >= self.ready as usize || goes_back() {
                        back.push(LeaseEvent {
                            token: delivery.token,
                            outcome: LeaseOutcome::Returned,
                        });
                    } else {
                        self.unwritten.push_back(delivery);
                    }
                }
                SubscriptionEvent::Emptied => {
                    self.table.empty();
                    self.held.clear();
                    self.unwritten.clear();
                }
            }
        }
        back
    }

    /// The socket takes up to `count` messages.
    pub(super) fn write(&mut self, count: usize, now: Monotonic) {
        for delivery in self.unwritten.drain(..count.min(self.unwritten.len())) {
            self.table.delivered(&delivery, now);
            let held = Held {
                delivery: delivery.token.delivery,
                deadline: now + self.msg_timeout,
                deadline_max: now + self.msg_timeout * 3,
            };
            self.held.insert(delivery.token.seq, held);
        }
    }

    pub(super) fn finish(&mut self, seq: Seq) -> LeaseEvent {
        self.held.remove(&seq);
        self.table.finish(seq).expect("held")
    }

    pub(super) fn requeue(&mut self, seq: Seq, delay_ms: u32) -> LeaseEvent {
        self.held.remove(&seq);
        self.table.requeue(seq, delay_ms).expect("held")
    }

    pub(super) fn touch(&mut self, seq: Seq, now: Monotonic) {
        self.table.touch(seq, now).expect("held");
        let held = self.held.get_mut(&seq).expect("held");
        held.deadline = (now + self.msg_timeout).min(held.deadline_max);
    }

    pub(super) fn expire(&mut self, now: Monotonic) -> Vec<LeaseEvent> {
        let events = self.table.expire(now);
        for event in &events {
            self.held.remove(&event.token.seq).expect("held");
        }
        events
    }

    /// The connection ends: what is in the output buffer goes back.
    pub(super) fn return_unwritten(&mut self) -> Vec<LeaseEvent> {
        let back = self.unwritten.drain(..);
        back.map(|delivery| LeaseEvent {
            token: delivery.token,
            outcome: LeaseOutcome::Returned,
        })
        .collect()
    }

    /// The connection has ended: what it held runs out.
    pub(super) fn end(self) -> OrphanedLeases {
        self.table.disconnect()
    }
}
