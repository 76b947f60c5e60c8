//! Extension fields: tag, length, value.

use bytes::BufMut;

use crate::format::{FormatError, Reader};
use crate::{NodeId, NodeIncarnation, SessionId};

const TAG_ORIGIN: u16 = 1;
const ORIGIN_BYTES: usize = 32;
/// Bytes of the length in front of a message's block.
pub(super) const BLOCK_HEADER_BYTES: usize = 4;

/// The publish session that a message came through, and its place in it.
///
/// Neighbouring messages with the same origin are one publish: stored together or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Node whose router took the publish.
    pub node: NodeId,
    /// Which start of that node; together with `node` it names the session.
    pub incarnation: NodeIncarnation,
    /// Number of the publish in its session.
    pub number: u64,
    /// The session's lowest unresolved number when the publish was sent.
    pub base: u64,
}

impl Origin {
    /// The session.
    pub const fn session(&self) -> SessionId {
        SessionId {
            node: self.node,
            incarnation: self.incarnation,
        }
    }
}

/// The fields of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) origin: Option<Origin>,
}

impl Fields {
    pub(super) const fn is_empty(self) -> bool {
        self.origin.is_none()
    }

    /// Appends a block.
    pub(super) fn write_block(self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u32_le(0);
        if let Some(origin) = self.origin {
            out.put_u16_le(TAG_ORIGIN);
            out.put_u32_le(ORIGIN_BYTES as u32);
            out.put_u64_le(origin.node.get());
            out.put_u64_le(origin.incarnation.get());
            out.put_u64_le(origin.number);
            out.put_u64_le(origin.base);
        }
        let bytes = (out.len() - start - BLOCK_HEADER_BYTES) as u32;
        out[start..start + BLOCK_HEADER_BYTES].copy_from_slice(&bytes.to_le_bytes());
    }

    /// Reads the block at the beginning of `section`.
    pub(super) fn read_block(section: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(section);
        let bytes = reader.u32("extension block")? as usize;
        Self::read(reader.take(bytes, "extension block")?)
    }

    /// Reads fields that fill `bytes` exactly. A tag that comes twice is an error: which one would count?
    pub(super) fn read(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        let mut fields = Self::default();
        while reader.remaining() > 0 {
            let tag = reader.u16("extension tag")?;
            let len = reader.u32("extension length")? as usize;
            let value = reader.take(len, "extension value")?;
            if tag == TAG_ORIGIN {
                if fields.origin.is_some() {
                    return Err(FormatError::Value {
                        what: "origin given twice",
                    });
                }
                fields.origin = Some(read_origin(value)?);
            }
        }
        Ok(fields)
    }
}

fn read_origin(value: &[u8]) -> Result<Origin, FormatError> {
    let mut reader = Reader::new(value);
    let origin = Origin {
        node: NodeId::new(reader.u64("origin")?),
        incarnation: NodeIncarnation::new(reader.u64("origin")?),
        number: reader.u64("origin")?,
        base: reader.u64("origin")?,
    };
    reader.end("origin")?;
    Ok(origin)
}
