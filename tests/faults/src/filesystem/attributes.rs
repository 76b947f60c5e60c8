//! Attributes of inodes: from the tree to the kernel and back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;

use super::{BLOCK_BYTES, Filesystem};
use crate::durable::own;
use crate::node::{Ino, Kind, Owner};

pub(super) fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::File(_) => FileType::RegularFile,
        Kind::Directory(_) => FileType::Directory,
        Kind::Symlink(_) => FileType::Symlink,
    }
}

fn timestamp(time: Option<TimeOrNow>) -> Timespec {
    match time {
        None => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        Some(TimeOrNow::Now) => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
        Some(TimeOrNow::SpecificTime(time)) => {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
            Timespec {
                tv_sec: since.as_secs() as i64,
                tv_nsec: i64::from(since.subsec_nanos()),
            }
        }
    }
}

fn instant(time: Option<TimeOrNow>) -> Option<SystemTime> {
    time.map(|time| match time {
        TimeOrNow::Now => SystemTime::now(),
        TimeOrNow::SpecificTime(time) => time,
    })
}

impl Filesystem {
    /// Attributes as `stat` shows them. The length is read after the tree's lock is released: a file that is being
    /// synced holds up only those who ask about it.
    pub(super) fn attributes(&self, ino: Ino) -> Result<FileAttr, Errno> {
        let (mut attributes, content) = {
            let tree = self.0.tree()?;
            let node = tree.node(ino)?;
            let links = if node.is_directory() { 2 } else { node.nlink };
            let attributes = FileAttr {
                ino: INodeNo(ino.0),
                size: u64::from(BLOCK_BYTES),
                blocks: 8,
                atime: node.atime,
                mtime: node.mtime,
                ctime: node.ctime,
                crtime: UNIX_EPOCH,
                kind: file_type(&node.kind),
                perm: node.owner.mode as u16,
                nlink: links,
                uid: node.owner.uid,
                gid: node.owner.gid,
                rdev: 0,
                blksize: BLOCK_BYTES,
                flags: 0,
            };
            match &node.kind {
                Kind::File(content) => (attributes, Some(content.clone())),
                Kind::Symlink(target) => (
                    FileAttr {
                        size: target.len() as u64,
                        ..attributes
                    },
                    None,
                ),
                Kind::Directory(_) => (attributes, None),
            }
        };
        if let Some(content) = content {
            let content = content.lock();
            attributes.size = content.len();
            attributes.blocks = content.len().div_ceil(512);
            attributes.mtime = content.mtime;
            attributes.ctime = attributes.ctime.max(content.mtime);
            drop(content);
            self.0.still_on()?;
        }
        Ok(attributes)
    }

    /// mode, owner and times: live and in the backing inode at once.
    pub(super) fn set_attributes(
        &self,
        ino: Ino,
        change: (Option<u32>, Option<u32>, Option<u32>),
        times: (Option<TimeOrNow>, Option<TimeOrNow>),
    ) -> Result<(), Errno> {
        let mut tree = self.0.tree()?;
        let node = tree.node_mut(ino)?;
        let owner = Owner {
            mode: change.0.map_or(node.owner.mode, |mode| mode & 0o7777),
            uid: change.1.unwrap_or(node.owner.uid),
            gid: change.2.unwrap_or(node.owner.gid),
        };
        let owned = change != (None, None, None);
        node.owner = owner;
        node.ctime = SystemTime::now();
        node.atime = instant(times.0).unwrap_or(node.atime);
        node.mtime = instant(times.1).unwrap_or(node.mtime);
        let stamps = Timestamps {
            last_access: timestamp(times.0),
            last_modification: timestamp(times.1),
        };
        match &node.kind {
            Kind::File(content) => {
                let mut content = content.lock();
                content.mtime = instant(times.1).unwrap_or(content.mtime);
                if owned {
                    own(content.file(), owner)?;
                }
                rustix::fs::futimens(content.file(), &stamps)
            }
            Kind::Directory(directory) => {
                if owned {
                    own(&directory.backing, owner)?;
                }
                rustix::fs::futimens(&directory.backing, &stamps)
            }
            Kind::Symlink(_) => Ok(()),
        }
    }
}
