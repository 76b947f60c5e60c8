//! Where frames for a group go on this node.
//!
//! A leader may speak of a group before this node has heard that the group exists: metadata and topic travel through different logs. Such
//! frames wait for a moment, bounded in time and bytes, and are refused if the group does not come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nsquorum_environment::Monotonic;
use nsquorum_topic::{GroupId, NodeId, Term};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::elections::{Followers, Pulse};
use crate::raft::{Asked, Replica};

/// How long frames wait for their group.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Bytes of frames that wait for groups, over all groups; what comes beyond is refused at once.
const WAITING_BYTES_MAX: usize = 16 << 20;
/// What a waiting frame costs beyond its bytes.
const WAITING_FRAME_BYTES: usize = 256;

/// A group that runs here, as its peers and the elections see it.
pub(crate) struct Port {
    pub(crate) group: GroupId,
    pub(crate) replicas: Vec<NodeId>,
    pub(crate) replica: Arc<dyn Replica>,
    pub(crate) pulse: Arc<Pulse>,
    /// The group's replicas, while this node leads it.
    pub(crate) followers: Followers,
    pub(crate) inbox: mpsc::UnboundedSender<Asked>,
    /// Whether this replica campaigns first: the group is new, and its record says so.
    pub(crate) first: bool,
    /// This node's leadership of the term is over.
    pub(crate) depose: Box<dyn Fn(Term) + Send + Sync>,
}

/// Frames that wait for one group.
struct Awaited {
    since: Monotonic,
    asked: Vec<Asked>,
    bytes: usize,
}

#[derive(Default)]
struct Inner {
    open: BTreeMap<GroupId, Arc<Port>>,
    awaited: BTreeMap<GroupId, Awaited>,
    waiting_bytes: usize,
    /// Rises when the open groups change, so that nobody has to compare them.
    version: u64,
}

/// The groups of this node. A clone refers to the same.
#[derive(Clone, Default)]
pub(crate) struct Ports {
    inner: Arc<Mutex<Inner>>,
    /// A new group whose first leader is this node runs.
    first: Arc<Notify>,
}

impl Ports {
    /// The group runs: what waited for it goes first.
    pub(crate) fn open(&self, port: Arc<Port>) {
        let mut inner = self.inner.lock();
        inner.version += 1;
        if let Some(awaited) = inner.awaited.remove(&port.group) {
            inner.waiting_bytes -= awaited.bytes;
            for asked in awaited.asked {
                drop(port.inbox.send(asked));
            }
        }
        if port.first {
            self.first.notify_one();
        }
        inner.open.insert(port.group, port);
    }

    /// Resolves when a new group runs for which this node is to campaign first, so that whoever created the topic need not wait for somebody to look.
    pub(crate) async fn first_opened(&self) {
        self.first.notified().await;
    }

    /// The group runs no more. Its inbox closes when the last reference to its port goes.
    pub(crate) fn close(&self, group: GroupId) {
        let mut inner = self.inner.lock();
        inner.version += 1;
        inner.open.remove(&group);
    }

    pub(crate) fn get(&self, group: GroupId) -> Option<Arc<Port>> {
        self.inner.lock().open.get(&group).cloned()
    }

    /// All groups that run.
    pub(crate) fn all(&self) -> Vec<Arc<Port>> {
        self.inner.lock().open.values().cloned().collect()
    }

    /// All groups that run, if they have changed since `version`.
    pub(crate) fn changed(&self, version: u64) -> Option<(u64, Vec<Arc<Port>>)> {
        let inner = self.inner.lock();
        (inner.version != version).then(|| (inner.version, inner.open.values().cloned().collect()))
    }

    /// Gives a frame to its group, or keeps it until the group runs. A frame that comes back is to be refused.
    pub(crate) fn deliver(&self, group: GroupId, asked: Asked, now: Monotonic) -> Result<(), Asked> {
        let mut inner = self.inner.lock();
        if let Some(port) = inner.open.get(&group) {
            return port.inbox.send(asked).map_err(|back| back.0);
        }
        let bytes = asked.frame.len() + WAITING_FRAME_BYTES;
        if inner.waiting_bytes + bytes > WAITING_BYTES_MAX {
            return Err(asked);
        }
        inner.waiting_bytes += bytes;
        let awaited = inner.awaited.entry(group).or_insert_with(|| Awaited {
            since: now,
            asked: Vec::new(),
            bytes: 0,
        });
        awaited.bytes += bytes;
        awaited.asked.push(asked);
        Ok(())
    }

    /// The frames whose groups did not come in time.
    pub(crate) fn expired(&self, now: Monotonic) -> Vec<(GroupId, Asked)> {
        let mut inner = self.inner.lock();
        let late: Vec<GroupId> = inner
            .awaited
            .iter()
            .filter(|(_, awaited)| now.since(awaited.since) >= WAIT_MAX)
            .map(|(group, _)| *group)
            .collect();
        let mut expired = Vec::new();
        for group in late {
            if let Some(awaited) = inner.awaited.remove(&group) {
                inner.waiting_bytes -= awaited.bytes;
                expired.extend(awaited.asked.into_iter().map(|asked| (group, asked)));
            }
        }
        expired
    }
}
