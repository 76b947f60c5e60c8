//! The verdict: what must hold, whatever happened to the node.
//!
//! Each rule is checked over the whole history and names what breaks it. The checks use only what clients can see (bodies,
//! numbers, the order of answers) and what `verify` reads from directories between two lives.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use crate::body::BodyId;
use crate::history::{Answer, Life, Publish, Records};
use crate::verify::TopicState;

/// Two clocks of one machine are compared where delays are checked; they are read at slightly different moments.
const CLOCK_SLACK: Duration = Duration::from_millis(5);
/// Violations of one rule that are listed; more say nothing new.
const LISTED_MAX: usize = 5;

/// A promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// What was answered OK is delivered on every channel.
    NothingLost,
    /// What arrives was sent, and was not refused.
    NothingInvented,
    /// Every body arrives as it was published.
    NothingDamaged,
    /// A body has one number, on every channel and redelivery. So an unknown publish is stored at most once.
    OneNumber,
    /// A number stands for one body.
    OneBody,
    /// Numbers have no gaps.
    Dense,
    /// On one connection numbers rise in the order of the publishes.
    OrderOfConnection,
    /// What was sent after another publish was answered has a higher number.
    OrderInTime,
    /// An MPUB is stored whole, in its order, or not at all.
    WholeBatches,
    /// A deferred or requeued message does not come before its time.
    NotEarly,
    /// What a directory has as finished does not come back from it.
    FinishedStays,
    /// Nothing is finished that no consumer finished.
    FinishedByFin,
    /// On one connection first deliveries of undeferred messages rise.
    DeliveryOrder,
    /// A directory holds at least as many messages as were answered OK.
    StoredWhenAnswered,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// What breaks it.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// What the verdict is made from.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// What clients saw.
    pub records: Records,
    /// Names of the channels, in the order of their places.
    pub channels: Vec<String>,
    /// The directory after each life, if it had the topic.
    pub cuts: Vec<(Life, TopicState)>,
}

/// Every violation, a few of each rule.
#[must_use]
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let mut verdict = Verdict {
        evidence,
        violations: Vec::new(),
        numbers: HashMap::new(),
        publishes: HashMap::new(),
    };
    verdict.index();
    verdict.bodies();
    verdict.losses();
    verdict.density();
    verdict.order_of_publishes();
    verdict.order_in_time();
    verdict.delays();
    verdict.finished();
    verdict.order_of_deliveries();
    verdict.violations
}

struct Verdict<'a> {
    evidence: &'a Evidence,
    violations: Vec<Violation>,
    /// Of each body that arrived.
    numbers: HashMap<BodyId, u64>,
    /// Of each body that was sent.
    publishes: HashMap<BodyId, &'a Publish>,
}

impl<'a> Verdict<'a> {
    fn broken(&mut self, rule: Rule, what: impl FnOnce() -> String) {
        if self
            .violations
            .iter()
            .filter(|violation| violation.rule == rule)
            .count()
            < LISTED_MAX
        {
            self.violations.push(Violation { rule, what: what() });
        }
    }

    fn channel(&self, place: usize) -> &'a str {
        &self.evidence.channels[place]
    }

    fn index(&mut self) {
        for publish in &self.evidence.records.publishes {
            for body in bodies_of(publish) {
                self.publishes.insert(body, publish);
            }
        }
    }

    /// Fills `numbers` on the way.
    fn bodies(&mut self) {
        let mut bodies: HashMap<u64, BodyId> = HashMap::new();
        for delivery in &self.evidence.records.deliveries {
            let number = delivery.number;
            let Some(body) = delivery.body else {
                self.broken(Rule::NothingDamaged, || {
                    format!("message {number} arrived with a body that was never made")
                });
                continue;
            };
            match self.publishes.get(&body).map(|publish| publish.answer) {
                None => self.broken(Rule::NothingInvented, || {
                    format!("{body} arrived as {number} and was never sent")
                }),
                Some(Answer::Refused) => {
                    self.broken(Rule::NothingInvented, || {
                        format!("{body} arrived as {number} though it was refused")
                    });
                }
                Some(Answer::Ok | Answer::Unknown | Answer::Waiting) => {}
            }
            let first = *self.numbers.entry(body).or_insert(number);
            if first != number {
                self.broken(Rule::OneNumber, || format!("{body} arrived as {first} and as {number}"));
            }
            let holder = *bodies.entry(number).or_insert(body);
            if holder != body {
                self.broken(Rule::OneBody, || {
                    format!("{number} arrived with {holder} and with {body}")
                });
            }
        }
    }

    fn losses(&mut self) {
        let records = &self.evidence.records;
        for place in 0..self.evidence.channels.len() {
            let arrived: HashSet<BodyId> = records
                .deliveries
                .iter()
                .filter(|delivery| delivery.channel == place)
                .filter_map(|delivery| delivery.body)
                .collect();
            let channel = self.channel(place);
            for publish in records.publishes.iter().filter(|publish| publish.answer == Answer::Ok) {
                for body in bodies_of(publish).filter(|body| !arrived.contains(body)) {
                    self.broken(Rule::NothingLost, || {
                        format!("{body} was answered OK and never came on {channel}")
                    });
                }
            }
        }
        // Unknown ones that were stored count too, so this can only be too lenient.
        for (life, topic) in &self.evidence.cuts {
            let stored = topic.next_seq.saturating_sub(1);
            let last = records
                .deliveries
                .iter()
                .filter(|delivery| delivery.life <= *life)
                .map(|delivery| delivery.number);
            if let Some(last) = last.max().filter(|last| *last > stored) {
                let what = || {
                    format!(
                        "{last} was delivered in or before life {}, whose directory ends at {stored}",
                        life.0
                    )
                };
                self.broken(Rule::StoredWhenAnswered, what);
            }
        }
    }

    fn density(&mut self) {
        let mut numbers: Vec<u64> = self.numbers.values().copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        for (number, expected) in numbers.into_iter().zip(1..) {
            if number != expected {
                return self.broken(Rule::Dense, || {
                    format!("no message {expected} ever came, but {number} did")
                });
            }
        }
    }

    fn order_of_publishes(&mut self) {
        let mut last: BTreeMap<u32, (u64, BodyId)> = BTreeMap::new();
        for publish in &self.evidence.records.publishes {
            let numbers: Vec<Option<u64>> = bodies_of(publish)
                .map(|body| self.numbers.get(&body).copied())
                .collect();
            let whole = match numbers[0] {
                Some(first) => numbers.iter().copied().eq((first..).map(Some).take(numbers.len())),
                None => numbers.iter().all(Option::is_none),
            };
            if !whole {
                self.broken(Rule::WholeBatches, || {
                    format!("the MPUB that begins with {} has {numbers:?}", publish.first)
                });
            }
            for (body, number) in bodies_of(publish).zip(numbers) {
                let Some(number) = number else { continue };
                let before = last.insert(body.publisher, (number, body));
                if let Some((before, earlier)) = before.filter(|(before, _)| *before > number) {
                    let what = || format!("{body} is {number}, and {earlier}, sent before it, is {before}");
                    self.broken(Rule::OrderOfConnection, what);
                }
            }
        }
    }

    fn order_in_time(&mut self) {
        let mut stored: Vec<(u64, &Publish)> = self
            .evidence
            .records
            .publishes
            .iter()
            .filter_map(|publish| Some((*self.numbers.get(&publish.first)?, publish)))
            .collect();
        stored.sort_unstable_by_key(|(number, _)| *number);
        let mut latest: Option<(u64, &Publish)> = None;
        for (number, publish) in stored {
            if let Some((before, later)) = latest
                && publish
                    .answered
                    .is_some_and(|answered| publish.answer == Answer::Ok && answered < later.sent)
            {
                let what = || {
                    format!(
                        "{} is {number} and was answered before {}, which is {before}, was sent",
                        publish.first, later.first
                    )
                };
                self.broken(Rule::OrderInTime, what);
            }
            if latest.is_none_or(|(_, later)| later.sent < publish.sent) {
                latest = Some((number, publish));
            }
        }
    }

    fn delays(&mut self) {
        let records = &self.evidence.records;
        for delivery in &records.deliveries {
            let Some(publish) = delivery.body.and_then(|body| self.publishes.get(&body)) else {
                continue;
            };
            let waited = delivery.at.saturating_duration_since(publish.sent_at) + CLOCK_SLACK;
            if waited < publish.delay {
                let (number, delay) = (delivery.number, publish.delay);
                self.broken(Rule::NotEarly, || {
                    format!("{number}, deferred by {delay:?}, came after {waited:?}")
                });
            }
        }
        for requeue in &records.requeues {
            let next = records.deliveries[requeue.after_delivery..].iter().find(|delivery| {
                (delivery.channel, delivery.number, delivery.life) == (requeue.channel, requeue.number, requeue.life)
            });
            if let Some(early) = next.filter(|next| next.at + CLOCK_SLACK < requeue.until) {
                let by = requeue.until - early.at;
                self.broken(Rule::NotEarly, || {
                    format!("{}, requeued, came {by:?} before its time", early.number)
                });
            }
        }
    }

    fn finished(&mut self) {
        let asked: HashSet<(usize, u64)> = self.evidence.records.finishes.iter().copied().collect();
        for (life, topic) in &self.evidence.cuts {
            for place in 0..self.evidence.channels.len() {
                let name = self.channel(place);
                let Some(channel) = topic.channels.iter().find(|channel| channel.name == name) else {
                    continue;
                };
                for number in (1..topic.next_seq).filter(|number| channel.is_finished(*number)) {
                    if !asked.contains(&(place, number)) {
                        let what = || format!("{number} was finished on {name} after life {}, by nobody", life.0);
                        self.broken(Rule::FinishedByFin, what);
                    }
                }
                for delivery in &self.evidence.records.deliveries {
                    let back =
                        delivery.channel == place && delivery.life > *life && channel.is_finished(delivery.number);
                    if back {
                        let (number, later) = (delivery.number, delivery.life.0);
                        let what = || {
                            format!(
                                "{number} was finished on {name} after life {} and came in life {later}",
                                life.0
                            )
                        };
                        self.broken(Rule::FinishedStays, what);
                    }
                }
            }
        }
    }

    fn order_of_deliveries(&mut self) {
        let mut last: HashMap<u32, u64> = HashMap::new();
        for delivery in &self.evidence.records.deliveries {
            let publish = delivery.body.and_then(|body| self.publishes.get(&body));
            let is_plain = publish.is_some_and(|publish| publish.delay.is_zero());
            if delivery.attempts != 1 || !is_plain {
                continue;
            }
            let (number, consumer) = (delivery.number, delivery.consumer);
            let before = last.insert(consumer, number);
            if let Some(before) = before.filter(|before| *before >= number) {
                let what = || format!("connection {consumer} got {number} after {before}, both for the first time");
                self.broken(Rule::DeliveryOrder, what);
            }
        }
    }
}

fn bodies_of(publish: &Publish) -> impl Iterator<Item = BodyId> + use<> {
    let first = publish.first;
    (first.serial..first.serial + publish.count).map(move |serial| BodyId { serial, ..first })
}

#[cfg(test)]
mod tests;
