//! Which channels the topics have whose replicas this node holds, as applied here.
//!
//! The leader knows them a moment earlier; but what a replica has applied needs nobody to be asked, and is there while nobody leads.

use std::collections::BTreeMap;
use std::sync::Arc;

use nsquorum_protocol::ChannelName;
use nsquorum_topic::{ChannelIncarnation, GroupId, TopicState};
use parking_lot::Mutex;
use tokio::sync::watch;

/// The channels of all groups of this node. A clone refers to the same.
#[derive(Clone, Debug, Default)]
pub struct ChannelNames(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    groups: Mutex<BTreeMap<GroupId, Arc<[ChannelName]>>>,
    changes: watch::Sender<u64>,
}

impl ChannelNames {
    /// The channels of a group, oldest first; none of one that does not run here.
    pub fn of(&self, group: GroupId) -> Arc<[ChannelName]> {
        self.0.groups.lock().get(&group).cloned().unwrap_or_default()
    }

    /// Changes when any of them do.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The group is gone.
    pub(crate) fn forget(&self, group: GroupId) {
        self.0.groups.lock().remove(&group);
        self.0.changes.send_modify(|change| *change += 1);
    }

    fn show(&self, group: GroupId, names: Arc<[ChannelName]>) {
        self.0.groups.lock().insert(group, names);
        self.0.changes.send_modify(|change| *change += 1);
    }
}

/// Shows one group's channels.
#[derive(Debug)]
pub(crate) struct ShownChannels {
    group: GroupId,
    names: ChannelNames,
    shown: Option<Mark>,
}

/// Of two states of one topic, the later of which has grown out of the earlier: their channels are the same if and only if this is, because
/// incarnations only rise.
type Mark = (usize, Option<ChannelIncarnation>);

impl ShownChannels {
    pub(crate) fn new(group: GroupId, names: ChannelNames) -> Self {
        Self {
            group,
            names,
            shown: None,
        }
    }

    /// To be called with each new state; costs next to nothing when no channel has come or gone.
    pub(crate) fn follow(&mut self, state: &TopicState) {
        let channels = state.channels();
        let mark = (
            channels.len(),
            state.channels().next_back().map(|channel| channel.incarnation()),
        );
        if self.shown != Some(mark) {
            self.shown = Some(mark);
            self.names
                .show(self.group, channels.map(|channel| channel.name().clone()).collect());
        }
    }

    /// The next state has not grown out of the last one.
    pub(crate) fn start_over(&mut self) {
        self.shown = None;
    }
}
