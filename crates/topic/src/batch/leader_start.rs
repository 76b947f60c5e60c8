//! The first entry of a leader.

use bytes::{BufMut, BytesMut};

use crate::format::{FormatError, Reader};
use crate::{LogTime, NodeId, NodeIncarnation, Term};

use super::extension::Fields;

const VERSION: u16 = 1;
const BYTES: usize = 40;

/// A leader announces itself: the barrier behind which it serves, the base of its log clock, and the epoch of leases
/// and sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderStart {
    /// The leader's node.
    pub node: NodeId,
    /// Which start of that node.
    pub incarnation: NodeIncarnation,
    /// The term it leads. An entry of another term is void.
    pub term: Term,
    /// Log clock at which it starts: the highest of its wall clock and the last time it applied.
    pub clock: LogTime,
}

impl LeaderStart {
    /// The payload, behind `header_room` zero bytes for the entry header.
    pub fn encode(&self, header_room: usize) -> BytesMut {
        let mut out = BytesMut::with_capacity(header_room + BYTES);
        out.put_bytes(0, header_room);
        out.put_u16_le(VERSION);
        out.put_u16_le(0);
        out.put_u32_le(0);
        out.put_u64_le(self.node.get());
        out.put_u64_le(self.incarnation.get());
        out.put_u64_le(self.term.get());
        out.put_u64_le(self.clock.get());
        out
    }

    /// Reads a payload (without header room). Never panics.
    ///
    /// # Errors
    /// If the payload is not a leader start of a version that this program knows; trying again cannot help.
    pub fn decode(payload: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(payload);
        let version = reader.u16("leader start version")?;
        if version != VERSION {
            return Err(FormatError::Version {
                what: "leader start",
                version,
            });
        }
        if reader.u16("leader start reserve")? != 0 {
            return Err(FormatError::Value {
                what: "leader start reserve",
            });
        }
        let extension_bytes = reader.u32("leader start extension length")? as usize;
        let start = Self {
            node: NodeId::new(reader.u64("leader start")?),
            incarnation: NodeIncarnation::new(reader.u64("leader start")?),
            term: Term::new(reader.u64("leader start")?),
            clock: LogTime::new(reader.u64("leader start")?),
        };
        Fields::read(reader.take(extension_bytes, "leader start extension")?)?;
        reader.end("leader start")?;
        Ok(start)
    }
}
