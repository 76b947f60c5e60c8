//! A topic's state as a replicated machine.

use std::sync::Arc;

use bytes::Bytes;
use nsquorum_storage::{Entry, EntryKind};
use nsquorum_topic::{BatchView, EntryPosition, GroupId, LeaderStart, LogIndex, NodeId, NodeIncarnation, TopicState};

use super::events::TopicEvent;
use super::leading::TopicLeading;
use crate::channels::{ChannelNames, ShownChannels};
use crate::locations::{LeaderLocation, LeaderLocations};
use crate::metadata::TopicRecord;
use crate::raft::{Impossible, Machine};

/// Applies topic entries, and tells the topic leader of them while this node leads.
pub(crate) struct TopicMachine {
    group: GroupId,
    locations: LeaderLocations,
    state: TopicState,
    me: (NodeId, NodeIncarnation),
    leading: Arc<TopicLeading>,
    channels: ShownChannels,
}

impl TopicMachine {
    pub(crate) fn new(
        record: &TopicRecord,
        me: (NodeId, NodeIncarnation),
        leading: Arc<TopicLeading>,
        locations: LeaderLocations,
        channels: ChannelNames,
    ) -> Self {
        Self {
            group: record.group,
            locations,
            state: TopicState::new(record.seq_base),
            me,
            leading,
            channels: ShownChannels::new(record.group, channels),
        }
    }

    fn start_leader(&mut self, at: EntryPosition, entry: &Entry) -> Result<(), Impossible> {
        let start = LeaderStart::decode(&entry.payload()).map_err(|error| Impossible(error.to_string()))?;
        self.state
            .apply_leader_start(at, &start)
            .map_err(|error| Impossible(error.to_string()))?;
        self.locations.learn(
            self.group,
            LeaderLocation {
                term: start.term,
                node: start.node,
            },
        );
        // The incarnation tells this life of the node from an earlier one, whose LeaderStart is re-applied after a restart.
        if (start.node, start.incarnation) == self.me {
            self.leading.start(start.term, &self.state);
        } else {
            self.leading.end_any();
        }
        Ok(())
    }

    fn apply_batch(&mut self, at: EntryPosition, entry: &Entry) -> Result<(), Impossible> {
        let batch = BatchView::parse(entry.payload()).map_err(|error| Impossible(error.to_string()))?;
        let applied = self
            .state
            .apply_batch(at, &batch)
            .map_err(|error| Impossible(error.to_string()))?;
        self.channels.follow(&self.state);
        self.leading.applied(|| TopicEvent::Applied {
            entry: entry.clone(),
            batch,
            applied,
        });
        Ok(())
    }
}

impl Machine for TopicMachine {
    fn apply(&mut self, entry: &Entry) -> Result<(), Impossible> {
        let header = entry.header();
        let encoded_bytes = u32::try_from(entry.encoded_len()).expect("an entry's length is a u32 in its header");
        let at = EntryPosition {
            index: header.index,
            term: header.term,
            encoded_bytes,
        };
        let result = match header.kind {
            EntryKind::Blank | EntryKind::Membership => self
                .state
                .apply_other(at)
                .map_err(|error| Impossible(error.to_string())),
            EntryKind::LeaderStart => self.start_leader(at, entry),
            EntryKind::TopicBatch => self.apply_batch(at, entry),
            EntryKind::Metadata => Err(Impossible("a metadata entry in a topic's group".into())),
        };
        if result.is_err() {
            self.leading.tell(TopicEvent::Quarantined);
        }
        result
    }

    fn encode(&self) -> Bytes {
        self.state.encode().into()
    }

    fn restore(&mut self, state: &[u8], _at: Option<LogIndex>) -> Result<(), Impossible> {
        // A snapshot takes the place of entries that were never applied here: whatever this node led, another leads now.
        self.leading.end_any();
        self.state = TopicState::decode(state).map_err(|error| Impossible(format!("a checkpoint: {error}")))?;
        self.channels.start_over();
        self.channels.follow(&self.state);
        Ok(())
    }

    /// Not the entry of the lowest unfinished message, but the index point before it: that is where readers begin.
    fn needed_from(&self) -> LogIndex {
        self.state.purge_index()
    }
}
