//! Publish sessions: their place in the encoding of the state.
//!
//! A session is one start of one node's router. What a group remembers of it tells a publish that is sent again from a
//! new one. Nothing fills this section yet; it is encoded from the first version on, so that a state written today is
//! read when sessions have a behaviour.

use std::collections::BTreeMap;

use bytes::BufMut;

use crate::format::{FormatError, Reader};
use crate::seq_set::SeqSet;
use crate::{NodeId, NodeIncarnation};

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sessions {
    open: BTreeMap<(NodeId, NodeIncarnation), Session>,
    /// Highest incarnation of a node whose session has ended.
    ended: BTreeMap<NodeId, NodeIncarnation>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Session {
    /// Below it every publish of the session is resolved.
    base: u64,
    /// Publishes at or above `base` that were stored.
    seen: SeqSet,
}

impl Sessions {
    /// `u32 sessions, each u64 node, u64 incarnation, u64 base, number set; u32 marks, each u64 node, u64 incarnation`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32_le(u32::try_from(self.open.len()).expect("a session per node start: few"));
        for ((node, incarnation), session) in &self.open {
            out.put_u64_le(node.get());
            out.put_u64_le(incarnation.get());
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
            let node = NodeId::new(reader.u64("session")?);
            let incarnation = NodeIncarnation::new(reader.u64("session")?);
            let base = reader.u64("session")?;
            let seen = SeqSet::decode(reader)?;
            sessions.open.insert((node, incarnation), Session { base, seen });
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
