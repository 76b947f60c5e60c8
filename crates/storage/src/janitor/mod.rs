//! What must happen beside the writer, slowly and out of its way: one low-priority thread.
//!
//! - [`graveyard`]: files that the database no longer needs are shrunk in small steps.
//! - [`synced`]: the mark up to where the write-ahead log is on stable storage.
//! - [`space`]: watermarks and ballast.
//! - background errors of the database become fatal at once, not at the next write.

mod graveyard;
mod space;
mod synced;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

pub(crate) use space::{Space, free_bytes};
pub use synced::SyncedMark;

use self::graveyard::{Graveyard, Swept};
use self::synced::SyncedWriter;
use crate::directory::{DataDirectory, SYNCED_FILE};
use crate::error::StorageError;
use crate::log::SpaceState;
use crate::options::StoreOptions;
use crate::rocks::Probe;

/// How often new files get their second name. A file that lives shorter than this is small.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The pause between two steps of shrinking (measured: with 4 MiB per 10 ms other files' syncs stay below 8 ms).
const SHRINK_EVERY: Duration = Duration::from_millis(10);
/// Beyond this much to shrink the pause gets shorter in proportion: space must come back as fast as it is used up.
const BACKLOG_BYTES: u64 = 256 << 20;
/// Looks between two rounds of everything else: a second.
const LOOKS_PER_ROUND: u32 = 4;
/// Shrinking steps between two looks.
const STEPS_PER_LOOK: u32 = 25;

/// What the janitor looks after; prepared before the database is opened, because opening already deletes files.
pub(crate) struct Watched {
    graveyard: Graveyard,
    synced: SyncedWriter,
    space: Arc<Space>,
}

impl Watched {
    pub(crate) fn new(directory: &DataDirectory, options: &StoreOptions) -> Result<Self, StorageError> {
        let mut graveyard = Graveyard::new(directory.path());
        graveyard.look();
        let space = Arc::new(Space::new(directory.path(), options));
        space.look();
        let synced = SyncedWriter::open(&directory.path().join(SYNCED_FILE), directory.database())?;
        Ok(Self {
            graveyard,
            synced,
            space,
        })
    }

    pub(crate) fn space(&self) -> Arc<Space> {
        self.space.clone()
    }
}

impl Watched {
    fn run(mut self, probe: &Probe, stopped: &Receiver<()>) {
        let (mut looks, mut steps) = (0u32, 0u32);
        let mut dead = Swept::Clean;
        let mut told = false;
        loop {
            match stopped.recv_timeout(self.pause(dead)) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
            if dead == Swept::More {
                dead = self.graveyard.step();
                steps = steps.wrapping_add(1);
                if !steps.is_multiple_of(STEPS_PER_LOOK) {
                    continue;
                }
            }
            dead = self.graveyard.look();
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(LOOKS_PER_ROUND) {
                self.space.look();
                self.synced
                    .look(probe.writes_begun(), || probe.writes_begun(), probe.writes_synced());
                told = probe.check_background(told);
            }
        }
    }

    fn pause(&self, dead: Swept) -> Duration {
        match dead {
            Swept::Clean => LOOK_EVERY,
            // A full disk is worse than a slow one.
            Swept::More if self.space.get() != SpaceState::Ok => Duration::ZERO,
            Swept::More => {
                let share = self.graveyard.dead_bytes().div_ceil(BACKLOG_BYTES).max(1);
                SHRINK_EVERY / u32::try_from(share).unwrap_or(u32::MAX)
            }
        }
    }
}

/// The running thread.
pub(crate) struct Janitor {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Janitor {
    pub(crate) fn start(watched: Watched, probe: Probe) -> Result<Self, StorageError> {
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let thread = std::thread::Builder::new()
            .name("storage-janitor".into())
            .spawn(move || {
                // On Linux this is the thread's own priority. Without it the work is the same, only less polite.
                let _ = rustix::process::nice(10);
                watched.run(&probe, &stopped);
            })
            .map_err(|error| StorageError::io("start the janitor thread", &error))?;
        Ok(Self { stop, thread })
    }

    /// Ends it and waits, unless called on its own thread.
    pub(crate) fn stop(self) {
        // It may have ended by itself only by a panic: then there is nobody to tell.
        let _ = self.stop.send(());
        if self.thread.thread().id() != std::thread::current().id() {
            drop(self.thread.join());
        }
    }
}
