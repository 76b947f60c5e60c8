//! What must hold before the database may recover by itself.

use std::path::Path;

use super::directory;
use super::files;
use crate::directory::{DATABASE_FOLDER, located};
use crate::error::StorageError;

/// Reads what recovery will read (manifest and write-ahead logs) and refuses what recovery would take for the end of a log: to be
/// called by whoever holds the directory, before the database is opened.
///
/// RocksDB ends its replay silently at a length that points past the end of the file and at a type that a flipped bit turned into
/// a recyclable one, although whole, acknowledged records may stand behind. Here such a record is recognised, and a log that is
/// shorter than what is known to be synced is, too. Costs one more reading of the write-ahead logs, which recovery then finds in
/// the page cache.
///
/// # Errors
/// [`StorageError::Corrupt`] with file and offset. Trying again cannot help; `verify` says more and [`super::repair`] may.
pub fn check_before_recovery(dir: &Path) -> Result<(), StorageError> {
    let folder = dir.join(DATABASE_FOLDER);
    if !folder.is_dir() {
        return Ok(());
    }
    // Without a readable mark less is known to be synced; that is a reason for `verify` to speak, not for a start to fail.
    let mark = directory::mark_of(dir).unwrap_or_default();
    let check =
        files::check_logs_only(&folder, DATABASE_FOLDER, mark).map_err(|error| located("read", &folder, &error))?;
    match check.findings.first() {
        None => Ok(()),
        Some(finding) => Err(StorageError::Corrupt {
            group: None,
            index: None,
            what: finding.to_string().into(),
        }),
    }
}
