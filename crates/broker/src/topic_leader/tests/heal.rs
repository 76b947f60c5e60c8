//! The end of a history: nothing fails any more, consumers take everything, and then nothing may be left.

use std::collections::BTreeSet;
use std::time::Duration;

use nsquorum_protocol::ChannelName;
use nsquorum_storage::SpaceState;
use nsquorum_topic::{Event, Seq};

use super::group::ME;
use super::history::History;
use crate::leases::LeaseEvent;
use crate::subscription::SubscriptionId;
use crate::topic_leader::input::{ChannelChange, Command};

const ROUNDS_MAX: usize = 3_000;

impl History {
    /// Heals everything, drains every channel, and checks what was promised.
    pub(super) fn finish(&mut self) {
        self.is_healing = true;
        self.space = SpaceState::Ok;
        if self.group.leader != ME {
            self.elect(ME);
        }
        self.settle();
        if self.deleted.is_none() {
            self.unpause();
            self.drain();
            self.check_nothing_is_left();
            self.check_nothing_is_lost();
        } else {
            let last = Seq::new(self.group.state.next_seq().get() - 1);
            assert_eq!(self.deleted, Some(last), "the last number of a deleted topic");
            assert!(
                self.consumers.values().all(|consumer| consumer.is_closed),
                "a consumer of a deleted topic is open"
            );
        }
        assert!(self.publishers.are_answered(), "somebody waits for an answer for ever");
        self.check_publishers();
    }

    /// Lets everything that is under way come to its end.
    pub(super) fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.step();
            while self.group.apply_one() {}
            let mut moved = self.parting();
            while self.deliver_event() {
                moved = true;
            }
            while !self.jobs.is_empty() {
                self.run_job();
            }
            while self.deliver_found() {
                moved = true;
            }
            if !moved && self.publishers.are_answered() && self.group.unapplied() == 0 {
                return;
            }
            self.now = self.now + Duration::from_millis(3);
        }
        panic!("what is under way does not come to its end");
    }

    fn unpause(&mut self) {
        self.command(Command::Topic(Event::UnpauseTopic));
        let names: Vec<ChannelName> = self
            .group
            .state
            .channels()
            .filter(|channel| channel.is_paused())
            .map(|channel| channel.name().clone())
            .collect();
        for name in names {
            self.command(Command::Channel(name, ChannelChange::Unpause));
        }
        self.settle();
    }

    fn drain(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let closed: Vec<SubscriptionId> = self
                .consumers
                .values()
                .filter(|consumer| consumer.is_closed)
                .map(|consumer| consumer.id)
                .collect();
            closed.into_iter().for_each(|id| self.disconnect(id));
            // The last consumer of an ephemeral channel has its end; one that has none is on its way out already.
            let served: BTreeSet<ChannelName> = self
                .consumers
                .values()
                .map(|consumer| consumer.channel.clone())
                .collect();
            let names: Vec<ChannelName> = self
                .group
                .state
                .channels()
                .map(|channel| channel.name().clone())
                .collect();
            for name in names
                .into_iter()
                .filter(|name| !served.contains(name) && !name.is_ephemeral())
            {
                self.subscribe_to(name);
            }
            self.settle();
            if self.is_drained() && self.nothing_is_held() {
                return;
            }
            self.consume_everything();
            self.now = self.now + Duration::from_millis(5);
        }
        let stats = self.stats();
        panic!(
            "the channels do not become empty: {stats:#?}\nstate: {:#?}",
            self.group.state
        );
    }

    fn is_drained(&self) -> bool {
        let end = self.group.state.readable_end();
        self.group.state.channels().all(|channel| {
            channel.unfinished_below(end) == 0 || channel.name().is_ephemeral() && !self.is_served(channel.name())
        })
    }

    /// A late FIN of an earlier holder may have finished what its present holder has yet to answer.
    fn nothing_is_held(&mut self) -> bool {
        let stats = self.stats().expect("a leader answers");
        stats
            .channels
            .iter()
            .all(|channel| channel.in_flight_count == 0 || channel.name.is_ephemeral())
    }

    fn is_served(&self, name: &ChannelName) -> bool {
        self.consumers.values().any(|consumer| consumer.channel == *name)
    }

    fn consume_everything(&mut self) {
        let ids: Vec<SubscriptionId> = self
            .consumers
            .values()
            .filter(|consumer| consumer.is_attached())
            .map(|consumer| consumer.id)
            .collect();
        for id in ids {
            self.ready(id, 10);
            let consumer = self.consumers.get_mut(&id).expect("listed above");
            let mut events = consumer.take(usize::MAX, &mut self.dice);
            consumer.write(usize::MAX, self.now);
            events.extend(consumer.expire(self.now));
            let held: Vec<Seq> = consumer.held.keys().copied().collect();
            events.extend(
                held.into_iter()
                    .map(|seq| consumer.finish(seq))
                    .collect::<Vec<LeaseEvent>>(),
            );
            self.lease_events(events);
        }
    }

    fn check_nothing_is_left(&mut self) {
        let stats = self.stats().expect("a leader answers");
        for channel in stats.channels.iter().filter(|channel| !channel.name.is_ephemeral()) {
            let left = (channel.depth, channel.in_flight_count, channel.deferred_count);
            assert_eq!(left, (0, 0, 0), "depth, in flight and deferred of {}", channel.name);
        }
        assert!(self.jobs.is_empty(), "a job is left");
    }

    /// Each message that a channel should have got was delivered on it, or emptied out of it.
    fn check_nothing_is_lost(&self) {
        let state = &self.group.state;
        for channel in state.channels().filter(|channel| !channel.name().is_ephemeral()) {
            for seq in (channel.begin().get()..state.next_seq().get()).map(Seq::new) {
                let key = (channel.incarnation(), seq);
                let excused = self.model.delivered.contains(&key)
                    || self.group.excused.contains(&key)
                    || self.model.passed_over.contains(&key);
                assert!(excused, "message {seq} was never delivered on {}", channel.name());
            }
        }
    }
}
