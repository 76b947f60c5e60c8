//! What can go wrong, by what the caller has to do about it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use nsquorum_topic::{GroupId, LogIndex};
use thiserror::Error;

use crate::entry::EntryError;

/// A storage error. Cheap to clone: one failed sync answers every waiting caller.
#[derive(Clone, Debug, Error)]
pub enum StorageError {
    /// The disk or the file system refused a call. If it was a write or a sync, the store is failed for good.
    #[error("{doing}: {reason}")]
    Io {
        /// What was being done, with the path if there is one.
        doing: Arc<str>,
        /// The system's or the database's words.
        reason: Arc<str>,
    },
    /// No space left. If it was a write or a sync, the store is failed for good; a restart with space loses nothing.
    #[error("{doing}: no space left: {reason}")]
    NoSpace {
        /// What was being done, with the path if there is one.
        doing: Arc<str>,
        /// The system's or the database's words.
        reason: Arc<str>,
    },
    /// Stored bytes are damaged. Never served, never repaired silently.
    #[error("damaged data{}: {what}", place(*group, *index))]
    Corrupt {
        /// The group concerned, if known.
        group: Option<GroupId>,
        /// The entry concerned, if known.
        index: Option<LogIndex>,
        /// What does not hold.
        what: Arc<str>,
    },
    /// Stored bytes are intact but written by a later release.
    #[error("data of a later release{}: {what}", place(*group, *index))]
    Unsupported {
        /// The group concerned, if known.
        group: Option<GroupId>,
        /// The entry concerned, if known.
        index: Option<LogIndex>,
        /// What is unknown.
        what: Arc<str>,
    },
    /// Another process holds the directory.
    #[error("{} is in use by {holder}", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who holds it, as far as is known.
        holder: Arc<str>,
    },
    /// The directory is not empty and not one of nsquorum's.
    #[error("{} is not a data directory of nsquorum: {what}", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What was found instead.
        what: Arc<str>,
    },
    /// The group was deleted.
    #[error("group {0} was deleted")]
    Deleted(GroupId),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// What kind of failure an error is; process exit codes are made of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorClass {
    /// Input, output or sync failed.
    Io,
    /// The disk is full.
    NoSpace,
    /// Data are damaged or of a later release.
    Data,
    /// The directory is held by another process.
    InUse,
    /// The directory is not nsquorum's.
    Foreign,
    /// The store or the group is gone.
    Closed,
}

impl StorageError {
    /// The class of this error.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Io { .. } => ErrorClass::Io,
            Self::NoSpace { .. } => ErrorClass::NoSpace,
            Self::Corrupt { .. } | Self::Unsupported { .. } => ErrorClass::Data,
            Self::InUse { .. } => ErrorClass::InUse,
            Self::Foreign { .. } => ErrorClass::Foreign,
            Self::Deleted(_) | Self::Closed => ErrorClass::Closed,
        }
    }

    /// Whether the same call may succeed later in the same process. Only opening a directory that another process holds: a failed
    /// write or sync is never retried, because the kernel may have dropped the dirty pages and report success the next time.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::InUse { .. })
    }

    pub(crate) fn io(doing: impl Into<Arc<str>>, source: &io::Error) -> Self {
        let (doing, reason) = (doing.into(), Arc::from(source.to_string()));
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Self::NoSpace { doing, reason }
        } else {
            Self::Io { doing, reason }
        }
    }

    pub(crate) fn corrupt(group: GroupId, index: Option<LogIndex>, what: impl Into<Arc<str>>) -> Self {
        Self::Corrupt {
            group: Some(group),
            index,
            what: what.into(),
        }
    }

    pub(crate) fn entry(group: GroupId, index: LogIndex, error: EntryError) -> Self {
        let (group, index, what) = (Some(group), Some(index), Arc::from(error.to_string()));
        if error.is_unsupported() {
            Self::Unsupported { group, index, what }
        } else {
            Self::Corrupt { group, index, what }
        }
    }
}

fn place(group: Option<GroupId>, index: Option<LogIndex>) -> String {
    match (group, index) {
        (Some(group), Some(index)) => format!(" in group {group} at index {index}"),
        (Some(group), None) => format!(" in group {group}"),
        (None, Some(index)) => format!(" at index {index}"),
        (None, None) => String::new(),
    }
}
