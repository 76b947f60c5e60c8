//! Check of a table file (`*.sst`): the checksum of every block, found through the file's own index.
//!
//! RocksDB verifies a block when it reads it and stops at the first that is wrong. Here all blocks are visited, so that
//! a report names every damaged one with its place, and also those that no key of the current state would lead to.
//! Only what this project's settings produce is understood: block-based tables of format 6 or later, uncompressed indexes,
//! CRC32C or XXH3. Anything else is reported, never skipped.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::checksum::{TableChecksum, context};
use super::coding::Reader;

const FOOTER_BYTES: u64 = 53;
const TRAILER_BYTES: u64 = 5;
const MAGIC: u64 = 0x88e2_41b7_85f4_cff7;
const EXTENDED_MAGIC: u32 = 0x007a_003e;
/// Larger blocks than this are damage: the largest is a data block of one entry below the blob limit, or an index.
const BLOCK_BYTES_MAX: u64 = 1 << 30;
const FORMATS: std::ops::RangeInclusive<u32> = 6..=7;

/// Where a block lies, without its trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Handle {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// What was found in one table file.
#[derive(Debug, Default)]
pub(crate) struct TableCheck {
    /// Offset and description, in the order found.
    pub(crate) damage: Vec<(u64, String)>,
    /// Every block whose checksum was right.
    pub(crate) intact: Vec<Handle>,
}

struct Table {
    file: File,
    bytes: u64,
    checksum: TableChecksum,
    base: u32,
    check: TableCheck,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IndexForm {
    /// Index entries after a restart point hold only the difference to the handle before.
    pub(super) delta_values: bool,
    pub(super) kind: u32,
}

/// Checks the table at `path`; `expected_bytes` is the length that the manifest gives it.
pub(crate) fn check(path: &Path, expected_bytes: u64) -> io::Result<TableCheck> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut check = TableCheck::default();
    if bytes != expected_bytes {
        let what = format!("table file has {bytes} bytes, the manifest says {expected_bytes}");
        check.damage.push((bytes.min(expected_bytes), what));
        return Ok(check);
    }
    if bytes < FOOTER_BYTES {
        check
            .damage
            .push((bytes, format!("table file ends after {bytes} bytes")));
        return Ok(check);
    }
    let footer_offset = bytes - FOOTER_BYTES;
    let mut footer = [0; FOOTER_BYTES as usize];
    file.read_exact_at(&mut footer, footer_offset)?;
    match parse_footer(&footer, footer_offset) {
        Err(what) => check.damage.push((footer_offset, what)),
        Ok(parsed) => {
            let mut table = Table {
                file,
                bytes,
                checksum: parsed.checksum,
                base: parsed.base,
                check,
            };
            table.walk(parsed.metaindex)?;
            return Ok(table.check);
        }
    }
    Ok(check)
}

struct Footer {
    checksum: TableChecksum,
    base: u32,
    metaindex: Handle,
}

fn parse_footer(footer: &[u8], offset: u64) -> Result<Footer, String> {
    let cut = || "table footer".to_owned();
    let mut fields = Reader::new(footer);
    let kind = fields.u8().ok_or_else(cut)?;
    let extended = fields.u32().ok_or_else(cut)?;
    let stored = fields.u32().ok_or_else(cut)?;
    let base = fields.u32().ok_or_else(cut)?;
    let metaindex_bytes = u64::from(fields.u32().ok_or_else(cut)?);
    fields.take(24).ok_or_else(cut)?;
    let format = fields.u32().ok_or_else(cut)?;
    let magic = fields.u64().ok_or_else(cut)?;
    if magic != MAGIC {
        return Err(format!("table magic is {magic:#018x}"));
    }
    if !FORMATS.contains(&format) || extended != EXTENDED_MAGIC {
        return Err(format!("table format {format} is not one that is written here"));
    }
    let Some(checksum) = TableChecksum::from_number(kind) else {
        return Err(format!("table checksum of kind {kind}"));
    };
    let mut without = footer.to_vec();
    without[5..9].fill(0);
    let computed = checksum.of(&without).wrapping_add(context(base, offset));
    if computed != stored {
        return Err(format!(
            "table footer checksum: stored {stored:#010x}, computed {computed:#010x}"
        ));
    }
    let Some(start) = offset.checked_sub(TRAILER_BYTES + metaindex_bytes) else {
        return Err(format!(
            "table metaindex of {metaindex_bytes} bytes does not fit in front of the footer"
        ));
    };
    Ok(Footer {
        checksum,
        base,
        metaindex: Handle {
            offset: start,
            bytes: metaindex_bytes,
        },
    })
}

impl Table {
    fn walk(&mut self, metaindex: Handle) -> io::Result<()> {
        let Some(block) = self.block(metaindex)? else {
            return Ok(());
        };
        let mut index = None;
        let mut form = None;
        for (name, value) in self.entries(metaindex, &block) {
            let Some(handle) = handle(&mut Reader::new(&value)) else {
                self.damaged(
                    metaindex.offset,
                    format!("metaindex entry {}", String::from_utf8_lossy(&name)),
                );
                continue;
            };
            match name.as_slice() {
                b"rocksdb.index" => index = Some(handle),
                b"rocksdb.properties" => {
                    if let Some(block) = self.block(handle)? {
                        form = self.index_form(handle, &block);
                    }
                }
                _ => drop(self.block(handle)?),
            }
        }
        match (index, form) {
            (Some(index), Some(form)) => self.walk_index(index, form, form.kind == 2),
            (None, _) => {
                self.damaged(metaindex.offset, "table without an index".to_owned());
                Ok(())
            }
            (Some(index), None) => {
                self.block(index)?;
                if self.check.damage.is_empty() {
                    self.damaged(metaindex.offset, "table without properties".to_owned());
                }
                Ok(())
            }
        }
    }

    fn walk_index(&mut self, index: Handle, form: IndexForm, of_indexes: bool) -> io::Result<()> {
        let Some(block) = self.block(index)? else {
            return Ok(());
        };
        let Some(handles) = index_handles(&block, form) else {
            self.damaged(index.offset, "table index cannot be understood".to_owned());
            return Ok(());
        };
        for handle in handles {
            if of_indexes {
                self.walk_index(handle, form, false)?;
            } else {
                self.block(handle)?;
            }
        }
        Ok(())
    }

    fn damaged(&mut self, offset: u64, what: String) {
        self.check.damage.push((offset, what));
    }

    /// The block's bytes if its checksum is right and it is not compressed; otherwise notes the damage.
    fn block(&mut self, handle: Handle) -> io::Result<Option<Vec<u8>>> {
        let fits = handle.bytes <= BLOCK_BYTES_MAX
            && handle
                .offset
                .checked_add(handle.bytes + TRAILER_BYTES)
                .is_some_and(|end| end <= self.bytes - FOOTER_BYTES);
        if !fits {
            self.damaged(
                handle.offset.min(self.bytes),
                format!("block of {} bytes is not within the file", handle.bytes),
            );
            return Ok(None);
        }
        let mut block = vec![0; (handle.bytes + TRAILER_BYTES) as usize];
        self.file.read_exact_at(&mut block, handle.offset)?;
        let body = handle.bytes as usize;
        let stored = Reader::new(&block[body + 1..]).u32().unwrap_or_default();
        let computed = self
            .checksum
            .of(&block[..=body])
            .wrapping_add(context(self.base, handle.offset));
        if stored != computed {
            let what = format!(
                "table block checksum: stored {stored:#010x}, computed {computed:#010x} over {} bytes",
                handle.bytes
            );
            self.damaged(handle.offset, what);
            return Ok(None);
        }
        if block[body] != 0 {
            self.damaged(
                handle.offset,
                format!(
                    "table block compressed by method {}, which is never used here",
                    block[body]
                ),
            );
            return Ok(None);
        }
        self.check.intact.push(handle);
        block.truncate(body);
        Ok(Some(block))
    }

    fn entries(&mut self, at: Handle, block: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        block_entries(block).unwrap_or_else(|| {
            self.damaged(at.offset, "table block cannot be understood".to_owned());
            Vec::new()
        })
    }

    fn index_form(&mut self, at: Handle, properties: &[u8]) -> Option<IndexForm> {
        let mut form = IndexForm::default();
        for (name, value) in self.entries(at, properties) {
            let mut value = Reader::new(&value);
            match name.as_slice() {
                b"rocksdb.index.value.is.delta.encoded" => form.delta_values = value.varint()? != 0,
                b"rocksdb.block.based.table.index.type" => form.kind = value.u32()?,
                _ => {}
            }
        }
        Some(form)
    }
}

fn handle(input: &mut Reader<'_>) -> Option<Handle> {
    Some(Handle {
        offset: input.varint()?,
        bytes: input.varint()?,
    })
}

/// The part of a block that holds entries: without the restart points and their count.
fn entry_bytes(block: &[u8]) -> Option<&[u8]> {
    let split = block.len().checked_sub(4)?;
    let restarts = Reader::new(&block[split..]).u32()?;
    // The four highest bits announce other layouts (hash index, separated values); index and meta blocks never have them
    // here, except for "keys are evenly spaced", which changes nothing for a reader from the front.
    let restarts = restarts & !(1 << 29);
    if restarts >> 28 != 0 {
        return None;
    }
    block.get(..split.checked_sub(restarts as usize * 4)?)
}

pub(super) fn block_entries(block: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut input = Reader::new(entry_bytes(block)?);
    let mut entries = Vec::new();
    let mut key: Vec<u8> = Vec::new();
    while !input.is_empty() {
        let (shared, own, value) = (input.varint32()?, input.varint32()?, input.varint32()?);
        if shared as usize > key.len() {
            return None;
        }
        key.truncate(shared as usize);
        key.extend_from_slice(input.take(own as usize)?);
        entries.push((key.clone(), input.take(value as usize)?.to_vec()));
    }
    Some(entries)
}

pub(super) fn index_handles(block: &[u8], form: IndexForm) -> Option<Vec<Handle>> {
    let with_first_key = form.kind == 3;
    let mut input = Reader::new(entry_bytes(block)?);
    let mut handles: Vec<Handle> = Vec::new();
    while !input.is_empty() {
        let (shared, own) = (input.varint32()?, input.varint32()?);
        if !form.delta_values {
            input.varint32()?;
        }
        input.take(own as usize)?;
        let next = match (form.delta_values && shared != 0, handles.last()) {
            (true, Some(before)) => Handle {
                offset: before.offset.checked_add(before.bytes)?.checked_add(TRAILER_BYTES)?,
                bytes: before.bytes.checked_add_signed(input.varint_signed()?)?,
            },
            _ => handle(&mut input)?,
        };
        if with_first_key {
            input.length_prefixed()?;
        }
        handles.push(next);
    }
    Some(handles)
}
