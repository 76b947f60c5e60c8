//! Messages from the log, for channels that lag and for messages that came back.
//!
//! A reader begins at an index point and walks with the acceptance rule: an entry that apply found void carries numbers that a later,
//! accepted entry carries too, and a reader that went by numbers alone would hand out a body nobody was answered `OK` for. It never
//! reads beyond what was applied: entries further on may not be committed.

use nsquorum_consensus::TopicLog;
use nsquorum_storage::{Entry, EntryKind, StorageError};
use nsquorum_topic::{Acceptance, BatchView, ChannelIncarnation, Cursor, LogIndex, MessageView, Seq, Term};

/// Bytes that one read takes from the log.
const READ_BYTES_MAX: usize = 1 << 20;

/// Where a walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadPosition {
    pub(super) index: LogIndex,
    pub(super) cursor: Cursor,
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("entry {index} of the log: {what}")]
    Damaged { index: u64, what: String },
}

/// Read the accepted batches from `from` on, up to the applied end, about a mebibyte.
#[derive(Clone, Debug)]
pub(crate) struct ReadRequest {
    /// Who asks.
    pub(super) term: Term,
    pub(super) channel: ChannelIncarnation,
    pub(super) from: ReadPosition,
    /// Batches that end at or below are walked over, not kept.
    pub(super) wanted: Seq,
    /// One past the last applied entry.
    pub(super) end: LogIndex,
}

/// Read these messages, each from its own position.
#[derive(Clone, Debug)]
pub(crate) struct FetchRequest {
    /// Who asks.
    pub(super) term: Term,
    pub(super) channel: ChannelIncarnation,
    pub(super) messages: Vec<(Seq, ReadPosition)>,
    pub(super) end: LogIndex,
}

/// What a reader does.
#[derive(Clone, Debug)]
pub(crate) enum ReaderJob {
    Read(ReadRequest),
    Fetch(FetchRequest),
}

/// The two kinds of jobs; a channel has at most one of each under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReaderKind {
    Read,
    Fetch,
}

/// A job that is done.
#[derive(Debug)]
pub(crate) struct ReaderDone {
    /// The leadership that asked. A later one stands elsewhere in the log and has no use for it.
    pub(super) term: Term,
    pub(super) channel: ChannelIncarnation,
    pub(super) found: Found,
}

/// What a reader found.
#[derive(Debug)]
pub(crate) enum Found {
    Batches {
        batches: Vec<BatchView>,
        resume: ReadPosition,
    },
    Messages(Vec<MessageView>),
    /// `wanted` is the first message that could not be had: it may have been dropped, and its log purged, meanwhile.
    Failed {
        kind: ReaderKind,
        wanted: Seq,
        error: ReadError,
    },
}

/// How a reader gets at entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Memory,
    Disk,
}

impl ReaderJob {
    /// Does the job from memory alone; `None` if the disk is needed.
    pub(crate) fn run_from_memory(&self, log: &dyn TopicLog) -> Option<ReaderDone> {
        self.run(log, Source::Memory)
    }

    /// Does the job. May touch the disk.
    pub(crate) fn run_from_disk(&self, log: &dyn TopicLog) -> ReaderDone {
        self.run(log, Source::Disk)
            .expect("only a reader without the disk gives up")
    }

    fn run(&self, log: &dyn TopicLog, source: Source) -> Option<ReaderDone> {
        match self {
            Self::Read(request) => {
                let found = request.run(log, source).unwrap_or_else(|error| {
                    Some(Found::Failed {
                        kind: ReaderKind::Read,
                        wanted: request.wanted,
                        error,
                    })
                })?;
                Some(ReaderDone {
                    term: request.term,
                    channel: request.channel,
                    found,
                })
            }
            Self::Fetch(request) => {
                let found = request.run(log, source)?;
                Some(ReaderDone {
                    term: request.term,
                    channel: request.channel,
                    found,
                })
            }
        }
    }
}

impl ReadRequest {
    fn run(&self, log: &dyn TopicLog, source: Source) -> Result<Option<Found>, ReadError> {
        let mut walk = self.from;
        let mut batches = Vec::new();
        while batches.is_empty() && walk.index < self.end {
            let Some(entries) = read(log, source, walk.index, self.end)? else {
                return Ok(None);
            };
            for entry in entries {
                if let Some(batch) = step(&mut walk, &entry)?
                    && batch.header().end_seq() > self.wanted
                {
                    batches.push(batch);
                }
            }
        }
        if batches.is_empty() {
            let what = format!("message {} is not in the log before it", self.wanted);
            return Err(ReadError::Damaged {
                index: self.end.get(),
                what,
            });
        }
        Ok(Some(Found::Batches { batches, resume: walk }))
    }
}

impl FetchRequest {
    fn run(&self, log: &dyn TopicLog, source: Source) -> Option<Found> {
        let mut messages: Vec<MessageView> = Vec::new();
        let mut last: Option<BatchView> = None;
        for (seq, from) in &self.messages {
            if let Some(message) = last.as_ref().and_then(|batch| message_of(batch, *seq)) {
                messages.push(message);
                continue;
            }
            match self.find(log, source, *seq, *from) {
                Ok(Some((batch, message))) => {
                    messages.push(message);
                    last = Some(batch);
                }
                Ok(None) => return None,
                Err(error) => {
                    return Some(Found::Failed {
                        kind: ReaderKind::Fetch,
                        wanted: *seq,
                        error,
                    });
                }
            }
        }
        Some(Found::Messages(messages))
    }

    fn find(
        &self,
        log: &dyn TopicLog,
        source: Source,
        seq: Seq,
        mut walk: ReadPosition,
    ) -> Result<Option<(BatchView, MessageView)>, ReadError> {
        while walk.index < self.end {
            let Some(entries) = read(log, source, walk.index, self.end)? else {
                return Ok(None);
            };
            for entry in entries {
                if let Some(batch) = step(&mut walk, &entry)?
                    && let Some(message) = message_of(&batch, seq)
                {
                    return Ok(Some((batch, message)));
                }
            }
        }
        let what = format!("message {seq} is not in the log before it");
        Err(ReadError::Damaged {
            index: self.end.get(),
            what,
        })
    }
}

fn read(log: &dyn TopicLog, source: Source, from: LogIndex, end: LogIndex) -> Result<Option<Vec<Entry>>, ReadError> {
    let entries = match (log.read_cached(from, end, READ_BYTES_MAX), source) {
        (Some(entries), _) => entries,
        (None, Source::Memory) => return Ok(None),
        (None, Source::Disk) => log.read(from, end, READ_BYTES_MAX)?,
    };
    if entries.is_empty() {
        return Err(ReadError::Damaged {
            index: from.get(),
            what: "missing".into(),
        });
    }
    Ok(Some(entries))
}

/// Moves over one entry; the batch if it counts.
fn step(walk: &mut ReadPosition, entry: &Entry) -> Result<Option<BatchView>, ReadError> {
    let header = entry.header();
    walk.index = header.index.next();
    if header.kind != EntryKind::TopicBatch {
        return Ok(None);
    }
    let batch = BatchView::parse(entry.payload()).map_err(|error| ReadError::Damaged {
        index: header.index.get(),
        what: error.to_string(),
    })?;
    let accepted = walk.cursor.step(header.term, &batch.header()) == Acceptance::Accepted;
    Ok(accepted.then_some(batch))
}

fn message_of(batch: &BatchView, seq: Seq) -> Option<MessageView> {
    let offset = seq.get().checked_sub(batch.header().first_seq.get())?;
    batch.message(u32::try_from(offset).ok()?)
}
