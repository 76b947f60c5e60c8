//! What holds for any bytes that a peer may send; asked by tests, and by the fuzzer (`fuzz/`), for which alone it is public.

use bytes::Bytes;
use nsquorum_links::Frame;

use super::parts::{VERSION, append, put_count};
use super::{Framed, FromLeader, ToLeader, is_from_leader, unbundle};

/// Takes a bundle apart and reads its frames. Whatever is accepted has one meaning only: it encodes to the same bytes.
pub fn frames(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let Ok(frames) = unbundle(bytes.clone()) else {
        return;
    };
    if frames.first() != Some(&bytes) {
        assert_eq!(bundled(&frames), bytes, "the bundle encodes to other bytes");
    }
    for frame in frames {
        if let Some(encoded) = again(frame.clone()) {
            assert_eq!(encoded, frame, "the frame encodes to other bytes");
        }
    }
}

/// Parses bytes as what they say they are, and encodes what was found.
pub(super) fn again(bytes: Bytes) -> Option<Bytes> {
    let frame = if is_from_leader(&bytes) {
        Framed::<FromLeader>::parse(bytes).ok()?.encode()
    } else {
        Framed::<ToLeader>::parse(bytes).ok()?.encode()
    };
    Some(frame.slice(0, usize::MAX))
}

/// A bundle of any number of frames; a leader or router makes none of fewer than two.
fn bundled(frames: &[Bytes]) -> Bytes {
    let (mut pieces, mut gathered) = (Vec::new(), vec![VERSION, super::bundle::KIND, 0, 0]);
    for frame in frames {
        put_count(&mut gathered, frame.len());
        append(&mut pieces, &mut gathered, std::iter::once(frame));
    }
    pieces.push(Bytes::from(gathered));
    Frame::from(pieces).slice(0, usize::MAX)
}
