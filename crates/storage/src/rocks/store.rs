//! The node's store: opening, groups, closing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use nsquorum_topic::GroupId;
use parking_lot::Mutex;

use super::database::Database;
use super::group::Group;
use super::handle::{RocksLog, forget};
use super::writer::{Change, Flush, Job, Message, Progress, RocksEngine, Writer};
use crate::directory::{DataDirectory, Identity};
use crate::error::StorageError;
use crate::janitor::{Janitor, Space, Watched};
use crate::log::{Completion, NodeStore, SpaceState};
use crate::options::StoreOptions;

/// A node's store in a directory. A clone refers to the same store; when the last one and all its logs are gone it closes itself,
/// but only [`NodeStore::close`] says whether that went well.
#[derive(Clone)]
pub struct RocksStore {
    handle: Arc<Handle>,
}

impl std::fmt::Debug for RocksStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksStore")
            .field("directory", &self.handle.path)
            .finish_non_exhaustive()
    }
}

/// What stores and logs share; its end is the store's end.
pub(super) struct Handle {
    path: std::path::PathBuf,
    identity: Identity,
    pub(super) database: Arc<Database>,
    pub(super) progress: Arc<Progress>,
    inbox: Sender<Message>,
    closed: AtomicBool,
    groups: Mutex<Groups>,
    space: Arc<Space>,
    running: Mutex<Option<Running>>,
}

#[derive(Default)]
struct Groups {
    /// Groups that exist; those that were opened with their state.
    known: BTreeMap<GroupId, Option<Arc<Group>>>,
    /// Groups deleted since the store was opened: what the disk still has of them is on its way out and must not be read.
    deleted: BTreeSet<GroupId>,
}

/// What ends with the store.
struct Running {
    writer: JoinHandle<()>,
    janitor: Janitor,
    /// Held until everything else has ended.
    _directory: DataDirectory,
}

impl RocksStore {
    /// Opens the directory, making it if it is missing or empty, and recovers what was written. Raises and syncs the incarnation.
    ///
    /// # Errors
    /// [`StorageError::Foreign`] or [`StorageError::InUse`] before anything is touched; [`StorageError::Corrupt`] if what was
    /// synced cannot be read back; otherwise what the system says.
    pub fn open(options: StoreOptions) -> Result<Self, StorageError> {
        let directory = DataDirectory::open(&options)?;
        // The database takes some damage at the end of its logs for the end itself, and would drop what was acknowledged.
        crate::inspect::check_before_recovery(&options.directory)?;
        let watched = Watched::new(&directory, &options)?;
        let database = Arc::new(Database::open(&directory.database(), &options)?);
        let markers = database.reader()?.groups()?;
        let progress = Arc::new(Progress::new(options.on_fatal.clone()));
        let (inbox, messages) = crossbeam_channel::unbounded();
        let writer = Writer::new(
            RocksEngine(database.clone()),
            messages,
            progress.clone(),
            options.environment.clock.clone(),
            options.cache_bytes,
        );
        let writer = std::thread::Builder::new()
            .name("storage-writer".into())
            .spawn(move || writer.run())
            .map_err(|error| StorageError::io("start the writer thread", &error))?;
        let space = watched.space();
        let probe = Probe {
            database: database.clone(),
            progress: progress.clone(),
            inbox: inbox.clone(),
        };
        let janitor = Janitor::start(watched, probe)?;
        let handle = Handle {
            path: options.directory,
            identity: directory.identity().clone(),
            database,
            progress,
            inbox,
            closed: AtomicBool::new(false),
            groups: Mutex::new(Groups {
                known: markers.into_iter().map(|group| (group, None)).collect(),
                deleted: BTreeSet::new(),
            }),
            space,
            running: Mutex::new(Some(Running {
                writer,
                janitor,
                _directory: directory,
            })),
        };
        Ok(Self {
            handle: Arc::new(handle),
        })
    }

    /// Who this directory is.
    pub fn identity(&self) -> &Identity {
        &self.handle.identity
    }
}

/// What the janitor asks of the store.
pub(crate) struct Probe {
    database: Arc<Database>,
    progress: Arc<Progress>,
    inbox: Sender<Message>,
}

impl Probe {
    /// How many writes have begun.
    pub(crate) fn writes_begun(&self) -> u64 {
        self.progress.writes_begun.load(Ordering::SeqCst)
    }

    /// The last of them that is known to be on stable storage, with all before it.
    pub(crate) fn writes_synced(&self) -> u64 {
        self.progress.writes_synced.load(Ordering::SeqCst)
    }

    /// Fails the store if a flush or a compaction failed: the database itself would only tell the next writer, if it comes. Says
    /// whether it had to tell the writer; if that is still so a round later, it fails the store without it.
    pub(crate) fn check_background(&self, told: bool) -> bool {
        let errors = self.database.reader().map_or(0, |reader| reader.background_errors());
        if errors == 0 || self.progress.failure().is_some() {
            return false;
        }
        let error = StorageError::Io {
            doing: "flush or compact".into(),
            reason: format!("{errors} background errors; the database's LOG names them").into(),
        };
        if told || self.inbox.send(Message::Failed(error.clone())).is_err() {
            self.progress.fail(&error);
        }
        true
    }
}

impl Handle {
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Sends to the writer. What could not be sent comes back, to be dropped (and completed) without a lock held.
    pub(super) fn send(&self, message: Message, bytes: u64) -> Option<Message> {
        self.progress.pending_bytes.fetch_add(bytes, Ordering::SeqCst);
        match self.inbox.send(message) {
            Ok(()) => None,
            Err(unsent) => {
                self.progress.pending_bytes.fetch_sub(bytes, Ordering::SeqCst);
                Some(unsent.into_inner())
            }
        }
    }

    fn end(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let Some(running) = self.running.lock().take() else {
            return;
        };
        drop(self.inbox.send(Message::Stop));
        running.janitor.stop();
        // The last log may be dropped by a completion, on the writer's own thread.
        if running.writer.thread().id() != std::thread::current().id() {
            drop(running.writer.join());
            self.database.close();
        }
        *self.groups.lock() = Groups::default();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}

impl NodeStore for RocksStore {
    type Log = RocksLog;

    fn groups(&self) -> Result<Vec<GroupId>, StorageError> {
        if self.handle.is_closed() {
            return Err(StorageError::Closed);
        }
        Ok(self.handle.groups.lock().known.keys().copied().collect())
    }

    fn open_group(&self, group: GroupId) -> Result<RocksLog, StorageError> {
        let mut groups = self.handle.groups.lock();
        if self.handle.is_closed() {
            return Err(StorageError::Closed);
        }
        let cached = self.handle.progress.cached_bytes.clone();
        let known = groups.known.get(&group).cloned();
        let shared = match known {
            Some(Some(open)) => open,
            None if groups.deleted.contains(&group) => Arc::new(Group::empty(group, cached)),
            found => Arc::new(Group::load(group, found.is_some(), &self.handle.database, cached)?),
        };
        groups.known.insert(group, Some(shared.clone()));
        Ok(RocksLog {
            handle: self.handle.clone(),
            group: shared,
        })
    }

    fn delete_group(&self, group: GroupId, done: Completion) {
        let unsent = {
            let mut groups = self.handle.groups.lock();
            let open = groups.known.get(&group).cloned().flatten();
            let failure = if self.handle.is_closed() {
                Some(StorageError::Closed)
            } else {
                self.handle.progress.failure()
            };
            // A group that was never opened need not be readable to be deleted.
            let shared =
                open.unwrap_or_else(|| Arc::new(Group::empty(group, self.handle.progress.cached_bytes.clone())));
            let change = match failure {
                Some(error) => Change::Refused(error),
                None => {
                    groups.known.remove(&group);
                    groups.deleted.insert(group);
                    Change::DeleteGroup
                }
            };
            let mut state = shared.state.lock();
            if matches!(change, Change::DeleteGroup) {
                forget(&mut state);
            }
            self.handle.send(
                Message::Job(Job {
                    group: shared.clone(),
                    first: None,
                    change,
                    bytes: 0,
                    done: Some(done),
                }),
                0,
            )
        };
        drop(unsent);
    }

    fn space(&self) -> SpaceState {
        self.handle.space.get()
    }

    fn pending_bytes(&self) -> u64 {
        self.handle.progress.pending_bytes.load(Ordering::SeqCst)
    }

    fn flush(&self, done: Completion) {
        drop(self.handle.send(Message::Flush(Flush(Some(done))), 0));
    }

    fn close(self) -> Result<(), StorageError> {
        self.handle.end();
        self.handle.progress.failure().map_or(Ok(()), Err)
    }
}
