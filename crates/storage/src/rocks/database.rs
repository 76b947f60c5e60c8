//! The database: settings, opening, and the only places that read it.

use bytes::Bytes;
use nsquorum_topic::{GroupId, LogIndex};
use parking_lot::{RwLock, RwLockReadGuard};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, ErrorKind,
    LogLevel, Options, ReadOptions, WriteBatch, WriteOptions,
};
use std::path::Path;

use super::layout::{self, LOG, ROWS, STATE, StateKey};
use crate::entry::Entry;
use crate::error::StorageError;
use crate::log::EntryRow;
use crate::options::StoreOptions;

/// An open database; empty after closing.
pub(super) struct Database {
    db: RwLock<Option<DB>>,
}

/// What a database error means. The binding has only text, whose first word is the class.
pub(crate) fn database_error(doing: &str, error: &rocksdb::Error) -> StorageError {
    let reason = error.to_string();
    let (doing, kind) = (doing.into(), error.kind());
    if reason.contains("No space left on device") || reason.contains("Disk quota exceeded") {
        StorageError::NoSpace {
            doing,
            reason: reason.into(),
        }
    } else if matches!(kind, ErrorKind::Corruption) {
        StorageError::Corrupt {
            group: None,
            index: None,
            what: reason.into(),
        }
    } else {
        StorageError::Io {
            doing,
            reason: reason.into(),
        }
    }
}

fn node_options(options: &StoreOptions) -> Options {
    let mut db = Options::default();
    db.create_if_missing(true);
    db.create_missing_column_families(true);
    // An acknowledged entry must never disappear silently: point-in-time recovery would stop at a flipped bit and open.
    db.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    db.set_paranoid_checks(true);
    db.set_track_and_verify_wals_in_manifest(true);
    // A family that is written rarely would otherwise keep every log file alive.
    db.set_atomic_flush(true);
    db.set_max_total_wal_size(8 * options.memtable_bytes);
    db.set_allow_concurrent_memtable_write(false); // one writer
    db.set_bytes_per_sync(1 << 20);
    db.set_max_background_jobs(2);
    db.set_max_open_files(-1);
    db.set_keep_log_file_num(3);
    db.set_max_log_file_size(4 << 20);
    db.set_log_level(LogLevel::Warn);
    db.set_stats_dump_period_sec(0);
    db.set_stats_persist_period_sec(0);
    db
}

fn family_options(memtable_bytes: u64, blobs: bool, cache: &Cache) -> Options {
    let mut family = Options::default();
    family.set_write_buffer_size(usize::try_from(memtable_bytes).unwrap_or(usize::MAX));
    family.set_max_write_buffer_number(2);
    family.set_compression_type(DBCompressionType::None);
    family.set_level_zero_file_num_compaction_trigger(4);
    let mut table = BlockBasedOptions::default();
    table.set_block_size(16 << 10);
    table.set_block_cache(cache);
    family.set_block_based_table_factory(&table);
    if blobs {
        // Bodies are written once and die with their file; without this every compaction rewrites them.
        family.set_enable_blob_files(true);
        family.set_min_blob_size(4096);
        family.set_blob_file_size(64 << 20);
        family.set_enable_blob_gc(true);
        family.set_blob_gc_age_cutoff(0.25);
    }
    family
}

impl Database {
    pub(super) fn open(path: &Path, options: &StoreOptions) -> Result<Self, StorageError> {
        let cache = Cache::new_lru_cache(usize::try_from(options.block_cache_bytes).unwrap_or(usize::MAX));
        let memtable = options.memtable_bytes;
        // Rows and state are small beside entries: the log family decides when to flush.
        let families = [
            ColumnFamilyDescriptor::new("default", family_options(1 << 20, false, &cache)),
            ColumnFamilyDescriptor::new(LOG, family_options(memtable, true, &cache)),
            ColumnFamilyDescriptor::new(ROWS, family_options((memtable / 4).max(1 << 20), false, &cache)),
            ColumnFamilyDescriptor::new(STATE, family_options((memtable / 4).max(1 << 20), true, &cache)),
        ];
        let db = DB::open_cf_descriptors(&node_options(options), path, families)
            .map_err(|error| database_error(&format!("open {}", path.display()), &error))?;
        Ok(Self {
            db: RwLock::new(Some(db)),
        })
    }

    pub(super) fn reader(&self) -> Result<Reader<'_>, StorageError> {
        let guard = self.db.read();
        if guard.is_none() {
            return Err(StorageError::Closed);
        }
        Ok(Reader { guard })
    }

    /// Waits for readers, then closes.
    pub(super) fn close(&self) {
        let db = self.db.write().take();
        drop(db);
    }
}

/// The database has no room for a write at the moment; nothing was written.
pub(super) struct Stalled;

/// Access to the open database, which stays open meanwhile.
pub(super) struct Reader<'a> {
    guard: RwLockReadGuard<'a, Option<DB>>,
}

impl Reader<'_> {
    fn db(&self) -> &DB {
        self.guard
            .as_ref()
            .expect("checked when the reader was made, and it holds the lock")
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db()
            .cf_handle(name)
            .expect("all families are opened with the database")
    }

    fn range(lower: Vec<u8>, upper: Vec<u8>) -> ReadOptions {
        let mut options = ReadOptions::default();
        // Bounds on both sides, always: an unbounded seek walks over every tombstone of the purged prefix.
        options.set_iterate_lower_bound(lower);
        options.set_iterate_upper_bound(upper);
        options
    }

    /// Writes a batch; with `None` it is on stable storage. Never waits for room in memory.
    pub(super) fn write_synced(&self, batch: WriteBatch) -> Result<Option<Stalled>, StorageError> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        options.set_no_slowdown(true);
        match self.db().write_opt(batch, &options) {
            Ok(()) => Ok(None),
            // With another text it is a stall that will not end, because the flush has failed.
            Err(error) if error.kind() == ErrorKind::Incomplete && error.as_ref().ends_with("Write stall") => {
                Ok(Some(Stalled))
            }
            Err(error) => Err(database_error("write", &error)),
        }
    }

    pub(super) fn log(&self) -> &ColumnFamily {
        self.family(LOG)
    }

    pub(super) fn rows_family(&self) -> &ColumnFamily {
        self.family(ROWS)
    }

    pub(super) fn state(&self) -> &ColumnFamily {
        self.family(STATE)
    }

    /// Errors of flushes and compactions since the database was opened.
    pub(super) fn background_errors(&self) -> u64 {
        self.db()
            .property_int_value(rocksdb::properties::BACKGROUND_ERRORS)
            .ok()
            .flatten()
            .unwrap_or(0)
    }

    /// The checked value at a key of the state family.
    pub(super) fn state_value(&self, group: GroupId, key: StateKey) -> Result<Option<Bytes>, StorageError> {
        let encoded = key.encode();
        let found = self
            .db()
            .get_pinned_cf(self.state(), &encoded)
            .map_err(|error| self.located(group, None, &error))?;
        let Some(found) = found else { return Ok(None) };
        match layout::unseal(&encoded, &found) {
            Some(value) => Ok(Some(Bytes::copy_from_slice(value))),
            None => Err(StorageError::corrupt(
                group,
                None,
                format!("checksum of {key:?} does not match"),
            )),
        }
    }

    fn located(&self, group: GroupId, index: Option<LogIndex>, error: &rocksdb::Error) -> StorageError {
        match database_error("read", error) {
            StorageError::Corrupt { what, .. } => StorageError::corrupt(group, index, what),
            other => other,
        }
    }

    /// The groups that have a marker.
    pub(super) fn groups(&self) -> Result<Vec<GroupId>, StorageError> {
        let lower = StateKey::Marker(GroupId::new(0)).encode();
        let options = Self::range(lower, vec![1]);
        let mut cursor = self.db().raw_iterator_cf_opt(self.state(), options);
        cursor.seek_to_first();
        let mut groups = Vec::new();
        while let Some((key, value)) = cursor.item() {
            let damaged = |what: &str| StorageError::Corrupt {
                group: None,
                index: None,
                what: what.into(),
            };
            let Some(StateKey::Marker(group)) = StateKey::parse(key) else {
                return Err(damaged("a group marker has an odd key"));
            };
            if layout::unseal(key, value).and_then(layout::decode_marker).is_none() {
                return Err(StorageError::corrupt(
                    group,
                    None,
                    "group marker is damaged or of a later release",
                ));
            }
            groups.push(group);
            cursor.next();
        }
        cursor
            .status()
            .map_err(|error| database_error("read the group markers", &error))?;
        Ok(groups)
    }

    /// The contents of which some chunk exists, with the number of the last chunk.
    pub(super) fn contents(&self, group: GroupId) -> Result<Vec<u64>, StorageError> {
        let (lower, upper) = StateKey::chunks_of(group);
        let mut cursor = self.db().raw_iterator_cf_opt(self.state(), Self::range(lower, upper));
        cursor.seek_to_first();
        let mut contents = Vec::new();
        while let Some(key) = cursor.key() {
            let Some(StateKey::Chunk { content, .. }) = StateKey::parse(key) else {
                return Err(StorageError::corrupt(group, None, "a checkpoint chunk has an odd key"));
            };
            contents.push(content);
            cursor.seek(
                StateKey::Chunk {
                    group,
                    content,
                    chunk: u32::MAX,
                }
                .encode(),
            );
        }
        cursor.status().map_err(|error| self.located(group, None, &error))?;
        Ok(contents)
    }

    /// First and last row above `purged`.
    pub(super) fn ends(
        &self,
        group: GroupId,
        purged: Option<LogIndex>,
    ) -> Result<Option<(EntryRow, EntryRow)>, StorageError> {
        let from = purged.map_or(LogIndex::new(0), LogIndex::next);
        let range = || {
            let upper = layout::entry_key(group, LogIndex::new(u64::MAX));
            Self::range(layout::entry_key(group, from).to_vec(), upper.to_vec())
        };
        let mut ends = [None; 2];
        for (end, backwards) in ends.iter_mut().zip([false, true]) {
            let mut cursor = self.db().raw_iterator_cf_opt(self.rows_family(), range());
            if backwards {
                cursor.seek_to_last();
            } else {
                cursor.seek_to_first();
            }
            *end = cursor
                .item()
                .map(|(key, value)| parse_row(group, key, value))
                .transpose()?;
            cursor.status().map_err(|error| self.located(group, None, &error))?;
        }
        Ok(ends[0].zip(ends[1]))
    }

    /// The row at `index`.
    pub(super) fn row(&self, group: GroupId, index: LogIndex) -> Result<EntryRow, StorageError> {
        let key = layout::entry_key(group, index);
        match self.db().get_pinned_cf(self.rows_family(), key) {
            Err(error) => Err(self.located(group, Some(index), &error)),
            Ok(None) => Err(StorageError::corrupt(group, Some(index), "row is missing")),
            Ok(Some(value)) => parse_row(group, &key, &value),
        }
    }

    /// The rows of `from..to`, all of which must exist.
    pub(super) fn rows(&self, group: GroupId, from: LogIndex, to: LogIndex) -> Result<Vec<EntryRow>, StorageError> {
        let mut rows = Vec::new();
        self.scan(self.rows_family(), group, from, to, |key, value| {
            rows.push(parse_row(group, key, value)?);
            Ok(true)
        })?;
        Ok(rows)
    }

    /// The entries of `from..to`, all of which must exist, until `bytes_max`, at least one; each is checked.
    pub(super) fn entries(
        &self,
        group: GroupId,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let (mut entries, mut bytes) = (Vec::new(), 0usize);
        self.scan(self.log(), group, from, to, |key, value| {
            bytes += value.len();
            if bytes > bytes_max && !entries.is_empty() {
                return Ok(false);
            }
            entries.push(parse_entry(group, key, value)?);
            Ok(true)
        })?;
        Ok(entries)
    }

    /// Visits `from..to` in order until `visit` says no; a missing key is damage.
    fn scan(
        &self,
        family: &ColumnFamily,
        group: GroupId,
        from: LogIndex,
        to: LogIndex,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool, StorageError>,
    ) -> Result<(), StorageError> {
        let range = Self::range(
            layout::entry_key(group, from).to_vec(),
            layout::entry_key(group, to).to_vec(),
        );
        let mut cursor = self.db().raw_iterator_cf_opt(family, range);
        cursor.seek_to_first();
        let mut expected = from;
        while expected < to {
            let Some((key, value)) = cursor.item() else {
                cursor
                    .status()
                    .map_err(|error| self.located(group, Some(expected), &error))?;
                return Err(StorageError::corrupt(group, Some(expected), "entry is missing"));
            };
            if layout::parse_entry_key(key) != Some((group, expected)) {
                return Err(StorageError::corrupt(group, Some(expected), "entry is missing"));
            }
            if !visit(key, value)? {
                return Ok(());
            }
            expected = expected.next();
            cursor.next();
        }
        cursor
            .status()
            .map_err(|error| self.located(group, Some(expected), &error))
    }
}

fn parse_row(group: GroupId, key: &[u8], value: &[u8]) -> Result<EntryRow, StorageError> {
    let index = match layout::parse_entry_key(key) {
        Some((found, index)) if found == group => index,
        _ => return Err(StorageError::corrupt(group, None, "a row has an odd key")),
    };
    match layout::unseal(key, value).and_then(|value| layout::decode_row(index, value)) {
        Some(row) => row.map_err(|error| StorageError::entry(group, index, error)),
        None => Err(StorageError::corrupt(
            group,
            Some(index),
            "checksum of the row does not match",
        )),
    }
}

fn parse_entry(group: GroupId, key: &[u8], value: &[u8]) -> Result<Entry, StorageError> {
    let index = match layout::parse_entry_key(key) {
        Some((found, index)) if found == group => index,
        _ => return Err(StorageError::corrupt(group, None, "an entry has an odd key")),
    };
    let entry =
        Entry::parse(Bytes::copy_from_slice(value)).map_err(|error| StorageError::entry(group, index, error))?;
    if entry.header().group != group || entry.header().index != index {
        return Err(StorageError::corrupt(
            group,
            Some(index),
            "the entry stored here belongs elsewhere",
        ));
    }
    Ok(entry)
}
