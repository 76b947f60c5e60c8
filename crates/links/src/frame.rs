//! Frames: as they are sent, and as they arrive.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

use crate::Class;

/// A frame to send: bytes in one or more pieces, which arrive as one. Pieces let a header go before a body that is shared with others,
/// without a copy.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Frame {
    pieces: Pieces,
    bytes: usize,
}

#[derive(Clone, PartialEq, Eq)]
enum Pieces {
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Default for Pieces {
    fn default() -> Self {
        Self::One(Bytes::new())
    }
}

impl Frame {
    /// Bytes of all pieces.
    pub const fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the frame has no bytes. It is a frame all the same.
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The pieces, in their order.
    pub fn pieces(&self) -> &[Bytes] {
        match &self.pieces {
            Pieces::One(piece) => std::slice::from_ref(piece),
            Pieces::Many(pieces) => pieces,
        }
    }

    /// The bytes from `from` on, at most `limit` of them, as one. Copies only if they lie in several pieces.
    pub fn slice(&self, from: usize, limit: usize) -> Bytes {
        let end = self.bytes.min(from.saturating_add(limit));
        let wanted = end.saturating_sub(from);
        let mut skip = from;
        let mut gathered = Vec::new();
        for piece in self.pieces() {
            if skip >= piece.len() {
                skip -= piece.len();
                continue;
            }
            let rest = wanted - gathered.len();
            let here = rest.min(piece.len() - skip);
            if gathered.is_empty() {
                if here == wanted {
                    return piece.slice(skip..skip + here);
                }
                gathered.reserve_exact(wanted);
            }
            gathered.extend_from_slice(&piece[skip..skip + here]);
            skip = 0;
            if gathered.len() == wanted {
                break;
            }
        }
        Bytes::from(gathered)
    }
}

impl From<Bytes> for Frame {
    fn from(piece: Bytes) -> Self {
        Self {
            bytes: piece.len(),
            pieces: Pieces::One(piece),
        }
    }
}

impl From<Vec<u8>> for Frame {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(Bytes::from(bytes))
    }
}

impl From<&'static [u8]> for Frame {
    fn from(bytes: &'static [u8]) -> Self {
        Self::from(Bytes::from_static(bytes))
    }
}

impl From<Vec<Bytes>> for Frame {
    fn from(mut pieces: Vec<Bytes>) -> Self {
        pieces.retain(|piece| !piece.is_empty());
        if pieces.len() <= 1 {
            return Self::from(pieces.pop().unwrap_or_default());
        }
        Self {
            bytes: pieces.iter().map(Bytes::len).sum(),
            pieces: Pieces::Many(pieces),
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.bytes)
    }
}

/// A frame that arrived. Its credit goes back to the sender when it is dropped, so hold it for as long as its bytes take room here, and no
/// longer. Clones of its bytes do not hold the credit.
pub struct Received {
    bytes: Bytes,
    class: Class,
    credit: Option<Box<dyn Returned>>,
}

/// Where credit goes back.
pub(crate) trait Returned: Send + Sync {
    /// The frame that this stands for takes no room any more.
    fn give_back(self: Box<Self>);
}

impl Received {
    pub(crate) fn new(bytes: Bytes, class: Class, credit: Box<dyn Returned>) -> Self {
        Self {
            bytes,
            class,
            credit: Some(credit),
        }
    }

    /// A frame that came over no link, for tests of receivers.
    pub const fn detached(bytes: Bytes, class: Class) -> Self {
        Self {
            bytes,
            class,
            credit: None,
        }
    }

    /// The class that it was sent in.
    pub const fn class(&self) -> Class {
        self.class
    }

    /// The bytes; the credit goes back at once.
    pub fn into_bytes(mut self) -> Bytes {
        std::mem::take(&mut self.bytes)
    }
}

impl Deref for Received {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(credit) = self.credit.take() {
            credit.give_back();
        }
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Received({} bytes, {})", self.bytes.len(), self.class.name())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::Frame;

    #[test]
    fn slices_join_pieces() {
        let frame = Frame::from(vec![
            Bytes::from_static(b"ab"),
            Bytes::new(),
            Bytes::from_static(b"cde"),
            Bytes::from_static(b"f"),
        ]);
        assert_eq!(frame.len(), 6);
        for from in 0..=6 {
            for limit in 0..=7 {
                let end = (from + limit).min(6);
                assert_eq!(frame.slice(from, limit), &b"abcdef"[from..end], "{from}, {limit}");
            }
        }
    }
}
