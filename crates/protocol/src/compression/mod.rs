//! The compressions that IDENTIFY may grant, without IO.
//!
//! Both are streams of their own in each direction, from the byte after the answer on. What a compressor has been given can be decoded by the other
//! side once it has been flushed; a decompressor takes whatever has arrived and gives at most what fits, so a small input that stands for a huge
//! output costs no more than the caller's buffer.

mod deflate;
mod snappy;

use bytes::BytesMut;

use crate::negotiate::Compression;
use deflate::{Deflater, Inflater};
use snappy::{SnappyDecoder, SnappyEncoder};

/// What arrived is not what the compression prescribes. Nothing after it can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the compressed stream is corrupt: {0}")]
pub struct Corrupt(pub(crate) &'static str);

/// What one step of decoding came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// This many bytes were written, at least one.
    Bytes(usize),
    /// Nothing: more input is needed.
    Missing,
    /// The other side has ended its stream.
    End,
}

/// The writing direction of a compressed connection.
#[derive(Debug)]
pub enum Compressor {
    /// Snappy in its framing format.
    Snappy(Box<SnappyEncoder>),
    /// Deflate without a zlib header.
    Deflate(Deflater),
}

impl Compressor {
    /// A compressor at the beginning of its stream.
    pub fn new(compression: Compression) -> Self {
        match compression {
            Compression::Snappy => Self::Snappy(Box::new(SnappyEncoder::new())),
            Compression::Deflate { level } => Self::Deflate(Deflater::new(level)),
        }
    }

    /// Compresses `bytes`. What comes of it may stay inside until [`flush`](Self::flush).
    pub fn compress(&mut self, bytes: &[u8], out: &mut BytesMut) {
        match self {
            Self::Snappy(encoder) => encoder.compress(bytes, out),
            Self::Deflate(deflater) => deflater.compress(bytes, out),
        }
    }

    /// Writes what the other side needs to decode everything so far. Without new bytes since the last flush it writes nothing.
    pub fn flush(&mut self, out: &mut BytesMut) {
        match self {
            // Every call of `compress` ends with a complete chunk.
            Self::Snappy(_) => {}
            Self::Deflate(deflater) => deflater.flush(out),
        }
    }
}

/// The reading direction of a compressed connection.
#[derive(Debug)]
pub enum Decompressor {
    /// Snappy in its framing format.
    Snappy(SnappyDecoder),
    /// Deflate without a zlib header.
    Deflate(Inflater),
}

impl Decompressor {
    /// A decompressor at the beginning of its stream. The level of the other side's compressor does not matter.
    pub fn new(compression: Compression) -> Self {
        match compression {
            Compression::Snappy => Self::Snappy(SnappyDecoder::new()),
            Compression::Deflate { .. } => Self::Deflate(Inflater::new()),
        }
    }

    /// Takes compressed bytes off the front of `input` and writes what they stand for to `out`, which is not empty, as far as it fits.
    ///
    /// # Errors
    /// The stream is corrupt.
    pub fn decompress(&mut self, input: &mut BytesMut, out: &mut [u8]) -> Result<Decoded, Corrupt> {
        match self {
            Self::Snappy(decoder) => decoder.decompress(input, out),
            Self::Deflate(inflater) => inflater.decompress(input, out),
        }
    }
}
