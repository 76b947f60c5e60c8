//! Frames out of the chunks of one stream.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use crate::Lane;
use crate::limits::charge;

/// The chunks are not what a sender of this protocol sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misplaced {
    /// A frame begins in the middle of another of its lane, or goes on without having begun.
    Order,
    /// A frame is longer than announced, or than allowed.
    Length,
    /// More is under way at once than a sender may have.
    Room,
}

struct Partial {
    bytes: usize,
    gathered: BytesMut,
}

/// The frames that have begun.
pub(crate) struct Assembler {
    frame_bytes_max: usize,
    /// What all frames that have begun are charged, by their announced bytes; a peer cannot make this node reserve more, nor keep a lane for
    /// nothing.
    pending_bytes: u64,
    pending_bytes_max: u64,
    lanes: BTreeMap<Lane, Partial>,
}

impl Assembler {
    pub(crate) const fn new(frame_bytes_max: usize, pending_bytes_max: u64) -> Self {
        Self {
            frame_bytes_max,
            pending_bytes: 0,
            pending_bytes_max,
            lanes: BTreeMap::new(),
        }
    }

    /// Takes a chunk; returns the frame that it ends. A frame of one chunk is not copied.
    pub(crate) fn chunk(&mut self, lane: Lane, begins: Option<usize>, data: Bytes) -> Result<Option<Bytes>, Misplaced> {
        match begins {
            Some(_) if self.lanes.contains_key(&lane) => Err(Misplaced::Order),
            Some(bytes) if bytes > self.frame_bytes_max || data.len() > bytes => Err(Misplaced::Length),
            Some(bytes) if bytes == data.len() => Ok(Some(data)),
            Some(bytes) => {
                // One frame may always be under way, however long.
                let pending = self.pending_bytes + charge(bytes);
                if !self.lanes.is_empty() && pending > self.pending_bytes_max {
                    return Err(Misplaced::Room);
                }
                self.pending_bytes = pending;
                let mut gathered = BytesMut::with_capacity(bytes);
                gathered.extend_from_slice(&data);
                self.lanes.insert(lane, Partial { bytes, gathered });
                Ok(None)
            }
            None => {
                let partial = self.lanes.get_mut(&lane).ok_or(Misplaced::Order)?;
                if partial.gathered.len() + data.len() > partial.bytes {
                    return Err(Misplaced::Length);
                }
                partial.gathered.extend_from_slice(&data);
                if partial.gathered.len() < partial.bytes {
                    return Ok(None);
                }
                let whole = self.lanes.remove(&lane).ok_or(Misplaced::Order)?;
                self.pending_bytes -= charge(whole.bytes);
                Ok(Some(whole.gathered.freeze()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use nsquorum_topic::GroupId;

    use super::{Assembler, Misplaced};
    use crate::{Lane, Service};

    fn lane(group: u64) -> Lane {
        Lane::new(Service::Raft, GroupId::new(group))
    }

    #[test]
    fn frames_of_two_lanes_grow_side_by_side() {
        let mut assembler = Assembler::new(10, 1000);
        let piece = Bytes::from_static;
        assert_eq!(assembler.chunk(lane(1), Some(4), piece(b"ab")), Ok(None));
        assert_eq!(assembler.chunk(lane(2), Some(3), piece(b"x")), Ok(None));
        assert_eq!(assembler.chunk(lane(1), None, piece(b"cd")), Ok(Some(piece(b"abcd"))));
        assert_eq!(assembler.chunk(lane(2), None, piece(b"yz")), Ok(Some(piece(b"xyz"))));
        assert_eq!(assembler.chunk(lane(2), Some(0), piece(b"")), Ok(Some(piece(b""))));
        assert_eq!(assembler.pending_bytes, 0);
    }

    #[test]
    fn what_no_sender_sends_is_refused() {
        let mut assembler = Assembler::new(10, 2 * 64 + 12);
        let piece = Bytes::from_static;
        assert_eq!(assembler.chunk(lane(1), None, piece(b"a")), Err(Misplaced::Order));
        assert_eq!(assembler.chunk(lane(1), Some(11), piece(b"a")), Err(Misplaced::Length));
        assert_eq!(assembler.chunk(lane(1), Some(1), piece(b"ab")), Err(Misplaced::Length));
        assert_eq!(assembler.chunk(lane(1), Some(8), piece(b"a")), Ok(None));
        assert_eq!(assembler.chunk(lane(1), Some(8), piece(b"a")), Err(Misplaced::Order));
        assert_eq!(assembler.chunk(lane(2), Some(8), piece(b"a")), Err(Misplaced::Room));
        assert_eq!(
            assembler.chunk(lane(1), None, piece(b"12345678")),
            Err(Misplaced::Length)
        );
    }
    #[test]
    fn frames_that_begin_and_never_end_are_charged_for_their_lanes() {
        let mut assembler = Assembler::new(10, 1000);
        let begun = (0..100).map_while(|group| assembler.chunk(lane(group), Some(1), Bytes::new()).ok());
        assert_eq!(begun.count(), 15, "a byte and 64 bytes each");
    }
}
