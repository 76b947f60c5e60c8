//! A group that runs on this node: genesis, start, election, LeaderStart, purge, stop.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use nsquorum_environment::Environment;
use nsquorum_protocol::TopicName;
use nsquorum_storage::{ENTRY_HEADER_BYTES, Entry, EntryKind, GroupLog, LogId, NodeStore, StorageError};
use nsquorum_topic::{GroupId, LeaderStart, LogIndex, LogTime, Term};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardReason};
use openraft::{Config, Raft, ServerState, SnapshotPolicy};
use tokio::sync::{mpsc, oneshot, watch};

use super::events::{BoxFuture, TopicEvent, TopicGroup, TopicLog};
use super::topic_machine::TopicMachine;
use crate::error::{ConsensusError, Refusal};
use crate::metadata::{MetadataMachine, TopicRecord};
use crate::node::NodeIdentity;
use crate::raft::{
    Callback, CheckpointBudget, GroupStateMachine, Machine, Membership, NoPeers, Proposal, RaftLog, RaftTypes,
    encode_membership,
};

/// How long a refused LeaderStart waits before it is proposed again (a fresh leader is refused until its first quorum answer).
const LEADER_START_RETRY: Duration = Duration::from_millis(5);

/// What every group of the node shares.
#[derive(Clone)]
pub(crate) struct GroupContext<S> {
    pub(crate) store: S,
    pub(crate) environment: Environment,
    pub(crate) identity: NodeIdentity,
    pub(crate) checkpoints: CheckpointBudget,
    pub(crate) config: Arc<Config>,
}

impl<S: NodeStore> GroupContext<S> {
    /// openraft's settings: nothing happens by itself. The node drives elections, and a snapshot is only taken when a checkpoint has
    /// become the purge point, after which everything before it goes.
    pub(crate) fn raft_config() -> Arc<Config> {
        let config = Config {
            cluster_name: "nsquorum".into(),
            heartbeat_interval: 200,
            election_timeout_min: 700,
            election_timeout_max: 900,
            enable_tick: false,
            enable_heartbeat: false,
            enable_elect: false,
            enable_pre_vote: Some(true),
            enable_leader_restore: Some(false),
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: 0,
            purge_batch_size: 1,
            max_payload_entries: 256,
            ..Config::default()
        };
        Arc::new(config.validate().expect("constant settings that openraft accepts"))
    }
}

/// A group that runs.
pub(crate) struct RunningGroup<L: GroupLog, M: Machine> {
    raft: Raft<RaftTypes, GroupStateMachine<L, M>>,
    stop: watch::Sender<bool>,
}

impl<L: GroupLog, M: Machine> RunningGroup<L, M> {
    /// The leader's term, if this node leads.
    pub(crate) fn leading_term(&self) -> Option<Term> {
        leading_term(&self.raft)
    }

    /// Proposes for a term; `outcome` is called once, on any thread.
    pub(crate) async fn propose(
        &self,
        term: Term,
        proposal: Proposal,
        outcome: impl FnOnce(Result<(), Refusal>) + Send + 'static,
    ) {
        propose(&self.raft, term, proposal, outcome).await;
    }

    /// Waits until this node leads.
    pub(crate) async fn wait_until_leading(&self) -> Result<Term, ConsensusError> {
        let mut metrics = self.raft.server_metrics();
        loop {
            if let Some(term) = self.leading_term() {
                return Ok(term);
            }
            metrics.changed().await.map_err(|_| ConsensusError::Stopped)?;
        }
    }

    /// Stops the group's tasks. The data stays.
    pub(crate) async fn stop(&self) {
        self.stop.send_replace(true);
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "a group's core had ended before it was stopped");
        }
    }
}

fn leading_term<L: GroupLog, M: Machine>(raft: &Raft<RaftTypes, GroupStateMachine<L, M>>) -> Option<Term> {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let vote = &metrics.vote;
    let leads = metrics.state == ServerState::Leader && openraft::vote::RaftVote::is_committed(vote);
    leads.then(|| Term::new(openraft::vote::RaftVote::leader_id(vote).term))
}

async fn propose<L: GroupLog, M: Machine>(
    raft: &Raft<RaftTypes, GroupStateMachine<L, M>>,
    term: Term,
    proposal: Proposal,
    outcome: impl FnOnce(Result<(), Refusal>) + Send + 'static,
) {
    // Always with a responder: openraft drops refusals silently otherwise. Dropped unanswered, it tells that the group has stopped.
    let outcome = Outcome(Some(Box::new(outcome)));
    let callback = Callback::new(move |result: Result<_, ClientWriteError<RaftTypes>>| {
        outcome.settle(match result {
            Ok(_) => Ok(()),
            Err(ClientWriteError::ForwardToLeader(forward)) => {
                // An expired lease is transient within the same term; anything else means that another node leads or will.
                let expired = matches!(forward.reason, ForwardReason::LeaseExpired);
                Err(if expired {
                    Refusal::LeaseExpired
                } else {
                    Refusal::NotLeader
                })
            }
            Err(_) => Err(Refusal::NotLeader),
        });
    });
    let leader = openraft::vote::leader_id_std::CommittedLeaderId::new(term.get());
    if raft
        .write(proposal)
        .with_leader(leader)
        .responder(callback)
        .await
        .is_err()
    {
        // The callback was dropped with the request and has told.
        tracing::debug!("a proposal met a group that has stopped");
    }
}

/// A callback that is told `Stopped` if nobody calls it.
struct Outcome(Option<OutcomeCallback>);

type OutcomeCallback = Box<dyn FnOnce(Result<(), Refusal>) + Send>;

impl Outcome {
    fn settle(mut self, result: Result<(), Refusal>) {
        if let Some(outcome) = self.0.take() {
            outcome(result);
        }
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        if let Some(outcome) = self.0.take() {
            outcome(Err(Refusal::Stopped));
        }
    }
}

/// Opens the metadata group and starts it.
pub(crate) async fn open_metadata<S: NodeStore>(
    context: &GroupContext<S>,
    machine: MetadataMachine,
) -> Result<RunningGroup<S::Log, MetadataMachine>, ConsensusError> {
    start(context, GroupId::METADATA, machine, |_| None).await
}

/// Opens a topic's group and starts it.
pub(crate) async fn open_topic<S: NodeStore>(
    context: &GroupContext<S>,
    name: TopicName,
    record: TopicRecord,
) -> Result<(RunningGroup<S::Log, TopicMachine>, TopicGroup), ConsensusError> {
    let (sender, events) = mpsc::unbounded_channel();
    let me = (context.identity.node, context.identity.incarnation);
    let machine = TopicMachine::new(record.seq_base, me, sender.clone());
    let environment = context.environment.clone();
    let leader_start = move |term: Term| {
        let start = LeaderStart {
            node: me.0,
            incarnation: me.1,
            term,
            clock: LogTime::new(environment.clock.wall().as_nanos()),
        };
        let buffer = start.encode(ENTRY_HEADER_BYTES);
        Some(Proposal {
            kind: EntryKind::LeaderStart,
            buffer,
        })
    };
    let running = start(context, record.group, machine, leader_start).await?;
    let store = context.store.clone();
    let group = record.group;
    let log = tokio::task::spawn_blocking(move || store.open_group(group))
        .await
        .map_err(|_| ConsensusError::Stopped)??;
    let log = Arc::new(GroupHandle {
        raft: running.raft.clone(),
        log,
        events: sender,
    });
    Ok((
        running,
        TopicGroup {
            name,
            group,
            log,
            events,
        },
    ))
}

async fn start<S: NodeStore, M: Machine>(
    context: &GroupContext<S>,
    group: GroupId,
    machine: M,
    leader_start: impl Fn(Term) -> Option<Proposal> + Send + 'static,
) -> Result<RunningGroup<S::Log, M>, ConsensusError> {
    let (reclaim, reclaimed) = watch::channel(None);
    let (log, machine) = {
        let context = context.clone();
        tokio::task::spawn_blocking(move || -> Result<_, ConsensusError> {
            let log = context.store.open_group(group)?;
            let machine =
                GroupStateMachine::open(log.clone(), machine, &context.checkpoints, reclaim).map_err(|error| {
                    ConsensusError::Quarantined {
                        group: group.get(),
                        what: error.to_string(),
                    }
                })?;
            Ok((log, machine))
        })
        .await
        .map_err(|_| ConsensusError::Stopped)??
    };
    let state = log.state();
    if state.last.is_none() && state.last_purged.is_none() {
        write_genesis(&log, context.identity).await?;
    }
    let raft = Raft::build(
        context.identity.node.get(),
        Arc::clone(&context.config),
        NoPeers,
        RaftLog::new(log),
        machine,
    )
    .await
    .map_err(|error| ConsensusError::Quarantined {
        group: group.get(),
        what: error.to_string(),
    })?;
    raft.run();
    let (stop, stopped) = watch::channel(false);
    context
        .environment
        .spawn
        .spawn(Box::pin(keep(group, raft.clone(), reclaimed, stopped, leader_start)));
    Ok(RunningGroup { raft, stop })
}

/// The same first entry on every replica: the membership at index 0. `Raft::initialize` would start an election on every caller.
async fn write_genesis<L: GroupLog>(log: &L, identity: NodeIdentity) -> Result<(), StorageError> {
    let membership = Membership::new_with_defaults(vec![BTreeSet::from([identity.node.get()])], []);
    let mut buffer = BytesMut::zeroed(ENTRY_HEADER_BYTES);
    encode_membership(&membership, &mut buffer);
    let entry = Entry::seal(
        buffer,
        EntryKind::Membership,
        log.group(),
        Term::new(0),
        LogIndex::new(0),
    );
    let (sender, receiver) = oneshot::channel();
    log.append(vec![entry], Box::new(move |result| drop(sender.send(result))));
    receiver.await.unwrap_or(Err(StorageError::Closed))
}

/// Keeps a group going: campaigns, announces this node's leadership in the log, and purges.
async fn keep<L: GroupLog, M: Machine>(
    group: GroupId,
    raft: Raft<RaftTypes, GroupStateMachine<L, M>>,
    mut reclaimed: watch::Receiver<Option<LogId>>,
    mut stopped: watch::Receiver<bool>,
    leader_start: impl Fn(Term) -> Option<Proposal> + Send,
) {
    // A single voter has nobody to wait for. With several voters the node's failure detector decides who campaigns.
    if raft.trigger().elect(false).await.is_err() {
        return;
    }
    let mut metrics = raft.server_metrics();
    let mut announced = None;
    loop {
        if let Some(term) = leading_term(&raft)
            && announced != Some(term)
            && let Some(proposal) = leader_start(term)
        {
            match announce(&raft, term, proposal).await {
                Ok(()) => announced = Some(term),
                Err(Refusal::LeaseExpired) => {
                    tokio::time::sleep(LEADER_START_RETRY).await;
                    continue;
                }
                Err(Refusal::NotLeader) => {}
                Err(Refusal::Stopped) => return,
            }
        }
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { return },
            changed = reclaimed.changed() => {
                if changed.is_err() {
                    return;
                }
                tracing::debug!(group = group.get(), up_to = ?*reclaimed.borrow_and_update(), "purging");
                if raft.trigger().snapshot().await.is_err() {
                    return;
                }
            }
            _ = stopped.changed() => return,
        }
    }
}

async fn announce<L: GroupLog, M: Machine>(
    raft: &Raft<RaftTypes, GroupStateMachine<L, M>>,
    term: Term,
    proposal: Proposal,
) -> Result<(), Refusal> {
    let (sender, receiver) = oneshot::channel();
    propose(raft, term, proposal, move |result| _ = sender.send(result)).await;
    receiver.await.unwrap_or(Err(Refusal::Stopped))
}

/// The log of a topic's group for its leader.
struct GroupHandle<L: GroupLog> {
    raft: Raft<RaftTypes, GroupStateMachine<L, TopicMachine>>,
    log: L,
    events: mpsc::UnboundedSender<TopicEvent>,
}

impl<L: GroupLog> TopicLog for GroupHandle<L> {
    fn propose(&self, term: Term, kind: EntryKind, buffer: BytesMut, ticket: u64) -> BoxFuture<'_, ()> {
        let events = self.events.clone();
        Box::pin(async move {
            propose(&self.raft, term, Proposal { kind, buffer }, move |result| {
                if let Err(refusal) = result {
                    drop(events.send(TopicEvent::Refused { ticket, refusal }));
                }
            })
            .await;
        })
    }

    fn read_cached(&self, from: LogIndex, to: LogIndex, bytes_max: usize) -> Option<Vec<Entry>> {
        self.log.read_cached(from, to, bytes_max)
    }

    fn read(&self, from: LogIndex, to: LogIndex, bytes_max: usize) -> Result<Vec<Entry>, StorageError> {
        self.log.read(from, to, bytes_max)
    }
}
