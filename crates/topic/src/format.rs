//! Reading of little-endian formats that may be damaged, and the errors of doing so.
//!
//! Every length is checked before it is used, and no read allocates more than the input holds: the bytes may come from
//! a damaged disk or a faulty peer.

use thiserror::Error;

/// Bytes that are not what this version of the format describes.
///
/// Reading the same bytes again cannot help. Bytes that passed their CRC and still fail here were written by a newer
/// version or by a faulty leader: the caller quarantines the group.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes end inside a field.
    #[error("{what}: the bytes end too early")]
    Truncated {
        /// The field that was being read.
        what: &'static str,
    },
    /// A length, count or offset points outside of its section, or bytes are left over.
    #[error("{what}: length or offset out of bounds")]
    Bounds {
        /// The field that is wrong.
        what: &'static str,
    },
    /// A version that this program does not know.
    #[error("{what}: unknown version {version}")]
    Version {
        /// The structure that carries the version.
        what: &'static str,
        /// The version found.
        version: u16,
    },
    /// A field holds a value that the format does not allow.
    #[error("{what}: value not allowed")]
    Value {
        /// The field that is wrong.
        what: &'static str,
    },
    /// An event kind that this program does not know.
    #[error("unknown event kind {0}")]
    EventKind(u8),
    /// The same state could have been written in another way: not the canonical encoding.
    #[error("state is not in its canonical encoding")]
    NotCanonical,
}

/// A bounded reader over a byte slice.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], FormatError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(FormatError::Truncated { what })?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], FormatError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(FormatError::Truncated { what })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, FormatError> {
        Ok(u8::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn i64(&mut self, what: &'static str) -> Result<i64, FormatError> {
        Ok(i64::from_le_bytes(self.array(what)?))
    }

    /// A yes or no; any byte but 0 and 1 is an error, so that equal values have equal bytes.
    pub(crate) fn flag(&mut self, what: &'static str) -> Result<bool, FormatError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FormatError::Value { what }),
        }
    }

    pub(crate) const fn end(&self, what: &'static str) -> Result<(), FormatError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(FormatError::Bounds { what })
        }
    }
}
