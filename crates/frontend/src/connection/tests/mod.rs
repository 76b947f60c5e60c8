//! The machine under scripted inputs.

mod authority;
mod commands;
mod consuming;
mod publishing;
mod timing;
mod upgrades;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nsquorum_broker::{ClientDescription, Delivery, DeliveryToken, Outages, SubscriptionEvent};
use nsquorum_environment::{Monotonic, SeededRandom, WallTime};
use nsquorum_protocol::{ChannelName, Frame, FrameDecoder, Limits, MAGIC_V2, ServerFeatures, TopicName, encode, frame};
use nsquorum_topic::{Attempts, ChannelIncarnation, LogTime, Seq, Term};

use super::machine::{End, Machine, MachineParts, Now, Request};
use crate::config::FrontendConfig;
use crate::metrics::FrontendMetrics;
use crate::registry::ConnectionRecord;
use crate::tls::{ClientAuth, MinVersion, ServerTls, TlsSettings};

pub(super) const WALL: WallTime = WallTime::from_nanos(1_700_000_000_000_000_000);

/// A machine, what its client has sent and not been decoded, and a clock.
pub(super) struct Script {
    pub(super) machine: Machine,
    pub(super) input: BytesMut,
    pub(super) ended: bool,
    pub(super) now: Monotonic,
    pub(super) record: Arc<ConnectionRecord>,
    pub(super) outages: Outages,
    frames: FrameDecoder,
    written: BytesMut,
}

pub(super) fn config() -> FrontendConfig {
    FrontendConfig {
        limits: Limits::default(),
        features: ServerFeatures::default(),
        tls: None,
        tls_required: false,
        auth: None,
        max_channel_consumers: None,
        topology: None,
        release: String::new(),
        publish_timeout: Duration::from_secs(5),
        broadcast_address: "node".to_owned(),
        hostname: "node".to_owned(),
        started_at: WALL,
        on_corruption: Arc::new(|_| {}),
    }
}

impl Script {
    /// A connection that has sent nothing.
    pub(super) fn new() -> Self {
        Self::with(config())
    }

    pub(super) fn with(config: FrontendConfig) -> Self {
        Self::at(config, Outages::default(), Monotonic::START)
    }

    /// Another connection of the same node, right now, that has sent the magic.
    pub(super) fn reconnect(&self) -> Self {
        let mut script = Self::at(config(), self.outages.clone(), self.now);
        assert_eq!(script.send(MAGIC_V2), None);
        script
    }

    fn at(config: FrontendConfig, outages: Outages, now: Monotonic) -> Self {
        let record = Arc::new(ConnectionRecord::new(ClientDescription {
            client_id: "10.0.0.1".to_owned(),
            hostname: "10.0.0.1".to_owned(),
            user_agent: String::new(),
            remote_address: "10.0.0.1:5000".to_owned(),
            connected_at: WALL,
            sample_rate: 0,
            topology_zone: String::new(),
            topology_region: String::new(),
        }));
        let parts = MachineParts {
            config: Arc::new(config),
            random: Arc::new(SeededRandom::new(1)),
            metrics: FrontendMetrics::new(),
            record: Arc::clone(&record),
            outages: outages.clone(),
        };
        Self {
            machine: Machine::new(parts, now),
            input: BytesMut::new(),
            ended: false,
            now,
            record,
            outages,
            frames: FrameDecoder::new(8 << 20),
            written: BytesMut::new(),
        }
    }

    /// A connection that has sent the magic.
    pub(super) fn open() -> Self {
        let mut script = Self::new();
        assert_eq!(script.send(MAGIC_V2), None);
        script
    }

    /// A connection that consumes topic `t`, channel `c`, and has been told so.
    pub(super) fn subscribed(ready: u32) -> Self {
        let mut script = Self::open();
        script.subscribe();
        script.send(format!("RDY {ready}\n").as_bytes());
        script.machine.take_to_leader();
        script
    }

    pub(super) fn subscribe(&mut self) {
        let request = self.send(b"SUB t c\n");
        assert!(matches!(request, Some(Request::Subscribe { .. })), "{request:?}");
        self.machine.subscribed(Ok::<(), String>(()), self.now);
        assert_eq!(self.take_frames(), [ok()]);
    }

    pub(super) fn times(&self) -> Now {
        Now {
            monotonic: self.now,
            wall: WALL,
        }
    }

    /// The client sends bytes; returns what the machine asks for next.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Option<Request> {
        self.input.extend_from_slice(bytes);
        self.next()
    }

    pub(super) fn next(&mut self) -> Option<Request> {
        let now = self.times();
        self.machine.next(&mut self.input, self.ended, now)
    }

    /// Sends bytes, admits every publish at once, and says how many there were.
    pub(super) fn send_publishes(&mut self, bytes: &[u8]) -> usize {
        let mut count = 0;
        let mut request = self.send(bytes);
        while let Some(Request::Publish(_)) = request {
            count += 1;
            self.machine.submitted(self.now);
            request = self.next();
        }
        assert_eq!(request, None);
        count
    }

    pub(super) fn end_input(&mut self) -> Option<Request> {
        self.ended = true;
        self.next()
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
        self.machine.on_time(self.now);
    }

    /// The socket takes up to `bytes_max` bytes.
    pub(super) fn write(&mut self, bytes_max: usize) -> usize {
        let mut taken = 0;
        while taken < bytes_max && !self.machine.output().is_empty() {
            let mut slices = [std::io::IoSlice::new(&[]); super::output::SLICES_MAX];
            let count = self.machine.output().slices(&mut slices);
            let bytes = slices[..count].iter().flat_map(|slice| slice.iter().copied());
            let piece: Vec<u8> = bytes.take(bytes_max - taken).collect();
            self.written.extend_from_slice(&piece);
            self.machine.wrote(piece.len(), self.now);
            taken += piece.len();
        }
        taken
    }

    /// Everything is written; the frames that the client has got since the last call.
    pub(super) fn take_frames(&mut self) -> Vec<Frame> {
        self.write(usize::MAX);
        self.arrived()
    }

    /// The complete frames among what was written.
    pub(super) fn arrived(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.frames.decode(&mut self.written).expect("well-formed frames") {
            frames.push(frame);
        }
        frames
    }

    pub(super) fn deliver(&mut self, seq: u64, body: &'static [u8]) {
        self.machine
            .subscription_event(SubscriptionEvent::Deliver(delivery(seq, 1, body)))
            .expect("intact");
    }

    #[track_caller]
    pub(super) fn assert_ends_with_error(&mut self, text: &str) {
        assert_eq!(self.take_frames(), [error(text)]);
        assert_eq!(self.machine.ended(), Some(End::Linger));
        assert!(!self.machine.wants_input());
    }
}

pub(super) fn delivery(seq: u64, attempts: u16, body: &'static [u8]) -> Delivery {
    Delivery {
        token: DeliveryToken {
            channel: ChannelIncarnation::new(1),
            seq: Seq::new(seq),
            attempts: Attempts::new(attempts),
            term: Term::new(1),
            delivery: seq,
        },
        published_at: LogTime::new(77),
        body: Bytes::from_static(body),
        crc32c: crc32c::crc32c(body),
    }
}

pub(super) fn ok() -> Frame {
    Frame::Response(Bytes::from_static(frame::OK))
}

pub(super) fn heartbeat() -> Frame {
    Frame::Response(Bytes::from_static(frame::HEARTBEAT))
}

pub(super) fn error(text: &str) -> Frame {
    Frame::Error(Bytes::copy_from_slice(text.as_bytes()))
}

pub(super) fn topic() -> TopicName {
    TopicName::try_from("t").expect("valid")
}

pub(super) fn channel() -> ChannelName {
    ChannelName::try_from("c").expect("valid")
}

pub(super) fn publish(body: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::new();
    encode::publish(&mut bytes, &topic(), body);
    bytes
}

pub(super) fn identify(json: &str) -> BytesMut {
    let mut bytes = BytesMut::new();
    encode::identify(&mut bytes, json.as_bytes());
    bytes
}
