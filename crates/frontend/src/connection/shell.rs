//! The task around a connection's machine: sockets, the broker and the timer.
//!
//! One hand-written poll instead of `select!`: everything that is ready is done in one wake-up, and what it produced leaves in one write. The
//! order of a round is answers, commands, deliveries, write, read, so a round's output is complete before it is written, and nothing
//! waits for a flush timer. A round is bounded by the read buffer and the output bound, and after some rounds the task yields.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use nsquorum_broker::{
    Admitted, Broker, DeliveryReceiver, LeaseEvent, LeaseOutcome, PublishTicket, SubscribeError, Subscription,
    SubscriptionEvent, SubscriptionHandle, SubscriptionOptions,
};
use nsquorum_environment::{Environment, Monotonic};
use nsquorum_http::{Socket, StopSignal};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};
use tokio::time::{Instant, Sleep};

use super::input::Input;
use super::machine::{Awaited, End, Machine, MachineParts, Now, PublishRequest, Request};
use super::output::SLICES_MAX;
use super::upgrade::Upgrade;
use crate::auth::{self, AuthError, Credentials, Grants};
use crate::config::FrontendConfig;
use crate::metrics::FrontendMetrics;
use crate::registry::ConnectionRecord;
use crate::seats::{NoSeat, Seat, Seats};
use crate::transport::Transport;

/// Rounds in one wake-up before other tasks get their turn.
const ROUNDS_MAX: usize = 8;
/// After so long without traffic the buffers are given back.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// How long, and for how many bytes, a connection that the server ends is read on, so that the client sees the last frame: closing with
/// unread bytes makes the kernel reset the connection, which may destroy what was sent.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 << 20;

/// How long a TLS handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a connection needs of its node.
pub(crate) struct ConnectionParts {
    pub(crate) broker: Broker,
    pub(crate) config: Arc<FrontendConfig>,
    pub(crate) metrics: FrontendMetrics,
    pub(crate) record: Arc<ConnectionRecord>,
    pub(crate) seats: Seats,
    /// Empty for one that comes through the file system.
    pub(crate) remote_ip: String,
    pub(crate) stop: StopSignal,
}

/// Why a poll of the shell is over.
enum Pause {
    End(End),
    Upgrade(Upgrade),
}

/// Serves one connection until it ends.
pub(crate) async fn run(socket: Socket, parts: ConnectionParts) {
    let mut shell = Shell::new(parts);
    let mut transport = Transport::from(socket);
    let end = loop {
        match std::future::poll_fn(|cx| shell.poll(&mut transport, cx)).await {
            Ok(Pause::Upgrade(Upgrade::Compress(compression))) => {
                transport = transport.compress(compression, shell.input.take());
                shell.record.set_compression(compression);
                shell.upgraded(Upgrade::Compress(compression), Ok(()));
            }
            // Boxed: few connections have TLS, and all would have room for its handshake.
            Ok(Pause::Upgrade(Upgrade::Tls)) => match Box::pin(shell.encrypt(transport)).await {
                Some(encrypted) => transport = encrypted,
                None => return,
            },
            Ok(Pause::End(end)) => break Ok(end),
            Err(error) => break Err(error),
        }
    };
    shell.give_back();
    match end {
        Ok(End::Close) => drop(tokio::time::timeout(LINGER_TIME, transport.shutdown()).await),
        Ok(End::Linger) => drop(tokio::time::timeout(LINGER_TIME, linger(&mut transport)).await),
        Err(error) => tracing::debug!(%error, "a connection broke"),
    }
}

async fn linger(transport: &mut Transport) -> io::Result<()> {
    transport.shutdown().await?;
    // What still comes need not even be decoded.
    let stream = transport.socket();
    let mut left = LINGER_BYTES;
    let mut dropped = vec![0; 16 * 1024];
    while left > 0 {
        let count = stream.read(&mut dropped).await?;
        if count == 0 {
            break;
        }
        left = left.saturating_sub(count);
    }
    Ok(())
}

/// A publish that waits for room in the node's bound.
struct Admitting {
    publish: PublishRequest,
    admitted: Waiting<Admitted>,
}

struct Shell {
    broker: Broker,
    environment: Environment,
    config: Arc<FrontendConfig>,
    metrics: FrontendMetrics,
    record: Arc<ConnectionRecord>,
    machine: Machine,
    input: Input,
    input_ended: bool,
    /// The results of the machine's publishes, in their order.
    tickets: VecDeque<PublishTicket>,
    question: Option<Waiting<bool>>,
    admitting: Option<Admitting>,
    subscribing: Option<Waiting<Result<Subscription, SubscribeError>>>,
    seats: Seats,
    /// This consumer's.
    seat: Option<Seat>,
    authenticating: Option<Waiting<Result<Grants, AuthError>>>,
    remote_ip: String,
    common_name: Option<String>,
    deliveries: Option<DeliveryReceiver>,
    handle: Option<SubscriptionHandle>,
    timer: Pin<Box<Sleep>>,
    /// What the timer is set to; it may be earlier than the next deadline, never later.
    timer_at: Option<Monotonic>,
    active_at: Monotonic,
    buffers_held: bool,
    /// What was written may still be in a layer above the socket.
    unflushed: bool,
    stop: Option<Waiting<()>>,
}

impl Shell {
    fn new(parts: ConnectionParts) -> Self {
        let ConnectionParts {
            broker,
            config,
            metrics,
            record,
            seats,
            remote_ip,
            mut stop,
        } = parts;
        let environment = broker.environment().clone();
        let now = environment.clock.now();
        let machine_parts = MachineParts {
            config: Arc::clone(&config),
            random: Arc::clone(&environment.random),
            metrics: metrics.clone(),
            record: Arc::clone(&record),
            outages: broker.outages().clone(),
        };
        Self {
            broker,
            environment,
            config,
            metrics,
            record,
            machine: Machine::new(machine_parts, now),
            input: Input::new(),
            input_ended: false,
            tickets: VecDeque::new(),
            question: None,
            admitting: None,
            subscribing: None,
            seats,
            seat: None,
            authenticating: None,
            remote_ip,
            common_name: None,
            deliveries: None,
            handle: None,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            timer_at: None,
            active_at: now,
            buffers_held: false,
            unflushed: false,
            stop: Some(Box::pin(async move { stop.stopped().await })),
        }
    }

    fn now(&self) -> Now {
        let clock = &self.environment.clock;
        Now {
            monotonic: clock.now(),
            wall: clock.wall(),
        }
    }

    /// Serves the TLS handshake. `None`: the node stops, and the connection is over, without a word.
    async fn encrypt(&mut self, transport: Transport) -> Option<Transport> {
        let tls = self
            .config
            .tls
            .clone()
            .expect("TLS is granted only by a node that has it");
        let handshake = transport.encrypt(&tls, tokio::time::sleep(HANDSHAKE_TIME), self.input.take());
        let handshake = match self.stop.as_mut() {
            Some(stop) => tokio::select! {
                handshake = handshake => handshake,
                () = stop => return None,
            },
            None => return None,
        };
        match handshake {
            Ok((transport, session)) => {
                self.common_name = Some(session.common_name.clone());
                self.record.set_tls(session);
                self.upgraded(Upgrade::Tls, Ok(()));
                Some(transport)
            }
            Err(failed) => {
                tracing::debug!(error = %failed.cause, "a TLS handshake failed");
                self.upgraded(Upgrade::Tls, Err(failed.cause));
                Some(failed.transport)
            }
        }
    }

    fn upgraded(&mut self, upgrade: Upgrade, result: Result<(), io::Error>) {
        // An end of the input was the end of the layer below; this one has its own.
        self.input_ended = false;
        self.machine.upgraded(upgrade, result, self.now().monotonic);
    }

    fn poll(&mut self, transport: &mut Transport, cx: &mut Context<'_>) -> Poll<io::Result<Pause>> {
        self.poll_stop(cx);
        for _ in 0..ROUNDS_MAX {
            let now = self.now();
            self.machine.on_time(now.monotonic);
            let mut progress = self.poll_answers(cx, now);
            progress |= self.poll_commands(cx, now);
            progress |= self.poll_deliveries(cx, now);
            self.tell_leader();
            progress |= self.poll_write(transport, cx, now)?;
            if let Some(end) = self.machine.ended() {
                return Poll::Ready(Ok(Pause::End(end)));
            }
            if let Some(upgrade) = self.machine.upgrade_due() {
                return Poll::Ready(Ok(Pause::Upgrade(upgrade)));
            }
            progress |= self.poll_read(transport, cx)?;
            if progress {
                self.active_at = now.monotonic;
                self.buffers_held = true;
            } else if self.poll_timer(cx, now.monotonic).is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_stop(&mut self, cx: &mut Context<'_>) {
        if let Some(stop) = &mut self.stop
            && stop.as_mut().poll(cx).is_ready()
        {
            self.stop = None;
            self.machine.finish(End::Close, self.now().monotonic);
        }
    }

    fn poll_answers(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        let mut progress = false;
        loop {
            match self.machine.awaited() {
                Awaited::Nothing => {
                    // After a fatal error nothing is awaited although publishes are under way.
                    self.tickets.clear();
                    self.question = None;
                    if self.tickets.capacity() > 64 {
                        self.tickets = VecDeque::new();
                    }
                    return progress;
                }
                Awaited::Publish => {
                    let ticket = self.tickets.front_mut().expect("every awaited publish has a ticket");
                    let Poll::Ready(result) = Pin::new(ticket).poll(cx) else {
                        return progress;
                    };
                    self.tickets.pop_front();
                    self.machine.published(result, now.monotonic);
                }
                Awaited::InFlight(seq) => {
                    let question = self.question.get_or_insert_with(|| {
                        let handle = self.handle.clone().expect("only a consumer's messages are asked about");
                        Box::pin(async move { handle.is_in_flight(seq).await })
                    });
                    let Poll::Ready(in_flight) = question.as_mut().poll(cx) else {
                        return progress;
                    };
                    self.question = None;
                    self.machine.answered_in_flight(in_flight, now.monotonic);
                }
            }
            progress = true;
        }
    }

    fn poll_commands(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        let mut progress = self.poll_admission(cx, now);
        progress |= self.poll_subscribing(cx, now);
        progress |= self.poll_authenticating(cx, now);
        while let Some(request) = self.machine.next(self.input.bytes(), self.input_ended, now) {
            progress = true;
            match request {
                Request::Publish(publish) => match self.broker.admission().try_admit(publish.admission_bytes) {
                    Some(admitted) => self.submit(publish, admitted, now),
                    None => {
                        let (admission, bytes) = (self.broker.admission().clone(), publish.admission_bytes);
                        let admitted = Box::pin(async move { admission.admit(bytes).await });
                        self.admitting = Some(Admitting { publish, admitted });
                        self.poll_admission(cx, now);
                    }
                },
                Request::Subscribe {
                    topic,
                    channel,
                    msg_timeout,
                } => {
                    match self.seats.take(&topic, &channel) {
                        Ok(seat) => self.seat = Some(seat),
                        Err(full) => {
                            self.machine.subscribed(Err::<(), NoSeat>(full), now.monotonic);
                            continue;
                        }
                    }
                    let (broker, client) = (self.broker.clone(), self.record.client());
                    let topology = self.config.topology.as_ref();
                    let options = SubscriptionOptions {
                        nearness: topology.map(|here| here.nearness(&client)),
                        client,
                        msg_timeout,
                    };
                    self.subscribing = Some(Box::pin(
                        async move { broker.subscribe(&topic, &channel, options).await },
                    ));
                    self.poll_subscribing(cx, now);
                }
                Request::Authenticate { secret } => {
                    self.authenticating = Some(self.ask(secret));
                    self.poll_authenticating(cx, now);
                }
            }
        }
        progress
    }

    fn ask(&self, secret: Bytes) -> Waiting<Result<Grants, AuthError>> {
        let credentials = Credentials {
            common_name: self.common_name.clone().unwrap_or_default(),
            remote_ip: self.remote_ip.clone(),
            secret,
            tls: self.common_name.is_some(),
        };
        let (config, random) = (Arc::clone(&self.config), Arc::clone(&self.environment.random));
        Box::pin(async move {
            let settings = config.auth.as_ref().expect("only a node with auth servers asks them");
            auth::ask(settings, &credentials, &*random).await
        })
    }

    fn poll_authenticating(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        let Some(authenticating) = &mut self.authenticating else {
            return false;
        };
        let Poll::Ready(result) = authenticating.as_mut().poll(cx) else {
            return false;
        };
        self.authenticating = None;
        self.machine.authenticated(result, now.monotonic);
        true
    }

    fn poll_admission(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        let Some(admitting) = &mut self.admitting else {
            return false;
        };
        let Poll::Ready(admitted) = admitting.admitted.as_mut().poll(cx) else {
            return false;
        };
        if let Some(Admitting { publish, .. }) = self.admitting.take() {
            self.submit(publish, admitted, now);
        }
        true
    }

    fn submit(&mut self, publish: PublishRequest, admitted: Admitted, now: Now) {
        self.tickets
            .push_back(self.broker.publish(&publish.topic, publish.messages, Some(admitted)));
        self.machine.submitted(now.monotonic);
    }

    fn poll_subscribing(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        let Some(subscribing) = &mut self.subscribing else {
            return false;
        };
        if !self.machine.is_subscribing() {
            // It took too long and the client was told so; a subscription that is granted later ends with its receiver.
            self.subscribing = None;
            return true;
        }
        let Poll::Ready(result) = subscribing.as_mut().poll(cx) else {
            return false;
        };
        self.subscribing = None;
        let result = result.map(|subscription| {
            self.deliveries = Some(subscription.deliveries);
            self.handle = Some(subscription.handle);
        });
        self.machine.subscribed(result, now.monotonic);
        true
    }

    fn poll_deliveries(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        let mut progress = false;
        while self.machine.wants_deliveries()
            && let Some(deliveries) = &mut self.deliveries
        {
            let Poll::Ready(event) = deliveries.poll_next(cx) else {
                break;
            };
            progress = true;
            match event {
                Some(event) => {
                    if let Err(corruption) = self.machine.subscription_event(event) {
                        let (topic, channel, seq) = (&corruption.topic, &corruption.channel, corruption.seq.get());
                        tracing::error!(%topic, %channel, seq, "a stored message does not match its checksum and is not delivered");
                        (self.config.on_corruption)(&corruption);
                        self.machine.finish(End::Linger, now.monotonic);
                    }
                }
                None => {
                    // The channel or topic was deleted, or the node stops: closed without an error frame, as nsqd does.
                    self.deliveries = None;
                    self.machine.finish(End::Linger, now.monotonic);
                }
            }
        }
        progress
    }

    fn tell_leader(&mut self) {
        let Some(handle) = &self.handle else { return };
        let to_leader = self.machine.take_to_leader();
        if let Some(count) = to_leader.ready {
            handle.ready(count);
        }
        handle.events(to_leader.events);
    }

    fn poll_write(&mut self, transport: &mut Transport, cx: &mut Context<'_>, now: Now) -> io::Result<bool> {
        let mut progress = false;
        while !self.machine.output().is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.machine.output().slices(&mut slices);
            let written = match Pin::new(&mut *transport).poll_write_vectored(cx, &slices[..count]) {
                Poll::Ready(written) => written?,
                Poll::Pending => {
                    self.machine.write_stalled(now.monotonic);
                    return Ok(progress);
                }
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.machine.wrote(written, now.monotonic);
            self.unflushed = true;
            progress = true;
        }
        if self.unflushed {
            match Pin::new(transport).poll_flush(cx)? {
                Poll::Ready(()) => {
                    self.unflushed = false;
                    self.machine.flushed();
                }
                Poll::Pending => self.machine.write_stalled(now.monotonic),
            }
        }
        Ok(progress)
    }

    fn poll_read(&mut self, transport: &mut Transport, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.input_ended || !self.machine.wants_input() {
            return Ok(false);
        }
        let wanted = self.machine.wanted_bytes();
        match self.input.poll_read(transport, wanted, cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(count) => {
                let count = count?;
                self.input_ended = count == 0;
                self.metrics.read_bytes.increment(count as u64);
                Ok(true)
            }
        }
    }

    /// Ready when a deadline has come, so that another round is due.
    fn poll_timer(&mut self, cx: &mut Context<'_>, now: Monotonic) -> Poll<()> {
        if self.buffers_held && self.active_at + IDLE_AFTER <= now {
            self.input.release();
            self.machine.output().release();
            self.buffers_held = false;
        }
        let idle = self.buffers_held.then(|| self.active_at + IDLE_AFTER);
        let Some(at) = [self.machine.next_deadline(), idle].into_iter().flatten().min() else {
            return Poll::Pending;
        };
        // A timer that fires too early costs one wake-up; setting it anew for every command would cost more.
        if self.timer_at.is_none_or(|set| set > at) {
            self.set_timer(at, now);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            self.timer_at = None;
            if at <= now {
                return Poll::Ready(());
            }
            self.set_timer(at, now);
        }
        Poll::Pending
    }

    fn set_timer(&mut self, at: Monotonic, now: Monotonic) {
        self.timer.as_mut().reset(Instant::now() + at.since(now));
        self.timer_at = Some(at);
    }

    /// Tells the topic leader what becomes of the messages of this consumer.
    fn give_back(&mut self) {
        let (Some(handle), Some((mut events, leases))) = (self.handle.take(), self.machine.end_consumer()) else {
            return;
        };
        if let Some(mut deliveries) = self.deliveries.take() {
            let mut cx = Context::from_waker(Waker::noop());
            while let Poll::Ready(Some(event)) = deliveries.poll_next(&mut cx) {
                if let SubscriptionEvent::Deliver(delivery) = event {
                    events.push(LeaseEvent {
                        token: delivery.token,
                        outcome: LeaseOutcome::Returned,
                    });
                }
            }
        }
        handle.events(events);
        handle.disconnect(leases);
    }
}
