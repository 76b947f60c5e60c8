//! What waits to be proposed, what is proposed, and what happens when a proposal is refused.
//!
//! Only this leader proposes, in order. A batch says which number it begins with, so several may be under way: if one is refused, those
//! behind it are void when they are applied, without harm. After a refusal or a void batch nothing more is proposed until everything
//! under way has settled; then all of it goes again, in the original order, under the numbers that the applied state says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use nsquorum_environment::Monotonic;
use nsquorum_protocol::ChannelName;
use nsquorum_topic::batch::MESSAGE_ROW_BYTES;
use nsquorum_topic::{
    Attempts, BatchBuilder, ChannelIncarnation, Event, LogTime, RequeueCause, Seq, SeqRange, SessionId, Term,
};
use tokio::sync::oneshot;

use super::input::{Publish, PublishAnswer};
use crate::leases::{DeliveryToken, LeaseEvent, LeaseOutcome};
use crate::node::AdminError;
use crate::publish::PublishError;

/// How long finished numbers wait for company. Nobody waits for a FIN, and a message published meanwhile takes them along for nothing:
/// without this each FIN of a slow consumer would be a sync of its own, in the way of the next publish.
pub(super) const FINISH_LINGER: Duration = Duration::from_millis(5);
/// How long nothing is proposed after a refusal: a lease that has run out is not back at once, and asking in a loop would keep a core busy.
pub(super) const REFUSAL_PAUSE: Duration = Duration::from_millis(5);
/// Finished numbers that do not wait any longer.
const FINISHES_WAITING_MAX: usize = 4096;
/// Finished numbers plus requeues of one batch.
const EVENTS_PER_BATCH_MAX: usize = 65_536;

/// A change with somebody who waits for it.
#[derive(Debug)]
pub(super) enum Request {
    Publish {
        publish: Publish,
        bytes: usize,
    },
    Command {
        event: Event,
        answer: Option<oneshot::Sender<Result<(), AdminError>>>,
    },
}

impl Request {
    pub(super) fn fail(self, publish: PublishError, admin: AdminError) {
        // Whoever waited may have given up: nothing to tell then.
        match self {
            Self::Publish { publish: request, .. } => {
                if let PublishAnswer::Client(answer) = request.answer {
                    _ = answer.send(Err(publish));
                }
            }
            Self::Command {
                answer: Some(answer), ..
            } => drop(answer.send(Err(admin))),
            Self::Command { answer: None, .. } => {}
        }
    }
}

/// Whom a leader on another node has to tell that something is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Publish {
        session: SessionId,
        number: u64,
    },
    Events(EventsMark),
    /// All that had been put into the pipeline before its flush.
    Flush,
}

/// All events of a node's router, in this life of it, up to this one have been put into the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventsMark {
    pub(super) router: SessionId,
    pub(super) last: u64,
}

/// A place among the events, to be told when all before it are in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Node(EventsMark),
    Flush,
}

impl From<Mark> for Stored {
    fn from(mark: Mark) -> Self {
        match mark {
            Mark::Node(mark) => Self::Events(mark),
            Mark::Flush => Self::Flush,
        }
    }
}

/// The contents of one batch.
#[derive(Debug, Default)]
struct Content {
    requests: Vec<Request>,
    finishes: BTreeMap<ChannelIncarnation, Vec<Seq>>,
    requeues: Vec<Event>,
    /// With this batch, all events up to these are in the log.
    marks: Vec<Mark>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    UnderWay,
    NotInLog,
}

#[derive(Debug)]
struct Proposed {
    ticket: u64,
    first_seq: Seq,
    content: Content,
    fate: Fate,
}

/// A batch that is ready to be proposed.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) ticket: u64,
    pub(super) builder: BatchBuilder,
    pub(super) first_seq: Seq,
}

/// Waiting and proposed changes of one topic.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    requests: VecDeque<Request>,
    finishes: BTreeMap<ChannelIncarnation, Vec<Seq>>,
    finish_count: usize,
    finishes_since: Option<Monotonic>,
    requeues: VecDeque<Event>,
    under_way: VecDeque<Proposed>,
    /// Something was refused or void: settle, then go again.
    is_stalled: bool,
    /// Nothing is proposed before.
    not_before: Monotonic,
    next_seq: Seq,
    next_ticket: u64,
    deferred_waiting: u64,
    /// Publishes of sessions that wait or are under way.
    numbers: BTreeSet<(SessionId, u64)>,
    /// Marks whose events wait.
    marks: Vec<Mark>,
}

impl Pipeline {
    /// A new leadership: numbers continue at `next_seq`.
    pub(super) fn start(&mut self, next_seq: Seq) {
        assert!(self.under_way.is_empty(), "a leadership begins with nothing under way");
        self.next_seq = next_seq;
        self.is_stalled = false;
    }

    pub(super) fn publish(&mut self, publish: Publish) {
        // Its row counts too: a million bodies of one byte are an entry of 29 MB.
        let bytes = publish
            .messages
            .iter()
            .map(|message| message.body.len() + MESSAGE_ROW_BYTES)
            .sum();
        self.deferred_waiting += deferred_in(&publish);
        self.numbers.extend(number_of(&publish));
        self.requests.push_back(Request::Publish { publish, bytes });
    }

    pub(super) fn command(&mut self, event: Event, answer: Option<oneshot::Sender<Result<(), AdminError>>>) {
        self.requests.push_back(Request::Command { event, answer });
    }

    /// Commands that go before everything that waits.
    pub(super) fn commands_first(&mut self, events: impl DoubleEndedIterator<Item = Event>) {
        for event in events.rev() {
            self.requests.push_front(Request::Command { event, answer: None });
        }
    }

    pub(super) fn finish(&mut self, channel: ChannelIncarnation, seq: Seq, now: Monotonic) {
        self.finishes.entry(channel).or_default().push(seq);
        self.finish_count += 1;
        self.finishes_since.get_or_insert(now);
    }

    pub(super) fn requeue(&mut self, event: Event) {
        self.requeues.push_back(event);
    }

    /// Whether a pause waits or is under way, even with its end behind it: if that end is refused, what was proposed behind it may be
    /// applied before it goes again, because it has no messages whose numbers would be missed.
    pub(super) fn is_pausing(&self) -> bool {
        self.has_command(|event| *event == Event::PauseTopic)
    }

    /// Whether a channel's end waits or is under way.
    pub(super) fn is_deleting(&self, channel: ChannelIncarnation) -> bool {
        self.has_command(|event| *event == Event::DeleteChannel { channel })
    }

    /// Whether a channel, or the end of the topic, waits or is under way.
    pub(super) fn has_channel_or_end(&self) -> bool {
        self.has_command(|event| matches!(event, Event::CreateChannel { .. } | Event::DeleteTopic))
    }

    fn has_command(&self, is_it: impl Fn(&Event) -> bool) -> bool {
        let proposed = self.under_way.iter().flat_map(|proposed| &proposed.content.requests);
        proposed.chain(&self.requests).any(|request| match request {
            Request::Command { event, .. } => is_it(event),
            Request::Publish { .. } => false,
        })
    }

    /// Whether a publish of a session waits or is under way.
    pub(super) fn has(&self, session: SessionId, number: u64) -> bool {
        self.numbers.contains(&(session, number))
    }

    /// The lowest publish of a session that waits or is under way.
    pub(super) fn lowest(&self, session: SessionId) -> Option<u64> {
        let (_, number) = self.numbers.range((session, 0)..=(session, u64::MAX)).next()?;
        Some(*number)
    }

    /// Remembers that the events so far are those before `mark`. Returns it at once if all of them are in the log, or changed nothing.
    pub(super) fn mark(&mut self, mark: Mark) -> Option<Mark> {
        if self.finish_count > 0 || !self.requeues.is_empty() {
            self.marks.push(mark);
        } else if let Some(last) = self.under_way.back_mut() {
            last.content.marks.push(mark);
        } else {
            return Some(mark);
        }
        None
    }

    /// What waits for company goes at once.
    pub(super) fn hurry(&mut self) {
        if self.finishes_since.is_some() {
            self.finishes_since = Some(Monotonic::START);
        }
    }

    /// Deferred messages that are not applied yet.
    pub(super) fn deferred_waiting(&self) -> u64 {
        self.deferred_waiting
    }

    /// Messages of a channel whose FIN is decided but not applied.
    pub(super) fn finishing(&self, channel: ChannelIncarnation) -> u64 {
        let proposed = self.under_way.iter().map(|proposed| &proposed.content.finishes);
        let of_channel = proposed
            .chain([&self.finishes])
            .filter_map(|finishes| finishes.get(&channel));
        of_channel.map(Vec::len).sum::<usize>() as u64
    }

    /// Messages of a channel whose return with a delay is decided but not applied.
    pub(super) fn deferring(&self, channel: ChannelIncarnation) -> u64 {
        let proposed = self.under_way.iter().flat_map(|proposed| &proposed.content.requeues);
        let is_deferred =
            |event: &&Event| matches!(event, Event::Requeue { channel: of, not_before: Some(_), .. } if *of == channel);
        proposed.chain(&self.requeues).filter(is_deferred).count() as u64
    }

    /// When [`next`](Self::next) has a batch, if nothing happens before: never while the batches under way have to come first.
    pub(super) fn ready_at(&self, under_way_max: usize) -> Option<Monotonic> {
        if self.is_stalled || self.under_way.len() >= under_way_max {
            return None;
        }
        let urgent = self.has_urgent().then_some(Monotonic::START);
        let lingered = urgent.or(self.finishes_since.map(|since| since + FINISH_LINGER))?;
        Some(lingered.max(self.not_before))
    }

    fn has_urgent(&self) -> bool {
        !self.requests.is_empty() || !self.requeues.is_empty() || self.finish_count >= FINISHES_WAITING_MAX
    }

    /// The next batch, if something waits that should go now and no more than `under_way_max` are under way.
    pub(super) fn next(
        &mut self,
        now: Monotonic,
        under_way_max: usize,
        bytes_max: usize,
        header_room: usize,
    ) -> Option<Ready> {
        self.ready_at(under_way_max).filter(|at| *at <= now)?;
        let content = self.take(bytes_max);
        let builder = content.build(header_room);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let first_seq = self.next_seq;
        self.next_seq = first_seq.plus(u64::from(builder.message_count()));
        self.under_way.push_back(Proposed {
            ticket,
            first_seq,
            content,
            fate: Fate::UnderWay,
        });
        Some(Ready {
            ticket,
            builder,
            first_seq,
        })
    }

    fn take(&mut self, bytes_max: usize) -> Content {
        let mut content = Content::default();
        let (mut bytes, mut has_some_for_one) = (0, false);
        while let Some(request) = self.requests.front() {
            let (size, is_deletion, is_end) = match request {
                Request::Publish { publish, bytes } => {
                    has_some_for_one |= publish.only.is_some();
                    (*bytes, false, false)
                }
                Request::Command { event, .. } => (
                    0,
                    *event == Event::DeleteTopic,
                    match event {
                        Event::EndSession { .. } => true,
                        Event::PauseTopic | Event::DeleteChannel { .. } => has_some_for_one,
                        _ => false,
                    },
                ),
            };
            // The end of a topic stands alone in its batch. Events apply before messages, so the end of a session begins a batch: what
            // the session published before it must be stored before it. So does a pause behind messages for one channel: held back they would be
            // for all; and the end of a channel, which may be theirs. One command is never split; a large one goes alone.
            if !content.requests.is_empty() && (is_deletion || is_end || bytes + size > bytes_max) {
                break;
            }
            bytes += size;
            content.requests.extend(self.requests.pop_front());
            if is_deletion {
                return content;
            }
        }
        let mut room = EVENTS_PER_BATCH_MAX;
        if self.finish_count <= room {
            room -= self.finish_count;
            content.finishes = std::mem::take(&mut self.finishes);
        } else {
            while let Some((channel, mut seqs)) = self.finishes.pop_first() {
                if seqs.len() > room {
                    let rest = seqs.split_off(room);
                    self.finishes.insert(channel, rest);
                }
                room -= seqs.len();
                if !seqs.is_empty() {
                    content.finishes.insert(channel, seqs);
                }
                if room == 0 {
                    break;
                }
            }
        }
        self.finish_count = self.finishes.values().map(Vec::len).sum();
        if self.finish_count == 0 {
            self.finishes_since = None;
        }
        let requeues = self.requeues.len().min(room);
        content.requeues.extend(self.requeues.drain(..requeues));
        if self.finish_count == 0 && self.requeues.is_empty() {
            content.marks = std::mem::take(&mut self.marks);
        }
        content
    }

    /// Whether the proposal belongs to this leadership and its fate is open.
    pub(super) fn is_under_way(&self, ticket: u64) -> bool {
        self.under_way.iter().any(|proposed| proposed.ticket == ticket)
    }

    /// A proposal of this leader was refused: it is not in the log.
    pub(super) fn refused(&mut self, ticket: u64, now: Monotonic) {
        if let Some(proposed) = self.under_way.iter_mut().find(|proposed| proposed.ticket == ticket) {
            proposed.fate = Fate::NotInLog;
            self.is_stalled = true;
            self.not_before = now + REFUSAL_PAUSE;
        }
    }

    /// A batch of this leader was accepted: answers everybody of this node in it, and says whom else to tell.
    pub(super) fn accepted(&mut self, first_seq: Seq) -> Vec<Stored> {
        let place = self.place_under_way(first_seq);
        let proposed = self.under_way.remove(place).expect("the place was just looked up");
        let mut stored = Vec::new();
        if place == 0 {
            stored.extend(proposed.content.marks.into_iter().map(Stored::from));
        } else {
            // A batch before it was refused. If that had no messages this one counts all the same; but the events that are marked here may be in
            // the refused one, which goes again.
            self.marks.extend(proposed.content.marks);
        }
        for request in proposed.content.requests {
            match request {
                Request::Publish { publish, .. } => {
                    self.deferred_waiting -= deferred_in(&publish);
                    if let Some(number) = number_of(&publish) {
                        self.numbers.remove(&number);
                    }
                    match publish.answer {
                        PublishAnswer::Client(answer) => drop(answer.send(Ok(()))),
                        PublishAnswer::Node { session, number } => stored.push(Stored::Publish { session, number }),
                    }
                }
                Request::Command {
                    answer: Some(answer), ..
                } => drop(answer.send(Ok(()))),
                Request::Command { answer: None, .. } => {}
            }
        }
        stored
    }

    /// The numbers in a batch that is about to be [`accepted`](Self::accepted) which are for one channel only.
    pub(super) fn for_one_channel(&self, first_seq: Seq) -> Vec<(SeqRange, ChannelName)> {
        let mut next = first_seq;
        let mut found = Vec::new();
        for request in &self.under_way[self.place_under_way(first_seq)].content.requests {
            let Request::Publish { publish, .. } = request else {
                continue;
            };
            let first = next;
            next = first.plus(publish.messages.len() as u64);
            let only = publish.only.clone();
            found.extend(SeqRange::until(first, next).zip(only));
        }
        found
    }

    /// A batch of this leader was void: nothing of it happened.
    pub(super) fn void(&mut self, first_seq: Seq) {
        self.is_stalled = true;
        let place = self.place_under_way(first_seq);
        self.under_way[place].fate = Fate::NotInLog;
    }

    fn place_under_way(&self, first_seq: Seq) -> usize {
        let place = self
            .under_way
            .iter()
            .position(|proposed| proposed.fate == Fate::UnderWay);
        let place = place.expect("an applied batch of this leadership was proposed by it");
        assert_eq!(
            self.under_way[place].first_seq, first_seq,
            "batches are applied in the order of their proposals"
        );
        place
    }

    /// After a refusal: once nothing is under way any more, puts everything back in its order, to go again from `next_seq`.
    pub(super) fn settle(&mut self, next_seq: Seq) {
        if !self.is_stalled || self.under_way.iter().any(|proposed| proposed.fate == Fate::UnderWay) {
            return;
        }
        for proposed in std::mem::take(&mut self.under_way).into_iter().rev() {
            self.put_back(proposed.content);
        }
        self.next_seq = next_seq;
        self.is_stalled = false;
    }

    fn put_back(&mut self, content: Content) {
        for request in content.requests.into_iter().rev() {
            self.requests.push_front(request);
        }
        for event in content.requeues.into_iter().rev() {
            self.requeues.push_front(event);
        }
        // Their events wait again, and so do later marks: none is told before its events are in the log.
        self.marks.extend(content.marks);
        for (channel, seqs) in content.finishes {
            self.finish_count += seqs.len();
            self.finishes.entry(channel).or_default().extend(seqs);
        }
        if self.finish_count > 0 {
            self.finishes_since.get_or_insert(Monotonic::START);
        }
    }

    /// The leadership is over, and somebody else may lead: gives out what this node's clients wait for, in its order, and all events that may
    /// not be in the log. Commands fail: their outcome is unknown, and who gave them may repeat them.
    pub(super) fn hand_over(&mut self, term: Term, now: LogTime) -> (Vec<Publish>, Vec<LeaseEvent>) {
        let under_way = std::mem::take(&mut self.under_way);
        let waiting = Content {
            requests: std::mem::take(&mut self.requests).into(),
            finishes: std::mem::take(&mut self.finishes),
            requeues: std::mem::take(&mut self.requeues).into(),
            marks: Vec::new(),
        };
        let (mut publishes, mut events) = (Vec::new(), Vec::new());
        for content in under_way.into_iter().map(|proposed| proposed.content).chain([waiting]) {
            events.extend(content.lease_events(term, now));
            for request in content.requests {
                match request {
                    Request::Publish { publish, .. } if matches!(publish.answer, PublishAnswer::Client(_)) => {
                        publishes.push(publish);
                    }
                    request => request.fail(
                        PublishError::Stopping,
                        AdminError::Unavailable("the topic's leader has changed; it may still happen".into()),
                    ),
                }
            }
        }
        *self = Self {
            next_ticket: self.next_ticket,
            ..Self::default()
        };
        (publishes, events)
    }

    /// The leadership is over: the fate of what is under way is unknown here, and nothing of it is proposed again.
    pub(super) fn abandon(&mut self, publish: PublishError, admin: AdminError) {
        let under_way = std::mem::take(&mut self.under_way);
        let waiting = std::mem::take(&mut self.requests);
        for request in under_way
            .into_iter()
            .flat_map(|proposed| proposed.content.requests)
            .chain(waiting)
        {
            request.fail(publish, admin.clone());
        }
        *self = Self {
            next_ticket: self.next_ticket,
            ..Self::default()
        };
    }
}

fn deferred_in(publish: &Publish) -> u64 {
    publish.messages.iter().filter(|message| message.defer_ms > 0).count() as u64
}

/// The place of a publish in a session.
fn number_of(publish: &Publish) -> Option<(SessionId, u64)> {
    let origin = publish.messages.first()?.origin?;
    Some((origin.session(), origin.number))
}

impl Content {
    /// The finished numbers and requeues as what consumers had said. Who held what does not matter any more: of a requeue the attempts
    /// say whether it is in the log already.
    fn lease_events(&self, term: Term, now: LogTime) -> Vec<LeaseEvent> {
        let event = |channel, seq, attempts, outcome| LeaseEvent {
            token: DeliveryToken {
                channel,
                seq,
                attempts,
                term,
                delivery: 0,
            },
            outcome,
        };
        let finished = self.finishes.iter().flat_map(|(channel, seqs)| {
            seqs.iter()
                .map(|seq| event(*channel, *seq, Attempts::default(), LeaseOutcome::Finished))
        });
        let requeued = self.requeues.iter().filter_map(|requeue| match requeue {
            Event::Requeue {
                channel,
                seq,
                attempts,
                not_before,
                cause,
            } => {
                let outcome = match cause {
                    RequeueCause::Requeue => LeaseOutcome::Requeued {
                        delay_ms: not_before.map_or(0, |not_before| {
                            let delay_ms = not_before.get().saturating_sub(now.get()) / 1_000_000;
                            u32::try_from(delay_ms).unwrap_or(u32::MAX)
                        }),
                    },
                    RequeueCause::Timeout => LeaseOutcome::TimedOut,
                    RequeueCause::Disconnect => LeaseOutcome::Disconnected,
                };
                Some(event(*channel, *seq, *attempts, outcome))
            }
            _ => None,
        });
        finished.chain(requeued).collect()
    }

    fn build(&self, header_room: usize) -> BatchBuilder {
        let mut builder = BatchBuilder::with_header_room(header_room);
        for request in &self.requests {
            match request {
                Request::Command { event, .. } => builder.push_event(event),
                Request::Publish { publish, .. } => {
                    for message in &publish.messages {
                        builder.push_message(message);
                    }
                }
            }
        }
        for (channel, seqs) in &self.finishes {
            builder.push_event(&Event::Finish {
                channel: *channel,
                ranges: ranges_of(seqs),
            });
        }
        for event in &self.requeues {
            builder.push_event(event);
        }
        builder
    }
}

/// The numbers as ascending ranges.
fn ranges_of(seqs: &[Seq]) -> Vec<SeqRange> {
    let mut sorted = seqs.to_vec();
    sorted.sort_unstable();
    let mut ranges: Vec<SeqRange> = Vec::new();
    for seq in sorted {
        match ranges.last_mut() {
            Some(range) if seq <= range.last() => {}
            Some(range) if seq == range.last().next() => {
                *range = SeqRange::new(range.first(), seq).expect("the range grows upwards");
            }
            _ => ranges.push(SeqRange::single(seq)),
        }
    }
    ranges
}
