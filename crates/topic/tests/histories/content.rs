//! What clients might ask for next.

use bytes::Bytes;
use nsquorum_protocol::ChannelName;
use nsquorum_topic::{Attempts, ChannelIncarnation, Event, LogTime, RequeueCause, Seq, SeqRange};

use super::dice::Dice;
use super::naive::{Naive, NaiveMessage};

/// Events and messages that still look for a batch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pub(crate) events: Vec<Event>,
    pub(crate) messages: Vec<NaiveMessage>,
}

impl Content {
    pub(crate) fn random(dice: &mut Dice, naive: &Naive, serial: &mut u64) -> Self {
        let mut content = Self::default();
        if dice.one_in(400) {
            content.events.push(Event::DeleteTopic);
            return content;
        }
        if dice.one_in(2) {
            content.events = (0..=dice.below(3)).map(|_| event(dice, naive)).collect();
        }
        if content.events.is_empty() || dice.one_in(2) {
            content.messages = (0..=dice.below(6)).map(|_| message(dice, naive, serial)).collect();
        }
        content
    }
}

fn message(dice: &mut Dice, naive: &Naive, serial: &mut u64) -> NaiveMessage {
    *serial += 1;
    let text = format!("{serial}:{}", "x".repeat(dice.below(20) as usize));
    NaiveMessage {
        body: if dice.one_in(20) {
            Bytes::new()
        } else {
            Bytes::from(text)
        },
        defer_ms: if dice.one_in(4) { dice.below(2_000) as u32 } else { 0 },
        published_at: (naive.time + dice.below(1_000_000)).saturating_sub(500_000),
        origin: None,
    }
}

fn event(dice: &mut Dice, naive: &Naive) -> Event {
    let channel = channel(dice, naive);
    match dice.below(24) {
        0..=3 => {
            let name = ["a", "b", "c", "d#ephemeral"][dice.below(4) as usize];
            Event::CreateChannel {
                name: ChannelName::try_from(name).unwrap(),
            }
        }
        4 => Event::DeleteChannel { channel },
        5 => Event::EmptyChannel { channel },
        6 => Event::PauseChannel { channel },
        7 => Event::UnpauseChannel { channel },
        8 => Event::PauseTopic,
        9 | 10 => Event::UnpauseTopic,
        11 => Event::EmptyTopic,
        12..=19 => finish(dice, naive, channel),
        _ => requeue(dice, naive, channel),
    }
}

/// A channel that exists, mostly.
fn channel(dice: &mut Dice, naive: &Naive) -> ChannelIncarnation {
    let existing: Vec<u64> = naive.channels.keys().copied().collect();
    match dice.pick(&existing) {
        Some(channel) if !dice.one_in(10) => ChannelIncarnation::new(*channel),
        _ => ChannelIncarnation::new(dice.below(8)),
    }
}

/// A message that exists; mostly one that the channel holds, and mostly an early one.
fn seq(dice: &mut Dice, naive: &Naive, channel: ChannelIncarnation) -> Option<u64> {
    let held: Vec<u64> = naive
        .channels
        .get(&channel.get())
        .map_or(Vec::new(), |found| found.holds.iter().copied().collect());
    let early = &held[..held.len().min(4)];
    match dice.below(8) {
        0 => {
            let lowest = naive.first_seq().saturating_sub(3).max(1);
            (naive.next_seq() > lowest).then(|| lowest + dice.below(naive.next_seq() - lowest))
        }
        1..=3 => dice.pick(&held).copied(),
        _ => dice.pick(early).copied(),
    }
}

fn finish(dice: &mut Dice, naive: &Naive, channel: ChannelIncarnation) -> Event {
    let ranges: Vec<SeqRange> = (0..=dice.below(3))
        .filter_map(|_| {
            let first = seq(dice, naive, channel)?;
            let last = (first + if dice.one_in(3) { dice.below(12) } else { 0 }).min(naive.next_seq() - 1);
            SeqRange::new(Seq::new(first), Seq::new(last))
        })
        .collect();
    if ranges.is_empty() {
        Event::UnpauseTopic
    } else {
        Event::Finish { channel, ranges }
    }
}

fn requeue(dice: &mut Dice, naive: &Naive, channel: ChannelIncarnation) -> Event {
    let Some(seq) = seq(dice, naive, channel) else {
        return Event::UnpauseTopic;
    };
    let attempts = if dice.one_in(10) {
        u16::MAX
    } else {
        1 + dice.below(5) as u16
    };
    Event::Requeue {
        channel,
        seq: Seq::new(seq),
        attempts: Attempts::new(attempts),
        not_before: dice
            .one_in(2)
            .then(|| LogTime::new(naive.time + dice.below(3_000_000_000))),
        cause: [RequeueCause::Requeue, RequeueCause::Timeout, RequeueCause::Disconnect][dice.below(3) as usize],
    }
}
