//! Reading a batch in place.

use bytes::Bytes;

use crate::format::{FormatError, Reader};
use crate::{LogTime, Seq};

use super::MESSAGE_ROW_BYTES;
use super::event::Event;
use super::extension::{Fields, Origin};
use super::header::{BatchHeader, Layout};

/// A parsed batch over shared bytes; a clone is cheap.
///
/// All bounds are checked once, in [`BatchView::parse`]; after that nothing can fail. Whether a *body* is intact is
/// asked per message, where it leaves the cluster ([`MessageView::is_intact`]).
#[derive(Clone, Debug)]
pub struct BatchView {
    payload: Bytes,
    layout: Layout,
}

/// A message in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageView {
    /// Its number, if the batch was accepted.
    pub seq: Seq,
    /// The body: a slice of the batch's bytes.
    pub body: Bytes,
    /// CRC32C that the body had where it entered the cluster.
    pub crc32c: u32,
    /// Deferral in milliseconds, 0 for none.
    pub defer_ms: u32,
    /// Wall time of publication, nanoseconds since 1970.
    pub published_at: LogTime,
    /// The publish session it came through.
    pub origin: Option<Origin>,
}

impl MessageView {
    /// Whether the body still has the CRC32C that it entered the cluster with.
    pub fn is_intact(&self) -> bool {
        crc32c::crc32c(&self.body) == self.crc32c
    }
}

/// The fixed fields of a table row, read without touching bodies.
#[derive(Clone, Copy, Debug)]
struct Row {
    body_end: u32,
    crc32c: u32,
    flags: u32,
    defer_ms: u32,
    delta: i64,
    extension: u32,
}

impl Row {
    fn read(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            body_end: reader.u32("message row")?,
            crc32c: reader.u32("message row")?,
            flags: reader.u32("message row")?,
            defer_ms: reader.u32("message row")?,
            delta: reader.i64("message row")?,
            extension: reader.u32("message row")?,
        })
    }
}

const CHECKED: &str = "parse has checked every bound of this batch";

impl BatchView {
    /// Checks a payload completely. Never panics, whatever the bytes.
    ///
    /// # Errors
    /// If the payload is not a batch of a version that this program knows; trying again cannot help.
    pub fn parse(payload: Bytes) -> Result<Self, FormatError> {
        let layout = Layout::read(&payload)?;
        let view = Self { payload, layout };
        view.check_events()?;
        view.check_messages()?;
        Ok(view)
    }

    fn check_events(&self) -> Result<(), FormatError> {
        let mut reader = Reader::new(self.event_section());
        let mut last_deletes = false;
        for _ in 0..self.layout.event_count {
            if last_deletes {
                return Err(FormatError::Value {
                    what: "event after DeleteTopic",
                });
            }
            last_deletes = matches!(Event::read(&mut reader)?, Event::DeleteTopic);
        }
        if last_deletes != self.layout.header.closes_topic {
            return Err(FormatError::Value { what: "batch flags" });
        }
        reader.end("event section")
    }

    fn check_messages(&self) -> Result<(), FormatError> {
        let mut table = Reader::new(self.table());
        let mut begin = 0;
        let mut checked_block = 0;
        for _ in 0..self.layout.header.count {
            let row = Row::read(&mut table)?;
            if row.flags != 0 {
                return Err(FormatError::Value { what: "message flags" });
            }
            if row.body_end < begin {
                return Err(FormatError::Bounds { what: "body" });
            }
            begin = row.body_end;
            if row.extension != 0 && row.extension != checked_block {
                self.fields(row.extension)?;
                checked_block = row.extension;
            }
        }
        if begin != self.layout.body_bytes {
            return Err(FormatError::Bounds { what: "bodies" });
        }
        Ok(())
    }

    fn event_section(&self) -> &[u8] {
        &self.payload[self.layout.events_at()..self.layout.table_at()]
    }

    fn table(&self) -> &[u8] {
        &self.payload[self.layout.table_at()..self.layout.extensions_at()]
    }

    /// The fields of the block at `place` (1 + offset).
    fn fields(&self, place: u32) -> Result<Fields, FormatError> {
        let section = &self.payload[self.layout.extensions_at()..self.layout.bodies_at()];
        let block = section
            .get(place as usize - 1..)
            .ok_or(FormatError::Bounds { what: "extension" })?;
        Fields::read_block(block)
    }

    /// The batch header.
    pub const fn header(&self) -> BatchHeader {
        self.layout.header
    }

    /// Bytes of the payload.
    pub const fn encoded_len(&self) -> usize {
        self.payload.len()
    }

    /// The payload itself.
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// How many events it holds.
    pub const fn event_count(&self) -> u32 {
        self.layout.event_count
    }

    /// Bytes of all bodies together.
    pub const fn body_bytes(&self) -> u32 {
        self.layout.body_bytes
    }

    /// The events, in the order in which they are applied.
    pub fn events(&self) -> Events<'_> {
        Events {
            reader: Reader::new(self.event_section()),
            left: self.layout.event_count,
        }
    }

    /// The messages, in the order of their numbers. Bodies are slices, not copies.
    pub const fn messages(&self) -> Messages<'_> {
        Messages { view: self, at: 0 }
    }

    /// The message at position `i`, counted from 0.
    pub fn message(&self, i: u32) -> Option<MessageView> {
        if i >= self.layout.header.count {
            return None;
        }
        let row = self.row(i);
        let begin = if i == 0 { 0 } else { self.row(i - 1).body_end } as usize;
        let bodies = self.layout.bodies_at();
        let fields = if row.extension == 0 {
            Fields::default()
        } else {
            self.fields(row.extension).expect(CHECKED)
        };
        Some(MessageView {
            seq: self.layout.header.first_seq.plus(u64::from(i)),
            body: self.payload.slice(bodies + begin..bodies + row.body_end as usize),
            crc32c: row.crc32c,
            defer_ms: row.defer_ms,
            published_at: LogTime::new(self.layout.header.time.get().saturating_add_signed(row.delta)),
            origin: fields.origin,
        })
    }

    fn row(&self, i: u32) -> Row {
        let at = i as usize * MESSAGE_ROW_BYTES;
        Row::read(&mut Reader::new(&self.table()[at..at + MESSAGE_ROW_BYTES])).expect(CHECKED)
    }

    /// Whether apply has to look at sessions at all.
    pub(crate) fn has_origins(&self) -> bool {
        self.layout.extension_bytes > 0
    }

    /// The publishes that came through a session, in order, once each.
    pub fn origins(&self) -> impl Iterator<Item = Origin> + '_ {
        let at = if self.has_origins() {
            0
        } else {
            self.layout.header.count
        };
        Origins {
            view: self,
            at,
            block: 0,
        }
    }

    /// The deferred messages and their delays in milliseconds; what apply needs, without touching a body.
    pub(crate) fn deferrals(&self) -> impl Iterator<Item = (Seq, u32)> + '_ {
        let first_seq = self.layout.header.first_seq;
        (0..self.layout.header.count)
            .map(move |i| (first_seq.plus(u64::from(i)), self.row(i).defer_ms))
            .filter(|(_, delay_ms)| *delay_ms > 0)
    }
}

/// Iterator over the publishes of a batch that came through a session.
struct Origins<'a> {
    view: &'a BatchView,
    at: u32,
    /// The block of the message before: messages of one publish share one.
    block: u32,
}

impl Iterator for Origins<'_> {
    type Item = Origin;

    fn next(&mut self) -> Option<Origin> {
        while self.at < self.view.layout.header.count {
            let block = self.view.row(self.at).extension;
            self.at += 1;
            if std::mem::replace(&mut self.block, block) != block && block != 0 {
                let origin = self.view.fields(block).expect(CHECKED).origin;
                if origin.is_some() {
                    return origin;
                }
            }
        }
        None
    }
}

/// Iterator over the events of a batch.
#[derive(Clone, Debug)]
pub struct Events<'a> {
    reader: Reader<'a>,
    left: u32,
}

impl Iterator for Events<'_> {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.left = self.left.checked_sub(1)?;
        Some(Event::read(&mut self.reader).expect(CHECKED))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Events<'_> {}

/// Iterator over the messages of a batch.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    view: &'a BatchView,
    at: u32,
}

impl Iterator for Messages<'_> {
    type Item = MessageView;

    fn next(&mut self) -> Option<MessageView> {
        let message = self.view.message(self.at)?;
        self.at += 1;
        Some(message)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.view.layout.header.count - self.at) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Messages<'_> {}
