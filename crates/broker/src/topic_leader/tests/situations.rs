//! Single situations, mostly such as random histories have met or may miss. The model looks on in all of them.

use std::time::Duration;

use nsquorum_consensus::{Refusal, TopicEvent};
use nsquorum_protocol::ChannelName;
use nsquorum_storage::SpaceState;
use nsquorum_topic::{Event, NodeIncarnation, Seq, Term};

use super::channel;
use super::consumers::Consumer;
use super::group::{GroupEvent, ME};
use super::history::History;
use crate::latency::{LatencySettings, Quantile};
use crate::leases::{DeliveryToken, LeaseEvent, LeaseOutcome};
use crate::stats::ChannelStats;
use crate::subscription::SubscriptionId;
use crate::topic_leader::dispatch::Dispatch;
use crate::topic_leader::input::{ChannelChange, Command, LeaderInput};
use crate::topic_leader::machine::{LeaderLimits, Output, TopicLeader};

const WINDOW: usize = 4 << 20;
const NO_WINDOW: usize = 0;

/// A leader with one consumer of `ledger`.
fn leading(limits: LeaderLimits, window_bytes_max: usize, ready: u32) -> (History, SubscriptionId) {
    let mut history = History::quiet(limits, window_bytes_max);
    history.settle();
    let id = subscribe(&mut history, "ledger", ready);
    (history, id)
}

fn subscribe(history: &mut History, name: &str, ready: u32) -> SubscriptionId {
    history.subscribe_to(channel(name));
    history.settle();
    let id = SubscriptionId(history.subscriptions);
    history.ready(id, ready);
    history.settle();
    id
}

fn publish(history: &mut History, count: u64) {
    for _ in 0..count {
        let publish = history.publishers.publish_of(1, 10, 0);
        history.input(LeaderInput::Publish(publish));
        history.settle();
    }
}

/// The consumer takes and writes all that was offered; returns what it holds.
fn take(history: &mut History, id: SubscriptionId) -> Vec<u64> {
    let now = history.now;
    let consumer = history.consumers.get_mut(&id).expect("a consumer of the test");
    // A dice may return one in a while; here nothing goes back.
    let events: Vec<LeaseEvent> = consumer.take_all();
    assert!(events.is_empty(), "{events:?}");
    consumer.write(usize::MAX, now);
    consumer.held.keys().map(|seq| seq.get()).collect()
}

fn end(history: &mut History, id: SubscriptionId, how: impl FnOnce(&mut Consumer) -> LeaseEvent) {
    let event = how(history.consumers.get_mut(&id).expect("a consumer of the test"));
    history.lease_events(vec![event]);
    rest(history);
}

fn finish(history: &mut History, id: SubscriptionId, seq: u64) {
    end(history, id, |consumer| consumer.finish(Seq::new(seq)));
}

fn requeue(history: &mut History, id: SubscriptionId, seq: u64, delay_ms: u32) {
    end(history, id, |consumer| consumer.requeue(Seq::new(seq), delay_ms));
}

/// Long enough for FINs to go without company.
fn rest(history: &mut History) {
    history.settle();
    history.now = history.now + Duration::from_millis(6);
    history.settle();
}

fn stats_of(history: &mut History, name: &str) -> Option<ChannelStats> {
    let name: ChannelName = channel(name);
    history
        .stats()
        .expect("a leader answers")
        .channels
        .into_iter()
        .find(|channel| channel.name == name)
}

#[test]
fn a_refused_proposal_goes_again_by_itself() {
    let (mut history, id) = leading(LeaderLimits::default(), WINDOW, 5);
    history.bias.refusal = 1;
    let publish = history.publishers.publish_of(1, 10, 0);
    history.input(LeaderInput::Publish(publish));
    history.step();
    history.bias.refusal = u64::MAX;
    while history.deliver_event() {}
    history.step();
    assert_eq!(history.group.unapplied(), 0, "not in a loop while the lease is out");
    let wake_at = history.leader.wake_at().expect("nothing else is going to happen");
    history.now = wake_at;
    history.settle();
    assert_eq!(take(&mut history, id), [1]);
}

#[test]
fn a_refusal_of_an_earlier_leadership_does_not_end_the_next() {
    let (mut history, id) = leading(LeaderLimits::default(), WINDOW, 5);
    history.elect(ME);
    while history.group.apply_one() {}
    // Proposed before the leader knows of the next term, refused after that has begun.
    let unlucky = history.publishers.publish_of(1, 10, 0);
    history.input(LeaderInput::Publish(unlucky));
    history.step();
    assert!(matches!(
        history.group.events.back(),
        Some(GroupEvent {
            event: TopicEvent::Refused { .. },
            ..
        })
    ));
    while history.deliver_event() {}
    assert!(history.consumers[&id].is_closed);
    let id = subscribe(&mut history, "ledger", 5);
    publish(&mut history, 1);
    assert_eq!(
        take(&mut history, id),
        [1],
        "the abandoned publish is not stored, the next one is"
    );
}

#[test]
fn an_own_refusal_for_good_answers_everybody() {
    let (mut history, _) = leading(LeaderLimits::default(), WINDOW, 5);
    let publish = history.publishers.publish_of(1, 10, 0);
    history.input(LeaderInput::Publish(publish));
    let outputs = history.leader.step(history.now);
    let [Output::Propose { term, ticket, .. }] = outputs[..] else {
        panic!("{outputs:?}")
    };
    let event = TopicEvent::Refused {
        ticket,
        refusal: Refusal::Stopped,
    };
    history.group.events.push_back(GroupEvent {
        event,
        proposed_in: Some(term),
    });
    history.model.stop();
    while history.deliver_event() {}
    assert!(history.publishers.are_answered());
}

#[test]
fn what_a_reader_found_for_an_earlier_leadership_is_dropped() {
    let (mut history, id) = leading(LeaderLimits::default(), NO_WINDOW, 0);
    publish(&mut history, 6);
    history.ready(id, 2);
    history.settle();
    assert_eq!(take(&mut history, id), [1, 2]);
    // The third is asked for, and found only after the next leader begins at the first.
    history.group.log.chunk = 1;
    history.ready(id, 3);
    if history.jobs.is_empty() {
        history.ready(id, 20);
    }
    history.step();
    let stale = history.jobs.pop().expect("without a window messages come from the log");
    let done = stale.run_from_disk(&history.group.log);
    history.elect(ME);
    while history.group.apply_one() {}
    while history.deliver_event() {}
    let id = subscribe(&mut history, "ledger", 0);
    history.tell(|leader, _| leader.reader_done(done));
    history.ready(id, 20);
    history.settle();
    assert_eq!(take(&mut history, id), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn memberships_between_batches_do_no_harm() {
    let (mut history, id) = leading(LeaderLimits::default(), NO_WINDOW, 5);
    publish(&mut history, 1);
    history.group.append_blank();
    history.group.append_blank();
    publish(&mut history, 1);
    assert_eq!(take(&mut history, id), [1, 2]);
}

#[test]
fn a_requeue_goes_behind_all_that_was_there() {
    let (mut history, id) = leading(LeaderLimits::default(), WINDOW, 1);
    publish(&mut history, 3);
    assert_eq!(take(&mut history, id), [1]);
    requeue(&mut history, id, 1, 0);
    let mut order = Vec::new();
    for _ in 0..3 {
        let held = take(&mut history, id);
        order.extend(held.iter().copied());
        finish(&mut history, id, held[0]);
    }
    assert_eq!(order, [2, 3, 1]);
}

#[test]
fn a_requeue_comes_back_while_the_topic_is_paused() {
    let (mut history, id) = leading(LeaderLimits::default(), WINDOW, 1);
    publish(&mut history, 1);
    assert_eq!(take(&mut history, id), [1]);
    history.command(Command::Topic(Event::PauseTopic));
    history.settle();
    publish(&mut history, 1);
    requeue(&mut history, id, 1, 0);
    assert_eq!(
        take(&mut history, id),
        [1],
        "the topic holds back only what has not reached the channel"
    );
    requeue(&mut history, id, 1, 3);
    assert_eq!(take(&mut history, id), [1], "nor what was deferred");
    history.command(Command::Topic(Event::UnpauseTopic));
    history.settle();
    finish(&mut history, id, 1);
    assert_eq!(take(&mut history, id), [2]);
}

/// By the leader's own alarm clock: nothing else happens. nsqd takes up to 100 ms, and 5 s on a new channel.
#[test]
fn what_is_deferred_comes_when_its_time_has_come() {
    const DELAY_MS: u32 = 250;
    let (mut history, id) = leading(LeaderLimits::default(), WINDOW, 1);
    for deferral in ["published", "requeued"] {
        let began = history.now;
        if deferral == "published" {
            let publish = history.publishers.publish_of(1, 10, DELAY_MS);
            history.input(LeaderInput::Publish(publish));
        } else {
            requeue(&mut history, id, 1, DELAY_MS);
        }
        history.settle();
        while take(&mut history, id).is_empty() {
            history.now = history.leader.wake_at().expect("it is going to happen");
            history.settle();
        }
        let waited = history.now.since(began).as_millis();
        let delay = u128::from(DELAY_MS);
        assert!((delay..delay + 20).contains(&waited), "{deferral}: {waited} ms");
    }
}

#[test]
fn a_returned_message_keeps_its_place_and_its_attempts() {
    let (mut history, id) = leading(LeaderLimits::default(), WINDOW, 2);
    publish(&mut history, 3);
    history.disconnect(id);
    let id = subscribe(&mut history, "ledger", 1);
    assert_eq!(take(&mut history, id), [1]);
    let held = history.consumers[&id].held[&Seq::new(1)];
    assert!(
        held.delivery > 2,
        "another delivery; the model has checked that it is the first attempt"
    );
}

#[test]
fn a_fin_of_an_earlier_leadership_takes_the_message_out_of_the_queue() {
    for delay_ms in [0, 10_000] {
        let (mut history, id) = leading(LeaderLimits::default(), NO_WINDOW, 5);
        publish(&mut history, 2);
        assert_eq!(take(&mut history, id), [1, 2]);
        let late = history
            .consumers
            .get_mut(&id)
            .expect("a consumer of the test")
            .finish(Seq::new(1));
        history.elect(ME);
        history.settle();
        history.disconnect(id);
        history.parting();
        let id = subscribe(&mut history, "ledger", 2);
        assert_eq!(take(&mut history, id), [1, 2]);
        history.ready(id, 0);
        requeue(&mut history, id, 1, delay_ms);
        history.lease_events(vec![late]);
        rest(&mut history);
        history.group.purge();
        finish(&mut history, id, 2);
        history.group.purge();
        history.ready(id, 5);
        history.now = history.now + Duration::from_secs(11);
        history.settle();
        assert_eq!(take(&mut history, id), [0; 0], "finished is finished");
        let stats = stats_of(&mut history, "ledger").expect("the channel is there");
        assert_eq!((stats.depth, stats.deferred_count, stats.in_flight_count), (0, 0, 0));
    }
}

#[test]
fn what_is_on_its_way_back_is_in_the_stats() {
    let (mut history, id) = leading(LeaderLimits::default(), WINDOW, 3);
    publish(&mut history, 3);
    assert_eq!(take(&mut history, id), [1, 2, 3]);
    history.ready(id, 0);
    let consumer = history.consumers.get_mut(&id).expect("a consumer of the test");
    let events = vec![
        consumer.finish(Seq::new(1)),
        consumer.requeue(Seq::new(2), 0),
        consumer.requeue(Seq::new(3), 1000),
    ];
    history.lease_events(events);
    let counts = |history: &mut History| {
        let stats = stats_of(history, "ledger").expect("the channel is there");
        (stats.depth, stats.deferred_count, stats.in_flight_count)
    };
    assert_eq!(counts(&mut history), (1, 1, 0), "before it is proposed");
    history.step();
    assert_eq!(counts(&mut history), (1, 1, 0), "while it is under way");
    rest(&mut history);
    assert_eq!(counts(&mut history), (1, 1, 0), "when it is applied");
}

#[test]
fn what_a_lost_consumer_held_runs_out_at_a_step_whoever_else_leaves() {
    let (mut history, lost) = leading(LeaderLimits::default(), WINDOW, 1);
    let holds = subscribe(&mut history, "ledger", 1);
    let holds_nothing = subscribe(&mut history, "archive", 0);
    publish(&mut history, 2);
    assert_eq!(take(&mut history, lost), [1]);
    assert_eq!(take(&mut history, holds), [2]);
    history.disconnect(lost);
    history.step();
    history.now = history.now + Duration::from_secs(1);
    for id in [holds_nothing, holds] {
        history.disconnect(id);
        history.look_at_stats();
        let stats = stats_of(&mut history, "ledger").expect("the channel is there");
        assert_eq!(stats.in_flight_count, 2, "only a step looks at the time");
    }
    assert!(history.leader.wake_at().is_some_and(|at| at <= history.now));
    history.step();
    history.look_at_stats();
    let stats = stats_of(&mut history, "ledger").expect("the channel is there");
    assert_eq!(stats.in_flight_count, 0);
    history.settle();
    let id = subscribe(&mut history, "ledger", 2);
    assert_eq!(take(&mut history, id), [1, 2]);
}

#[test]
fn without_space_the_leader_sleeps_and_goes_on_by_itself() {
    let (mut history, id) = leading(LeaderLimits::default(), WINDOW, 5);
    publish(&mut history, 1);
    take(&mut history, id);
    history.space = SpaceState::RefuseAll;
    let event = history
        .consumers
        .get_mut(&id)
        .expect("a consumer of the test")
        .finish(Seq::new(1));
    history.lease_events(vec![event]);
    for _ in 0..3 {
        history.now = history
            .leader
            .wake_at()
            .expect("nobody else tells that space is back")
            .max(history.now);
        history.step();
        assert_eq!(history.group.unapplied(), 0, "the last space is not for FINs");
    }
    history.space = SpaceState::Ok;
    history.now = history.leader.wake_at().expect("nobody else tells that space is back");
    history.step();
    assert_eq!(history.group.unapplied(), 1);
}

#[test]
fn below_the_watermark_publishes_are_refused_and_deliveries_go_on() {
    let (mut history, id) = leading(LeaderLimits::default(), WINDOW, 1);
    publish(&mut history, 2);
    history.space = SpaceState::RefusePublishes;
    publish(&mut history, 1);
    assert_eq!(history.publishers.refused.len(), 1);
    assert_eq!(take(&mut history, id), [1]);
    finish(&mut history, id, 1);
    assert_eq!(take(&mut history, id), [2]);
    history.check_publishers();
}

#[test]
fn a_full_state_stops_new_messages_but_not_what_came_back() {
    let limits = LeaderLimits {
        state_bytes_max: 10,
        ..LeaderLimits::default()
    };
    let (mut history, id) = leading(limits, WINDOW, 4);
    publish(&mut history, 6);
    assert_eq!(take(&mut history, id), [1, 2, 3, 4]);
    // Numbers 2 to 4 out of order are more than 10 bytes.
    for seq in [2, 3, 4] {
        finish(&mut history, id, seq);
    }
    let before = take(&mut history, id);
    assert_eq!(before.last(), Some(&6), "the bound was reached only now: {before:?}");
    publish(&mut history, 2);
    assert_eq!(take(&mut history, id), before, "no room for new ones");
    requeue(&mut history, id, 1, 0);
    assert!(
        take(&mut history, id).contains(&1),
        "although 7 and 8 are before it in the queue"
    );
    finish(&mut history, id, 1);
    assert_eq!(take(&mut history, id), [5, 6, 7, 8]);
}

#[test]
fn after_a_change_of_leaders_a_full_state_becomes_smaller_again() {
    let limits = LeaderLimits {
        state_bytes_max: 10,
        ..LeaderLimits::default()
    };
    let (mut history, id) = leading(limits, NO_WINDOW, 5);
    publish(&mut history, 5);
    assert_eq!(take(&mut history, id), [1, 2, 3, 4, 5]);
    for seq in [2, 3, 4, 5] {
        finish(&mut history, id, seq);
    }
    history.group.restart();
    history.elect(ME);
    history.settle();
    history.disconnect(id);
    history.parting();
    let id = subscribe(&mut history, "ledger", 5);
    assert_eq!(
        take(&mut history, id),
        [1],
        "nothing but this one makes the state smaller"
    );
}

#[test]
fn a_channel_that_nobody_serves_does_not_hold_up_the_others() {
    let limits = LeaderLimits {
        state_bytes_max: 30,
        ..LeaderLimits::default()
    };
    let (mut history, other) = leading(limits, WINDOW, 20);
    let id = subscribe(&mut history, "archive", 0);
    publish(&mut history, 12);
    take(&mut history, other);
    for seq in 2..=12 {
        finish(&mut history, other, seq);
    }
    history.ready(id, 5);
    history.settle();
    assert_eq!(take(&mut history, id), [1, 2, 3, 4, 5]);
}

#[test]
fn an_ephemeral_channel_goes_with_its_last_consumer() {
    let (mut history, _) = leading(LeaderLimits::default(), WINDOW, 1);
    let id = subscribe(&mut history, "tail#ephemeral", 1);
    assert!(stats_of(&mut history, "tail#ephemeral").is_some());
    history.disconnect(id);
    history.settle();
    assert!(stats_of(&mut history, "tail#ephemeral").is_none());
}

#[test]
fn an_ephemeral_channel_goes_if_its_first_consumer_left_before_it_was_there() {
    let (mut history, _) = leading(LeaderLimits::default(), WINDOW, 1);
    history.subscribe_to(channel("tail#ephemeral"));
    let id = SubscriptionId(history.subscriptions);
    history.disconnect(id);
    history.settle();
    assert!(
        stats_of(&mut history, "tail#ephemeral").is_none(),
        "it would fill up, with nobody to read it"
    );
}

#[test]
fn an_emptied_channel_takes_everything_out_of_its_consumers_hands() {
    let (mut history, id) = leading(LeaderLimits::default(), WINDOW, 2);
    publish(&mut history, 4);
    assert_eq!(take(&mut history, id), [1, 2]);
    history.command(Command::Channel(channel("ledger"), ChannelChange::Empty));
    history.settle();
    publish(&mut history, 3);
    assert_eq!(
        take(&mut history, id),
        [5, 6],
        "room for both, although nothing was finished"
    );
}

#[test]
fn the_end_of_a_topic_is_reported_with_its_last_number() {
    let (mut history, id) = leading(LeaderLimits::default(), WINDOW, 0);
    publish(&mut history, 3);
    history.command(Command::Topic(Event::DeleteTopic));
    history.settle();
    assert_eq!(history.deleted, Some(Seq::new(3)));
    assert!(history.consumers[&id].is_closed);
    // After a restart between this and the metadata's learning of it, it is reported again.
    history.deleted = None;
    history.group.restart();
    assert_ne!(NodeIncarnation::new(history.group.incarnation), NodeIncarnation::new(1));
    history.restart_leader();
    history.elect(ME);
    history.settle();
    assert_eq!(history.deleted, Some(Seq::new(3)));
}

#[test]
fn what_is_finished_by_its_holder_is_measured_from_its_publish() {
    let (mut history, id) = leading(LeaderLimits::default(), WINDOW, 3);
    assert_eq!(
        stats_of(&mut history, "ledger").expect("a channel").latency,
        None,
        "not asked for"
    );
    let quantiles = [1.0, 0.01].map(|share| Quantile::new(share).expect("a share"));
    history.leader.set_latency(Some(LatencySettings {
        quantiles: quantiles.to_vec(),
        window: Duration::from_secs(600),
    }));
    let other = subscribe(&mut history, "other", 0);
    publish(&mut history, 3);
    assert_eq!(take(&mut history, id), [1, 2, 3]);
    let clock = |history: &History| {
        history
            .leader
            .leading
            .as_ref()
            .expect("leading")
            .clock(history.now)
            .get()
    };
    let published_at = super::message("x".to_owned()).published_at.get();
    let mut taken = Vec::new();
    for seq in [1, 2] {
        history.now = history.now + Duration::from_secs(3);
        taken.push(clock(&history).saturating_sub(published_at) as f64);
        finish(&mut history, id, seq);
    }
    requeue(&mut history, id, 3, 0);
    let stats = history.stats().expect("a leader answers");
    let measured = stats.channels[0].latency.clone().expect("asked for");
    let nanos: Vec<f64> = measured.percentiles.iter().map(|percentile| percentile.nanos).collect();
    assert_eq!(measured.count, 2, "neither what was requeued nor what waits");
    for (found, wanted) in nanos.iter().zip([taken[1], taken[0]]) {
        assert!(
            (found - wanted).abs() <= 0.011 * wanted,
            "{nanos:?} instead of {taken:?}"
        );
    }
    assert_eq!(stats.channels[1].latency.as_ref().map(|latency| latency.count), Some(0));
    assert_eq!(stats.latency, Some(measured), "the topic is all its channels");
    history.disconnect(other);
}

fn publish_to(history: &mut History, name: &str, count: u64) {
    let publish = history.publishers.publish_to(channel(name), count);
    history.input(LeaderInput::Publish(publish));
}

#[test]
fn what_is_for_one_channel_is_not_held_back_for_all_by_a_pause_that_comes_at_the_same_time() {
    let (mut history, id) = leading(LeaderLimits::default(), WINDOW, 9);
    let other = subscribe(&mut history, "other", 9);
    publish_to(&mut history, "ledger", 2);
    history.command(Command::Topic(Event::PauseTopic));
    publish_to(&mut history, "ledger", 1);
    history.settle();
    assert_eq!(take(&mut history, id), [1, 2]);
    history.command(Command::Topic(Event::UnpauseTopic));
    history.settle();
    assert_eq!(history.publishers.refused.len(), 1, "after the pause");
    publish(&mut history, 1);
    assert_eq!(
        (take(&mut history, id), take(&mut history, other)),
        (vec![1, 2, 3], vec![3])
    );
}

#[test]
fn what_is_for_a_channel_that_ends_at_the_same_time_goes_to_no_other() {
    let delete = || Command::Channel(channel("ledger"), ChannelChange::Delete);
    for others in [false, true] {
        let (mut history, _) = leading(LeaderLimits::default(), WINDOW, 9);
        let other = others.then(|| subscribe(&mut history, "other", 9));
        publish_to(&mut history, "ledger", 2);
        history.command(delete());
        publish_to(&mut history, "ledger", 1);
        history.settle();
        assert_eq!(
            (history.publishers.safe.len(), history.publishers.refused.len()),
            (2, 1),
            "before and behind the end"
        );
        let next = subscribe(&mut history, "next", 9);
        let again = subscribe(&mut history, "ledger", 9);
        publish(&mut history, 1);
        for id in [Some(next), Some(again), other].into_iter().flatten() {
            assert_eq!(take(&mut history, id), [3], "with others: {others}");
        }
    }
}

#[test]
fn a_leader_that_nobody_confirms_does_not_say_that_a_channel_is_missing() {
    let (mut history, _) = leading(LeaderLimits::default(), WINDOW, 0);
    for (is_confirmed, refused) in [(false, 0), (true, 1)] {
        history.leader.set_confirmed(is_confirmed);
        publish_to(&mut history, "missing", 1);
        history.settle();
        assert!(history.publishers.are_answered());
        assert_eq!(history.publishers.refused.len(), refused, "confirmed: {is_confirmed}");
    }
}

#[test]
fn what_is_for_one_channel_comes_on_all_if_the_leader_changes_before_that_is_in_the_log() {
    let (mut history, id) = leading(LeaderLimits::default(), WINDOW, 0);
    subscribe(&mut history, "other", 0);
    publish_to(&mut history, "ledger", 1);
    history.step();
    while history.group.apply_one() {}
    while history.deliver_event() {}
    assert_eq!(history.publishers.safe.len(), 1, "answered");
    history.restart_leader();
    history.elect(ME);
    history.settle();
    for name in ["ledger", "other"] {
        let id = subscribe(&mut history, name, 9);
        assert_eq!(take(&mut history, id), [1], "on {name}");
    }
    assert!(history.consumers.contains_key(&id));
}

#[test]
fn what_is_for_other_channels_takes_no_room_in_one_that_nobody_serves() {
    let (mut history, _) = leading(LeaderLimits::default(), WINDOW, 0);
    subscribe(&mut history, "other", 0);
    for _ in 0..20 {
        publish(&mut history, 1);
        publish_to(&mut history, "ledger", 3);
        rest(&mut history);
    }
    let leading = history.leader.leading.as_ref().expect("leading");
    let ranges = leading.dispatches.values().map(Dispatch::passed_over_ranges);
    assert!(ranges.max() <= Some(1), "all but the last are in the log");
}

#[test]
fn a_new_topic_has_the_channels_that_are_known_elsewhere_before_its_first_message() {
    let mut history = History::quiet(LeaderLimits::default(), WINDOW);
    history.leader.set_asks_for_channels(true);
    history.settle();
    let term = history.asked_in.take().expect("nobody has used the topic");
    let first = history.publishers.publish_of(1, 10, 0);
    history.input(LeaderInput::Publish(first));
    history.subscribe_to(channel("own"));
    history.step();
    assert_eq!(history.group.unapplied(), 0);
    assert_eq!(history.leader.wake_at(), None, "and the leader waits quietly");
    let earlier = Term::new(term.get() - 1);
    history.leader.channels_known(earlier, vec![channel("stray")]);
    history.step();
    assert_eq!(history.group.unapplied(), 0, "not the answer to this question");

    let known = ["a", "b", "tail#ephemeral"].map(channel).to_vec();
    history.leader.channels_known(term, known);
    history.settle();
    let begins: Vec<(&str, u64)> = history
        .group
        .state
        .channels()
        .map(|channel| (channel.name().as_str(), channel.begin().get()))
        .collect();
    assert_eq!(begins, [("a", 1), ("b", 1), ("own", 1)]);
    assert_eq!(history.group.state.message_count(), 1);

    history.elect(ME);
    history.settle();
    assert_eq!(history.asked_in, None, "the topic is not new any more");
}

#[test]
fn the_next_leader_asks_if_the_first_did_not_live_to_hear_the_answer() {
    let mut history = History::quiet(LeaderLimits::default(), WINDOW);
    history.leader.set_asks_for_channels(true);
    history.settle();
    let first = history.asked_in.take().expect("nobody has used the topic");
    history.elect(ME);
    history.settle();
    let second = history.asked_in.take().expect("nobody has used it yet");
    assert!(second > first);
    history.leader.channels_known(first, Vec::new());
    let publish = history.publishers.publish_of(1, 10, 0);
    history.input(LeaderInput::Publish(publish));
    history.step();
    assert_eq!(history.group.unapplied(), 0, "a late answer to the first question");
    history.leader.channels_known(second, Vec::new());
    history.settle();
    assert_eq!(history.group.state.message_count(), 1);
}

/// A leader of an ephemeral topic.
fn leading_ephemeral() -> History {
    let mut history = History::quiet(LeaderLimits::default(), WINDOW);
    let name = "orders#ephemeral".parse().expect("a valid name");
    history.leader = TopicLeader::new(name, LeaderLimits::default());
    history.leader.set_window_bytes_max(WINDOW);
    history.settle();
    history
}

fn change(history: &mut History, name: &str, change: ChannelChange) {
    history.command(Command::Channel(channel(name), change));
}

#[test]
fn an_ephemeral_topic_goes_with_its_last_channel() {
    let mut history = leading_ephemeral();
    publish(&mut history, 1);
    assert_eq!(history.deleted, None, "it never had a channel");
    for name in ["a", "b"] {
        history.command(Command::CreateChannel(channel(name)));
    }
    history.settle();
    change(&mut history, "a", ChannelChange::Delete);
    history.settle();
    assert_eq!(history.deleted, None, "it has another one");
    change(&mut history, "b", ChannelChange::Delete);
    history.settle();
    assert_eq!(history.deleted, Some(Seq::new(1)));
}

#[test]
fn an_ephemeral_topic_stays_for_a_channel_that_is_on_its_way() {
    let mut history = leading_ephemeral();
    history.command(Command::CreateChannel(channel("a")));
    history.settle();
    change(&mut history, "a", ChannelChange::Delete);
    history.step();
    history.subscribe_to(channel("b"));
    history.settle();
    assert_eq!(history.deleted, None);
    assert!(stats_of(&mut history, "b").is_some_and(|channel| channel.consumer_count == 1));
}

#[test]
fn the_next_leader_ends_an_ephemeral_topic_that_has_lost_its_last_channel() {
    let mut history = leading_ephemeral();
    history.command(Command::CreateChannel(channel("a")));
    history.settle();
    change(&mut history, "a", ChannelChange::Delete);
    history.step();
    // The leader does not live to hear of it.
    while history.group.apply_one() {}
    history.group.events.clear();
    history.elect(ME);
    history.settle();
    assert_eq!(history.deleted, Some(Seq::new(0)));
}

/// An earlier leader's FIN may come when this one has taken a REQ already, and the message is not due for an hour.
#[test]
fn what_was_finished_late_is_not_deferred_any_more() {
    let (mut history, id) = leading(LeaderLimits::default(), WINDOW, 2);
    publish(&mut history, 2);
    assert_eq!(take(&mut history, id), [1, 2]);
    let consumer = history.consumers.get_mut(&id).expect("a consumer of the test");
    let (first, second) = (
        consumer.requeue(Seq::new(1), 3_600_000),
        consumer.requeue(Seq::new(2), 3_600_000),
    );
    let late = |of: &LeaseEvent| LeaseEvent {
        token: DeliveryToken {
            delivery: of.token.delivery + 100,
            ..of.token
        },
        outcome: LeaseOutcome::Finished,
    };
    // One is under way when the FIN comes, the other is applied.
    let late = [late(&first), late(&second)];
    history.lease_events(vec![second]);
    rest(&mut history);
    history.lease_events(vec![first]);
    history.step();
    history.lease_events(late.to_vec());
    rest(&mut history);
    let stats = stats_of(&mut history, "ledger").expect("the channel is there");
    assert_eq!((stats.depth, stats.deferred_count, stats.in_flight_count), (0, 0, 0));
}

#[test]
fn an_ephemeral_channel_keeps_the_newest_within_its_bound() {
    for window in [WINDOW, NO_WINDOW] {
        let limits = LeaderLimits {
            ephemeral_depth_max: 3,
            ..LeaderLimits::default()
        };
        let (mut history, durable) = leading(limits, window, 0);
        let id = subscribe(&mut history, "tail#ephemeral", 2);
        publish(&mut history, 2);
        assert_eq!(
            take(&mut history, id),
            [1, 2],
            "what somebody has room for is not dropped"
        );
        publish(&mut history, 5);
        let stats = stats_of(&mut history, "tail#ephemeral").expect("the channel is there");
        assert_eq!(
            (stats.depth, stats.in_flight_count),
            (3, 2),
            "before it is known that the rest is in the log"
        );
        // What came back does not count.
        end(&mut history, id, |consumer| consumer.requeue(Seq::new(2), 1_000));
        publish(&mut history, 1);
        rest(&mut history);
        let stats = stats_of(&mut history, "tail#ephemeral").expect("the channel is there");
        assert_eq!((stats.depth, stats.deferred_count, stats.in_flight_count), (3, 1, 2));
        history.ready(id, 9);
        history.settle();
        assert_eq!(take(&mut history, id), [1, 5, 6, 7, 8]);
        history.now = history.now + Duration::from_secs(2);
        history.settle();
        assert_eq!(take(&mut history, id), [1, 2, 5, 6, 7, 8]);
        let stats = stats_of(&mut history, "ledger").expect("the channel is there");
        assert_eq!(stats.depth, 8, "no other channel drops anything");
        history.ready(durable, 9);
        history.settle();
        assert_eq!(take(&mut history, durable), [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
