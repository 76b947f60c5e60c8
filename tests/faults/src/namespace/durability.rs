//! How changes of the live tree become durable, and how a crash loses those that did not.

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use super::Namespace;
use crate::content::Truncated;
use crate::control::{KeepOps, Metadata};
use crate::journal::{Change, Entry, Journal};
use crate::node::{Ino, Kind, Place};

impl Namespace {
    // ---- truncation, the one change of bytes that ordered mode journals ----

    pub(crate) fn truncate(&mut self, ino: Ino, length: u64) -> Result<(), Errno> {
        let content = self.node(ino)?.content()?.clone();
        if self.metadata == Metadata::Ordered && self.journal.has_cut(ino) {
            // One entry stands for one length: the earlier cut must not swallow this one.
            let entries = self.journal.take_through_file(ino);
            self.commit(entries)?;
        }
        let truncated = content.lock().truncate(length)?;
        if truncated == Truncated::DurableBytes && self.metadata == Metadata::Ordered {
            self.log(Entry {
                ino,
                change: Change::Cut,
            })?;
        }
        Ok(())
    }

    // ---- becoming durable ----

    pub(super) fn log(&mut self, entry: Entry) -> Result<(), Errno> {
        for ino in entry.inodes() {
            self.node_mut(ino)?.queued += 1;
        }
        self.journal.push(entry);
        let entries = self.journal.take_beyond(self.entries_max);
        self.commit(entries)
    }

    /// The part of an fsync of a file that concerns names.
    pub(crate) fn sync_names_of_file(&mut self, ino: Ino) -> Result<(), Errno> {
        match self.metadata {
            Metadata::Ordered => {
                let entries = self.journal.take_through_file(ino);
                self.commit(entries)
            }
            Metadata::Strict => Ok(()),
        }
    }

    /// fsync of a directory.
    pub(crate) fn sync_directory(&mut self, ino: Ino) -> Result<(), Errno> {
        self.node(ino)?.directory()?;
        let entries = match self.metadata {
            Metadata::Ordered => self.journal.take_through_directory(ino),
            Metadata::Strict => self.journal.take_of_directory(ino),
        };
        self.commit(entries)
    }

    /// Everything, as a clean unmount does. `real` also asks the disk below to store it.
    pub(crate) fn sync_all(&mut self, real: bool) -> Result<(), Errno> {
        let entries = self.journal.take_beyond(0);
        self.commit(entries)?;
        for node in self.nodes.values() {
            if let Kind::File(content) = &node.kind {
                content.lock().sync(real)?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, entries: Vec<Entry>) -> Result<(), Errno> {
        let mut entries = entries.into_iter();
        while let Some(entry) = entries.next() {
            if let Err(error) = self.apply(&entry) {
                self.journal
                    .put_back(std::iter::once(entry).chain(entries.by_ref().collect::<Vec<_>>()));
                return Err(error);
            }
            for ino in entry.inodes() {
                self.node_mut(ino)?.queued -= 1;
            }
            for ino in entry.inodes() {
                self.settle(ino)?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, entry: &Entry) -> Result<(), Errno> {
        let ino = entry.ino;
        match &entry.change {
            Change::Link(place) => self.apply_link(ino, place),
            Change::Unlink(place) => self.apply_unlink(ino, place),
            Change::Rename { from, to, replaced } => self.apply_rename(ino, from, to, *replaced),
            Change::Exchange { from, to, other } => {
                let (from_dir, to_dir) = (self.node(from.dir)?.directory()?, self.node(to.dir)?.directory()?);
                let flags = RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(&from_dir.backing, &from.name, &to_dir.backing, &to.name, flags)?;
                self.unrecord(ino, from)?;
                self.unrecord(*other, to)?;
                self.record(ino, to)?;
                self.record(*other, from)
            }
            Change::Cut => self.node(ino)?.content()?.lock().cut_backing(),
        }
    }

    fn apply_link(&mut self, ino: Ino, place: &Place) -> Result<(), Errno> {
        let node = self.node(ino)?;
        let dir = self.node(place.dir)?.directory()?;
        if node.hidden {
            self.image.show(ino, &dir.backing, &place.name)?;
            self.node_mut(ino)?.hidden = false;
        } else if let Some(source) = node.durable.first() {
            let source_dir = self.node(source.dir)?.directory()?;
            rustix::fs::linkat(
                &source_dir.backing,
                &source.name,
                &dir.backing,
                &place.name,
                AtFlags::empty(),
            )?;
        } else {
            // Strict mode: the removal of its other name became durable first, and a later entry removes this one.
            return Ok(());
        }
        self.record(ino, place)
    }

    fn apply_unlink(&mut self, ino: Ino, place: &Place) -> Result<(), Errno> {
        if self.durable_at(place)? != Some(ino) {
            return Ok(());
        }
        let node = self.node(ino)?;
        let dir = self.node(place.dir)?.directory()?;
        if node.durable.len() == 1 && node.nlink > 0 {
            self.image.hide(ino, &dir.backing, &place.name)?;
            self.node_mut(ino)?.hidden = true;
        } else {
            let flags = if node.is_directory() {
                AtFlags::REMOVEDIR
            } else {
                AtFlags::empty()
            };
            rustix::fs::unlinkat(&dir.backing, &place.name, flags)?;
        }
        self.unrecord(ino, place)
    }

    fn apply_rename(&mut self, ino: Ino, from: &Place, to: &Place, replaced: Option<Ino>) -> Result<(), Errno> {
        if self.durable_at(from)? != Some(ino) {
            return Ok(());
        }
        if let Some(replaced) = replaced
            && self.durable_at(to)? == Some(replaced)
        {
            let node = self.node(replaced)?;
            if node.durable.len() == 1 && node.nlink > 0 {
                self.image
                    .hide(replaced, &self.node(to.dir)?.directory()?.backing, &to.name)?;
                self.node_mut(replaced)?.hidden = true;
            }
            self.unrecord(replaced, to)?;
        }
        let (from_dir, to_dir) = (self.node(from.dir)?.directory()?, self.node(to.dir)?.directory()?);
        rustix::fs::renameat(&from_dir.backing, &from.name, &to_dir.backing, &to.name)?;
        self.unrecord(ino, from)?;
        self.record(ino, to)
    }

    fn durable_at(&self, place: &Place) -> Result<Option<Ino>, Errno> {
        Ok(self.node(place.dir)?.directory()?.durable.get(&place.name).copied())
    }

    fn record(&mut self, ino: Ino, place: &Place) -> Result<(), Errno> {
        self.node_mut(place.dir)?
            .directory_mut()?
            .durable
            .insert(place.name.clone(), ino);
        self.node_mut(ino)?.durable.push(place.clone());
        Ok(())
    }

    fn unrecord(&mut self, ino: Ino, place: &Place) -> Result<(), Errno> {
        self.node_mut(place.dir)?.directory_mut()?.durable.remove(&place.name);
        self.node_mut(ino)?.durable.retain(|known| known != place);
        Ok(())
    }

    /// Frees what nothing needs any more.
    pub(super) fn settle(&mut self, ino: Ino) -> Result<(), Errno> {
        let Some(node) = self.nodes.get_mut(&ino) else {
            return Ok(());
        };
        if node.hidden && node.nlink == 0 && node.queued == 0 {
            self.image.drop_hidden(ino, node.is_directory())?;
            node.hidden = false;
        }
        if node.nlink == 0
            && node.opens == 0
            && let Kind::File(content) = &node.kind
        {
            content.lock().give_space_back();
        }
        if node.is_unreachable() {
            assert!(ino != Ino::ROOT, "the root directory has no name to lose");
            self.nodes.remove(&ino);
        }
        Ok(())
    }

    // ---- losing everything that is not durable ----

    /// Back to the durable image. `keep` says how many of the waiting directory changes still make it.
    pub(crate) fn crash(&mut self, keep: KeepOps) -> Result<(), Errno> {
        let count = match (keep, self.metadata) {
            (KeepOps::All, _) => self.journal.len(),
            (KeepOps::None, _) | (KeepOps::Random, Metadata::Strict) => 0,
            (KeepOps::Random, Metadata::Ordered) => self.seed.below(self.journal.len() as u64 + 1) as usize,
        };
        let entries = self.journal.take_first(count);
        self.commit(entries)?;
        for (ino, node) in &self.nodes {
            if let Kind::File(content) = &node.kind {
                let mut content = content.lock();
                // Bytes that came after a truncation cannot be there without it.
                if !self.journal.has_cut(*ino) {
                    content.tear(&mut self.seed)?;
                }
                content.kill();
            }
        }
        self.handles.clear();
        self.journal = Journal::default();
        self.image.empty_hidden()?;
        self.scan()
    }

    /// After [`Namespace::sync_all`]: leaves the backing directory without traces.
    pub(crate) fn clean_up(&self) -> Result<(), Errno> {
        self.image.remove_hidden()
    }
}
