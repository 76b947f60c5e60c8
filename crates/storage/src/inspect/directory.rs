//! The data directory of a stopped node, held so that no node starts in it meanwhile.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::files::DurableMark;
use super::report::{Finding, NodeReport, Place};
use crate::directory::{
    DATABASE_FOLDER, DirectoryLock, Found, IDENTITY_FILE, Identity, LOCK_FILE, Neighbours, SYNCED_FILE, located,
    refuse_foreign,
};
use crate::error::StorageError;
use crate::janitor::SyncedMark;

/// How a directory is held.
#[derive(Debug)]
enum Held {
    /// Without a byte written: several `verify` may run at once, a node cannot start.
    Shared {
        _file: Option<File>,
    },
    Exclusive {
        _lock: DirectoryLock,
    },
}

/// A stopped node's directory.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    _held: Held,
}

impl Directory {
    /// Holds the directory against a node's start, without touching it.
    pub(crate) fn for_reading(path: &Path) -> Result<Self, StorageError> {
        refuse_strange(path)?;
        let lock = path.join(LOCK_FILE);
        let file = match File::open(&lock) {
            Ok(file) => Some(file),
            // A copy of a directory may lack it. A node takes it before anything else, so none is running.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(located("lock", &lock, &error)),
        };
        match file.as_ref().map(File::try_lock_shared) {
            None | Some(Ok(())) => Ok(Self {
                path: path.to_owned(),
                _held: Held::Shared { _file: file },
            }),
            Some(Err(TryLockError::Error(error))) => Err(located("lock", &lock, &error)),
            Some(Err(TryLockError::WouldBlock)) => Err(StorageError::InUse {
                path: path.into(),
                holder: holder(file).into(),
            }),
        }
    }

    /// Holds the directory for changing it.
    pub(crate) fn for_writing(path: &Path) -> Result<Self, StorageError> {
        refuse_strange(path)?;
        let lock = DirectoryLock::acquire(path)?;
        Ok(Self {
            path: path.to_owned(),
            _held: Held::Exclusive { _lock: lock },
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path.join(DATABASE_FOLDER)
    }

    pub(crate) fn identity(&self) -> Result<NodeReport, Finding> {
        let place = || Place::File {
            file: IDENTITY_FILE.to_owned(),
            offset: 0,
        };
        let identity = Identity::read(&self.path).map_err(|error| Finding {
            place: place(),
            what: error.to_string(),
        })?;
        Ok(NodeReport {
            cluster: identity.cluster.map_or_else(String::new, |cluster| cluster.to_string()),
            node: identity.node,
            incarnation: identity.incarnation,
        })
    }

    /// As [`mark_of`].
    pub(crate) fn mark(&self) -> Result<Option<DurableMark>, Finding> {
        mark_of(&self.path)
    }
}

/// Up to where the write-ahead log is known to be synced. An error if that was known once and cannot be read.
pub(crate) fn mark_of(directory: &Path) -> Result<Option<DurableMark>, Finding> {
    let damaged = |what: String| Finding {
        place: Place::File {
            file: SYNCED_FILE.to_owned(),
            offset: 0,
        },
        what,
    };
    let bytes = match fs::read(directory.join(SYNCED_FILE)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(damaged(error.to_string())),
    };
    match SyncedMark::read(directory) {
        Err(error) => Err(damaged(error.to_string())),
        Ok(Some(mark)) => Ok(Some(DurableMark {
            log: mark.log_file,
            bytes: mark.bytes,
        })),
        Ok(None) if bytes.iter().all(|byte| *byte == 0) => Ok(None),
        Ok(None) => Err(damaged(
            "no record in it is intact: it is not known how far the log was synced".to_owned(),
        )),
    }
}

fn refuse_strange(path: &Path) -> Result<(), StorageError> {
    match refuse_foreign(path, Neighbours::Refused)? {
        Found::Ours => Ok(()),
        Found::Nothing => Err(StorageError::Foreign {
            path: path.into(),
            what: "it is empty".into(),
        }),
    }
}

fn holder(file: Option<File>) -> String {
    let mut process = String::new();
    let is_named = file.is_some_and(|mut file| file.read_to_string(&mut process).is_ok());
    match process.trim() {
        named if is_named && !named.is_empty() => format!("process {named}"),
        _ => "another process".to_owned(),
    }
}
