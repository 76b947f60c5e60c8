//! What `verify` found.

use std::fmt;

use nsquorum_topic::{
    Attempts, ChannelIncarnation, Digest, GroupId, LogIndex, LogTime, NodeId, NodeIncarnation, Seq, SeqRange,
};

use crate::log::{CheckpointSlot, LogId, Vote};

/// Where something was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A byte of a file.
    File {
        /// Path within the data directory.
        file: String,
        /// Bytes from its start.
        offset: u64,
    },
    /// A group as a whole.
    Group(GroupId),
    /// An entry of a group's log.
    Entry {
        /// The group.
        group: GroupId,
        /// The position in its log.
        index: LogIndex,
    },
    /// A checkpoint of a group.
    Checkpoint {
        /// The group.
        group: GroupId,
        /// Which of its checkpoints.
        slot: CheckpointSlot,
    },
    /// The database as a whole.
    Database,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, offset } => write!(f, "{file} at byte {offset}"),
            Self::Group(group) => write!(f, "group {group}"),
            Self::Entry { group, index } => write!(f, "group {group}, entry {index}"),
            Self::Checkpoint { group, slot } => write!(f, "group {group}, {} checkpoint", slot_name(*slot)),
            Self::Database => write!(f, "database"),
        }
    }
}

/// Something found at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// What does not hold there, in words for an operator.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// The outcome in one word; the command's exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything holds.
    Clean,
    /// Something does not: see [`Report::findings`].
    Damaged,
}

/// Everything that `verify` has to say about a directory.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The directory as it was given.
    pub directory: String,
    /// The node's identity, if it could be read.
    pub identity: Option<NodeReport>,
    /// Damage. Empty for a clean directory.
    pub findings: Vec<Finding>,
    /// What is worth knowing and no damage: unsynced tails, files that no longer count.
    pub notes: Vec<Finding>,
    /// Files read.
    pub files: FileCounts,
    /// Every group, in order of its number. Empty if the database could not be opened.
    pub groups: Vec<GroupReport>,
}

/// Who the directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// The cluster's id, in hex.
    pub cluster: String,
    /// The node's number.
    pub node: NodeId,
    /// How often it was started.
    pub incarnation: NodeIncarnation,
}

/// How much was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileCounts {
    /// Write-ahead logs.
    pub logs: u64,
    /// Records in them.
    pub log_records: u64,
    /// Table files.
    pub tables: u64,
    /// Blob files.
    pub blobs: u64,
    /// Bytes of all of them, manifest included.
    pub bytes: u64,
}

/// One group's log and state.
#[derive(Clone, Debug)]
pub struct GroupReport {
    /// The group.
    pub group: GroupId,
    /// The topic's name, if the metadata group knows the group.
    pub name: Option<String>,
    /// The vote.
    pub vote: Option<Vote>,
    /// Up to where the log is purged.
    pub purged: Option<LogId>,
    /// The last entry; if there is none, the purge point.
    pub last: Option<LogId>,
    /// How far the log is known to be committed.
    pub committed: Option<LogId>,
    /// Entries in the log.
    pub entries: u64,
    /// Bytes of them, headers included.
    pub entry_bytes: u64,
    /// The checkpoints that could be read: place, last applied entry, digest of the state.
    pub checkpoints: Vec<(CheckpointSlot, Option<LogId>, Option<Digest>)>,
    /// The topic's state at the end of the log. `None` for the metadata group, and where damage left nothing to begin at.
    pub topic: Option<TopicReport>,
}

/// A topic's state after the last entry of its log.
#[derive(Clone, Debug)]
pub struct TopicReport {
    /// The number that the next message gets.
    pub next_seq: Seq,
    /// Messages ever accepted.
    pub message_count: u64,
    /// Batches and leader starts that were void, ever.
    pub void_batches: u64,
    /// Batches of the log that were replayed and counted.
    pub replayed_accepted: u64,
    /// Batches of the log that were replayed and were void.
    pub replayed_void: u64,
    /// Whether the topic was deleted.
    pub is_deleted: bool,
    /// Digest of the state after the last entry. A lone node commits all of its log when it starts.
    pub digest: Digest,
    /// Digest after the last entry known to be committed, if it is another entry and was passed by the replay.
    pub committed_digest: Option<Digest>,
    /// Every number below it is needed by no channel.
    pub purge_floor: Seq,
    /// Points where readers begin.
    pub index_points: u64,
    /// Where deliveries stop while the topic is paused.
    pub paused_at: Option<Seq>,
    /// Deferred messages that are released to the channels: due time on the log clock, number.
    pub deferred: Vec<(LogTime, Seq)>,
    /// Deferred messages still in the topic: number, delay in milliseconds.
    pub unreleased: Vec<(Seq, u32)>,
    /// The channels, oldest first.
    pub channels: Vec<ChannelReport>,
    /// The accepted messages that the log still holds, from the first index point on; only if they were asked for.
    pub messages: Option<Vec<MessageLine>>,
}

/// A channel's cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelReport {
    /// The channel.
    pub incarnation: ChannelIncarnation,
    /// Its name.
    pub name: String,
    /// Whether it is paused.
    pub is_paused: bool,
    /// The first unfinished number: everything below it is finished.
    pub floor: Seq,
    /// What is finished above the floor, ascending.
    pub finished: Vec<SeqRange>,
    /// Requeued messages: number, attempts made, not before (log clock).
    pub exceptions: Vec<(Seq, Attempts, Option<LogTime>)>,
}

/// An accepted message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageLine {
    /// Its number.
    pub seq: Seq,
    /// Bytes of its body.
    pub length: u32,
    /// CRC32C of its body.
    pub crc32c: u32,
    /// Deferral in milliseconds, 0 for none.
    pub defer_ms: u32,
}

impl Report {
    /// Clean or damaged.
    pub fn outcome(&self) -> Outcome {
        if self.findings.is_empty() {
            Outcome::Clean
        } else {
            Outcome::Damaged
        }
    }

    pub(crate) fn find(&mut self, place: Place, what: impl Into<String>) {
        self.findings.push(Finding {
            place,
            what: what.into(),
        });
    }

    pub(crate) fn note(&mut self, place: Place, what: impl Into<String>) {
        self.notes.push(Finding {
            place,
            what: what.into(),
        });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.directory)?;
        if let Some(NodeReport {
            cluster,
            node,
            incarnation,
        }) = &self.identity
        {
            writeln!(f, "  node {node} of cluster {cluster}, started {incarnation} times")?;
        }
        let FileCounts {
            logs,
            log_records,
            tables,
            blobs,
            bytes,
        } = self.files;
        writeln!(
            f,
            "  {bytes} bytes: {logs} write-ahead logs with {log_records} records, {tables} table files, {blobs} blob files"
        )?;
        for group in &self.groups {
            let name = group.name.as_deref().unwrap_or(if group.group == GroupId::METADATA {
                "(metadata)"
            } else {
                "-"
            });
            let last = group.last.map_or_else(|| "-".to_owned(), |last| last.index.to_string());
            write!(
                f,
                "  group {} {name}: {} entries, last {last}",
                group.group, group.entries
            )?;
            if let Some(topic) = &group.topic {
                write!(
                    f,
                    ", next message {}, {} channels, digest {}",
                    topic.next_seq,
                    topic.channels.len(),
                    topic.digest
                )?;
            }
            writeln!(f)?;
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        for finding in &self.findings {
            writeln!(f, "  DAMAGED: {finding}")?;
        }
        match self.outcome() {
            Outcome::Clean => write!(f, "clean"),
            Outcome::Damaged => write!(f, "damaged: {} findings", self.findings.len()),
        }
    }
}

pub(crate) const fn slot_name(slot: CheckpointSlot) -> &'static str {
    match slot {
        CheckpointSlot::Newest => "newest",
        CheckpointSlot::Purge => "purge",
        CheckpointSlot::Candidate => "candidate",
    }
}
