//! The property of both compressions.

use bytes::BytesMut;
use nsquorum_protocol::Compression;
use nsquorum_protocol::compression::{Compressor, Decoded, Decompressor};

use crate::{bounded, pieces};

/// What is decompressed of one input; a small input may stand for a thousand times as much.
const OUTPUT_BYTES_MAX: usize = 80 << 10;
/// A decompressor's state, a chunk of 64 KiB twice, and the output of both ways of reading.
const MEMORY_BYTES_MAX: usize = 1 << 20;

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Missing,
    Ended,
    Corrupt,
    /// The output was enough.
    Enough,
}

/// `data` is two bytes of choices and a compressed stream, or a text to compress.
pub fn decompress(compression: Compression, data: &[u8]) {
    let Some((&[choice, cuts], bytes)) = data.split_first_chunk::<2>() else {
        return;
    };
    // A compressor is ten times as dear as a decompressor, and takes any bytes anyway.
    if choice % 16 == 1 {
        there_and_back(compression, choice / 16, cuts, bytes);
    } else {
        hostile(compression, choice, cuts, bytes);
    }
}

/// Any bytes: how they are cut does not matter, nor how much is asked for at a time.
fn hostile(compression: Compression, room: u8, cuts: u8, bytes: &[u8]) {
    let room = 1 + usize::from(room) * usize::from(room);
    bounded(MEMORY_BYTES_MAX + 8 * bytes.len(), || {
        let (whole, whole_ending) = read(compression, std::iter::once(bytes), 4096);
        let (cut, cut_ending) = read(compression, pieces(bytes, cuts), room);
        let common = whole.len().min(cut.len());
        assert_eq!(whole[..common], cut[..common], "cuts change what is read");
        match (whole_ending, cut_ending) {
            // Output that stands before an error in the same step is given up with it.
            (Ending::Corrupt, Ending::Corrupt) | (Ending::Enough, _) | (_, Ending::Enough) => {}
            _ => assert_eq!(
                (whole.len(), whole_ending),
                (cut.len(), cut_ending),
                "cuts change the end"
            ),
        }
    });
}

fn read<'a>(compression: Compression, pieces: impl Iterator<Item = &'a [u8]>, room: usize) -> (Vec<u8>, Ending) {
    let mut decompressor = Decompressor::new(compression);
    let (mut input, mut output, mut out) = (BytesMut::new(), Vec::new(), vec![0; room]);
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match decompressor.decompress(&mut input, &mut out) {
                Ok(Decoded::Bytes(count)) => {
                    assert!((1..=room).contains(&count));
                    output.extend_from_slice(&out[..count]);
                }
                Ok(Decoded::Missing) => break,
                Ok(Decoded::End) => return (output, Ending::Ended),
                Err(_) => return (output, Ending::Corrupt),
            }
            if output.len() >= OUTPUT_BYTES_MAX {
                return (output, Ending::Enough);
            }
        }
    }
    (output, Ending::Missing)
}

/// What was compressed and flushed comes back, and all of it.
fn there_and_back(compression: Compression, room: u8, cuts: u8, text: &[u8]) {
    let mut compressor = Compressor::new(compression);
    let mut wire = BytesMut::new();
    for piece in pieces(text, cuts) {
        compressor.compress(piece, &mut wire);
        if piece.len() % 3 == 0 {
            compressor.flush(&mut wire);
        }
    }
    compressor.flush(&mut wire);
    let (back, ending) = read(
        compression,
        pieces(&wire, cuts.reverse_bits()),
        1 + usize::from(room) * 8,
    );
    assert_eq!(ending, Ending::Missing, "the other side cannot read what was written");
    assert_eq!(back, text, "what was written does not come back");
}
