//! What waits and what is under way.

use nsquorum_environment::Monotonic;
use nsquorum_topic::batch::MESSAGE_ROW_BYTES;
use nsquorum_topic::{
    Attempts, BatchView, ChannelIncarnation, Event, FeatureLevel, LogTime, NodeId, NodeIncarnation, RequeueCause, Seq,
    SeqRange, SessionId, Term,
};
use tokio::sync::oneshot;

use super::{at_ms, channel, message};
use crate::node::AdminError;
use crate::publish::PublishError;
use crate::topic_leader::input::{Held, Publish};
use crate::topic_leader::pipeline::{EventsMark, FINISH_LINGER, Mark, Pipeline, REFUSAL_PAUSE, Ready, Stored};

const NOW: Monotonic = Monotonic::from_nanos(1_000_000_000);
const BYTES_MAX: usize = 1 << 20;
const FIRST: ChannelIncarnation = ChannelIncarnation::new(1);
const SECOND: ChannelIncarnation = ChannelIncarnation::new(2);

type Answer = oneshot::Receiver<Result<(), PublishError>>;

fn started() -> Pipeline {
    let mut pipeline = Pipeline::default();
    pipeline.start(Seq::new(1));
    pipeline
}

fn publish(pipeline: &mut Pipeline, bodies: &[&str]) -> Answer {
    let (answer, receiver) = oneshot::channel();
    let messages = bodies.iter().map(|body| message((*body).to_owned())).collect();
    pipeline.publish(Publish {
        messages,
        only: None,
        answer: answer.into(),
        place: None,
        _held: Held::Nothing,
    });
    receiver
}

fn publish_to(pipeline: &mut Pipeline, name: &str, bodies: &[&str]) -> Answer {
    let (answer, receiver) = oneshot::channel();
    pipeline.publish(Publish {
        messages: bodies.iter().map(|body| message((*body).to_owned())).collect(),
        only: Some(channel(name)),
        answer: answer.into(),
        place: None,
        _held: Held::Nothing,
    });
    receiver
}

fn command(pipeline: &mut Pipeline, event: Event) -> oneshot::Receiver<Result<(), AdminError>> {
    let (answer, receiver) = oneshot::channel();
    pipeline.command(event, Some(answer));
    receiver
}

fn requeue(seq: u64) -> Event {
    Event::Requeue {
        channel: FIRST,
        seq: Seq::new(seq),
        attempts: Attempts::new(1),
        not_before: None,
        cause: RequeueCause::Requeue,
    }
}

fn next_at(pipeline: &mut Pipeline, now: Monotonic) -> Option<Ready> {
    pipeline.next(now, 8, BYTES_MAX, 0)
}

fn next(pipeline: &mut Pipeline) -> Ready {
    next_at(pipeline, NOW).expect("something is ready")
}

fn contents(ready: Ready) -> (Vec<String>, Vec<Event>) {
    let payload = ready
        .builder
        .finish(Term::new(1), ready.first_seq, LogTime::new(1), FeatureLevel::new(1))
        .freeze();
    let view = BatchView::parse(payload).unwrap();
    let bodies = view
        .messages()
        .map(|message| String::from_utf8(message.body.to_vec()).unwrap())
        .collect();
    (bodies, view.events().collect())
}

fn bodies(ready: Ready) -> Vec<String> {
    contents(ready).0
}

#[test]
fn everything_that_waits_becomes_one_batch_in_its_order() {
    let mut pipeline = started();
    let mut answers = vec![publish(&mut pipeline, &["a"]), publish(&mut pipeline, &["b", "c"])];
    pipeline.finish(FIRST, Seq::new(1), NOW);
    let ready = next(&mut pipeline);
    assert_eq!((ready.first_seq, ready.builder.message_count()), (Seq::new(1), 3));
    assert_eq!(bodies(ready), ["a", "b", "c"]);
    assert!(next_at(&mut pipeline, NOW).is_none());
    assert!(answers[0].try_recv().is_err(), "answered before it was applied");
    pipeline.accepted(Seq::new(1));
    for answer in &mut answers {
        assert_eq!(answer.try_recv(), Ok(Ok(())));
    }
}

#[test]
fn numbers_run_on_over_batches_under_way() {
    let mut pipeline = started();
    let _first = publish(&mut pipeline, &["a", "b"]);
    assert_eq!(next(&mut pipeline).first_seq, Seq::new(1));
    let _second = publish(&mut pipeline, &["c"]);
    assert_eq!(next(&mut pipeline).first_seq, Seq::new(3));
    let _third = publish(&mut pipeline, &["d"]);
    assert_eq!(next(&mut pipeline).first_seq, Seq::new(4));
}

#[test]
fn after_a_refusal_everything_goes_again_in_its_order() {
    let mut pipeline = started();
    let mut first = publish(&mut pipeline, &["a"]);
    let one = next(&mut pipeline);
    let mut second = publish(&mut pipeline, &["b"]);
    let mut create = command(&mut pipeline, Event::CreateChannel { name: channel("x") });
    let two = next(&mut pipeline);
    let mut third = publish(&mut pipeline, &["c"]);
    pipeline.requeue(requeue(1));
    let three = next(&mut pipeline);
    let mut fourth = publish(&mut pipeline, &["d"]);
    assert_ne!(two.ticket, three.ticket);

    pipeline.refused(two.ticket, NOW);
    pipeline.settle(Seq::new(1));
    let later = NOW + REFUSAL_PAUSE;
    assert!(
        next_at(&mut pipeline, later).is_none(),
        "the first and the third batch are still under way"
    );
    pipeline.accepted(one.first_seq);
    assert_eq!(first.try_recv(), Ok(Ok(())));
    pipeline.settle(Seq::new(2));
    assert!(
        next_at(&mut pipeline, later).is_none(),
        "the third batch is still under way"
    );
    pipeline.void(three.first_seq);
    pipeline.settle(Seq::new(2));

    for answer in [&mut second, &mut third, &mut fourth] {
        assert!(answer.try_recv().is_err(), "answered, but in no log");
    }
    assert!(create.try_recv().is_err());
    let again = next_at(&mut pipeline, later).expect("everything is there again");
    assert_eq!(again.first_seq, Seq::new(2));
    let (bodies, events) = contents(again);
    assert_eq!(bodies, ["b", "c", "d"]);
    assert_eq!(events, [Event::CreateChannel { name: channel("x") }, requeue(1)]);
    pipeline.accepted(Seq::new(2));
    for answer in [&mut second, &mut third, &mut fourth] {
        assert_eq!(answer.try_recv(), Ok(Ok(())));
    }
    assert_eq!(create.try_recv(), Ok(Ok(())));
}

#[test]
fn a_refusal_with_nothing_else_under_way_settles_at_once() {
    let mut pipeline = started();
    let mut answer = publish(&mut pipeline, &["a"]);
    let ticket = next(&mut pipeline).ticket;
    pipeline.refused(ticket, NOW);
    pipeline.settle(Seq::new(1));
    assert_eq!(pipeline.ready_at(8), Some(NOW + REFUSAL_PAUSE));
    assert!(
        next_at(&mut pipeline, NOW).is_none(),
        "a lease that has run out is not asked in a loop"
    );
    let again = next_at(&mut pipeline, NOW + REFUSAL_PAUSE).unwrap();
    assert_eq!(bodies(again), ["a"]);
    pipeline.accepted(Seq::new(1));
    assert_eq!(answer.try_recv(), Ok(Ok(())));
}

#[test]
fn refusals_of_unknown_tickets_change_nothing() {
    let mut pipeline = started();
    let _answer = publish(&mut pipeline, &["a"]);
    let ticket = next(&mut pipeline).ticket;
    assert!(pipeline.is_under_way(ticket) && !pipeline.is_under_way(ticket + 1));
    pipeline.refused(ticket + 1, NOW);
    let _other = publish(&mut pipeline, &["b"]);
    assert_eq!(bodies(next(&mut pipeline)), ["b"]);
}

#[test]
fn finished_numbers_alone_wait_for_company_a_little() {
    let mut pipeline = started();
    pipeline.finish(FIRST, Seq::new(7), NOW);
    pipeline.finish(FIRST, Seq::new(5), NOW + FINISH_LINGER / 2);
    let until = NOW + FINISH_LINGER;
    assert_eq!(pipeline.ready_at(8), Some(until));
    assert!(next_at(&mut pipeline, Monotonic::from_nanos(until.as_nanos() - 1)).is_none());
    let ready = next_at(&mut pipeline, until).expect("they have waited long enough");
    assert_eq!(ready.builder.message_count(), 0);
    let events = contents(ready).1;
    let [Event::Finish { channel: FIRST, ranges }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(
        ranges
            .iter()
            .map(|range| (range.first().get(), range.last().get()))
            .collect::<Vec<_>>(),
        [(5, 5), (7, 7)]
    );
    assert_eq!(pipeline.ready_at(8), None);
}

#[test]
fn finished_numbers_ride_along_with_whatever_goes() {
    type Company = fn(&mut Pipeline);
    let companies: [Company; 3] = [
        |pipeline| drop(publish(pipeline, &["a"])),
        |pipeline| pipeline.requeue(requeue(9)),
        |pipeline| drop(command(pipeline, Event::PauseTopic)),
    ];
    for company in companies {
        let mut pipeline = started();
        pipeline.finish(FIRST, Seq::new(3), NOW);
        pipeline.finish(SECOND, Seq::new(4), NOW);
        pipeline.finish(FIRST, Seq::new(4), NOW);
        company(&mut pipeline);
        let events = contents(next(&mut pipeline)).1;
        let finished: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Finish { channel, ranges } => Some((*channel, ranges[0].first().get(), ranges[0].last().get())),
                _ => None,
            })
            .collect();
        assert_eq!(finished, [(FIRST, 3, 4), (SECOND, 4, 4)]);
        assert_eq!(pipeline.ready_at(8), None, "nothing is left to wait for");
    }
}

#[test]
fn many_finished_numbers_do_not_wait() {
    let mut pipeline = started();
    for seq in 1..=4096 {
        assert!(next_at(&mut pipeline, NOW).is_none());
        pipeline.finish(FIRST, Seq::new(seq), NOW);
    }
    let events = contents(next(&mut pipeline)).1;
    let [Event::Finish { ranges, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(ranges.len(), 1, "4096 neighbours are one range");
}

#[test]
fn a_flush_does_not_wait_for_company_and_says_when_all_before_it_is_in_the_log() {
    let mut pipeline = started();
    pipeline.hurry();
    assert_eq!(pipeline.mark(Mark::Flush), Some(Mark::Flush), "there is nothing");
    pipeline.finish(FIRST, Seq::new(7), NOW);
    pipeline.hurry();
    assert_eq!(pipeline.mark(Mark::Flush), None);
    let flushed = next_at(&mut pipeline, NOW).expect("it goes at once");
    pipeline.finish(FIRST, Seq::new(8), NOW);
    assert!(
        next_at(&mut pipeline, NOW).is_none(),
        "what comes after the flush waits again"
    );
    assert_eq!(pipeline.accepted(flushed.first_seq), [Stored::Flush]);
}

#[test]
fn finished_numbers_survive_refusals() {
    let mut pipeline = started();
    pipeline.finish(FIRST, Seq::new(3), NOW);
    let _answer = publish(&mut pipeline, &["a"]);
    let ticket = next(&mut pipeline).ticket;
    assert_eq!(pipeline.finishing(FIRST), 1);
    pipeline.finish(FIRST, Seq::new(4), NOW);
    pipeline.refused(ticket, NOW);
    pipeline.settle(Seq::new(1));
    assert_eq!(pipeline.finishing(FIRST), 2);
    let events = contents(next_at(&mut pipeline, NOW + REFUSAL_PAUSE).unwrap()).1;
    let [Event::Finish { ranges, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((ranges[0].first().get(), ranges[0].last().get()), (3, 4));
    pipeline.accepted(Seq::new(1));
    assert_eq!(pipeline.finishing(FIRST), 0);
}

#[test]
fn a_batch_ends_at_its_bound_of_bytes_and_a_big_command_goes_alone() {
    let bytes_max = 2 * MESSAGE_ROW_BYTES + 4;
    let big = "x".repeat(bytes_max + 1);
    let mut pipeline = started();
    let _answers = [&["aa"][..], &["bb"], &["c"], &[&big], &["d"]].map(|bodies| publish(&mut pipeline, bodies));
    let mut batches = Vec::new();
    while let Some(ready) = pipeline.next(NOW, 8, bytes_max, 0) {
        batches.push(bodies(ready));
    }
    assert_eq!(batches, [vec!["aa", "bb"], vec!["c"], vec![&big], vec!["d"]]);
}

#[test]
fn a_command_is_never_split() {
    let mut pipeline = started();
    let _answer = publish(&mut pipeline, &["a", "b", "c"]);
    let ready = pipeline.next(NOW, 8, 1, 0).unwrap();
    assert_eq!(bodies(ready), ["a", "b", "c"]);
}

#[test]
fn the_rows_of_small_messages_count() {
    let mut pipeline = started();
    let _answers: Vec<_> = (0..1000).map(|_| publish(&mut pipeline, &["a"])).collect();
    let ready = pipeline.next(NOW, 8, 10_000, 0).unwrap();
    let length = ready.builder.encoded_len();
    assert!(length < 10_200, "a bound of 10,000 bytes let {length} pass");
}

#[test]
fn the_end_of_a_topic_stands_alone_in_its_batch() {
    let mut pipeline = started();
    let _before = publish(&mut pipeline, &["a"]);
    let mut end = command(&mut pipeline, Event::DeleteTopic);
    let mut after = publish(&mut pipeline, &["b"]);
    pipeline.finish(FIRST, Seq::new(1), NOW);
    pipeline.requeue(requeue(2));
    assert_eq!(bodies(next(&mut pipeline)), ["a"]);
    pipeline.finish(FIRST, Seq::new(3), NOW);
    let deletion = next(&mut pipeline);
    assert_eq!(deletion.first_seq, Seq::new(2));
    assert_eq!(contents(deletion), (vec![], vec![Event::DeleteTopic]));
    assert_eq!(bodies(next(&mut pipeline)), ["b"]);
    pipeline.accepted(Seq::new(1));
    pipeline.accepted(Seq::new(2));
    assert_eq!(end.try_recv(), Ok(Ok(())));
    pipeline.void(Seq::new(2));
    assert!(after.try_recv().is_err());
}

#[test]
fn no_more_than_the_bound_are_under_way() {
    let mut pipeline = started();
    let _answers = [publish(&mut pipeline, &["a"])];
    assert!(pipeline.next(NOW, 2, BYTES_MAX, 0).is_some());
    let _second = publish(&mut pipeline, &["b"]);
    assert!(pipeline.next(NOW, 2, BYTES_MAX, 0).is_some());
    let _third = publish(&mut pipeline, &["c"]);
    assert!(pipeline.next(NOW, 2, BYTES_MAX, 0).is_none());
    assert_eq!(pipeline.ready_at(2), None, "waking up would change nothing");
    pipeline.accepted(Seq::new(1));
    assert_eq!(bodies(pipeline.next(NOW, 2, BYTES_MAX, 0).unwrap()), ["c"]);
}

#[test]
fn a_batch_takes_a_bounded_number_of_events() {
    let mut pipeline = started();
    for seq in 0..70_000 {
        pipeline.finish(if seq % 2 == 0 { FIRST } else { SECOND }, Seq::new(seq * 2 + 1), NOW);
    }
    for seq in 0..1000 {
        pipeline.requeue(requeue(seq + 1));
    }
    let mut counts = Vec::new();
    while let Some(ready) = next_at(&mut pipeline, NOW + FINISH_LINGER) {
        let count: u64 = contents(ready)
            .1
            .iter()
            .map(|event| match event {
                Event::Finish { ranges, .. } => ranges.iter().map(|range| range.count()).sum(),
                _ => 1,
            })
            .sum();
        counts.push(count);
    }
    assert_eq!(counts, [65_536, 71_000 - 65_536]);
}

#[test]
fn deferred_messages_count_until_they_are_applied() {
    let mut pipeline = started();
    let (answer, _receiver) = oneshot::channel();
    let mut deferred = message("a");
    deferred.defer_ms = 1;
    pipeline.publish(Publish {
        messages: vec![deferred, message("b")],
        only: None,
        answer: answer.into(),
        place: None,
        _held: Held::Nothing,
    });
    assert_eq!(pipeline.deferred_waiting(), 1);
    let ticket = next(&mut pipeline).ticket;
    pipeline.refused(ticket, NOW);
    pipeline.settle(Seq::new(1));
    assert_eq!(pipeline.deferred_waiting(), 1);
    next_at(&mut pipeline, NOW + REFUSAL_PAUSE).unwrap();
    pipeline.accepted(Seq::new(1));
    assert_eq!(pipeline.deferred_waiting(), 0);
}

#[test]
fn the_end_of_a_leadership_answers_everybody() {
    let mut pipeline = started();
    let mut publishes = vec![publish(&mut pipeline, &["a"])];
    let mut commands = vec![command(&mut pipeline, Event::PauseTopic)];
    let ticket = next(&mut pipeline).ticket;
    publishes.push(publish(&mut pipeline, &["b"]));
    commands.push(command(&mut pipeline, Event::UnpauseTopic));
    pipeline.finish(FIRST, Seq::new(1), NOW);
    pipeline.requeue(requeue(1));
    pipeline.abandon(PublishError::Stopping, AdminError::TopicNotFound);
    for mut answer in publishes {
        assert_eq!(answer.try_recv(), Ok(Err(PublishError::Stopping)));
    }
    for mut answer in commands {
        assert_eq!(answer.try_recv(), Ok(Err(AdminError::TopicNotFound)));
    }
    assert_eq!((pipeline.finishing(FIRST), pipeline.ready_at(8)), (0, None));
    pipeline.start(Seq::new(9));
    let _answer = publish(&mut pipeline, &["c"]);
    let ready = next_at(&mut pipeline, at_ms(0)).unwrap();
    assert_eq!(ready.first_seq, Seq::new(9));
    assert_ne!(
        ready.ticket, ticket,
        "a late refusal of the last leadership must not meet a proposal of this one"
    );
}

#[test]
#[should_panic(expected = "in the order of their proposals")]
fn batches_applied_in_another_order_are_noticed() {
    let mut pipeline = started();
    let _answers = [publish(&mut pipeline, &["a"])];
    next(&mut pipeline);
    let _second = publish(&mut pipeline, &["b"]);
    next(&mut pipeline);
    pipeline.accepted(Seq::new(2));
}

#[test]
fn events_are_not_told_before_a_refused_batch_in_front_of_them_is_in_the_log() {
    let mut pipeline = started();
    let mark = EventsMark {
        router: SessionId {
            node: NodeId::new(2),
            incarnation: NodeIncarnation::new(1),
        },
        last: 7,
    };
    pipeline.requeue(requeue(1));
    let refused = next(&mut pipeline);
    let _answer = publish(&mut pipeline, &["a"]);
    let behind = next(&mut pipeline);
    assert_eq!(pipeline.mark(Mark::Node(mark)), None);
    pipeline.refused(refused.ticket, NOW);
    // Without messages the refused batch leaves no gap, and the one behind it counts.
    let stored = pipeline.accepted(behind.first_seq);
    assert!(!stored.contains(&Stored::Events(mark)), "{stored:?}");
    pipeline.settle(Seq::new(2));
    let again = next_at(&mut pipeline, NOW + REFUSAL_PAUSE).expect("the refused batch goes again");
    assert_eq!(pipeline.accepted(again.first_seq), [Stored::Events(mark)]);
    let mark = Mark::Node(mark);
    assert_eq!(pipeline.mark(mark), Some(mark), "nothing is under way");
}

#[test]
fn a_pause_and_the_end_of_a_channel_stand_behind_messages_for_one_channel_and_not_in_their_batch() {
    let mut pipeline = started();
    let mut answers = vec![publish(&mut pipeline, &["a"])];
    drop(command(&mut pipeline, Event::PauseTopic));
    answers.push(publish_to(&mut pipeline, "ledger", &["b", "c"]));
    drop(command(&mut pipeline, Event::UnpauseTopic));
    drop(command(&mut pipeline, Event::PauseTopic));
    answers.push(publish(&mut pipeline, &["d"]));
    let firsts: Vec<u64> = std::iter::from_fn(|| next_at(&mut pipeline, NOW))
        .map(|ready| ready.first_seq.get())
        .collect();
    assert_eq!(firsts, [1, 4], "events apply before messages");
    let range = SeqRange::new(Seq::new(2), Seq::new(3)).expect("ascending");
    assert_eq!(pipeline.for_one_channel(Seq::new(1)), [(range, channel("ledger"))]);
    let mut pipeline = started();
    assert!(!pipeline.is_pausing());
    drop(command(&mut pipeline, Event::PauseTopic));
    drop(command(&mut pipeline, Event::UnpauseTopic));
    assert!(pipeline.is_pausing(), "the second may be refused, and overtaken");
    let mut pipeline = started();
    let end = Event::DeleteChannel {
        channel: ChannelIncarnation::new(1),
    };
    let answer = publish_to(&mut pipeline, "ledger", &["a"]);
    drop(command(&mut pipeline, end));
    assert!(pipeline.is_deleting(ChannelIncarnation::new(1)) && !pipeline.is_deleting(ChannelIncarnation::new(2)));
    let batches = std::iter::from_fn(|| next_at(&mut pipeline, NOW)).count();
    assert_eq!(batches, 2);
    drop(answer);
    drop(answers);
}
