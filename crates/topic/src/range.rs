//! Inclusive ranges of message numbers.

use std::fmt;

use crate::Seq;

/// The numbers from `first` to `last`, both included; never empty.
///
/// Inclusive, because consumers finish messages, not gaps between them: a single FIN is `first == last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqRange {
    first: Seq,
    last: Seq,
}

impl SeqRange {
    /// The range from `first` to `last`; `None` if `last` lies before `first`.
    pub fn new(first: Seq, last: Seq) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The range from `first` up to, and without, `end`; `None` if that is empty.
    pub fn until(first: Seq, end: Seq) -> Option<Self> {
        let last = end.get().checked_sub(1)?;
        Self::new(first, Seq::new(last))
    }

    /// The range that holds one number.
    pub const fn single(seq: Seq) -> Self {
        Self { first: seq, last: seq }
    }

    /// The lowest number.
    pub const fn first(self) -> Seq {
        self.first
    }

    /// The highest number.
    pub const fn last(self) -> Seq {
        self.last
    }

    /// How many numbers the range holds; saturates for the one range that holds all of `u64`.
    pub const fn count(self) -> u64 {
        (self.last.get() - self.first.get()).saturating_add(1)
    }

    /// Whether the range holds `seq`.
    pub fn contains(self, seq: Seq) -> bool {
        self.first <= seq && seq <= self.last
    }
}

impl fmt::Display for SeqRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.first, self.last)
    }
}
