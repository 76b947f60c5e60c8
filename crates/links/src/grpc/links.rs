//! The handle.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream;
use nsquorum_environment::Environment;
use nsquorum_topic::{ClusterId, NodeId};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tracing::warn;

use super::answer::PeerService;
use super::core::Core;
use super::dialler::Dialler;
use super::options::GrpcOptions;
use super::socket::Severable;
use super::wire::peer_server::PeerServer;
use super::{HTTP_FRAME_BYTES, HTTP_WINDOW_BYTES, MESSAGE_BYTES_MAX};
use crate::{
    Class, Frame, Lane, LinkEpoch, Links, PeerAddress, PeerIdentity, PeerState, Peers, Receiver, SendError, Sending,
    Service,
};

struct Dialled {
    expected: Option<NodeId>,
    stop: CancellationToken,
}

/// This node's links to other processes. Dropping it ends them.
pub struct GrpcLinks {
    core: Arc<Core>,
    started: AtomicBool,
    /// Tasks that dial, by address. Before the start: what is to be dialled.
    dialled: Mutex<BTreeMap<String, Dialled>>,
}

impl GrpcLinks {
    /// Links that have not started.
    pub fn new(identity: PeerIdentity, options: GrpcOptions, environment: Environment) -> Arc<Self> {
        Arc::new(Self {
            core: Arc::new(Core::new(identity, options, environment)),
            started: AtomicBool::new(false),
            dialled: Mutex::default(),
        })
    }

    /// Answers peers at this listener, and dials those that were set ([`Links::set_peers`]).
    ///
    /// # Panics
    /// When called twice.
    pub fn start(&self, listener: TcpListener) {
        let mut dialled = self.dialled.lock();
        assert!(!self.started.swap(true, Ordering::SeqCst), "the links have started");
        let serving = serve(Arc::clone(&self.core), listener);
        self.core.environment.spawn.spawn(Box::pin(serving));
        for (address, dialled) in dialled.iter_mut() {
            self.dial(address, dialled);
        }
    }

    /// Ends all links in good order, and stops listening. They do not come back.
    pub fn stop(&self) {
        self.core.stop.cancel();
    }

    fn dial(&self, address: &str, dialled: &Dialled) {
        let core = Arc::clone(&self.core);
        let dialler = Dialler::new(core, address.to_owned(), dialled.expected, dialled.stop.clone());
        self.core.environment.spawn.spawn(Box::pin(dialler.run()));
    }

    fn pipe(&self, to: NodeId, class: Class, frame: &Frame) -> Result<Arc<super::pipe::Pipe>, SendError> {
        let limit = self.core.options.limits.frame_bytes_max;
        if frame.len() > limit {
            return Err(SendError::TooLarge {
                bytes: frame.len(),
                limit,
            });
        }
        let pipes = self.core.pipes(to).ok_or(SendError::Down(to))?;
        Ok(Arc::clone(pipes.class(class)))
    }
}

impl Drop for GrpcLinks {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for GrpcLinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrpcLinks").finish_non_exhaustive()
    }
}

impl Links for GrpcLinks {
    fn local(&self) -> PeerIdentity {
        self.core.name().identity
    }

    fn register(&self, service: Service, receiver: Arc<dyn Receiver>) {
        assert!(!self.started.load(Ordering::SeqCst), "the links have started");
        self.core.receivers.register(service, receiver);
    }

    fn try_send(&self, to: NodeId, lane: Lane, class: Class, frame: Frame) -> Result<LinkEpoch, SendError> {
        self.pipe(to, class, &frame)?.try_send(lane, frame)
    }

    fn send(&self, to: NodeId, lane: Lane, class: Class, frame: Frame) -> Sending {
        match self.pipe(to, class, &frame) {
            Ok(pipe) => pipe.send(lane, frame),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn peers(&self) -> watch::Receiver<Arc<Peers>> {
        self.core.watch()
    }

    fn set_peers(&self, peers: Vec<PeerAddress>) {
        let wanted: BTreeMap<_, _> = peers.into_iter().map(|peer| (peer.address, peer.node)).collect();
        let present = self.core.watch().borrow().clone();
        let mut dialled = self.dialled.lock();
        dialled.retain(|address, dialled| {
            let stays = wanted.get(address).is_some_and(|node| {
                // A link is not broken only because metadata now says who is at a seed's address. If somebody else is there
                // after all, the node at its true address is linked as well; this address then finds it linked already, or fails.
                *node == dialled.expected || (dialled.expected.is_none() && node.is_some_and(|node| up(&present, node)))
            });
            if !stays {
                dialled.stop.cancel();
            }
            stays
        });
        for (address, expected) in wanted {
            if dialled.contains_key(&address) {
                continue;
            }
            let stop = self.core.stop.child_token();
            let new = Dialled { expected, stop };
            if self.started.load(Ordering::SeqCst) {
                self.dial(&address, &new);
            }
            dialled.insert(address, new);
        }
    }

    fn adopt(&self, cluster: ClusterId) {
        self.core.adopt(cluster);
    }
}

fn up(peers: &Peers, node: NodeId) -> bool {
    matches!(peers.get(&node), Some(PeerState::Up { .. }))
}

/// Answers peers until the links stop.
async fn serve(core: Arc<Core>, listener: TcpListener) {
    let sockets = stream::unfold((Arc::clone(&core), listener), accept);
    let service = PeerServer::new(PeerService {
        core: Arc::clone(&core),
    })
    .max_decoding_message_size(MESSAGE_BYTES_MAX)
    .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let serving = Server::builder()
        .initial_stream_window_size(HTTP_WINDOW_BYTES)
        .initial_connection_window_size(HTTP_WINDOW_BYTES)
        .max_frame_size(HTTP_FRAME_BYTES)
        .max_concurrent_streams(1)
        .serve_with_incoming(service, sockets);
    tokio::select! {
        served = serving => {
            if let Err(error) = served {
                warn!("peers are not answered any more: {error}");
            }
        }
        () = core.stop.cancelled() => {}
    }
}

type Socket = Result<Severable, std::io::Error>;

async fn accept((core, listener): (Arc<Core>, TcpListener)) -> Option<(Socket, (Arc<Core>, TcpListener))> {
    let accepted: Result<(_, SocketAddr), _> = listener.accept().await;
    let socket = accepted.and_then(|(socket, _)| Severable::new(socket, CancellationToken::new()));
    match &socket {
        Ok(socket) => {
            let connection = socket.connect_info();
            let patience = core.options.handshake_timeout * 2;
            core.environment.spawn.spawn(Box::pin(async move {
                tokio::select! {
                    () = tokio::time::sleep(patience) => connection.sever.cancel(),
                    () = connection.admitted.cancelled() => {}
                }
            }));
        }
        Err(error) => {
            warn!("a peer's connection was not accepted: {error}");
            // Out of file descriptors, most likely: trying again at once would spin.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Some((socket, (core, listener)))
}
