//! The broker of a node: from a topic's name to its leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nsquorum_consensus::{Cluster, ClusterStatus, MetadataState, NodeDescription, TopicGroup, TopicHost};
use nsquorum_environment::{Environment, WallTime};
use nsquorum_links::{Links, Receiver, Service};
use nsquorum_protocol::{ChannelName, TopicName};
use nsquorum_storage::SpaceState;
use nsquorum_topic::{Event, GroupId, NewMessage, NodeId};
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

use crate::admission::{Admission, Admitted};
use crate::deletions::Deletions;
use crate::held::HeldTopics;
use crate::known_channels::ChannelSource;
use crate::latency::LatencySettings;
use crate::outages::Outages;
use crate::peers::Peers;
use crate::publish::{PublishError, PublishTicket};
use crate::stats::TopicStats;
use crate::subscription::{
    DeliveryReceiver, SubscribeError, Subscription, SubscriptionHandle, SubscriptionId, SubscriptionOptions,
};
use crate::topic_leader::{
    ChannelChange, Command, LeaderInput, LeaderLimits, LeaderShell, Publish, Subscribe, TailBudget, TopicInbox,
    TopicInput, refuse_all,
};

/// How long an administrative call waits for its effect.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a consumer waits that met the end of an ephemeral topic or channel, before it begins a new one; nsqd's.
const RESUBSCRIBE_AFTER: Duration = Duration::from_millis(100);
/// How often it may meet one. Once in nsqd; here a majority has to hear of the end of a topic before there can be another.
const RESUBSCRIBE_MAX: usize = 5;
/// How long a scrape of metrics waits for a topic whose leadership moves.
const LED_STATS_TIMEOUT: Duration = Duration::from_millis(500);
/// A node that has not answered for this long is not listed any more, and does not count for a majority: every listed node costs each consumer a connection and a share of
/// its messages in flight. Long enough that a restart changes nothing.
const UNLISTED_AFTER: Duration = Duration::from_secs(5);
/// How long a node that stops waits until what its clients were done with is in the logs. Without a majority it never will be.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// A change of a topic or channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAction {
    /// Creates the channel; nothing if it exists.
    CreateChannel(ChannelName),
    /// Deletes the channel with all its messages; its consumers are disconnected.
    DeleteChannel(ChannelName),
    /// Drops the channel's messages, in flight and deferred ones included.
    EmptyChannel(ChannelName),
    /// Stops deliveries of the channel.
    PauseChannel(ChannelName),
    /// Lets them go on.
    UnpauseChannel(ChannelName),
    /// Deletes the topic with all channels.
    DeleteTopic,
    /// Drops the messages that no channel has yet.
    EmptyTopic,
    /// Stops the flow from the topic to its channels.
    PauseTopic,
    /// Lets it go on.
    UnpauseTopic,
}

/// Why an administrative call had no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// There is no such topic.
    #[error("TOPIC_NOT_FOUND")]
    TopicNotFound,
    /// There is no such channel.
    #[error("CHANNEL_NOT_FOUND")]
    ChannelNotFound,
    /// It could not be done in time; a retry may help, and does no harm.
    #[error("not available: {0}")]
    Unavailable(String),
}

/// Another storage node that answers.
#[derive(Clone, Debug)]
pub struct OtherNode {
    /// Which.
    pub node: NodeId,
    /// How clients reach it.
    pub description: NodeDescription,
    /// How long it has not answered; below five seconds.
    pub silent_for: Duration,
}

/// Whether publishes can succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// They can.
    Ok,
    /// They cannot, and why.
    NotOk(String),
}

/// What a broker needs to run.
pub struct BrokerConfig {
    /// Clock, randomness, tasks.
    pub environment: Environment,
    /// Bytes of unanswered publishes, over all connections.
    pub publish_bytes_max: usize,
    /// Bytes of recent entries in memory, over all topics, for channels that lag.
    pub tail_bytes_max: usize,
    /// Free disk space, as the store last saw it; cheap to call.
    pub space: Arc<dyn Fn() -> SpaceState + Send + Sync>,
    /// Which percentiles of the time from publish to FIN are measured for `/stats`; `None` for none.
    pub latency: Option<LatencySettings>,
    /// Messages that an ephemeral channel keeps for consumers without room (nsqd's mem-queue-size); beyond it the oldest are dropped.
    pub ephemeral_depth_max: u64,
    /// Who knows which channels a topic has elsewhere; asked before anything is stored for a topic that nobody has used yet.
    pub known_channels: Option<Arc<dyn ChannelSource>>,
}

/// The leader of one topic, as the router knows it.
#[derive(Clone)]
struct Route {
    group: Option<GroupId>,
    leader: mpsc::UnboundedSender<TopicInput>,
}

#[derive(Default)]
struct Routes {
    by_name: BTreeMap<TopicName, Route>,
    /// Of topics whose group has not started yet: what arrives meanwhile.
    unclaimed: BTreeMap<TopicName, TopicInbox>,
}

impl Routes {
    /// A route whose inbox fills until the topic's group runs.
    fn add_unclaimed(&mut self, topic: &TopicName) -> mpsc::UnboundedSender<TopicInput> {
        let (leader, inbox) = TopicInbox::new();
        self.by_name.insert(
            topic.clone(),
            Route {
                group: None,
                leader: leader.clone(),
            },
        );
        self.unclaimed.insert(topic.clone(), inbox);
        leader
    }
}

struct Inner {
    config: BrokerConfig,
    cluster: OnceLock<Arc<dyn Cluster>>,
    admission: Admission,
    outages: Outages,
    tail: TailBudget,
    peers: OnceLock<Arc<Peers>>,
    routes: RwLock<Routes>,
    deletions: Deletions,
    subscriptions: AtomicU64,
}

/// The broker of a node; clones are handles to the same.
#[derive(Clone)]
pub struct Broker(Arc<Inner>);

impl Broker {
    /// A broker without topics. It serves once it has been given to the cluster as its [`TopicHost`] and the cluster to it.
    pub fn new(config: BrokerConfig) -> Self {
        Self(Arc::new(Inner {
            admission: Admission::new(config.publish_bytes_max),
            outages: Outages::default(),
            tail: TailBudget::new(config.tail_bytes_max),
            config,
            cluster: OnceLock::new(),
            peers: OnceLock::new(),
            routes: RwLock::default(),
            deletions: Deletions::default(),
            subscriptions: AtomicU64::new(1),
        }))
    }

    /// Gives the broker its cluster; the topics that arrive before wait.
    pub fn connect(&self, cluster: Arc<dyn Cluster>) {
        if let Some(peers) = self.0.peers.get() {
            let watching = Arc::clone(peers).watch_leaders(Arc::downgrade(&cluster));
            self.0.config.environment.spawn.spawn(Box::pin(watching));
        }
        assert!(self.0.cluster.set(cluster).is_ok(), "a broker belongs to one cluster");
        let waiting: Vec<TopicName> = self.0.routes.read().unclaimed.keys().cloned().collect();
        for name in waiting {
            self.create_in_background(name);
        }
    }

    /// Makes the broker one of several nodes. To be called before it is given to the cluster and before the links start; a broker without links
    /// is alone. `publish_timeout` is how long it tries to have a publish stored, across leaders.
    ///
    /// # Panics
    /// When it is called twice.
    pub fn link(&self, links: Arc<dyn Links>, publish_timeout: Duration) {
        let peers = Arc::new(Peers::new(Arc::clone(&links), publish_timeout));
        assert!(
            self.0.peers.set(Arc::clone(&peers)).is_ok(),
            "a broker has one set of links"
        );
        links.register(Service::Broker, Arc::clone(&peers) as Arc<dyn Receiver>);
        self.0.config.environment.spawn.spawn(Box::pin(peers.watch()));
    }

    /// Hands messages to the topic's leader, creating the topic on first use. Never waits. The ticket resolves when they are safe.
    /// Calls made one after the other are stored in that order.
    pub fn publish(&self, topic: &TopicName, messages: Vec<NewMessage>, admitted: Option<Admitted>) -> PublishTicket {
        self.publish_for(topic, None, messages, admitted)
    }

    /// The same for one channel of the topic: the others are done with the messages when they are stored. That is not one step: if the topic's leader
    /// changes in between, the others may get them too. Refused while the topic is paused, or has no such channel. Delays do not count.
    pub fn publish_to_channel(
        &self,
        topic: &TopicName,
        channel: ChannelName,
        mut messages: Vec<NewMessage>,
        admitted: Option<Admitted>,
    ) -> PublishTicket {
        // What is deferred comes another way than by reading, and could come before it is known that a channel is done with it.
        messages.iter_mut().for_each(|message| message.defer_ms = 0);
        self.publish_for(topic, Some(channel), messages, admitted)
    }

    fn publish_for(
        &self,
        topic: &TopicName,
        only: Option<ChannelName>,
        messages: Vec<NewMessage>,
        admitted: Option<Admitted>,
    ) -> PublishTicket {
        let (answer, receiver) = oneshot::channel();
        self.send(
            topic,
            LeaderInput::Publish(Publish {
                messages,
                only,
                answer: answer.into(),
                place: None,
                _held: admitted.into(),
            }),
        );
        PublishTicket::new(receiver)
    }

    /// Attaches a consumer, creating topic and channel on first use. Every message that is answered `OK` after this has resolved
    /// reaches the channel.
    pub async fn subscribe(
        &self,
        topic: &TopicName,
        channel: &ChannelName,
        options: SubscriptionOptions,
    ) -> Result<Subscription, SubscribeError> {
        // What goes by itself goes without anybody having wanted that this consumer is refused.
        let goes_by_itself = topic.is_ephemeral() || channel.is_ephemeral();
        for _ in 0..if goes_by_itself { RESUBSCRIBE_MAX } else { 0 } {
            match self.subscribe_once(topic, channel, options.clone()).await {
                Err(SubscribeError::Deleted) => tokio::time::sleep(RESUBSCRIBE_AFTER).await,
                result => return result,
            }
        }
        self.subscribe_once(topic, channel, options).await
    }

    async fn subscribe_once(
        &self,
        topic: &TopicName,
        channel: &ChannelName,
        options: SubscriptionOptions,
    ) -> Result<Subscription, SubscribeError> {
        let id = SubscriptionId(self.0.subscriptions.fetch_add(1, Ordering::Relaxed));
        let (deliveries, receiver) = mpsc::unbounded_channel();
        let (answer, answered) = oneshot::channel();
        let subscribe = Subscribe {
            id,
            channel: channel.clone(),
            options,
            deliveries,
            answer,
        };
        let leader = self.send(topic, LeaderInput::Subscribe(subscribe));
        match answered.await {
            Ok(Ok(())) => Ok(Subscription {
                deliveries: DeliveryReceiver(receiver),
                handle: SubscriptionHandle { id, leader },
            }),
            Ok(Err(error)) => Err(error),
            // The topic's end takes with it what waits behind it.
            Err(_) if topic.is_ephemeral() => Err(SubscribeError::Deleted),
            Err(_) => Err(SubscribeError::Unavailable("the node is stopping".into())),
        }
    }

    /// Creates a topic; nothing if it exists.
    pub async fn create_topic(&self, topic: &TopicName) -> Result<(), AdminError> {
        let Some(cluster) = self.0.cluster.get() else {
            return Err(AdminError::Unavailable("the node is starting".into()));
        };
        cluster
            .create_topic(topic.clone())
            .await
            .map_err(|error| AdminError::Unavailable(error.to_string()))
    }

    /// Carries out a change of an existing topic; resolves when it is on disk and in effect.
    pub async fn administer(&self, topic: &TopicName, action: AdminAction) -> Result<(), AdminError> {
        let command = match action {
            AdminAction::CreateChannel(channel) => Command::CreateChannel(channel),
            AdminAction::DeleteChannel(channel) => Command::Channel(channel, ChannelChange::Delete),
            AdminAction::EmptyChannel(channel) => Command::Channel(channel, ChannelChange::Empty),
            AdminAction::PauseChannel(channel) => Command::Channel(channel, ChannelChange::Pause),
            AdminAction::UnpauseChannel(channel) => Command::Channel(channel, ChannelChange::Unpause),
            AdminAction::DeleteTopic => return self.delete_topic(topic).await,
            AdminAction::EmptyTopic => Command::Topic(Event::EmptyTopic),
            AdminAction::PauseTopic => Command::Topic(Event::PauseTopic),
            AdminAction::UnpauseTopic => Command::Topic(Event::UnpauseTopic),
        };
        self.command(topic, command).await
    }

    async fn command(&self, topic: &TopicName, command: Command) -> Result<(), AdminError> {
        let leader = self.existing(topic).ok_or(AdminError::TopicNotFound)?;
        let (answer, answered) = oneshot::channel();
        // A leader that is gone drops the answer, which is told below.
        drop(leader.send(TopicInput::Client(LeaderInput::Command { command, answer })));
        match tokio::time::timeout(ADMIN_TIMEOUT, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(AdminError::TopicNotFound),
            Err(_) => Err(AdminError::Unavailable("timed out; it may still happen".into())),
        }
    }

    /// Two steps: the topic's own log ends (so that its last number is known), then the metadata forgets it.
    async fn delete_topic(&self, topic: &TopicName) -> Result<(), AdminError> {
        let cluster = self.0.cluster.get().ok_or(AdminError::TopicNotFound)?;
        // What was done through other nodes before this was asked for counts: a tombstone may be a moment old.
        cluster
            .catch_up()
            .await
            .map_err(|error| AdminError::Unavailable(error.to_string()))?;
        if self.tombstoned_nodes(topic).contains_key(&cluster.identity().node) {
            // Consumers are sent to the other nodes meanwhile; the messages are theirs as much as this node's.
            tracing::info!(%topic, "not deleted: this node is tombstoned for the topic, which means this node alone");
            metrics::counter!("nsquorum_actions_skipped_total", "why" => "tombstoned").increment(1);
            return Ok(());
        }
        let mut metadata = cluster.metadata();
        let record = metadata.borrow().topic(topic);
        let known_as = self.0.routes.read().by_name.get(topic).and_then(|route| route.group);
        let now = self.0.config.environment.clock.now();
        if self
            .0
            .deletions
            .take_repeated(topic, known_as, record.as_ref().map(|record| record.group), now)
        {
            tracing::info!(%topic, "not deleted again: it has just been deleted through another node");
            metrics::counter!("nsquorum_actions_skipped_total", "why" => "repeated").increment(1);
            return Ok(());
        }
        let record = record.ok_or(AdminError::TopicNotFound)?;
        self.0.deletions.begin(record.group);
        let gone = metadata.wait_for(|state| state.topic(topic).is_none_or(|now| now.group != record.group));
        let deletion = async {
            let mut gone = std::pin::pin!(gone);
            tokio::select! {
                biased;
                // Another node's leader may be gone with its topic before its answer has come; what counts is that the topic is gone.
                gone = &mut gone => return Ok(gone),
                result = self.command(topic, Command::Topic(Event::DeleteTopic)) => match result {
                    // Somebody else is deleting it.
                    Ok(()) | Err(AdminError::TopicNotFound) => {}
                    Err(error) => return Err(error),
                },
            }
            Ok(gone.await)
        };
        let result = match tokio::time::timeout(ADMIN_TIMEOUT, deletion).await {
            Ok(Ok(Ok(_))) => {
                self.forget(topic, record.group);
                return Ok(());
            }
            Ok(Ok(Err(_))) => AdminError::Unavailable("the node is stopping".into()),
            Ok(Err(error)) => error,
            Err(_) => AdminError::Unavailable("timed out; it may still happen".into()),
        };
        self.0.deletions.failed(record.group);
        Err(result)
    }

    /// Hides a node from those who look the topic up, on all nodes, for `lifetime`. While it is hidden, deleting the topic *through that node*
    /// does nothing: what it asks for is that this one node lets go of the topic, and not that the messages go.
    pub async fn tombstone(&self, topic: &TopicName, node: NodeId, lifetime: Duration) -> Result<(), AdminError> {
        let Some(cluster) = self.0.cluster.get() else {
            return Err(AdminError::Unavailable("the node is starting".into()));
        };
        let since = self.0.config.environment.clock.wall();
        let lifetime = u64::try_from(lifetime.as_nanos()).unwrap_or(u64::MAX);
        let until = WallTime::from_nanos(since.as_nanos().saturating_add(lifetime));
        cluster
            .tombstone_replica(topic.clone(), node, since, until)
            .await
            .map_err(|error| AdminError::Unavailable(error.to_string()))
    }

    /// The nodes that are hidden from those who look the topic up, and since when.
    pub fn tombstoned_nodes(&self, topic: &TopicName) -> BTreeMap<NodeId, WallTime> {
        let now = self.0.config.environment.clock.wall();
        let Some(cluster) = self.0.cluster.get() else {
            return BTreeMap::new();
        };
        cluster.metadata().borrow().tombstoned_replicas(topic, now).collect()
    }

    /// The topics whose replicas this node holds; `None` while it recovers.
    pub fn held_topics(&self) -> Option<HeldTopics> {
        self.0.cluster.get().map(|cluster| HeldTopics::new(&**cluster))
    }

    /// This node; `None` while it recovers.
    pub fn node_id(&self) -> Option<NodeId> {
        self.0.cluster.get().map(|cluster| cluster.identity().node)
    }

    /// The topics that exist, by name.
    pub fn topics(&self) -> Vec<TopicName> {
        self.0
            .cluster
            .get()
            .map(|cluster| cluster.metadata().borrow().topics().map(|(name, _)| name).collect())
            .unwrap_or_default()
    }

    /// Whether there is such a topic.
    pub fn has_topic(&self, topic: &TopicName) -> bool {
        let cluster = self.0.cluster.get();
        cluster.is_some_and(|cluster| cluster.metadata().borrow().topic(topic).is_some())
    }

    /// Whether this node can serve topics: it has heard of a majority of the storage nodes lately, itself included.
    pub fn is_among_majority(&self) -> bool {
        self.0.cluster.get().is_some_and(|cluster| {
            let members: Vec<NodeId> = cluster.metadata().borrow().members().collect();
            let answering = members.iter().filter(|node| is_listed(&**cluster, **node)).count();
            answering * 2 > members.len()
        })
    }

    /// How clients reach the other nodes that hold a topic's log, as far as those have said so and answer.
    pub fn other_replicas(&self, topic: &TopicName) -> Vec<OtherNode> {
        self.others(|state| state.topic(topic).map_or_else(Vec::new, |record| record.replicas))
    }

    /// The same of all other storage nodes.
    pub fn other_nodes(&self) -> Vec<OtherNode> {
        self.others(|state| state.members().collect())
    }

    fn others(&self, nodes: impl FnOnce(&MetadataState) -> Vec<NodeId>) -> Vec<OtherNode> {
        let Some(cluster) = self.0.cluster.get() else {
            return Vec::new();
        };
        let me = cluster.identity().node;
        let metadata = cluster.metadata();
        let state = metadata.borrow();
        let others = nodes(&state)
            .into_iter()
            .filter(|node| *node != me && is_listed(&**cluster, *node));
        let other = |node| {
            Some(OtherNode {
                node,
                description: state.node(node)?.clone(),
                silent_for: cluster.silent_for(node),
            })
        };
        others.filter_map(other).collect()
    }

    /// The channels of a topic, by name; `None` if there is no such topic.
    pub async fn channels(&self, topic: &TopicName) -> Option<Vec<ChannelName>> {
        let leader = self.existing(topic)?;
        let (answer, answered) = oneshot::channel();
        drop(leader.send(TopicInput::Client(LeaderInput::Channels { answer })));
        tokio::time::timeout(ADMIN_TIMEOUT, answered).await.ok()?.ok()
    }

    /// Statistics of all topics, or of one; of all channels, or of one. By name. Whoever adds up those of all nodes counts everything once.
    pub async fn stats(&self, topic: Option<&TopicName>, channel: Option<&ChannelName>) -> Vec<TopicStats> {
        let leaders: Vec<_> = match topic {
            Some(topic) => self.existing(topic).into_iter().collect(),
            None => self.topics().iter().filter_map(|topic| self.existing(topic)).collect(),
        };
        stats_of(leaders, channel, ADMIN_TIMEOUT).await
    }

    /// The topics that this node leads, by name.
    pub fn led_topics(&self) -> Vec<TopicName> {
        let Some(cluster) = self.0.cluster.get() else {
            return Vec::new();
        };
        let me = cluster.identity().node;
        let metadata = cluster.metadata();
        let state = metadata.borrow();
        let is_led = |group| cluster.leader(group).borrow().is_some_and(|leader| leader.node == me);
        let topics = state.topics().filter(|(_, record)| is_led(record.group));
        topics.map(|(name, _)| name).collect()
    }

    /// Statistics of the topics that this node leads, by name.
    pub async fn led_stats(&self) -> Vec<TopicStats> {
        let leaders = self
            .led_topics()
            .iter()
            .filter_map(|topic| self.existing(topic))
            .collect();
        // Answered by another node, if the leadership has just moved: that one shows the topic.
        let mut led = stats_of(leaders, None, LED_STATS_TIMEOUT).await;
        led.retain(|topic| topic.is_leader);
        led
    }

    /// The cluster as this node sees it; takes a second at most. `None` while the node recovers.
    pub async fn cluster_status(&self) -> Option<ClusterStatus> {
        Some(self.0.cluster.get()?.status().await)
    }

    /// Puts into the logs what this node's clients were done with: FINs have no answer, and those that wait for company, or for their
    /// leader, would be forgotten by a node that stops. To be called when all clients are gone and before the groups stop; takes a second at
    /// most.
    pub async fn flush(&self) {
        let leaders: Vec<_> = {
            let routes = self.0.routes.read();
            let running = routes.by_name.values().filter(|route| route.group.is_some());
            running.map(|route| route.leader.clone()).collect()
        };
        let mut waiting = Vec::with_capacity(leaders.len());
        for leader in leaders {
            let (flushed, is_flushed) = oneshot::channel();
            if leader.send(TopicInput::Flush { flushed }).is_ok() {
                waiting.push(is_flushed);
            }
        }
        let all = async {
            for is_flushed in waiting {
                // A topic that cannot be served here drops it: there is nothing to wait for.
                drop(is_flushed.await);
            }
        };
        if tokio::time::timeout(FLUSH_MAX, all).await.is_err() {
            tracing::warn!("not everything that consumers finished could be stored in time; some messages come again");
        }
    }

    /// The node's bound on bytes of unanswered publishes.
    pub fn admission(&self) -> &Admission {
        &self.0.admission
    }

    /// The topics whose publishes fail at this node.
    pub fn outages(&self) -> &Outages {
        &self.0.outages
    }

    /// Whether publishes can succeed at this moment.
    pub fn health(&self) -> Health {
        match (self.0.config.space)() {
            _ if self.0.cluster.get().is_none() => Health::NotOk("recovering".into()),
            SpaceState::Ok if self.is_among_majority() => Health::Ok,
            SpaceState::Ok => Health::NotOk("no majority of the cluster's nodes answers".into()),
            SpaceState::RefusePublishes | SpaceState::RefuseAll => {
                Health::NotOk("disk space is below the watermark".into())
            }
        }
    }

    /// Clock, randomness, tasks.
    pub fn environment(&self) -> &Environment {
        &self.0.config.environment
    }

    /// The leader of a topic that has a route.
    fn leader(&self, topic: &TopicName) -> Option<mpsc::UnboundedSender<TopicInput>> {
        self.0
            .routes
            .read()
            .by_name
            .get(topic)
            .map(|route| route.leader.clone())
    }

    /// The leader of an existing topic, also of one whose group has not started yet: it will find what waits.
    fn existing(&self, topic: &TopicName) -> Option<mpsc::UnboundedSender<TopicInput>> {
        if let Some(leader) = self.leader(topic) {
            return Some(leader);
        }
        let metadata = self.0.cluster.get()?.metadata();
        metadata.borrow().topic(topic)?;
        let mut routes = self.0.routes.write();
        if let Some(route) = routes.by_name.get(topic) {
            return Some(route.leader.clone());
        }
        Some(routes.add_unclaimed(topic))
    }

    /// Gives an input to the topic's leader, or to the place where its leader will find it.
    fn send(&self, topic: &TopicName, input: LeaderInput) -> mpsc::UnboundedSender<TopicInput> {
        let input = TopicInput::Client(input);
        let input = match self.leader(topic) {
            Some(leader) => match leader.send(input) {
                Ok(()) => return leader,
                Err(mpsc::error::SendError(input)) => input,
            },
            None => input,
        };
        let mut routes = self.0.routes.write();
        // Looked up again: another caller may have made the route between the two locks.
        if let Some(route) = routes.by_name.get(topic)
            && !route.leader.is_closed()
        {
            let leader = route.leader.clone();
            drop(leader.send(input));
            return leader;
        }
        let leader = routes.add_unclaimed(topic);
        drop(leader.send(input));
        drop(routes);
        self.create_in_background(topic.clone());
        leader
    }

    /// Creates a topic that somebody uses. Its inbox fills meanwhile, and is read when the group runs. It goes on for as long as somebody waits
    /// there, because each of them is owed its own time.
    fn create_in_background(&self, topic: TopicName) {
        let Some(cluster) = self.0.cluster.get().cloned() else {
            return;
        };
        let broker = self.clone();
        self.0.config.environment.spawn.spawn(Box::pin(async move {
            while let Err(error) = cluster.create_topic(topic.clone()).await {
                tracing::warn!(%topic, %error, "a topic could not be created: its publishes fail");
                if !error.is_retryable() {
                    return broker.forget_unclaimed(&topic);
                }
                if !broker.is_awaited(&topic) {
                    return;
                }
            }
        }));
    }

    fn forget(&self, name: &TopicName, group: GroupId) {
        let mut routes = self.0.routes.write();
        if routes.by_name.get(name).is_some_and(|route| route.group == Some(group)) {
            routes.by_name.remove(name);
        }
    }

    /// Lets go of an inbox that nobody will ever read; dropping it answers everybody in it.
    fn forget_unclaimed(&self, name: &TopicName) {
        let mut routes = self.0.routes.write();
        if routes.unclaimed.remove(name).is_some() {
            routes.by_name.remove(name);
        }
    }

    /// Whether anybody waits for the topic's group to start. If not its inbox is let go of.
    fn is_awaited(&self, name: &TopicName) -> bool {
        let mut routes = self.0.routes.write();
        let Some(inbox) = routes.unclaimed.get_mut(name) else {
            return false;
        };
        let is_awaited = inbox.drop_given_up();
        if !is_awaited {
            routes.unclaimed.remove(name);
            routes.by_name.remove(name);
        }
        is_awaited
    }
}

/// Asks all leaders at once; `timeout` is for all together.
async fn stats_of(
    leaders: Vec<mpsc::UnboundedSender<TopicInput>>,
    channel: Option<&ChannelName>,
    timeout: Duration,
) -> Vec<TopicStats> {
    let ask = |leader: mpsc::UnboundedSender<TopicInput>| {
        let (answer, answered) = oneshot::channel();
        drop(leader.send(TopicInput::Client(LeaderInput::Stats {
            channel: channel.cloned(),
            answer,
        })));
        answered
    };
    let all: Vec<_> = leaders.into_iter().map(ask).collect();
    let timeout = tokio::time::sleep(timeout);
    tokio::pin!(timeout);
    let mut stats = Vec::with_capacity(all.len());
    for answered in all {
        tokio::select! {
            biased;
            answer = answered => stats.extend(answer),
            // A topic that nobody leads has nothing to show. Those behind it may have answered long since.
            () = &mut timeout => {}
        }
    }
    stats
}

fn is_listed(cluster: &dyn Cluster, node: NodeId) -> bool {
    cluster.silent_for(node) < UNLISTED_AFTER
}

impl Routes {
    /// Makes the route belong to a group, and gives out its inbox with all that has arrived.
    fn claim(&mut self, name: &TopicName, group: GroupId) -> TopicInbox {
        match self.unclaimed.remove(name) {
            Some(inbox) => {
                if let Some(route) = self.by_name.get_mut(name) {
                    route.group = Some(group);
                }
                inbox
            }
            None => {
                let (leader, inbox) = TopicInbox::new();
                self.by_name.insert(
                    name.clone(),
                    Route {
                        group: Some(group),
                        leader,
                    },
                );
                inbox
            }
        }
    }
}

impl TopicHost for Broker {
    fn topic_started(&self, topic: TopicGroup) {
        let (name, group) = (topic.name.clone(), topic.group);
        let inbox = self.0.routes.write().claim(&name, group);
        if let (Some(peers), Some(leader)) = (self.0.peers.get(), self.leader(&name)) {
            peers.add(group, leader);
        }
        let inner = Arc::clone(&self.0);
        let spawn = Arc::clone(&self.0.config.environment.spawn);
        spawn.spawn(Box::pin(async move {
            let cluster = loop {
                match inner.cluster.get() {
                    Some(cluster) => break Arc::clone(cluster),
                    // The cluster starts topics while it is being made; it is there in a moment.
                    None => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            };
            let shell = LeaderShell {
                name,
                group,
                limits: LeaderLimits {
                    ephemeral_depth_max: inner.config.ephemeral_depth_max,
                    ..LeaderLimits::default()
                },
                latency: inner.config.latency.clone(),
                environment: inner.config.environment.clone(),
                cluster,
                tail: inner.tail.clone(),
                space: Arc::clone(&inner.config.space),
                peers: inner.peers.get().cloned(),
                known_channels: inner.config.known_channels.clone(),
            };
            drop(inner);
            shell.run(topic, inbox).await;
        }));
    }

    fn topic_failed(&self, name: &TopicName, group: GroupId) {
        let inbox = self.0.routes.write().claim(name, group);
        self.0
            .config
            .environment
            .spawn
            .spawn(Box::pin(refuse_all(inbox, PublishError::Quarantined)));
    }

    fn topic_stopped(&self, name: &TopicName, group: GroupId) {
        if let Some(peers) = self.0.peers.get() {
            peers.remove(group);
        }
        let now = self.0.config.environment.clock.now();
        self.0.deletions.deleted(name, group, now);
        self.forget(name, group);
    }
}
