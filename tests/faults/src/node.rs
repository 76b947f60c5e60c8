//! One inode of the live tree.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::content::Content;

/// Number of an inode. Never used twice while mounted: after a crash every inode but the root gets a new one, so what
/// the kernel or a process still holds is stale and fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ino(pub(crate) u64);

impl Ino {
    pub(crate) const ROOT: Self = Self(1);
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) dir: Ino,
    pub(crate) name: OsString,
}

impl Place {
    pub(crate) fn new(dir: Ino, name: &OsStr) -> Self {
        Self {
            dir,
            name: name.to_owned(),
        }
    }
}

/// A directory: what processes see, and what the backing directory has.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) entries: BTreeMap<OsString, Ino>,
    pub(crate) durable: BTreeMap<OsString, Ino>,
    /// The backing directory, wherever it stands.
    pub(crate) backing: OwnedFd,
}

#[derive(Debug)]
pub(crate) enum Kind {
    File(Arc<Mutex<Content>>),
    Directory(Directory),
    Symlink(OsString),
}

/// Owner and permissions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    /// Permission bits only.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// An inode.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) owner: Owner,
    pub(crate) atime: SystemTime,
    /// Of directories and links; a file's is in its content.
    pub(crate) mtime: SystemTime,
    pub(crate) ctime: SystemTime,
    /// Live names.
    pub(crate) nlink: u32,
    /// One of its live names, or the last one: for fault patterns.
    pub(crate) place: Place,
    /// References of the kernel.
    pub(crate) lookups: u64,
    /// Open handles.
    pub(crate) opens: u32,
    /// Journal entries that will need it.
    pub(crate) queued: u32,
    /// Durable names. Empty with `hidden` unset: the backing inode is gone or about to go.
    pub(crate) durable: Vec<Place>,
    /// It has no durable name yet and waits under its number in the hidden directory.
    pub(crate) hidden: bool,
}

impl Node {
    pub(crate) fn new(kind: Kind, owner: Owner, place: Place, mtime: SystemTime) -> Self {
        Self {
            kind,
            owner,
            atime: mtime,
            mtime,
            ctime: mtime,
            nlink: 1,
            place,
            lookups: 0,
            opens: 0,
            queued: 0,
            durable: Vec::new(),
            hidden: false,
        }
    }

    pub(crate) fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }

    pub(crate) fn directory(&self) -> Result<&Directory, Errno> {
        match &self.kind {
            Kind::Directory(directory) => Ok(directory),
            _ => Err(Errno::NOTDIR),
        }
    }

    pub(crate) fn directory_mut(&mut self) -> Result<&mut Directory, Errno> {
        match &mut self.kind {
            Kind::Directory(directory) => Ok(directory),
            _ => Err(Errno::NOTDIR),
        }
    }

    pub(crate) fn content(&self) -> Result<&Arc<Mutex<Content>>, Errno> {
        match &self.kind {
            Kind::File(content) => Ok(content),
            Kind::Directory(_) => Err(Errno::ISDIR),
            Kind::Symlink(_) => Err(Errno::INVAL),
        }
    }

    /// Nothing can reach it any more, in this life or after a crash.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.nlink == 0 && self.lookups == 0 && self.opens == 0 && self.queued == 0 && self.durable.is_empty()
    }
}
