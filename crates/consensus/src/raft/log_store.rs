//! A group's log as openraft wants it.
//!
//! openraft's contract (its trait documentation, and `docs/architecture.md`): writes of one group reach the disk in call order; `append`
//! may return before the sync, but the entries are readable at once; votes are durable before `save_vote` returns. All of it follows from
//! [`GroupLog`]'s first-in-first-out queue. What may touch the disk runs on blocking threads; what is in memory is answered inline.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use futures_util::{Stream, StreamExt, stream};
use nsquorum_storage::{Completion, Entry, GroupLog, StorageError, Vote};
use nsquorum_topic::{LogIndex, NodeId, Term};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::vote::RaftVote;
use openraft::vote::leader_id_std::{CommittedLeaderId, LeaderId};
use openraft::{LogState, OptionalSend, RaftLogReader};
use tokio::sync::oneshot;

use super::log_entry::LogEntry;
use super::types::{RaftTypes, from_openraft, to_openraft};

type RaftLogId = openraft::LogId<CommittedLeaderId<u64>>;
type RaftVoteOf = openraft::impls::Vote<LeaderId<u64, u64>>;

/// Bytes of entries in one replication frame and in one step of apply.
const READ_BYTES_MAX: usize = 1 << 20;

/// A group's log. Clones read and write the same log.
#[derive(Clone)]
pub(crate) struct RaftLog<L> {
    log: L,
}

impl<L: GroupLog> RaftLog<L> {
    pub(crate) fn new(log: L) -> Self {
        Self { log }
    }

    /// Entries of `from..to` until `bytes_max`; at least one if there is one.
    async fn read(&self, from: LogIndex, to: LogIndex, bytes_max: usize) -> io::Result<Vec<LogEntry>> {
        let entries = match self.log.read_cached(from, to, bytes_max) {
            Some(entries) => entries,
            None => {
                let log = self.log.clone();
                tokio::task::spawn_blocking(move || log.read(from, to, bytes_max))
                    .await
                    .map_err(io::Error::other)?
                    .map_err(io_error)?
            }
        };
        entries.into_iter().map(into_log_entry).collect()
    }

    /// The part of a range that the log can hold.
    fn clamp(&self, range: &impl RangeBounds<u64>) -> (LogIndex, LogIndex) {
        let state = self.log.state();
        let first_kept = state.last_purged.map_or(0, |purged| purged.index.get() + 1);
        let end_kept = state.last.map_or(0, |last| last.index.get() + 1);
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        (LogIndex::new(from.max(first_kept)), LogIndex::new(to.min(end_kept)))
    }
}

fn into_log_entry(entry: Entry) -> io::Result<LogEntry> {
    LogEntry::stored(entry).map_err(io::Error::other)
}

pub(super) fn io_error(error: StorageError) -> io::Error {
    io::Error::other(error)
}

/// A completion, and the future that it resolves.
fn completion() -> (Completion, impl Future<Output = io::Result<()>>) {
    let (sender, receiver) = oneshot::channel();
    // The receiver is gone only if openraft dropped the call: it has stopped.
    let done: Completion = Box::new(move |result| drop(sender.send(result)));
    let outcome = async move { receiver.await.map_err(io::Error::other)?.map_err(io_error) };
    (done, outcome)
}

impl<L: GroupLog> RaftLogReader<RaftTypes> for RaftLog<L> {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<LogEntry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = self.clamp(&range);
        if from >= to {
            return Ok(Vec::new());
        }
        // Must not stop early: start-up counts on every entry of its 64.
        self.read(from, to, usize::MAX).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVoteOf>> {
        Ok(self.log.vote().map(|vote| {
            RaftVoteOf::from_leader_id(
                LeaderId {
                    term: vote.term.get(),
                    voted_for: vote.node.get(),
                },
                vote.committed,
            )
        }))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        let (from, to) = self.clamp(&(start..end));
        if from >= to {
            return Ok(Vec::new());
        }
        self.read(from, to, READ_BYTES_MAX).await
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<LogEntry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = self.clamp(&range);
        let log = self.clone();
        // In pieces, so that applying a long tail after a restart never holds it all in memory.
        stream::try_unfold(from, move |next| {
            let log = log.clone();
            async move {
                if next >= to {
                    return Ok(None);
                }
                let entries = log.read(next, to, READ_BYTES_MAX).await?;
                if entries.is_empty() {
                    return Err(io::Error::other(format!("entry {next} is missing from the log")));
                }
                let after = LogIndex::new(next.get() + entries.len() as u64);
                Ok(Some((entries, after)))
            }
        })
        .flat_map(|entries: io::Result<Vec<LogEntry>>| {
            let items = match entries {
                Ok(entries) => entries.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            stream::iter(items)
        })
    }
}

impl<L: GroupLog> RaftLogStorage<RaftTypes> for RaftLog<L> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<RaftTypes>> {
        let state = self.log.state();
        let last_purged_log_id = state.last_purged.map(to_openraft);
        let last_log_id = state.last.or(state.last_purged).map(to_openraft);
        Ok(LogState {
            last_purged_log_id,
            last_log_id,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVoteOf) -> io::Result<()> {
        let leader = vote.leader_id();
        let vote = Vote {
            term: Term::new(leader.term),
            node: NodeId::new(leader.voted_for),
            committed: vote.is_committed(),
        };
        let (done, outcome) = completion();
        self.log.save_vote(vote, done);
        outcome.await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> io::Result<()> {
        if let Some(committed) = committed {
            self.log.save_committed(from_openraft(&committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<RaftLogId>> {
        Ok(self.log.committed().map(to_openraft))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<RaftTypes>) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let group = self.log.group();
        let entries = entries.into_iter().map(|entry| entry.seal(group)).collect();
        // Fired by the writer thread after the sync: no task of ours in between.
        self.log.append(
            entries,
            Box::new(move |result| callback.io_completed(result.map_err(io_error))),
        );
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<RaftLogId>) -> io::Result<()> {
        let last_kept = last_log_id.map(|last| LogIndex::new(last.index()));
        // Ordered before the append that follows; needs no sync of its own. A failure stops the node through the store's hook.
        self.log.truncate_after(last_kept, Box::new(|_| {}));
        Ok(())
    }

    async fn purge(&mut self, log_id: RaftLogId) -> io::Result<()> {
        self.log.purge(from_openraft(&log_id), Box::new(|_| {}));
        Ok(())
    }
}
