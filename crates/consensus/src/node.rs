//! The groups of this node: the metadata group, and every topic that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nsquorum_environment::{Environment, WallTime};
use nsquorum_links::{Links, Service};
use nsquorum_protocol::TopicName;
use nsquorum_storage::{GroupLog, NodeStore};
use nsquorum_topic::{GroupId, LogIndex, NodeId, NodeIncarnation, Seq};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::channels::ChannelNames;
use crate::elections::{Elections, QuorumClock};
use crate::error::{ConsensusError, Refusal};
use crate::group::{
    BoxFuture, GroupContext, PeerContext, RunningGroup, TopicHost, TopicMachine, open_metadata, open_topic,
};
use crate::hand_over::hand_over_all;
use crate::locations::{LeaderLocation, LeaderLocations};
use crate::metadata::{
    Asking, Commands, Elsewhere, MetadataBatch, MetadataCommand, MetadataMachine, MetadataState, NodeDescription,
    TopicRecord,
};
use crate::peers::{NodeCalls, NodeReceiver, Ports, RaftReceiver};
use crate::raft::{Calls, CheckpointBudget, Peers};
use crate::reports::Reporters;
use crate::status::{ClusterStatus, StatusSources};

/// Groups that are opened at the same time; each reads its checkpoint and tail.
const OPENING_GROUPS_MAX: usize = 16;
/// Metadata commands in one entry.
const COMMANDS_PER_ENTRY_MAX: usize = 256;
/// Metadata commands that wait in the inbox; beyond it their callers wait.
const COMMANDS_WAITING_MAX: usize = 4096;
/// How long one entry of commands may take until its outcome counts as unknown.
const PROPOSAL_MAX: Duration = Duration::from_millis(900);
/// Snapshots that this node sends at the same time, over all groups and peers.
const SNAPSHOTS_UNDER_WAY_MAX: usize = 4;

/// Which node this is, and its how-manieth life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The node.
    pub node: NodeId,
    /// Raised at every start.
    pub incarnation: NodeIncarnation,
}

/// What consensus needs to run.
pub struct ConsensusOptions<S> {
    /// The node's store.
    pub store: S,
    /// Clock, randomness, tasks.
    pub environment: Environment,
    /// Who this node is.
    pub identity: NodeIdentity,
    /// Log bytes, over all groups, that a restart may have to replay (kept within a factor of two).
    pub checkpoint_bytes: u64,
}

/// What the layer above asks of the cluster.
pub trait Cluster: Send + Sync {
    /// Creates a topic, unless it exists. Resolves when the creation is on a majority's disks.
    fn create_topic(&self, name: TopicName) -> BoxFuture<'static, Result<(), ConsensusError>>;

    /// Deletes a topic whose group has applied its deletion; `last_seq` is the last number that it used.
    fn delete_topic(
        &self,
        name: TopicName,
        group: GroupId,
        last_seq: Seq,
    ) -> BoxFuture<'static, Result<(), ConsensusError>>;

    /// Until `until` those who look the topic up are not sent to this replica of it. Resolves when that is on a majority's disks and applied here.
    fn tombstone_replica(
        &self,
        topic: TopicName,
        node: NodeId,
        since: WallTime,
        until: WallTime,
    ) -> BoxFuture<'static, Result<(), ConsensusError>>;

    /// Resolves when everything that was in the metadata before this was called is applied here.
    fn catch_up(&self) -> BoxFuture<'static, Result<(), ConsensusError>>;

    /// This node.
    fn identity(&self) -> NodeIdentity;

    /// Where a group's leader is, as far as this node knows, and changes of it: `None` until somebody leads. Known on every node, replica
    /// of the group or not. Terms only rise; the channel ends when the group is deleted.
    fn leader(&self, group: GroupId) -> watch::Receiver<Option<LeaderLocation>>;

    /// How long a node has not answered this one; since this node began, if it never did. Nothing for this node.
    fn silent_for(&self, node: NodeId) -> Duration;

    /// Whether somebody may lead a group whom this node does not reach, at this moment: this node holds a replica and is in contact with no leader; it and
    /// the replicas that answer it are a majority; and another is silent that is not known to be gone. Never where the quorum may be lost, or where
    /// nobody can lead but those who answer.
    fn is_cut_off(&self, group: GroupId) -> bool;

    /// The channels of the topics whose replicas this node holds, as applied here.
    fn channel_names(&self) -> ChannelNames;

    /// The metadata as applied here.
    fn metadata(&self) -> watch::Receiver<Arc<MetadataState>>;

    /// The cluster as this node sees it: who answers, who leads, where replicas are. Asks the other nodes, and takes a second at most.
    fn status(&self) -> BoxFuture<'static, ClusterStatus>;
}

/// What a node of several needs beside its own options.
pub struct ClusterPeers {
    /// The links to the other nodes. They must not have started: the receivers of [`Service::Raft`] and [`Service::Node`] are
    /// registered here.
    pub links: Arc<dyn Links>,
    /// All storage nodes, this one included; the same on every node.
    pub members: BTreeSet<NodeId>,
}

/// The groups of this node.
pub struct ClusterNode {
    identity: NodeIdentity,
    locations: LeaderLocations,
    channels: ChannelNames,
    metadata: watch::Receiver<Arc<MetadataState>>,
    status: StatusSources,
    commands: Commands,
    stop: watch::Sender<bool>,
    stopped: watch::Receiver<bool>,
}

impl ClusterNode {
    /// Starts a cluster of one. Opens the metadata group, recovers it, and starts every topic's group in the background; `host` hears of
    /// each that runs. The metadata is complete when this returns.
    ///
    /// # Errors
    /// If the metadata group cannot be opened.
    pub async fn start<S: NodeStore>(
        options: ConsensusOptions<S>,
        host: Arc<dyn TopicHost>,
    ) -> Result<Self, ConsensusError> {
        let cluster = Self::open(options, None, host).await?;
        cluster.ready().await?;
        Ok(cluster)
    }

    /// Starts this node of a cluster of several. Start the links when this has returned. The groups that this node knows of run then, and
    /// serve as soon as a majority of the nodes does; [`ClusterNode::ready`] waits for that.
    ///
    /// # Errors
    /// If the metadata group cannot be opened.
    ///
    /// # Panics
    /// If the links belong to another node than `options` names, that node is not a member, or the links have started.
    pub async fn join<S: NodeStore>(
        options: ConsensusOptions<S>,
        peers: ClusterPeers,
        host: Arc<dyn TopicHost>,
    ) -> Result<Self, ConsensusError> {
        let local = peers.links.local();
        assert!(
            (local.node, local.incarnation) == (options.identity.node, options.identity.incarnation),
            "the links are those of this node"
        );
        assert!(peers.members.contains(&local.node), "this node is a member");
        Self::open(options, Some(peers), host).await
    }

    async fn open<S: NodeStore>(
        options: ConsensusOptions<S>,
        peers: Option<ClusterPeers>,
        host: Arc<dyn TopicHost>,
    ) -> Result<Self, ConsensusError> {
        let environment = options.environment;
        let me = options.identity.node;
        let members = match &peers {
            Some(peers) => peers.members.iter().copied().collect(),
            None => vec![me],
        };
        let clock = Arc::clone(&environment.clock);
        let quorum = QuorumClock::new(clock, me, members.iter().copied());
        let locations = LeaderLocations::default();
        let channels = ChannelNames::default();
        let ports = Ports::default();
        let (published, metadata) = watch::channel(Arc::new(MetadataState::default()));
        let (applied_sender, applied) = watch::channel(LogIndex::default());
        let (here, asked) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (elected_sender, elected) = mpsc::unbounded_channel();
        let (stop, stop_signal) = watch::channel(false);
        let (stopped_sender, stopped) = watch::channel(false);
        let calls = peers.as_ref().map(|peers| Calls::new(Arc::clone(&peers.links)));
        let life = options.identity.incarnation.get();
        let (command_calls, report_calls) = (Arc::new(NodeCalls::new(life)), Arc::new(NodeCalls::new(life)));
        let context = GroupContext {
            store: options.store,
            environment: environment.clone(),
            identity: options.identity,
            locations: locations.clone(),
            channels: channels.clone(),
            checkpoints: CheckpointBudget::new(options.checkpoint_bytes),
            members,
            ports: ports.clone(),
            quorum: Arc::clone(&quorum),
            peers: peers.as_ref().zip(calls.as_ref()).map(|(peers, calls)| PeerContext {
                links: Arc::clone(&peers.links),
                network: Peers {
                    calls: Arc::clone(calls),
                    snapshots: Arc::new(Semaphore::new(SNAPSHOTS_UNDER_WAY_MAX)),
                },
                elected: elected_sender,
            }),
            config: GroupContext::<S>::raft_config(),
        };
        let group = Arc::new(open_metadata(&context, MetadataMachine::new(published, applied_sender)).await?);
        let spawn = Arc::clone(&environment.spawn);
        spawn.spawn(Box::pin(propose_commands(Arc::clone(&group), asked)));
        let elections_stop = watch::channel(false);
        if let (Some(peers), Some(calls)) = (&peers, &calls) {
            let links = &peers.links;
            links.register(
                Service::Raft,
                Arc::new(RaftReceiver {
                    links: Arc::clone(links),
                    environment: environment.clone(),
                    calls: Arc::clone(calls),
                    ports: ports.clone(),
                }),
            );
            links.register(
                Service::Node,
                Arc::new(NodeReceiver {
                    links: Arc::clone(links),
                    environment: environment.clone(),
                    ports: ports.clone(),
                    locations: locations.clone(),
                    quorum: Arc::clone(&quorum),
                    command_calls: Arc::clone(&command_calls),
                    report_calls: Arc::clone(&report_calls),
                    commands: here.clone(),
                }),
            );
            let elections = Elections::new(
                Arc::clone(links),
                environment,
                ports.clone(),
                Arc::clone(calls),
                Arc::clone(&quorum),
                elected,
            );
            spawn.spawn(Box::pin(elections.run(elections_stop.1)));
        }
        let status = StatusSources {
            identity: options.identity,
            clock: Arc::clone(&context.environment.clock),
            metadata: metadata.clone(),
            members: context.members.clone(),
            ports,
            quorum,
            reporters: peers.as_ref().map(|peers| Reporters {
                links: Arc::clone(&peers.links),
                calls: report_calls,
            }),
        };
        metrics::gauge!("nsquorum_replication_factor").set(status.members.len() as f64);
        let commands = Commands {
            me,
            here,
            elsewhere: peers.map(|peers| Elsewhere {
                links: peers.links,
                calls: command_calls,
            }),
            locations: locations.clone(),
            applied,
        };
        let identity = context.identity;
        let groups = Groups {
            context,
            host,
            metadata: metadata.clone(),
            metadata_group: group,
            commands: commands.clone(),
            elections_stop: elections_stop.0,
            running: BTreeMap::new(),
            opening: JoinSet::new(),
            permits: Arc::new(Semaphore::new(OPENING_GROUPS_MAX)),
            burying: BTreeSet::new(),
        };
        spawn.spawn(Box::pin(groups.run(stop_signal, stopped_sender)));
        Ok(Self {
            identity,
            locations,
            channels,
            metadata,
            status,
            commands,
            stop,
            stopped,
        })
    }

    /// Resolves when everything that was ever committed to the metadata is applied here: leading is not enough, a command of the
    /// current term has to be applied. Waits for a majority for as long as it takes.
    ///
    /// # Errors
    /// If the node is stopping.
    pub async fn ready(&self) -> Result<(), ConsensusError> {
        self.commands.clone().until_applied(MetadataCommand::Barrier).await
    }

    /// Lets every node know how clients reach this one. Resolves when that is applied here; waits for a majority as long as it takes, so this says
    /// as much as [`ClusterNode::ready`].
    ///
    /// # Errors
    /// When the node is stopping.
    pub async fn announce(&self, description: NodeDescription) -> Result<(), ConsensusError> {
        let node = self.identity.node.get();
        let command = MetadataCommand::AnnounceNode { node, description };
        self.commands.clone().until_applied(command).await
    }

    /// Hands every leadership over (for at most two seconds), then stops every group. What was acknowledged is on disk already. The links
    /// must go on until this returns.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let mut stopped = self.stopped.clone();
        // An error means that the task has ended without saying so; there is nothing left to stop.
        drop(stopped.wait_for(|stopped| *stopped).await);
    }

    fn command(&self, command: MetadataCommand) -> BoxFuture<'static, Result<(), ConsensusError>> {
        Box::pin(self.commands.clone().submit(command))
    }
}

impl Cluster for ClusterNode {
    fn create_topic(&self, name: TopicName) -> BoxFuture<'static, Result<(), ConsensusError>> {
        self.command(MetadataCommand::CreateTopic {
            name: name.as_str().to_owned(),
            at: Some(self.identity.node.get()),
        })
    }

    fn delete_topic(
        &self,
        name: TopicName,
        group: GroupId,
        last_seq: Seq,
    ) -> BoxFuture<'static, Result<(), ConsensusError>> {
        self.command(MetadataCommand::DeleteTopic {
            name: name.as_str().to_owned(),
            group: group.get(),
            last_seq: last_seq.get(),
        })
    }

    fn tombstone_replica(
        &self,
        topic: TopicName,
        node: NodeId,
        since: WallTime,
        until: WallTime,
    ) -> BoxFuture<'static, Result<(), ConsensusError>> {
        self.command(MetadataCommand::TombstoneReplica {
            topic: topic.as_str().to_owned(),
            node: node.get(),
            since_ns: since.as_nanos(),
            until_ns: until.as_nanos(),
        })
    }

    fn catch_up(&self) -> BoxFuture<'static, Result<(), ConsensusError>> {
        self.command(MetadataCommand::Barrier)
    }

    fn identity(&self) -> NodeIdentity {
        self.identity
    }

    fn leader(&self, group: GroupId) -> watch::Receiver<Option<LeaderLocation>> {
        self.locations.watch(group)
    }

    fn silent_for(&self, node: NodeId) -> Duration {
        self.status.quorum.silent_for(node)
    }

    fn is_cut_off(&self, group: GroupId) -> bool {
        self.status.is_cut_off(group)
    }

    fn channel_names(&self) -> ChannelNames {
        self.channels.clone()
    }

    fn metadata(&self) -> watch::Receiver<Arc<MetadataState>> {
        self.metadata.clone()
    }

    fn status(&self) -> BoxFuture<'static, ClusterStatus> {
        Box::pin(self.status.clone().gather())
    }
}

/// Gathers what waits into one entry, waits until it is applied, answers, and goes on.
async fn propose_commands<L: GroupLog>(
    group: Arc<RunningGroup<L, MetadataMachine>>,
    mut waiting: mpsc::Receiver<Asking>,
) {
    let mut gathered = Vec::new();
    while waiting.recv_many(&mut gathered, COMMANDS_PER_ENTRY_MAX).await > 0 {
        // Whoever gave up in the meantime asks again, if at all.
        gathered.retain(|asking: &Asking| !asking.answer.is_closed());
        let (commands, answers): (Vec<_>, Vec<_>) =
            gathered.drain(..).map(|asking| (asking.command, asking.answer)).unzip();
        if commands.is_empty() {
            continue;
        }
        // Openraft does not answer on a leader that was cut off: the outcome is unknown then, and the commands go again.
        let result = tokio::time::timeout(PROPOSAL_MAX, propose_batch(&group, commands))
            .await
            .unwrap_or(Err(ConsensusError::NoLeader));
        for answer in answers {
            // Whoever asked may have given up.
            drop(answer.send(result.clone()));
        }
    }
}

async fn propose_batch<L: GroupLog>(
    group: &RunningGroup<L, MetadataMachine>,
    commands: Vec<MetadataCommand>,
) -> Result<LogIndex, ConsensusError> {
    let term = group.leading_term().ok_or(ConsensusError::NoLeader)?;
    let (sender, outcome) = oneshot::channel();
    let proposal = MetadataBatch::new(commands).into_proposal();
    group
        .propose(term, proposal, move |result| _ = sender.send(result))
        .await;
    outcome
        .await
        .unwrap_or(Err(Refusal::Stopped))
        .map_err(|refusal| match refusal {
            // Not appended: whoever asked tries again.
            Refusal::LeaseExpired | Refusal::NotLeader => ConsensusError::NoLeader,
            Refusal::Stopped => ConsensusError::Stopped,
        })
}

struct Running<L: GroupLog> {
    name: TopicName,
    /// `None` while the group is being opened.
    group: Option<RunningGroup<L, TopicMachine>>,
}

type Opened<L> = (
    GroupId,
    Result<(RunningGroup<L, TopicMachine>, crate::group::TopicGroup), ConsensusError>,
);

/// The loop that makes the running groups follow the metadata.
struct Groups<S: NodeStore> {
    context: GroupContext<S>,
    host: Arc<dyn TopicHost>,
    metadata: watch::Receiver<Arc<MetadataState>>,
    metadata_group: Arc<RunningGroup<S::Log, MetadataMachine>>,
    commands: Commands,
    elections_stop: watch::Sender<bool>,
    running: BTreeMap<GroupId, Running<S::Log>>,
    opening: JoinSet<Opened<S::Log>>,
    permits: Arc<Semaphore>,
    /// Deleted groups whose data is being deleted.
    burying: BTreeSet<GroupId>,
}

impl<S: NodeStore> Groups<S> {
    async fn run(mut self, mut stop: watch::Receiver<bool>, stopped: watch::Sender<bool>) {
        self.metadata.mark_changed();
        loop {
            tokio::select! {
                _ = stop.changed() => break,
                changed = self.metadata.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.follow_metadata().await;
                }
                Some(opened) = self.opening.join_next() => {
                    if let Ok((group, opened)) = opened {
                        self.opened(group, opened);
                        // The topic may have been deleted while its group was being opened.
                        self.metadata.mark_changed();
                    }
                }
            }
        }
        self.opening.shutdown().await;
        // While heartbeats go on, so that nobody campaigns against a leader that is just handing over.
        hand_over_all(&self.context.ports, &self.context.quorum, self.context.identity.node).await;
        self.elections_stop.send_replace(true);
        for running in self.running.into_values() {
            if let Some(group) = running.group {
                group.stop().await;
            }
        }
        self.metadata_group.stop().await;
        stopped.send_replace(true);
    }

    async fn follow_metadata(&mut self) {
        let state = Arc::clone(&self.metadata.borrow_and_update());
        for (name, record) in state.topics() {
            let is_mine = record.replicas.contains(&self.context.identity.node);
            if is_mine && !self.running.contains_key(&record.group) {
                self.open(name, record.clone());
            }
        }
        let me = self.context.identity.node;
        let mine = state.tombstones().filter(|(_, nodes)| nodes.contains(&me));
        let tombstones: BTreeSet<GroupId> = mine.map(|(group, _)| group).collect();
        self.burying.retain(|group| tombstones.contains(group));
        for group in tombstones {
            self.bury(group).await;
        }
    }

    fn open(&mut self, name: TopicName, record: TopicRecord) {
        self.running.insert(
            record.group,
            Running {
                name: name.clone(),
                group: None,
            },
        );
        let context = self.context.clone();
        let permits = Arc::clone(&self.permits);
        let group = record.group;
        self.opening.spawn(async move {
            let _permit = permits.acquire_owned().await.expect("the semaphore is never closed");
            (group, open_topic(&context, name, record).await)
        });
    }

    fn opened(
        &mut self,
        group: GroupId,
        opened: Result<(RunningGroup<S::Log, TopicMachine>, crate::group::TopicGroup), ConsensusError>,
    ) {
        let Some(running) = self.running.get_mut(&group) else {
            return;
        };
        match opened {
            Ok((raft, topic)) => {
                running.group = Some(raft);
                self.host.topic_started(topic);
            }
            Err(error) => {
                tracing::error!(
                    topic = %running.name,
                    group = group.get(),
                    %error,
                    "a topic cannot be opened; the others go on; run `nsquorum verify` on the stopped directory"
                );
                metrics::counter!("nsquorum_quarantined_groups_total").increment(1);
                self.host.topic_failed(&running.name, group);
            }
        }
    }

    /// Deletes a deleted topic's data, and then its tombstone.
    async fn bury(&mut self, group: GroupId) {
        if let Some(running) = self.running.get(&group) {
            if running.group.is_none() && !self.opening.is_empty() {
                return; // being opened: comes again when that is done
            }
            let running = self.running.remove(&group).expect("looked up above");
            self.host.topic_stopped(&running.name, group);
            if let Some(raft) = running.group {
                raft.stop().await;
            }
        }
        if !self.burying.insert(group) {
            return;
        }
        self.context.locations.forget(group);
        self.context.channels.forget(group);
        let (sender, deleted) = oneshot::channel();
        self.context
            .store
            .delete_group(group, Box::new(move |result| drop(sender.send(result))));
        let commands = self.commands.clone();
        let node = self.context.identity.node.get();
        self.context.environment.spawn.spawn(Box::pin(async move {
            // After a failure the store's hook has been told, and the tombstone deletes the data at the next start.
            if let Ok(Ok(())) = deleted.await {
                let forget = MetadataCommand::ForgetGroup {
                    group: group.get(),
                    node,
                };
                if let Err(error) = commands.until_applied(forget).await {
                    tracing::debug!(%error, "a tombstone stays until the next start");
                }
            }
        }));
    }
}
