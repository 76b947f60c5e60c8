//! Reader of RocksDB's log record format, used by write-ahead logs (`*.log`) and manifests (`MANIFEST-*`).
//!
//! A file is a row of 32 KiB blocks. A block holds fragments: masked CRC32C (4 bytes), length (2), type (1), with the
//! recyclable types also the log's number (4), then the payload. The CRC covers everything from the type on, but **not the
//! length**. A record is one full fragment or first, middle and last fragments; fewer bytes at the end of a block than a
//! header needs are zero.
//!
//! RocksDB's own reader is built to open a database again after a crash, so it takes some damage for the end of the log:
//! a length that points past the end of the file, and a type that a flipped bit turned into a recyclable one, both end its
//! replay silently, with everything behind them. This reader is built to find damage. Where the end of a log could also be
//! a damaged header, it tries every single-bit change of length and type: if one of them makes the CRC right, the record was
//! once written whole, and what looks like a torn tail is damage. (A record torn by a crash passes that trial with a
//! probability of 24 in 2^32.)

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::checksum::masked_crc32c;
use super::coding::Reader;

const BLOCK_BYTES: usize = 32 * 1024;
const HEADER_BYTES: usize = 7;
const RECYCLABLE_HEADER_BYTES: usize = 11;

/// Places of damage listed per file; further ones are only counted, so that a file full of garbage stays a short report.
pub(crate) const DAMAGE_LISTED_MAX: usize = 32;

/// A place where a file is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Bytes from the start of the file.
    pub(crate) offset: u64,
    /// Where the record begins that this fragment belongs to: the place to cut, at or before `offset`.
    pub(crate) record: u64,
    pub(crate) what: String,
}

/// What stands behind the last whole record, when it is what a crash leaves behind and not damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TailKind {
    /// A record that the file ends in.
    Torn,
    /// Only zero bytes: allocated, never written.
    Zeros,
    /// A record of the file's earlier life as another log.
    Recycled,
}

/// The bytes behind the last whole record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) offset: u64,
    pub(crate) kind: TailKind,
}

/// What a whole log file holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scan {
    pub(crate) file_bytes: u64,
    pub(crate) records: u64,
    /// End of the last whole record before the first damage: everything below it was read and is intact.
    pub(crate) intact_bytes: u64,
    /// Whole records behind the first damage.
    pub(crate) records_behind_damage: u64,
    /// In the order of the file; at most [`DAMAGE_LISTED_MAX`].
    pub(crate) damage: Vec<Damage>,
    pub(crate) damage_not_listed: u64,
    pub(crate) tail: Option<Tail>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Full,
    First,
    Middle,
    Last,
    /// Records about the log itself (compression, timestamp sizes, the previous log): whole in one fragment.
    About,
}

fn part_of(kind: u8) -> Option<(Part, bool)> {
    Some(match kind {
        1 => (Part::Full, false),
        2 => (Part::First, false),
        3 => (Part::Middle, false),
        4 => (Part::Last, false),
        5 => (Part::Full, true),
        6 => (Part::First, true),
        7 => (Part::Middle, true),
        8 => (Part::Last, true),
        9 | 10 | 130 => (Part::About, false),
        11 | 131 => (Part::About, true),
        _ => return None,
    })
}

struct Fragment<'a> {
    offset: u64,
    end: u64,
    part: Part,
    payload: &'a [u8],
}

enum Found<'a> {
    Fragment(Fragment<'a>),
    Damage { offset: u64, what: String },
    Tail { offset: u64, kind: TailKind },
    EndOfBlock,
}

struct Blocks {
    file: File,
    log_number: u32,
    file_bytes: u64,
    block: Vec<u8>,
    /// Offset of the block in the file, and of the next fragment in the block.
    start: u64,
    at: usize,
    /// Set by the first fragment: a log is written in one of the two forms from its first byte to its last.
    recyclable: Option<bool>,
}

impl Blocks {
    fn load(&mut self, start: u64) -> io::Result<bool> {
        self.start = start;
        self.at = 0;
        let wanted = (self.file_bytes.saturating_sub(start)).min(BLOCK_BYTES as u64) as usize;
        self.block.resize(wanted, 0);
        self.file.read_exact(&mut self.block)?;
        Ok(wanted > 0)
    }

    fn is_last(&self) -> bool {
        self.start + self.block.len() as u64 == self.file_bytes
    }

    fn next(&mut self) -> Found<'_> {
        let offset = self.start + self.at as u64;
        let rest = &self.block[self.at..];
        if rest.is_empty() {
            return Found::EndOfBlock;
        }
        if rest.len() < HEADER_BYTES {
            let padding_is_zero = rest.iter().all(|byte| *byte == 0);
            let block_is_whole = self.block.len() == BLOCK_BYTES;
            self.at = self.block.len();
            return match (block_is_whole, padding_is_zero) {
                (true, true) => Found::EndOfBlock,
                (true, false) => Found::Damage {
                    offset,
                    what: "padding of a log block is not zero".into(),
                },
                (false, true) => Found::Tail {
                    offset,
                    kind: TailKind::Zeros,
                },
                (false, false) => Found::Tail {
                    offset,
                    kind: TailKind::Torn,
                },
            };
        }
        let mut header = Reader::new(rest);
        let (Some(stored), Some(length), Some(kind)) = (header.u32(), header.u16(), header.u8()) else {
            return Found::EndOfBlock;
        };
        if stored == 0 && length == 0 && kind == 0 {
            // Allocated and never written. Whether only zeros follow is for the caller, who sees the whole file.
            self.at = self.block.len();
            return match rest.iter().position(|byte| *byte != 0) {
                None => Found::Tail {
                    offset,
                    kind: TailKind::Zeros,
                },
                Some(first) => Found::Damage {
                    offset,
                    what: format!("{first} zero bytes where a log record begins, with other bytes behind them"),
                },
            };
        }
        let recyclable = part_of(kind).is_some_and(|(_, recyclable)| recyclable);
        let header_bytes = if recyclable {
            RECYCLABLE_HEADER_BYTES
        } else {
            HEADER_BYTES
        };
        let end = header_bytes + usize::from(length);
        if end > rest.len() {
            let damaged_header = restored_by_one_bit(rest, stored, length, kind);
            let (last, block_end) = (self.is_last(), self.start + self.block.len() as u64);
            self.at = match &damaged_header {
                Some((true_end, _)) => self.at + true_end,
                None => self.block.len(),
            };
            return match (damaged_header, last) {
                (Some((_, what)), _) => Found::Damage { offset, what },
                (None, true) => Found::Tail {
                    offset,
                    kind: TailKind::Torn,
                },
                (None, false) => Found::Damage {
                    offset,
                    what: format!("log record of {length} bytes does not end before its block does (at {block_end})"),
                },
            };
        }
        if recyclable && self.recyclable == Some(true) && log_number_of(rest) != Some(self.log_number) {
            self.at = self.block.len();
            return Found::Tail {
                offset,
                kind: TailKind::Recycled,
            };
        }
        let computed = masked_crc32c(&[&rest[HEADER_BYTES - 1..end]]);
        if computed != stored {
            // If the length is right, the next record follows.
            self.at = if fragment_is_intact(&rest[end..]) {
                self.at + end
            } else {
                self.block.len()
            };
            let what =
                format!("log record checksum: stored {stored:#010x}, computed {computed:#010x} over {length} bytes");
            return Found::Damage { offset, what };
        }
        let part = match part_of(kind) {
            Some((part, recyclable)) if self.recyclable.is_none_or(|seen| seen == recyclable) => {
                self.recyclable = Some(recyclable);
                part
            }
            _ => {
                self.at = self.block.len();
                return Found::Damage {
                    offset,
                    what: format!("log record of type {kind}, which has no place here"),
                };
            }
        };
        let from = self.at;
        self.at += end;
        Found::Fragment(Fragment {
            offset,
            end: self.start + self.at as u64,
            part,
            payload: &self.block[from + header_bytes..from + end],
        })
    }
}

fn log_number_of(fragment: &[u8]) -> Option<u32> {
    let mut header = Reader::new(fragment);
    header.take(HEADER_BYTES)?;
    header.u32()
}

/// Where a fragment ends that would have this length and type, if its CRC is right.
fn intact_end(rest: &[u8], stored: u32, length: u16, kind: u8) -> Option<usize> {
    let header_bytes = if part_of(kind)?.1 {
        RECYCLABLE_HEADER_BYTES
    } else {
        HEADER_BYTES
    };
    let end = header_bytes + usize::from(length);
    (end <= rest.len() && masked_crc32c(&[&[kind], &rest[HEADER_BYTES..end]]) == stored).then_some(end)
}

fn fragment_is_intact(rest: &[u8]) -> bool {
    let mut header = Reader::new(rest);
    match (header.u32(), header.u16(), header.u8()) {
        (Some(stored), Some(length), Some(kind)) => intact_end(rest, stored, length, kind).is_some(),
        _ => false,
    }
}

/// Whether changing one bit of the length or of the type makes the record whole and its CRC right: where it then ends, and
/// what to say.
fn restored_by_one_bit(rest: &[u8], stored: u32, length: u16, kind: u8) -> Option<(usize, String)> {
    let lengths = (0..16).map(|bit| length ^ (1 << bit)).find_map(|changed| {
        let end = intact_end(rest, stored, changed, kind)?;
        Some((
            end,
            format!("length of a log record reads {length}; its checksum fits {changed}"),
        ))
    });
    lengths.or_else(|| {
        (0..8).map(|bit| kind ^ (1 << bit)).find_map(|changed| {
            let end = intact_end(rest, stored, length, changed)?;
            Some((
                end,
                format!("type of a log record reads {kind}; its checksum fits {changed}"),
            ))
        })
    })
}

/// Reads a log file from end to end; `on_record` gets the offset and the payload of every whole record.
///
/// `log_number` is the number in the file's name. Behind damage reading goes on with the next block, as the records of
/// a damaged block have no reliable bounds. Fails only when the file cannot be read.
pub(crate) fn scan(path: &Path, log_number: u64, mut on_record: impl FnMut(u64, &[u8])) -> io::Result<Scan> {
    let file = File::open(path)?;
    let file_bytes = file.metadata()?.len();
    let mut blocks = Blocks {
        file,
        log_number: log_number as u32,
        file_bytes,
        block: Vec::new(),
        start: 0,
        at: 0,
        recyclable: None,
    };
    let mut scan = Scan {
        file_bytes,
        ..Scan::default()
    };
    // The record being put together: where it began, and its bytes so far.
    let mut open: Option<(u64, Vec<u8>)> = None;
    // After damage the fragments up to the next beginning of a record belong to nothing: one report is enough.
    let mut resynchronising = false;
    let mut zeros_from: Option<u64> = None;
    let mut more = blocks.load(0)?;
    while more {
        let found = blocks.next();
        if let (
            Some(zeros),
            Found::Fragment(_)
            | Found::Damage { .. }
            | Found::Tail {
                kind: TailKind::Torn, ..
            },
        ) = (zeros_from, &found)
        {
            let what = "zero bytes where a log record begins, with other bytes behind them".to_owned();
            note_damage(
                &mut scan,
                Damage {
                    offset: zeros,
                    record: zeros,
                    what,
                },
            );
            zeros_from = None;
        }
        match found {
            Found::EndOfBlock => {
                let next = blocks.start + BLOCK_BYTES as u64;
                more = blocks.load(next)?;
            }
            Found::Tail {
                kind: TailKind::Zeros,
                offset,
            } => {
                zeros_from.get_or_insert(open.as_ref().map_or(offset, |(record, _)| *record));
                open = None;
            }
            Found::Tail { offset, kind } => {
                let offset = open.take().map_or(offset, |(record, _)| record);
                if scan.damage.is_empty() {
                    scan.tail = Some(Tail { offset, kind });
                }
                return Ok(scan);
            }
            Found::Damage { offset, what } => {
                let record = open.take().map_or(offset, |(record, _)| record);
                note_damage(&mut scan, Damage { offset, record, what });
                resynchronising = true;
            }
            Found::Fragment(fragment) => {
                let misplaced = match (fragment.part, open.is_some()) {
                    (Part::Full | Part::First | Part::About, true) => Some("a log record without an end"),
                    (Part::Middle | Part::Last, false) if !resynchronising => Some("a log record without a beginning"),
                    _ => None,
                };
                if let Some(what) = misplaced {
                    let record = open.take().map_or(fragment.offset, |(record, _)| record);
                    note_damage(
                        &mut scan,
                        Damage {
                            offset: record,
                            record,
                            what: what.to_owned(),
                        },
                    );
                }
                let whole = match fragment.part {
                    Part::Full => {
                        on_record(fragment.offset, fragment.payload);
                        true
                    }
                    Part::About => true,
                    Part::First => {
                        open = Some((fragment.offset, fragment.payload.to_vec()));
                        false
                    }
                    Part::Middle | Part::Last => match (&mut open, fragment.part) {
                        (Some((_, bytes)), Part::Middle) => {
                            bytes.extend_from_slice(fragment.payload);
                            false
                        }
                        (Some((record, bytes)), _) => {
                            bytes.extend_from_slice(fragment.payload);
                            on_record(*record, bytes);
                            open = None;
                            true
                        }
                        (None, _) => false,
                    },
                };
                if matches!(fragment.part, Part::Full | Part::First | Part::About) {
                    resynchronising = false;
                }
                if whole {
                    scan.records += 1;
                    if scan.damage.is_empty() {
                        scan.intact_bytes = fragment.end;
                    } else {
                        scan.records_behind_damage += 1;
                    }
                }
            }
        }
    }
    let tail = match (open, zeros_from) {
        (Some((record, _)), _) => Some(Tail {
            offset: record,
            kind: TailKind::Torn,
        }),
        (None, Some(offset)) => Some(Tail {
            offset,
            kind: TailKind::Zeros,
        }),
        (None, None) => None,
    };
    if scan.damage.is_empty() {
        scan.tail = tail;
    }
    Ok(scan)
}

fn note_damage(scan: &mut Scan, damage: Damage) {
    if scan.damage.len() < DAMAGE_LISTED_MAX {
        scan.damage.push(damage);
    } else {
        scan.damage_not_listed += 1;
    }
}
