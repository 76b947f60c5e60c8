//! What a topic shows of itself.

use std::sync::Arc;

use nsquorum_environment::Monotonic;
use nsquorum_protocol::ChannelName;
use nsquorum_topic::NodeId;

use super::dispatch::{ConsumerId, Dispatch};
use super::machine::TopicLeader;
use crate::latency::summary;
use crate::stats::{ChannelStats, SubscriptionStats, TopicStats};

impl TopicLeader {
    /// What a node shows; `None` is this one. Whoever adds up what all nodes show must get each message once, and each client: counts are
    /// those of the leader's node, and every node has the clients that are connected to it.
    pub(super) fn stats(&self, only: Option<&ChannelName>, at: Option<NodeId>, now: Monotonic) -> TopicStats {
        let mut stats = TopicStats {
            name: self.name.clone(),
            is_leader: true,
            depth: 0,
            message_count: 0,
            message_bytes: 0,
            paused: false,
            channels: Vec::new(),
            latency: None,
        };
        let Some(leading) = &self.leading else { return stats };
        let measured = |windows: &mut dyn Iterator<Item = &Dispatch>| {
            let windows = windows.filter_map(|dispatch| dispatch.latency.as_ref());
            self.latency.as_ref().map(|settings| summary(settings, windows, now))
        };
        // Without a channel nothing can be finished, and nsqd shows nothing.
        if !leading.dispatches.is_empty() {
            stats.latency = measured(&mut leading.dispatches.values());
        }
        let state = &leading.state;
        stats.message_count = state.message_count();
        stats.message_bytes = state.message_bytes();
        stats.paused = state.paused_at().is_some();
        stats.depth = match state.channels().next() {
            None => state.next_seq().get() - state.purge_floor().get(),
            Some(_) => state.next_seq().get() - state.readable_end().get(),
        };
        for channel in state.channels() {
            if only.is_some_and(|only| only != channel.name()) {
                continue;
            }
            let Some(dispatch) = leading.dispatches.get(&channel.incarnation()) else {
                continue;
            };
            let in_flight_count = dispatch.in_flight.len() as u64;
            // Whoever waits for a channel to be empty must not miss what is on its way back: it counts as what it is to become.
            let deferred_count = dispatch.deferred_count() + self.pipeline.deferring(channel.incarnation());
            let finishing = self.pipeline.finishing(channel.incarnation());
            let unfinished = channel.unfinished_below(state.readable_end());
            stats.channels.push(ChannelStats {
                name: channel.name().clone(),
                depth: unfinished.saturating_sub(in_flight_count + deferred_count + finishing),
                in_flight_count,
                deferred_count,
                message_count: channel.message_count(),
                requeue_count: channel.requeue_count(),
                timeout_count: channel.timeout_count(),
                deliveries: dispatch.deliveries,
                paused: channel.is_paused(),
                consumer_count: dispatch.consumers.len() as u64,
                clients: dispatch
                    .consumers
                    .keys()
                    .filter(|id| id.node == at)
                    .filter_map(|id| self.consumer_stats(*id))
                    .collect(),
                latency: measured(&mut std::iter::once(dispatch)),
            });
        }
        stats.channels.sort_by(|a, b| a.name.cmp(&b.name));
        match at {
            None => stats,
            Some(_) => stats.elsewhere(),
        }
    }

    fn consumer_stats(&self, id: ConsumerId) -> Option<SubscriptionStats> {
        let consumer = self.consumers.get(&id)?;
        Some(SubscriptionStats {
            id: id.subscription,
            client: Arc::clone(&consumer.options.client),
            ready_count: consumer.ready,
            in_flight_count: consumer.in_flight,
            message_count: consumer.messages,
            finish_count: consumer.finished,
            requeue_count: consumer.requeued,
            nearness: consumer.options.nearness,
        })
    }
}
