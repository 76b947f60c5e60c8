//! One attempt at a link: two connections, one per class, and their handshakes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use nsquorum_topic::NodeId;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Streaming;
use tonic::transport::{Endpoint, Uri};
use tracing::debug;

use super::answer::is_local;
use super::core::{Claim, Core, Name};
use super::pipe::{Outgoing, Step};
use super::secret::{self, End};
use super::socket::Severable;
use super::wire::{
    Answered, Dialled, Hello, Proof, VERSION, answered, class_to_wire, dialled, identity_from_wire,
    peer_client::PeerClient, rejection_from_wire,
};
use super::{HTTP_FRAME_BYTES, HTTP_WINDOW_BYTES, MESSAGE_BYTES_MAX};
use crate::{Class, Evidence, LinkEpoch, PeerIdentity, Rejection};

/// One class of a link that was accepted.
pub(super) struct Stream {
    pub(super) answers: Streaming<Answered>,
    pub(super) steps: mpsc::Sender<Step>,
}

/// A link that was accepted, with nothing sent yet.
pub(super) struct Established {
    pub(super) peer: PeerIdentity,
    pub(super) epoch: LinkEpoch,
    pub(super) control: Stream,
    pub(super) bulk: Stream,
    pub(super) name: Name,
    /// To be kept for as long as the link stands.
    pub(super) claim: Claim,
    /// Ends both connections when dropped.
    pub(super) sever: DropGuard,
}

/// Makes a link to whoever answers at the address, who must be `expected` if that is given.
pub(super) async fn dial(core: &Arc<Core>, address: &str, expected: Option<NodeId>) -> Result<Established, Evidence> {
    let name = core.name();
    let epoch = core.next_epoch();
    let sever = CancellationToken::new();
    let guard = sever.clone().drop_guard();
    let mut claim = None;
    let (peer, control) = connect(core, &name, address, epoch, Class::Control, &sever, &mut claim).await?;
    if expected.is_some_and(|expected| expected != peer.node) {
        return Err(Evidence::Rejected(Rejection::OtherNode));
    }
    let (same, bulk) = connect(core, &name, address, epoch, Class::Bulk, &sever, &mut claim).await?;
    if same != peer {
        // It was restarted in between.
        return Err(Evidence::Reset);
    }
    Ok(Established {
        peer,
        epoch,
        control,
        bulk,
        name,
        claim: claim.expect("a handshake that succeeded has claimed its node"),
        sever: guard,
    })
}

async fn connect(
    core: &Arc<Core>,
    name: &Name,
    address: &str,
    epoch: LinkEpoch,
    class: Class,
    sever: &CancellationToken,
    claim: &mut Option<Claim>,
) -> Result<(PeerIdentity, Stream), Evidence> {
    let socket = connect_tcp(core, address).await?;
    let socket = Severable::new(socket, sever.clone()).map_err(|_| Evidence::Reset)?;
    let shaken = shake(core, name, socket, epoch, class, claim);
    timeout(core.options.handshake_timeout, shaken)
        .await
        .unwrap_or(Err(Evidence::TimedOut))
}

async fn connect_tcp(core: &Core, address: &str) -> Result<TcpStream, Evidence> {
    let addresses = async { Ok::<Vec<SocketAddr>, io::Error>(tokio::net::lookup_host(address).await?.collect()) };
    let addresses = match timeout(core.options.connect_timeout, addresses).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => {
            debug!(address, "address not resolved: {error}");
            return Err(Evidence::Unreachable);
        }
        Err(_) => return Err(Evidence::Unreachable),
    };
    let mut evidence = Evidence::Unreachable;
    for address in addresses {
        if core.options.secret.is_none() && !is_local(address.ip()) {
            return Err(Evidence::Rejected(Rejection::SecretRequired));
        }
        evidence = match timeout(core.options.connect_timeout, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => match error.kind() {
                io::ErrorKind::ConnectionRefused => Evidence::Refused,
                io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Evidence::Reset,
                io::ErrorKind::TimedOut => Evidence::TimedOut,
                _ => Evidence::Unreachable,
            },
            Err(_) => Evidence::TimedOut,
        };
    }
    Err(evidence)
}

async fn next(answers: &mut Streaming<Answered>) -> Result<answered::Say, Evidence> {
    match answers.message().await {
        Ok(Some(Answered { say: Some(say) })) => Ok(say),
        Ok(Some(Answered { say: None })) => Err(Evidence::Garbled),
        Ok(None) => Err(Evidence::Closed),
        Err(_) => Err(Evidence::Reset),
    }
}

async fn shake(
    core: &Arc<Core>,
    name: &Name,
    socket: Severable,
    epoch: LinkEpoch,
    class: Class,
    claim: &mut Option<Claim>,
) -> Result<(PeerIdentity, Stream), Evidence> {
    let (steps, handshake) = mpsc::channel(4);
    let say = async |say| {
        let step = Step::Say(Dialled { say: Some(say) });
        steps.send(step).await.map_err(|_| Evidence::Reset)
    };
    let hello = Hello {
        version: VERSION,
        identity: Some(name.identity.into()),
        epoch: epoch.get(),
        class: class_to_wire(class),
        nonce: secret::nonce().into(),
        lane_credit_bytes: core.options.limits.class(class).lane_credit_bytes,
    };
    say(dialled::Say::Hello(hello.clone())).await?;
    let outgoing = Outgoing::new(handshake, core.keep_alive());
    let mut answers = open(socket, outgoing).await?;

    let answered::Say::Challenge(challenge) = next(&mut answers).await? else {
        return Err(Evidence::Garbled);
    };
    if challenge.version != VERSION {
        return Err(Evidence::Rejected(Rejection::Version));
    }
    let peer = identity_from_wire(challenge.identity.as_ref()).map_err(|_| Evidence::Garbled)?;
    // Before the peer takes this connection for the better one and drops the link that works.
    match claim {
        // The other class has claimed it. Somebody else there now: it was restarted in between.
        Some(claim) if claim.node() == peer.node => {}
        Some(_) => return Err(Evidence::Reset),
        None => *claim = Some(Claim::new(core, peer.node).map_err(Evidence::Rejected)?),
    }
    let own_secret = core.options.secret.as_ref();
    let hmac = secret::prove(own_secret, End::Dials, &hello, &challenge).into();
    say(dialled::Say::Proof(Proof { hmac })).await?;
    let answered::Say::Verdict(verdict) = next(&mut answers).await? else {
        return Err(Evidence::Garbled);
    };
    let rejection = rejection_from_wire(verdict.rejection).map_err(|_| Evidence::Garbled)?;
    if let Some(rejection) = rejection {
        return Err(Evidence::Rejected(rejection));
    }
    if !secret::holds(own_secret, End::Answers, &hello, &challenge, &verdict.hmac) {
        return Err(Evidence::Rejected(Rejection::WrongSecret));
    }
    core.admit(name.identity, peer).map_err(Evidence::Rejected)?;
    Ok((peer, Stream { answers, steps }))
}

/// Opens the stream over a socket that is connected. Once only: a broken connection is a new link, never a reconnect behind its back.
async fn open(socket: Severable, outgoing: Outgoing) -> Result<Streaming<Answered>, Evidence> {
    let socket = Arc::new(Mutex::new(Some(TokioIo::new(socket))));
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.lock().take();
        std::future::ready(socket.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    });
    let channel = Endpoint::from_static("http://peer")
        .initial_stream_window_size(HTTP_WINDOW_BYTES)
        .initial_connection_window_size(HTTP_WINDOW_BYTES)
        .max_frame_size(HTTP_FRAME_BYTES)
        .connect_with_connector(connector)
        .await
        .map_err(|_| Evidence::Reset)?;
    let mut client = PeerClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let response = client.link(outgoing).await.map_err(|_| Evidence::Reset)?;
    Ok(response.into_inner())
}
