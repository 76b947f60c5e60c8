//! What only links between processes show: how connections end, and who may connect.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "support/diary.rs"]
#[allow(dead_code, reason = "the other suite uses all of it")]
mod diary;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use diary::{Diary, Event, eventually};
use nsquorum_environment::Environment;
use nsquorum_links::{
    Class, ClusterSecret, Evidence, GrpcLinks, GrpcOptions, Lane, Links, PeerAddress, PeerIdentity, PeerState,
    Receiver, Rejection, SendError, Service,
};
use nsquorum_topic::{NodeId, NodeIncarnation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

const ONE: NodeId = NodeId::new(1);
const TWO: NodeId = NodeId::new(2);
const RAFT: Lane = Lane::new(Service::Raft, nsquorum_topic::GroupId::new(1));

struct Node {
    links: Arc<GrpcLinks>,
    diary: Arc<Diary>,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Node {
    /// A process that dies with all its sockets at once, like a killed one.
    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    fn state(&self, peer: NodeId) -> Option<PeerState> {
        self.links.peers().borrow().get(&peer).copied()
    }

    async fn until_up(&self, peer: NodeId) {
        eventually("link up", || self.state(peer)?.epoch()).await;
    }

    async fn until_down(&self, peer: NodeId, wanted: Evidence) {
        eventually(&format!("down: {wanted}"), || {
            matches!(self.state(peer), Some(PeerState::Down { evidence, .. }) if evidence == wanted).then_some(())
        })
        .await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn identity(node: NodeId) -> PeerIdentity {
    PeerIdentity {
        cluster: None,
        node,
        incarnation: NodeIncarnation::new(1),
    }
}

fn options() -> GrpcOptions {
    GrpcOptions {
        // No test here is about silence, and a busy machine must not look like it.
        silence_max: Duration::from_secs(20),
        ..GrpcOptions::default()
    }
}

fn bind() -> std::net::TcpListener {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap()
}

async fn start(node: NodeId, listener: std::net::TcpListener, options: GrpcOptions, peers: Vec<PeerAddress>) -> Node {
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let links = GrpcLinks::new(identity(node), options, Environment::system());
    let diary = Arc::new(Diary::default());
    links.register(Service::Raft, Arc::clone(&diary) as Arc<dyn Receiver>);
    links.set_peers(peers);
    let starting = Arc::clone(&links);
    runtime
        .spawn(async move { starting.start(TcpListener::from_std(listener).unwrap()) })
        .await
        .unwrap();
    Node {
        links,
        diary,
        address,
        runtime: Some(runtime),
    }
}

async fn two() -> (Node, Node) {
    let (first, second) = (bind(), bind());
    let address = |listener: &std::net::TcpListener| listener.local_addr().unwrap().to_string();
    // Every node gets the same list, its own address included.
    let seeds = vec![PeerAddress::seed(address(&first)), PeerAddress::seed(address(&second))];
    let one = start(ONE, first, options(), seeds.clone()).await;
    let two = start(TWO, second, options(), seeds).await;
    one.until_up(TWO).await;
    two.until_up(ONE).await;
    (one, two)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_is_refused() {
    let (one, mut two) = two().await;
    two.kill();
    one.until_down(TWO, Evidence::Refused).await;
    one.diary
        .until("the end of the incoming link", |events| {
            matches!(
                events.last(),
                Some(Event::Down(TWO, _, Evidence::Reset | Evidence::Closed))
            )
            .then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stops_says_goodbye() {
    let (one, two) = two().await;
    two.links.stop();
    let seen = eventually("down", || match one.state(TWO) {
        Some(PeerState::Down { evidence, last }) => Some((evidence, last)),
        _ => None,
    })
    .await;
    assert!(matches!(seen.0, Evidence::Closed | Evidence::Refused), "{seen:?}");
    assert_eq!(seen.1, Some(identity(TWO)));
    let evidence = one
        .diary
        .until("the end of the incoming link", |events| match events.last() {
            Some(Event::Down(TWO, _, evidence)) => Some(*evidence),
            _ => None,
        })
        .await;
    assert_eq!(evidence, Evidence::Closed);
}

/// A dying process still owns its listener: connections to it are reset, then refused. The refusal must be seen although it comes late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_after_a_link_broke_are_probed_until_the_refusal() {
    let (one, mut two) = two().await;
    let address = two.address;
    two.kill();
    // In its place: accepts and closes at once, for a while.
    let dying = eventually("the port is free", || std::net::TcpListener::bind(address).ok()).await;
    dying.set_nonblocking(true).unwrap();
    let dying = TcpListener::from_std(dying).unwrap();
    let mut probes = 0;
    while probes < 20 {
        drop(dying.accept().await.unwrap());
        probes += 1;
    }
    drop(dying);
    one.until_down(TWO, Evidence::Refused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_leads_here_is_left_alone() {
    let (one, two) = two().await;
    assert_eq!(one.state(ONE), None);
    assert_eq!(two.state(TWO), None);
    assert!(
        one.diary
            .events()
            .iter()
            .all(|event| matches!(event, Event::Up(peer, _) if peer.node == TWO))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_come_and_go_by_configuration() {
    let (one, two) = two().await;
    let address = two.address.to_string();
    let before = one.state(TWO);
    // Metadata names the node behind the seed: its link stays.
    one.links.set_peers(vec![PeerAddress::of(TWO, address.clone())]);
    assert_eq!(one.state(TWO), before);
    one.links.set_peers(Vec::new());
    eventually("forgotten", || one.state(TWO).is_none().then_some(())).await;
    let sent = one.links.try_send(TWO, RAFT, Class::Control, vec![1].into());
    assert_eq!(sent, Err(SendError::Down(TWO)));
    // The other direction is not this node's to end.
    two.links.send(ONE, RAFT, Class::Control, vec![2].into()).await.unwrap();
    one.diary.until_frames(RAFT, Class::Control, 1).await;

    one.links
        .set_peers(vec![PeerAddress::of(NodeId::new(7), address.clone())]);
    one.until_down(NodeId::new(7), Evidence::Rejected(Rejection::OtherNode))
        .await;
    one.links.set_peers(vec![PeerAddress::of(TWO, address)]);
    one.until_up(TWO).await;
    eventually("forgotten", || one.state(NodeId::new(7)).is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_at_two_addresses_has_one_link() {
    let listener = bind();
    let port = listener.local_addr().unwrap().port();
    let two = start(TWO, listener, options(), Vec::new()).await;
    let twice = vec![
        PeerAddress::seed(format!("127.0.0.1:{port}")),
        PeerAddress::seed(format!("localhost:{port}")),
    ];
    let one = start(ONE, bind(), options(), twice).await;
    one.until_up(TWO).await;
    let present = one.state(TWO);
    // Long enough for the other address to be tried several times.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(one.state(TWO), present, "the second address disturbed the first");
    let ups = two.diary.events().len();
    assert!(ups <= 3, "{ups} links and ends of links");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_secret_nothing_leaves_the_machine() {
    // Documentation addresses: nobody is there, and nobody must be asked.
    let peers = vec![PeerAddress::of(TWO, "192.0.2.1:4152")];
    let one = start(ONE, bind(), options(), peers).await;
    one.until_down(TWO, Evidence::Rejected(Rejection::SecretRequired)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_on_one_side_only_is_refused() {
    let with = GrpcOptions {
        secret: Some(ClusterSecret::new(b"known to one of them").unwrap()),
        ..options()
    };
    let two = start(TWO, bind(), with, Vec::new()).await;
    let peers = vec![PeerAddress::of(TWO, two.address.to_string())];
    let one = start(ONE, bind(), options(), peers).await;
    one.until_down(TWO, Evidence::Rejected(Rejection::WrongSecret)).await;
    assert!(two.diary.events().is_empty());
}

/// Whoever connects and does not prove anything is cut off, and what it said reaches nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_cut_off() {
    let options = GrpcOptions {
        handshake_timeout: Duration::from_millis(100),
        ..options()
    };
    let one = start(ONE, bind(), options, Vec::new()).await;
    for greeting in [
        &b""[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ] {
        let mut stranger = TcpStream::connect(one.address).await.unwrap();
        stranger.write_all(greeting).await.unwrap();
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stranger.read_to_end(&mut rest));
        // Closed or reset, as long as it is over.
        let _ = read.await.expect("the connection ended");
    }
    assert!(one.diary.events().is_empty());
}
