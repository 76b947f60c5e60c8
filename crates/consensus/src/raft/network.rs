//! openraft's network over the peer links.
//!
//! Entries are pipelined: the stream of requests is driven inside the poll of the stream of answers, with no task in between, and up to
//! [`APPENDS_UNDER_WAY_MAX`] requests are on their way before the first answer. Two rules come from measurements: the input is polled
//! before anything fails, because openraft's back-off lives inside it (failing without polling spun at 161 % CPU); and heartbeats go as
//! control frames, which never wait behind entries, because a leader's lease hangs on their answers.
//!
//! A request without entries only tells followers how far the log is committed, and the next entries tell the same. It waits for
//! them up to [`NOTICE_HELD_MAX`]: a lone publisher would otherwise cost each follower two requests a message instead of one.
//!
//! A cluster of one has no peers: every call fails as unreachable, and none is ever made while a group has a single voter.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use nsquorum_links::Class;
use nsquorum_topic::{GroupId, NodeId};
use openraft::entry::RaftEntry;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory};
use tokio::sync::Semaphore;
use tokio::time::Sleep;

use super::calls::{Call, Calls};
use super::state_machine::SnapshotBytes;
use super::types::RaftTypes;
use super::wire::{Answer, RaftLogId, Request, SnapshotPart};

type SnapshotOf = openraft::alias::SnapshotOf<RaftTypes, SnapshotBytes>;
type VoteOf = openraft::alias::VoteOf<RaftTypes>;
type AppendItem = Result<StreamAppendResult<RaftTypes>, RPCError<RaftTypes>>;
pub(super) type AppendStream<'s> = futures_util::stream::BoxStream<'s, AppendItem>;

/// Append requests of one stream that wait for their answers. With requests of 1 MiB the lane's credit is used up earlier.
const APPENDS_UNDER_WAY_MAX: usize = 64;
/// A snapshot's state travels in pieces of this size, so that the receiver's credit bounds what is under way.
const SNAPSHOT_PART_BYTES: usize = 1 << 20;
/// How long news of a topic's commit wait for entries to go with. Nobody waits for them: publishers are answered by the leader, and a follower that
/// becomes the leader learns what is committed by committing its own first entry.
pub(super) const NOTICE_HELD_MAX: Duration = Duration::from_micros(1_500);
/// How long to wait before an unreachable peer is tried again. A link that comes up ends the wait.
const BACKOFF: Duration = Duration::from_millis(200);

/// The peers of this node's groups.
#[derive(Clone)]
pub(crate) struct Peers {
    pub(crate) calls: Arc<Calls>,
    /// Snapshots under way, over all groups: a node that comes back would otherwise be sent one for every topic at once.
    pub(crate) snapshots: Arc<Semaphore>,
}

/// Makes openraft's clients for one group.
pub(crate) struct PeerNetworkFactory {
    pub(crate) group: GroupId,
    pub(crate) peers: Option<Peers>,
}

impl PeerNetworkFactory {
    fn client(&self, target: u64, append_class: Class) -> PeerNetwork {
        PeerNetwork {
            group: self.group,
            target: NodeId::new(target),
            append_class,
            peers: self.peers.clone(),
        }
    }
}

impl RaftNetworkFactory<RaftTypes> for PeerNetworkFactory {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: u64, _node: &()) -> PeerNetwork {
        self.client(target, Class::Bulk)
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &()) -> PeerNetwork {
        self.client(target, Class::Control)
    }
}

/// One group's way to one peer.
pub(crate) struct PeerNetwork {
    group: GroupId,
    target: NodeId,
    append_class: Class,
    peers: Option<Peers>,
}

fn unreachable(error: &(impl std::error::Error + 'static)) -> Unreachable<RaftTypes> {
    Unreachable::new(error)
}

fn alone() -> Unreachable<RaftTypes> {
    unreachable(&io::Error::new(
        io::ErrorKind::NotConnected,
        "this node is a cluster of one",
    ))
}

fn mismatch() -> Unreachable<RaftTypes> {
    unreachable(&io::Error::new(
        io::ErrorKind::InvalidData,
        "the peer answered something else",
    ))
}

fn too_late() -> Unreachable<RaftTypes> {
    unreachable(&io::Error::new(
        io::ErrorKind::TimedOut,
        "the peer did not answer in time",
    ))
}

impl PeerNetwork {
    fn call(&self, class: Class, request: Request) -> Result<Call, Unreachable<RaftTypes>> {
        let peers = self.peers.as_ref().ok_or_else(alone)?;
        Ok(peers.calls.call(self.target, self.group, class, request))
    }

    async fn ask(&self, request: Request, option: &RPCOption) -> Result<Answer, RPCError<RaftTypes>> {
        let call = self.call(Class::Control, request)?;
        match tokio::time::timeout(option.hard_ttl(), call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(unreachable(&error).into()),
            Err(_) => Err(too_late().into()),
        }
    }

    async fn send_snapshot(
        &self,
        vote: VoteOf,
        snapshot: SnapshotOf,
    ) -> Result<SnapshotResponse<RaftTypes>, StreamingError<RaftTypes>> {
        let peers = self.peers.as_ref().ok_or_else(alone)?;
        let _turn = peers.snapshots.acquire().await.expect("the semaphore is never closed");
        let state: Bytes = snapshot.snapshot.0;
        metrics::counter!("nsquorum_snapshots_sent_total").increment(1);
        metrics::counter!("nsquorum_snapshot_bytes_sent_total").increment(state.len() as u64);
        let mut offset = 0;
        loop {
            let end = state.len().min(offset + SNAPSHOT_PART_BYTES);
            let part = Request::Snapshot(SnapshotPart {
                vote,
                meta: snapshot.meta.clone(),
                total: state.len() as u64,
                offset: offset as u64,
                bytes: state.slice(offset..end),
            });
            // One part at a time: a snapshot is the exception, and must not push entries of other groups aside.
            let answer = self
                .call(Class::Bulk, part)?
                .await
                .map_err(|error| unreachable(&error))?;
            let Answer::Snapshot(vote) = answer else {
                return Err(mismatch().into());
            };
            if end == state.len() {
                return Ok(SnapshotResponse::new(vote));
            }
            offset = end;
        }
    }
}

impl RaftNetworkV2<RaftTypes> for PeerNetwork {
    type SnapshotData = SnapshotBytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<RaftTypes>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<RaftTypes>, RPCError<RaftTypes>> {
        let call = self.call(self.append_class, Request::Append(rpc))?;
        match tokio::time::timeout(option.hard_ttl(), call).await {
            Ok(Ok(Answer::Append(answer))) => Ok(answer),
            Ok(Ok(_)) => Err(mismatch().into()),
            Ok(Err(error)) => Err(unreachable(&error).into()),
            Err(_) => Err(too_late().into()),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        _option: RPCOption,
    ) -> futures_util::future::BoxFuture<'s, Result<AppendStream<'s>, RPCError<RaftTypes>>>
    where
        S: Stream<Item = AppendEntriesRequest<RaftTypes>> + OptionalSend + Unpin + 'static,
    {
        async move {
            if self.peers.is_none() {
                input.next().await;
                return Err(alone().into());
            }
            let stream = Appends {
                network: self,
                input: Some(input),
                under_way: VecDeque::new(),
                agreed: false,
                held: None,
            };
            Ok(stream.boxed())
        }
        .boxed()
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<RaftTypes>,
        option: RPCOption,
    ) -> Result<VoteResponse<RaftTypes>, RPCError<RaftTypes>> {
        match self.ask(Request::Vote(rpc), &option).await? {
            Answer::Vote(answer) => Ok(answer),
            _ => Err(mismatch().into()),
        }
    }

    /// openraft's default grants; granting for a peer that nobody asked would elect on nobody's word.
    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<RaftTypes>,
        option: RPCOption,
    ) -> Result<VoteResponse<RaftTypes>, RPCError<RaftTypes>> {
        match self.ask(Request::PreVote(rpc), &option).await? {
            Answer::Vote(answer) => Ok(answer),
            _ => Err(mismatch().into()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf,
        snapshot: SnapshotOf,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<RaftTypes>, StreamingError<RaftTypes>> {
        tokio::select! {
            sent = self.send_snapshot(vote, snapshot) => sent,
            closed = cancel => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<RaftTypes>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<RaftTypes>, RPCError<RaftTypes>> {
        match self.ask(Request::Transfer(req), &option).await? {
            Answer::Transfer { accepted: true } => Ok(Ok(())),
            Answer::Transfer { accepted: false } => Ok(Err(TransferLeaderError::LogNotFlushed {
                expected: None,
                actual: None,
            })),
            _ => Err(mismatch().into()),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(BACKOFF)))
    }
}

/// An append under way, with what its answer means.
struct UnderWay {
    call: Call,
    previous: Option<RaftLogId>,
    last: Option<RaftLogId>,
}

/// The answers to a stream of appends. Polling it drives the requests.
struct Appends<'s, S> {
    network: &'s mut PeerNetwork,
    /// `None` when it has ended, or after an answer with which the stream ends.
    input: Option<S>,
    under_way: VecDeque<UnderWay>,
    /// Whether the peer has accepted a request of this stream: before that an empty request is a question, not a notice.
    agreed: bool,
    held: Option<Held>,
}

/// News of a commit that wait for entries.
struct Held {
    request: AppendEntriesRequest<RaftTypes>,
    until: Pin<Box<Sleep>>,
}

impl<S> Appends<'_, S>
where
    S: Stream<Item = AppendEntriesRequest<RaftTypes>> + Unpin,
{
    /// Sends what there is, as long as the last request found room.
    fn drive(&mut self, cx: &mut Context<'_>) {
        loop {
            if let Some(last) = self.under_way.back_mut() {
                // A failure comes up when this call's turn to be answered comes.
                if last.call.poll_sent(cx).is_pending() {
                    return;
                }
            }
            if self.under_way.len() >= APPENDS_UNDER_WAY_MAX {
                return;
            }
            let polled = match &mut self.input {
                Some(input) => input.poll_next_unpin(cx),
                None => Poll::Ready(None),
            };
            match polled {
                Poll::Ready(Some(request)) if self.may_wait(&request) => {
                    let until = self.held.take().map_or_else(
                        || Box::pin(tokio::time::sleep(NOTICE_HELD_MAX)),
                        |earlier| earlier.until,
                    );
                    self.held = Some(Held { request, until });
                }
                Poll::Ready(Some(request)) => {
                    // It tells of every commit that the held one does.
                    self.held = None;
                    self.send(request);
                }
                Poll::Ready(None) => {
                    self.input = None;
                    match self.held.take() {
                        Some(held) => self.send(held.request),
                        None => return,
                    }
                }
                Poll::Pending => {
                    if let Some(held) = &mut self.held
                        && held.until.as_mut().poll(cx).is_pending()
                    {
                        return;
                    }
                    match self.held.take() {
                        Some(held) => self.send(held.request),
                        None => return,
                    }
                }
            }
        }
    }

    /// Whether a request only tells of a commit that nobody waits for. What is decided in the metadata group every node acts upon.
    fn may_wait(&self, request: &AppendEntriesRequest<RaftTypes>) -> bool {
        self.agreed && request.entries.is_empty() && self.network.group != GroupId::METADATA
    }

    fn send(&mut self, request: AppendEntriesRequest<RaftTypes>) {
        let previous = request.prev_log_id;
        let last = request.entries.last().map(RaftEntry::log_id).or(previous);
        let class = self.network.append_class;
        match self.network.call(class, Request::Append(request)) {
            Ok(call) => self.under_way.push_back(UnderWay { call, previous, last }),
            Err(_) => self.input = None,
        }
    }
}

impl<S> Stream for Appends<'_, S>
where
    S: Stream<Item = AppendEntriesRequest<RaftTypes>> + Unpin,
{
    type Item = AppendItem;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<AppendItem>> {
        let this = self.get_mut();
        this.drive(cx);
        let Some(first) = this.under_way.front_mut() else {
            return match this.input {
                None => Poll::Ready(None),
                Some(_) => Poll::Pending,
            };
        };
        let Poll::Ready(answer) = first.call.poll_unpin(cx) else {
            return Poll::Pending;
        };
        let under_way = this.under_way.pop_front().expect("looked at above");
        let item = match answer {
            Ok(Answer::Append(answer)) => Ok(answer.into_stream_result(under_way.previous, under_way.last)),
            Ok(_) => Err(mismatch().into()),
            Err(error) => Err(unreachable(&error).into()),
        };
        if matches!(item, Ok(Ok(_))) {
            this.agreed = true;
        } else {
            // What follows was sent on the assumption that this one succeeds.
            this.input = None;
            this.held = None;
            this.under_way.clear();
        }
        Poll::Ready(Some(item))
    }
}
