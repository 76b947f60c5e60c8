//! The mark up to where the write-ahead log is known to be on stable storage.
//!
//! Recovery refuses garbage in the log rather than lose what was acknowledged. After a power cut there may be garbage behind the
//! last synced byte, which nobody was promised; `repair` may cut that, and this file says where it begins at the earliest. It is a
//! lower bound: written at most once a second, from the janitor's thread, so that the writer never waits for it. A mark that is too
//! low only makes `repair` less sure; one that is too high would make it impossible, so it moves only after a sync that began no
//! earlier than the length was read.
//!
//! Two records of 32 bytes, written in turn, little-endian: magic `NSQS`, version u8, three zero bytes, number of the log file u64,
//! bytes u64, zero u32, CRC32C of the 28 bytes before. A torn write leaves the other one.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::directory::{SYNCED_FILE, located};
use crate::error::StorageError;

const RECORD_BYTES: usize = 32;
const MAGIC: [u8; 4] = *b"NSQS";
const VERSION: u8 = 1;

/// All log files with a lower number, and the first bytes of this one, are on stable storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SyncedMark {
    /// The number in the name of a write-ahead log file: `db/000012.log` is 12.
    pub log_file: u64,
    /// Bytes of that file.
    pub bytes: u64,
}

impl SyncedMark {
    /// The mark of a data directory; `None` if there is none (or none that is intact): then nothing is known.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(directory: &Path) -> Result<Option<Self>, StorageError> {
        let path = directory.join(SYNCED_FILE);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(bytes.chunks(RECORD_BYTES).filter_map(Self::decode).max()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(located("read", &path, &error)),
        }
    }

    fn encode(self) -> [u8; RECORD_BYTES] {
        let mut record = [0; RECORD_BYTES];
        record[..4].copy_from_slice(&MAGIC);
        record[4] = VERSION;
        record[8..16].copy_from_slice(&self.log_file.to_le_bytes());
        record[16..24].copy_from_slice(&self.bytes.to_le_bytes());
        let crc = crc32c::crc32c(&record[..28]);
        record[28..].copy_from_slice(&crc.to_le_bytes());
        record
    }

    fn decode(record: &[u8]) -> Option<Self> {
        let record: &[u8; RECORD_BYTES] = record.try_into().ok()?;
        let number = |at: usize| record[at..at + 8].try_into().ok().map(u64::from_le_bytes);
        let mark = Self {
            log_file: number(8)?,
            bytes: number(16)?,
        };
        (mark.encode() == *record).then_some(mark)
    }
}

pub(super) struct SyncedWriter {
    file: File,
    path: PathBuf,
    database: PathBuf,
    written: SyncedMark,
    slot: u64,
    /// A length that was read, and the writes that had begun then: a mark as soon as the last of those is synced.
    candidate: Option<(SyncedMark, u64)>,
}

impl SyncedWriter {
    pub(super) fn open(path: &Path, database: PathBuf) -> Result<Self, StorageError> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(|error| located("open", path, &error))?;
        let written = match path.parent() {
            Some(directory) => SyncedMark::read(directory)?.unwrap_or_default(),
            None => SyncedMark::default(),
        };
        Ok(Self {
            file,
            path: path.into(),
            database,
            written,
            slot: 0,
            candidate: None,
        })
    }

    /// Writes the candidate of the last look if a sync covers it by now, and finds a new one.
    ///
    /// `begun_before` was read before the log's length is, `begun` reads it again after, `synced` is the last synced write.
    pub(super) fn look(&mut self, begun_before: u64, begun: impl Fn() -> u64, synced: u64) {
        if let Some((mark, begun)) = self.candidate
            && synced >= begun
        {
            self.candidate = None;
            if mark != self.written {
                self.write(mark);
            }
        }
        // Before the first write of this process nothing here has synced anything.
        if self.candidate.is_none() && begun_before > 0 {
            self.candidate = newest_log(&self.database).map(|mark| (mark, begun()));
        }
    }

    fn write(&mut self, mark: SyncedMark) {
        let at = self.slot * RECORD_BYTES as u64;
        let result = self
            .file
            .write_all_at(&mark.encode(), at)
            .and_then(|()| self.file.sync_data());
        match result {
            Ok(()) => {
                self.slot = 1 - self.slot;
                self.written = mark;
            }
            // Nothing depends on it but how sure a later repair can be.
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "could not move the mark of what is synced")
            }
        }
    }
}

/// Number and length of the newest write-ahead log file.
fn newest_log(database: &Path) -> Option<SyncedMark> {
    let number = |name: &std::ffi::OsStr| name.to_str()?.strip_suffix(".log")?.parse::<u64>().ok();
    let newest = std::fs::read_dir(database)
        .ok()?
        .flatten()
        .filter_map(|item| number(&item.file_name()).map(|number| (number, item.path())))
        .max()?;
    Some(SyncedMark {
        log_file: newest.0,
        bytes: std::fs::metadata(newest.1).ok()?.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup() -> (tempfile::TempDir, SyncedWriter) {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("db");
        std::fs::create_dir(&database).unwrap();
        let writer = SyncedWriter::open(&directory.path().join(SYNCED_FILE), database).unwrap();
        (directory, writer)
    }

    fn read(directory: &tempfile::TempDir) -> Option<SyncedMark> {
        SyncedMark::read(directory.path()).unwrap()
    }

    #[test]
    fn the_mark_moves_only_after_a_sync_of_the_writes_that_had_begun() {
        let (directory, mut writer) = setup();
        std::fs::write(directory.path().join("db/000009.log"), [0; 3]).unwrap();
        std::fs::write(directory.path().join("db/000012.log"), [0; 100]).unwrap();
        writer.look(5, || 6, 5);
        assert_eq!(read(&directory), None);
        std::fs::write(directory.path().join("db/000012.log"), [0; 300]).unwrap();
        writer.look(6, || 6, 5);
        assert_eq!(
            read(&directory),
            None,
            "write 6 may have put bytes there that are not synced"
        );
        writer.look(6, || 6, 6);
        assert_eq!(
            read(&directory),
            Some(SyncedMark {
                log_file: 12,
                bytes: 100
            })
        );
        writer.look(7, || 7, 7);
        assert_eq!(
            read(&directory),
            Some(SyncedMark {
                log_file: 12,
                bytes: 300
            })
        );
    }

    #[test]
    fn the_length_of_another_process_is_no_candidate() {
        let (directory, mut writer) = setup();
        std::fs::write(directory.path().join("db/000012.log"), [0; 100]).unwrap();
        writer.look(0, || 0, 0);
        writer.look(0, || 0, 0);
        assert_eq!(read(&directory), None);
    }

    #[test]
    fn a_torn_record_leaves_the_other() {
        let (directory, mut writer) = setup();
        writer.write(SyncedMark { log_file: 1, bytes: 10 });
        writer.write(SyncedMark { log_file: 1, bytes: 20 });
        assert_eq!(read(&directory), Some(SyncedMark { log_file: 1, bytes: 20 }));
        let path = directory.path().join(SYNCED_FILE);
        let good = std::fs::read(&path).unwrap();
        for at in RECORD_BYTES..2 * RECORD_BYTES {
            let mut torn = good.clone();
            torn[at] ^= 0x10;
            std::fs::write(&path, torn).unwrap();
            assert_eq!(
                read(&directory),
                Some(SyncedMark { log_file: 1, bytes: 10 }),
                "byte {at}"
            );
        }
        std::fs::write(&path, &good[..40]).unwrap();
        assert_eq!(read(&directory), Some(SyncedMark { log_file: 1, bytes: 10 }));
    }
}
