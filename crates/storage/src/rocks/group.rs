//! A group's state in memory: always what the disk will be once everything queued is written.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use nsquorum_topic::{GroupId, LogIndex};
use parking_lot::Mutex;

use super::cache::{EntryCache, Ticket};
use super::database::Database;
use super::layout::{self, StateKey};
use crate::error::StorageError;
use crate::log::{Checkpoint, LogId, LogState, Vote};

use super::layout::SlotRecord;

/// A group. The writer's jobs and all logs of the group share it.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) state: Mutex<GroupState>,
}

/// A checkpoint slot: its record, and the checkpoint itself until it is on disk.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) record: SlotRecord,
    pub(super) unwritten: Option<(Ticket, Arc<Checkpoint>)>,
}

#[derive(Debug)]
pub(super) struct GroupState {
    pub(super) deleted: bool,
    /// What the group's next job has to do first; see `Job::first`.
    pub(super) first: Option<Vec<u64>>,
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    /// Whether the writer still has to write `committed`.
    pub(super) committed_waits: bool,
    pub(super) last_purged: Option<LogId>,
    /// First and last entry.
    pub(super) ends: Option<(LogIndex, LogId)>,
    /// The last index that a batch built so far has on disk: the commit mark must not run ahead of it.
    pub(super) batched_last: Option<LogIndex>,
    /// Counts truncations and purges: a read that goes to the disk without the lock starts over if one came between.
    pub(super) cuts: u64,
    pub(super) issued: Ticket,
    pub(super) on_disk: Ticket,
    pub(super) cache: EntryCache,
    pub(super) slots: [Option<Slot>; 3],
    pub(super) next_content: u64,
    /// When the writer last saw an append: who is evicted first.
    pub(super) recency: u64,
}

impl Group {
    /// A group of which nothing is known.
    pub(super) fn empty(id: GroupId, cached_bytes: Arc<AtomicU64>) -> Self {
        let state = GroupState {
            deleted: false,
            first: Some(Vec::new()),
            vote: None,
            committed: None,
            committed_waits: false,
            last_purged: None,
            ends: None,
            batched_last: None,
            cuts: 0,
            issued: Ticket(0),
            on_disk: Ticket(0),
            cache: EntryCache::new(cached_bytes),
            slots: [None, None, None],
            next_content: 0,
            recency: 0,
        };
        Self {
            id,
            state: Mutex::new(state),
        }
    }

    /// Reads a group from the database.
    pub(super) fn load(
        id: GroupId,
        marked: bool,
        database: &Database,
        cached_bytes: Arc<AtomicU64>,
    ) -> Result<Self, StorageError> {
        let reader = database.reader()?;
        let damaged = |what: &'static str| move || StorageError::corrupt(id, None, what);
        let vote = match reader.state_value(id, StateKey::Vote(id))? {
            Some(value) => Some(layout::decode_vote(&value).ok_or_else(damaged("odd vote"))?),
            None => None,
        };
        let log_id = |key| match reader.state_value(id, key)? {
            Some(value) => layout::decode_log_id(&value)
                .ok_or_else(damaged("odd log id"))
                .map(Some),
            None => Ok(None),
        };
        let last_purged = log_id(StateKey::Purged(id))?;
        let committed = log_id(StateKey::Committed(id))?;
        let records = match reader.state_value(id, StateKey::Slots(id))? {
            Some(value) => layout::decode_slots(&value).ok_or_else(damaged("odd checkpoint slots"))?,
            None => [None; 3],
        };
        let contents = reader.contents(id)?;
        for record in records.iter().flatten() {
            if !contents.contains(&record.content) {
                return Err(StorageError::corrupt(
                    id,
                    None,
                    "the content of a checkpoint is missing",
                ));
            }
        }
        let next_content = contents.last().map_or(0, |last| last + 1);
        let orphan = |content: &u64| records.iter().flatten().all(|record| record.content != *content);
        let orphans: Vec<u64> = contents.into_iter().filter(orphan).collect();
        let ends = reader.ends(id, last_purged.map(|purged| purged.index))?;
        let last = ends.map(|(_, last)| last.log_id()).or(last_purged);
        let group = Self::empty(id, cached_bytes);
        {
            let mut state = group.state.lock();
            state.first = (!marked || !orphans.is_empty()).then_some(orphans);
            state.vote = vote;
            // A tail cut off by `repair` may have taken entries that were known to be committed.
            state.committed =
                committed.and_then(|mark| last.map(|last| if last.index < mark.index { last } else { mark }));
            state.last_purged = last_purged;
            state.ends = ends.map(|(first, last)| (first.index, last.log_id()));
            state.batched_last = last.map(|last| last.index);
            state.slots = records.map(|record| {
                record.map(|record| Slot {
                    record,
                    unwritten: None,
                })
            });
            state.next_content = next_content;
        }
        Ok(group)
    }
}

impl GroupState {
    pub(super) fn log_state(&self) -> LogState {
        LogState {
            last_purged: self.last_purged,
            last: self.ends.map(|(_, last)| last).or(self.last_purged),
        }
    }

    pub(super) fn issue(&mut self) -> Ticket {
        self.issued.0 += 1;
        self.issued
    }

    /// The part of `from..to` that exists, if any.
    pub(super) fn clip(&self, from: LogIndex, to: LogIndex) -> Option<(LogIndex, LogIndex)> {
        let (first, last) = self.ends?;
        let (from, to) = (from.max(first), to.min(last.index.next()));
        (from < to).then_some((from, to))
    }

    pub(super) fn records(&self) -> layout::Slots {
        [0, 1, 2].map(|at| self.slots[at].as_ref().map(|slot| slot.record))
    }

    /// Puts new slots in place and says which contents nothing refers to any more, with their chunks.
    pub(super) fn replace_slots(&mut self, slots: [Option<Slot>; 3]) -> Vec<(u64, u32)> {
        let before = self.records();
        self.slots = slots;
        let mut freed: Vec<(u64, u32)> = Vec::new();
        for record in before.iter().flatten() {
            let kept = self
                .slots
                .iter()
                .flatten()
                .any(|slot| slot.record.content == record.content);
            if !kept && freed.iter().all(|(content, _)| *content != record.content) {
                freed.push((record.content, record.chunks));
            }
        }
        freed
    }
}
