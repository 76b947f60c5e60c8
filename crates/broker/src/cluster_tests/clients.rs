//! Clients of one node, and what all clients together know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nsquorum_environment::Monotonic;
use nsquorum_protocol::ChannelName;
use nsquorum_topic::{ChannelIncarnation, LogTime, NewMessage, NodeId, Seq, Term};
use tokio::sync::{mpsc, oneshot};

use crate::dice::Dice;
use crate::leases::{Delivery, LeaseEvent, LeaseTable};
use crate::nearness::Nearness;
use crate::publish::PublishError;
use crate::stats::ClientDescription;
use crate::subscription::{SubscribeError, SubscriptionEvent, SubscriptionId, SubscriptionOptions};
use crate::topic_leader::{Held, LeaderInput, Publish, Subscribe};

/// Long enough that nothing times out by accident, short enough that what is forgotten comes back.
pub(super) const MSG_TIMEOUT: Duration = Duration::from_secs(60);

/// The channels of the topic.
pub(super) const CHANNELS: [&str; 2] = ["ledger", "archive"];

fn channel(name: &str) -> ChannelName {
    name.parse().expect("a valid name")
}

/// A message on its way to the consumers of one channel.
pub(super) type Way = (ChannelIncarnation, Seq);

/// Which process: node and incarnation.
pub(super) type Process = (NodeId, u64);

/// Bodies of a publish, and its answer to come.
type Pending = (Vec<Bytes>, oneshot::Receiver<Result<(), PublishError>>);

/// A producer's connection.
pub(super) struct Producer {
    name: String,
    sent: u64,
    pending: Vec<Pending>,
}

/// A consumer's connection.
pub(super) struct Consumer {
    pub(super) id: SubscriptionId,
    pub(super) channel: &'static str,
    deliveries: mpsc::UnboundedReceiver<SubscriptionEvent>,
    answer: Option<oneshot::Receiver<Result<(), SubscribeError>>>,
    table: LeaseTable,
    /// Its subscription was closed, and its connection is about to end.
    is_closed: bool,
    pub(super) held: BTreeMap<Seq, Delivery>,
}

/// What became of publishes and messages.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) safe: BTreeSet<Bytes>,
    pub(super) unknown: u64,
    /// Channels that exist for certain.
    channels: BTreeSet<&'static str>,
    /// What was published for one channel.
    pub(super) only: BTreeMap<Bytes, &'static str>,
    /// Bodies in the order sent, per connection.
    pub(super) order: BTreeMap<String, Vec<Bytes>>,
    pub(super) deliveries: BTreeMap<Way, u64>,
    /// Who has it.
    holders: BTreeMap<Way, Process>,
    /// Who has finished it.
    finished: BTreeMap<Way, Process>,
    /// Processes that ended when what they had finished was in the log, and the term at that time.
    stopped: BTreeMap<Process, Term>,
    pub(super) redelivered: u64,
    /// Delivered on a channel that it was not published for.
    pub(super) astray: u64,
}

impl Ledger {
    /// A process has died: what it held or finished may come again.
    pub(super) fn died(&mut self, process: Process) {
        self.holders.retain(|_, holder| *holder != process);
        self.finished.retain(|_, by| *by != process);
    }

    /// A process has stopped, and nothing that it finished may come again; but a leader of an earlier term that has not noticed its end yet
    /// knows nothing of that, and may deliver to a process that knows nothing of later terms.
    pub(super) fn stopped(&mut self, process: Process, term: Term) {
        self.stopped.insert(process, term);
    }

    /// `stored_in`: the term whose leader has put the message into the log.
    fn delivered(&mut self, delivery: &Delivery, on: &str, to: Process, stored_in: Term) {
        let seq = delivery.token.seq;
        let way = (delivery.token.channel, seq);
        if let Some(only) = self.only.get(&delivery.body).filter(|only| **only != on) {
            // A later leader cannot know whom it was for, if the one that stored it has not put that into the log.
            assert_ne!(
                delivery.token.term, stored_in,
                "message {seq} is for {only} alone, and comes on {on}"
            );
            self.astray += 1;
        }
        let count = self.deliveries.entry(way).or_default();
        *count += 1;
        self.redelivered += u64::from(*count > 1);
        assert!(
            u64::from(delivery.token.attempts.get()) <= *count,
            "message {seq} says {} attempts at its delivery {count}",
            delivery.token.attempts
        );
        if let Some(holder) = self.holders.insert(way, to) {
            panic!(
                "message {seq} is delivered to {to:?} by term {} while {holder:?} holds it",
                delivery.token.term
            );
        }
        let knows = |by: &&Process| self.stopped.get(by).is_none_or(|since| *since <= delivery.token.term);
        if let Some(by) = self.finished.get(&way).filter(knows) {
            panic!(
                "message {seq} is delivered to {to:?} by term {} after {by:?} has finished it",
                delivery.token.term
            );
        }
    }
}

pub(super) fn client() -> Arc<ClientDescription> {
    Arc::default()
}

/// The clients of one process.
pub(super) struct Clients {
    pub(super) process: Process,
    producers: Vec<Producer>,
    pub(super) consumers: Vec<Consumer>,
    next_id: u64,
    /// Subscriptions that the node has closed and that were not seen to be.
    pub(super) closing: usize,
}

impl Clients {
    pub(super) fn new(process: Process) -> Self {
        let producers = (0..2)
            .map(|i| Producer {
                name: format!("{}.{}.{i}", process.0, process.1),
                sent: 0,
                pending: Vec::new(),
            })
            .collect();
        Self {
            process,
            producers,
            consumers: Vec::new(),
            next_id: 0,
            closing: 0,
        }
    }

    pub(super) fn publish(&mut self, dice: &mut Dice, ledger: &mut Ledger) -> LeaderInput {
        let index = dice.below(self.producers.len() as u64) as usize;
        let producer = &mut self.producers[index];
        let bodies: Vec<Bytes> = (0..=dice.below(2))
            .map(|_| {
                producer.sent += 1;
                Bytes::from(format!("{}.{:06}", producer.name, producer.sent))
            })
            .collect();
        let (answer, answered) = oneshot::channel();
        ledger
            .order
            .entry(producer.name.clone())
            .or_default()
            .extend(bodies.iter().cloned());
        let messages = bodies
            .iter()
            .map(|body| NewMessage::new(body.clone(), LogTime::new(1)))
            .collect();
        // Where the channel may be missing a publish is refused by one leader, and if that is not heard it may be stored by the next, behind
        // later ones.
        let channels: Vec<&str> = ledger.channels.iter().copied().collect();
        let only = if dice.one_in(6) { dice.pick(&channels) } else { None };
        if let Some(only) = only {
            ledger.only.extend(bodies.iter().map(|body| (body.clone(), only)));
        }
        producer.pending.push((bodies, answered));
        LeaderInput::Publish(Publish {
            messages,
            answer: answer.into(),
            only: only.map(channel),
            place: None,
            _held: Held::Nothing,
        })
    }

    pub(super) fn subscribe(&mut self, dice: &mut Dice) -> LeaderInput {
        self.subscribe_to(dice.pick(&CHANNELS).expect("not empty"))
    }

    pub(super) fn subscribe_to(&mut self, name: &'static str) -> LeaderInput {
        self.next_id += 1;
        let id = SubscriptionId(self.next_id);
        let (deliveries, receiver) = mpsc::unbounded_channel();
        let (answer, answered) = oneshot::channel();
        self.consumers.push(Consumer {
            id,
            channel: name,
            deliveries: receiver,
            answer: Some(answered),
            table: LeaseTable::new(MSG_TIMEOUT, MSG_TIMEOUT * 2),
            is_closed: false,
            held: BTreeMap::new(),
        });
        LeaderInput::Subscribe(Subscribe {
            id,
            channel: channel(name),
            options: SubscriptionOptions {
                client: client(),
                msg_timeout: MSG_TIMEOUT,
                // All kinds, and nodes that disagree.
                nearness: [
                    None,
                    Some(Nearness::Zone),
                    Some(Nearness::Region),
                    Some(Nearness::Global),
                ][self.next_id as usize % 4],
            },
            deliveries,
            answer,
        })
    }

    /// Takes answers and deliveries. Says which consumers have just been attached.
    pub(super) fn look(
        &mut self,
        ledger: &mut Ledger,
        now: Monotonic,
        stored_in: &BTreeMap<Seq, Term>,
    ) -> Vec<SubscriptionId> {
        for producer in &mut self.producers {
            producer.pending.retain_mut(|(bodies, answer)| match answer.try_recv() {
                Ok(Ok(())) => {
                    ledger.safe.extend(bodies.drain(..));
                    false
                }
                // A leader that has been overruled and does not know it knows no channel of the next one's. (Here it has no lease that ends before.)
                Ok(Err(PublishError::TimedOut | PublishError::ChannelNotFound)) => {
                    ledger.unknown += 1;
                    false
                }
                Ok(Err(error)) => panic!("a publish failed with {error:?}"),
                Err(oneshot::error::TryRecvError::Empty) => true,
                Err(oneshot::error::TryRecvError::Closed) => panic!("a publish was dropped without an answer"),
            });
        }
        let mut attached = Vec::new();
        for consumer in &mut self.consumers {
            if let Some(answer) = &mut consumer.answer {
                match answer.try_recv() {
                    Ok(Ok(())) => {
                        consumer.answer = None;
                        ledger.channels.insert(consumer.channel);
                        attached.push(consumer.id);
                    }
                    Ok(Err(error)) => panic!("a subscription failed: {error}"),
                    Err(oneshot::error::TryRecvError::Empty) => {}
                    Err(oneshot::error::TryRecvError::Closed) => panic!("a subscription was dropped"),
                }
            }
            loop {
                match consumer.deliveries.try_recv() {
                    Ok(SubscriptionEvent::Deliver(delivery)) => {
                        ledger.delivered(
                            &delivery,
                            consumer.channel,
                            self.process,
                            stored_in[&delivery.token.seq],
                        );
                        consumer.table.delivered(&delivery, now);
                        consumer.held.insert(delivery.token.seq, delivery);
                    }
                    Ok(SubscriptionEvent::Emptied) => panic!("nobody empties"),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) if consumer.is_closed => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => {
                        let closing = self.closing.checked_sub(1);
                        self.closing = closing.expect("a consumer was disconnected");
                        consumer.is_closed = true;
                    }
                }
            }
        }
        attached
    }

    /// A consumer does something with a message that it holds.
    pub(super) fn settle(&mut self, dice: &mut Dice, ledger: &mut Ledger, may_requeue: bool) -> Option<LeaderInput> {
        let with: Vec<usize> = (0..self.consumers.len())
            .filter(|i| !self.consumers[*i].held.is_empty())
            .collect();
        let consumer = &mut self.consumers[dice.pick(&with)?];
        let held: Vec<Seq> = consumer.held.keys().copied().collect();
        let mut events = Vec::new();
        for _ in 0..=dice.below(3) {
            let Some(seq) = dice.pick(&held) else { break };
            let Some(delivery) = consumer.held.remove(&seq) else {
                continue;
            };
            let way = (delivery.token.channel, seq);
            ledger.holders.remove(&way);
            events.push(if may_requeue && dice.one_in(5) {
                requeue(&mut consumer.table, seq)
            } else {
                ledger.finished.insert(way, self.process);
                consumer.table.finish(seq).expect("held")
            });
        }
        Some(LeaderInput::LeaseEvents { events })
    }

    /// A consumer's connection ends. What it held runs out in time.
    pub(super) fn disconnect(&mut self, dice: &mut Dice, ledger: &mut Ledger) -> Option<LeaderInput> {
        let attached: Vec<usize> = (0..self.consumers.len())
            .filter(|i| self.consumers[*i].answer.is_none())
            .collect();
        Some(self.end(dice.pick(&attached)?, ledger))
    }

    /// The connection ends of a consumer whose subscription was closed.
    pub(super) fn leave(&mut self, ledger: &mut Ledger) -> Option<LeaderInput> {
        let closed = self.consumers.iter().position(|consumer| consumer.is_closed);
        closed.map(|place| self.end(place, ledger))
    }

    fn end(&mut self, place: usize, ledger: &mut Ledger) -> LeaderInput {
        let consumer = self.consumers.remove(place);
        // Anything that is still in its channel was never seen.
        for (seq, delivery) in &consumer.held {
            ledger.holders.remove(&(delivery.token.channel, *seq));
        }
        LeaderInput::Disconnected {
            subscription: consumer.id,
            leases: consumer.table.disconnect(),
        }
    }

    /// Whether a consumer's connection can end: the clients wait for the answer to their SUB.
    pub(super) fn has_attached(&self) -> bool {
        self.consumers.iter().any(|consumer| consumer.answer.is_none())
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.producers.iter().any(|producer| !producer.pending.is_empty())
            || self.consumers.iter().any(|consumer| consumer.answer.is_some())
    }
}

fn requeue(table: &mut LeaseTable, seq: Seq) -> LeaseEvent {
    table.requeue(seq, 0).expect("held")
}
