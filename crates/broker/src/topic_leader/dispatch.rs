//! One channel's way through the log, and what came back to it.
//!
//! A message is in exactly one place: not read yet, in flight, set aside until its time ([`Dispatch::later`]), waiting at the tail after a
//! return ([`Dispatch::again`]), given back unwritten ([`Dispatch::returned`]), or on its way into the log (FIN or requeue, in the pipeline).
//!
//! Order: what was given back unwritten keeps its place and goes first. What a consumer requeued goes to the *tail*, as in nsqd: it
//! waits until the read position has reached the number that was the topic's next one when the requeue was applied.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use nsquorum_protocol::ChannelName;
use nsquorum_topic::{
    Attempts, BatchView, Channel, ChannelIncarnation, LogTime, MessageView, NodeId, Seq, SeqRange, Term, TopicState,
};

use super::later::Later;
use super::reader::{ReadPosition, ReaderKind};
use super::turns::Turns;
use super::window::Window;
use crate::latency::LatencyWindow;
use crate::leases::DeliveryToken;
use crate::nearness::{DeliveriesByNearness, Nearness};
use crate::subscription::SubscriptionId;

/// A consumer as its leader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConsumerId {
    /// The node that it is connected to; `None` is the leader's own.
    pub(super) node: Option<NodeId>,
    pub(super) subscription: SubscriptionId,
}

impl ConsumerId {
    pub(super) const fn local(subscription: SubscriptionId) -> Self {
        Self {
            node: None,
            subscription,
        }
    }
}

/// A message that a consumer holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) consumer: ConsumerId,
    pub(super) attempts: Attempts,
    /// The leader that delivered it, which may be an earlier one: what a consumer holds stays with it.
    pub(super) term: Term,
    pub(super) delivery: u64,
    /// Unknown of what an earlier leader delivered.
    pub(super) published_at: Option<LogTime>,
}

impl InFlight {
    pub(super) fn is(&self, token: &DeliveryToken) -> bool {
        (self.term, self.delivery) == (token.term, token.delivery)
    }

    pub(super) const fn token(&self, channel: ChannelIncarnation, seq: Seq) -> DeliveryToken {
        DeliveryToken {
            channel,
            seq,
            attempts: self.attempts,
            term: self.term,
            delivery: self.delivery,
        }
    }
}

/// What the next delivery is.
#[derive(Debug)]
pub(super) enum Next {
    /// This message, which was delivered `attempts` times so far.
    Message { message: MessageView, attempts: Attempts },
    /// Entries from the log first.
    Read,
    /// These messages from the log first.
    Fetch(Vec<Seq>),
    /// A read is under way, or there is nothing.
    Nothing,
}

/// Messages fetched ahead at most.
const FETCH_MAX: usize = 32;

/// A channel at its leader.
#[derive(Debug)]
pub(super) struct Dispatch {
    pub(super) channel: ChannelIncarnation,
    pub(super) name: ChannelName,
    begin: Seq,
    /// The next number to read.
    pub(super) read_next: Seq,
    /// Below it numbers may be finished already: this leader did not deliver them itself.
    horizon: Seq,
    /// Numbers at or above `read_next` that are in `later` or `again`, and must be skipped by reading.
    set_aside: BTreeSet<Seq>,
    /// Ascending ranges that the channel is done with as soon as that is in the log.
    passed_over: VecDeque<SeqRange>,
    later: Later,
    again: BTreeMap<(Seq, u64), (Seq, Attempts)>,
    again_count: u64,
    returned: BTreeMap<Seq, Attempts>,
    pub(super) in_flight: BTreeMap<Seq, InFlight>,
    /// Attached consumers.
    pub(super) consumers: BTreeMap<ConsumerId, Option<Nearness>>,
    /// Those with room.
    turns: Turns,
    /// Since this node leads.
    pub(super) deliveries: DeliveriesByNearness,
    /// Read ahead of the window: accepted batches in order.
    backlog: VecDeque<BatchView>,
    pub(super) resume: Option<ReadPosition>,
    pub(super) is_reading: bool,
    fetched: BTreeMap<Seq, MessageView>,
    pub(super) is_fetching: bool,
    /// What was measured so far; `None` as long as there is nothing.
    pub(super) latency: Option<LatencyWindow>,
}

impl Dispatch {
    /// A channel as the state knows it at this moment.
    pub(super) fn new(channel: &Channel, state: &TopicState) -> Self {
        let mut dispatch = Self {
            channel: channel.incarnation(),
            name: channel.name().clone(),
            begin: channel.begin(),
            read_next: channel.floor(),
            horizon: state.next_seq(),
            set_aside: BTreeSet::new(),
            passed_over: VecDeque::new(),
            later: Later::default(),
            again: BTreeMap::new(),
            again_count: 0,
            returned: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            consumers: BTreeMap::new(),
            turns: Turns::default(),
            deliveries: DeliveriesByNearness::default(),
            backlog: VecDeque::new(),
            resume: None,
            is_reading: false,
            fetched: BTreeMap::new(),
            is_fetching: false,
            latency: None,
        };
        let mut exceptions: Vec<_> = channel.exceptions().collect();
        exceptions.sort_by_key(|(seq, exception)| (exception.behind, *seq));
        for (seq, exception) in exceptions {
            dispatch.set_aside.insert(seq);
            match exception.not_before {
                Some(due) => dispatch.later.insert(seq, due, exception.attempts),
                None => dispatch.push_again(exception.behind, seq, exception.attempts),
            }
        }
        for (due, seq) in state.deferred() {
            if channel.exception(seq).is_none() {
                dispatch.defer(seq, due, channel);
            }
        }
        dispatch
    }

    /// A deferred message has reached the channel.
    pub(super) fn defer(&mut self, seq: Seq, due: LogTime, channel: &Channel) {
        if seq >= self.begin && !channel.is_finished(seq) && self.set_aside.insert(seq) {
            self.later.insert(seq, due, Attempts::default());
        }
    }

    /// A requeue was applied.
    pub(super) fn requeued(&mut self, seq: Seq, attempts: Attempts, not_before: Option<LogTime>, behind: Seq) {
        match not_before {
            Some(due) => self.later.insert(seq, due, attempts),
            None => self.push_again(behind, seq, attempts),
        }
    }

    fn push_again(&mut self, behind: Seq, seq: Seq, attempts: Attempts) {
        self.again_count += 1;
        self.again.insert((behind, self.again_count), (seq, attempts));
    }

    /// A delivery was never written to a socket.
    pub(super) fn give_back(&mut self, seq: Seq, attempts_before: Attempts) {
        self.returned.insert(seq, attempts_before);
    }

    /// Moves what is due by `now` to the tail, which is at `tail`.
    pub(super) fn release_due(&mut self, now: LogTime, tail: Seq) {
        while let Some((seq, attempts)) = self.later.pop_due(now) {
            self.push_again(tail, seq, attempts);
        }
    }

    /// When [`release_due`](Self::release_due) has something to do.
    pub(super) fn next_due(&self) -> Option<LogTime> {
        self.later.next_due()
    }

    /// Messages that wait for their time.
    pub(super) fn deferred_count(&self) -> u64 {
        self.later.len() as u64
    }

    /// Numbers were finished, by whomever: none of them waits for its time any more. (What waits otherwise is left out when its turn comes; the
    /// time may be an hour away, and whoever waits for the channel to be empty would see it until then.)
    pub(super) fn finished(&mut self, ranges: &[SeqRange], state: &TopicState) {
        let Some(channel) = state.channel(self.channel) else {
            return;
        };
        for range in ranges {
            self.later.remove_within(*range, |seq| channel.is_finished(seq));
        }
    }

    /// All that reached the channel below `up_to` is dropped.
    pub(super) fn empty(&mut self, up_to: Seq) {
        self.read_next = self.read_next.max(up_to);
        self.set_aside.clear();
        self.later.clear();
        self.again.clear();
        self.returned.clear();
        self.in_flight.clear();
        self.fetched.clear();
        self.drop_backlog();
    }

    /// Moves reading over the oldest messages that are neither delivered nor set aside, until no more than `depth_max` of them are left, and says
    /// which they are: the caller makes the channel be done with them.
    pub(super) fn overflow(&mut self, depth_max: u64, state: &TopicState) -> Vec<Seq> {
        let Some(channel) = state.channel(self.channel) else {
            return Vec::new();
        };
        let (from, end) = (self.read_next, state.readable_end());
        if end.get().saturating_sub(from.get()) <= depth_max {
            return Vec::new();
        }
        let unfinished = |from: Seq, end| channel.unfinished_below(end) - channel.unfinished_below(from.min(end));
        let passed_over = self.passed_over.iter();
        let passed_over: u64 = passed_over
            .map(|range| unfinished(range.first().max(from), range.last().next().max(from)))
            .sum();
        let unread = unfinished(from, end).saturating_sub(self.set_aside.len() as u64 + passed_over);
        let mut dropped = Vec::new();
        while (dropped.len() as u64) < unread.saturating_sub(depth_max) && self.read_next < end {
            let seq = self.read_next;
            // They are on their way into the log already.
            let is_over = self.is_before_passed_over() || self.skips(seq, state);
            self.read_next = seq.next();
            if !is_over {
                dropped.push(seq);
            }
        }
        dropped
    }

    /// From here on numbers below `next_seq` may be finished without having been delivered.
    pub(super) fn raise_horizon(&mut self, next_seq: Seq) {
        self.horizon = next_seq;
    }

    /// The channel is done with numbers that it has not read: reading stops before them until that is in the log.
    pub(super) fn pass_over(&mut self, range: SeqRange, state: &TopicState) {
        // A channel that nobody serves does not read, and its ranges would only become more.
        let unfinished_below = |end| {
            let channel = state.channel(self.channel);
            channel.map_or(0, |channel| channel.unfinished_below(end))
        };
        let is_done = |range: &SeqRange| unfinished_below(range.last().next()) == unfinished_below(range.first());
        while self.passed_over.front().is_some_and(is_done) {
            self.passed_over.pop_front();
        }
        match self.passed_over.back_mut() {
            Some(last) if last.last().next() == range.first() => {
                *last = SeqRange::new(last.first(), range.last()).expect("the range grows upwards");
            }
            _ => self.passed_over.push_back(range),
        }
        self.raise_horizon(self.horizon.max(range.last().next()));
    }

    /// How many ranges are to be passed over, as far as is known here.
    #[cfg(test)]
    pub(super) fn passed_over_ranges(&self) -> usize {
        self.passed_over.len()
    }

    /// The first number that reading still needs.
    pub(super) fn needed_from(&self) -> Seq {
        self.read_next
    }

    /// What to deliver next. A message returned by it has been taken.
    /// `has_room`: whether the state may grow.
    pub(super) fn next(&mut self, state: &TopicState, window: &Window, has_room: bool) -> Next {
        let Some(channel) = state.channel(self.channel) else {
            return Next::Nothing;
        };
        // First, because it may bring reading to the place where something waits.
        self.skip(state);
        while let Some((&seq, &attempts)) = self.returned.first_key_value() {
            if channel.is_finished(seq) {
                self.returned.pop_first();
                self.fetched.remove(&seq);
                continue;
            }
            let Some(message) = self.find(seq, window) else {
                return self.fetch(channel, state, window, has_room);
            };
            self.returned.pop_first();
            return Next::Message { message, attempts };
        }
        let may_read = has_room || self.fills_holes(channel);
        while let Some((&(behind, _), &(seq, attempts))) = self.again.first_key_value()
            && self.has_reached(behind, state, may_read)
        {
            let is_finished = channel.is_finished(seq);
            let message = if is_finished {
                self.fetched.remove(&seq)
            } else {
                self.find(seq, window)
            };
            if message.is_none() && !is_finished {
                return self.fetch(channel, state, window, has_room);
            }
            self.again.pop_first();
            if seq < self.read_next {
                self.set_aside.remove(&seq);
            }
            if let Some(message) = message.filter(|_| !is_finished) {
                return Next::Message { message, attempts };
            }
        }
        if may_read {
            self.read(state, window)
        } else {
            Next::Nothing
        }
    }

    /// Reading below what is finished already only makes the state smaller, and after a change of leaders it may be the only thing that does:
    /// what the last leader had in flight is unread then.
    fn fills_holes(&self, channel: &Channel) -> bool {
        channel
            .finished_above_floor_last()
            .is_some_and(|last| self.read_next < last)
    }

    /// Whether reading has reached a place in the tail, or cannot go on before what waits there was delivered: a paused topic holds
    /// numbers back for as long as somebody likes, and a full state until what came back is finished.
    fn has_reached(&self, behind: Seq, state: &TopicState, may_read: bool) -> bool {
        behind <= self.read_next || self.read_next >= state.readable_end() || !may_read
    }

    fn read(&mut self, state: &TopicState, window: &Window) -> Next {
        if self.read_next >= state.readable_end() || self.is_before_passed_over() {
            return Next::Nothing;
        }
        let Some(message) = self.read_message(window) else {
            return if self.is_reading { Next::Nothing } else { Next::Read };
        };
        self.read_next = self.read_next.next();
        Next::Message {
            message,
            attempts: Attempts::default(),
        }
    }

    fn is_before_passed_over(&mut self) -> bool {
        while self
            .passed_over
            .front()
            .is_some_and(|range| range.last() < self.read_next)
        {
            self.passed_over.pop_front();
        }
        self.passed_over
            .front()
            .is_some_and(|range| range.first() <= self.read_next)
    }

    /// Moves past numbers that are finished, or that come another way.
    fn skip(&mut self, state: &TopicState) {
        while self.read_next < state.readable_end() && self.skips(self.read_next, state) {
            self.read_next = self.read_next.next();
        }
    }

    fn skips(&mut self, seq: Seq, state: &TopicState) -> bool {
        if !self.set_aside.is_empty() && self.set_aside.remove(&seq) {
            return true;
        }
        seq < self.horizon
            && state
                .channel(self.channel)
                .is_none_or(|channel| channel.is_finished(seq))
    }

    fn read_message(&mut self, window: &Window) -> Option<MessageView> {
        let seq = self.read_next;
        if window.first().is_some_and(|first| first <= seq) {
            self.drop_backlog();
            return window.message(seq);
        }
        while self
            .backlog
            .front()
            .is_some_and(|batch| batch.header().end_seq() <= seq)
        {
            self.backlog.pop_front();
        }
        let batch = self.backlog.front()?;
        let offset = seq.get().checked_sub(batch.header().first_seq.get())?;
        batch.message(u32::try_from(offset).ok()?)
    }

    /// Entries from the log have arrived.
    pub(super) fn read_done(&mut self, batches: Vec<BatchView>, resume: ReadPosition) {
        self.is_reading = false;
        self.resume = Some(resume);
        self.backlog.extend(batches);
    }

    /// Whether a message still has to come from the log. It has not if the channel was emptied meanwhile.
    pub(super) fn wants(&self, seq: Seq, state: &TopicState) -> bool {
        let is_finished = state
            .channel(self.channel)
            .is_none_or(|channel| channel.is_finished(seq));
        let waits = seq == self.read_next
            || self.returned.contains_key(&seq)
            || self.again.values().any(|(waiting, _)| *waiting == seq);
        waits && !is_finished
    }

    /// A job failed for a message that is not wanted any more.
    pub(super) fn read_failed(&mut self, kind: ReaderKind) {
        match kind {
            ReaderKind::Read => {
                self.is_reading = false;
                self.resume = None;
            }
            ReaderKind::Fetch => self.is_fetching = false,
        }
    }

    fn drop_backlog(&mut self) {
        if !self.backlog.is_empty() {
            self.backlog.clear();
        }
        self.resume = None;
    }

    fn find(&mut self, seq: Seq, window: &Window) -> Option<MessageView> {
        window.message(seq).or_else(|| self.fetched.remove(&seq))
    }

    /// The messages that will be needed next and are not in memory.
    fn fetch(&self, channel: &Channel, state: &TopicState, window: &Window, has_room: bool) -> Next {
        if self.is_fetching {
            return Next::Nothing;
        }
        let returned = self.returned.keys();
        let may_read = has_room || self.fills_holes(channel);
        let again = self
            .again
            .iter()
            .take_while(|((behind, _), _)| self.has_reached(*behind, state, may_read))
            .map(|(_, (seq, _))| seq);
        let mut missing: Vec<Seq> = returned
            .chain(again)
            .copied()
            .filter(|seq| !channel.is_finished(*seq))
            .take(FETCH_MAX)
            .filter(|seq| window.message(*seq).is_none() && !self.fetched.contains_key(seq))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        Next::Fetch(missing)
    }

    /// Messages from the log have arrived.
    pub(super) fn fetch_done(&mut self, messages: Vec<MessageView>) {
        self.is_fetching = false;
        // Anything else was finished or emptied meanwhile.
        let wanted: BTreeSet<Seq> = self
            .returned
            .keys()
            .copied()
            .chain(self.again.values().map(|(seq, _)| *seq))
            .collect();
        self.fetched.extend(
            messages
                .into_iter()
                .filter(|message| wanted.contains(&message.seq))
                .map(|message| (message.seq, message)),
        );
    }

    /// A message is with somebody who is not known to this leader yet. False if it is not there to be had: this leader has delivered it, or it
    /// is finished.
    pub(super) fn take_away(&mut self, seq: Seq, state: &TopicState) -> bool {
        let is_finished = state
            .channel(self.channel)
            .is_none_or(|channel| channel.is_finished(seq));
        if is_finished || seq >= state.readable_end() || self.in_flight.contains_key(&seq) {
            return false;
        }
        // What is unread and not set aside waits nowhere. What is neither unread nor waits is on its way into the log.
        if seq >= self.read_next && self.set_aside.insert(seq) {
            return true;
        }
        self.stop_waiting(seq)
    }

    fn stop_waiting(&mut self, seq: Seq) -> bool {
        self.fetched.remove(&seq);
        self.returned.remove(&seq).is_some()
            || remove_first(&mut self.again, |(waiting, _)| *waiting == seq)
            || self.later.remove(seq)
    }

    /// A consumer has come.
    pub(super) fn attach(&mut self, id: ConsumerId, nearness: Option<Nearness>) {
        self.consumers.insert(id, nearness);
    }

    /// A consumer is gone.
    pub(super) fn detach(&mut self, id: ConsumerId) {
        self.leave_turn(id);
        self.consumers.remove(&id);
    }

    /// The next consumer with room, if any.
    pub(super) fn next_consumer(&self) -> Option<ConsumerId> {
        self.turns.next()
    }

    /// A consumer has room.
    pub(super) fn enter_turn(&mut self, id: ConsumerId) {
        self.turns.enter(id, self.nearness(id));
    }

    /// A consumer has none any more.
    pub(super) fn leave_turn(&mut self, id: ConsumerId) {
        self.turns.leave(id, self.nearness(id));
    }

    /// The first in turn was given a message.
    pub(super) fn served(&mut self, id: ConsumerId, nearness: Option<Nearness>) {
        self.deliveries.delivered(nearness);
        self.turns.served(id, nearness);
    }

    /// What a consumer was given came back unwritten.
    pub(super) fn unserved(&mut self, id: ConsumerId) {
        self.deliveries.returned(self.nearness(id));
    }

    fn nearness(&self, id: ConsumerId) -> Option<Nearness> {
        self.consumers.get(&id).copied().flatten()
    }
}

fn remove_first<K: Ord + Copy, V>(map: &mut BTreeMap<K, V>, is_it: impl Fn(&V) -> bool) -> bool {
    let key = map.iter().find(|(_, value)| is_it(value)).map(|(key, _)| *key);
    key.is_some_and(|key| map.remove(&key).is_some())
}
