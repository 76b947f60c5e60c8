//! Nodes and the wires between them, in memory and over sockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nsquorum_environment::Environment;
use nsquorum_links::{
    Class, ClassLimits, ClusterId, ClusterSecret, GrpcLinks, GrpcOptions, Lane, Limits, LinkEpoch, Links, MemoryMesh,
    MeshOptions, PeerAddress, PeerIdentity, PeerState, Receiver, Service,
};
use nsquorum_topic::{GroupId, NodeId, NodeIncarnation};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::diary::{Diary, eventually};
use crate::proxy::Proxy;

pub(crate) const SECRET: &str = "what all nodes of a test know";

pub(crate) fn id(node: u64) -> NodeId {
    NodeId::new(node)
}

pub(crate) fn lane(group: u64) -> Lane {
    Lane::new(Service::Raft, GroupId::new(group))
}

/// How a node presents itself.
#[derive(Clone, Debug)]
pub(crate) struct As {
    pub(crate) node: u64,
    pub(crate) incarnation: u64,
    pub(crate) cluster: Option<u8>,
    pub(crate) secret: &'static str,
}

impl As {
    pub(crate) fn node(node: u64) -> Self {
        Self {
            node,
            incarnation: 1,
            cluster: Some(1),
            secret: SECRET,
        }
    }

    pub(crate) fn identity(&self) -> PeerIdentity {
        PeerIdentity {
            cluster: self.cluster.map(cluster),
            node: id(self.node),
            incarnation: NodeIncarnation::new(self.incarnation),
        }
    }
}

pub(crate) fn cluster(number: u8) -> ClusterId {
    ClusterId::new([number; 16])
}

pub(crate) fn limits() -> Limits {
    Limits {
        control: ClassLimits {
            lane_credit_bytes: 64 << 10,
            queued_bytes_max: 1 << 20,
        },
        bulk: ClassLimits {
            lane_credit_bytes: 256 << 10,
            queued_bytes_max: 64 << 20,
        },
        frame_bytes_max: 5 << 20,
        chunk_bytes: 4 << 10,
    }
}

pub(crate) struct Node {
    pub(crate) links: Arc<dyn Links>,
    pub(crate) diary: Arc<Diary>,
}

impl Node {
    fn new(links: Arc<dyn Links>) -> Self {
        let diary = Arc::new(Diary::default());
        links.register(Service::Raft, Arc::clone(&diary) as Arc<dyn Receiver>);
        Self { links, diary }
    }

    pub(crate) fn state(&self, peer: u64) -> Option<PeerState> {
        self.links.peers().borrow().get(&id(peer)).copied()
    }

    pub(crate) async fn until_state<R>(&self, peer: u64, what: &str, found: impl Fn(PeerState) -> Option<R>) -> R {
        eventually(what, || self.state(peer).and_then(&found)).await
    }

    pub(crate) async fn until_up(&self, peer: u64) -> LinkEpoch {
        self.until_state(peer, "link up", |state| state.epoch()).await
    }

    /// Fills a lane until it takes no more; returns how many frames it took.
    pub(crate) async fn fill(&self, to: u64, lane: Lane, class: Class, frame: &[u8]) -> usize {
        let mut sent = 0;
        while self.links.try_send(id(to), lane, class, frame.to_vec().into()).is_ok() {
            sent += 1;
            tokio::task::yield_now().await;
        }
        sent
    }
}

/// Up to three nodes.
pub(crate) enum Network {
    Memory(MemoryMesh),
    Sockets(Sockets),
}

impl Network {
    pub(crate) async fn memory() -> Self {
        let mesh = MemoryMesh::new(MeshOptions {
            limits: limits(),
            ..MeshOptions::default()
        });
        mesh.run(&Environment::system());
        Self::Memory(mesh)
    }

    pub(crate) async fn sockets() -> Self {
        Self::Sockets(Sockets::new().await)
    }

    /// Starts a node; one of the same number that runs is killed before.
    pub(crate) async fn start(&mut self, who: As) -> Node {
        match self {
            Self::Memory(mesh) => {
                let links = mesh.join_with_secret(who.identity(), who.secret);
                let node = Node::new(Arc::clone(&links) as Arc<dyn Links>);
                links.start();
                node
            }
            Self::Sockets(sockets) => sockets.start(who).await,
        }
    }

    /// Two nodes with links both ways.
    pub(crate) async fn two(&mut self) -> (Node, Node) {
        let one = self.start(As::node(1)).await;
        let two = self.start(As::node(2)).await;
        one.until_up(2).await;
        two.until_up(1).await;
        (one, two)
    }

    pub(crate) fn kill(&mut self, node: u64) {
        match self {
            Self::Memory(mesh) => mesh.kill(id(node)),
            Self::Sockets(sockets) => sockets.kill(node),
        }
    }

    /// Breaks the connection that `from` dialled to `to`.
    pub(crate) fn break_link(&self, from: u64, to: u64) {
        match self {
            Self::Memory(mesh) => mesh.break_link(id(from), id(to)),
            Self::Sockets(sockets) => sockets.wires[&(from, to)].cut(),
        }
    }

    /// Stops what is on its way from `from` to `to`, for less time than silence may last.
    pub(crate) fn stall(&self, from: u64, to: u64) {
        match self {
            Self::Memory(mesh) => mesh.hold(id(from), id(to), None),
            Self::Sockets(sockets) => sockets.wires[&(from, to)].stop(true),
        }
    }

    pub(crate) fn flow(&self, from: u64, to: u64) {
        match self {
            Self::Memory(mesh) => mesh.release(id(from), id(to), None),
            Self::Sockets(sockets) => sockets.wires[&(from, to)].stop(false),
        }
    }

    /// Nothing passes between two nodes until healed; they notice.
    pub(crate) fn cut(&self, a: u64, b: u64) {
        match self {
            Self::Memory(mesh) => mesh.cut(id(a), id(b)),
            Self::Sockets(sockets) => {
                sockets.wires[&(a, b)].stop(true);
                sockets.wires[&(b, a)].stop(true);
            }
        }
    }

    pub(crate) fn heal(&self, a: u64, b: u64) {
        match self {
            Self::Memory(mesh) => mesh.heal(id(a), id(b)),
            Self::Sockets(sockets) => {
                sockets.wires[&(a, b)].stop(false);
                sockets.wires[&(b, a)].stop(false);
            }
        }
    }
}

const NODES: std::ops::RangeInclusive<u64> = 1..=3;

/// Nodes with a runtime each, so that they can be killed, and a wire for each direction of dialling.
pub(crate) struct Sockets {
    ports: BTreeMap<u64, u16>,
    first: BTreeMap<u64, std::net::TcpListener>,
    wires: BTreeMap<(u64, u64), Proxy>,
    runtimes: BTreeMap<u64, Runtime>,
}

impl Sockets {
    async fn new() -> Self {
        let mut sockets = Self {
            ports: BTreeMap::new(),
            first: BTreeMap::new(),
            wires: BTreeMap::new(),
            runtimes: BTreeMap::new(),
        };
        for node in NODES {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            sockets.ports.insert(node, listener.local_addr().unwrap().port());
            sockets.first.insert(node, listener);
        }
        for from in NODES {
            for to in NODES {
                if from != to {
                    let proxy = Proxy::new(([127, 0, 0, 1], sockets.ports[&to]).into()).await;
                    sockets.wires.insert((from, to), proxy);
                }
            }
        }
        sockets
    }

    async fn start(&mut self, who: As) -> Node {
        self.kill(who.node);
        let port = self.ports[&who.node];
        let listener = match self.first.remove(&who.node) {
            Some(listener) => listener,
            None => {
                eventually("the port is free again", || {
                    // As tokio does: connections of the killed node may linger.
                    let socket = std::net::TcpListener::bind(("127.0.0.1", port));
                    socket.ok()
                })
                .await
            }
        };
        listener.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let options = GrpcOptions {
            limits: limits(),
            secret: Some(ClusterSecret::new(who.secret.as_bytes()).unwrap()),
            // Long: a test that stalls a wire on a busy machine must not be taken for silence.
            silence_max: Duration::from_secs(5),
            ..GrpcOptions::default()
        };
        let links = GrpcLinks::new(who.identity(), options, Environment::system());
        let peers = NODES.filter(|node| *node != who.node);
        // Each node knows one peer by name and another by its address only.
        links.set_peers(
            peers
                .map(|to| {
                    let address = self.wires[&(who.node, to)].address.to_string();
                    if to == 1 {
                        PeerAddress::of(id(to), address)
                    } else {
                        PeerAddress::seed(address)
                    }
                })
                .collect(),
        );
        let node = Node::new(Arc::clone(&links) as Arc<dyn Links>);
        runtime
            .spawn(async move { links.start(TcpListener::from_std(listener).unwrap()) })
            .await
            .unwrap();
        self.runtimes.insert(who.node, runtime);
        node
    }

    fn kill(&mut self, node: u64) {
        if let Some(runtime) = self.runtimes.remove(&node) {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        for (_, runtime) in std::mem::take(&mut self.runtimes) {
            runtime.shutdown_background();
        }
    }
}
