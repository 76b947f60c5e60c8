//! Replaying a topic's log, and reading its messages the way a reader does.
//!
//! Apply decides which batches count while it folds them into the state. A reader decides it again, by the acceptance rule from an
//! index point on. Both ways must come to the same end; a difference would be a message delivered that nobody was answered
//! for, or one that was lost.

use nsquorum_topic::{
    Acceptance, Applied, BatchHeader, BatchView, Cursor, Digest, EntryPosition, LeaderStart, LogIndex, Seq, SeqRange,
    Term, TopicState,
};

use super::replay::{Findings, Machine};
use super::report::{ChannelReport, MessageLine, TopicReport};
use crate::entry::{Entry, EntryKind};

/// What a reader needs to know of one batch entry.
#[derive(Debug)]
struct BatchLine {
    index: LogIndex,
    term: Term,
    header: BatchHeader,
    /// Empty unless messages were asked for.
    messages: Vec<MessageLine>,
}

/// A topic's state under replay, and the batches passed so far.
#[derive(Debug)]
pub(crate) struct TopicMachine {
    seq_base: Seq,
    state: TopicState,
    lines: Vec<BatchLine>,
    with_messages: bool,
    accepted: u64,
    void: u64,
}

impl TopicMachine {
    pub(crate) fn new(seq_base: Seq, with_messages: bool) -> Self {
        let state = TopicState::new(seq_base);
        Self {
            seq_base,
            state,
            lines: Vec::new(),
            with_messages,
            accepted: 0,
            void: 0,
        }
    }

    /// The report on the state after the last entry; checks index points and the readers' way on the way.
    pub(crate) fn into_report(self, committed_digest: Option<Digest>, findings: &mut Findings) -> TopicReport {
        self.check_points(findings);
        let messages = self.read_as_readers_do(findings);
        let state = &self.state;
        TopicReport {
            next_seq: state.next_seq(),
            message_count: state.message_count(),
            void_batches: state.void_batches(),
            replayed_accepted: self.accepted,
            replayed_void: self.void,
            is_deleted: state.is_deleted(),
            digest: state.digest(),
            committed_digest,
            purge_floor: state.purge_floor(),
            index_points: state.index_points().len() as u64,
            paused_at: state.paused_at(),
            deferred: state.deferred().collect(),
            unreleased: state.unreleased().collect(),
            channels: state
                .channels()
                .map(|channel| ChannelReport {
                    incarnation: channel.incarnation(),
                    name: channel.name().as_str().to_owned(),
                    is_paused: channel.is_paused(),
                    floor: channel.floor(),
                    finished: ranges(channel.finished_above_floor()),
                    exceptions: channel
                        .exceptions()
                        .map(|(seq, exception)| (seq, exception.attempts, exception.not_before))
                        .collect(),
                })
                .collect(),
            messages: self.with_messages.then_some(messages),
        }
    }

    fn check_points(&self, findings: &mut Findings) {
        let (floor, next) = (self.state.purge_floor(), self.state.next_seq());
        if floor < next && self.state.index_point(floor).is_none() {
            findings.group(format!(
                "no index point at or before message {floor}, which is still needed"
            ));
        }
        for point in self.state.index_points() {
            let fits = self
                .lines
                .binary_search_by_key(&point.index, |line| line.index)
                .is_ok_and(|at| {
                    let BatchLine { term, header, .. } = &self.lines[at];
                    *term == point.term
                        && header.term == point.term
                        && header.first_seq == point.next_seq
                        && header.count > 0
                });
            if !fits {
                let what = format!("an index point says that message {} begins here", point.next_seq);
                findings.entry(point.index, format!("{what}; it does not"));
            }
        }
    }

    /// From the first index point to the end; the messages if they were asked for.
    fn read_as_readers_do(&self, findings: &mut Findings) -> Vec<MessageLine> {
        let mut messages = Vec::new();
        let Some(point) = self.state.index_points().next() else {
            return messages;
        };
        let mut cursor = Cursor::at_point(&point);
        let begin = self.lines.partition_point(|line| line.index < point.index);
        for line in &self.lines[begin..] {
            if cursor.step(line.term, &line.header) == Acceptance::Accepted {
                messages.extend_from_slice(&line.messages);
            }
        }
        if cursor.next_seq() != self.state.next_seq() {
            let (read, next) = (cursor.next_seq(), self.state.next_seq());
            findings.group(format!(
                "reading on from message {} comes to {read}, the state to {next}",
                point.next_seq
            ));
        }
        messages
    }
}

impl Machine for TopicMachine {
    fn begin(&mut self) -> bool {
        self.state = TopicState::new(self.seq_base);
        true
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        self.state = TopicState::decode(state).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn see(&mut self, entry: &Entry, findings: &mut Findings) {
        let header = entry.header();
        if header.kind != EntryKind::TopicBatch {
            return;
        }
        let batch = match BatchView::parse(entry.payload()) {
            Ok(batch) => batch,
            Err(error) => return findings.entry(header.index, format!("batch: {error}")),
        };
        let mut messages = Vec::new();
        for message in batch.messages() {
            if !message.is_intact() {
                let what = format!(
                    "body of message {} does not have the checksum it was published with",
                    message.seq
                );
                findings.entry(header.index, what);
            }
            if self.with_messages {
                messages.push(MessageLine {
                    seq: message.seq,
                    length: u32::try_from(message.body.len())
                        .expect("a body is part of an entry, whose length is a u32"),
                    crc32c: message.crc32c,
                    defer_ms: message.defer_ms,
                });
            }
        }
        self.lines.push(BatchLine {
            index: header.index,
            term: header.term,
            header: batch.header(),
            messages,
        });
    }

    fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        let header = entry.header();
        let encoded_bytes = u32::try_from(entry.encoded_len()).expect("commands are bounded far below 4 GiB");
        let at = EntryPosition {
            index: header.index,
            term: header.term,
            encoded_bytes,
        };
        match header.kind {
            EntryKind::Blank | EntryKind::Membership => self.state.apply_other(at).map_err(|error| error.to_string()),
            EntryKind::LeaderStart => {
                let start = LeaderStart::decode(&entry.payload()).map_err(|error| error.to_string())?;
                self.state
                    .apply_leader_start(at, &start)
                    .map_err(|error| error.to_string())
            }
            EntryKind::TopicBatch => {
                let batch = BatchView::parse(entry.payload()).map_err(|error| error.to_string())?;
                match self.state.apply_batch(at, &batch).map_err(|error| error.to_string())? {
                    Applied::Accepted(_) => self.accepted += 1,
                    Applied::Void(_) => self.void += 1,
                }
                Ok(())
            }
            EntryKind::Metadata => Err("a metadata entry in a topic's group".to_owned()),
        }
    }

    fn encode(&self) -> Vec<u8> {
        self.state.encode()
    }

    fn digest(&self) -> Option<Digest> {
        Some(self.state.digest())
    }
}

fn ranges(numbers: impl Iterator<Item = Seq>) -> Vec<SeqRange> {
    let mut ranges: Vec<SeqRange> = Vec::new();
    for seq in numbers {
        match ranges.last_mut() {
            Some(last) if last.last().next() == seq => {
                *last = SeqRange::new(last.first(), seq).expect("the numbers ascend");
            }
            _ => ranges.push(SeqRange::single(seq)),
        }
    }
    ranges
}
