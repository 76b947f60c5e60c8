//! How much space is left, against the watermarks.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::directory::{located, make_ballast};
use crate::error::StorageError;
use crate::log::SpaceState;
use crate::options::StoreOptions;

/// Free bytes of the file system, as an unprivileged writer sees them.
pub(crate) fn free_bytes(path: &Path) -> Result<u64, StorageError> {
    let found = rustix::fs::statvfs(path).map_err(|error| located("ask for the free space of", path, &error.into()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The last look at the space left.
#[derive(Debug)]
pub(crate) struct Space {
    directory: PathBuf,
    refuse_publishes_below: u64,
    refuse_all_below: u64,
    ballast: u64,
    state: AtomicU8,
}

impl Space {
    pub(crate) fn new(directory: &Path, options: &StoreOptions) -> Self {
        Self {
            directory: directory.into(),
            refuse_publishes_below: options.refuse_publishes_below_bytes,
            refuse_all_below: options.refuse_all_below_bytes,
            ballast: options.ballast_bytes,
            state: AtomicU8::new(SpaceState::Ok as u8),
        }
    }

    pub(crate) fn get(&self) -> SpaceState {
        match self.state.load(Ordering::Relaxed) {
            0 => SpaceState::Ok,
            1 => SpaceState::RefusePublishes,
            _ => SpaceState::RefuseAll,
        }
    }

    pub(crate) fn look(&self) {
        let free = match free_bytes(&self.directory) {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, "watermarks keep their last state");
                return;
            }
        };
        let state = if free < self.refuse_all_below {
            SpaceState::RefuseAll
        } else if free < self.refuse_publishes_below {
            SpaceState::RefusePublishes
        } else {
            SpaceState::Ok
        };
        let before = self.get();
        self.state.store(state as u8, Ordering::Relaxed);
        #[allow(clippy::cast_precision_loss)]
        metrics::gauge!("nsquorum_storage_free_bytes").set(free as f64);
        if state != before {
            tracing::warn!(free_bytes = free, ?state, "the space left crossed a watermark");
        }
        let plenty = free >= self.refuse_publishes_below.saturating_add(self.ballast);
        if plenty
            && self.ballast > 0
            && let Err(error) = make_ballast(&self.directory, self.ballast)
        {
            tracing::warn!(%error, "no ballast");
        }
    }
}
