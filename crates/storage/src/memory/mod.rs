//! The store in memory: the contract without a disk.
//!
//! It is what tests and the simulation use, so it can do what a disk does to a program: [`Durability::Stepped`] holds every
//! operation back until the test lets one become durable, and [`MemoryStore::crash`] is a power cut that keeps only those.
//! With [`Durability::Immediate`] completions are called before the call returns (or, when calls nest, before the outermost one
//! does), always in order and never under a lock.

mod data;
mod log;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use nsquorum_topic::GroupId;
use parking_lot::Mutex;

use self::data::{GroupData, Operation};
use crate::error::StorageError;
use crate::log::{Completion, LogState, NodeStore, SpaceState};

/// When an operation becomes durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// At once, within the call.
    #[default]
    Immediate,
    /// One at a time, at [`MemoryStore::step`].
    Stepped,
}

/// A node's store in memory. A clone refers to the same store.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

/// A group's log in a [`MemoryStore`].
#[derive(Clone, Debug)]
pub struct MemoryLog {
    shared: Arc<Shared>,
    group: GroupId,
    /// Tells this life of the group from one after a deletion.
    life: u64,
}

#[derive(Debug)]
struct Shared {
    durability: Durability,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    groups: BTreeMap<GroupId, Group>,
    lives: u64,
    durable: BTreeMap<GroupId, GroupData>,
    waiting: VecDeque<Waiting>,
    /// Somebody is completing operations; whoever adds one meanwhile leaves it to them, so that the order holds.
    completing: bool,
    failed: Option<StorageError>,
    closed: bool,
    space: Option<SpaceState>,
}

#[derive(Debug)]
struct Group {
    life: u64,
    data: GroupData,
}

struct Waiting {
    group: GroupId,
    change: Change,
    bytes: u64,
    done: Option<Completion>,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting")
            .field("group", &self.group)
            .field("change", &self.change)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Change {
    Group(Operation),
    Delete,
    Refused(StorageError),
}

impl MemoryStore {
    /// An empty store.
    pub fn new(durability: Durability) -> Self {
        Self::with(durability, BTreeMap::new())
    }

    fn with(durability: Durability, mut durable: BTreeMap<GroupId, GroupData>) -> Self {
        for data in durable.values_mut() {
            // A mark may have been saved for entries that never became durable here.
            let last = data.state().last;
            data.committed = data
                .committed
                .and_then(|mark| last.map(|last| if last.index < mark.index { last } else { mark }));
        }
        let mut inner = Inner {
            durable,
            ..Inner::default()
        };
        for (group, data) in &inner.durable {
            inner.lives += 1;
            inner.groups.insert(
                *group,
                Group {
                    life: inner.lives,
                    data: data.clone(),
                },
            );
        }
        Self {
            shared: Arc::new(Shared {
                durability,
                inner: Mutex::new(inner),
            }),
        }
    }

    /// Makes the oldest waiting operation durable and calls its completion. Says whether there was one.
    pub fn step(&self) -> bool {
        self.shared.complete(1) == 1
    }

    /// How many operations wait for [`MemoryStore::step`].
    pub fn waiting(&self) -> usize {
        self.shared.inner.lock().waiting.len()
    }

    /// From now on every write fails, as after a failed sync.
    pub fn fail(&self, error: StorageError) {
        self.shared.inner.lock().failed.get_or_insert(error);
    }

    /// Sets what [`NodeStore::space`] answers.
    pub fn set_space(&self, space: SpaceState) {
        self.shared.inner.lock().space = Some(space);
    }

    /// A power cut: a new store that has only what was durable. This one is closed; what waited completes with an error.
    pub fn crash(&self) -> Self {
        let (durable, waiting) = {
            let mut inner = self.shared.inner.lock();
            inner.closed = true;
            (inner.durable.clone(), std::mem::take(&mut inner.waiting))
        };
        for done in waiting.into_iter().filter_map(|waiting| waiting.done) {
            done(Err(StorageError::Closed));
        }
        Self::with(self.shared.durability, durable)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Durability::Immediate)
    }
}

impl Shared {
    /// Applies and queues an operation of one life of a group; then completes what may be completed.
    fn submit(&self, log: &MemoryLog, prepare: impl FnOnce(&LogState) -> Operation, done: Option<Completion>) {
        let late = {
            let mut inner = self.inner.lock();
            if inner.closed {
                done
            } else {
                let bytes;
                let change = match (inner.failed.clone(), inner.groups.get_mut(&log.group)) {
                    (Some(failed), _) => {
                        bytes = 0;
                        Change::Refused(failed)
                    }
                    (None, Some(group)) if group.life == log.life => {
                        let operation = prepare(&group.data.state());
                        bytes = match &operation {
                            Operation::Append(entries) => entries.iter().map(|entry| entry.encoded_len() as u64).sum(),
                            Operation::PutCheckpoint(_, checkpoint) => checkpoint.state.len() as u64,
                            _ => 0,
                        };
                        group.data.apply(operation.clone());
                        Change::Group(operation)
                    }
                    (None, _) => {
                        bytes = 0;
                        Change::Refused(StorageError::Deleted(log.group))
                    }
                };
                inner.waiting.push_back(Waiting {
                    group: log.group,
                    change,
                    bytes,
                    done,
                });
                None
            }
        };
        if let Some(done) = late {
            done(Err(StorageError::Closed));
        }
        if self.durability == Durability::Immediate {
            self.complete(usize::MAX);
        }
    }

    /// Completes at most `limit` operations, in order, without a lock held during a completion.
    fn complete(&self, limit: usize) -> usize {
        let mut inner = self.inner.lock();
        if inner.completing {
            return 0;
        }
        inner.completing = true;
        let mut completed = 0;
        while completed < limit {
            let Some(Waiting {
                group, change, done, ..
            }) = inner.waiting.pop_front()
            else {
                break;
            };
            let result = match (change, inner.failed.clone()) {
                (Change::Refused(error), _) | (_, Some(error)) => Err(error),
                (Change::Group(operation), None) => {
                    inner.durable.entry(group).or_default().apply(operation);
                    Ok(())
                }
                (Change::Delete, None) => {
                    inner.durable.remove(&group);
                    Ok(())
                }
            };
            completed += 1;
            if let Some(done) = done {
                drop(inner);
                done(result);
                inner = self.inner.lock();
            }
        }
        inner.completing = false;
        completed
    }
}

impl NodeStore for MemoryStore {
    type Log = MemoryLog;

    fn groups(&self) -> Result<Vec<GroupId>, StorageError> {
        let inner = self.shared.inner.lock();
        if inner.closed {
            return Err(StorageError::Closed);
        }
        Ok(inner.groups.keys().copied().collect())
    }

    fn open_group(&self, group: GroupId) -> Result<MemoryLog, StorageError> {
        let mut inner = self.shared.inner.lock();
        if inner.closed {
            return Err(StorageError::Closed);
        }
        let life = match inner.groups.get(&group) {
            Some(found) => found.life,
            None => {
                inner.lives += 1;
                let life = inner.lives;
                inner.groups.insert(
                    group,
                    Group {
                        life,
                        data: GroupData::default(),
                    },
                );
                life
            }
        };
        Ok(MemoryLog {
            shared: self.shared.clone(),
            group,
            life,
        })
    }

    fn delete_group(&self, group: GroupId, done: Completion) {
        let late = {
            let mut inner = self.shared.inner.lock();
            if inner.closed {
                Some(done)
            } else {
                if inner.failed.is_none() {
                    inner.groups.remove(&group);
                }
                inner.waiting.push_back(Waiting {
                    group,
                    change: Change::Delete,
                    bytes: 0,
                    done: Some(done),
                });
                None
            }
        };
        if let Some(done) = late {
            done(Err(StorageError::Closed));
        }
        if self.shared.durability == Durability::Immediate {
            self.shared.complete(usize::MAX);
        }
    }

    fn space(&self) -> SpaceState {
        self.shared.inner.lock().space.unwrap_or(SpaceState::Ok)
    }

    fn pending_bytes(&self) -> u64 {
        self.shared
            .inner
            .lock()
            .waiting
            .iter()
            .map(|waiting| waiting.bytes)
            .sum()
    }

    fn flush(&self, done: Completion) {
        let late = {
            let mut inner = self.shared.inner.lock();
            if inner.closed {
                Some(done)
            } else {
                let change = inner
                    .failed
                    .clone()
                    .map_or(Change::Group(Operation::Nothing), Change::Refused);
                // The metadata group's queue is the node's: there is only one order here.
                inner.waiting.push_back(Waiting {
                    group: GroupId::METADATA,
                    change,
                    bytes: 0,
                    done: Some(done),
                });
                None
            }
        };
        if let Some(done) = late {
            done(Err(StorageError::Closed));
        }
        if self.shared.durability == Durability::Immediate {
            self.shared.complete(usize::MAX);
        }
    }

    fn close(self) -> Result<(), StorageError> {
        self.shared.complete(usize::MAX);
        let mut inner = self.shared.inner.lock();
        inner.closed = true;
        inner.failed.clone().map_or(Ok(()), Err)
    }
}
