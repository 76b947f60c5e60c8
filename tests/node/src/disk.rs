//! What a node's directory is on.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nsquorum_faults::{FaultFs, MountOptions};
use tempfile::TempDir;

use crate::programs::faultfs_program;

/// A disk with a data directory on it.
#[derive(Debug)]
pub enum Disk {
    /// A folder of this machine's temporary directory: nothing is ever lost by a kill.
    Plain {
        /// Removed with this value.
        folder: TempDir,
    },
    /// A mount that loses what was not synced, and fails on request.
    Faulty {
        /// The mount. Dropped before its folder is removed.
        mount: Box<FaultFs>,
        /// Holds the mount point and the durable image.
        folder: TempDir,
    },
}

impl Disk {
    /// An empty plain folder.
    ///
    /// # Errors
    /// If there is no temporary directory.
    pub fn plain() -> Result<Self> {
        Ok(Self::Plain {
            folder: tempfile::tempdir()?,
        })
    }

    /// An empty mount that loses what was not synced.
    ///
    /// # Errors
    /// If the program is missing or cannot mount (it needs /dev/fuse and root).
    pub fn faulty(options: MountOptions) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (backing, place) = (folder.path().join("backing"), folder.path().join("mount"));
        std::fs::create_dir(&backing)?;
        std::fs::create_dir(&place)?;
        let options = MountOptions {
            daemon: Some(faultfs_program()?),
            ..options
        };
        let mount = FaultFs::mount_with(&backing, &place, &options)
            .context("these tests need a disk that loses unsynced bytes: /dev/fuse and the right to mount")?;
        Ok(Self::Faulty {
            mount: Box::new(mount),
            folder,
        })
    }

    /// The data directory. It need not exist yet.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        match self {
            Self::Plain { folder } => folder.path().join("data"),
            Self::Faulty { mount, .. } => mount.path().join("data"),
        }
    }

    /// A folder on the same machine that is not part of the disk under test.
    #[must_use]
    pub fn beside(&self) -> &Path {
        match self {
            Self::Plain { folder } | Self::Faulty { folder, .. } => folder.path(),
        }
    }

    /// The mount.
    ///
    /// # Panics
    /// On a plain disk: the test is wrong.
    #[must_use]
    pub fn faults(&self) -> &FaultFs {
        match self {
            Self::Plain { .. } => panic!("a plain disk has no faults"),
            Self::Faulty { mount, .. } => mount,
        }
    }

    /// The power goes and comes back: everything that was not synced is gone, no fault is armed any more, and there is
    /// space. On a plain disk nothing happens.
    ///
    /// # Errors
    /// If the mount is gone.
    pub fn power_cut(&self) -> Result<()> {
        if let Self::Faulty { mount, .. } = self {
            mount.crash()?;
            mount.clear()?;
            mount.space(None)?;
        }
        Ok(())
    }
}
