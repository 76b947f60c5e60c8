//! The file system without FUSE: every call goes through a gate that counts it and may fail it, then to the tree.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use rustix::io::Errno;

use crate::content::{Content, Cuts};
use crate::control::{Answer, Call, Command, CrashOptions, KeepOps, Metadata, Reply, Stats};
use crate::daemon::DaemonOptions;
use crate::durable::{ContentOptions, Image};
use crate::faults::Faults;
use crate::namespace::Namespace;
use crate::node::{Ino, Place};
use crate::usage::Usage;

#[derive(Debug)]
struct State {
    namespace: Namespace,
    down: bool,
}

/// A call that may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    Whole,
    /// A write stores only its first half.
    Half,
    /// A sync does nothing.
    Nothing,
}

/// What a call is about, for the patterns of faults.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Subject<'a> {
    Inode(Ino),
    Name(Ino, &'a OsStr),
    Names((Ino, &'a OsStr), (Ino, &'a OsStr)),
    InodeAndName(Ino, (Ino, &'a OsStr)),
    Nothing,
}

/// The mounted tree with its faults.
#[derive(Debug)]
pub(crate) struct Volume {
    state: Mutex<State>,
    faults: Faults,
    usage: Arc<Usage>,
    crashes: AtomicU64,
    real_sync: bool,
    dirty_bytes_max: u64,
}

impl Volume {
    pub(crate) fn open(options: &DaemonOptions) -> Result<Self, Errno> {
        let usage = Arc::new(Usage::new());
        let cuts = match options.metadata {
            Metadata::Ordered => Cuts::Journaled,
            Metadata::Strict => Cuts::WithTheData,
        };
        let content = ContentOptions {
            cuts,
            torn: options.torn,
            usage: usage.clone(),
        };
        let image = Image::open(&options.backing, content)?;
        let namespace = Namespace::load(image, options.metadata, options.pending_ops_max, options.seed)?;
        Ok(Self {
            state: Mutex::new(State { namespace, down: false }),
            faults: Faults::default(),
            usage,
            crashes: AtomicU64::new(0),
            real_sync: options.real_sync,
            dirty_bytes_max: options.dirty_bytes_max,
        })
    }

    pub(crate) fn usage(&self) -> &Usage {
        &self.usage
    }

    /// The tree, while the power is on.
    ///
    /// # Errors
    /// EIO while it is off.
    pub(crate) fn tree(&self) -> Result<MappedMutexGuard<'_, Namespace>, Errno> {
        let state = self.state.lock();
        if state.down {
            return Err(Errno::IO);
        }
        Ok(MutexGuard::map(state, |state| &mut state.namespace))
    }

    /// To be asked behind a look at a file's content, which is not under the tree's lock: a power cut that came in between has taken what was not
    /// synced away, and nobody may see that before the power is back.
    pub(crate) fn still_on(&self) -> Result<(), Errno> {
        self.tree().map(drop)
    }

    /// Counts a call and lets the rules have their say. No lock is held while it delays.
    pub(crate) fn admit(&self, call: Call, subject: Subject<'_>) -> Result<Pass, Errno> {
        self.faults.count(call);
        if !self.faults.concerns(call) {
            return Ok(Pass::Whole);
        }
        let paths = {
            let tree = self.tree()?;
            match subject {
                Subject::Inode(ino) => vec![tree.path_of(ino)],
                Subject::Name(dir, name) => vec![tree.path(dir, name)],
                Subject::Names(from, to) => vec![tree.path(from.0, from.1), tree.path(to.0, to.1)],
                Subject::InodeAndName(ino, to) => vec![tree.path_of(ino), tree.path(to.0, to.1)],
                Subject::Nothing => Vec::new(),
            }
        };
        let judgement = self.faults.judge(call, &paths);
        if judgement.power_off {
            self.crash(CrashOptions {
                keep: KeepOps::Random,
                stay_down: true,
            })?;
            return Err(Errno::IO);
        }
        if !judgement.delay.is_zero() {
            std::thread::sleep(judgement.delay);
        }
        match judgement.error {
            Some(error) => Err(error),
            None if judgement.short => Ok(Pass::Half),
            None if judgement.lie => Ok(Pass::Nothing),
            None => Ok(Pass::Whole),
        }
    }

    // ---- bytes ----

    /// # Errors
    /// EIO if the handle is from before a crash.
    fn opened(&self, handle: u64) -> Result<(Ino, bool, Arc<Mutex<Content>>), Errno> {
        let tree = self.tree()?;
        let handle = tree.handle(handle)?;
        Ok((handle.ino, handle.append, tree.node(handle.ino)?.content()?.clone()))
    }

    pub(crate) fn read(&self, ino: Ino, handle: u64, offset: u64, size: usize) -> Result<Vec<u8>, Errno> {
        self.admit(Call::Read, Subject::Inode(ino))?;
        let (_, _, content) = self.opened(handle)?;
        let bytes = content.lock().read(offset, size);
        self.still_on()?;
        bytes
    }

    /// Returns how many bytes were written.
    pub(crate) fn write(&self, ino: Ino, handle: u64, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        let pass = self.admit(Call::Write, Subject::Inode(ino))?;
        let (ino, append, content) = self.opened(handle)?;
        let data = match pass {
            Pass::Whole | Pass::Nothing => data,
            Pass::Half => &data[..data.len().div_ceil(2)],
        };
        content.lock().write((!append).then_some(offset), data)?;
        if self.usage.dirty_bytes() > self.dirty_bytes_max {
            self.store(ino, &content)?;
        }
        Ok(data.len())
    }

    pub(crate) fn truncate(&self, ino: Ino, length: u64) -> Result<(), Errno> {
        self.admit(Call::Truncate, Subject::Inode(ino))?;
        self.tree()?.truncate(ino, length)
    }

    pub(crate) fn fallocate(&self, ino: Ino, handle: u64, from: u64, bytes: u64, mode: i32) -> Result<(), Errno> {
        self.admit(Call::Fallocate, Subject::Inode(ino))?;
        let (_, _, content) = self.opened(handle)?;
        let mut content = content.lock();
        let to = from.checked_add(bytes).ok_or(Errno::FBIG)?;
        let zeros = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE;
        if mode & !(zeros | libc::FALLOC_FL_KEEP_SIZE) != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        if mode & zeros != 0 {
            content.zero(from, to)?;
        }
        if mode & libc::FALLOC_FL_KEEP_SIZE == 0 {
            if to > content.len() {
                content.truncate(to)?;
            }
        } else if mode & zeros == 0
            && self
                .usage
                .free_bytes()
                .is_some_and(|free| to.saturating_sub(content.len()) > free)
        {
            return Err(Errno::NOSPC);
        }
        Ok(())
    }

    pub(crate) fn sync_file(&self, ino: Ino, handle: u64) -> Result<(), Errno> {
        let admitted = self.admit(Call::Fsync, Subject::Inode(ino));
        let (ino, _, content) = self.opened(handle)?;
        match admitted {
            Ok(Pass::Whole | Pass::Half) => self.store(ino, &content),
            Ok(Pass::Nothing) => Ok(()),
            Err(error) => {
                content.lock().lose_dirty();
                Err(error)
            }
        }
    }

    fn store(&self, ino: Ino, content: &Mutex<Content>) -> Result<(), Errno> {
        self.tree()?.sync_names_of_file(ino)?;
        content.lock().sync(self.real_sync)
    }

    // ---- names ----

    pub(crate) fn rename(&self, from: Place, to: Place, flags: rustix::fs::RenameFlags) -> Result<(), Errno> {
        self.admit(Call::Rename, Subject::Names((from.dir, &from.name), (to.dir, &to.name)))?;
        self.tree()?.rename(from, to, flags)
    }

    pub(crate) fn sync_directory(&self, ino: Ino) -> Result<(), Errno> {
        match self.admit(Call::Fsyncdir, Subject::Inode(ino))? {
            Pass::Whole | Pass::Half => self.tree()?.sync_directory(ino),
            Pass::Nothing => Ok(()),
        }
    }

    // ---- control ----

    /// Drops everything that is not durable, or turns the power on again after it went.
    pub(crate) fn crash(&self, options: CrashOptions) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if !state.down {
            self.crashes.fetch_add(1, Relaxed);
            state.namespace.crash(options.keep)?;
        }
        state.down = options.stay_down;
        Ok(())
    }

    /// At the end: everything becomes durable, and the backing directory keeps no traces. With the power off there is
    /// nothing left to store.
    pub(crate) fn shut_down(&self) -> Result<(), Errno> {
        let mut state = self.state.lock();
        state.namespace.sync_all(self.real_sync)?;
        state.namespace.clean_up()?;
        state.down = true;
        Ok(())
    }

    fn stats(&self) -> Stats {
        let state = self.state.lock();
        Stats {
            calls: self.faults.counts(),
            dirty_bytes: self.usage.dirty_bytes(),
            pending_ops: state.namespace.pending() as u64,
            used_bytes: self.usage.used_bytes(),
            free_bytes: self.usage.free_bytes(),
            open_handles: state.namespace.open_handles() as u64,
            crashes: self.crashes.load(Relaxed),
            down: state.down,
            fired: self.faults.fired(),
        }
    }

    /// Carries out a request, except [`Command::Unmount`], which is the daemon's.
    pub(crate) fn command(&self, command: Command) -> Answer {
        let done = |result: Result<(), Errno>| match result {
            Ok(()) => Answer::Ok(Reply::default()),
            Err(error) => Answer::Error(error.to_string()),
        };
        match command {
            Command::Crash { options } => done(self.crash(options)),
            Command::Fail { fault } => match self.faults.add(fault) {
                Ok(id) => Answer::Ok(Reply {
                    fault: Some(id),
                    ..Reply::default()
                }),
                Err(reason) => Answer::Error(reason),
            },
            Command::Clear => {
                self.faults.clear();
                done(Ok(()))
            }
            Command::Stats => Answer::Ok(Reply {
                stats: Some(self.stats()),
                ..Reply::default()
            }),
            Command::Space { free } => {
                self.usage.set_free(free);
                done(Ok(()))
            }
            Command::Sync => done(self.tree().and_then(|mut tree| tree.sync_all(self.real_sync))),
            Command::Unmount => Answer::Error("unmount is not a request to the volume".to_owned()),
        }
    }
}
