//! The bytes of one file: the durable ones in the backing file, the others in memory.
//!
//! Layers, top first: `dirty` (written, not synced), `lost` (a failed sync gave them up, still readable), the first
//! `base_len` bytes of the backing file, zeros. A shorter `base_len` than the backing file is a truncation that is not
//! durable yet; the backing file keeps its bytes until the truncation becomes durable, because a crash brings them back.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::SystemTime;

use rustix::io::Errno;

use crate::extents::ExtentMap;
use crate::seed::Seed;
use crate::usage::Usage;

/// One unsynced change, kept only if crashes are torn.
#[derive(Debug)]
enum Unsynced {
    Write { offset: u64, data: Vec<u8> },
    SetLen(u64),
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Content {
    file: File,
    /// Length of the backing file: what a crash leaves.
    backing_len: u64,
    /// How much of the backing file is still visible.
    base_len: u64,
    /// Length reached by ftruncate or fallocate alone, with nothing written there.
    grown_len: u64,
    dirty: ExtentMap,
    lost: ExtentMap,
    /// In order, already shortened by later truncations; `None` if crashes are clean.
    history: Option<Vec<Unsynced>>,
    cuts: Cuts,
    /// A crash happened: whoever still holds this belongs to the time before it.
    dead: bool,
    /// Its length is part of the space in use.
    counted: bool,
    /// Last change of the bytes, as `stat` shows it.
    pub(crate) mtime: SystemTime,
    usage: Arc<Usage>,
}

/// What carries a truncation of durable bytes to the backing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cuts {
    /// The journal of directory changes, in order with them.
    Journaled,
    /// The next sync of the file, like written bytes.
    WithTheData,
}

/// What a truncation did to the durable part.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Truncated {
    /// Durable bytes became invisible; they return at a crash until the cut is durable.
    DurableBytes,
    /// Only unsynced bytes went, or the file grew.
    NothingDurable,
}

impl Content {
    /// `file` must be open for reading and writing; its whole length is durable.
    pub(crate) fn new(file: File, cuts: Cuts, torn: bool, usage: Arc<Usage>) -> Result<Self, Errno> {
        let metadata = file.metadata().map_err(errno)?;
        usage.add(metadata.len());
        Ok(Self {
            backing_len: metadata.len(),
            base_len: metadata.len(),
            grown_len: 0,
            dirty: ExtentMap::default(),
            lost: ExtentMap::default(),
            history: torn.then(Vec::new),
            cuts,
            dead: false,
            counted: true,
            mtime: metadata.modified().map_err(errno)?,
            file,
            usage,
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The length that processes see.
    pub(crate) fn len(&self) -> u64 {
        self.base_len
            .max(self.grown_len)
            .max(self.dirty.end())
            .max(self.lost.end())
    }

    pub(crate) fn read(&self, offset: u64, size: usize) -> Result<Vec<u8>, Errno> {
        self.check_alive()?;
        let size = (self.len().saturating_sub(offset)).min(size as u64) as usize;
        let mut buffer = vec![0; size];
        let stored = (self.base_len.saturating_sub(offset)).min(size as u64) as usize;
        self.file.read_exact_at(&mut buffer[..stored], offset).map_err(errno)?;
        self.lost.copy_over(offset, &mut buffer);
        self.dirty.copy_over(offset, &mut buffer);
        Ok(buffer)
    }

    /// Writes to memory. `offset` `None` appends.
    ///
    /// # Errors
    /// ENOSPC if the file would grow beyond the space that is free; nothing is written then.
    pub(crate) fn write(&mut self, offset: Option<u64>, data: &[u8]) -> Result<(), Errno> {
        self.check_alive()?;
        let length = self.len();
        let offset = offset.unwrap_or(length);
        let end = offset.checked_add(data.len() as u64).ok_or(Errno::FBIG)?;
        self.usage.take(end.saturating_sub(length))?;
        let before = self.dirty.bytes();
        self.dirty.insert(offset, data);
        self.usage.dirty_changed(before, self.dirty.bytes());
        if let Some(history) = &mut self.history {
            history.push(Unsynced::Write {
                offset,
                data: data.to_vec(),
            });
        }
        self.mtime = SystemTime::now();
        Ok(())
    }

    /// Sets the length, in memory.
    pub(crate) fn truncate(&mut self, length: u64) -> Result<Truncated, Errno> {
        self.check_alive()?;
        let before = self.len();
        if length > before {
            self.usage.take(length - before)?;
        }
        let dirty_before = self.dirty.bytes();
        self.dirty.cut(length);
        self.usage.dirty_changed(dirty_before, self.dirty.bytes());
        self.lost.cut(length);
        let cuts_durable = length < self.base_len;
        self.base_len = self.base_len.min(length);
        self.grown_len = self.grown_len.min(length);
        if self.len() < length {
            self.grown_len = length;
        }
        if length < before {
            self.usage.give_back(before - length);
        }
        if let Some(history) = &mut self.history {
            history.iter_mut().for_each(|change| change.cut(length));
            if length > before || (cuts_durable && self.cuts == Cuts::WithTheData) {
                history.push(Unsynced::SetLen(length));
            }
        }
        self.mtime = SystemTime::now();
        Ok(if cuts_durable {
            Truncated::DurableBytes
        } else {
            Truncated::NothingDurable
        })
    }

    /// Makes zeros of `from..to`, within the length.
    pub(crate) fn zero(&mut self, from: u64, to: u64) -> Result<(), Errno> {
        const PIECE: usize = 1 << 16;
        let to = to.min(self.len());
        let mut at = from;
        while at < to {
            let piece = (to - at).min(PIECE as u64) as usize;
            self.write(Some(at), &vec![0; piece])?;
            at += piece as u64;
        }
        Ok(())
    }

    /// Makes a truncation durable that a journal entry stands for. Does nothing if a sync did it already.
    pub(crate) fn cut_backing(&mut self) -> Result<(), Errno> {
        if self.backing_len > self.base_len {
            self.file.set_len(self.base_len).map_err(errno)?;
            self.backing_len = self.base_len;
        }
        Ok(())
    }

    /// fsync: everything that is dirty reaches the backing file. `real` also asks the disk below to store it.
    pub(crate) fn sync(&mut self, real: bool) -> Result<(), Errno> {
        self.check_alive()?;
        self.cut_backing()?;
        for (offset, data) in self.dirty.iter() {
            self.file.write_all_at(data, offset).map_err(errno)?;
        }
        let length = self.base_len.max(self.dirty.end()).max(self.grown_len);
        if self.grown_len > self.base_len.max(self.dirty.end()) {
            self.file.set_len(length).map_err(errno)?;
        }
        self.base_len = length;
        self.backing_len = length;
        self.grown_len = 0;
        self.forget_dirty();
        if real {
            self.file.sync_data().map_err(errno)?;
        }
        Ok(())
    }

    /// A sync failed: what was dirty counts as clean from now on, and will never be durable.
    pub(crate) fn lose_dirty(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        self.usage.dirty_changed(dirty.bytes(), 0);
        for (offset, data) in dirty.iter() {
            self.lost.insert(offset, data);
        }
        if let Some(history) = &mut self.history {
            history.clear();
        }
    }

    /// The power goes: only the backing file stays, and every later call fails.
    pub(crate) fn kill(&mut self) {
        self.dead = true;
        self.usage.dirty_changed(self.dirty.bytes(), 0);
        self.give_space_back();
        self.dirty.clear();
        self.lost.clear();
        self.base_len = 0;
        self.grown_len = 0;
    }

    /// Nobody can see the file any more: its space is free, though a crash might still bring it back.
    pub(crate) fn give_space_back(&mut self) {
        if !self.counted {
            return;
        }
        self.usage.give_back(self.len());
        self.counted = false;
    }

    /// Before the power goes: lets a random prefix, in bytes, of the unsynced changes reach the backing file.
    pub(crate) fn tear(&mut self, seed: &mut Seed) -> Result<(), Errno> {
        let Some(history) = self.history.take() else {
            return Ok(());
        };
        let total: u64 = history.iter().map(Unsynced::steps).sum();
        let mut left = seed.below(total + 1);
        for change in &history {
            if left == 0 {
                break;
            }
            match change {
                Unsynced::Write { offset, data } => {
                    let kept = left.min(data.len() as u64) as usize;
                    self.file.write_all_at(&data[..kept], *offset).map_err(errno)?;
                    left -= kept as u64;
                    if kept < data.len() {
                        break;
                    }
                }
                Unsynced::SetLen(length) => {
                    self.file.set_len(*length).map_err(errno)?;
                    left -= 1;
                }
            }
        }
        Ok(())
    }

    fn forget_dirty(&mut self) {
        self.usage.dirty_changed(self.dirty.bytes(), 0);
        self.dirty.clear();
        if let Some(history) = &mut self.history {
            history.clear();
        }
    }

    fn check_alive(&self) -> Result<(), Errno> {
        if self.dead { Err(Errno::IO) } else { Ok(()) }
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        if !self.dead {
            self.kill();
        }
    }
}

impl Unsynced {
    /// How many steps of a torn crash it takes: one a byte, and one for a length.
    fn steps(&self) -> u64 {
        match self {
            Self::Write { data, .. } => data.len() as u64,
            Self::SetLen(_) => 1,
        }
    }

    /// A truncation took what lies beyond `length`; no crash can bring it back.
    fn cut(&mut self, length: u64) {
        match self {
            Self::Write { offset, data } => data.truncate(length.saturating_sub(*offset) as usize),
            Self::SetLen(reached) => *reached = length.min(*reached),
        }
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
