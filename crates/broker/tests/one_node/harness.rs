//! A node over the store in memory, and consumers of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nsquorum_broker::{
    AdminAction, AdminError, Broker, BrokerConfig, ClientDescription, Delivery, LeaseTable, PublishError,
    SubscribeError, Subscription, SubscriptionEvent, SubscriptionOptions, TopicStats,
};
use nsquorum_consensus::{ClusterNode, ConsensusOptions, NodeIdentity};
use nsquorum_environment::{Environment, Monotonic};
use nsquorum_protocol::{ChannelName, TopicName};
use nsquorum_storage::{MemoryStore, SpaceState};
use nsquorum_topic::{LogTime, NewMessage, NodeId, NodeIncarnation};
use parking_lot::Mutex;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Node {
    pub(crate) broker: Broker,
    pub(crate) cluster: Arc<ClusterNode>,
    pub(crate) space: Arc<Mutex<SpaceState>>,
}

impl Node {
    pub(crate) async fn start(store: &MemoryStore, incarnation: u64) -> Self {
        Self::start_with(store, incarnation, 1 << 20).await
    }

    pub(crate) async fn start_with(store: &MemoryStore, incarnation: u64, checkpoint_bytes: u64) -> Self {
        let environment = Environment::system();
        let space = Arc::new(Mutex::new(SpaceState::Ok));
        let broker = Broker::new(BrokerConfig {
            ephemeral_depth_max: 10_000,
            known_channels: None,
            environment: environment.clone(),
            latency: None,
            publish_bytes_max: 64 << 20,
            tail_bytes_max: 64 << 20,
            space: {
                let space = Arc::clone(&space);
                Arc::new(move || *space.lock())
            },
        });
        let options = ConsensusOptions {
            store: store.clone(),
            environment,
            identity: NodeIdentity {
                node: NodeId::new(1),
                incarnation: NodeIncarnation::new(incarnation),
            },
            checkpoint_bytes,
        };
        let cluster = ClusterNode::start(options, Arc::new(broker.clone()))
            .await
            .expect("a node starts");
        let cluster = Arc::new(cluster);
        broker.connect(cluster.clone());
        Self { broker, cluster, space }
    }

    pub(crate) async fn publish(&self, bodies: &[&str]) {
        self.try_publish(bodies, 0).await.expect("published");
    }

    pub(crate) async fn try_publish(&self, bodies: &[&str], defer_ms: u32) -> Result<(), PublishError> {
        let messages = bodies.iter().map(|body| message(body, defer_ms)).collect();
        within(self.broker.publish(&topic(), messages, None)).await
    }

    pub(crate) async fn publish_to(&self, channel: &str, bodies: &[&str]) -> Result<(), PublishError> {
        let messages = bodies.iter().map(|body| message(body, 0)).collect();
        within(self.broker.publish_to_channel(&topic(), name(channel), messages, None)).await
    }

    pub(crate) async fn subscribe(&self, channel: &str, ready: u32) -> Consumer {
        self.subscribe_with_timeout(channel, ready, PATIENCE).await
    }

    pub(crate) async fn subscribe_with_timeout(&self, channel: &str, ready: u32, msg_timeout: Duration) -> Consumer {
        let consumer = self
            .subscribe_to(&topic(), channel, options(msg_timeout))
            .await
            .expect("subscribed");
        consumer.subscription.handle.ready(ready);
        consumer
    }

    pub(crate) async fn subscribe_to(
        &self,
        topic: &TopicName,
        channel: &str,
        options: SubscriptionOptions,
    ) -> Result<Consumer, SubscribeError> {
        let msg_timeout = options.msg_timeout;
        Ok(Consumer {
            subscription: within(self.broker.subscribe(topic, &name(channel), options)).await?,
            leases: LeaseTable::new(msg_timeout, PATIENCE),
            clock: self.broker.environment().clone(),
        })
    }

    pub(crate) async fn stats(&self) -> TopicStats {
        within(self.broker.stats(Some(&topic()), None))
            .await
            .pop()
            .expect("the topic exists")
    }

    pub(crate) async fn administer(&self, action: AdminAction) -> Result<(), AdminError> {
        within(self.broker.administer(&topic(), action)).await
    }

    pub(crate) fn now(&self) -> Monotonic {
        self.broker.environment().clock.now()
    }

    pub(crate) async fn wait_for_stats(&self, holds: impl Fn(&TopicStats) -> bool) -> TopicStats {
        let deadline = self.now() + PATIENCE;
        loop {
            let stats = self.stats().await;
            if holds(&stats) {
                return stats;
            }
            assert!(self.now() < deadline, "in vain: {stats:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

pub(crate) struct Consumer {
    pub(crate) subscription: Subscription,
    pub(crate) leases: LeaseTable,
    clock: Environment,
}

impl Consumer {
    pub(crate) async fn receive(&mut self) -> Delivery {
        match within(self.subscription.deliveries.next())
            .await
            .expect("the channel exists")
        {
            SubscriptionEvent::Deliver(delivery) => {
                self.leases.delivered(&delivery, self.clock.clock.now());
                delivery
            }
            SubscriptionEvent::Emptied => panic!("emptied"),
        }
    }

    pub(crate) fn finish(&mut self, delivery: &Delivery) {
        let event = self.leases.finish(delivery.token.seq).expect("held");
        self.subscription.handle.events(vec![event]);
    }

    pub(crate) fn requeue(&mut self, delivery: &Delivery, delay_ms: u32) {
        let event = self.leases.requeue(delivery.token.seq, delay_ms).expect("held");
        self.subscription.handle.events(vec![event]);
    }

    pub(crate) async fn take(&mut self, count: usize) -> Vec<(u64, u16, String)> {
        let mut seen = Vec::new();
        for _ in 0..count {
            let delivery = self.receive().await;
            seen.push(summary(&delivery));
            self.finish(&delivery);
        }
        seen
    }

    pub(crate) fn disconnect(self) {
        self.subscription.handle.disconnect(self.leases.disconnect());
    }
}

pub(crate) fn options(msg_timeout: Duration) -> SubscriptionOptions {
    let client = Arc::new(ClientDescription {
        client_id: "test".into(),
        hostname: "test".into(),
        user_agent: "test".into(),
        remote_address: "127.0.0.1:1".into(),
        ..ClientDescription::default()
    });
    SubscriptionOptions {
        client,
        msg_timeout,
        nearness: None,
    }
}

pub(crate) fn summary(delivery: &Delivery) -> (u64, u16, String) {
    let body = String::from_utf8(delivery.body.to_vec()).expect("text");
    (delivery.token.seq.get(), delivery.token.attempts.get(), body)
}

pub(crate) fn message(body: &str, defer_ms: u32) -> NewMessage {
    let mut message = NewMessage::new(Bytes::copy_from_slice(body.as_bytes()), LogTime::new(1));
    message.defer_ms = defer_ms;
    message
}

pub(crate) fn topic() -> TopicName {
    TopicName::try_from("invoices").expect("valid")
}

pub(crate) fn name(channel: &str) -> ChannelName {
    ChannelName::try_from(channel).expect("valid")
}

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}
