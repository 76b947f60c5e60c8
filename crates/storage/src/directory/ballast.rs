//! Space set aside for the start that finds none.
//!
//! Recovery itself writes: the log is replayed into tables, the identity is raised. On a disk that is full to the last block a
//! node could not even start to delete what it no longer needs. So a few megabytes are given up then, and taken back when there is
//! plenty again.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;

use rustix::fs::FallocateFlags;

use super::{BALLAST_FILE, located};
use crate::error::StorageError;

/// Gives the ballast up. Says so if there was one.
pub(crate) fn free_ballast(directory: &Path) -> Result<(), StorageError> {
    let path = directory.join(BALLAST_FILE);
    match fs::remove_file(&path) {
        Ok(()) => {
            tracing::warn!(path = %path.display(), "the disk is full: gave up the ballast to be able to start");
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(located("remove", &path, &error)),
    }
}

/// Makes the ballast if it is missing. Not synced: if it is lost in a power cut, it is made again.
pub(crate) fn make_ballast(directory: &Path, bytes: u64) -> Result<(), StorageError> {
    let path = directory.join(BALLAST_FILE);
    if path.exists() {
        return Ok(());
    }
    let allocate = || {
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
        Ok(())
    };
    allocate().map_err(|error: std::io::Error| {
        drop(fs::remove_file(&path));
        located("allocate", &path, &error)
    })
}
