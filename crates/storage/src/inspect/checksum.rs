//! The checksums inside RocksDB's files.

use twox_hash::XxHash3_64;

const MASK_DELTA: u32 = 0xa282_ead8;
const LAST_BYTE_PRIME: u32 = 0x6b90_83d9;

/// RocksDB stores CRCs rotated and shifted, so that a CRC of bytes that hold CRCs stays useful.
pub(crate) fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(MASK_DELTA)
}

/// Masked CRC32C over several pieces as if they were one.
pub(crate) fn masked_crc32c(pieces: &[&[u8]]) -> u32 {
    mask(pieces.iter().fold(0, |crc, piece| crc32c::crc32c_append(crc, piece)))
}

/// How the blocks of a table file are protected; the file's footer says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableChecksum {
    Crc32c,
    Xxh3,
}

impl TableChecksum {
    /// The kinds that this project's settings or RocksDB's defaults can produce; `None` for any other number.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Crc32c),
            4 => Some(Self::Xxh3),
            _ => None,
        }
    }

    /// The checksum of `bytes`, whose last byte (a block's compression type) is treated apart by XXH3.
    pub(crate) fn of(self, bytes: &[u8]) -> u32 {
        match (self, bytes.split_last()) {
            (Self::Crc32c, _) => masked_crc32c(&[bytes]),
            (Self::Xxh3, None) => 0,
            (Self::Xxh3, Some((last, front))) => {
                (XxHash3_64::oneshot(front) as u32) ^ u32::from(*last).wrapping_mul(LAST_BYTE_PRIME)
            }
        }
    }
}

/// What a table of format 6 and later adds to the checksum of a block at `offset`, so that a block copied to another place
/// or another file does not pass.
pub(crate) fn context(base: u32, offset: u64) -> u32 {
    if base == 0 {
        return 0;
    }
    base ^ (offset as u32).wrapping_add((offset >> 32) as u32)
}
