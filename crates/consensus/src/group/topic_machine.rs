//! A topic's state as a replicated machine.

use bytes::Bytes;
use nsquorum_storage::{Entry, EntryKind};
use nsquorum_topic::{BatchView, EntryPosition, LeaderStart, LogIndex, NodeId, NodeIncarnation, Seq, TopicState};
use tokio::sync::mpsc;

use super::events::TopicEvent;
use crate::raft::{Impossible, Machine};

/// Applies topic entries, and tells the topic leader of them while this node leads.
pub(crate) struct TopicMachine {
    state: TopicState,
    me: (NodeId, NodeIncarnation),
    leading: bool,
    events: mpsc::UnboundedSender<TopicEvent>,
}

impl TopicMachine {
    pub(crate) fn new(seq_base: Seq, me: (NodeId, NodeIncarnation), events: mpsc::UnboundedSender<TopicEvent>) -> Self {
        Self {
            state: TopicState::new(seq_base),
            me,
            leading: false,
            events,
        }
    }

    fn tell(&self, event: TopicEvent) {
        // Nobody listens any more: the topic's task has ended, and the node is stopping.
        drop(self.events.send(event));
    }

    fn start_leader(&mut self, at: EntryPosition, entry: &Entry) -> Result<(), Impossible> {
        let start = LeaderStart::decode(&entry.payload()).map_err(|error| Impossible(error.to_string()))?;
        self.state
            .apply_leader_start(at, &start)
            .map_err(|error| Impossible(error.to_string()))?;
        // The incarnation tells this life of the node from an earlier one, whose LeaderStart is re-applied after a restart.
        if (start.node, start.incarnation) == self.me {
            self.leading = true;
            self.tell(TopicEvent::LeaderStarted {
                term: start.term,
                state: Box::new(self.state.clone()),
            });
        } else if std::mem::take(&mut self.leading) {
            self.tell(TopicEvent::Deposed);
        }
        Ok(())
    }

    fn apply_batch(&mut self, at: EntryPosition, entry: &Entry) -> Result<(), Impossible> {
        let batch = BatchView::parse(entry.payload()).map_err(|error| Impossible(error.to_string()))?;
        let applied = self
            .state
            .apply_batch(at, &batch)
            .map_err(|error| Impossible(error.to_string()))?;
        if self.leading {
            self.tell(TopicEvent::Applied {
                entry: entry.clone(),
                batch,
                applied,
            });
        }
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
            self.tell(TopicEvent::Quarantined);
        }
        result
    }

    fn encode(&self) -> Bytes {
        self.state.encode().into()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), Impossible> {
        self.state = TopicState::decode(state).map_err(|error| Impossible(format!("a checkpoint: {error}")))?;
        Ok(())
    }

    /// Not the entry of the lowest unfinished message, but the index point before it: that is where readers begin.
    fn needed_from(&self) -> LogIndex {
        self.state.purge_index()
    }
}
