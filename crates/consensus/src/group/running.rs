//! A group that runs on this node: genesis, start, election, LeaderStart, purge, stop.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use nsquorum_environment::Environment;
use nsquorum_links::Links;
use nsquorum_protocol::TopicName;
use nsquorum_storage::{ENTRY_HEADER_BYTES, Entry, EntryKind, GroupLog, LogId, NodeStore, StorageError};
use nsquorum_topic::{GroupId, LeaderStart, LogIndex, LogTime, NodeId, Term};
use openraft::async_runtime::{Instant as _, WatchReceiver};
use openraft::errors::{ClientWriteError, ForwardReason};
use openraft::raft::ClientWriteResult;
use openraft::{Config, Raft, ReadPolicy, ServerState, SnapshotPolicy};
use tokio::sync::{mpsc, oneshot, watch};

use super::events::{BoxFuture, TopicEvent, TopicGroup, TopicLog};
use super::leading::TopicLeading;
use super::topic_machine::TopicMachine;
use crate::channels::ChannelNames;
use crate::elections::{Elected, Followers, Pulse, QuorumClock};
use crate::error::{ConsensusError, Refusal};
use crate::locations::{LeaderLocation, LeaderLocations};
use crate::metadata::{MetadataMachine, TopicRecord};
use crate::node::NodeIdentity;
use crate::peers::{Led, Port, Ports};
use crate::raft::{
    Answers, Callback, CheckpointBudget, GroupStateMachine, Machine, Membership, PeerNetworkFactory, Peers, Proposal,
    RaftLog, RaftReplica, RaftTypes, Replica, Serving, encode_membership,
};

/// How long a refused LeaderStart waits before it is proposed again (a fresh leader is refused until its first quorum answer).
const LEADER_START_RETRY: Duration = Duration::from_millis(5);
/// A lease older than this is renewed before a proposal; openraft refuses at 900 ms.
const LEASE_WORTH_RENEWING: Duration = Duration::from_millis(700);
/// How long a proposal waits for that.
const LEASE_RENEWAL_MAX: Duration = Duration::from_millis(400);
/// Between two looks at whether a purge can go on.
const PURGE_RETRY: Duration = Duration::from_millis(200);
/// Log that is kept for a live replica that lags; one that lags further gets a snapshot.
const PURGE_HELD_BYTES_MAX: u64 = 256 << 20;

/// How groups reach the other nodes.
#[derive(Clone)]
pub(crate) struct PeerContext {
    pub(crate) links: Arc<dyn Links>,
    pub(crate) network: Peers,
    pub(crate) elected: mpsc::UnboundedSender<Elected>,
}

/// What every group of the node shares.
#[derive(Clone)]
pub(crate) struct GroupContext<S> {
    pub(crate) store: S,
    pub(crate) environment: Environment,
    pub(crate) identity: NodeIdentity,
    pub(crate) locations: LeaderLocations,
    pub(crate) channels: ChannelNames,
    pub(crate) checkpoints: CheckpointBudget,
    /// The storage nodes, ascending.
    pub(crate) members: Vec<NodeId>,
    pub(crate) ports: Ports,
    pub(crate) quorum: Arc<QuorumClock>,
    /// `None` in a cluster of one.
    pub(crate) peers: Option<PeerContext>,
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
            // It bounds a whole snapshot, which may wait for its turn among those of other groups.
            install_snapshot_timeout: 60_000,
            ..Config::default()
        };
        Arc::new(config.validate().expect("constant settings that openraft accepts"))
    }
}

/// A group that runs.
pub(crate) struct RunningGroup<L: GroupLog, M: Machine> {
    raft: Raft<RaftTypes, GroupStateMachine<L, M>>,
    ports: Ports,
    port: Arc<Port>,
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
        outcome: impl FnOnce(Result<LogIndex, Refusal>) + Send + 'static,
    ) {
        prepare(&self.raft, &self.port).await;
        propose(&self.raft, term, proposal, outcome).await;
    }

    /// Stops the group's tasks. The data stays.
    pub(crate) async fn stop(&self) {
        self.ports.close(self.port.group);
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
    let leads = metrics.state == ServerState::Leader && vote.is_committed();
    leads.then(|| Term::new(vote.leader_id().term))
}

/// Renews openraft's lease before a proposal after a pause: without an answer of the majority within the lease openraft refuses it. One
/// round trip, and only then; while a group is active its lease is kept up beside it.
async fn prepare<L: GroupLog, M: Machine>(raft: &Raft<RaftTypes, GroupStateMachine<L, M>>, port: &Port) {
    port.pulse.proposed();
    if port.replicas.len() == 1 {
        return;
    }
    let Ok(leader) = raft.as_leader() else { return };
    // A fresh leader has no answer yet; its first one is under way already.
    let Some(answered) = leader.last_quorum_acked() else {
        return;
    };
    if answered.elapsed() > LEASE_WORTH_RENEWING {
        // Without a majority the proposal is refused, and whoever made it waits and comes again.
        drop(tokio::time::timeout(LEASE_RENEWAL_MAX, raft.get_read_log_id(ReadPolicy::ReadIndex)).await);
    }
}

async fn propose<L: GroupLog, M: Machine>(
    raft: &Raft<RaftTypes, GroupStateMachine<L, M>>,
    term: Term,
    proposal: Proposal,
    outcome: impl FnOnce(Result<LogIndex, Refusal>) + Send + 'static,
) {
    // Always with a responder: openraft drops refusals silently otherwise. Dropped unanswered, it tells that the group has stopped.
    let outcome = Outcome(Some(Box::new(outcome)));
    let callback = Callback::new(move |result: ClientWriteResult<RaftTypes>| {
        outcome.settle(match result {
            Ok(response) => Ok(LogIndex::new(response.log_id.index())),
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

type OutcomeCallback = Box<dyn FnOnce(Result<LogIndex, Refusal>) + Send>;

impl Outcome {
    fn settle(mut self, result: Result<LogIndex, Refusal>) {
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

/// What the watch over a group does at the turns of its leadership.
trait Turns: Send + Sync + 'static {
    /// The entry with which a leader of the term begins, if its group has such entries.
    fn leader_start(&self, term: Term) -> Option<Proposal>;
    /// Somebody leads.
    fn leader_seen(&self, leader: LeaderLocation);
    /// This node's terms up to this one are over.
    fn over(&self, term: Term);
    /// Whether this term of this node is over, whatever openraft says.
    fn is_over(&self, term: Term) -> bool;
}

/// The metadata group: whoever leads serves at once, because its commands carry their own conditions.
struct MetadataTurns {
    me: NodeId,
    pulse: Arc<Pulse>,
    locations: LeaderLocations,
}

impl Turns for MetadataTurns {
    fn leader_start(&self, _term: Term) -> Option<Proposal> {
        None
    }

    fn leader_seen(&self, leader: LeaderLocation) {
        self.locations.learn(GroupId::METADATA, leader);
        if leader.node == self.me {
            self.pulse.set_serving(Some(leader.term));
        }
    }

    fn over(&self, _term: Term) {
        self.pulse.set_serving(None);
    }

    fn is_over(&self, _term: Term) -> bool {
        false
    }
}

struct TopicTurns {
    me: NodeIdentity,
    environment: Environment,
    leading: Arc<TopicLeading>,
}

impl Turns for TopicTurns {
    fn leader_start(&self, term: Term) -> Option<Proposal> {
        let start = LeaderStart {
            node: self.me.node,
            incarnation: self.me.incarnation,
            term,
            clock: LogTime::new(self.environment.clock.wall().as_nanos()),
        };
        Some(Proposal {
            kind: EntryKind::LeaderStart,
            buffer: start.encode(ENTRY_HEADER_BYTES),
        })
    }

    /// A topic's leader is where its LeaderStart says, once that is applied.
    fn leader_seen(&self, _leader: LeaderLocation) {}

    fn over(&self, term: Term) {
        self.leading.end(term);
    }

    fn is_over(&self, term: Term) -> bool {
        self.leading.is_over(term)
    }
}

/// Opens the metadata group and starts it.
pub(crate) async fn open_metadata<S: NodeStore>(
    context: &GroupContext<S>,
    machine: MetadataMachine,
) -> Result<RunningGroup<S::Log, MetadataMachine>, ConsensusError> {
    let pulse = Pulse::new(Arc::clone(&context.environment.clock));
    let turns = MetadataTurns {
        me: context.identity.node,
        pulse: Arc::clone(&pulse),
        locations: context.locations.clone(),
    };
    let spec = GroupSpec {
        group: GroupId::METADATA,
        replicas: context.members.clone(),
        first_leader: *context.members.first().expect("a cluster has members"),
        pulse,
    };
    start(context, spec, machine, Arc::new(turns)).await
}

/// Opens a topic's group and starts it.
pub(crate) async fn open_topic<S: NodeStore>(
    context: &GroupContext<S>,
    name: TopicName,
    record: TopicRecord,
) -> Result<(RunningGroup<S::Log, TopicMachine>, TopicGroup), ConsensusError> {
    let (sender, events) = mpsc::unbounded_channel();
    let me = (context.identity.node, context.identity.incarnation);
    let pulse = Pulse::new(Arc::clone(&context.environment.clock));
    let leading = TopicLeading::new(sender.clone(), Arc::clone(&pulse));
    let (locations, channels) = (context.locations.clone(), context.channels.clone());
    let machine = TopicMachine::new(&record, me, Arc::clone(&leading), locations, channels);
    let turns = TopicTurns {
        me: context.identity,
        environment: context.environment.clone(),
        leading,
    };
    let group = record.group;
    let spec = GroupSpec {
        group,
        replicas: record.replicas,
        first_leader: record.first_leader,
        pulse,
    };
    let running = start(context, spec, machine, Arc::new(turns)).await?;
    let store = context.store.clone();
    let log = tokio::task::spawn_blocking(move || store.open_group(group))
        .await
        .map_err(|_| ConsensusError::Stopped)??;
    let log = Arc::new(GroupHandle {
        raft: running.raft.clone(),
        port: Arc::clone(&running.port),
        quorum: Arc::clone(&context.quorum),
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

/// What a group begins with.
struct GroupSpec {
    group: GroupId,
    replicas: Vec<NodeId>,
    first_leader: NodeId,
    pulse: Arc<Pulse>,
}

async fn start<S: NodeStore, M: Machine>(
    context: &GroupContext<S>,
    spec: GroupSpec,
    machine: M,
    turns: Arc<dyn Turns>,
) -> Result<RunningGroup<S::Log, M>, ConsensusError> {
    let GroupSpec {
        group,
        replicas,
        first_leader,
        pulse,
    } = spec;
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
    let applied_bytes = machine.applied_bytes();
    let state = log.state();
    let is_new = state.last.is_none() && state.last_purged.is_none();
    if is_new {
        write_genesis(&log, &replicas).await?;
    }
    let raft = Raft::build(
        context.identity.node.get(),
        Arc::clone(&context.config),
        PeerNetworkFactory {
            group,
            peers: context.peers.as_ref().map(|peers| peers.network.clone()),
        },
        RaftLog::new(log),
        machine,
    )
    .await
    .map_err(|error| ConsensusError::Quarantined {
        group: group.get(),
        what: error.to_string(),
    })?;
    raft.run();
    let replica: Arc<dyn Replica> = Arc::new(RaftReplica(raft.clone()));
    let (inbox, asked) = mpsc::unbounded_channel();
    let port = Arc::new(Port {
        group,
        first: is_new && first_leader == context.identity.node,
        replicas,
        replica: Arc::clone(&replica),
        pulse: Arc::clone(&pulse),
        followers: Followers::default(),
        inbox,
        depose: {
            let turns = Arc::clone(&turns);
            Box::new(move |term| turns.over(term))
        },
    });
    let spawn = &context.environment.spawn;
    if let Some(peers) = &context.peers {
        let serving = Serving {
            group,
            replica,
            answers: Answers {
                links: Arc::clone(&peers.links),
                group,
            },
            pulse,
        };
        spawn.spawn(Box::pin(serving.run(asked)));
    }
    context.ports.open(Arc::clone(&port));
    let (stop, stopped) = watch::channel(false);
    let keeper = Keeper {
        raft: raft.clone(),
        port: Arc::clone(&port),
        turns,
        quorum: Arc::clone(&context.quorum),
        elected: context.peers.as_ref().map(|peers| peers.elected.clone()),
        applied_bytes,
        led: None,
        started: None,
        purge: None,
    };
    spawn.spawn(Box::pin(keeper.run(reclaimed, stopped)));
    Ok(RunningGroup {
        raft,
        ports: context.ports.clone(),
        port,
        stop,
    })
}

/// The same first entry on every replica: the membership at index 0. `Raft::initialize` would start an election on every caller.
async fn write_genesis<L: GroupLog>(log: &L, replicas: &[NodeId]) -> Result<(), StorageError> {
    let voters: BTreeSet<u64> = replicas.iter().map(|node| node.get()).collect();
    let membership = Membership::new_with_defaults(vec![voters], []);
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

/// A purge that waits for replicas that need what it would take.
struct Purge {
    up_to: LogId,
    /// Bytes that had been applied when it became possible.
    since_bytes: u64,
}

/// Keeps a group going: announces this node's leadership in the log, tells of its end, and purges.
struct Keeper<L: GroupLog, M: Machine> {
    raft: Raft<RaftTypes, GroupStateMachine<L, M>>,
    port: Arc<Port>,
    turns: Arc<dyn Turns>,
    quorum: Arc<QuorumClock>,
    /// Where the other nodes hear of it; `None` if there are none.
    elected: Option<mpsc::UnboundedSender<Elected>>,
    applied_bytes: Arc<AtomicU64>,
    /// The term that this node leads in.
    led: Option<Term>,
    /// The term whose first entry is applied.
    started: Option<Term>,
    purge: Option<Purge>,
}

/// The first entry of a term, under way.
type Starting = BoxFuture<'static, (Term, Result<LogIndex, Refusal>)>;

impl<L: GroupLog, M: Machine> Keeper<L, M> {
    async fn run(mut self, mut reclaimed: watch::Receiver<Option<LogId>>, mut stopped: watch::Receiver<bool>) {
        // A single voter has nobody to wait for. With several the node's elections decide who campaigns.
        if self.port.replicas.len() == 1 && self.raft.trigger().elect(false).await.is_err() {
            return;
        }
        let mut metrics = self.raft.server_metrics();
        let mut starting: Option<Starting> = None;
        loop {
            self.follow_leadership();
            if starting.is_none() {
                starting = self.begin_term();
            }
            if self.purge_if_possible().await.is_err() {
                return;
            }
            let waiting = self.purge.is_some();
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() { return },
                changed = reclaimed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let since_bytes = self.applied_bytes.load(Ordering::Relaxed);
                    self.purge = reclaimed.borrow_and_update().map(|up_to| Purge { up_to, since_bytes });
                }
                (term, outcome) = async { starting.as_mut().expect("guarded").await }, if starting.is_some() => {
                    starting = None;
                    match outcome {
                        Ok(_) => {
                            self.started = Some(term);
                            self.tell(term);
                        }
                        Err(Refusal::LeaseExpired) => tokio::time::sleep(LEADER_START_RETRY).await,
                        // The term is over, or this node does not know yet that it is: metrics will change.
                        Err(Refusal::NotLeader) => self.started = Some(term),
                        Err(Refusal::Stopped) => return,
                    }
                }
                () = tokio::time::sleep(PURGE_RETRY), if waiting => {}
                _ = stopped.changed() => return,
            }
        }
    }

    fn follow_leadership(&mut self) {
        let leadership = self.port.replica.leadership();
        let leading = leadership.leading.then_some(leadership.term);
        if let Some(led) = self.led
            && leading != Some(led)
        {
            self.led = None;
            tracing::info!(
                group = self.port.group.get(),
                term = led.get(),
                "this node leads no more"
            );
            self.turns.over(led);
        }
        if let Some(leader) = leadership.leader {
            self.turns.leader_seen(LeaderLocation {
                term: leadership.term,
                node: leader,
            });
        }
        if let Some(term) = leading
            && self.led.is_none()
        {
            self.led = Some(term);
            self.port.pulse.elected();
            tracing::info!(
                group = self.port.group.get(),
                term = term.get(),
                "this node was elected"
            );
            metrics::counter!("nsquorum_elections_won_total").increment(1);
            self.tell(term);
        }
    }

    /// Tells the other nodes what this one leads; they hear it again with every heartbeat.
    fn tell(&self, term: Term) {
        if let Some(elected) = &self.elected {
            let led = Led {
                group: self.port.group,
                term,
                serves: self.port.pulse.serving() == Some(term),
            };
            _ = elected.send(Elected { led });
        }
    }

    /// Proposes the first entry of this node's term. Not awaited in place: openraft does not answer on a leader that was cut off.
    fn begin_term(&self) -> Option<Starting> {
        let term = self.led?;
        if self.started == Some(term) || self.turns.is_over(term) {
            return None;
        }
        let proposal = self.turns.leader_start(term)?;
        let raft = self.raft.clone();
        Some(Box::pin(async move {
            let (sender, receiver) = oneshot::channel();
            propose(&raft, term, proposal, move |result| _ = sender.send(result)).await;
            (term, receiver.await.unwrap_or(Err(Refusal::Stopped)))
        }))
    }

    /// Lets a log prefix go that a durable checkpoint covers, unless a live replica still copies it.
    async fn purge_if_possible(&mut self) -> Result<(), ()> {
        let Some(purge) = &self.purge else { return Ok(()) };
        let grown = self
            .applied_bytes
            .load(Ordering::Relaxed)
            .saturating_sub(purge.since_bytes);
        let needed = || {
            let lags = |(node, matched): (NodeId, Option<u64>)| {
                self.quorum.is_live(node) && matched.is_none_or(|matched| matched < purge.up_to.index.get())
            };
            self.port.replica.progress().matched.into_iter().any(lags)
        };
        if grown < PURGE_HELD_BYTES_MAX && needed() {
            return Ok(());
        }
        tracing::debug!(group = self.port.group.get(), up_to = ?purge.up_to, "purging");
        self.purge = None;
        self.raft.trigger().snapshot().await.map_err(|_| ())
    }
}

/// The log of a topic's group for its leader.
struct GroupHandle<L: GroupLog> {
    raft: Raft<RaftTypes, GroupStateMachine<L, TopicMachine>>,
    port: Arc<Port>,
    quorum: Arc<QuorumClock>,
    log: L,
    events: mpsc::UnboundedSender<TopicEvent>,
}

impl<L: GroupLog> TopicLog for GroupHandle<L> {
    fn propose(&self, term: Term, kind: EntryKind, buffer: BytesMut, ticket: u64) -> BoxFuture<'_, ()> {
        let events = self.events.clone();
        Box::pin(async move {
            prepare(&self.raft, &self.port).await;
            propose(&self.raft, term, Proposal { kind, buffer }, move |result| {
                if let Err(refusal) = result {
                    drop(events.send(TopicEvent::Refused { ticket, refusal }));
                }
            })
            .await;
        })
    }

    fn leads(&self, term: Term) -> bool {
        let pulse = &self.port.pulse;
        pulse.serving() == Some(term) && self.quorum.holds(&self.port.replicas, pulse.elected_at())
    }

    fn read_cached(&self, from: LogIndex, to: LogIndex, bytes_max: usize) -> Option<Vec<Entry>> {
        self.log.read_cached(from, to, bytes_max)
    }

    fn read(&self, from: LogIndex, to: LogIndex, bytes_max: usize) -> Result<Vec<Entry>, StorageError> {
        self.log.read(from, to, bytes_max)
    }
}
