//! Snappy's framing format: a stream identifier, then chunks of at most 64 KiB with a checksum each.
//!
//! Clients differ: pynsq begins every write with another stream identifier, so identifiers are accepted anywhere. A chunk's length is checked
//! when its header is there, before anything is kept of it.

use bytes::{Buf as _, BufMut as _, BytesMut};

use super::{Corrupt, Decoded};

const IDENTIFIER: &[u8; 10] = b"\xff\x06\x00\x00sNaPpY";
const HEADER_BYTES: usize = 4;
const CHECKSUM_BYTES: usize = 4;
/// The most that a chunk may hold uncompressed.
const CHUNK_BYTES_MAX: usize = 65_536;

const COMPRESSED: u8 = 0x00;
const UNCOMPRESSED: u8 = 0x01;
const FIRST_SKIPPABLE: u8 = 0x80;
const IDENTIFIER_KIND: u8 = 0xff;

/// Compresses.
#[derive(Debug)]
pub struct SnappyEncoder {
    begun: bool,
    encoder: snap::raw::Encoder,
    piece: Vec<u8>,
}

impl SnappyEncoder {
    pub(super) fn new() -> Self {
        Self {
            begun: false,
            encoder: snap::raw::Encoder::new(),
            piece: Vec::new(),
        }
    }

    pub(super) fn compress(&mut self, bytes: &[u8], out: &mut BytesMut) {
        for chunk in bytes.chunks(CHUNK_BYTES_MAX) {
            if !std::mem::replace(&mut self.begun, true) {
                out.extend_from_slice(IDENTIFIER);
            }
            self.piece.resize(snap::raw::max_compress_len(chunk.len()), 0);
            let length = self
                .encoder
                .compress(chunk, &mut self.piece)
                .expect("the buffer is as large as the library says it must be");
            // As Google's: what does not become an eighth smaller is sent as it is.
            let (kind, data) = match length < chunk.len() - chunk.len() / 8 {
                true => (COMPRESSED, &self.piece[..length]),
                false => (UNCOMPRESSED, chunk),
            };
            out.put_u8(kind);
            out.put_uint_le((CHECKSUM_BYTES + data.len()) as u64, 3);
            out.put_u32_le(masked_checksum(chunk));
            out.extend_from_slice(data);
        }
    }
}

/// Decompresses.
#[derive(Debug)]
pub struct SnappyDecoder {
    begun: bool,
    decoder: snap::raw::Decoder,
    /// Bytes of a skipped chunk that have not arrived.
    skipping: usize,
    /// The chunk that is being handed out, and how much of it was.
    chunk: Vec<u8>,
    handed_out: usize,
}

impl SnappyDecoder {
    pub(super) fn new() -> Self {
        Self {
            begun: false,
            decoder: snap::raw::Decoder::new(),
            skipping: 0,
            chunk: Vec::new(),
            handed_out: 0,
        }
    }

    pub(super) fn decompress(&mut self, input: &mut BytesMut, out: &mut [u8]) -> Result<Decoded, Corrupt> {
        while self.handed_out == self.chunk.len() {
            // An idle connection keeps no buffer.
            self.chunk = Vec::new();
            self.handed_out = 0;
            let skipped = self.skipping.min(input.len());
            input.advance(skipped);
            self.skipping -= skipped;
            if !self.next_chunk(input)? {
                return Ok(Decoded::Missing);
            }
        }
        let waiting = &self.chunk[self.handed_out..];
        let count = waiting.len().min(out.len());
        out[..count].copy_from_slice(&waiting[..count]);
        self.handed_out += count;
        Ok(Decoded::Bytes(count))
    }

    /// Takes one chunk; `false` if it has not arrived.
    fn next_chunk(&mut self, input: &mut BytesMut) -> Result<bool, Corrupt> {
        let Some(&[kind, low, middle, high]) = input.first_chunk::<HEADER_BYTES>() else {
            return Ok(false);
        };
        let length = u32::from_le_bytes([low, middle, high, 0]) as usize;
        if !self.begun && kind != IDENTIFIER_KIND {
            return Err(Corrupt("it does not begin with snappy's stream identifier"));
        }
        match kind {
            COMPRESSED | UNCOMPRESSED => {
                let data_max = match kind {
                    COMPRESSED => snap::raw::max_compress_len(CHUNK_BYTES_MAX),
                    _ => CHUNK_BYTES_MAX,
                };
                if length < CHECKSUM_BYTES || length > CHECKSUM_BYTES + data_max {
                    return Err(Corrupt("a snappy chunk has an impossible length"));
                }
                if input.len() < HEADER_BYTES + length {
                    return Ok(false);
                }
                input.advance(HEADER_BYTES);
                let checksum = input.get_u32_le();
                let data = input.split_to(length - CHECKSUM_BYTES);
                self.chunk = match kind {
                    COMPRESSED => self.decoded(&data)?,
                    _ => data.to_vec(),
                };
                if masked_checksum(&self.chunk) != checksum {
                    return Err(Corrupt("a snappy chunk does not match its checksum"));
                }
            }
            IDENTIFIER_KIND => {
                if length + HEADER_BYTES != IDENTIFIER.len() {
                    return Err(Corrupt("a snappy stream identifier has an impossible length"));
                }
                if input.len() < IDENTIFIER.len() {
                    return Ok(false);
                }
                if input.split_to(IDENTIFIER.len()) != IDENTIFIER[..] {
                    return Err(Corrupt("a snappy stream identifier is not sNaPpY"));
                }
                self.begun = true;
            }
            FIRST_SKIPPABLE.. => {
                input.advance(HEADER_BYTES);
                let skipped = length.min(input.len());
                input.advance(skipped);
                self.skipping = length - skipped;
            }
            _ => return Err(Corrupt("a snappy chunk is of a kind that must not be skipped")),
        }
        Ok(true)
    }

    fn decoded(&mut self, data: &[u8]) -> Result<Vec<u8>, Corrupt> {
        match snap::raw::decompress_len(data) {
            Ok(length) if length <= CHUNK_BYTES_MAX => {
                let damaged = |_| Corrupt("a snappy chunk cannot be decoded");
                self.decoder.decompress_vec(data).map_err(damaged)
            }
            _ => Err(Corrupt("a snappy chunk stands for more than 64 KiB")),
        }
    }
}

/// The format's checksum: a CRC of bytes that contain their own CRC would be of little use.
fn masked_checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}
