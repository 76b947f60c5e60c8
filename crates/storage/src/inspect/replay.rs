//! The check of one group: its log as rows and entries, its checkpoints, and the state that they add up to.
//!
//! One pass over the entries, from the first that is left. The state begins as early as it can: empty if nothing was
//! purged, else at the first checkpoint that the log still reaches back to. At every later checkpoint the replayed state must
//! have the very bytes that are stored there. Damage ends a state; the next checkpoint begins a new one, so that a report
//! says as much as the directory still knows.
//!
//! Everything in the log is replayed, also behind the commit mark: a lone node commits all of it when it starts. The state at the
//! mark is noted on the way.

use std::collections::VecDeque;

use bytes::Bytes;
use nsquorum_topic::{Digest, GroupId, LogIndex};

use super::report::{Finding, Place, slot_name};
use crate::entry::Entry;
use crate::log::{Checkpoint, CheckpointSlot, EntryRow, LogId, Vote};

/// Findings listed per group; further ones are only counted.
const FINDINGS_LISTED_MAX: usize = 100;

/// What the database says about a group, entries apart.
#[derive(Debug)]
pub(crate) struct StoredGroup {
    pub(crate) group: GroupId,
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    /// Those that could be read.
    pub(crate) checkpoints: Vec<(CheckpointSlot, Checkpoint)>,
    pub(crate) rows: Vec<EntryRow>,
}

/// A state machine being replayed.
pub(crate) trait Machine {
    /// Whether there is a state at all; if not, only entries are checked.
    fn has_state(&self) -> bool {
        true
    }
    /// Back to what an empty log stands for. `false` if that is not known.
    fn begin(&mut self) -> bool;
    fn restore(&mut self, state: &[u8]) -> Result<(), String>;
    /// Sees every intact entry, also while there is no state.
    fn see(&mut self, entry: &Entry, findings: &mut Findings);
    /// Folds an entry into the state.
    fn apply(&mut self, entry: &Entry) -> Result<(), String>;
    fn encode(&self) -> Vec<u8>;
    /// The digest of encoded bytes, as it is shown.
    fn digest(&self) -> Option<Digest>;
}

/// Findings of one group.
#[derive(Debug)]
pub(crate) struct Findings {
    group: GroupId,
    listed: Vec<Finding>,
    not_listed: u64,
}

impl Findings {
    pub(crate) fn new(group: GroupId) -> Self {
        Self {
            group,
            listed: Vec::new(),
            not_listed: 0,
        }
    }

    fn add(&mut self, place: Place, what: String) {
        if self.listed.len() < FINDINGS_LISTED_MAX {
            self.listed.push(Finding { place, what });
        } else {
            self.not_listed += 1;
        }
    }

    pub(crate) fn group(&mut self, what: impl Into<String>) {
        self.add(Place::Group(self.group), what.into());
    }

    pub(crate) fn entry(&mut self, index: LogIndex, what: impl Into<String>) {
        self.add(
            Place::Entry {
                group: self.group,
                index,
            },
            what.into(),
        );
    }

    pub(crate) fn checkpoint(&mut self, slot: CheckpointSlot, what: impl Into<String>) {
        self.add(
            Place::Checkpoint {
                group: self.group,
                slot,
            },
            what.into(),
        );
    }

    pub(crate) fn into_list(mut self) -> Vec<Finding> {
        if self.not_listed > 0 {
            let what = format!("{} more findings in this group", self.not_listed);
            self.listed.push(Finding {
                place: Place::Group(self.group),
                what,
            });
        }
        self.listed
    }
}

/// What the pass over a group's log leaves, besides the machine's state.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) entries: u64,
    pub(crate) entry_bytes: u64,
    /// Last entry, or the purge point.
    pub(crate) last: Option<LogId>,
    /// Whether the machine's state is that after the last entry.
    pub(crate) has_state: bool,
    /// Digest at the commit mark, if the replay passed it before the end.
    pub(crate) committed_digest: Option<Digest>,
}

/// Where the state stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Unknown,
    /// After the entry; `None`: before the first entry of all.
    After(Option<LogIndex>),
}

/// Checks a group. `entries` calls back with every stored entry in the order of the log.
pub(crate) fn run(
    stored: &StoredGroup,
    machine: &mut dyn Machine,
    findings: &mut Findings,
    entries: impl FnOnce(&mut dyn FnMut(LogIndex, Result<Bytes, String>)),
) -> Replayed {
    let mut replayed = Replayed {
        last: stored.purged,
        ..Replayed::default()
    };
    check_rows(stored, findings);
    let mut pass = Pass::new(stored, machine, findings);
    let mut rows = stored.rows.iter().peekable();
    entries(&mut |index, bytes| {
        while let Some(row) = rows.next_if(|row| row.index < index) {
            pass.lost(row.index, "there is a row but no entry");
        }
        let row = rows.next_if(|row| row.index == index);
        if row.is_none() {
            pass.findings.entry(index, "there is an entry but no row");
        }
        replayed.entries += 1;
        let entry = match bytes.and_then(|bytes| Entry::parse(bytes).map_err(|error| error.to_string())) {
            Ok(entry) => entry,
            Err(what) => return pass.lost(index, &what),
        };
        replayed.entry_bytes += entry.encoded_len() as u64;
        let header = *entry.header();
        if header.group != stored.group || header.index != index {
            let what = format!("holds entry {} of group {}", header.index, header.group);
            return pass.lost(index, &what);
        }
        if row.is_some_and(|row| *row != EntryRow::of(&entry)) {
            pass.findings.entry(index, "its row says something else");
        }
        replayed.last = Some(entry.log_id());
        pass.entry(&entry);
    });
    for row in rows {
        pass.lost(row.index, "there is a row but no entry");
    }
    pass.finish(&mut replayed);
    replayed
}

fn check_rows(stored: &StoredGroup, findings: &mut Findings) {
    let mut before: Option<LogId> = stored.purged;
    for row in &stored.rows {
        if let Some(before) = before {
            if row.index != before.index.next() {
                findings.entry(row.index, format!("follows entry {}: the log has a hole", before.index));
            }
            if row.term < before.term {
                findings.entry(
                    row.index,
                    format!("of term {} follows one of term {}", row.term, before.term),
                );
            }
        }
        before = Some(row.log_id());
    }
    if let (Some(committed), Some(last)) = (stored.committed, before)
        && committed.index > last.index
    {
        findings.group(format!(
            "entry {} is known to be committed, but the log ends at {}",
            committed.index, last.index
        ));
    }
}

struct Pass<'a> {
    stored: &'a StoredGroup,
    machine: &'a mut dyn Machine,
    findings: &'a mut Findings,
    stand: Stand,
    /// Checkpoints still ahead, in order of their position.
    ahead: VecDeque<&'a (CheckpointSlot, Checkpoint)>,
    committed_digest: Option<Digest>,
}

fn position(checkpoint: &Checkpoint) -> Option<LogIndex> {
    checkpoint.log_id.map(|log_id| log_id.index)
}

impl<'a> Pass<'a> {
    fn new(stored: &'a StoredGroup, machine: &'a mut dyn Machine, findings: &'a mut Findings) -> Self {
        let mut ahead: Vec<_> = stored.checkpoints.iter().collect();
        ahead.sort_by_key(|(slot, checkpoint)| (position(checkpoint), *slot));
        let stand = match stored.purged {
            None if machine.begin() => Stand::After(None),
            _ => Stand::Unknown,
        };
        let mut pass = Self {
            stored,
            machine,
            findings,
            stand,
            ahead: ahead.into(),
            committed_digest: None,
        };
        let begin = stored.purged.map(|purged| purged.index);
        while let Some((slot, checkpoint)) = pass.ahead.front().filter(|(_, ahead)| position(ahead) <= begin) {
            if position(checkpoint) == begin {
                pass.visit(*slot, checkpoint);
            } else {
                let at = position(checkpoint).map_or_else(|| "nothing".to_owned(), |index| index.to_string());
                pass.findings
                    .checkpoint(*slot, format!("applied up to {at}, but the log is purged beyond that"));
            }
            pass.ahead.pop_front();
        }
        if begin.is_some() && pass.stand == Stand::Unknown && stored.checkpoints.is_empty() {
            pass.findings.group("the log is purged, but there is no checkpoint");
        }
        pass
    }

    /// An entry that cannot be used: the state ends before it.
    fn lost(&mut self, index: LogIndex, what: &str) {
        self.findings.entry(index, what);
        self.stand = Stand::Unknown;
        self.pass_checkpoints(index);
    }

    fn entry(&mut self, entry: &Entry) {
        let index = entry.header().index;
        self.machine.see(entry, self.findings);
        if self.stand != Stand::Unknown {
            match self.machine.apply(entry) {
                Ok(()) => self.stand = Stand::After(Some(index)),
                Err(what) => {
                    self.findings.entry(index, what);
                    self.stand = Stand::Unknown;
                }
            }
        }
        self.pass_checkpoints(index);
        if self.stored.committed.is_some_and(|committed| committed.index == index) {
            self.committed_digest = self.current_digest();
        }
    }

    fn current_digest(&self) -> Option<Digest> {
        if self.stand == Stand::Unknown {
            None
        } else {
            self.machine.digest()
        }
    }

    fn pass_checkpoints(&mut self, index: LogIndex) {
        while let Some((slot, checkpoint)) = self.ahead.front().filter(|(_, ahead)| position(ahead) <= Some(index)) {
            self.ahead.pop_front();
            self.visit(*slot, checkpoint);
        }
    }

    fn visit(&mut self, slot: CheckpointSlot, checkpoint: &Checkpoint) {
        if !self.machine.has_state() {
            return;
        }
        if self.stand != Stand::Unknown && self.machine.encode() != checkpoint.state[..] {
            let what = format!("is not what the log adds up to there ({})", slot_name(slot));
            self.findings.checkpoint(slot, what);
        }
        match self.machine.restore(&checkpoint.state) {
            Ok(()) => self.stand = Stand::After(position(checkpoint)),
            Err(what) => {
                self.findings.checkpoint(slot, format!("cannot be read: {what}"));
                // The replayed state, if there was one, was left as it is.
            }
        }
    }

    fn finish(mut self, replayed: &mut Replayed) {
        let last = replayed.last.map(|last| last.index);
        while let Some((slot, checkpoint)) = self.ahead.pop_front() {
            let at = position(checkpoint).map_or(0, LogIndex::get);
            let last = last.map_or_else(|| "nothing".to_owned(), |last| last.to_string());
            self.findings
                .checkpoint(*slot, format!("applied up to {at}, but the log ends at {last}"));
        }
        replayed.has_state = self.stand != Stand::Unknown;
        let is_behind = self.stored.committed.map(|committed| committed.index) < last;
        replayed.committed_digest = self.committed_digest.filter(|_| is_behind);
    }
}
