//! Deflate without a zlib header, flushed so that the other side can decode everything (RFC 1951; "sync flush": the stream then ends with the
//! bytes 00 00 ff ff).

use bytes::{Buf as _, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{Corrupt, Decoded};

const PIECE_BYTES: usize = 8 * 1024;

/// Compresses.
#[derive(Debug)]
pub struct Deflater {
    stream: Compress,
    /// Bytes were given since the last flush.
    unflushed: bool,
    piece: Vec<u8>,
}

impl Deflater {
    /// `level` is 1 to 9; what lies outside is taken for the nearest.
    pub(super) fn new(level: u32) -> Self {
        Self {
            stream: Compress::new(Compression::new(level.clamp(1, 9)), false),
            unflushed: false,
            piece: vec![0; PIECE_BYTES],
        }
    }

    pub(super) fn compress(&mut self, mut bytes: &[u8], out: &mut BytesMut) {
        self.unflushed |= !bytes.is_empty();
        while !bytes.is_empty() {
            let (taken, _) = self.step(bytes, FlushCompress::None, out);
            bytes = &bytes[taken..];
        }
    }

    pub(super) fn flush(&mut self, out: &mut BytesMut) {
        if !std::mem::take(&mut self.unflushed) {
            return;
        }
        // A piece that was filled may have left something behind.
        while self.step(&[], FlushCompress::Sync, out).1 == PIECE_BYTES {}
    }

    /// Bytes taken and bytes written.
    fn step(&mut self, bytes: &[u8], flush: FlushCompress, out: &mut BytesMut) -> (usize, usize) {
        let (in_before, out_before) = (self.stream.total_in(), self.stream.total_out());
        self.stream
            .compress(bytes, &mut self.piece, flush)
            .expect("a compressor that has not been finished takes everything");
        // Both are bounded by the lengths of slices.
        let taken = (self.stream.total_in() - in_before) as usize;
        let written = (self.stream.total_out() - out_before) as usize;
        out.extend_from_slice(&self.piece[..written]);
        (taken, written)
    }
}

/// Decompresses.
#[derive(Debug)]
pub struct Inflater {
    stream: Decompress,
    ended: bool,
}

impl Inflater {
    pub(super) fn new() -> Self {
        Self {
            stream: Decompress::new(false),
            ended: false,
        }
    }

    pub(super) fn decompress(&mut self, input: &mut BytesMut, out: &mut [u8]) -> Result<Decoded, Corrupt> {
        loop {
            if self.ended {
                return Ok(Decoded::End);
            }
            let (in_before, out_before) = (self.stream.total_in(), self.stream.total_out());
            let status = self
                .stream
                .decompress(input, out, FlushDecompress::None)
                .map_err(|_| Corrupt("it is not deflate"))?;
            let taken = (self.stream.total_in() - in_before) as usize;
            let written = (self.stream.total_out() - out_before) as usize;
            input.advance(taken);
            self.ended = status == Status::StreamEnd;
            if written > 0 {
                return Ok(Decoded::Bytes(written));
            }
            if taken == 0 && !self.ended {
                return Ok(Decoded::Missing);
            }
        }
    }
}
