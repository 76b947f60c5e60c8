//! The answering side: the handshake, and the task that reads what the peer sends.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, error, warn};

use super::assembler::Assembler;
use super::core::{Core, Name};
use super::credits::{Answers, CreditReturn, FrameCredit, Step};
use super::incoming::{Incoming, Presence};
use super::secret::{self, End};
use super::socket::Connection;
use super::wire::{
    Answered, Challenge, Dialled, Hello, Senseless, VERSION, Verdict, Write, answered, class_from_wire, dialled,
    identity_from_wire, lane_from_wire, peer_server, rejection_to_wire,
};
use crate::limits::charge;
use crate::{Class, Evidence, LinkEpoch, PeerIdentity, Received, Rejection};

/// The service of `proto/peer.proto`.
pub(super) struct PeerService {
    pub(super) core: Arc<Core>,
}

#[tonic::async_trait]
impl peer_server::Peer for PeerService {
    type LinkStream = Answers;

    async fn link(&self, request: Request<Streaming<Dialled>>) -> Result<Response<Answers>, Status> {
        let connection = request.extensions().get::<Connection>().cloned();
        let connection = connection.ok_or_else(|| Status::internal("a connection without a socket"))?;
        let (steps, handshake) = mpsc::channel(4);
        let answers = Answers::new(handshake, self.core.keep_alive());
        let core = Arc::clone(&self.core);
        let task = answer(Arc::clone(&core), connection, request.into_inner(), steps);
        core.environment.spawn.spawn(Box::pin(task));
        Ok(Response::new(answers))
    }
}

/// A stream that passed its handshake.
struct Accepted {
    peer: PeerIdentity,
    epoch: LinkEpoch,
    class: Class,
    incoming: Arc<Incoming>,
    end: CancellationToken,
    credits: Arc<CreditReturn>,
    name: Name,
}

/// Why a handshake came to nothing.
enum Failure {
    /// The peer was told why.
    Rejected(Option<PeerIdentity>, Rejection),
    /// It went away, or said something else.
    Gone,
}

impl From<Senseless> for Failure {
    fn from(_: Senseless) -> Self {
        Self::Gone
    }
}

async fn answer(core: Arc<Core>, connection: Connection, mut stream: Streaming<Dialled>, steps: mpsc::Sender<Step>) {
    let shaken = shake(&core, &connection, &mut stream, &steps);
    let shaken = tokio::select! {
        shaken = timeout(core.options.handshake_timeout, shaken) => shaken,
        () = core.stop.cancelled() => return,
    };
    match shaken {
        Ok(Ok(accepted)) => {
            connection.admitted.cancel();
            read(&core, accepted, stream).await;
            // The end of the streams says goodbye; a peer that does not listen is cut off.
            tokio::time::sleep(super::GOODBYE).await;
            connection.sever.cancel();
        }
        Ok(Err(Failure::Rejected(peer, rejection))) => {
            let peer = peer.map_or_else(|| "a peer".to_owned(), |peer| peer.to_string());
            match rejection {
                Rejection::Myself | Rejection::Stale => debug!(%peer, remote = ?connection.remote, "{rejection}"),
                _ => error!(%peer, remote = ?connection.remote, "refused a peer: {rejection}"),
            }
        }
        Ok(Err(Failure::Gone)) | Err(_) => debug!(remote = ?connection.remote, "a handshake came to nothing"),
    }
}

async fn next(stream: &mut Streaming<Dialled>) -> Result<dialled::Say, Failure> {
    match stream.message().await {
        Ok(Some(Dialled { say: Some(say) })) => Ok(say),
        Ok(_) | Err(_) => Err(Failure::Gone),
    }
}

async fn say(steps: &mpsc::Sender<Step>, say: answered::Say) -> Result<(), Failure> {
    let step = Step::Say(Answered { say: Some(say) });
    steps.send(step).await.map_err(|_| Failure::Gone)
}

async fn shake(
    core: &Core,
    connection: &Connection,
    stream: &mut Streaming<Dialled>,
    steps: &mpsc::Sender<Step>,
) -> Result<Accepted, Failure> {
    let name = core.name();
    let dialled::Say::Hello(hello) = next(stream).await? else {
        return Err(Failure::Gone);
    };
    let challenge = Challenge {
        version: VERSION,
        identity: Some(name.identity.into()),
        nonce: secret::nonce().into(),
    };
    say(steps, answered::Say::Challenge(challenge.clone())).await?;
    let dialled::Say::Proof(proof) = next(stream).await? else {
        return Err(Failure::Gone);
    };
    let own_secret = core.options.secret.as_ref();
    let peer = identity_from_wire(hello.identity.as_ref()).ok();
    let verdict = if hello.version != VERSION {
        Err(Rejection::Version)
    } else if own_secret.is_none() && !connection.remote.is_some_and(|remote| is_local(remote.ip())) {
        Err(Rejection::SecretRequired)
    } else if !secret::holds(own_secret, End::Dials, &hello, &challenge, &proof.hmac) {
        Err(Rejection::WrongSecret)
    } else {
        enter(core, name, &hello)?
    };
    match verdict {
        Ok(accepted) => {
            let hmac = secret::prove(own_secret, End::Answers, &hello, &challenge).into();
            let rejection = rejection_to_wire(None);
            let said = say(steps, answered::Say::Verdict(Verdict { rejection, hmac })).await;
            let carried = steps.send(Step::Carry(Arc::clone(&accepted.credits))).await;
            if said.is_err() || carried.is_err() {
                let Accepted {
                    incoming, peer, epoch, ..
                } = accepted;
                incoming.leave(&core.receivers, peer, epoch, Evidence::Reset);
                return Err(Failure::Gone);
            }
            Ok(accepted)
        }
        Err(rejection) => {
            let wire = rejection_to_wire(Some(rejection));
            let hmac = Vec::new().into();
            say(steps, answered::Say::Verdict(Verdict { rejection: wire, hmac })).await?;
            Err(Failure::Rejected(peer, rejection))
        }
    }
}

fn enter(core: &Core, name: Name, hello: &Hello) -> Result<Result<Accepted, Rejection>, Senseless> {
    let peer = identity_from_wire(hello.identity.as_ref())?;
    let class = class_from_wire(hello.class)?;
    let epoch = LinkEpoch::new(hello.epoch);
    let incoming = core.incoming(peer.node);
    let entered = core
        .admit(name.identity, peer)
        .and_then(|()| incoming.enter(&core.receivers, peer, epoch, class));
    Ok(entered.map(|end| Accepted {
        peer,
        epoch,
        class,
        incoming,
        end,
        credits: CreditReturn::new(hello.lane_credit_bytes),
        name,
    }))
}

/// Whether bytes to this address stay on this machine.
pub(super) fn is_local(address: std::net::IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

async fn read(core: &Core, accepted: Accepted, mut stream: Streaming<Dialled>) {
    let Accepted {
        peer,
        epoch,
        class,
        incoming,
        end,
        credits,
        name,
    } = accepted;
    let mut presence = Presence {
        incoming: Arc::clone(&incoming),
        receivers: &core.receivers,
        identity: peer,
        epoch,
        evidence: Evidence::Reset,
    };
    let limits = &core.options.limits;
    let pending_bytes_max = limits.class(class).queued_bytes_max.saturating_mul(2);
    let mut assembler = Assembler::new(limits.frame_bytes_max, pending_bytes_max);
    // The dialler first makes its other connection, and may then have nothing to say.
    let mut patience = core.options.handshake_timeout + silence(core, class);
    let clock = &core.environment.clock;
    let mut heard = clock.now();
    // Made once and not for each message: the timer looks when it ends whether something was heard in the meantime.
    let mut silent = pin!(tokio::time::sleep(patience));
    let mut ended = pin!(end.cancelled());
    let mut renamed = pin!(name.valid.cancelled());
    presence.evidence = loop {
        let message = tokio::select! {
            biased;
            () = &mut ended => break Evidence::Reset,
            () = &mut renamed => break Evidence::Closed,
            // Before the silence: a node that was stopped for a while finds both.
            message = stream.message() => message,
            () = &mut silent => {
                let quiet = clock.now().since(heard);
                if quiet >= patience {
                    break Evidence::TimedOut;
                }
                silent.set(tokio::time::sleep(patience - quiet));
                continue;
            }
        };
        heard = clock.now();
        if patience > silence(core, class) {
            patience = silence(core, class);
            silent.set(tokio::time::sleep(patience));
        }
        let write = match message {
            Err(status) => {
                debug!(%peer, %epoch, "connection broke: {status}");
                break Evidence::Reset;
            }
            Ok(None) => break Evidence::Closed,
            Ok(Some(Dialled {
                say: Some(dialled::Say::Write(write)),
            })) => write,
            Ok(Some(_)) => break Evidence::Garbled,
        };
        let deliver = |lane, bytes: bytes::Bytes| {
            let credit = FrameCredit {
                way: Arc::clone(&credits),
                lane,
                bytes: charge(bytes.len()),
            };
            let received = Received::new(bytes, class, Box::new(credit));
            incoming.frame(&core.receivers, peer, epoch, lane, received);
        };
        if let Err(problem) = take(&mut assembler, write, deliver) {
            error!(%peer, %epoch, "unreadable bytes from a peer: {problem}");
            break Evidence::Garbled;
        }
    };
    if presence.evidence == Evidence::TimedOut {
        warn!(%peer, %epoch, class = class.name(), "a peer fell silent");
    }
    drop(presence);
    credits.close();
}

/// How long a stream of this class may be silent.
pub(super) fn silence(core: &Core, class: Class) -> Duration {
    match class {
        Class::Control => core.options.silence_max,
        Class::Bulk => core.options.silence_max * 4,
    }
}

/// Takes a message of chunks apart, and hands over the frames that end in it.
pub(super) fn take(
    assembler: &mut Assembler,
    write: Write,
    mut deliver: impl FnMut(crate::Lane, bytes::Bytes),
) -> Result<(), String> {
    for chunk in write.chunks {
        let lane = lane_from_wire(chunk.service, chunk.group).map_err(|Senseless| "an unknown service".to_owned())?;
        let begins = match chunk.begins.checked_sub(1) {
            None => None,
            Some(bytes) => Some(usize::try_from(bytes).map_err(|error| error.to_string())?),
        };
        let whole = assembler
            .chunk(lane, begins, chunk.data)
            .map_err(|misplaced| format!("{misplaced:?}"))?;
        if let Some(frame) = whole {
            deliver(lane, frame);
        }
    }
    Ok(())
}
