//! A group's state machine as openraft wants it, and the group's checkpoints.
//!
//! The machine starts at its newest checkpoint and never reads the log by itself: openraft re-applies what is known to be committed,
//! and the rest after an election. Applying everything found in the log would apply entries that a majority may never have had.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use nsquorum_storage::{Checkpoint, CheckpointSlot, GroupLog, LogId, StorageError};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::vote::leader_id_std::CommittedLeaderId;
use openraft::{OptionalSend, RaftSnapshotBuilder};
use tokio::sync::{oneshot, watch};

use super::checkpoints::{CheckpointBudget, CheckpointShare};
use super::log_store::io_error;
use super::machine::{Impossible, Machine};
use super::membership::{decode_stored, encode_stored};
use super::types::{RaftTypes, from_openraft, to_openraft};

type RaftLogId = openraft::LogId<CommittedLeaderId<u64>>;
type StoredMembership = openraft::alias::StoredMembershipOf<RaftTypes>;
type SnapshotMeta = openraft::alias::SnapshotMetaOf<RaftTypes>;
type Snapshot = openraft::alias::SnapshotOf<RaftTypes, SnapshotBytes>;

/// The state part of a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotBytes(pub(crate) Bytes);

/// Why a group cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Impossible(#[from] Impossible),
}

/// A replicated machine with its position and its checkpoints.
pub(crate) struct GroupStateMachine<L, M> {
    log: L,
    machine: M,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    share: CheckpointShare,
    /// The checkpoint that waits for every floor to pass it.
    candidate: Option<LogId>,
    /// Bytes of entries applied in this life of the node.
    applied_bytes: Arc<AtomicU64>,
    /// The newest checkpoint that makes the log before it superfluous, once it is durable.
    reclaim: watch::Sender<Option<LogId>>,
}

impl<L: GroupLog, M: Machine> GroupStateMachine<L, M> {
    /// Starts at the newest checkpoint. May touch the disk: call it on a blocking thread.
    pub(crate) fn open(
        log: L,
        mut machine: M,
        budget: &CheckpointBudget,
        reclaim: watch::Sender<Option<LogId>>,
    ) -> Result<Self, OpenError> {
        let mut last_applied = None;
        let mut membership = StoredMembership::default();
        if let Some(newest) = log.checkpoint(CheckpointSlot::Newest)? {
            machine.restore(&newest.state, newest.log_id.map(|log_id| log_id.index))?;
            last_applied = newest.log_id;
            membership = decode_stored(&newest.membership)
                .map_err(|error| Impossible(format!("the newest checkpoint: {error}")))?;
        }
        let candidate = log
            .checkpoint(CheckpointSlot::Candidate)?
            .and_then(|candidate| candidate.log_id);
        Ok(Self {
            log,
            machine,
            last_applied,
            membership,
            share: budget.share(),
            candidate,
            applied_bytes: Arc::default(),
            reclaim,
        })
    }

    /// Counts the bytes of entries as they are applied.
    pub(crate) fn applied_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.applied_bytes)
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            log_id: self.last_applied,
            membership: encode_stored(&self.membership),
            state: self.machine.encode(),
        }
    }

    /// Only applied state is ever written, with its position, in one atomic batch.
    fn take_checkpoint(&mut self) {
        let checkpoint = self.checkpoint();
        self.share.covered(checkpoint.state.len() as u64);
        metrics::counter!("nsquorum_checkpoints_total").increment(1);
        metrics::counter!("nsquorum_checkpoint_bytes_total").increment(checkpoint.state.len() as u64);
        let mut slots = vec![CheckpointSlot::Newest];
        if let (None, Some(log_id)) = (self.candidate, checkpoint.log_id) {
            slots.push(CheckpointSlot::Candidate);
            self.candidate = Some(log_id);
        }
        // A failed write stops the node through the store's hook; nothing waits for a checkpoint.
        self.log.put_checkpoint(&slots, checkpoint, Box::new(|_| {}));
    }

    /// Lets the log before the candidate go once no channel needs it.
    fn advance_purge(&mut self) {
        let Some(candidate) = self.candidate else { return };
        if self.machine.needed_from() <= candidate.index {
            return;
        }
        self.candidate = None;
        let reclaim = self.reclaim.clone();
        self.log.move_checkpoint(
            CheckpointSlot::Candidate,
            CheckpointSlot::Purge,
            Box::new(move |result| {
                if result.is_ok() {
                    reclaim.send_replace(Some(candidate));
                }
            }),
        );
    }

    fn snapshot_of(checkpoint: Checkpoint) -> io::Result<Snapshot> {
        Ok(Snapshot {
            meta: SnapshotMeta {
                last_log_id: checkpoint.log_id.map(to_openraft),
                last_membership: decode_stored(&checkpoint.membership).map_err(io::Error::other)?,
            },
            snapshot: SnapshotBytes(checkpoint.state),
        })
    }

    async fn read_checkpoint(&self, slot: CheckpointSlot) -> io::Result<Option<Checkpoint>> {
        let log = self.log.clone();
        tokio::task::spawn_blocking(move || log.checkpoint(slot))
            .await
            .map_err(io::Error::other)?
            .map_err(io_error)
    }

    async fn put_checkpoint_durably(&self, slots: &[CheckpointSlot], checkpoint: Checkpoint) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.log
            .put_checkpoint(slots, checkpoint, Box::new(move |result| drop(sender.send(result))));
        receiver.await.map_err(io::Error::other)?.map_err(io_error)
    }
}

impl<L: GroupLog, M: Machine> RaftStateMachine<RaftTypes> for GroupStateMachine<L, M> {
    type SnapshotData = SnapshotBytes;
    type SnapshotBuilder = ReadySnapshot;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, StoredMembership)> {
        Ok((self.last_applied.map(to_openraft), self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<RaftTypes>>> + Unpin + OptionalSend,
    {
        let group = self.log.group();
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let membership = openraft::entry::RaftEntry::get_membership(&entry);
            let entry = entry.seal(group);
            let header = entry.header();
            let log_id = LogId {
                term: header.term,
                index: header.index,
            };
            assert!(
                self.last_applied.is_none_or(|last| last.index < log_id.index),
                "{group}: entry {} applied after {:?}: apply must move forward",
                log_id.index,
                self.last_applied,
            );
            if let Err(impossible) = self.machine.apply(&entry) {
                // openraft stops this group for good on an error: it neither serves nor votes. The other groups go on.
                tracing::error!(
                    group = group.get(),
                    index = log_id.index.get(),
                    term = log_id.term.get(),
                    %impossible,
                    "the group is quarantined on this node: its log holds what a correct leader cannot have written; \
                     keep the directory, run `nsquorum verify` on it, and replace this replica"
                );
                metrics::counter!("nsquorum_quarantined_groups_total").increment(1);
                return Err(io::Error::other(impossible));
            }
            self.last_applied = Some(log_id);
            if let Some(membership) = membership {
                self.membership = StoredMembership::new(Some(to_openraft(log_id)), membership);
            }
            self.share.applied(entry.encoded_len() as u64);
            self.applied_bytes
                .fetch_add(entry.encoded_len() as u64, Ordering::Relaxed);
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        if self.share.is_due() {
            self.take_checkpoint();
        }
        self.advance_purge();
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<ReadySnapshot> {
        if force {
            return Some(self.get_snapshot_builder().await);
        }
        // A snapshot is the checkpoint at the purge point, never at last_applied: everything later travels as ordinary log.
        match self.read_checkpoint(CheckpointSlot::Purge).await {
            Ok(Some(checkpoint)) => Some(ReadySnapshot(Some(Self::snapshot_of(checkpoint)))),
            Ok(None) => None,
            Err(error) => Some(ReadySnapshot(Some(Err(error)))),
        }
    }

    async fn get_snapshot_builder(&mut self) -> ReadySnapshot {
        let checkpoint = self.checkpoint();
        self.share.covered(checkpoint.state.len() as u64);
        let slots = [CheckpointSlot::Newest, CheckpointSlot::Purge];
        let written = self.put_checkpoint_durably(&slots, checkpoint.clone()).await;
        ReadySnapshot(Some(written.and_then(|()| Self::snapshot_of(checkpoint))))
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotBytes) -> io::Result<()> {
        let last_applied = meta.last_log_id.as_ref().map(from_openraft);
        self.machine
            .restore(&snapshot.0, last_applied.map(|log_id| log_id.index))
            .map_err(io::Error::other)?;
        self.last_applied = last_applied;
        self.membership = meta.last_membership.clone();
        self.candidate = None;
        self.log.clear_checkpoint(CheckpointSlot::Candidate, Box::new(|_| {}));
        let checkpoint = Checkpoint {
            log_id: self.last_applied,
            membership: encode_stored(&self.membership),
            state: snapshot.0,
        };
        self.share.covered(checkpoint.state.len() as u64);
        self.put_checkpoint_durably(&[CheckpointSlot::Newest, CheckpointSlot::Purge], checkpoint)
            .await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.read_checkpoint(CheckpointSlot::Purge)
            .await?
            .map(Self::snapshot_of)
            .transpose()
    }
}

/// A snapshot that has been read or written already when openraft asks to build it.
pub(crate) struct ReadySnapshot(Option<io::Result<Snapshot>>);

impl RaftSnapshotBuilder<RaftTypes> for ReadySnapshot {
    type SnapshotData = SnapshotBytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        self.0
            .take()
            .unwrap_or_else(|| Err(io::Error::other("a snapshot is built once")))
    }
}
