//! A channel: a cursor over the topic's numbers.
//!
//! Nothing is copied per channel. What a channel holds is the difference between the topic's numbers and what its
//! consumers have done: a floor below which everything is finished, the finished numbers above it, and exceptions for
//! the messages that came back. Consumers that keep up leave all three next to empty.

use std::collections::BTreeMap;

use bytes::BufMut;
use nsquorum_protocol::ChannelName;

use crate::batch::read_name;
use crate::format::{FormatError, Reader};
use crate::seq_set::SeqSet;
use crate::{Attempts, ChannelIncarnation, LogTime, RequeueCause, Seq, SeqRange};

/// What a channel remembers of an unfinished message that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Deliveries made so far.
    pub attempts: Attempts,
    /// Log clock before which it is not delivered again; `None` for at once.
    pub not_before: Option<LogTime>,
    /// The topic's next number when it came back: as in NSQ it queues behind all messages below that.
    pub behind: Seq,
}

/// One life of a channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Channel {
    name: ChannelName,
    incarnation: ChannelIncarnation,
    is_paused: bool,
    begin: Seq,
    floor: Seq,
    /// Finished numbers above the floor; never the floor itself.
    finished: SeqSet,
    exceptions: BTreeMap<Seq, Exception>,
    counters: Counters,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    messages: u64,
    finished: u64,
    requeued: u64,
    timed_out: u64,
    disconnected: u64,
}

impl Channel {
    pub(crate) fn new(name: ChannelName, incarnation: ChannelIncarnation, begin: Seq) -> Self {
        Self {
            name,
            incarnation,
            is_paused: false,
            begin,
            floor: begin,
            finished: SeqSet::default(),
            exceptions: BTreeMap::new(),
            counters: Counters::default(),
        }
    }

    /// Its name.
    pub const fn name(&self) -> &ChannelName {
        &self.name
    }

    /// Which life of a name in the topic it is.
    pub const fn incarnation(&self) -> ChannelIncarnation {
        self.incarnation
    }

    /// Whether deliveries are stopped.
    pub const fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// The first number that belongs to it.
    pub const fn begin(&self) -> Seq {
        self.begin
    }

    /// The first unfinished number: everything below is finished, or was never the channel's. May be a number that does
    /// not exist yet.
    pub const fn floor(&self) -> Seq {
        self.floor
    }

    /// Whether its consumers are done with a number, or never had to do with it.
    pub fn is_finished(&self, seq: Seq) -> bool {
        seq < self.floor || self.finished.contains(seq)
    }

    /// The finished numbers above the floor, ascending.
    pub fn finished_above_floor(&self) -> impl Iterator<Item = Seq> + '_ {
        self.finished.iter()
    }

    /// How many numbers above the floor are finished.
    pub fn finished_above_floor_count(&self) -> u64 {
        self.finished.len()
    }

    /// The highest finished number above the floor: how wide the window of out-of-order work is.
    pub fn finished_above_floor_last(&self) -> Option<Seq> {
        self.finished.last()
    }

    /// The unfinished messages that came back, by number.
    pub fn exceptions(&self) -> impl DoubleEndedIterator<Item = (Seq, Exception)> + ExactSizeIterator + '_ {
        self.exceptions.iter().map(|(seq, exception)| (*seq, *exception))
    }

    /// What is remembered of an unfinished message that came back.
    pub fn exception(&self, seq: Seq) -> Option<Exception> {
        self.exceptions.get(&seq).copied()
    }

    /// How many numbers below `end` are unfinished; `end` is normally [`crate::TopicState::readable_end`].
    pub fn unfinished_below(&self, end: Seq) -> u64 {
        SeqRange::until(self.floor, end).map_or(0, |range| range.count() - self.finished.count_in(range))
    }

    /// Messages that have reached the channel since it was created.
    pub const fn message_count(&self) -> u64 {
        self.counters.messages
    }

    /// Messages finished by consumers.
    pub const fn finish_count(&self) -> u64 {
        self.counters.finished
    }

    /// Messages that came back by REQ.
    pub const fn requeue_count(&self) -> u64 {
        self.counters.requeued
    }

    /// Messages that came back by timeout.
    pub const fn timeout_count(&self) -> u64 {
        self.counters.timed_out
    }

    /// Messages that came back because their consumer's connection ended.
    pub const fn disconnect_count(&self) -> u64 {
        self.counters.disconnected
    }

    pub(crate) fn count_arrivals(&mut self, count: u64) {
        self.counters.messages = self.counters.messages.saturating_add(count);
    }

    /// Sets the pause; returns whether that changed anything.
    pub(crate) fn set_paused(&mut self, is_paused: bool) -> bool {
        std::mem::replace(&mut self.is_paused, is_paused) != is_paused
    }

    /// Consumers are done with a range; returns how many of its numbers were unfinished.
    pub(crate) fn finish(&mut self, range: SeqRange) -> u64 {
        let newly = self.drop_range(range);
        self.counters.finished = self.counters.finished.saturating_add(newly);
        newly
    }

    /// Makes a range finished without a consumer having done so.
    pub(crate) fn drop_range(&mut self, range: SeqRange) -> u64 {
        let Some(range) = SeqRange::new(range.first().max(self.floor), range.last()) else {
            return 0;
        };
        self.exceptions
            .extract_if(range.first()..=range.last(), |_, _| true)
            .for_each(drop);
        if range.first() > self.floor {
            return self.finished.insert(range);
        }
        let newly = range.count() - self.finished.count_in(range);
        self.floor = range.last().next();
        self.absorb();
        newly
    }

    /// Drops everything below `end`.
    pub(crate) fn empty(&mut self, end: Seq) {
        if end > self.floor {
            self.exceptions.extract_if(..end, |_, _| true).for_each(drop);
            self.floor = end;
            self.absorb();
        }
    }

    /// Lets the floor rise over the finished numbers that it has reached, and forgets those.
    fn absorb(&mut self) {
        self.finished.remove_below(self.floor);
        if self.finished.first() != Some(self.floor) {
            return;
        }
        for seq in self.finished.iter() {
            if seq != self.floor {
                break;
            }
            self.floor = seq.next();
        }
        self.finished.remove_below(self.floor);
    }

    /// A delivered message comes back. Does nothing, and returns `None`, if it is finished.
    pub(crate) fn requeue(
        &mut self,
        seq: Seq,
        attempts: Attempts,
        not_before: Option<LogTime>,
        behind: Seq,
        cause: RequeueCause,
    ) -> Option<Exception> {
        if self.is_finished(seq) {
            return None;
        }
        let attempts = self.exception(seq).map_or(attempts, |old| old.attempts.max(attempts));
        let exception = Exception {
            attempts,
            not_before,
            behind,
        };
        self.exceptions.insert(seq, exception);
        let counter = match cause {
            RequeueCause::Requeue => &mut self.counters.requeued,
            RequeueCause::Timeout => &mut self.counters.timed_out,
            RequeueCause::Disconnect => &mut self.counters.disconnected,
        };
        *counter = counter.saturating_add(1);
        Some(exception)
    }

    /// `u64 incarnation, u8 name length, name, u8 paused, u64 begin, u64 floor, u64 counters: messages, finished,
    /// requeued, timed out, disconnected; number set of finished; u32 exceptions, each u64 number, u16 attempts,
    /// u8 1 if "not before" is set, u64 not before (0 if not set), u64 behind`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.incarnation.get());
        out.put_u8(u8::try_from(self.name.as_str().len()).expect("names have at most 64 bytes"));
        out.put_slice(self.name.as_str().as_bytes());
        out.put_u8(u8::from(self.is_paused));
        out.put_u64_le(self.begin.get());
        out.put_u64_le(self.floor.get());
        let Counters {
            messages,
            finished,
            requeued,
            timed_out,
            disconnected,
        } = self.counters;
        for counter in [messages, finished, requeued, timed_out, disconnected] {
            out.put_u64_le(counter);
        }
        self.finished.encode(out);
        out.put_u32_le(
            u32::try_from(self.exceptions.len())
                .expect("the number of requeued messages is limited far below 4 billion"),
        );
        for (seq, exception) in &self.exceptions {
            out.put_u64_le(seq.get());
            out.put_u16_le(exception.attempts.get());
            out.put_u8(u8::from(exception.not_before.is_some()));
            out.put_u64_le(exception.not_before.map_or(0, LogTime::get));
            out.put_u64_le(exception.behind.get());
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let incarnation = ChannelIncarnation::new(reader.u64("channel incarnation")?);
        let name_bytes = usize::from(reader.u8("channel name")?);
        let name = read_name(reader, name_bytes)?;
        let is_paused = reader.flag("channel pause")?;
        let begin = Seq::new(reader.u64("channel begin")?);
        let floor = Seq::new(reader.u64("channel floor")?);
        let counters = Counters {
            messages: reader.u64("channel counter")?,
            finished: reader.u64("channel counter")?,
            requeued: reader.u64("channel counter")?,
            timed_out: reader.u64("channel counter")?,
            disconnected: reader.u64("channel counter")?,
        };
        let finished = SeqSet::decode(reader)?;
        let mut exceptions = BTreeMap::new();
        for _ in 0..reader.u32("exceptions")? {
            let seq = Seq::new(reader.u64("exception")?);
            let attempts = Attempts::new(reader.u16("exception")?);
            let is_set = reader.flag("exception")?;
            let time = LogTime::new(reader.u64("exception")?);
            let behind = Seq::new(reader.u64("exception")?);
            exceptions.insert(
                seq,
                Exception {
                    attempts,
                    not_before: is_set.then_some(time),
                    behind,
                },
            );
        }
        Ok(Self {
            name,
            incarnation,
            is_paused,
            begin,
            floor,
            finished,
            exceptions,
            counters,
        })
    }

    /// Whether the parts agree with each other and with the topic's next number.
    pub(crate) fn is_consistent(&self, next_seq: Seq) -> bool {
        self.begin <= self.floor
            && self.floor <= next_seq
            && self.finished.first().is_none_or(|first| first > self.floor)
            && self.finished.last().is_none_or(|last| last < next_seq)
            && self
                .exceptions
                .keys()
                .all(|seq| *seq < next_seq && !self.is_finished(*seq))
    }
}
