//! The verdict must object to every broken promise, and only to broken ones.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use nsquorum_protocol::ChannelName;

use super::journal::{Answer, ConnectionId, Journal, Pause, Publish, Record};
use super::verdict::Verdict;

const STAYED: ConnectionId = ConnectionId { place: 0, number: 1 };
const OTHER: ConnectionId = ConnectionId { place: 1, number: 2 };

/// Publishes and deliveries of one channel at times of its own.
struct Story {
    journal: Journal,
    began: Instant,
}

impl Story {
    /// Three messages, answered OK.
    fn new() -> Self {
        let story = Self {
            journal: Journal::default(),
            began: Instant::now(),
        };
        for number in 1..=3 {
            story.publish(&format!("0-{number}"), Answer::Ok);
        }
        story
    }

    /// The same, and all of them finished.
    fn finished() -> Self {
        let story = Self::new();
        for seq in 1..=3 {
            story.deliver(STAYED, seq, 1, 0);
            story.finish(STAYED, seq, 100);
        }
        story
    }

    fn at(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(ms)
    }

    fn publish(&self, body: &str, answer: Answer) {
        self.journal.published(Publish {
            place: 0,
            body: body.to_owned(),
            sent: self.began,
            answered: self.began,
            answer,
        });
    }

    fn deliver(&self, connection: ConnectionId, seq: u64, attempts: u16, ms: u64) {
        self.deliver_body(connection, seq, attempts, ms, &format!("0-{seq}"));
    }

    fn deliver_body(&self, connection: ConnectionId, seq: u64, attempts: u16, ms: u64, body: &str) {
        self.journal.record(Record::Delivered {
            connection,
            channel: channel(),
            seq,
            attempts,
            body: body.to_owned(),
            at: self.at(ms),
        });
    }

    fn finish(&self, connection: ConnectionId, seq: u64, ms: u64) {
        self.journal.record(Record::Finished {
            connection,
            channel: channel(),
            seq,
            at: self.at(ms),
        });
    }

    fn end(&self, connection: ConnectionId, ms: u64) {
        self.journal.record(Record::Ended {
            connection,
            at: self.at(ms),
        });
    }

    fn judge(&self) -> Verdict {
        self.journal.judge(&[channel()], &[])
    }

    fn violations(&self) -> Vec<String> {
        self.judge().violations
    }
}

fn channel() -> ChannelName {
    "ledger".parse().unwrap()
}

#[test]
fn nothing_is_wrong_with_what_went_well() {
    let verdict = Story::finished().judge();
    assert!(verdict.violations.is_empty(), "{:?}", verdict.violations);
    assert_eq!((verdict.stored, verdict.unknown_stored), (3, 0));
}

#[test]
fn an_ok_that_never_came_is_noticed() {
    let story = Story::finished();
    story.publish("0-4", Answer::Ok);
    assert_eq!(story.violations(), ["0-4 was answered OK and never came"]);
}

#[test]
fn an_unknown_outcome_may_be_stored_or_not() {
    let story = Story::finished();
    story.publish("0-4", Answer::Lost("closed".to_owned()));
    story.publish("0-5", Answer::Lost("closed".to_owned()));
    story.deliver(STAYED, 4, 1, 0);
    let verdict = story.judge();
    assert!(verdict.violations.is_empty(), "{:?}", verdict.violations);
    assert_eq!(verdict.unknown_stored, 1);
}

#[test]
fn what_nobody_sent_and_what_is_stored_twice_are_noticed() {
    let story = Story::finished();
    story.deliver_body(STAYED, 4, 1, 0, "0-9");
    assert_eq!(story.violations(), ["0-9 was never sent"]);
    let story = Story::finished();
    story.deliver_body(STAYED, 4, 1, 0, "0-3");
    assert!(
        story.violations()[0].contains("is stored as"),
        "{:?}",
        story.violations()
    );
}

#[test]
fn gaps_and_a_wrong_order_are_noticed() {
    let story = Story::finished();
    story.publish("0-4", Answer::Ok);
    story.deliver_body(STAYED, 5, 1, 0, "0-4");
    assert!(story.violations()[0].contains("not dense"), "{:?}", story.violations());
    let story = Story::new();
    for (seq, body) in [(1, "0-1"), (2, "0-3"), (3, "0-2")] {
        story.deliver_body(STAYED, seq, 1, 0, body);
    }
    assert!(
        story.violations()[0].contains("sent after it"),
        "{:?}",
        story.violations()
    );
}

#[test]
fn a_second_delivery_of_what_is_held_needs_the_end_of_the_holder() {
    let again = |end: Option<u64>| {
        let story = Story::finished();
        story.publish("0-4", Answer::Ok);
        story.deliver(STAYED, 4, 1, 0);
        story.deliver(OTHER, 4, 1, 1000);
        if let Some(ms) = end {
            story.end(STAYED, ms);
        }
        (story.violations().len(), story.judge().held_came_again)
    };
    assert_eq!(again(None), (1, 0));
    assert_eq!(again(Some(900)), (0, 1));
    // It was noticed a little later, but not much later.
    assert_eq!(again(Some(1500)), (0, 1));
    assert_eq!(again(Some(9000)), (1, 0));
}

#[test]
fn what_was_finished_comes_again_only_if_its_connection_ended_right_then() {
    let again = |end: Option<u64>| {
        let story = Story::finished();
        story.deliver(OTHER, 3, 1, 3000);
        if let Some(ms) = end {
            story.end(STAYED, ms);
        }
        (story.violations().len(), story.judge().finished_came_again)
    };
    assert_eq!(again(None), (1, 0));
    assert_eq!(again(Some(200)), (0, 1));
    assert_eq!(again(Some(2900)), (1, 0));
}

#[test]
fn more_attempts_than_deliveries_are_noticed() {
    let story = Story::new();
    for seq in 1..=3 {
        story.deliver(STAYED, seq, if seq == 2 { 2 } else { 1 }, 0);
    }
    assert_eq!(story.violations(), ["ledger: 2 says 2 attempts at delivery 1"]);
}

#[test]
fn a_refused_fin_counts_at_connections_that_stayed() {
    let story = Story::finished();
    let refused = |connection| Record::Refused {
        connection,
        text: "E_FIN_FAILED".to_owned(),
    };
    story.journal.record(refused(STAYED));
    story.journal.record(refused(OTHER));
    story.end(OTHER, 0);
    assert_eq!(story.violations().len(), 1);
}

#[test]
fn a_pause_excuses_what_happens_during_it() {
    let story = Story::finished();
    story.deliver(OTHER, 3, 1, 3000);
    let pause = |from, to| Pause {
        place: STAYED.place,
        from: story.at(from),
        to: story.at(to),
    };
    let during = story.journal.judge(&[channel()], &[pause(1000, 5000)]);
    assert_eq!((during.violations.len(), during.paused_came_again), (0, 1));
    let before = story.journal.judge(&[channel()], &[pause(0, 2000)]);
    assert_eq!((before.violations.len(), before.paused_came_again), (1, 0));
}
