//! One entry of a Raft log, as openraft passes it around.

use std::fmt;

use bytes::BytesMut;
use nsquorum_storage::{ENTRY_HEADER_BYTES, Entry, EntryKind};
use nsquorum_topic::{GroupId, LogIndex, Term};
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::vote::leader_id_std::CommittedLeaderId;

use super::membership::{MalformedMembership, Membership, decode_membership, encode_membership};

/// What a leader proposes: a payload behind room for the entry header, which is patched in place when openraft has assigned
/// term and index. The body bytes are written once, here, and are then what the disk and the wire get.
pub(crate) struct Proposal {
    pub(crate) kind: EntryKind,
    pub(crate) buffer: BytesMut,
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Lengths only: openraft prints proposals at debug level, and bodies are somebody's invoices.
        write!(
            f,
            "{:?} of {} bytes",
            self.kind,
            self.buffer.len().saturating_sub(ENTRY_HEADER_BYTES)
        )
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[derive(Debug)]
enum Content {
    Blank,
    Membership(Membership),
    Proposal(Proposal),
    /// Read from the log. The membership is decoded when the entry is read, because openraft cannot be told of an error later.
    Stored {
        entry: Entry,
        membership: Option<Membership>,
    },
}

/// An entry with its place in the log.
#[derive(Debug)]
pub(crate) struct LogEntry {
    leader: CommittedLeaderId<u64>,
    index: u64,
    content: Content,
}

impl LogEntry {
    /// An entry that was read from the log.
    pub(crate) fn stored(entry: Entry) -> Result<Self, MalformedMembership> {
        let header = entry.header();
        let membership = match header.kind {
            EntryKind::Membership => Some(decode_membership(&entry.payload())?),
            _ => None,
        };
        Ok(Self {
            leader: CommittedLeaderId::new(header.term.get()),
            index: header.index.get(),
            content: Content::Stored { entry, membership },
        })
    }

    /// The bytes for the log of `group`.
    pub(crate) fn seal(self, group: GroupId) -> Entry {
        let term = Term::new(self.leader.term);
        let index = LogIndex::new(self.index);
        match self.content {
            Content::Blank => Entry::seal(header_room(), EntryKind::Blank, group, term, index),
            Content::Membership(membership) => {
                let mut buffer = header_room();
                encode_membership(&membership, &mut buffer);
                Entry::seal(buffer, EntryKind::Membership, group, term, index)
            }
            Content::Proposal(proposal) => Entry::seal(proposal.buffer, proposal.kind, group, term, index),
            Content::Stored { entry, .. } => entry,
        }
    }

    /// The stored bytes; `None` for an entry that has not been through the log.
    pub(crate) fn as_stored(&self) -> Option<&Entry> {
        match &self.content {
            Content::Stored { entry, .. } => Some(entry),
            _ => None,
        }
    }
}

fn header_room() -> BytesMut {
    BytesMut::zeroed(ENTRY_HEADER_BYTES)
}

impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}-{}", self.leader.term, self.index)
    }
}

impl RaftEntry for LogEntry {
    type CommittedLeaderId = CommittedLeaderId<u64>;
    type Payload = EntryPayload<Proposal, u64, ()>;

    fn new(log_id: openraft::LogId<Self::CommittedLeaderId>, payload: Self::Payload) -> Self {
        let content = match payload {
            EntryPayload::Blank => Content::Blank,
            EntryPayload::Normal(proposal) => Content::Proposal(proposal),
            EntryPayload::Membership(membership) => Content::Membership(membership),
        };
        Self {
            leader: *log_id.committed_leader_id(),
            index: log_id.index(),
            content,
        }
    }

    fn log_id_parts(&self) -> (&Self::CommittedLeaderId, u64) {
        (&self.leader, self.index)
    }

    fn set_log_id(&mut self, new: openraft::LogId<Self::CommittedLeaderId>) {
        assert!(self.as_stored().is_none(), "an entry of the log never moves");
        self.leader = *new.committed_leader_id();
        self.index = new.index();
    }

    fn get_membership(&self) -> Option<Membership> {
        match &self.content {
            Content::Membership(membership) => Some(membership.clone()),
            Content::Stored { membership, .. } => membership.clone(),
            Content::Blank | Content::Proposal(_) => None,
        }
    }
}
