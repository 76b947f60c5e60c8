//! What a stream of appends sends, and when.
#![allow(
    clippy::disallowed_methods,
    reason = "the runtime's own clock stands still here and goes on when all wait"
)]

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::{StreamExt, stream};
use nsquorum_environment::Environment;
use nsquorum_links::{
    Class, Evidence, Lane, LinkEpoch, Links, MemoryLinks, MemoryMesh, MeshOptions, PeerIdentity, Received, Receiver,
    Service,
};
use nsquorum_storage::{ENTRY_HEADER_BYTES, Entry, EntryKind};
use nsquorum_topic::{ClusterId, GroupId, LogIndex, NodeId, NodeIncarnation, Term};
use openraft::network::RPCOption;
use openraft::network::v2::RaftNetworkV2;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::vote::RaftVote;
use openraft::vote::leader_id_std::{CommittedLeaderId, LeaderId};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::calls::Calls;
use super::log_entry::LogEntry;
use super::network::{AppendStream, NOTICE_HELD_MAX, PeerNetwork, PeerNetworkFactory, Peers};
use super::types::RaftTypes;
use super::wire::{Answer, RaftLogId, Request, VoteOf, call_of};

const TOPIC: GroupId = GroupId::new(7);
const TERM: u64 = 3;

/// What the peer saw of a request: how many entries, and how far the log is committed.
type Seen = (usize, Option<u64>);

/// Accepts every append.
struct Follower {
    links: Arc<MemoryLinks>,
    seen: mpsc::UnboundedSender<Seen>,
}

impl Receiver for Follower {
    fn up(&self, _peer: PeerIdentity, _epoch: LinkEpoch) {}

    fn frame(&self, from: PeerIdentity, _epoch: LinkEpoch, lane: Lane, frame: Received) {
        let Ok(Request::Append(request)) = Request::decode(&frame, lane.group) else {
            panic!("only appends are sent here");
        };
        let commit = request.leader_commit.map(|commit| commit.index());
        self.seen.send((request.entries.len(), commit)).unwrap();
        let answer = Answer::Append(AppendEntriesResponse::Success).encode(call_of(&frame).unwrap());
        self.links.try_send(from.node, lane, Class::Control, answer).unwrap();
    }

    fn down(&self, _node: NodeId, _epoch: LinkEpoch, _evidence: Evidence) {}
}

/// Gives answers to whoever waits.
struct Leader(Arc<Calls>);

impl Receiver for Leader {
    fn up(&self, _peer: PeerIdentity, _epoch: LinkEpoch) {}

    fn frame(&self, from: PeerIdentity, _epoch: LinkEpoch, _lane: Lane, frame: Received) {
        let (call, answer) = Answer::decode(&frame).unwrap();
        self.0.answered(from.node, call, answer);
    }

    fn down(&self, _node: NodeId, _epoch: LinkEpoch, _evidence: Evidence) {}
}

fn log_id(index: u64) -> RaftLogId {
    RaftLogId::new(CommittedLeaderId::new(TERM), index)
}

/// A request with the entry `index`, or with none.
fn append(entry: Option<u64>, previous: u64, commit: u64) -> AppendEntriesRequest<RaftTypes> {
    let entry = entry.map(|index| {
        let room = BytesMut::zeroed(ENTRY_HEADER_BYTES);
        let entry = Entry::seal(room, EntryKind::Blank, TOPIC, Term::new(TERM), LogIndex::new(index));
        LogEntry::stored(entry).unwrap()
    });
    AppendEntriesRequest {
        vote: VoteOf::from_leader_id(
            LeaderId {
                term: TERM,
                voted_for: 1,
            },
            true,
        ),
        prev_log_id: Some(log_id(previous)),
        leader_commit: Some(log_id(commit)),
        entries: entry.into_iter().collect(),
    }
}

struct Pair {
    seen: mpsc::UnboundedReceiver<Seen>,
    _mesh: MemoryMesh,
    _links: [Arc<MemoryLinks>; 2],
}

/// A leader's way to its follower, and what that sees.
async fn pair(group: GroupId) -> (Pair, PeerNetwork) {
    let mesh = MemoryMesh::new(MeshOptions::default());
    let join = |node| {
        mesh.join(PeerIdentity {
            cluster: Some(ClusterId::new([1; 16])),
            node: NodeId::new(node),
            incarnation: NodeIncarnation::new(1),
        })
    };
    let (leader, follower) = (join(1), join(2));
    let (sender, seen) = mpsc::unbounded_channel();
    let calls = Calls::new(Arc::clone(&leader) as Arc<dyn Links>);
    leader.register(Service::Raft, Arc::new(Leader(Arc::clone(&calls))));
    let links = Arc::clone(&follower);
    follower.register(Service::Raft, Arc::new(Follower { links, seen: sender }));
    leader.start();
    follower.start();
    mesh.run(&Environment::system());
    let mut factory = PeerNetworkFactory {
        group,
        peers: Some(Peers {
            calls,
            snapshots: Arc::new(tokio::sync::Semaphore::new(1)),
        }),
    };
    let network = openraft::RaftNetworkFactory::new_client(&mut factory, 2, &()).await;
    tokio::task::yield_now().await;
    let pair = Pair {
        seen,
        _mesh: mesh,
        _links: [leader, follower],
    };
    (pair, network)
}

/// What the leader wants to send, and the answers to it.
async fn appending(
    network: &mut PeerNetwork,
) -> (mpsc::UnboundedSender<AppendEntriesRequest<RaftTypes>>, AppendStream<'_>) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let requests = stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let option = RPCOption::new(Duration::from_millis(200));
    (sender, network.stream_append(requests, option).await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn news_of_a_commit_wait_for_entries_to_go_with() {
    let (mut pair, mut network) = pair(TOPIC).await;
    let (sender, mut answers) = appending(&mut network).await;

    // The first request asks whether the logs agree, and somebody waits for the answer.
    let begun = Instant::now();
    sender.send(append(None, 4, 4)).unwrap();
    assert!(matches!(answers.next().await, Some(Ok(Ok(_)))));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(pair.seen.recv().await, Some((0, Some(4))));

    // The news of entry 5 travel with entry 6.
    sender.send(append(Some(5), 4, 4)).unwrap();
    assert!(matches!(answers.next().await, Some(Ok(Ok(_)))));
    sender.send(append(None, 5, 5)).unwrap();
    assert!(matches!(futures_util::poll!(answers.next()), Poll::Pending));
    sender.send(append(Some(6), 5, 5)).unwrap();
    let accepted = answers.next().await;
    assert!(matches!(accepted, Some(Ok(Ok(Some(last)))) if last.index() == 6));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(pair.seen.recv().await, Some((1, Some(4))));
    assert_eq!(pair.seen.recv().await, Some((1, Some(5))));

    // Nothing follows: the news go alone, and the newest are enough.
    sender.send(append(None, 6, 5)).unwrap();
    assert!(matches!(futures_util::poll!(answers.next()), Poll::Pending));
    sender.send(append(None, 6, 6)).unwrap();
    assert!(matches!(answers.next().await, Some(Ok(Ok(_)))));
    assert!(begun.elapsed() >= NOTICE_HELD_MAX, "they waited");
    assert!(begun.elapsed() < 3 * NOTICE_HELD_MAX, "not for long");
    assert_eq!(pair.seen.recv().await, Some((0, Some(6))));

    // The stream ends: what is held goes first.
    sender.send(append(None, 6, 6)).unwrap();
    drop(sender);
    assert!(matches!(answers.next().await, Some(Ok(Ok(_)))));
    assert!(answers.next().await.is_none());
    assert_eq!(pair.seen.recv().await, Some((0, Some(6))));
}

#[tokio::test(start_paused = true)]
async fn news_of_metadata_never_wait() {
    let (mut pair, mut network) = pair(GroupId::METADATA).await;
    let (sender, mut answers) = appending(&mut network).await;
    let begun = Instant::now();
    for commit in 4..6 {
        sender.send(append(None, 5, commit)).unwrap();
        assert!(matches!(answers.next().await, Some(Ok(Ok(_)))));
        assert_eq!(pair.seen.recv().await, Some((0, Some(commit))));
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
