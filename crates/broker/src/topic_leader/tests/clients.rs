//! What happens above the leader: publishers, consumers, and people who administer.

use std::time::Duration;

use nsquorum_protocol::ChannelName;
use nsquorum_storage::SpaceState;
use nsquorum_topic::{Event, Seq};
use tokio::sync::oneshot;

use super::channel;
use super::consumers::Consumer;
use super::history::History;
use crate::leases::LeaseEvent;
use crate::stats::TopicStats;
use crate::subscription::SubscriptionId;
use crate::topic_leader::input::{ChannelChange, Command, LeaderInput};

const CHANNELS: [&str; 4] = ["ledger", "archive", "audit", "tail#ephemeral"];
const CONSUMERS_MAX: usize = 7;

impl History {
    pub(super) fn publish(&mut self) {
        let is_for_one = self.bias.one_channel.is_some_and(|bias| self.dice.one_in(bias));
        let publish = if is_for_one {
            let name = self.dice.pick(&CHANNELS).expect("not empty");
            let count = 1 + self.dice.below(4);
            self.publishers.publish_to(channel(name), count)
        } else {
            self.publishers.publish(&mut self.dice)
        };
        self.input(LeaderInput::Publish(publish));
    }

    pub(super) fn subscribe(&mut self) {
        if self.consumers.len() < CONSUMERS_MAX {
            let name = self.dice.pick(&CHANNELS).expect("not empty");
            self.subscribe_to(channel(name));
        }
    }

    pub(super) fn subscribe_to(&mut self, name: ChannelName) {
        self.subscriptions += 1;
        let msg_timeout = Duration::from_millis(20 + self.dice.below(60));
        let (consumer, subscribe) = Consumer::subscribe(self.subscriptions, name, msg_timeout);
        self.consumers.insert(consumer.id, consumer);
        self.input(LeaderInput::Subscribe(subscribe));
    }

    pub(super) fn ready(&mut self, id: SubscriptionId, count: u32) {
        self.consumers.get_mut(&id).expect("a consumer that is there").ready = count;
        self.model.ready(id, count);
        self.input(LeaderInput::Ready {
            subscription: id,
            count,
        });
    }

    pub(super) fn lease_events(&mut self, events: Vec<LeaseEvent>) {
        if !events.is_empty() {
            events.iter().for_each(|event| self.model.lease_event(event, self.now));
            self.input(LeaderInput::LeaseEvents { events });
        }
    }

    pub(super) fn consume(&mut self) {
        let ids: Vec<SubscriptionId> = self.consumers.keys().copied().collect();
        let Some(id) = self.dice.pick(&ids) else { return };
        let consumer = self.consumers.get_mut(&id).expect("picked from the map");
        if !consumer.is_attached() {
            if consumer.is_closed || self.dice.one_in(10) {
                self.disconnect(id);
            }
            return;
        }
        if consumer.ready == 0 && self.dice.one_in(3) {
            return self.set_ready(id);
        }
        let held: Vec<Seq> = consumer.held.keys().copied().collect();
        let events = match self.dice.below(20) {
            0 => return self.set_ready(id),
            1..6 => consumer.take(1 + self.dice.below(4) as usize, &mut self.dice),
            6..11 => {
                consumer.write(1 + self.dice.below(4) as usize, self.now);
                return;
            }
            11..14 => held
                .into_iter()
                .take(self.dice.below(4) as usize)
                .map(|seq| consumer.finish(seq))
                .collect(),
            14..17 => {
                let delay_ms = if self.dice.one_in(2) {
                    0
                } else {
                    1 + self.dice.below(40) as u32
                };
                self.dice
                    .pick(&held)
                    .map(|seq| consumer.requeue(seq, delay_ms))
                    .into_iter()
                    .collect()
            }
            17 => {
                if let Some(seq) = self.dice.pick(&held) {
                    consumer.touch(seq, self.now);
                }
                return;
            }
            18 => consumer.expire(self.now),
            _ => {
                if self.dice.one_in(4) {
                    self.disconnect(id);
                }
                return;
            }
        };
        self.lease_events(events);
    }

    pub(super) fn set_ready(&mut self, id: SubscriptionId) {
        let count = self.dice.pick(&[0, 1, 2, 5, 20]).expect("not empty");
        self.ready(id, count);
    }

    /// The connection ends. The leader hears of it now or later.
    pub(super) fn disconnect(&mut self, id: SubscriptionId) {
        let unwritten = self
            .consumers
            .get_mut(&id)
            .expect("a consumer that is there")
            .return_unwritten();
        if !self.model.knows(id) {
            let consumer = self.consumers.remove(&id).expect("looked up above");
            return self.part(consumer, unwritten);
        }
        // It may be given more before the leader hears the rest.
        self.lease_events(unwritten);
        let consumer = self.consumers.remove(&id).expect("looked up above");
        self.model.disconnected(&consumer);
        let leases = consumer.end();
        self.input(LeaderInput::Disconnected {
            subscription: id,
            leases,
        });
    }

    /// A connection of a leadership that is over: FINs that were on their way arrive some time.
    pub(super) fn part(&mut self, mut consumer: Consumer, unwritten: Vec<LeaseEvent>) {
        let id = consumer.id;
        let held: Vec<Seq> = consumer.held.keys().copied().collect();
        let count = self.dice.below(held.len() as u64 + 1) as usize;
        let mut events: Vec<LeaseEvent> = held.into_iter().take(count).map(|seq| consumer.finish(seq)).collect();
        events.extend(unwritten);
        self.partings.push((id, events, consumer.end()));
    }

    pub(super) fn parting(&mut self) -> bool {
        let Some((id, events, leases)) = self.partings.pop() else {
            return false;
        };
        self.lease_events(events);
        self.input(LeaderInput::Disconnected {
            subscription: id,
            leases,
        });
        true
    }

    pub(super) fn command(&mut self, command: Command) {
        let answer = self.publishers.command();
        self.input(LeaderInput::Command { command, answer });
    }

    pub(super) fn administer(&mut self) {
        let name = channel(self.dice.pick(&CHANNELS).expect("not empty"));
        let change = |change| Command::Channel(name.clone(), change);
        let command = match self.dice.below(14) {
            0 => change(ChannelChange::Delete),
            1..3 => change(ChannelChange::Empty),
            3..5 => change(ChannelChange::Pause),
            5..7 => change(ChannelChange::Unpause),
            7 => Command::CreateChannel(name),
            8 => Command::Topic(Event::PauseTopic),
            9..11 => Command::Topic(Event::UnpauseTopic),
            11 => Command::Topic(Event::EmptyTopic),
            _ => {
                self.space = self
                    .dice
                    .pick(&[
                        SpaceState::Ok,
                        SpaceState::Ok,
                        SpaceState::RefusePublishes,
                        SpaceState::RefuseAll,
                    ])
                    .expect("not empty");
                return;
            }
        };
        self.command(command);
    }

    pub(super) fn stats(&mut self) -> Option<TopicStats> {
        let (answer, mut receiver) = oneshot::channel();
        self.input(LeaderInput::Stats { channel: None, answer });
        receiver.try_recv().ok()
    }

    pub(super) fn look_at_stats(&mut self) {
        let Some(state) = self.model.state().cloned() else {
            return;
        };
        let Some(stats) = self.stats() else { return };
        for channel in &stats.channels {
            let found = state
                .channel_by_name(&channel.name)
                .expect("a channel that the leader knows");
            // An ephemeral channel that has lost its last consumer is on its way out with all that it had.
            if !channel.name.is_ephemeral() {
                let held = self.model.in_flight(found.incarnation());
                assert_eq!(channel.in_flight_count, held, "in flight in {}", channel.name);
            }
            assert_eq!(channel.paused, found.is_paused());
            for client in &channel.clients {
                assert_eq!(
                    client.in_flight_count,
                    self.model.in_flight_of(client.id),
                    "in flight at {:?}",
                    client.id
                );
            }
        }
        assert_eq!(stats.message_count, state.next_seq().get() - 1);
    }
}
