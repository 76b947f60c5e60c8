//! The live tree: names, inodes and open handles as processes see them, and how changes of it become durable.
//!
//! Everything here runs under the volume's one lock. Bytes of files do not: they are behind a lock each, taken after
//! this one, so that a large read or sync holds up nobody else.

mod durability;

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use crate::control::Metadata;
use crate::durable::Image;
use crate::journal::{Change, Entry, Journal};
use crate::node::{Ino, Kind, Node, Owner, Place};
use crate::seed::Seed;

/// Strict mode keeps changes until their directory is synced; beyond this many the oldest become durable, as a kernel
/// short of memory would write them.
const STRICT_ENTRIES_MAX: usize = 1 << 16;

/// An open file or directory.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) ino: Ino,
    pub(crate) append: bool,
    /// A directory as it was when it was opened.
    pub(crate) listing: Vec<(OsString, Ino)>,
}

/// The live tree over its durable image.
#[derive(Debug)]
pub(crate) struct Namespace {
    nodes: BTreeMap<Ino, Node>,
    handles: HashMap<u64, Handle>,
    image: Image,
    journal: Journal,
    metadata: Metadata,
    entries_max: usize,
    seed: Seed,
    last_ino: u64,
    last_handle: u64,
}

impl Namespace {
    /// Loads the image. In ordered mode at most `pending_max` directory changes are not durable.
    pub(crate) fn load(image: Image, metadata: Metadata, pending_max: usize, seed: u64) -> Result<Self, Errno> {
        let mut namespace = Self {
            nodes: BTreeMap::new(),
            handles: HashMap::new(),
            image,
            journal: Journal::default(),
            metadata,
            entries_max: match metadata {
                Metadata::Ordered => pending_max,
                Metadata::Strict => STRICT_ENTRIES_MAX,
            },
            seed: Seed::new(seed),
            last_ino: Ino::ROOT.0,
            last_handle: 0,
        };
        namespace.scan()?;
        Ok(namespace)
    }

    fn scan(&mut self) -> Result<(), Errno> {
        let last = &mut self.last_ino;
        self.nodes = self.image.scan(|| {
            *last += 1;
            Ino(*last)
        })?;
        Ok(())
    }

    pub(crate) fn pending(&self) -> usize {
        self.journal.len()
    }

    pub(crate) fn open_handles(&self) -> usize {
        self.handles.len()
    }

    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    // ---- looking ----

    /// # Errors
    /// ESTALE if the inode belongs to the time before a crash.
    pub(crate) fn node(&self, ino: Ino) -> Result<&Node, Errno> {
        self.nodes.get(&ino).ok_or(Errno::STALE)
    }

    pub(crate) fn node_mut(&mut self, ino: Ino) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&ino).ok_or(Errno::STALE)
    }

    pub(crate) fn child(&self, dir: Ino, name: &OsStr) -> Result<Ino, Errno> {
        self.node(dir)?
            .directory()?
            .entries
            .get(name)
            .copied()
            .ok_or(Errno::NOENT)
    }

    /// Path from the mount point, for fault patterns.
    pub(crate) fn path(&self, dir: Ino, name: &OsStr) -> String {
        let mut parts = vec![name.to_string_lossy().into_owned()];
        let mut at = dir;
        while at != Ino::ROOT
            && let Some(node) = self.nodes.get(&at)
        {
            parts.push(node.place.name.to_string_lossy().into_owned());
            at = node.place.dir;
        }
        parts.reverse();
        parts.join("/")
    }

    pub(crate) fn path_of(&self, ino: Ino) -> String {
        self.nodes
            .get(&ino)
            .map_or_else(String::new, |node| self.path(node.place.dir, &node.place.name))
    }

    // ---- handles ----

    pub(crate) fn open(&mut self, ino: Ino, append: bool) -> Result<u64, Errno> {
        let node = self.node_mut(ino)?;
        node.opens += 1;
        let listing = match &node.kind {
            Kind::Directory(directory) => directory
                .entries
                .iter()
                .map(|(name, ino)| (name.clone(), *ino))
                .collect(),
            _ => Vec::new(),
        };
        self.last_handle += 1;
        self.handles.insert(self.last_handle, Handle { ino, append, listing });
        Ok(self.last_handle)
    }

    /// # Errors
    /// EIO if the handle was opened before a crash.
    pub(crate) fn handle(&self, handle: u64) -> Result<&Handle, Errno> {
        self.handles.get(&handle).ok_or(Errno::IO)
    }

    pub(crate) fn close(&mut self, handle: u64) -> Result<(), Errno> {
        if let Some(Handle { ino, .. }) = self.handles.remove(&handle) {
            self.node_mut(ino)?.opens -= 1;
            self.settle(ino)?;
        }
        Ok(())
    }

    /// The kernel holds one more reference.
    pub(crate) fn looked_up(&mut self, ino: Ino) -> Result<(), Errno> {
        self.node_mut(ino)?.lookups += 1;
        Ok(())
    }

    pub(crate) fn forget(&mut self, ino: Ino, count: u64) -> Result<(), Errno> {
        // An inode of the time before a crash is forgotten already.
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(count);
            self.settle(ino)?;
        }
        Ok(())
    }

    // ---- changing names ----

    /// A new inode under a new name. `make` creates its backing inode, nameless.
    pub(crate) fn create(
        &mut self,
        dir: Ino,
        name: &OsStr,
        owner: Owner,
        make: impl FnOnce(&Image, Ino) -> Result<Kind, Errno>,
    ) -> Result<Ino, Errno> {
        self.check_free(dir, name)?;
        self.last_ino += 1;
        let ino = Ino(self.last_ino);
        let kind = make(&self.image, ino)?;
        let place = Place::new(dir, name);
        let mut node = Node::new(kind, owner, place.clone(), SystemTime::now());
        node.hidden = true;
        self.nodes.insert(ino, node);
        self.put_entry(&place, ino)?;
        self.log(Entry {
            ino,
            change: Change::Link(place),
        })?;
        Ok(ino)
    }

    pub(crate) fn link(&mut self, ino: Ino, dir: Ino, name: &OsStr) -> Result<(), Errno> {
        let node = self.node(ino)?;
        if node.is_directory() {
            return Err(Errno::PERM);
        }
        if node.nlink == 0 {
            return Err(Errno::NOENT);
        }
        self.check_free(dir, name)?;
        let place = Place::new(dir, name);
        let node = self.node_mut(ino)?;
        node.nlink += 1;
        node.ctime = SystemTime::now();
        self.put_entry(&place, ino)?;
        self.log(Entry {
            ino,
            change: Change::Link(place),
        })
    }

    pub(crate) fn unlink(&mut self, dir: Ino, name: &OsStr) -> Result<(), Errno> {
        let ino = self.child(dir, name)?;
        if self.node(ino)?.is_directory() {
            return Err(Errno::ISDIR);
        }
        self.remove(Place::new(dir, name), ino)
    }

    pub(crate) fn rmdir(&mut self, dir: Ino, name: &OsStr) -> Result<(), Errno> {
        let ino = self.child(dir, name)?;
        if !self.node(ino)?.directory()?.entries.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.remove(Place::new(dir, name), ino)
    }

    fn remove(&mut self, place: Place, ino: Ino) -> Result<(), Errno> {
        self.take_entry(&place)?;
        self.drop_name(ino)?;
        self.log(Entry {
            ino,
            change: Change::Unlink(place),
        })?;
        self.settle(ino)
    }

    pub(crate) fn rename(&mut self, from: Place, to: Place, flags: RenameFlags) -> Result<(), Errno> {
        let ino = self.child(from.dir, &from.name)?;
        let target = match self.child(to.dir, &to.name) {
            Ok(target) => Some(target),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error),
        };
        if flags == RenameFlags::EXCHANGE {
            let other = target.ok_or(Errno::NOENT)?;
            self.put_entry(&from, other)?;
            self.put_entry(&to, ino)?;
            return self.log(Entry {
                ino,
                change: Change::Exchange { from, to, other },
            });
        }
        match target {
            Some(_) if flags == RenameFlags::NOREPLACE => return Err(Errno::EXIST),
            Some(target) if target == ino => return Ok(()),
            Some(target) => self.check_replaceable(ino, target)?,
            None => {}
        }
        self.check_in_use(to.dir)?;
        self.take_entry(&from)?;
        if let Some(target) = target {
            self.take_entry(&to)?;
            self.drop_name(target)?;
        }
        self.put_entry(&to, ino)?;
        self.node_mut(ino)?.ctime = SystemTime::now();
        self.log(Entry {
            ino,
            change: Change::Rename {
                from,
                to,
                replaced: target,
            },
        })?;
        target.map_or(Ok(()), |target| self.settle(target))
    }

    fn check_replaceable(&self, ino: Ino, target: Ino) -> Result<(), Errno> {
        match (self.node(ino)?.is_directory(), &self.node(target)?.kind) {
            (true, Kind::Directory(directory)) if !directory.entries.is_empty() => Err(Errno::NOTEMPTY),
            (true, Kind::Directory(_)) => Ok(()),
            (true, _) => Err(Errno::NOTDIR),
            (false, Kind::Directory(_)) => Err(Errno::ISDIR),
            (false, _) => Ok(()),
        }
    }

    fn check_free(&self, dir: Ino, name: &OsStr) -> Result<(), Errno> {
        self.check_in_use(dir)?;
        match self.child(dir, name) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A removed directory that someone still holds takes no new names.
    fn check_in_use(&self, dir: Ino) -> Result<(), Errno> {
        if self.node(dir)?.nlink == 0 {
            Err(Errno::NOENT)
        } else {
            Ok(())
        }
    }

    fn put_entry(&mut self, place: &Place, ino: Ino) -> Result<(), Errno> {
        let now = SystemTime::now();
        let dir = self.node_mut(place.dir)?;
        dir.mtime = now;
        dir.ctime = now;
        dir.directory_mut()?.entries.insert(place.name.clone(), ino);
        self.node_mut(ino)?.place = place.clone();
        Ok(())
    }

    fn take_entry(&mut self, place: &Place) -> Result<(), Errno> {
        let now = SystemTime::now();
        let dir = self.node_mut(place.dir)?;
        dir.mtime = now;
        dir.ctime = now;
        dir.directory_mut()?.entries.remove(&place.name);
        Ok(())
    }

    fn drop_name(&mut self, ino: Ino) -> Result<(), Errno> {
        let node = self.node_mut(ino)?;
        node.nlink -= 1;
        node.ctime = SystemTime::now();
        Ok(())
    }
}
