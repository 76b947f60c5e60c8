//! Consumers of the topic: how they come, what they do with messages, and how they go.

use std::time::Duration;

use nsquorum_environment::Monotonic;
use nsquorum_protocol::ChannelName;
use nsquorum_topic::{Attempts, ChannelIncarnation, Event, NodeId, RequeueCause, Seq};
use tokio::sync::mpsc;

use super::dispatch::{ConsumerId, InFlight};
use super::input::LocalConsumer;
use super::machine::TopicLeader;
use crate::latency::LatencyWindow;
use crate::leases::{LeaseEvent, LeaseOutcome, OrphanedLeases};
use crate::subscription::{SubscribeError, SubscriptionEvent, SubscriptionId, SubscriptionOptions};
use crate::wire::{FromLeader, Subscriber};

/// Where a consumer's deliveries go.
#[derive(Debug)]
pub(super) enum Port {
    /// To a connection of this node.
    Local {
        channel: ChannelName,
        deliveries: mpsc::UnboundedSender<SubscriptionEvent>,
    },
    /// To the router of another node.
    Node(NodeId),
}

/// A consumer at its leader.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) channel: ChannelIncarnation,
    pub(super) options: SubscriptionOptions,
    pub(super) port: Port,
    pub(super) ready: u32,
    pub(super) in_flight: u64,
    pub(super) messages: u64,
    pub(super) finished: u64,
    pub(super) requeued: u64,
    pub(super) in_turn: bool,
    /// No association with its node: nothing is delivered.
    pub(super) is_suspended: bool,
}

impl Consumer {
    pub(super) const fn new(channel: ChannelIncarnation, options: SubscriptionOptions, port: Port) -> Self {
        Self {
            channel,
            options,
            port,
            ready: 0,
            in_flight: 0,
            messages: 0,
            finished: 0,
            requeued: 0,
            in_turn: false,
            is_suspended: false,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        !self.is_suspended && self.in_flight < u64::from(self.ready)
    }
}

/// A consumer whose channel is being created.
#[derive(Debug)]
pub(super) enum Attaching {
    Local(LocalConsumer),
    Node(NodeId, Subscriber),
}

#[derive(Debug)]
pub(super) struct Orphans {
    pub(super) channel: ChannelIncarnation,
    pub(super) leases: OrphanedLeases,
}

impl TopicLeader {
    pub(super) fn subscribe(&mut self, consumer: Attaching) {
        let Some(leading) = &self.leading else { return };
        let name = match &consumer {
            Attaching::Local(consumer) => &consumer.channel,
            Attaching::Node(_, subscriber) => &subscriber.channel,
        };
        let existing = leading.state.channel_by_name(name).map(|channel| channel.incarnation());
        // One that is about to go by itself would take the consumer with it, which begins the next instead.
        let existing = existing.filter(|channel| !name.is_ephemeral() || !self.pipeline.is_deleting(*channel));
        match existing {
            Some(channel) => self.attach(consumer, channel),
            None => {
                let name = name.clone();
                let waiting = self.attaching.entry(name.clone()).or_default();
                let is_first = waiting.is_empty();
                waiting.push(consumer);
                if is_first {
                    self.pipeline.command(Event::CreateChannel { name }, None);
                }
            }
        }
    }

    pub(super) fn attach_waiting(&mut self, name: &ChannelName, channel: ChannelIncarnation) {
        for consumer in self.attaching.remove(name).unwrap_or_default() {
            self.attach(consumer, channel);
        }
    }

    pub(super) fn attach(&mut self, consumer: Attaching, channel: ChannelIncarnation) {
        let dispatch = self
            .leading
            .as_mut()
            .and_then(|leading| leading.dispatches.get_mut(&channel));
        let Some(dispatch) = dispatch else {
            match consumer {
                Attaching::Local(LocalConsumer { answer, .. }) => {
                    drop(answer.map(|answer| answer.send(Err(SubscribeError::Deleted))));
                }
                Attaching::Node(node, Subscriber { subscription, .. }) => {
                    let result = Err(SubscribeError::Deleted);
                    self.send(node, FromLeader::Subscribed { subscription, result });
                }
            }
            return;
        };
        match consumer {
            Attaching::Local(consumer) => {
                let id = ConsumerId::local(consumer.id);
                if consumer.answer.is_some_and(|answer| answer.send(Ok(())).is_err()) {
                    // The connection has gone meanwhile, and so it never says that it goes.
                    if dispatch.consumers.is_empty() && dispatch.name.is_ephemeral() {
                        self.pipeline.command(Event::DeleteChannel { channel }, None);
                    }
                    return;
                }
                let port = Port::Local {
                    channel: consumer.channel,
                    deliveries: consumer.deliveries,
                };
                self.add_consumer(id, Consumer::new(channel, consumer.options, port), consumer.ready);
            }
            Attaching::Node(node, subscriber) => {
                let subscription = subscriber.subscription;
                let id = ConsumerId {
                    node: Some(node),
                    subscription,
                };
                let result = Ok(channel);
                let consumer = Consumer::new(channel, subscriber.options, Port::Node(node));
                self.send(node, FromLeader::Subscribed { subscription, result });
                self.add_consumer(id, consumer, subscriber.ready);
            }
        }
    }

    /// Attaches a consumer to a channel that exists.
    pub(super) fn add_consumer(&mut self, id: ConsumerId, consumer: Consumer, ready: u32) {
        let dispatch = self
            .leading
            .as_mut()
            .and_then(|leading| leading.dispatches.get_mut(&consumer.channel));
        if let Some(dispatch) = dispatch {
            dispatch.attach(id, consumer.options.nearness);
            self.consumers.insert(id, consumer);
            if ready > 0 {
                self.ready(id, ready);
            }
        }
    }

    pub(super) fn ready(&mut self, id: ConsumerId, count: u32) {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return;
        };
        consumer.ready = count;
        let channel = consumer.channel;
        self.take_turn(id);
        self.dispatch(channel);
    }

    /// Lets a consumer with room take part in its channel's round.
    fn take_turn(&mut self, id: ConsumerId) {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return;
        };
        let dispatch = self
            .leading
            .as_mut()
            .and_then(|leading| leading.dispatches.get_mut(&consumer.channel));
        if let Some(dispatch) = dispatch
            && consumer.has_room()
            && !consumer.in_turn
        {
            consumer.in_turn = true;
            dispatch.enter_turn(id);
        }
    }

    pub(super) fn lease_events(&mut self, events: &[LeaseEvent], now: Monotonic) {
        let mut touched: Option<ChannelIncarnation> = None;
        for event in events {
            self.lease_event(event, now);
            let channel = event.token.channel;
            if let Some(before) = touched.replace(channel)
                && before != channel
            {
                self.dispatch(before);
            }
        }
        if let Some(channel) = touched {
            self.dispatch(channel);
        }
    }

    pub(super) fn lease_event(&mut self, event: &LeaseEvent, now: Monotonic) {
        let token = event.token;
        let Some(leading) = &mut self.leading else { return };
        let clock = leading.clock(now);
        let Some(dispatch) = leading.dispatches.get_mut(&token.channel) else {
            return;
        };
        let holder = dispatch.in_flight.get(&token.seq).copied();
        let is_holder = holder.is_some_and(|holder| holder.is(&token));
        // A FIN counts while the message is unfinished, whoever holds it now; everything else only from the holder.
        if !is_holder && event.outcome != LeaseOutcome::Finished {
            return;
        }
        if is_holder {
            dispatch.in_flight.remove(&token.seq);
        }
        if let Some(settings) = &self.latency
            && event.outcome == LeaseOutcome::Finished
            && let Some(published_at) = holder.filter(|_| is_holder).and_then(|holder| holder.published_at)
        {
            let latency = Duration::from_nanos(clock.get().saturating_sub(published_at.get()));
            let window = dispatch
                .latency
                .get_or_insert_with(|| LatencyWindow::new(settings, now));
            window.record(latency, now);
        }
        let requeue = |not_before, cause| Event::Requeue {
            channel: token.channel,
            seq: token.seq,
            attempts: token.attempts,
            not_before,
            cause,
        };
        match event.outcome {
            LeaseOutcome::Finished => {
                if leading
                    .state
                    .channel(token.channel)
                    .is_some_and(|channel| !channel.is_finished(token.seq))
                {
                    self.pipeline.finish(token.channel, token.seq, now);
                }
            }
            LeaseOutcome::Requeued { delay_ms } => {
                count_redelivery("requeue");
                let not_before = (delay_ms > 0).then(|| clock.plus_ms(delay_ms));
                self.pipeline.requeue(requeue(not_before, RequeueCause::Requeue));
            }
            LeaseOutcome::TimedOut => {
                count_redelivery("timeout");
                self.pipeline.requeue(requeue(None, RequeueCause::Timeout));
            }
            LeaseOutcome::Disconnected => {
                count_redelivery("disconnect");
                self.pipeline.requeue(requeue(None, RequeueCause::Disconnect));
            }
            LeaseOutcome::Returned => {
                dispatch.give_back(token.seq, Attempts::new(token.attempts.get().saturating_sub(1)));
                if let Some(holder) = holder {
                    dispatch.unserved(holder.consumer);
                }
            }
        }
        if let Some(holder) = holder.filter(|_| is_holder) {
            self.released(holder.consumer, event.outcome);
        }
    }

    fn released(&mut self, id: ConsumerId, outcome: LeaseOutcome) {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return;
        };
        consumer.in_flight = consumer.in_flight.saturating_sub(1);
        match outcome {
            LeaseOutcome::Finished => consumer.finished += 1,
            LeaseOutcome::Requeued { .. } => consumer.requeued += 1,
            LeaseOutcome::Returned => consumer.messages = consumer.messages.saturating_sub(1),
            LeaseOutcome::TimedOut | LeaseOutcome::Disconnected => {}
        }
        self.take_turn(id);
    }

    pub(super) fn disconnected(&mut self, subscription: SubscriptionId, leases: OrphanedLeases) {
        let id = ConsumerId::local(subscription);
        let Some(consumer) = self.consumers.remove(&id) else {
            return;
        };
        let channel = consumer.channel;
        let Some(dispatch) = self
            .leading
            .as_mut()
            .and_then(|leading| leading.dispatches.get_mut(&channel))
        else {
            return;
        };
        // What it never wrote to the socket keeps its place; what it did write stays in flight until its own deadline.
        let unwritten: Vec<(Seq, InFlight)> = dispatch
            .in_flight
            .iter()
            .filter(|(seq, held)| held.consumer == id && !leases.holds(**seq, held.delivery))
            .map(|(seq, held)| (*seq, *held))
            .collect();
        for (seq, held) in unwritten {
            dispatch.in_flight.remove(&seq);
            dispatch.give_back(seq, Attempts::new(held.attempts.get().saturating_sub(1)));
            dispatch.unserved(id);
        }
        dispatch.detach(id);
        if dispatch.consumers.is_empty() && dispatch.name.is_ephemeral() {
            self.pipeline.command(Event::DeleteChannel { channel }, None);
        } else if !leases.is_empty() {
            self.orphans.push(Orphans { channel, leases });
        }
        self.dispatch(channel);
    }

    pub(super) fn expire_orphans(&mut self, now: Monotonic) {
        if self.orphans.is_empty() {
            return;
        }
        let events: Vec<LeaseEvent> = self
            .orphans
            .iter_mut()
            .flat_map(|orphans| orphans.leases.expire(now))
            .collect();
        self.orphans.retain(|orphans| !orphans.leases.is_empty());
        self.lease_events(&events, now);
    }
}

pub(super) fn count_redelivery(cause: &'static str) {
    metrics::counter!("nsquorum_redeliveries_total", "cause" => cause).increment(1);
}
