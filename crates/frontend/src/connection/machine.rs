//! One connection as a step machine: bytes, results, deliveries and time go in; bytes, requests and an end come out.
//!
//! Nothing in here waits. The shell asks [`Machine::next`] for what to do until there is nothing, carries requests out, and reports results
//! in the order of the requests. So every interleaving of commands, answers, deliveries and deadlines can be written down as a test.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nsquorum_broker::{LeaseTable, Outages};
use nsquorum_environment::{Monotonic, Random, WallTime};
use nsquorum_protocol::{
    ChannelName, Command, ConnectionState, DecodeContext, Decoder, Fatality, IdentifyRequest, InFlightError,
    ProtocolError, SessionSettings, TopicName, frame, take_magic,
};
use nsquorum_topic::{LogTime, NewMessage, Seq};

use super::authority::{Asking, Authority, Judgement};
use super::consumer::Consumer;
use super::deadlines::Deadlines;
use super::output::Output;
use super::replies::{LeaseCommand, PendingPublish, PublishKind, Replies, Reply};
use super::upgrade::Layers;
use crate::config::FrontendConfig;
use crate::metrics::FrontendMetrics;
use crate::registry::ConnectionRecord;

/// While more than this waits to be written, no further message is taken and no command that is answered is executed.
pub(super) const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// What a message costs in memory beside its body.
const MESSAGE_OVERHEAD_BYTES: usize = 96;
/// What the last answers may take beyond the publish timeout once the connection is to end.
const FINISH_GRACE: Duration = Duration::from_secs(5);

/// Both kinds of time, read once per round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) monotonic: Monotonic,
    pub(crate) wall: WallTime,
}

/// A publish for the broker.
#[derive(Debug, PartialEq)]
pub(crate) struct PublishRequest {
    pub(crate) topic: TopicName,
    pub(crate) messages: Vec<NewMessage>,
    /// What it takes of the node's bound on unanswered publishes.
    pub(crate) admission_bytes: usize,
}

/// What the shell is to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Request {
    /// Admit this, hand it to the broker, then call [`Machine::submitted`]; the result goes to [`Machine::published`].
    Publish(PublishRequest),
    /// Subscribe; the result goes to [`Machine::subscribed`].
    Subscribe {
        topic: TopicName,
        channel: ChannelName,
        msg_timeout: Duration,
    },
    /// Ask the auth servers about the client with this secret; the result goes to [`Machine::authenticated`].
    Authenticate { secret: Bytes },
}

/// What the first answer in the queue waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    Nothing,
    /// The result of the oldest publish.
    Publish,
    /// Whether any consumer of the channel holds this message; goes to [`Machine::answered_in_flight`].
    InFlight(Seq),
}

/// How the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Close it.
    Close,
    /// The client may still be sending and has to see what was written last: close the writing half, read on for a moment, then close.
    Linger,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waiting for the first four bytes, without deadlines.
    Magic,
    Open,
    /// No more commands; what is owed is answered and written.
    Finishing {
        end: End,
        by: Monotonic,
    },
    /// Nothing more, not even what waits to be written.
    Ended(End),
}

/// What a connection is made with.
pub(crate) struct MachineParts {
    pub(crate) config: Arc<FrontendConfig>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) metrics: FrontendMetrics,
    pub(crate) record: Arc<ConnectionRecord>,
    pub(crate) outages: Outages,
}

/// One connection.
pub(crate) struct Machine {
    pub(super) config: Arc<FrontendConfig>,
    pub(super) random: Arc<dyn Random>,
    pub(super) metrics: FrontendMetrics,
    pub(super) record: Arc<ConnectionRecord>,
    pub(super) outages: Outages,
    decoder: Decoder,
    pub(super) state: ConnectionState,
    settings: SessionSettings,
    /// What the first IDENTIFY settled for delivering; later ones do not change it.
    delivering: Option<SessionSettings>,
    pub(super) phase: Phase,
    /// A command that was read and may not be executed yet.
    held: Option<Command>,
    /// A publish that waits for admission.
    admitting: Option<PendingPublish>,
    /// A SUB that waits for the broker, and until when.
    pub(super) subscribing: Option<(TopicName, ChannelName, Monotonic)>,
    pub(super) replies: Replies,
    pub(super) output: Output,
    pub(super) layers: Layers,
    pub(super) authority: Authority,
    /// A question to the auth servers.
    pub(super) asking: Option<Asking>,
    pub(super) consumer: Option<Consumer>,
    pub(super) deadlines: Deadlines,
}

impl Machine {
    pub(crate) fn new(parts: MachineParts, now: Monotonic) -> Self {
        let MachineParts {
            config,
            random,
            metrics,
            record,
            outages,
        } = parts;
        let settings = SessionSettings::new(&config.limits);
        Self {
            random,
            metrics,
            record,
            outages,
            decoder: Decoder::new(),
            state: ConnectionState::Init,
            settings,
            delivering: None,
            phase: Phase::Magic,
            held: None,
            admitting: None,
            subscribing: None,
            replies: Replies::default(),
            output: Output::default(),
            layers: Layers::none(),
            authority: Authority::Unknown,
            asking: None,
            consumer: None,
            deadlines: Deadlines::new(interval(&settings), now),
            config,
        }
    }

    /// The next thing to do; `None` when more input or a result is needed. `input_ended`: the client will send nothing more.
    pub(crate) fn next(&mut self, input: &mut BytesMut, input_ended: bool, now: Now) -> Option<Request> {
        while self.may_execute() {
            let command = match self.held.take() {
                Some(command) => command,
                None => self.decode(input, input_ended, now.monotonic)?,
            };
            if !self.may_run(&command) {
                self.held = Some(command);
                return None;
            }
            match self.judge(&command, now.monotonic) {
                Judgement::Allowed => {}
                Judgement::Stale(question) => {
                    self.held = Some(command);
                    return Some(question);
                }
                Judgement::Refused(error) => {
                    self.refuse(error, now.monotonic);
                    return None;
                }
            }
            if let Some(request) = self.execute(command, now) {
                return Some(request);
            }
        }
        None
    }

    /// Whether reading makes sense now.
    pub(crate) fn wants_input(&self) -> bool {
        self.may_execute() && self.held.is_none()
    }

    /// How many bytes more the command that has begun needs.
    pub(crate) fn wanted_bytes(&self) -> usize {
        self.decoder.wanted()
    }

    /// The bytes to write.
    pub(crate) fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    fn may_execute(&self) -> bool {
        matches!(self.phase, Phase::Magic | Phase::Open)
            && self.admitting.is_none()
            && self.subscribing.is_none()
            && self.layers.next().is_none()
            && self.asking.is_none()
            && self.replies.weight_bytes() < self.config.read_ahead_bytes_max()
    }

    /// IDENTIFY and SUB change what follows, so everything before them is answered first, as in a server that executes one command after
    /// the other. Other answered commands only wait for room in the output; the rest must go on even if the client reads nothing, or a client
    /// that writes before it reads would block for ever.
    fn may_run(&self, command: &Command) -> bool {
        let has_room = self.output.waiting_bytes() <= OUTPUT_BYTES_MAX;
        match command {
            Command::Identify(_) | Command::Auth(_) | Command::Sub { .. } => self.replies.is_empty() && has_room,
            // Nothing is stored any more once a publish has failed: the client will take everything behind it for failed, and send it again.
            Command::Pub { .. } | Command::Mpub { .. } | Command::Dpub { .. } => {
                has_room && !matches!(self.replies.front(), Some(Reply::Failed { .. }))
            }
            Command::Cls => has_room,
            Command::Fin(_) | Command::Req { .. } | Command::Touch(_) | Command::Rdy(_) | Command::Nop => true,
        }
    }

    fn decode(&mut self, input: &mut BytesMut, input_ended: bool, now: Monotonic) -> Option<Command> {
        if self.phase == Phase::Magic {
            match take_magic(input) {
                Ok(true) => {
                    self.phase = Phase::Open;
                    self.deadlines = Deadlines::new(interval(&self.settings), now);
                }
                Ok(false) => {
                    if input_ended {
                        self.phase = Phase::Ended(End::Close);
                    }
                    return None;
                }
                Err(error) => {
                    self.refuse(error, now);
                    return None;
                }
            }
        }
        let context = DecodeContext {
            heartbeats_enabled: self.settings.heartbeat_interval_ms.is_some(),
            tls_missing: self.config.tls_required && !self.layers.has_tls(),
            ..DecodeContext::new(self.state, &self.config.limits)
        };
        match self.decoder.decode(input, &context) {
            Ok(Some(command)) => {
                self.deadlines.waiting_begins(now);
                Some(command)
            }
            Ok(None) => {
                if input_ended {
                    match self.decoder.at_eof() {
                        Some(error) => self.refuse(error, now),
                        None => self.finish(End::Close, now),
                    }
                }
                None
            }
            Err(error) => {
                self.refuse(error, now);
                None
            }
        }
    }

    fn execute(&mut self, command: Command, now: Now) -> Option<Request> {
        match command {
            Command::Nop => {}
            Command::Pub { topic, body } => return Some(self.publish(PublishKind::Pub, topic, vec![body], 0, now)),
            Command::Mpub { topic, bodies } => return Some(self.publish(PublishKind::Mpub, topic, bodies, 0, now)),
            Command::Dpub { topic, defer_ms, body } => {
                // The decoder bounds the delay by max_req_timeout, which is bounded by what fits.
                let defer_ms = u32::try_from(defer_ms).unwrap_or(u32::MAX);
                return Some(self.publish(PublishKind::Dpub, topic, vec![body], defer_ms, now));
            }
            Command::Fin(id) => self.lease_command(LeaseCommand::Fin, id, now.monotonic, |consumer, seq| {
                consumer.finish(seq)
            }),
            Command::Req { id, timeout_ms } => {
                let delay_ms = u32::try_from(timeout_ms).unwrap_or(u32::MAX);
                self.lease_command(LeaseCommand::Req, id, now.monotonic, |consumer, seq| {
                    consumer.requeue(seq, delay_ms)
                });
            }
            Command::Touch(id) => {
                self.lease_command(LeaseCommand::Touch, id, now.monotonic, |consumer, seq| {
                    consumer.touch(seq, now.monotonic)
                });
            }
            Command::Rdy(count) => {
                if let Some(consumer) = &mut self.consumer {
                    consumer.set_ready(count, now.monotonic);
                }
            }
            Command::Cls => {
                self.set_state(ConnectionState::Closing);
                if let Some(consumer) = &mut self.consumer {
                    consumer.close();
                }
                self.reply(Reply::Response(Bytes::from_static(frame::CLOSE_WAIT)), now.monotonic);
            }
            Command::Auth(secret) => return self.authenticate(secret, now.monotonic),
            Command::Identify(body) => self.identify(&body, now.monotonic),
            Command::Sub { topic, channel } => {
                let settings = self.delivering.unwrap_or(self.settings);
                let deadline = now.monotonic + self.config.publish_timeout;
                self.subscribing = Some((topic.clone(), channel.clone(), deadline));
                let msg_timeout = Duration::from_millis(settings.msg_timeout_ms);
                return Some(Request::Subscribe {
                    topic,
                    channel,
                    msg_timeout,
                });
            }
        }
        None
    }

    fn publish(&mut self, kind: PublishKind, topic: TopicName, bodies: Vec<Bytes>, defer_ms: u32, now: Now) -> Request {
        let published_at = LogTime::new(now.wall.as_nanos());
        let bytes: usize = bodies.iter().map(Bytes::len).sum();
        let admission_bytes = bytes + bodies.len() * MESSAGE_OVERHEAD_BYTES;
        self.admitting = Some(PendingPublish {
            kind,
            topic: topic.clone(),
            message_count: bodies.len() as u64,
            bytes: admission_bytes,
            received: now.monotonic,
            deadline: now.monotonic,
        });
        self.metrics.published_bytes.increment(bytes as u64);
        let message = |body: Bytes| NewMessage {
            crc32c: crc32c::crc32c(&body),
            body,
            defer_ms,
            published_at,
            origin: None,
        };
        let messages = bodies.into_iter().map(message).collect();
        Request::Publish(PublishRequest {
            topic,
            messages,
            admission_bytes,
        })
    }

    /// The publish of the last [`Request::Publish`] was admitted and handed to the broker. Its time runs from now: waiting for admission is
    /// back-pressure, not failure.
    pub(crate) fn submitted(&mut self, now: Monotonic) {
        let mut publish = self
            .admitting
            .take()
            .expect("a publish was requested and not yet submitted");
        publish.deadline = now + self.config.publish_timeout;
        self.reply(Reply::Publish(publish), now);
    }

    fn lease_command(
        &mut self,
        command: LeaseCommand,
        id: nsquorum_protocol::MessageId,
        now: Monotonic,
        run: impl FnOnce(&mut Consumer, Seq) -> Result<(), nsquorum_broker::NotHeld>,
    ) {
        let Some(seq) = id.to_seq().map(Seq::new) else {
            return self.reply(Reply::Error(command.failed(id, InFlightError::NotInFlight)), now);
        };
        // The decoder lets these commands pass only after SUB.
        let consumer = self.consumer.as_mut().expect("a subscribed connection has a consumer");
        match run(consumer, seq) {
            Ok(()) if command == LeaseCommand::Fin => self.metrics.finishes.increment(1),
            Ok(()) => {}
            Err(nsquorum_broker::NotHeld) => self.reply(Reply::NotHeld { command, id, seq }, now),
        }
    }

    fn identify(&mut self, body: &[u8], now: Monotonic) {
        let negotiated = IdentifyRequest::parse(body).and_then(|request| {
            let features = self.layers.offer(self.config.offered());
            request
                .negotiate_again(&self.settings, &self.config.limits, &features)
                .map(|outcome| (request, outcome))
        });
        let (request, outcome) = match negotiated {
            Ok(negotiated) => negotiated,
            Err(error) => return self.refuse(error, now),
        };
        let first = self.delivering.is_none();
        self.settings = outcome.settings;
        let delivering = *self.delivering.get_or_insert(outcome.settings);
        self.deadlines.identified(interval(&outcome.settings), first, now);
        self.record.update_client(|client| {
            client.client_id = request.client_id;
            client.hostname = request.hostname;
            client.user_agent = request.user_agent;
            client.topology_zone = request.topology_zone;
            client.topology_region = request.topology_region;
            client.sample_rate = delivering.sample_rate;
        });
        self.layers.grant(outcome.tls_v1, outcome.compression);
        self.reply(Reply::Response(outcome.response().clone()), now);
    }

    /// A consumer for a subscription that the broker granted.
    pub(super) fn new_consumer(&self, topic: TopicName, channel: ChannelName) -> Consumer {
        let settings = self.delivering.unwrap_or(self.settings);
        let max_msg_timeout = Duration::from_millis(self.config.limits.max_msg_timeout_ms);
        let leases = LeaseTable::new(Duration::from_millis(settings.msg_timeout_ms), max_msg_timeout);
        Consumer::new(topic, channel, settings.sample_rate, leases)
    }

    pub(super) fn set_state(&mut self, state: ConnectionState) {
        self.state = state;
        self.record.set_state(state);
    }

    /// Queues an answer behind those that are owed, and writes those that are ready.
    pub(super) fn reply(&mut self, reply: Reply, now: Monotonic) {
        self.replies.push(reply);
        self.settle(now);
    }

    /// An error in its place among the answers. If it is fatal no further command is read.
    pub(super) fn refuse(&mut self, error: ProtocolError, now: Monotonic) {
        if error.fatality() != Fatality::KeepOpen {
            self.finish(End::Linger, now);
        }
        self.reply(Reply::Error(error), now);
    }

    /// Reads no more commands and ends when everything owed is written.
    pub(crate) fn finish(&mut self, end: End, now: Monotonic) {
        if matches!(self.phase, Phase::Magic | Phase::Open) {
            let by = now + self.config.publish_timeout + FINISH_GRACE;
            self.phase = Phase::Finishing { end, by };
        }
    }

    /// Whether, and how, the connection is over.
    pub(crate) fn ended(&self) -> Option<End> {
        match self.phase {
            Phase::Ended(end) => Some(end),
            Phase::Finishing { end, .. } => {
                let owes_nothing = self.replies.is_empty()
                    && self.output.is_empty()
                    && self.admitting.is_none()
                    && self.subscribing.is_none();
                owes_nothing.then_some(end)
            }
            Phase::Magic | Phase::Open => None,
        }
    }
}

pub(super) fn interval(settings: &SessionSettings) -> Option<Duration> {
    settings.heartbeat_interval_ms.map(Duration::from_millis)
}
