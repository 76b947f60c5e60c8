//! Reads of a log that may need the disk.
//!
//! The disk is read without the group's lock, so what is read may change meanwhile. Appends do no harm: what is below the cached
//! entries is on disk and stays. Truncations and purges do; they are counted, and a read that one of them overtook starts over.

use bytes::{Bytes, BytesMut};
use nsquorum_topic::LogIndex;

use super::database::Reader;
use super::handle::RocksLog;
use super::layout::{self, SlotRecord, StateKey};
use crate::entry::Entry;
use crate::error::StorageError;
use crate::log::{Checkpoint, EntryRow};

impl RocksLog {
    /// Runs `read` until no truncation or purge came in between: the disk is read without the group's lock.
    pub(super) fn consistently<T>(
        &self,
        mut read: impl FnMut(&Reader<'_>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let cuts = || -> Result<u64, StorageError> {
            let state = self.group.state.lock();
            if state.deleted {
                Err(StorageError::Deleted(self.group.id))
            } else {
                Ok(state.cuts)
            }
        };
        loop {
            let reader = self.handle.database.reader()?;
            let before = cuts()?;
            let result = read(&reader);
            if cuts()? == before {
                return result;
            }
        }
    }

    pub(super) fn read_once(
        &self,
        reader: &Reader<'_>,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let group = self.group.id;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let mut next = from;
        loop {
            let (start, stop) = {
                let state = self.group.state.lock();
                let Some((start, end)) = state.clip(next, to) else {
                    return Ok(entries);
                };
                if let Some(cached) = state.cache.from(start) {
                    take_until(
                        &mut entries,
                        &mut bytes,
                        bytes_max,
                        cached.take_while(|entry| entry.header().index < end),
                    );
                    return Ok(entries);
                }
                (start, state.cache.first().map_or(end, |first| first.min(end)))
            };
            let left = bytes_max.saturating_sub(bytes);
            if left == 0 && !entries.is_empty() {
                return Ok(entries);
            }
            let found = reader.entries(group, start, stop, left)?;
            let wanted = stop.get() - start.get();
            let complete = found.len() as u64 == wanted;
            take_until(&mut entries, &mut bytes, bytes_max, found.iter());
            if !complete {
                return Ok(entries);
            }
            next = stop;
        }
    }

    pub(super) fn checkpoint_content(
        &self,
        reader: &Reader<'_>,
        record: &SlotRecord,
    ) -> Result<Checkpoint, StorageError> {
        let group = self.group.id;
        let chunk = |chunk| -> Result<Bytes, StorageError> {
            let key = StateKey::Chunk {
                group,
                content: record.content,
                chunk,
            };
            let missing = || StorageError::corrupt(group, None, "part of a checkpoint is missing");
            reader.state_value(group, key)?.ok_or_else(missing)
        };
        let membership = chunk(0)?;
        let mut state = BytesMut::new();
        for at in 1..record.chunks {
            let piece = chunk(at)?;
            let last = at + 1 == record.chunks;
            if piece.len() > layout::CHUNK_BYTES || (!last && piece.len() != layout::CHUNK_BYTES) {
                return Err(StorageError::corrupt(
                    group,
                    None,
                    "part of a checkpoint has an odd length",
                ));
            }
            state.extend_from_slice(&piece);
        }
        Ok(Checkpoint {
            log_id: record.log_id,
            membership,
            state: state.freeze(),
        })
    }

    pub(super) fn rows_once(
        &self,
        reader: &Reader<'_>,
        from: LogIndex,
        to: LogIndex,
    ) -> Result<Vec<EntryRow>, StorageError> {
        let (start, stop, cached) = {
            let state = self.group.state.lock();
            let Some((start, end)) = state.clip(from, to) else {
                return Ok(Vec::new());
            };
            let stop = state.cache.first().map_or(end, |first| first.max(start).min(end));
            let cached = state.cache.from(stop).map(|cached| {
                cached
                    .take_while(|entry| entry.header().index < end)
                    .map(EntryRow::of)
                    .collect::<Vec<_>>()
            });
            (start, stop, cached)
        };
        let mut rows = reader.rows(self.group.id, start, stop)?;
        rows.extend(cached.into_iter().flatten());
        Ok(rows)
    }
}

/// Takes entries until the next one would exceed `bytes_max`, but at least one in all.
pub(super) fn take_until<'a>(
    entries: &mut Vec<Entry>,
    bytes: &mut usize,
    bytes_max: usize,
    from: impl Iterator<Item = &'a Entry>,
) {
    for entry in from {
        if *bytes + entry.encoded_len() > bytes_max && !entries.is_empty() {
            return;
        }
        *bytes += entry.encoded_len();
        entries.push(entry.clone());
    }
}
