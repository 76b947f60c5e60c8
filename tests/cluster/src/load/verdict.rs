//! What must hold of a journal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nsquorum_protocol::ChannelName;

use super::journal::{Answer, ConnectionId, Journal, Pause, Record};

/// A consumer may notice the end of its connection only after its message has been given to somebody else, and a FIN that was sent within
/// this time before the end may never have been read. A node takes longer to come back.
const END: Duration = Duration::from_millis(1500);

/// What a journal says.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Broken promises; empty if all is well.
    pub violations: Vec<String>,
    /// Messages stored.
    pub stored: usize,
    /// Publishes without an `OK` that are stored all the same.
    pub unknown_stored: usize,
    /// Second and later deliveries whose holder's connection had ended.
    pub held_came_again: usize,
    /// Second and later deliveries of what was finished over a connection that ended right after.
    pub finished_came_again: usize,
    /// Second and later deliveries that had to do with a node's pause: others do not wait for its consumers for ever, and it may deliver what it had
    /// before it notices that somebody else leads.
    pub paused_came_again: usize,
    /// The number of each body.
    pub seq_of: BTreeMap<String, u64>,
}

#[derive(Clone, Copy)]
enum Fate {
    Held(ConnectionId),
    Finished(ConnectionId, Instant),
}

impl Journal {
    /// Holds everything against the promises. The channels must be drained, and no channel may have begun after the first publish.
    #[must_use]
    pub fn judge(&self, channels: &[ChannelName], pauses: &[Pause]) -> Verdict {
        let mut verdict = Verdict::default();
        let records = self.records();
        let publishes = self.publishes();
        let ends: BTreeMap<ConnectionId, Instant> = records
            .iter()
            .filter_map(|record| match record {
                Record::Ended { connection, at } => Some((*connection, *at)),
                _ => None,
            })
            .collect();
        for channel in channels {
            let numbers = verdict.channel(channel, &records, &ends, pauses);
            if verdict.seq_of.is_empty() {
                verdict.seq_of = numbers;
            } else if verdict.seq_of != numbers {
                verdict.violate(format!(
                    "{channel} has other messages or other numbers than {}",
                    channels[0]
                ));
            }
        }
        for record in &records {
            if let Record::Refused { connection, text } = record
                && !ends.contains_key(connection)
                && !pauses.iter().any(|pause| pause.place == connection.place)
            {
                verdict.violate(format!("{connection:?} stayed, and was told {text}"));
            }
        }
        let known: BTreeSet<&str> = publishes.iter().map(|publish| publish.body.as_str()).collect();
        for publish in &publishes {
            match (&publish.answer, verdict.seq_of.contains_key(&publish.body)) {
                (Answer::Ok, false) => verdict.violate(format!("{} was answered OK and never came", publish.body)),
                (Answer::Refused(_) | Answer::Lost(_), true) => verdict.unknown_stored += 1,
                _ => {}
            }
        }
        let strange: Vec<String> = verdict
            .seq_of
            .keys()
            .filter(|body| !known.contains(body.as_str()))
            .cloned()
            .collect();
        for body in strange {
            verdict.violate(format!("{body} was never sent"));
        }
        verdict.stored = verdict.seq_of.len();
        let mut numbers: Vec<u64> = verdict.seq_of.values().copied().collect();
        numbers.sort_unstable();
        if !numbers.iter().copied().eq(1..=numbers.len() as u64) {
            verdict.violate(format!(
                "ids are not dense: {} messages up to {:?}",
                numbers.len(),
                numbers.last()
            ));
        }
        // A producer waits for each answer, so its messages have to stand in the order in which it sent them.
        let mut last: BTreeMap<&str, (&str, u64)> = BTreeMap::new();
        let in_order = verdict.seq_of.clone();
        for (body, seq) in &in_order {
            let producer = body.split('-').next().unwrap_or_default();
            if let Some((before, other)) = last.insert(producer, (body, *seq))
                && other > *seq
            {
                verdict.violate(format!("{before} has the id {other} and {body}, sent after it, {seq}"));
            }
        }
        verdict
    }
}

impl Verdict {
    fn violate(&mut self, text: String) {
        self.violations.push(text);
    }

    /// Plays the deliveries of one channel; returns the number of each body.
    fn channel(
        &mut self,
        name: &ChannelName,
        records: &[Record],
        ends: &BTreeMap<ConnectionId, Instant>,
        pauses: &[Pause],
    ) -> BTreeMap<String, u64> {
        let ended_by =
            |connection: ConnectionId, at: Instant| ends.get(&connection).is_some_and(|end| *end <= at + END);
        let was_paused = |place: usize, at: Instant| {
            let own = pauses.iter().filter(|pause| pause.place == place);
            own.into_iter().any(|pause| pause.from <= at && at <= pause.to)
        };
        let mut fates: BTreeMap<u64, Fate> = BTreeMap::new();
        let mut count: BTreeMap<u64, u16> = BTreeMap::new();
        let mut body_of: BTreeMap<u64, &str> = BTreeMap::new();
        let mut seq_of: BTreeMap<String, u64> = BTreeMap::new();
        for record in records {
            match record {
                Record::Delivered {
                    connection,
                    channel,
                    seq,
                    attempts,
                    body,
                    at,
                } if channel == name => {
                    if *body_of.entry(*seq).or_insert(body) != body {
                        self.violate(format!("{name}: {seq} is {} and {body}", body_of[seq]));
                    }
                    if *seq_of.entry(body.clone()).or_insert(*seq) != *seq {
                        self.violate(format!("{name}: {body} is stored as {} and {seq}", seq_of[body]));
                    }
                    let deliveries = count.entry(*seq).or_default();
                    *deliveries += 1;
                    if *attempts > *deliveries {
                        let text = format!("{name}: {seq} says {attempts} attempts at delivery {deliveries}");
                        self.violate(text);
                    }
                    match fates.insert(*seq, Fate::Held(*connection)) {
                        None => {}
                        Some(Fate::Held(by) | Fate::Finished(by, _))
                            if was_paused(by.place, *at) || was_paused(connection.place, *at) =>
                        {
                            self.paused_came_again += 1;
                        }
                        Some(Fate::Held(holder)) if ended_by(holder, *at) => self.held_came_again += 1,
                        Some(Fate::Held(holder)) => {
                            self.violate(format!("{name}: {seq} went to {connection:?} while {holder:?} held it"));
                        }
                        Some(Fate::Finished(by, finished)) if ended_by(by, finished) => self.finished_came_again += 1,
                        Some(Fate::Finished(by, _)) => {
                            self.violate(format!(
                                "{name}: {seq} went to {connection:?} after {by:?} had finished it"
                            ));
                        }
                    }
                }
                Record::Finished {
                    connection,
                    channel,
                    seq,
                    at,
                } if channel == name => {
                    // A consumer that was told late of its message's end elsewhere finishes it in vain.
                    if matches!(fates.get(seq), Some(Fate::Held(holder)) if holder == connection) {
                        fates.insert(*seq, Fate::Finished(*connection, *at));
                    }
                }
                _ => {}
            }
        }
        seq_of
    }
}
