//! The physical layer of RocksDB's log format: fragments in blocks, and what stands where no fragment does.
//!
//! See [`super::log_records`] for the format and for what is taken for damage.

use std::fs::File;
use std::io::{self, Read};

use super::checksum::masked_crc32c;
use super::coding::Reader;
use super::log_records::TailKind;

const BLOCK_BYTES: usize = 32 * 1024;
const HEADER_BYTES: usize = 7;
const RECYCLABLE_HEADER_BYTES: usize = 11;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
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

pub(crate) struct Fragment<'a> {
    pub(crate) offset: u64,
    /// Where the next one begins.
    pub(crate) end: u64,
    pub(crate) part: Part,
    pub(crate) payload: &'a [u8],
}

pub(crate) enum Found<'a> {
    Fragment(Fragment<'a>),
    Damage {
        offset: u64,
        what: String,
    },
    Tail {
        offset: u64,
        kind: TailKind,
    },
    /// The zeros at the end of a block.
    Padding,
}

pub(crate) struct Blocks {
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
    /// The blocks of a log file whose name has this number.
    pub(crate) fn open(file: File, log_number: u64) -> io::Result<Self> {
        let file_bytes = file.metadata()?.len();
        let mut blocks = Self {
            file,
            log_number: log_number as u32,
            file_bytes,
            block: Vec::new(),
            start: 0,
            at: 0,
            recyclable: None,
        };
        blocks.load(0)?;
        Ok(blocks)
    }

    pub(crate) const fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// What stands next; `None` at the end of the file. After damage: whatever follows that can be read.
    pub(crate) fn next(&mut self) -> io::Result<Option<Found<'_>>> {
        while self.at == self.block.len() {
            if !self.load(self.start + BLOCK_BYTES as u64)? {
                return Ok(None);
            }
        }
        Ok(Some(self.in_block()))
    }

    /// Goes to the block at `start`; `false` if the file ends there.
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

    fn in_block(&mut self) -> Found<'_> {
        let offset = self.start + self.at as u64;
        let rest = &self.block[self.at..];
        if rest.len() < HEADER_BYTES {
            let padding_is_zero = rest.iter().all(|byte| *byte == 0);
            let block_is_whole = self.block.len() == BLOCK_BYTES;
            self.at = self.block.len();
            return match (block_is_whole, padding_is_zero) {
                (true, true) => Found::Padding,
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
            return Found::Padding;
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
