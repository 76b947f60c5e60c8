//! Publish sessions: what tells a publish that is sent again from a new one.
//!
//! A session is one start of one node's router, which numbers the publishes that it sends to a topic. A router that has
//! heard nothing of a publish sends it again, to the same leader or to the next one. The state remembers which numbers of
//! a session were stored, so that each is stored once whatever is sent how often and in whatever order.
//!
//! - A number is stored iff it is below the session's *base* or in its set. The router says with every publish which
//!   number is the lowest that it still waits for, and below that nobody asks any more; the base rises with it, and over
//!   whatever is stored without a gap. Only the highest number seen would not do: number 8 arriving before 7 would turn 7
//!   into a publish that was answered and never stored.
//! - A session ends by an explicit entry, when its start of the node is known to be over; no clock decides. It leaves a
//!   mark: the highest ended start of the node. A session that is not known and lies above the mark has stored nothing.
//!   At or below the mark nobody can say what was stored.
//!
//! A leader asks before it proposes ([`Sessions::verdict`]) and apply asks again: a batch that stores a publish twice cannot
//! come from a correct leader, because that leader's state contains every earlier term's entries and it knows what
//! itself has under way. Such a batch is not void but impossible: whether a batch is void must follow from numbers and
//! terms alone, for the readers of the log decide it too and know no sessions.

use std::collections::BTreeMap;
use std::fmt;

use bytes::BufMut;

use crate::batch::Origin;
use crate::format::{FormatError, Reader};
use crate::seq_set::SeqSet;
use crate::{NodeId, NodeIncarnation, Seq, SeqRange};

/// How far a publish may be ahead of the lowest one that its router waits for. Bounds the numbers that a session remembers.
pub const SESSION_WINDOW: u64 = 1 << 20;
/// No router gets there; a base can be raised above it without overflow.
const NUMBER_MAX: u64 = u64::MAX / 2;
/// Open sessions of a topic. A node that starts again ends its earlier one, so this is a bound on nodes.
pub const SESSIONS_MAX: usize = 4096;

/// A publish session: one start of one node's router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    /// The node.
    pub node: NodeId,
    /// Which start of it.
    pub incarnation: NodeIncarnation,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.incarnation)
    }
}

/// What the state knows about a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum SessionVerdict {
    /// It was not stored.
    New,
    /// It was stored, or its router has stopped waiting for it.
    Stored,
    /// Its session has ended: nobody can say whether it was stored.
    Ended,
    /// It is too far ahead of its base, or there are too many sessions; it was not stored.
    OutOfBounds,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sessions {
    open: BTreeMap<SessionId, Session>,
    /// Highest incarnation of a node whose session has ended.
    ended: BTreeMap<NodeId, NodeIncarnation>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Session {
    /// Below it every publish of the session is resolved.
    base: u64,
    /// Publishes above `base` that were stored; never `base` itself.
    seen: SeqSet,
}

impl Session {
    fn record(&mut self, origin: &Origin) {
        self.seen.insert(SeqRange::single(Seq::new(origin.number)));
        self.base = self.base.max(origin.base);
        while self.seen.contains(Seq::new(self.base)) {
            self.base += 1;
        }
        self.seen.remove_below(Seq::new(self.base));
    }
}

impl Sessions {
    pub(crate) fn verdict(&self, origin: &Origin) -> SessionVerdict {
        let open = self.open.get(&origin.session());
        if open.is_none() && self.is_ended(origin.session()) {
            return SessionVerdict::Ended;
        }
        let (base, is_seen) = match open {
            Some(session) => (session.base, session.seen.contains(Seq::new(origin.number))),
            None if self.open.len() >= SESSIONS_MAX => return SessionVerdict::OutOfBounds,
            None => (0, false),
        };
        if is_seen || origin.number < base.max(origin.base) {
            SessionVerdict::Stored
        } else if origin.number - base.max(origin.base) >= SESSION_WINDOW || origin.number > NUMBER_MAX {
            SessionVerdict::OutOfBounds
        } else {
            SessionVerdict::New
        }
    }

    fn is_ended(&self, session: SessionId) -> bool {
        self.ended
            .get(&session.node)
            .is_some_and(|mark| session.incarnation <= *mark)
    }

    /// Remembers a publish that is being stored.
    pub(crate) fn record(&mut self, origin: &Origin) {
        self.open.entry(origin.session()).or_default().record(origin);
    }

    /// Ends the sessions of a node up to one of its starts.
    pub(crate) fn end(&mut self, last: SessionId) {
        self.open
            .retain(|session, _| session.node != last.node || session.incarnation > last.incarnation);
        let mark = self.ended.entry(last.node).or_default();
        *mark = (*mark).max(last.incarnation);
    }

    pub(crate) fn open(&self) -> impl DoubleEndedIterator<Item = SessionId> + '_ {
        self.open.keys().copied()
    }

    /// Open sessions and marks, and numbers that sessions remember above their bases.
    pub(crate) fn usage(&self) -> (usize, u64) {
        (
            self.open.len() + self.ended.len(),
            self.open.values().map(|session| session.seen.len()).sum(),
        )
    }

    /// Whether the parts agree with each other.
    pub(crate) fn is_consistent(&self) -> bool {
        self.open.iter().all(|(id, session)| {
            !self.is_ended(*id) && session.seen.first().is_none_or(|first| first.get() > session.base)
        })
    }

    /// `u32 sessions, each u64 node, u64 incarnation, u64 base, number set; u32 marks, each u64 node, u64 incarnation`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32_le(u32::try_from(self.open.len()).expect("a session per node start: few"));
        for (id, session) in &self.open {
            out.put_u64_le(id.node.get());
            out.put_u64_le(id.incarnation.get());
            out.put_u64_le(session.base);
            session.seen.encode(out);
        }
        out.put_u32_le(u32::try_from(self.ended.len()).expect("a mark per node: few"));
        for (node, incarnation) in &self.ended {
            out.put_u64_le(node.get());
            out.put_u64_le(incarnation.get());
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let mut sessions = Self::default();
        for _ in 0..reader.u32("sessions")? {
            let id = SessionId {
                node: NodeId::new(reader.u64("session")?),
                incarnation: NodeIncarnation::new(reader.u64("session")?),
            };
            let base = reader.u64("session")?;
            let seen = SeqSet::decode(reader)?;
            sessions.open.insert(id, Session { base, seen });
        }
        for _ in 0..reader.u32("ended sessions")? {
            let node = NodeId::new(reader.u64("ended session")?);
            sessions
                .ended
                .insert(node, NodeIncarnation::new(reader.u64("ended session")?));
        }
        Ok(sessions)
    }
}
