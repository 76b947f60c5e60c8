//! One process per directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::{LOCK_FILE, located};
use crate::error::StorageError;

/// A lock on a directory, held until it is dropped (or the process ends, however it ends).
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock of an existing directory without waiting.
    ///
    /// # Errors
    /// [`StorageError::InUse`] with the process that holds it.
    pub fn acquire(directory: &Path) -> Result<Self, StorageError> {
        let path = directory.join(LOCK_FILE);
        let failed = |error: &std::io::Error| located("lock", &path, error);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| failed(&error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The name is a courtesy: whatever it says, the lock is taken.
                let named = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                let holder = if named {
                    format!("process {}", holder.trim())
                } else {
                    "another process".into()
                };
                return Err(StorageError::InUse {
                    path: directory.into(),
                    holder: holder.into(),
                });
            }
        }
        let name = || {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        let mut name = name;
        if let Err(error) = name() {
            // A full disk must not keep a node from starting: it is the start that may free space.
            tracing::warn!(%error, path = %path.display(), "could not write the process number into the lock");
        }
        Ok(Self { _file: file })
    }
}
