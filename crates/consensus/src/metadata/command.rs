//! Commands of the metadata group.

use bytes::{BufMut, BytesMut};
use nsquorum_storage::{ENTRY_HEADER_BYTES, EntryKind};
use serde::{Deserialize, Serialize};

use super::nodes::NodeDescription;
use crate::raft::Proposal;

/// One change of the metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MetadataCommand {
    /// Changes nothing. Once it is applied, everything that was ever committed before it is, too.
    Barrier,
    /// Creates the topic if it does not exist. Group number, first message number and first leader follow from the state.
    CreateTopic {
        name: String,
        /// The node where somebody uses it first.
        #[serde(default)]
        at: Option<u64>,
    },
    /// Deletes the topic if it still is this group. `last_seq` is the last number that its messages used.
    DeleteTopic { name: String, group: u64, last_seq: u64 },
    /// A storage node says how clients reach it.
    AnnounceNode { node: u64, description: NodeDescription },
    /// Until then (wall time, ns since 1970) those who look the topic up are not sent to this replica of it.
    TombstoneReplica {
        topic: String,
        node: u64,
        since_ns: u64,
        until_ns: u64,
    },
    /// A replica has deleted the data of a deleted group. When all have, the tombstone goes.
    ForgetGroup { group: u64, node: u64 },
}

/// The payload of a metadata entry: everything that waited, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MetadataBatch {
    pub(crate) version: u32,
    pub(crate) commands: Vec<MetadataCommand>,
}

impl MetadataBatch {
    pub(crate) const VERSION: u32 = 2;

    pub(crate) fn new(commands: Vec<MetadataCommand>) -> Self {
        Self {
            version: Self::VERSION,
            commands,
        }
    }

    pub(crate) fn into_proposal(self) -> Proposal {
        let buffer = BytesMut::zeroed(ENTRY_HEADER_BYTES);
        let mut writer = buffer.writer();
        serde_json::to_writer(&mut writer, &self).expect("plain data always serializes");
        Proposal {
            kind: EntryKind::Metadata,
            buffer: writer.into_inner(),
        }
    }
}
