//! The rules of the machine, one by one, with the failure that each prevents.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use nsquorum_protocol::ChannelName;
use nsquorum_topic::{
    Acceptance, Accepted, Applied, Attempts, BatchBuilder, BatchView, ChannelIncarnation, Cursor, Effect,
    EntryPosition, Event, FeatureLevel, INDEX_POINT_BYTES, Impossible, LeaderStart, LogIndex, LogTime, NewMessage,
    NodeId, NodeIncarnation, RequeueCause, Seq, SeqRange, Term, TopicState, VoidReason,
};

const MS: u64 = 1_000_000;

/// A topic and the log behind it; every batch is appended and applied at once.
struct Topic {
    state: TopicState,
    index: u64,
    term: u64,
    time: u64,
    encoded_bytes: u32,
}

impl Topic {
    fn new() -> Self {
        Self {
            state: TopicState::new(Seq::new(0)),
            index: 0,
            term: 1,
            time: 1_000 * MS,
            encoded_bytes: 100,
        }
    }

    fn position(&mut self) -> EntryPosition {
        self.index += 1;
        EntryPosition {
            index: LogIndex::new(self.index),
            term: Term::new(self.term),
            encoded_bytes: self.encoded_bytes,
        }
    }

    fn try_batch(
        &mut self,
        made_for: u64,
        first_seq: u64,
        events: &[Event],
        delays_ms: &[u32],
    ) -> Result<Applied, Impossible> {
        let at = self.position();
        let view = view(made_for, first_seq, self.time, events, delays_ms);
        let before = self.state.digest();
        let applied = self.state.apply_batch(at, &view);
        if applied.is_err() {
            self.index -= 1;
            assert_eq!(self.state.digest(), before, "an impossible batch changes nothing");
        }
        applied
    }

    fn batch(&mut self, events: &[Event], delays_ms: &[u32]) -> Accepted {
        let next = self.state.next_seq().get();
        match self.try_batch(self.term, next, events, delays_ms).unwrap() {
            Applied::Accepted(accepted) => accepted,
            Applied::Void(reason) => panic!("void: {reason}"),
        }
    }

    fn publish(&mut self, count: usize) {
        self.batch(&[], &vec![0; count]);
    }

    fn events(&mut self, events: &[Event]) -> Vec<Effect> {
        self.batch(events, &[]).effects
    }

    fn create(&mut self, text: &str) -> ChannelIncarnation {
        self.events(&[create(text)]);
        self.state.channel_by_name(&name(text)).unwrap().incarnation()
    }

    fn finish(&mut self, channel: ChannelIncarnation, first: u64, last: u64) -> Vec<Effect> {
        self.events(&[finish(channel, first, last)])
    }

    fn floor(&self, channel: ChannelIncarnation) -> u64 {
        self.state.channel(channel).unwrap().floor().get()
    }

    fn start_leader(&mut self, term: u64, clock: u64) {
        self.term = term;
        let at = self.position();
        self.state.apply_leader_start(at, &leader(term, clock)).unwrap();
    }
}

fn view(made_for: u64, first_seq: u64, time: u64, events: &[Event], delays_ms: &[u32]) -> BatchView {
    let mut builder = BatchBuilder::with_header_room(0);
    events.iter().for_each(|event| builder.push_event(event));
    for defer_ms in delays_ms {
        let plain = NewMessage::new(Bytes::from_static(b"body"), LogTime::new(time));
        builder.push_message(&NewMessage {
            defer_ms: *defer_ms,
            ..plain
        });
    }
    let bytes = builder.finish(
        Term::new(made_for),
        Seq::new(first_seq),
        LogTime::new(time),
        FeatureLevel::new(1),
    );
    BatchView::parse(bytes.freeze()).unwrap()
}

fn name(text: &str) -> ChannelName {
    ChannelName::try_from(text).unwrap()
}

fn create(text: &str) -> Event {
    Event::CreateChannel { name: name(text) }
}

fn finish(channel: ChannelIncarnation, first: u64, last: u64) -> Event {
    Event::Finish {
        channel,
        ranges: vec![SeqRange::new(Seq::new(first), Seq::new(last)).unwrap()],
    }
}

fn finished(channel: ChannelIncarnation, newly: u64, first: u64, last: u64) -> Effect {
    Effect::Finished {
        channel,
        newly,
        ranges: vec![SeqRange::new(Seq::new(first), Seq::new(last)).unwrap()],
    }
}

fn requeue(channel: ChannelIncarnation, seq: u64, attempts: u16) -> Event {
    let (seq, attempts) = (Seq::new(seq), Attempts::new(attempts));
    Event::Requeue {
        channel,
        seq,
        attempts,
        not_before: None,
        cause: RequeueCause::Requeue,
    }
}

fn leader(term: u64, clock: u64) -> LeaderStart {
    LeaderStart {
        node: NodeId::new(1),
        incarnation: NodeIncarnation::new(1),
        term: Term::new(term),
        clock: LogTime::new(clock),
    }
}

#[test]
fn a_refused_batch_voids_those_behind_it_and_the_numbers_are_given_again() {
    let mut topic = Topic::new();
    topic.publish(3);
    // 4..=5 was refused before it reached the log; 6..=7 was appended.
    let applied = topic.try_batch(1, 6, &[create("a")], &[0, 0]).unwrap();
    assert_eq!(
        applied,
        Applied::Void(VoidReason::Number {
            expected: Seq::new(4),
            found: Seq::new(6)
        })
    );
    assert_eq!(topic.state.channels().len(), 0, "a void batch creates nothing");
    assert_eq!((topic.state.next_seq(), topic.state.void_batches()), (Seq::new(4), 1));
    topic.publish(2);
    topic.publish(2);
    assert_eq!((topic.state.next_seq(), topic.state.message_count()), (Seq::new(8), 7));
}

#[test]
fn a_batch_of_another_term_is_void_even_if_its_numbers_fit() {
    let mut topic = Topic::new();
    topic.publish(3);
    topic.start_leader(2, 0);
    let applied = topic.try_batch(1, 4, &[], &[0]).unwrap();
    let reason = VoidReason::Term {
        made_for: Term::new(1),
        appended_in: Term::new(2),
    };
    assert_eq!(applied, Applied::Void(reason));
    assert_eq!(topic.state.next_seq(), Seq::new(4));
}

#[test]
fn a_void_batch_does_not_move_the_clock() {
    let mut topic = Topic::new();
    topic.publish(1);
    let before = topic.state.time();
    topic.time += 5_000 * MS;
    assert!(matches!(topic.try_batch(1, 9, &[], &[0]), Ok(Applied::Void(_))));
    assert_eq!(topic.state.time(), before);
}

#[test]
fn giving_numbers_again_in_the_same_term_is_impossible() {
    let mut topic = Topic::new();
    topic.publish(3);
    let expected = Impossible::NumbersReused {
        first_seq: Seq::new(2),
        next_seq: Seq::new(4),
        term: Term::new(1),
    };
    assert_eq!(topic.try_batch(1, 2, &[], &[0]), Err(expected));
    // Under a new term that has accepted nothing yet it is merely void.
    topic.start_leader(2, 0);
    assert!(matches!(
        topic.try_batch(2, 2, &[], &[0]),
        Ok(Applied::Void(VoidReason::Number { .. }))
    ));
    topic.publish(1);
    assert!(matches!(
        topic.try_batch(2, 2, &[], &[0]),
        Err(Impossible::NumbersReused { .. })
    ));
}

#[test]
fn messages_that_do_not_exist_cannot_be_finished_or_requeued() {
    let mut topic = Topic::new();
    topic.publish(3);
    let channel = topic.create("a");
    let next_seq = Seq::new(4);
    for (first, last) in [(4, 4), (1, 4), (0, 2), (1, u64::MAX)] {
        let range = SeqRange::new(Seq::new(first), Seq::new(last)).unwrap();
        let events = [create("b"), finish(channel, first, last)];
        assert_eq!(
            topic.try_batch(1, 4, &events, &[0]),
            Err(Impossible::FinishedUnknown { range, next_seq })
        );
    }
    for seq in [0, 4, u64::MAX] {
        let expected = Impossible::RequeuedUnknown {
            seq: Seq::new(seq),
            next_seq,
        };
        assert_eq!(topic.try_batch(1, 4, &[requeue(channel, seq, 1)], &[0]), Err(expected));
    }
}

#[test]
fn a_higher_feature_level_is_impossible() {
    let mut topic = Topic::new();
    let found = FeatureLevel::new(TopicState::FEATURE_LEVEL.get() + 1);
    let mut builder = BatchBuilder::with_header_room(0);
    builder.push_event(&create("a"));
    let bytes = builder.finish(Term::new(1), Seq::new(1), LogTime::new(1), found);
    let at = topic.position();
    let applied = topic.state.apply_batch(at, &BatchView::parse(bytes.freeze()).unwrap());
    assert_eq!(
        applied,
        Err(Impossible::FeatureLevel {
            found,
            known: TopicState::FEATURE_LEVEL
        })
    );
    assert_eq!(topic.state, TopicState::new(Seq::new(0)));
}

#[test]
fn entries_are_applied_in_order_without_gaps() {
    let position = |index, term| EntryPosition {
        index: LogIndex::new(index),
        term: Term::new(term),
        encoded_bytes: 1,
    };
    let mut state = TopicState::new(Seq::new(0));
    state.apply_other(position(5, 2)).unwrap();
    for (index, term) in [(5, 2), (4, 2), (7, 2), (6, 1)] {
        assert!(
            matches!(state.apply_other(position(index, term)), Err(Impossible::Order { .. })),
            "{index} {term}"
        );
        assert!(
            state
                .apply_leader_start(position(index, term), &leader(term, 0))
                .is_err()
        );
        assert!(
            state
                .apply_batch(position(index, term), &view(term, 1, 0, &[], &[0]))
                .is_err()
        );
    }
    state.apply_other(position(6, 3)).unwrap();
    assert_eq!(state.applied(), Some((LogIndex::new(6), Term::new(3))));
}

#[test]
fn the_log_clock_never_goes_back() {
    let mut topic = Topic::new();
    topic.publish(1);
    let first = topic.state.time();
    topic.time = 1;
    topic.publish(1);
    topic.start_leader(2, 5);
    assert_eq!(topic.state.time(), first);
    topic.start_leader(3, first.get() + 9);
    assert_eq!(topic.state.time().get(), first.get() + 9);
    assert_eq!(topic.state.leader(), Some(&leader(3, first.get() + 9)));
}

#[test]
fn a_leader_start_of_another_term_is_void() {
    let mut topic = Topic::new();
    topic.start_leader(2, 5);
    let at = topic.position();
    topic.state.apply_leader_start(at, &leader(1, 50)).unwrap();
    assert_eq!(topic.state.leader(), Some(&leader(2, 5)));
    assert_eq!((topic.state.time(), topic.state.void_batches()), (LogTime::new(5), 1));
}

#[test]
fn the_first_channel_gets_what_accumulated_and_later_ones_what_comes() {
    let mut topic = Topic::new();
    topic.publish(4);
    let (a, b) = (topic.create("a"), topic.create("b"));
    assert_eq!((topic.floor(a), topic.floor(b)), (1, 5));
    topic.publish(2);
    assert_eq!(
        topic
            .state
            .channel(a)
            .unwrap()
            .unfinished_below(topic.state.readable_end()),
        6
    );
    assert_eq!(
        topic
            .state
            .channel(b)
            .unwrap()
            .unfinished_below(topic.state.readable_end()),
        2
    );
    assert_eq!(topic.state.purge_floor(), Seq::new(1));
    assert_eq!((a, b), (ChannelIncarnation::new(1), ChannelIncarnation::new(2)));
}

#[test]
fn messages_of_the_creating_batch_belong_to_the_new_channel() {
    let mut topic = Topic::new();
    topic.create("a");
    topic.publish(1);
    topic.batch(&[create("b")], &[0, 0]);
    assert_eq!(topic.state.channel_by_name(&name("b")).unwrap().message_count(), 2);
}

#[test]
fn after_the_last_channel_the_topic_accumulates_again() {
    let mut topic = Topic::new();
    let a = topic.create("a");
    topic.publish(2);
    topic.batch(&[Event::DeleteChannel { channel: a }], &[0, 0]);
    assert_eq!(
        topic.state.purge_floor(),
        Seq::new(3),
        "what the deleted channel held is gone"
    );
    assert_eq!(topic.state.held_count(), 2);
    let again = topic.create("a");
    assert_ne!(again, a, "incarnations are never given again");
    assert_eq!(topic.floor(again), 3);
}

#[test]
fn a_late_event_for_a_deleted_channel_leaves_its_successor_alone() {
    let mut topic = Topic::new();
    topic.publish(3);
    let old = topic.create("a");
    topic.events(&[Event::DeleteChannel { channel: old }]);
    topic.publish(2);
    let new = topic.create("a");
    let late = [
        finish(old, 1, 5),
        requeue(old, 4, 3),
        Event::EmptyChannel { channel: old },
        Event::PauseChannel { channel: old },
        Event::DeleteChannel { channel: old },
    ];
    assert_eq!(topic.events(&late), []);
    let channel = topic.state.channel(new).unwrap();
    assert_eq!(
        (channel.floor(), channel.exceptions().len(), channel.is_paused()),
        (Seq::new(4), 0, false)
    );
}

#[test]
fn creating_an_existing_name_says_which_channel_has_it() {
    let mut topic = Topic::new();
    let channel = topic.create("a");
    topic.publish(1);
    let existing = Effect::ChannelCreated {
        name: name("a"),
        channel,
        begin: Seq::new(1),
        existed: true,
    };
    assert_eq!(topic.events(&[create("a")]), [existing]);
    assert_eq!(topic.state.channels().len(), 1);
}

#[test]
fn the_floor_rises_over_what_was_finished_out_of_order() {
    let mut topic = Topic::new();
    topic.publish(10);
    let a = topic.create("a");
    assert_eq!(topic.finish(a, 3, 5), [finished(a, 3, 3, 5)]);
    assert_eq!(topic.floor(a), 1);
    assert_eq!(topic.finish(a, 1, 1), [finished(a, 1, 1, 1)]);
    assert_eq!(topic.floor(a), 2);
    assert_eq!(topic.finish(a, 1, 4), [finished(a, 1, 1, 4)], "only 2 was unfinished");
    assert_eq!(topic.floor(a), 6);
    assert_eq!(topic.state.channel(a).unwrap().finished_above_floor_count(), 0);
    assert_eq!(topic.finish(a, 1, 5), [], "a repeated FIN does nothing");
    assert_eq!(topic.state.channel(a).unwrap().finish_count(), 5);
}

#[test]
fn a_requeued_message_keeps_its_highest_attempts_and_is_forgotten_when_finished() {
    let mut topic = Topic::new();
    topic.publish(3);
    let channel = topic.create("a");
    let requeued = |attempts, behind| Effect::Requeued {
        channel,
        seq: Seq::new(2),
        attempts: Attempts::new(attempts),
        not_before: None,
        behind: Seq::new(behind),
    };
    assert_eq!(topic.events(&[requeue(channel, 2, 4)]), [requeued(4, 4)]);
    topic.publish(2);
    assert_eq!(
        topic.events(&[requeue(channel, 2, 1)]),
        [requeued(4, 6)],
        "a stale count lowers nothing"
    );
    topic.finish(channel, 2, 2);
    assert_eq!(
        topic.events(&[requeue(channel, 2, 9)]),
        [],
        "finished messages do not come back"
    );
    let state = topic.state.channel(channel).unwrap();
    assert_eq!(
        (state.exceptions().len(), state.requeue_count(), state.timeout_count()),
        (0, 2, 0)
    );
}

#[test]
fn a_deferral_begins_when_the_first_channel_takes_the_message() {
    let mut topic = Topic::new();
    topic.batch(&[], &[0, 500]);
    assert_eq!(
        (
            topic.state.due_of(Seq::new(2)),
            topic.state.unreleased().collect::<Vec<_>>()
        ),
        (None, vec![(Seq::new(2), 500)])
    );
    topic.time += 10_000 * MS;
    let due = LogTime::new(topic.time + 500 * MS);
    let effects = topic.events(&[create("a")]);
    assert_eq!(effects.last(), Some(&Effect::Deferred { seq: Seq::new(2), due }));
    assert_eq!(topic.state.due_of(Seq::new(2)), Some(due));
    topic.time = due.get() - 1;
    topic.publish(1);
    assert_eq!(topic.state.deferred().collect::<Vec<_>>(), [(due, Seq::new(2))]);
    topic.time = due.get();
    topic.publish(1);
    assert_eq!(topic.state.due_of(Seq::new(2)), None);
}

#[test]
fn a_deferral_in_a_paused_topic_begins_at_unpause() {
    let mut topic = Topic::new();
    let a = topic.create("a");
    topic.batch(&[Event::PauseTopic], &[700, 0]);
    assert_eq!(
        (topic.state.paused_at(), topic.state.readable_end()),
        (Some(Seq::new(1)), Seq::new(1))
    );
    let b = topic.create("b");
    assert_eq!(
        topic.floor(b),
        1,
        "paused messages have not left the topic: a new channel gets them too"
    );
    topic.time += 3_000 * MS;
    let due = LogTime::new(topic.time + 700 * MS);
    assert_eq!(
        topic.events(&[Event::UnpauseTopic]),
        [Effect::TopicUnpaused, Effect::Deferred { seq: Seq::new(1), due }]
    );
    for channel in [a, b] {
        assert_eq!(topic.state.channel(channel).unwrap().message_count(), 2);
    }
}

#[test]
fn a_first_channel_of_a_paused_topic_gets_nothing_until_unpause() {
    let mut topic = Topic::new();
    topic.batch(&[], &[0, 100]);
    topic.events(&[Event::PauseTopic]);
    topic.batch(&[create("a")], &[0]);
    assert_eq!((topic.state.readable_end(), topic.state.held_count()), (Seq::new(1), 3));
    assert_eq!(topic.state.deferred().len(), 0);
    topic.events(&[Event::UnpauseTopic]);
    assert_eq!((topic.state.readable_end(), topic.state.held_count()), (Seq::new(4), 0));
    assert_eq!(topic.state.channel_by_name(&name("a")).unwrap().message_count(), 3);
    assert_eq!(topic.state.deferred().len(), 1);
}

#[test]
fn pausing_twice_does_not_move_the_line() {
    let mut topic = Topic::new();
    topic.create("a");
    topic.publish(2);
    assert_eq!(topic.events(&[Event::PauseTopic]), [Effect::TopicPaused]);
    topic.publish(2);
    assert_eq!(topic.events(&[Event::PauseTopic]), []);
    assert_eq!(topic.state.paused_at(), Some(Seq::new(3)));
}

#[test]
fn numbers_that_have_not_left_the_topic_cannot_be_finished() {
    let mut topic = Topic::new();
    let a = topic.create("a");
    topic.publish(1);
    topic.batch(&[Event::PauseTopic], &[0, 0]);
    assert_eq!(topic.finish(a, 1, 3), [finished(a, 1, 1, 3)]);
    assert_eq!(topic.events(&[requeue(a, 3, 1)]), []);
    topic.events(&[Event::UnpauseTopic]);
    assert_eq!(topic.floor(a), 2, "what flows at unpause is delivered");
}

#[test]
fn emptying_a_channel_leaves_what_is_still_in_the_topic() {
    let mut topic = Topic::new();
    let (a, b) = (topic.create("a"), topic.create("b"));
    topic.publish(3);
    topic.events(&[requeue(a, 2, 1), finish(a, 3, 3), Event::PauseTopic]);
    topic.publish(2);
    let effects = topic.events(&[Event::EmptyChannel { channel: a }]);
    assert_eq!(
        effects,
        [Effect::ChannelEmptied {
            channel: a,
            up_to: Seq::new(4)
        }]
    );
    topic.events(&[Event::UnpauseTopic]);
    let unfinished = |channel| topic.state.channel(channel).unwrap().unfinished_below(Seq::new(6));
    assert_eq!((unfinished(a), unfinished(b)), (2, 5));
    assert_eq!(topic.state.channel(a).unwrap().exceptions().len(), 0);
    assert_eq!(topic.finish(a, 1, 3), [], "a late FIN of what was dropped does nothing");
}

#[test]
fn emptying_a_topic_drops_only_what_has_not_left_it() {
    let mut topic = Topic::new();
    let a = topic.create("a");
    topic.publish(2);
    topic.events(&[Event::EmptyTopic]);
    assert_eq!(
        topic.state.channel(a).unwrap().unfinished_below(Seq::new(3)),
        2,
        "messages of channels stay"
    );
    topic.batch(&[Event::PauseTopic], &[0, 100]);
    topic.events(&[Event::EmptyTopic]);
    topic.publish(1);
    topic.events(&[Event::UnpauseTopic]);
    let channel = topic.state.channel(a).unwrap();
    let unfinished: Vec<u64> = (1..6).filter(|seq| !channel.is_finished(Seq::new(*seq))).collect();
    assert_eq!(unfinished, [1, 2, 5]);
    assert_eq!((topic.state.deferred().len(), topic.state.unreleased().len()), (0, 0));
    assert_eq!(
        channel.finish_count(),
        0,
        "what was dropped was not finished by a consumer"
    );
}

#[test]
fn emptying_a_topic_without_channels_drops_what_accumulated() {
    let mut topic = Topic::new();
    topic.batch(&[], &[0, 100]);
    topic.events(&[Event::EmptyTopic]);
    assert_eq!(
        (topic.state.purge_floor(), topic.state.unreleased().len()),
        (Seq::new(3), 0)
    );
    let a = topic.create("a");
    assert_eq!(topic.floor(a), 3);
}

#[test]
fn after_deletion_every_batch_is_void() {
    let mut topic = Topic::new();
    topic.create("a");
    topic.publish(3);
    assert_eq!(
        topic.events(&[Event::DeleteTopic]),
        [Effect::TopicDeleted { next_seq: Seq::new(4) }]
    );
    assert!(topic.state.is_deleted());
    assert_eq!(
        topic.try_batch(1, 4, &[create("b")], &[0]),
        Ok(Applied::Void(VoidReason::Deleted))
    );
    assert_eq!(topic.try_batch(1, 2, &[], &[0]), Ok(Applied::Void(VoidReason::Deleted)));
    assert_eq!((topic.state.next_seq(), topic.state.channels().len()), (Seq::new(4), 0));
    let successor = TopicState::new(Seq::new(topic.state.next_seq().get() - 1));
    assert_eq!(successor.next_seq(), Seq::new(4), "ids of one name never repeat");
}

#[test]
fn a_deferred_message_that_all_channels_are_past_is_forgotten() {
    let mut topic = Topic::new();
    let (a, b) = (topic.create("a"), topic.create("b"));
    topic.batch(&[], &[60_000]);
    topic.events(&[Event::EmptyChannel { channel: a }]);
    assert_eq!(topic.state.deferred().len(), 1);
    topic.events(&[Event::DeleteChannel { channel: b }]);
    assert_eq!(topic.state.deferred().len(), 0);
    assert_eq!(topic.state.usage().deferred, 0);
}

#[test]
fn index_points_stand_every_64_kib_and_are_pruned_below_the_floor() {
    let mut topic = Topic::new();
    let a = topic.create("a");
    topic.encoded_bytes = (INDEX_POINT_BYTES / 4) as u32;
    for _ in 0..20 {
        topic.publish(1);
    }
    let starts = |topic: &Topic| {
        topic
            .state
            .index_points()
            .map(|point| point.next_seq.get())
            .collect::<Vec<_>>()
    };
    assert_eq!(starts(&topic), [1, 5, 9, 13, 17]);
    let point = topic.state.index_point(Seq::new(12)).unwrap();
    assert_eq!(
        (point.next_seq, point.index, point.term),
        (Seq::new(9), LogIndex::new(10), Term::new(1))
    );
    topic.finish(a, 1, 11);
    assert_eq!(
        starts(&topic),
        [9, 13, 17],
        "the last point at or before the floor stays"
    );
    assert_eq!(topic.state.purge_index(), LogIndex::new(10));
    topic.finish(a, 12, 20);
    assert_eq!(starts(&topic), [0; 0], "nothing is left to read");
    assert_eq!(topic.state.purge_index().get(), topic.index + 1);
    topic.publish(1);
    assert_eq!(starts(&topic), [21], "the next message has a point again");
}

#[test]
fn batches_without_messages_are_no_index_points() {
    let mut topic = Topic::new();
    topic.create("a");
    topic.publish(1);
    topic.encoded_bytes = INDEX_POINT_BYTES as u32;
    topic.events(&[Event::PauseTopic]);
    topic.events(&[Event::UnpauseTopic]);
    assert_eq!(topic.state.index_points().len(), 1);
}

#[test]
fn a_reader_skips_what_apply_voided() {
    let accepted = view(1, 1, 0, &[], &[0, 0]).header();
    let mut cursor = Cursor::at_start(Seq::new(0));
    assert_eq!(cursor.step(Term::new(1), &accepted), Acceptance::Accepted);
    assert!(matches!(
        cursor.step(Term::new(1), &view(1, 5, 0, &[], &[0]).header()),
        Acceptance::Void(_)
    ));
    assert!(matches!(
        cursor.step(Term::new(2), &view(1, 3, 0, &[], &[0]).header()),
        Acceptance::Void(_)
    ));
    assert_eq!(
        cursor.step(Term::new(2), &view(2, 3, 0, &[Event::DeleteTopic], &[]).header()),
        Acceptance::Accepted
    );
    let late = view(2, 3, 0, &[], &[0]).header();
    assert_eq!(cursor.step(Term::new(2), &late), Acceptance::Void(VoidReason::Deleted));
    assert_eq!(cursor.next_seq(), Seq::new(3));
}

#[test]
fn usage_counts_what_limits_apply_to() {
    let mut topic = Topic::new();
    topic.batch(&[create("a"), create("b")], &[0, 0, 0, 900]);
    let (a, b) = (ChannelIncarnation::new(1), ChannelIncarnation::new(2));
    topic.events(&[finish(a, 2, 3), finish(b, 3, 3), requeue(a, 1, 1), requeue(b, 1, 1)]);
    let usage = topic.state.usage();
    assert_eq!((usage.exceptions, usage.out_of_order, usage.deferred), (2, 3, 1));
    let actual = topic.state.encode().len() as u64;
    assert!(
        usage.encoded_bytes >= actual / 2 && usage.encoded_bytes <= actual * 2,
        "{} for {actual}",
        usage.encoded_bytes
    );
}
