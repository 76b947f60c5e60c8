//! The groups of this node: the metadata group, and every topic that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nsquorum_environment::Environment;
use nsquorum_protocol::TopicName;
use nsquorum_storage::{GroupLog, NodeStore};
use nsquorum_topic::{GroupId, NodeId, NodeIncarnation, Seq};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::error::{ConsensusError, Refusal};
use crate::group::{BoxFuture, GroupContext, RunningGroup, TopicHost, TopicMachine, open_metadata, open_topic};
use crate::metadata::{MetadataBatch, MetadataCommand, MetadataMachine, MetadataState, TopicRecord};
use crate::raft::CheckpointBudget;

/// Groups that are opened at the same time; each reads its checkpoint and tail.
const OPENING_GROUPS_MAX: usize = 16;
/// Metadata commands in one entry.
const COMMANDS_PER_ENTRY_MAX: usize = 256;
/// Metadata commands that wait in the inbox; beyond it their callers wait.
const COMMANDS_WAITING_MAX: usize = 4096;

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

    /// The metadata as applied here.
    fn metadata(&self) -> watch::Receiver<Arc<MetadataState>>;
}

struct Waiting {
    command: MetadataCommand,
    answer: oneshot::Sender<Result<(), ConsensusError>>,
}

/// The groups of a node that is alone.
pub struct ClusterOfOne {
    metadata: watch::Receiver<Arc<MetadataState>>,
    commands: mpsc::Sender<Waiting>,
    stop: watch::Sender<bool>,
    stopped: watch::Receiver<bool>,
}

impl ClusterOfOne {
    /// Opens the metadata group, recovers it, and starts every topic's group in the background; `host` hears of each that runs.
    pub async fn start<S: NodeStore>(
        options: ConsensusOptions<S>,
        host: Arc<dyn TopicHost>,
    ) -> Result<Self, ConsensusError> {
        let context = GroupContext {
            store: options.store,
            environment: options.environment,
            identity: options.identity,
            checkpoints: CheckpointBudget::new(options.checkpoint_bytes),
            config: GroupContext::<S>::raft_config(),
        };
        let (published, metadata) = watch::channel(Arc::new(MetadataState::default()));
        let group = Arc::new(open_metadata(&context, MetadataMachine::new(published)).await?);
        // Leading is not enough: a write of the new term has to be applied before the state is known to be complete.
        let (commands, waiting) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (stop, stop_signal) = watch::channel(false);
        let (stopped_sender, stopped) = watch::channel(false);
        let spawn = Arc::clone(&context.environment.spawn);
        spawn.spawn(Box::pin(propose_commands(Arc::clone(&group), waiting)));
        let cluster = Self {
            metadata: metadata.clone(),
            commands,
            stop,
            stopped,
        };
        cluster.command(MetadataCommand::Barrier).await?;
        let groups = Groups {
            context,
            host,
            metadata,
            metadata_group: group,
            commands: cluster.commands.clone(),
            running: BTreeMap::new(),
            opening: JoinSet::new(),
            permits: Arc::new(Semaphore::new(OPENING_GROUPS_MAX)),
            burying: BTreeSet::new(),
        };
        spawn.spawn(Box::pin(groups.run(stop_signal, stopped_sender)));
        Ok(cluster)
    }

    /// Stops every group. What was acknowledged is on disk already.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let mut stopped = self.stopped.clone();
        // An error means that the task has ended without saying so; there is nothing left to stop.
        drop(stopped.wait_for(|stopped| *stopped).await);
    }

    fn command(&self, command: MetadataCommand) -> BoxFuture<'static, Result<(), ConsensusError>> {
        command_to(self.commands.clone(), command)
    }
}

fn command_to(
    commands: mpsc::Sender<Waiting>,
    command: MetadataCommand,
) -> BoxFuture<'static, Result<(), ConsensusError>> {
    Box::pin(async move {
        let (answer, answered) = oneshot::channel();
        commands
            .send(Waiting { command, answer })
            .await
            .map_err(|_| ConsensusError::Stopped)?;
        answered.await.unwrap_or(Err(ConsensusError::Stopped))
    })
}

impl Cluster for ClusterOfOne {
    fn create_topic(&self, name: TopicName) -> BoxFuture<'static, Result<(), ConsensusError>> {
        self.command(MetadataCommand::CreateTopic {
            name: name.as_str().to_owned(),
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

    fn metadata(&self) -> watch::Receiver<Arc<MetadataState>> {
        self.metadata.clone()
    }
}

/// Gathers what waits into one entry, waits until it is applied, answers, and goes on.
async fn propose_commands<L: GroupLog>(
    group: Arc<RunningGroup<L, MetadataMachine>>,
    mut waiting: mpsc::Receiver<Waiting>,
) {
    let mut gathered = Vec::new();
    while waiting.recv_many(&mut gathered, COMMANDS_PER_ENTRY_MAX).await > 0 {
        let (commands, answers): (Vec<_>, Vec<_>) = gathered
            .drain(..)
            .map(|waiting| (waiting.command, waiting.answer))
            .unzip();
        let result = propose_batch(&group, &commands).await;
        for answer in answers {
            // Whoever asked may have given up.
            drop(answer.send(result.clone()));
        }
    }
}

async fn propose_batch<L: GroupLog>(
    group: &RunningGroup<L, MetadataMachine>,
    commands: &[MetadataCommand],
) -> Result<(), ConsensusError> {
    loop {
        let term = group.wait_until_leading().await?;
        let (sender, outcome) = oneshot::channel();
        let proposal = MetadataBatch::new(commands.to_vec()).into_proposal();
        group
            .propose(term, proposal, move |result| _ = sender.send(result))
            .await;
        match outcome.await.unwrap_or(Err(Refusal::Stopped)) {
            Ok(()) => return Ok(()),
            // Refused means not appended: the same commands may go again.
            Err(Refusal::LeaseExpired) => tokio::task::yield_now().await,
            Err(Refusal::NotLeader) => return Err(ConsensusError::NoLeader),
            Err(Refusal::Stopped) => return Err(ConsensusError::Stopped),
        }
    }
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
    commands: mpsc::Sender<Waiting>,
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
            if !self.running.contains_key(&record.group) {
                self.open(name, record);
            }
        }
        let tombstones: BTreeSet<GroupId> = state.tombstones().collect();
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
        self.opening.spawn(async move {
            let _permit = permits.acquire_owned().await.expect("the semaphore is never closed");
            (record.group, open_topic(&context, name, record).await)
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
        let (sender, deleted) = oneshot::channel();
        self.context
            .store
            .delete_group(group, Box::new(move |result| drop(sender.send(result))));
        let commands = self.commands.clone();
        self.context.environment.spawn.spawn(Box::pin(async move {
            // After a failure the store's hook has been told, and the tombstone deletes the data at the next start.
            if let Ok(Ok(())) = deleted.await {
                let forget = MetadataCommand::ForgetGroup { group: group.get() };
                if let Err(error) = command_to(commands, forget).await {
                    tracing::debug!(%error, "a tombstone stays until the next start");
                }
            }
        }));
    }
}
