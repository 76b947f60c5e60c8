//! The database of a stopped node, opened so that nothing is written.
//!
//! RocksDB opens it read-only: it replays the write-ahead logs into memory and leaves every file as it is. (Its own text log
//! would be a new file; it is turned off.) Settings do not matter for reading: what they changed is in the files.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use nsquorum_topic::{GroupId, LogIndex};
use rocksdb::{ColumnFamily, DB, DBRecoveryMode, InfoLogger, LogLevel, Options, ReadOptions};

use super::manifest::Version;
use super::replay::{Findings, StoredGroup};
use super::report::{Finding, Place};
use crate::entry::EntryError;
use crate::log::{Checkpoint, CheckpointSlot, EntryRow, LogId};
use crate::rocks::layout::{self, LOG, ROWS, STATE, SlotRecord, StateKey};

/// Column family that RocksDB always has and nothing uses.
const UNUSED: &str = "default";

pub(crate) struct Database {
    db: DB,
}

impl Database {
    /// Opens the database in `folder`. Errors are RocksDB's words.
    pub(crate) fn open(folder: &Path, version: &Version) -> Result<Self, String> {
        let mut options = Options::default();
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_track_and_verify_wals_in_manifest(true);
        options.set_max_open_files(-1);
        options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| {}));
        // A first start that was cut off may have made only some families: the others are empty.
        let families = version
            .families
            .values()
            .map(|family| family.name.as_str())
            .filter(|name| [UNUSED, LOG, ROWS, STATE].contains(name))
            .map(|name| (name, Options::default()));
        let db = DB::open_cf_with_opts_for_read_only(&options, folder, families, false)
            .map_err(|error| error.to_string())?;
        Ok(Self { db })
    }

    fn family(&self, name: &str) -> Option<&ColumnFamily> {
        self.db.cf_handle(name)
    }

    /// Every group of which anything is stored; checks that each has its marker, and every key and checksum of `state`.
    pub(crate) fn groups(&self, findings: &mut Vec<Finding>) -> BTreeSet<GroupId> {
        let mut marked = BTreeSet::new();
        let mut groups = BTreeSet::new();
        let mut found = |place: Place, what: String| findings.push(Finding { place, what });
        if let Some(state) = self.family(STATE) {
            let mut cursor = self.db.raw_iterator_cf(state);
            cursor.seek_to_first();
            while let Some((key, value)) = cursor.item() {
                match StateKey::parse(key) {
                    None => found(Place::Database, format!("state key {key:02x?} means nothing")),
                    Some(parsed) => {
                        let group = group_of(parsed);
                        groups.insert(group);
                        match (layout::unseal(key, value), parsed) {
                            (None, _) => found(Place::Group(group), format!("checksum of {parsed:?} does not match")),
                            (Some(value), StateKey::Marker(_)) => {
                                marked.insert(group);
                                if layout::decode_marker(value).is_none() {
                                    found(Place::Group(group), "marker of a later release".to_owned());
                                }
                            }
                            (Some(_), _) => {}
                        }
                    }
                }
                cursor.next();
            }
            if let Err(error) = cursor.status() {
                found(Place::Database, format!("family {STATE}: {error}"));
            }
        }
        for name in [LOG, ROWS] {
            let Some(family) = self.family(name) else { continue };
            let mut cursor = self.db.raw_iterator_cf(family);
            cursor.seek_to_first();
            while let Some(key) = cursor.key() {
                let Some((group, _)) = layout::parse_entry_key(key) else {
                    found(Place::Database, format!("{name} key {key:02x?} means nothing"));
                    cursor.next();
                    continue;
                };
                groups.insert(group);
                let Some(next) = group.get().checked_add(1) else { break };
                cursor.seek(layout::entry_key(GroupId::new(next), LogIndex::new(0)));
            }
            if let Err(error) = cursor.status() {
                found(Place::Database, format!("family {name}: {error}"));
            }
        }
        for group in groups.difference(&marked) {
            found(Place::Group(*group), "has data but no marker".to_owned());
        }
        groups
    }

    /// Everything of a group except its entries.
    pub(crate) fn group(&self, group: GroupId, findings: &mut Findings) -> StoredGroup {
        let purged = self.log_id(StateKey::Purged(group), findings);
        StoredGroup {
            group,
            vote: self.value(StateKey::Vote(group), findings, layout::decode_vote),
            committed: self.log_id(StateKey::Committed(group), findings),
            purged,
            checkpoints: self.checkpoints(group, findings),
            rows: self.rows(group, first_after(purged), findings),
        }
    }

    fn log_id(&self, key: StateKey, findings: &mut Findings) -> Option<LogId> {
        self.value(key, findings, layout::decode_log_id)
    }

    fn value<T>(&self, key: StateKey, findings: &mut Findings, decode: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        match self.sealed(key) {
            Ok(value) => value.and_then(|value| {
                let decoded = decode(&value);
                if decoded.is_none() {
                    findings.group(format!("{key:?} cannot be understood"));
                }
                decoded
            }),
            Err(what) => {
                findings.group(what);
                None
            }
        }
    }

    fn sealed(&self, key: StateKey) -> Result<Option<Vec<u8>>, String> {
        let Some(family) = self.family(STATE) else {
            return Ok(None);
        };
        let encoded = key.encode();
        let Some(value) = self
            .db
            .get_pinned_cf(family, &encoded)
            .map_err(|error| format!("{key:?}: {error}"))?
        else {
            return Ok(None);
        };
        match layout::unseal(&encoded, &value) {
            Some(value) => Ok(Some(value.to_vec())),
            None => Err(format!("checksum of {key:?} does not match")),
        }
    }

    fn checkpoints(&self, group: GroupId, findings: &mut Findings) -> Vec<(CheckpointSlot, Checkpoint)> {
        let slots = self
            .value(StateKey::Slots(group), findings, layout::decode_slots)
            .unwrap_or_default();
        let mut checkpoints: Vec<(CheckpointSlot, Checkpoint)> = Vec::new();
        for slot in CheckpointSlot::ALL {
            let Some(record) = slots[slot as usize] else { continue };
            match self.checkpoint(group, &record) {
                Ok(checkpoint) => checkpoints.push((slot, checkpoint)),
                Err(what) => findings.checkpoint(slot, what),
            }
        }
        checkpoints
    }

    fn checkpoint(&self, group: GroupId, record: &SlotRecord) -> Result<Checkpoint, String> {
        let chunk = |chunk: u32| {
            let key = StateKey::Chunk {
                group,
                content: record.content,
                chunk,
            };
            self.sealed(key)?
                .ok_or_else(|| format!("its chunk {chunk} of {} is missing", record.chunks))
        };
        let membership = chunk(0)?;
        let mut state = Vec::new();
        for number in 1..record.chunks {
            state.extend(chunk(number)?);
        }
        Ok(Checkpoint {
            log_id: record.log_id,
            membership: membership.into(),
            state: state.into(),
        })
    }

    fn rows(&self, group: GroupId, from: LogIndex, findings: &mut Findings) -> Vec<EntryRow> {
        let mut rows = Vec::new();
        let Some(family) = self.family(ROWS) else { return rows };
        let mut cursor = self.db.raw_iterator_cf_opt(family, range(group, from));
        cursor.seek_to_first();
        while let Some((key, value)) = cursor.item() {
            match parse_row(key, value) {
                Some((_, Ok(row))) => rows.push(row),
                Some((index, Err(error))) => findings.entry(index, format!("its row: {error}")),
                None => match layout::parse_entry_key(key) {
                    Some((_, index)) => findings.entry(index, "checksum of its row does not match"),
                    None => findings.group(format!("row key {key:02x?} means nothing")),
                },
            }
            cursor.next();
        }
        if let Err(error) = cursor.status() {
            findings.group(format!("rows from {from} on: {error}"));
        }
        rows
    }

    /// Calls back with every entry above the purge point, in order. One that cannot be read does not hide those behind it: the
    /// rows say where to go on.
    pub(crate) fn entries(&self, stored: &StoredGroup, visit: &mut dyn FnMut(LogIndex, Result<Bytes, String>)) {
        let Some(family) = self.family(LOG) else { return };
        let mut from = first_after(stored.purged);
        loop {
            let mut cursor = self.db.raw_iterator_cf_opt(family, range(stored.group, from));
            cursor.seek_to_first();
            while let Some((key, value)) = cursor.item() {
                // The range holds only keys of this group, and of this length or longer.
                if let Some((_, index)) = layout::parse_entry_key(key) {
                    visit(index, Ok(Bytes::copy_from_slice(value)));
                    from = index.next();
                }
                cursor.next();
            }
            let Err(error) = cursor.status() else { return };
            let unreadable = stored.rows.partition_point(|row| row.index < from);
            let Some(row) = stored.rows.get(unreadable) else {
                visit(from, Err(error.to_string()));
                return;
            };
            visit(row.index, Err(error.to_string()));
            from = row.index.next();
        }
    }
}

fn first_after(purged: Option<LogId>) -> LogIndex {
    purged.map_or(LogIndex::new(0), |purged| purged.index.next())
}

fn group_of(key: StateKey) -> GroupId {
    match key {
        StateKey::Marker(group)
        | StateKey::Vote(group)
        | StateKey::Committed(group)
        | StateKey::Purged(group)
        | StateKey::Slots(group)
        | StateKey::Chunk { group, .. } => group,
    }
}

fn range(group: GroupId, from: LogIndex) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options.set_iterate_lower_bound(layout::entry_key(group, from).to_vec());
    if let Some(next) = group.get().checked_add(1) {
        options.set_iterate_upper_bound(layout::entry_key(GroupId::new(next), LogIndex::new(0)).to_vec());
    }
    options
}

fn parse_row(key: &[u8], value: &[u8]) -> Option<(LogIndex, Result<EntryRow, EntryError>)> {
    let (_, index) = layout::parse_entry_key(key)?;
    let row = layout::unseal(key, value).and_then(|value| layout::decode_row(index, value))?;
    Some((index, row))
}
