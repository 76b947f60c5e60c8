//! A group's replica on this node, as peers and the node's own elections see it: one object, whatever machine the group runs.

use std::sync::Arc;

use nsquorum_links::{Class, Lane, Links, PeerIdentity, Received, Service};
use nsquorum_storage::GroupLog;
use nsquorum_topic::{GroupId, NodeId, Term};
use openraft::async_runtime::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse};
use openraft::{Raft, ServerState};

use super::machine::Machine;
use super::state_machine::{GroupStateMachine, SnapshotBytes};
use super::types::RaftTypes;
use super::wire::{Answer, CallId, RaftLogId, SnapshotMeta, VoteOf};
use crate::elections::Progress;
use crate::group::BoxFuture;

/// What a replica believes about the leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leadership {
    /// The highest term seen.
    pub(crate) term: Term,
    /// Who won it, if anybody is known to have.
    pub(crate) leader: Option<NodeId>,
    /// Whether this replica leads in `term`.
    pub(crate) leading: bool,
    /// Whether this replica waits for votes.
    pub(crate) campaigning: bool,
}

/// A replica, without its types.
pub(crate) trait Replica: Send + Sync + 'static {
    fn leadership(&self) -> Leadership;
    /// How far each replica has the leader's log, if this one leads.
    fn progress(&self) -> Progress;
    fn append(
        &self,
        request: AppendEntriesRequest<RaftTypes>,
    ) -> BoxFuture<'static, Option<AppendEntriesResponse<RaftTypes>>>;
    fn vote(&self, request: VoteRequest<RaftTypes>) -> BoxFuture<'static, Option<VoteResponse<RaftTypes>>>;
    fn pre_vote(&self, request: VoteRequest<RaftTypes>) -> BoxFuture<'static, Option<VoteResponse<RaftTypes>>>;
    /// The answer to a pre-vote of a candidate whose leader this node still hears.
    fn refuse_vote(&self) -> VoteResponse<RaftTypes>;
    fn transfer(&self, request: TransferLeaderRequest<RaftTypes>) -> BoxFuture<'static, Option<bool>>;
    fn install(&self, vote: VoteOf, meta: SnapshotMeta, state: SnapshotBytes) -> BoxFuture<'static, Option<VoteOf>>;
    fn current_vote(&self) -> VoteOf;
    /// Asks for votes, if a majority would give them.
    fn campaign(&self) -> BoxFuture<'static, ()>;
    /// The leader's process is gone, by this node's own evidence: its lease binds this replica no more.
    fn release_lease(&self) -> BoxFuture<'static, ()>;
    /// Hands the leadership to another replica.
    fn hand_over(&self, to: NodeId) -> BoxFuture<'static, ()>;
    /// One heartbeat to every other replica, which renews the lease that openraft wants for writes.
    fn renew_lease(&self) -> BoxFuture<'static, ()>;
    /// A peer's link is up: what backs off from it tries again now.
    fn peer_is_back(&self, peer: NodeId) -> BoxFuture<'static, ()>;
    /// Calls back from the core's own task, which shows that it goes on.
    fn probe(&self, answered: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;
}

/// A replica with its types.
pub(crate) struct RaftReplica<L: GroupLog, M: Machine>(pub(crate) Raft<RaftTypes, GroupStateMachine<L, M>>);

impl<L: GroupLog, M: Machine> Replica for RaftReplica<L, M> {
    fn leadership(&self) -> Leadership {
        let metrics = self.0.server_metrics();
        let metrics = metrics.borrow_watched();
        let id = metrics.vote.leader_id();
        let committed = metrics.vote.is_committed();
        Leadership {
            term: Term::new(id.term),
            leader: committed.then(|| NodeId::new(id.voted_for)),
            leading: committed && metrics.state == ServerState::Leader,
            campaigning: metrics.state == ServerState::Candidate,
        }
    }

    fn progress(&self) -> Progress {
        let metrics = self.0.data_metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.iter().flatten();
        Progress {
            last: metrics.last_log.as_ref().map(RaftLogId::index),
            matched: matched
                .map(|(node, matched): (&u64, &Option<RaftLogId>)| {
                    (NodeId::new(*node), matched.as_ref().map(RaftLogId::index))
                })
                .collect(),
        }
    }

    fn append(
        &self,
        request: AppendEntriesRequest<RaftTypes>,
    ) -> BoxFuture<'static, Option<AppendEntriesResponse<RaftTypes>>> {
        let raft = self.0.clone();
        Box::pin(async move { raft.append_entries(request).await.ok() })
    }

    fn vote(&self, request: VoteRequest<RaftTypes>) -> BoxFuture<'static, Option<VoteResponse<RaftTypes>>> {
        let raft = self.0.clone();
        Box::pin(async move { raft.vote(request).await.ok() })
    }

    fn pre_vote(&self, request: VoteRequest<RaftTypes>) -> BoxFuture<'static, Option<VoteResponse<RaftTypes>>> {
        let raft = self.0.clone();
        Box::pin(async move { raft.pre_vote(request).await.ok() })
    }

    fn refuse_vote(&self) -> VoteResponse<RaftTypes> {
        VoteResponse::new(self.current_vote(), None, false)
    }

    fn transfer(&self, request: TransferLeaderRequest<RaftTypes>) -> BoxFuture<'static, Option<bool>> {
        let raft = self.0.clone();
        Box::pin(async move {
            let expected = request.last_log_id().copied();
            let again = TransferLeaderRequest::new(*request.from_leader(), *request.to_node_id(), None);
            if raft.handle_transfer_leader(request).await.ok()?.is_ok() {
                return Some(true);
            }
            let metrics = raft.data_metrics();
            let last = metrics.borrow_watched().last_log;
            if last < expected {
                return Some(false);
            }
            // Openraft waits until everything is flushed, and counts only what was flushed since the process started: a replica that has just
            // started has flushed nothing, and would refuse for ever where nothing new is written. What it has, it may campaign with.
            Some(raft.handle_transfer_leader(again).await.ok()?.is_ok())
        })
    }

    fn install(&self, vote: VoteOf, meta: SnapshotMeta, state: SnapshotBytes) -> BoxFuture<'static, Option<VoteOf>> {
        let raft = self.0.clone();
        Box::pin(async move {
            let snapshot = openraft::alias::SnapshotOf::<RaftTypes, SnapshotBytes> { meta, snapshot: state };
            raft.install_full_snapshot(vote, snapshot)
                .await
                .ok()
                .map(|answer| answer.vote)
        })
    }

    fn current_vote(&self) -> VoteOf {
        self.0.server_metrics().borrow_watched().vote
    }

    fn campaign(&self) -> BoxFuture<'static, ()> {
        let raft = self.0.clone();
        Box::pin(async move { drop(raft.trigger().elect(true).await) })
    }

    fn release_lease(&self) -> BoxFuture<'static, ()> {
        let raft = self.0.clone();
        let vote = self.current_vote();
        Box::pin(async move {
            if !vote.is_committed() {
                return;
            }
            // To the dead leader itself: naming this node would send votes that override the lease on *other* nodes, and
            // nobody gives up a lease on another node's word.
            let request = TransferLeaderRequest::new(vote, vote.leader_id().voted_for, None);
            drop(raft.handle_transfer_leader(request).await);
        })
    }

    fn hand_over(&self, to: NodeId) -> BoxFuture<'static, ()> {
        let raft = self.0.clone();
        Box::pin(async move { drop(raft.trigger().transfer_leader(to.get()).await) })
    }

    fn renew_lease(&self) -> BoxFuture<'static, ()> {
        let raft = self.0.clone();
        Box::pin(async move { drop(raft.trigger().heartbeat().await) })
    }

    fn peer_is_back(&self, peer: NodeId) -> BoxFuture<'static, ()> {
        let raft = self.0.clone();
        Box::pin(async move { drop(raft.trigger().reset_backoff([peer.get()]).await) })
    }

    fn probe(&self, answered: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let raft = self.0.clone();
        Box::pin(async move { drop(raft.external_request(move |_| answered()).await) })
    }
}

/// A request from a peer for one group.
pub(crate) struct Asked {
    pub(crate) from: PeerIdentity,
    pub(crate) frame: Received,
}

/// Sends answers. They are small and their class waits for nothing; one that finds no room waits without holding up others.
#[derive(Clone)]
pub(crate) struct Answers {
    pub(crate) links: Arc<dyn Links>,
    pub(crate) group: GroupId,
}

impl Answers {
    /// Whoever asked hears it, unless a link ended meanwhile: then the call has failed there already.
    pub(crate) async fn send(&self, to: NodeId, call: CallId, answer: &Answer) {
        let lane = Lane::new(Service::Raft, self.group);
        _ = self.links.send(to, lane, Class::Control, answer.encode(call)).await;
    }
}
