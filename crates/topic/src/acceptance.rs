//! The one rule that says whether a batch counts.
//!
//! A batch is a compare-and-set: it counts iff it was made for the term under which it was appended and for the number
//! that comes next. With several batches in flight openraft may refuse one and append the next; that next one is then
//! *void*, on every replica alike. A void batch carries numbers that a later, accepted batch carries too, so a reader
//! that goes by numbers would hand out bodies that nobody was answered `OK` for. Hence every reader of the log walks it
//! with a [`Cursor`], from an index point on, and apply uses the same one.

use thiserror::Error;

use crate::batch::BatchHeader;
use crate::{IndexPoint, Seq, Term};

/// Whether a batch counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Acceptance {
    /// It counts.
    Accepted,
    /// It is a no-op in all its parts.
    Void(VoidReason),
}

/// Why a batch does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VoidReason {
    /// It was made for another term than it was appended in.
    #[error("made for term {made_for}, appended in term {appended_in}")]
    Term {
        /// Term in the batch header.
        made_for: Term,
        /// Term of the entry.
        appended_in: Term,
    },
    /// Its numbers begin elsewhere than at the next one: a batch before it was refused or void.
    #[error("begins at {found}, next is {expected}")]
    Number {
        /// The next number.
        expected: Seq,
        /// First number of the batch.
        found: Seq,
    },
    /// The topic was deleted by an earlier batch.
    #[error("the topic is deleted")]
    Deleted,
}

/// The position of a walk through the batches of a log: what the next batch must say to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub(crate) next_seq: Seq,
    /// Term of the last accepted batch.
    pub(crate) last_term: Option<Term>,
    pub(crate) is_deleted: bool,
}

impl Cursor {
    /// At the beginning of a topic; its first message gets number `seq_base + 1`.
    pub const fn at_start(seq_base: Seq) -> Self {
        Self {
            next_seq: seq_base.next(),
            last_term: None,
            is_deleted: false,
        }
    }

    /// At an index point: the walk begins with the entry at `point.index`.
    pub const fn at_point(point: &IndexPoint) -> Self {
        Self {
            next_seq: point.next_seq,
            last_term: None,
            is_deleted: false,
        }
    }

    /// The number that the next accepted message gets.
    pub const fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// Whether an accepted batch deleted the topic.
    pub const fn is_deleted(&self) -> bool {
        self.is_deleted
    }

    /// Whether a batch counts that stands next in the log in an entry of `entry_term`.
    pub fn accepts(&self, entry_term: Term, header: &BatchHeader) -> Acceptance {
        if self.is_deleted {
            Acceptance::Void(VoidReason::Deleted)
        } else if header.term != entry_term {
            Acceptance::Void(VoidReason::Term {
                made_for: header.term,
                appended_in: entry_term,
            })
        } else if header.first_seq != self.next_seq {
            Acceptance::Void(VoidReason::Number {
                expected: self.next_seq,
                found: header.first_seq,
            })
        } else {
            Acceptance::Accepted
        }
    }

    /// Whether the batch cannot come from a correct leader: it gives numbers again that were given under its own term.
    /// (Numbers too high are normal: a batch before it was refused.)
    pub fn is_contradicted_by(&self, entry_term: Term, header: &BatchHeader) -> bool {
        !self.is_deleted
            && header.term == entry_term
            && self.last_term == Some(entry_term)
            && header.first_seq < self.next_seq
    }

    /// Moves past an accepted batch.
    ///
    /// # Panics
    /// If the batch does not begin at the next number: it was not accepted.
    pub fn advance(&mut self, header: &BatchHeader) {
        assert_eq!(header.first_seq, self.next_seq, "only accepted batches move a cursor");
        self.next_seq = header.end_seq();
        self.last_term = Some(header.term);
        self.is_deleted = header.closes_topic;
    }

    /// Decides on the next batch of the log and, if it counts, moves past it. What a reader calls.
    pub fn step(&mut self, entry_term: Term, header: &BatchHeader) -> Acceptance {
        let acceptance = self.accepts(entry_term, header);
        if acceptance == Acceptance::Accepted {
            self.advance(header);
        }
        acceptance
    }
}
