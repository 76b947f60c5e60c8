//! The backing directory: reading it at the start of a life, and applying journal entries to it.
//!
//! An inode without a durable name waits in a hidden directory under its number, so that its bytes can be synced before
//! its name is, and the name then appears by one rename. Nothing in the hidden directory survives a crash.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use crate::content::{Content, Cuts};
use crate::node::{Directory, Ino, Kind, Node, Owner, Place};
use crate::usage::Usage;

/// Name of the hidden directory in the backing directory's root.
pub(crate) const HIDDEN: &str = ".nsquorum-faultfs";

/// How files are opened.
#[derive(Debug, Clone)]
pub(crate) struct ContentOptions {
    pub(crate) cuts: Cuts,
    pub(crate) torn: bool,
    pub(crate) usage: Arc<Usage>,
}

/// The backing directory.
#[derive(Debug)]
pub(crate) struct Image {
    root: OwnedFd,
    hidden: OwnedFd,
    options: ContentOptions,
}

impl Image {
    /// Opens `backing` and drops whatever waited in its hidden directory: it was not durable.
    pub(crate) fn open(backing: &Path, options: ContentOptions) -> Result<Self, Errno> {
        let root = rustix::fs::openat(CWD, backing, directory_flags(), Mode::empty())?;
        match rustix::fs::mkdirat(&root, HIDDEN, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let hidden = rustix::fs::openat(&root, HIDDEN, directory_flags(), Mode::empty())?;
        let image = Self { root, hidden, options };
        image.empty_hidden()?;
        Ok(image)
    }

    pub(crate) fn empty_hidden(&self) -> Result<(), Errno> {
        remove_all_in(&self.hidden)
    }

    /// At a clean end, when everything has its durable name: leaves no trace in the backing directory.
    pub(crate) fn remove_hidden(&self) -> Result<(), Errno> {
        self.empty_hidden()?;
        rustix::fs::unlinkat(&self.root, HIDDEN, AtFlags::REMOVEDIR)
    }

    /// Free and total space of the disk below.
    pub(crate) fn statvfs(&self) -> Result<rustix::fs::StatVfs, Errno> {
        rustix::fs::fstatvfs(&self.root)
    }

    /// Reads the whole tree. Hard links come out as one inode. `next` gives inode numbers.
    pub(crate) fn scan(&self, mut next: impl FnMut() -> Ino) -> Result<BTreeMap<Ino, Node>, Errno> {
        let root = rustix::fs::openat(&self.root, ".", directory_flags(), Mode::empty())?;
        let stat = rustix::fs::fstat(&root)?;
        let mut nodes = BTreeMap::new();
        let mut seen: BTreeMap<u64, Ino> = BTreeMap::new();
        let mut queue = vec![Ino::ROOT];
        nodes.insert(
            Ino::ROOT,
            directory_node(root, &stat, Place::new(Ino::ROOT, OsStr::new(""))),
        );
        while let Some(dir) = queue.pop() {
            let backing = rustix::io::dup(&nodes[&dir].directory()?.backing)?;
            let mut found = BTreeMap::new();
            for name in names_in(&backing)? {
                if dir == Ino::ROOT && name == HIDDEN {
                    continue;
                }
                let stat = rustix::fs::statat(&backing, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                let place = Place::new(dir, &name);
                let ino = match seen.get(&stat.st_ino) {
                    Some(known) => {
                        let node = nodes.get_mut(known).expect("an inode that was seen is in the tree");
                        node.nlink += 1;
                        node.durable.push(place);
                        *known
                    }
                    None => {
                        let Some(mut node) = self.load(&backing, &name, &stat, place.clone())? else {
                            continue;
                        };
                        let ino = next();
                        if node.is_directory() {
                            queue.push(ino);
                        } else {
                            seen.insert(stat.st_ino, ino);
                        }
                        node.durable.push(place);
                        nodes.insert(ino, node);
                        ino
                    }
                };
                found.insert(name, ino);
            }
            let directory = nodes
                .get_mut(&dir)
                .expect("it was read from the tree above")
                .directory_mut()?;
            directory.durable = found.clone();
            directory.entries = found;
        }
        Ok(nodes)
    }

    /// `None` for what cannot be served (sockets, devices).
    fn load(&self, dir: &OwnedFd, name: &OsStr, stat: &Stat, place: Place) -> Result<Option<Node>, Errno> {
        let mtime = time(stat.st_mtime, stat.st_mtime_nsec);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
                Ok(Some(Node::new(self.content(file)?, owner(stat), place, mtime)))
            }
            FileType::Directory => {
                let backing = rustix::fs::openat(dir, name, directory_flags(), Mode::empty())?;
                Ok(Some(directory_node(backing, stat, place)))
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
                let kind = Kind::Symlink(OsString::from_vec(target.into_bytes()));
                Ok(Some(Node::new(kind, owner(stat), place, mtime)))
            }
            _ => Ok(None),
        }
    }

    fn content(&self, file: OwnedFd) -> Result<Kind, Errno> {
        let options = self.options.clone();
        let content = Content::new(File::from(file), options.cuts, options.torn, options.usage)?;
        Ok(Kind::File(Arc::new(Mutex::new(content))))
    }

    /// A new, nameless file.
    pub(crate) fn new_file(&self, ino: Ino, owner: Owner) -> Result<Kind, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.hidden, hidden_name(ino), flags, Mode::RUSR | Mode::WUSR)?;
        own(&file, owner)?;
        self.content(file)
    }

    /// A new, nameless directory.
    pub(crate) fn new_directory(&self, ino: Ino, owner: Owner) -> Result<Kind, Errno> {
        rustix::fs::mkdirat(&self.hidden, hidden_name(ino), Mode::RWXU)?;
        let backing = rustix::fs::openat(&self.hidden, hidden_name(ino), directory_flags(), Mode::empty())?;
        own(&backing, owner)?;
        Ok(Kind::Directory(Directory {
            entries: BTreeMap::new(),
            durable: BTreeMap::new(),
            backing,
        }))
    }

    /// A new, nameless symbolic link.
    pub(crate) fn new_symlink(&self, ino: Ino, target: &OsStr) -> Result<Kind, Errno> {
        rustix::fs::symlinkat(target, &self.hidden, hidden_name(ino))?;
        Ok(Kind::Symlink(target.to_owned()))
    }

    /// Gives a hidden inode its first durable name.
    pub(crate) fn show(&self, ino: Ino, dir: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        rustix::fs::renameat_with(&self.hidden, hidden_name(ino), dir, name, RenameFlags::NOREPLACE)
    }

    /// Takes the last durable name of an inode that lives on.
    pub(crate) fn hide(&self, ino: Ino, dir: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        rustix::fs::renameat_with(dir, name, &self.hidden, hidden_name(ino), RenameFlags::NOREPLACE)
    }

    /// Drops a hidden inode that nothing can reach any more.
    pub(crate) fn drop_hidden(&self, ino: Ino, is_directory: bool) -> Result<(), Errno> {
        let flags = if is_directory {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        rustix::fs::unlinkat(&self.hidden, hidden_name(ino), flags)
    }
}

/// Owner and mode at once in the backing inode; they are durable at once in both modes.
pub(crate) fn own(fd: &impl std::os::fd::AsFd, owner: Owner) -> Result<(), Errno> {
    use rustix::fs::{Gid, Uid};
    rustix::fs::fchown(fd, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(owner.mode))
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW
}

fn directory_node(backing: OwnedFd, stat: &Stat, place: Place) -> Node {
    let kind = Kind::Directory(Directory {
        entries: BTreeMap::new(),
        durable: BTreeMap::new(),
        backing,
    });
    Node::new(kind, owner(stat), place, time(stat.st_mtime, stat.st_mtime_nsec))
}

fn owner(stat: &Stat) -> Owner {
    Owner {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
    }
}

fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)) + Duration::from_nanos(nanoseconds);
    SystemTime::UNIX_EPOCH + since
}

fn hidden_name(ino: Ino) -> String {
    ino.0.to_string()
}

fn names_in(dir: &OwnedFd) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn remove_all_in(dir: &OwnedFd) -> Result<(), Errno> {
    for name in names_in(dir)? {
        match rustix::fs::unlinkat(dir, &name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {
                let inner = rustix::fs::openat(dir, &name, directory_flags(), Mode::empty())?;
                remove_all_in(&inner)?;
                rustix::fs::unlinkat(dir, &name, AtFlags::REMOVEDIR)?;
            }
            other => other?,
        }
    }
    Ok(())
}
