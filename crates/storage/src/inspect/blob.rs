//! Check of a blob file (`*.blob`): the bodies that RocksDB keeps outside its tables.
//!
//! The format is a 30-byte header, records (32-byte header, key, value) and a 32-byte footer. A record's header, its key and
//! value, and the footer carry a CRC each; the file's header carries none, so every field of it that can only have one
//! value here is compared with that value. What remains unprotected is the number of the column family: it is compared
//! with the manifest's.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::checksum::{mask, masked_crc32c};
use super::coding::Reader;
use super::manifest::BlobFile;

const HEADER_BYTES: u64 = 30;
const RECORD_HEADER_BYTES: u64 = 32;
const FOOTER_BYTES: u64 = 32;
const MAGIC: u32 = 0x0024_8f37;
const VERSION: u32 = 1;

/// The first damage of a blob file, `None` if there is none. Behind it the bounds of records are unknown.
pub(crate) fn check(path: &Path, family: u32, expected: BlobFile) -> io::Result<Option<(u64, String)>> {
    let file = File::open(path)?;
    let file_bytes = file.metadata()?.len();
    let mut input = BufReader::with_capacity(1 << 18, file);
    if file_bytes < HEADER_BYTES + FOOTER_BYTES {
        return Ok(Some((file_bytes, format!("blob file ends after {file_bytes} bytes"))));
    }
    let mut header = [0; HEADER_BYTES as usize];
    input.read_exact(&mut header)?;
    if let Some(damage) = check_header(&header, family) {
        return Ok(Some(damage));
    }
    let records_end = file_bytes - FOOTER_BYTES;
    let mut offset = HEADER_BYTES;
    let (mut records, mut record_bytes) = (0u64, 0u64);
    while offset < records_end {
        if records_end - offset < RECORD_HEADER_BYTES {
            return Ok(Some((offset, "blob file ends within a record's header".to_owned())));
        }
        let mut header = [0; RECORD_HEADER_BYTES as usize];
        input.read_exact(&mut header)?;
        let mut fields = Reader::new(&header);
        let (Some(key), Some(value), Some(_expiry), Some(header_crc), Some(body_crc)) =
            (fields.u64(), fields.u64(), fields.u64(), fields.u32(), fields.u32())
        else {
            return Ok(Some((offset, "blob record header".to_owned())));
        };
        let computed = masked_crc32c(&[&header[..24]]);
        if computed != header_crc {
            let what = format!("blob record header checksum: stored {header_crc:#010x}, computed {computed:#010x}");
            return Ok(Some((offset, what)));
        }
        let room = records_end - offset - RECORD_HEADER_BYTES;
        let Some(body) = key.checked_add(value).filter(|body| *body <= room) else {
            return Ok(Some((
                offset,
                format!("blob record of {key} + {value} bytes does not end before the footer"),
            )));
        };
        let computed = crc_of_next(&mut input, body)?;
        if computed != body_crc {
            let what =
                format!("blob record checksum: stored {body_crc:#010x}, computed {computed:#010x} over {body} bytes");
            return Ok(Some((offset, what)));
        }
        records += 1;
        record_bytes += RECORD_HEADER_BYTES + body;
        offset += RECORD_HEADER_BYTES + body;
    }
    let mut footer = [0; FOOTER_BYTES as usize];
    input.read_exact(&mut footer)?;
    Ok(check_footer(&footer, records_end, records).or_else(|| {
        (records != expected.records || record_bytes != expected.record_bytes).then(|| {
            let BlobFile { records: wanted, record_bytes: wanted_bytes, .. } = expected;
            let what = format!(
                "blob file holds {records} records of {record_bytes} bytes, the manifest says {wanted} of {wanted_bytes}"
            );
            (HEADER_BYTES, what)
        })
    }))
}

fn check_header(header: &[u8], family: u32) -> Option<(u64, String)> {
    let mut fields = Reader::new(header);
    let (magic, version, in_family) = (fields.u32()?, fields.u32()?, fields.u32()?);
    let (flags, compression) = (fields.u8()?, fields.u8()?);
    let (from, to) = (fields.u64()?, fields.u64()?);
    let damage = |offset, what: String| Some((offset, what));
    if magic != MAGIC {
        return damage(0, format!("blob file magic is {magic:#010x}"));
    }
    if version != VERSION {
        return damage(4, format!("blob file version is {version}"));
    }
    if in_family != family {
        return damage(8, format!("blob file of column family {in_family}, not {family}"));
    }
    if flags != 0 || compression != 0 || from != 0 || to != 0 {
        return damage(
            12,
            "blob file header has flags, compression or an expiry, which are never used here".to_owned(),
        );
    }
    None
}

fn check_footer(footer: &[u8], offset: u64, records: u64) -> Option<(u64, String)> {
    let mut fields = Reader::new(footer);
    let (magic, count) = (fields.u32()?, fields.u64()?);
    fields.take(16)?;
    let stored = fields.u32()?;
    let computed = masked_crc32c(&[&footer[..28]]);
    if magic != MAGIC || computed != stored {
        let what = format!("blob file footer checksum: stored {stored:#010x}, computed {computed:#010x}");
        return Some((offset, what));
    }
    (count != records).then(|| {
        (
            offset,
            format!("blob file footer counts {count} records, the file holds {records}"),
        )
    })
}

/// Masked CRC of the next `count` bytes, read in pieces: a damaged length must not become an allocation.
fn crc_of_next(input: &mut impl Read, count: u64) -> io::Result<u32> {
    let mut piece = [0; 1 << 15];
    let (mut left, mut crc) = (count, 0);
    while left > 0 {
        let now = left.min(piece.len() as u64) as usize;
        input.read_exact(&mut piece[..now])?;
        crc = crc32c::crc32c_append(crc, &piece[..now]);
        left -= now as u64;
    }
    Ok(mask(crc))
}
