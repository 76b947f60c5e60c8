//! What a server sends, as a client reads it.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use nsquorum_fuzz_parsers::{bounded, pieces};
use nsquorum_protocol::{Frame, FrameDecoder, FrameError, frame};

fuzz_target!(|data: &[u8]| {
    let Some((&[limit, cuts], bytes)) = data.split_first_chunk::<2>() else {
        return;
    };
    let size_max = if limit % 2 == 0 { 1 << 20 } else { usize::from(limit) };
    bounded(64 * bytes.len() + 4096, || {
        let whole = read(std::iter::once(bytes), size_max);
        let cut = read(pieces(bytes, cuts), size_max);
        assert_eq!(whole, cut, "cuts change what is read");
        let (frames, _, rest) = whole;
        assert_eq!(encoded(&frames, &rest), bytes, "there is one encoding");
    });
});

/// All frames, the error behind them, and what was not taken.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>, size_max: usize) -> (Vec<Frame>, Option<FrameError>, BytesMut) {
    let mut decoder = FrameDecoder::new(size_max);
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    let mut refused = None;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while refused.is_none() {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => {
                    assert!((1..=size_max.max(8) + 4).contains(&decoder.wanted()));
                    break;
                }
                Err(error) => refused = Some(error),
            }
        }
    }
    (frames, refused, buffer)
}

fn encoded(frames: &[Frame], rest: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    for frame in frames {
        match frame {
            Frame::Response(data) => frame::response(&mut out, data),
            Frame::Error(data) => frame::error(&mut out, data),
            Frame::Message {
                timestamp_ns,
                attempts,
                id,
                body,
            } => frame::message(&mut out, *timestamp_ns, *attempts, *id, body),
        }
    }
    out.extend_from_slice(rest);
    out
}
