//! The state as bytes.
//!
//! The encoding is canonical: equal states have equal bytes, whatever way they came about, so a digest of it can be
//! compared between replicas. Decoding enforces that: it encodes what it read and compares. Little-endian, version 1:
//!
//! ```text
//! u32  magic "NSQt"
//! u16  version = 1
//! u64  seq_base
//! u64  next_seq
//! u8   1 if the topic is deleted
//! u8   1 if a batch was ever accepted, u64 term of the last one (0 if none)
//! u64  time
//! u8   1 if there is a leader, then u64 node, u64 incarnation, u64 term, u64 clock (0 if none)
//! u8   1 if an entry was applied, u64 index, u64 term (0 if none)
//! u64  floor of the topic while it has no channel, else 0
//! u8   1 if the topic is paused, u64 paused_at (0 if not)
//! u64  last channel incarnation minted
//! u64  messages, u64 bytes of bodies, u64 void batches
//! u32  channels, ascending by incarnation (`channel`)
//!      deferred messages (`deferral`)
//!      index points (`index_points`)
//!      sessions (`session`)
//! ```

use bytes::BufMut;

use crate::acceptance::Cursor;
use crate::batch::LeaderStart;
use crate::channel::Channel;
use crate::deferral::Deferrals;
use crate::format::{FormatError, Reader};
use crate::index_points::IndexPoints;
use crate::session::Sessions;
use crate::{ChannelIncarnation, LogIndex, LogTime, NodeId, NodeIncarnation, Seq, Term};

use super::{Counters, TopicState};

const MAGIC: u32 = u32::from_le_bytes(*b"NSQt");
const VERSION: u16 = 1;

/// About how many bytes a state takes; meant for limits, so rather too high.
pub(super) fn estimate(
    channels: usize,
    exceptions: usize,
    out_of_order: u64,
    deferred: usize,
    points: usize,
    (sessions, session_numbers): (usize, u64),
) -> u64 {
    const FIXED: u64 = 160;
    const CHANNEL: u64 = 160;
    const EXCEPTION: u64 = 27;
    /// A range of its own for every number is the worst case below the switch to bitmaps.
    const OUT_OF_ORDER: u64 = 4;
    const DEFERRED: u64 = 16;
    const POINT: u64 = 24;
    const SESSION: u64 = 28;
    FIXED
        + channels as u64 * CHANNEL
        + exceptions as u64 * EXCEPTION
        + out_of_order * OUT_OF_ORDER
        + deferred as u64 * DEFERRED
        + points as u64 * POINT
        + sessions as u64 * SESSION
        + session_numbers * OUT_OF_ORDER
}

impl TopicState {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.put_u32_le(MAGIC);
        out.put_u16_le(VERSION);
        out.put_u64_le(self.seq_base.get());
        out.put_u64_le(self.cursor.next_seq.get());
        out.put_u8(u8::from(self.cursor.is_deleted));
        put_option(&mut out, self.cursor.last_term.map(|term| [term.get()]));
        out.put_u64_le(self.time.get());
        put_option(
            &mut out,
            self.leader.map(|start| {
                [
                    start.node.get(),
                    start.incarnation.get(),
                    start.term.get(),
                    start.clock.get(),
                ]
            }),
        );
        put_option(&mut out, self.applied.map(|(index, term)| [index.get(), term.get()]));
        out.put_u64_le(self.floor.get());
        put_option(&mut out, self.paused_at.map(|seq| [seq.get()]));
        out.put_u64_le(self.last_incarnation.get());
        out.put_u64_le(self.counters.messages);
        out.put_u64_le(self.counters.message_bytes);
        out.put_u64_le(self.counters.void_batches);
        out.put_u32_le(u32::try_from(self.channels.len()).expect("a topic has far fewer than 4 billion channels"));
        for channel in self.channels.values() {
            channel.encode(&mut out);
        }
        self.deferrals.encode(&mut out);
        self.points.encode(&mut out);
        self.sessions.encode(&mut out);
        out
    }

    /// Reads an encoded state. Never panics.
    ///
    /// # Errors
    /// If the bytes are not the canonical encoding of a consistent state, of a version that this program knows. Trying
    /// again cannot help.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        let state = Self::read(&mut reader)?;
        reader.end("state")?;
        if !state.is_consistent() {
            return Err(FormatError::Value {
                what: "state contradicts itself",
            });
        }
        if state.encode() != bytes {
            return Err(FormatError::NotCanonical);
        }
        Ok(state)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        if reader.u32("state magic")? != MAGIC {
            return Err(FormatError::Value { what: "state magic" });
        }
        let version = reader.u16("state version")?;
        if version != VERSION {
            return Err(FormatError::Version { what: "state", version });
        }
        let mut state = Self::new(Seq::default());
        state.seq_base = Seq::new(reader.u64("seq_base")?);
        let next_seq = Seq::new(reader.u64("next_seq")?);
        let is_deleted = reader.flag("deleted")?;
        let last_term = option(reader, "last term")?.map(|[term]| Term::new(term));
        state.cursor = Cursor {
            next_seq,
            last_term,
            is_deleted,
        };
        state.time = LogTime::new(reader.u64("time")?);
        state.leader = option(reader, "leader")?.map(|[node, incarnation, term, clock]| LeaderStart {
            node: NodeId::new(node),
            incarnation: NodeIncarnation::new(incarnation),
            term: Term::new(term),
            clock: LogTime::new(clock),
        });
        state.applied = option(reader, "applied")?.map(|[index, term]| (LogIndex::new(index), Term::new(term)));
        state.floor = Seq::new(reader.u64("topic floor")?);
        state.paused_at = option(reader, "paused at")?.map(|[seq]| Seq::new(seq));
        state.last_incarnation = ChannelIncarnation::new(reader.u64("last incarnation")?);
        state.counters = Counters {
            messages: reader.u64("topic counter")?,
            message_bytes: reader.u64("topic counter")?,
            void_batches: reader.u64("topic counter")?,
        };
        for _ in 0..reader.u32("channels")? {
            let channel = Channel::decode(reader)?;
            state.names.insert(channel.name().clone(), channel.incarnation());
            state.channels.insert(channel.incarnation(), channel);
        }
        state.deferrals = Deferrals::decode(reader)?;
        state.points = IndexPoints::decode(reader)?;
        state.sessions = Sessions::decode(reader)?;
        Ok(state)
    }

    /// Whether the parts agree with each other. What every apply keeps true; what damaged bytes may not.
    fn is_consistent(&self) -> bool {
        let next_seq = self.next_seq();
        let lines = self.seq_base < next_seq
            && if self.channels.is_empty() {
                self.floor.get() > 0
            } else {
                self.floor.get() == 0
            }
            && self.readable_end() <= next_seq
            && self.paused_at.is_none_or(|paused_at| paused_at == self.readable_end())
            && self.purge_floor() > self.seq_base;
        let channels = self.names.len() == self.channels.len()
            && self
                .channels
                .keys()
                .all(|channel| channel.get() > 0 && *channel <= self.last_incarnation)
            && self.channels.values().all(|channel| channel.is_consistent(next_seq));
        let messages = self.deferrals.due().all(|(_, seq)| seq < next_seq)
            && self
                .deferrals
                .unreleased()
                .all(|(seq, _)| seq < next_seq && seq >= self.readable_end())
            && self.points.iter().all(|point| point.next_seq < next_seq);
        lines && channels && messages && self.sessions.is_consistent()
    }
}

/// A flag, then the numbers, or as many zeros.
fn put_option<const N: usize>(out: &mut Vec<u8>, numbers: Option<[u64; N]>) {
    out.put_u8(u8::from(numbers.is_some()));
    for number in numbers.unwrap_or([0; N]) {
        out.put_u64_le(number);
    }
}

fn option<const N: usize>(reader: &mut Reader<'_>, what: &'static str) -> Result<Option<[u64; N]>, FormatError> {
    let is_set = reader.flag(what)?;
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = reader.u64(what)?;
    }
    Ok(is_set.then_some(numbers))
}
