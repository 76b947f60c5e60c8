//! Every rule is broken once: a checker that finds nothing proves nothing.

use std::time::Instant;

use super::*;
use crate::history::{Delivery, Requeue};
use crate::verify::ChannelState;

const CHANNELS: [&str; 2] = ["a", "b"];

fn body(publisher: u32, serial: u64) -> BodyId {
    BodyId { publisher, serial }
}

fn publish(first: BodyId, count: u64, (sent, answered): (u64, u64), now: Instant) -> Publish {
    Publish {
        first,
        count,
        delay: Duration::ZERO,
        sent,
        sent_at: now,
        answer: Answer::Ok,
        answered: Some(answered),
    }
}

fn delivery(channel: usize, number: u64, body: BodyId, now: Instant) -> Delivery {
    let life = Life(0);
    let consumer = u32::try_from(channel).unwrap();
    Delivery {
        life,
        channel,
        consumer,
        number,
        attempts: 1,
        body: Some(body),
        at: now + Duration::from_secs(1),
    }
}

/// Two publishers; one lone message, then an MPUB of two, then one unknown that was not stored.
fn good() -> Evidence {
    let now = Instant::now();
    let mut records = Records {
        publishes: vec![
            publish(body(1, 0), 1, (1, 2), now),
            publish(body(2, 0), 2, (3, 4), now),
            Publish {
                answer: Answer::Unknown,
                ..publish(body(1, 1), 1, (5, 6), now)
            },
        ],
        ..Records::default()
    };
    for channel in 0..CHANNELS.len() {
        for (number, body) in [(1, body(1, 0)), (2, body(2, 0)), (3, body(2, 1))] {
            records.deliveries.push(delivery(channel, number, body, now));
        }
        records.finishes.push((channel, 1));
    }
    let channels = CHANNELS
        .map(|name| ChannelState {
            name: name.to_owned(),
            floor: 2,
            finished: vec![],
        })
        .to_vec();
    let topic = TopicState {
        next_seq: 4,
        digest: String::new(),
        void_batches: 0,
        channels,
    };
    Evidence {
        records,
        channels: CHANNELS.map(str::to_owned).to_vec(),
        cuts: vec![(Life(0), topic)],
    }
}

fn rules(change: impl FnOnce(&mut Evidence)) -> Vec<Rule> {
    let mut evidence = good();
    change(&mut evidence);
    let mut rules: Vec<Rule> = check(&evidence).into_iter().map(|violation| violation.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

#[test]
fn a_good_history_has_no_violation() {
    assert_eq!(check(&good()), []);
    // An unknown publish may be stored, once, after what was answered before it.
    let stored = |evidence: &mut Evidence| {
        let unknown = Delivery {
            number: 4,
            body: Some(body(1, 1)),
            ..evidence.records.deliveries[0].clone()
        };
        evidence.records.deliveries.push(unknown);
        evidence.cuts[0].1.next_seq = 5;
    };
    assert_eq!(rules(stored), []);
    // A message that is not finished may come again.
    let again = |evidence: &mut Evidence| {
        let again = Delivery {
            life: Life(1),
            consumer: 9,
            ..evidence.records.deliveries[1].clone()
        };
        evidence.records.deliveries.push(again);
    };
    assert_eq!(rules(again), []);
}

#[test]
fn losses_are_seen_on_each_channel() {
    assert_eq!(
        rules(|evidence| evidence
            .records
            .deliveries
            .retain(|delivery| (delivery.channel, delivery.number) != (0, 3))),
        [Rule::NothingLost]
    );
    assert_eq!(
        rules(|evidence| evidence
            .records
            .deliveries
            .retain(|delivery| (delivery.channel, delivery.number) != (1, 3))),
        [Rule::NothingLost]
    );
    assert_eq!(
        rules(|evidence| evidence.cuts[0].1.next_seq = 3),
        [Rule::StoredWhenAnswered]
    );
}

#[test]
fn what_was_never_stored_is_seen() {
    let invented = |evidence: &mut Evidence| evidence.records.publishes.truncate(1);
    assert_eq!(rules(invented), [Rule::NothingInvented]);
    let refused = |evidence: &mut Evidence| evidence.records.publishes[0].answer = Answer::Refused;
    assert_eq!(rules(refused), [Rule::NothingInvented]);
    let damaged = |evidence: &mut Evidence| {
        let copy = Delivery {
            body: None,
            ..evidence.records.deliveries[0].clone()
        };
        evidence.records.deliveries.push(copy);
    };
    assert_eq!(rules(damaged), [Rule::NothingDamaged]);
}

#[test]
fn numbers_that_do_not_fit_are_seen() {
    let twice = |evidence: &mut Evidence| {
        let copy = Delivery {
            number: 4,
            ..evidence.records.deliveries[0].clone()
        };
        evidence.records.deliveries.push(copy);
        evidence.cuts.clear();
    };
    assert_eq!(rules(twice), [Rule::OneNumber]);
    let shared = |evidence: &mut Evidence| {
        evidence.records.deliveries.retain(|delivery| delivery.number != 1);
        let copy = Delivery {
            number: 2,
            body: Some(body(1, 0)),
            ..evidence.records.deliveries[0].clone()
        };
        evidence.records.deliveries.push(copy);
        evidence.cuts.clear();
    };
    assert!(rules(shared).contains(&Rule::OneBody));
    let gap = |evidence: &mut Evidence| {
        for delivery in &mut evidence.records.deliveries {
            delivery.number += u64::from(delivery.number == 3);
        }
        evidence.records.publishes[1].count = 1;
        evidence.records.publishes.push(Publish {
            first: body(2, 1),
            count: 1,
            ..evidence.records.publishes[1].clone()
        });
        evidence.cuts.clear();
    };
    assert_eq!(rules(gap), [Rule::Dense]);
}

#[test]
fn disorder_is_seen() {
    let torn = |evidence: &mut Evidence| {
        evidence.records.publishes[1].answer = Answer::Unknown;
        evidence.records.deliveries.retain(|delivery| delivery.number != 3);
    };
    assert_eq!(rules(torn), [Rule::WholeBatches]);
    let swapped_answers = |evidence: &mut Evidence| {
        (
            evidence.records.publishes[0].sent,
            evidence.records.publishes[0].answered,
        ) = (8, Some(9));
    };
    assert_eq!(rules(swapped_answers), [Rule::OrderInTime]);
    let one_connection = |evidence: &mut Evidence| {
        evidence.records.publishes.swap(0, 1);
        for publish in &mut evidence.records.publishes {
            publish.first.publisher = 1;
        }
        evidence.records.publishes.truncate(2);
        evidence.records.publishes[0].first.serial = 0;
        evidence.records.publishes[1].first.serial = 2;
        (evidence.records.publishes[0].sent, evidence.records.publishes[1].sent) = (1, 2);
        for delivery in &mut evidence.records.deliveries {
            delivery.body = Some(body(1, [2, 0, 1][usize::try_from(delivery.number).unwrap() - 1]));
        }
    };
    assert_eq!(rules(one_connection), [Rule::OrderOfConnection]);
    assert_eq!(
        rules(|evidence| evidence.records.deliveries.swap(0, 1)),
        [Rule::DeliveryOrder]
    );
}

#[test]
fn what_comes_early_is_seen() {
    let deferred = |evidence: &mut Evidence| evidence.records.publishes[0].delay = Duration::from_secs(2);
    assert_eq!(rules(deferred), [Rule::NotEarly]);
    let requeued = |evidence: &mut Evidence| {
        let first = evidence.records.deliveries[0].clone();
        let until = first.at + Duration::from_secs(1);
        let after_delivery = evidence.records.deliveries.len();
        evidence.records.requeues.push(Requeue {
            life: Life(0),
            channel: 0,
            number: 1,
            until,
            after_delivery,
        });
        evidence.records.deliveries.push(Delivery { attempts: 2, ..first });
    };
    assert_eq!(rules(requeued), [Rule::NotEarly]);
}

#[test]
fn wrong_cursors_are_seen() {
    let back = |evidence: &mut Evidence| {
        let again = Delivery {
            life: Life(1),
            consumer: 9,
            ..evidence.records.deliveries[0].clone()
        };
        evidence.records.deliveries.push(again);
    };
    assert_eq!(rules(back), [Rule::FinishedStays]);
    let skipped = |evidence: &mut Evidence| evidence.cuts[0].1.channels[1].finished = vec![(3, 3)];
    assert_eq!(rules(skipped), [Rule::FinishedByFin]);
}
