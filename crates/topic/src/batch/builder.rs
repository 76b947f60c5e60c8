//! Gathering events and messages into a batch.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{FeatureLevel, LogTime, Seq, Term};

use super::event::Event;
use super::extension::{Fields, Origin};
use super::header::{BatchHeader, Layout};
use super::{BATCH_HEADER_BYTES, MESSAGE_ROW_BYTES};

/// A message on its way into a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// The body, as the producer sent it.
    pub body: Bytes,
    /// CRC32C of the body, made where it entered the cluster.
    pub crc32c: u32,
    /// Deferral in milliseconds, counted from the release to the channels; 0 for none.
    pub defer_ms: u32,
    /// Wall time of publication, nanoseconds since 1970: the timestamp that consumers see.
    pub published_at: LogTime,
    /// The publish session it came through.
    pub origin: Option<Origin>,
}

impl NewMessage {
    /// An undeferred message without a session; computes the CRC32C.
    pub fn new(body: Bytes, published_at: LogTime) -> Self {
        let crc32c = crc32c::crc32c(&body);
        Self {
            body,
            crc32c,
            defer_ms: 0,
            published_at,
            origin: None,
        }
    }
}

/// Gathers what waits, and encodes it once.
///
/// Bodies are kept as shared slices and copied once, into the exactly sized buffer that becomes the stored entry. Numbers
/// and time are given at the end: they are known only when the batch before it has its place. A clone is cheap and lets
/// a refused batch be proposed again under other numbers.
#[derive(Clone, Debug, Default)]
pub struct BatchBuilder {
    room: usize,
    events: Vec<u8>,
    event_count: u32,
    closes_topic: bool,
    rows: Vec<Row>,
    extensions: Vec<u8>,
    /// The last block written and its place + 1: the messages of one MPUB share one origin.
    last_block: Option<(Fields, u32)>,
    bodies: Vec<Bytes>,
    body_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    body_end: u32,
    crc32c: u32,
    defer_ms: u32,
    published_at: LogTime,
    extension: u32,
}

impl BatchBuilder {
    /// An empty batch whose buffer will have `room` zero bytes in front, for the entry header.
    pub fn with_header_room(room: usize) -> Self {
        Self {
            room,
            ..Self::default()
        }
    }

    /// Adds an event. Events are applied in this order, before all messages.
    ///
    /// # Panics
    /// On any event after `DeleteTopic`: it could never take effect.
    pub fn push_event(&mut self, event: &Event) {
        assert!(!self.closes_topic, "DeleteTopic is the last event of its batch");
        self.closes_topic = matches!(event, Event::DeleteTopic);
        event.write(&mut self.events);
        self.event_count += 1;
    }

    /// Adds a message. Messages are numbered in this order.
    ///
    /// # Panics
    /// If the batch would reach 4 GiB; the caller ends a batch at the entry limit, three orders of magnitude below.
    pub fn push_message(&mut self, message: &NewMessage) {
        self.body_bytes += message.body.len();
        let body_end = u32::try_from(self.body_bytes).expect("entries are limited far below 4 GiB");
        let extension = self.place_block(Fields { origin: message.origin });
        self.rows.push(Row {
            body_end,
            crc32c: message.crc32c,
            defer_ms: message.defer_ms,
            published_at: message.published_at,
            extension,
        });
        self.bodies.push(message.body.clone());
    }

    fn place_block(&mut self, fields: Fields) -> u32 {
        if fields.is_empty() {
            return 0;
        }
        match self.last_block {
            Some((last, place)) if last == fields => place,
            _ => {
                let place = u32::try_from(self.extensions.len() + 1).expect("entries are limited far below 4 GiB");
                fields.write_block(&mut self.extensions);
                self.last_block = Some((fields, place));
                place
            }
        }
    }

    /// Bytes of the payload as it stands, without the room in front.
    pub fn encoded_len(&self) -> usize {
        BATCH_HEADER_BYTES
            + self.events.len()
            + self.rows.len() * MESSAGE_ROW_BYTES
            + self.extensions.len()
            + self.body_bytes
    }

    /// Whether nothing was added.
    pub const fn is_empty(&self) -> bool {
        self.event_count == 0 && self.rows.is_empty()
    }

    /// How many messages were added.
    pub const fn message_count(&self) -> u32 {
        self.rows.len() as u32
    }

    /// How many events were added.
    pub const fn event_count(&self) -> u32 {
        self.event_count
    }

    /// Whether `DeleteTopic` was added; nothing may follow it.
    pub const fn closes_topic(&self) -> bool {
        self.closes_topic
    }

    /// Encodes the batch for one place in the log: the room (zero bytes), then the payload.
    ///
    /// # Panics
    /// If `first_seq` is 0, or if the batch deletes the topic and has messages: they would be answered `OK` and lost.
    pub fn finish(self, term: Term, first_seq: Seq, time: LogTime, feature_level: FeatureLevel) -> BytesMut {
        assert!(first_seq.get() > 0, "numbers of messages begin at 1");
        assert!(
            !self.closes_topic || self.rows.is_empty(),
            "a batch that deletes the topic has no messages"
        );
        let layout = Layout {
            header: BatchHeader {
                term,
                first_seq,
                count: self.message_count(),
                time,
                feature_level,
                closes_topic: self.closes_topic,
            },
            event_count: self.event_count,
            event_bytes: u32::try_from(self.events.len()).expect("entries are limited far below 4 GiB"),
            extension_bytes: u32::try_from(self.extensions.len()).expect("entries are limited far below 4 GiB"),
            body_bytes: u32::try_from(self.body_bytes).expect("entries are limited far below 4 GiB"),
        };
        let total = self.room + self.encoded_len();
        let mut out = BytesMut::with_capacity(total);
        out.put_bytes(0, self.room);
        layout.write(&mut out);
        out.put_slice(&self.events);
        for row in &self.rows {
            out.put_u32_le(row.body_end);
            out.put_u32_le(row.crc32c);
            out.put_u32_le(0);
            out.put_u32_le(row.defer_ms);
            out.put_i64_le(delta(row.published_at, time));
            out.put_u32_le(row.extension);
        }
        out.put_slice(&self.extensions);
        for body in &self.bodies {
            out.put_slice(body);
        }
        assert_eq!(out.len(), total, "the batch has the length that was announced");
        out
    }
}

/// `published_at - time` in nanoseconds; saturates 292 years away.
fn delta(published_at: LogTime, time: LogTime) -> i64 {
    let difference = i128::from(published_at.get()) - i128::from(time.get());
    i64::try_from(difference).unwrap_or(if difference < 0 { i64::MIN } else { i64::MAX })
}
