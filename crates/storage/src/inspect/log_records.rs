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
use std::io;
use std::path::Path;

use super::fragments::{Blocks, Found, Fragment, Part};

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

/// Reads a log file from end to end; `on_record` gets the offset and the payload of every whole record.
///
/// `log_number` is the number in the file's name. Behind damage reading goes on where the next record can be recognised, at
/// the latest with the next block. Fails only when the file cannot be read.
pub(crate) fn scan(path: &Path, log_number: u64, mut on_record: impl FnMut(u64, &[u8])) -> io::Result<Scan> {
    let mut blocks = Blocks::open(File::open(path)?, log_number)?;
    let scan = Scan {
        file_bytes: blocks.file_bytes(),
        ..Scan::default()
    };
    let mut assembly = Assembly {
        scan,
        open: None,
        resynchronising: false,
        zeros_from: None,
    };
    while let Some(found) = blocks.next()? {
        match found {
            Found::Padding => {}
            Found::Fragment(fragment) => assembly.fragment(&fragment, &mut on_record),
            Found::Damage { offset, what } => assembly.damage(offset, what),
            Found::Tail {
                offset,
                kind: TailKind::Zeros,
            } => assembly.zeros(offset),
            Found::Tail { offset, kind } => return Ok(assembly.end(Some(Tail { offset, kind }))),
        }
    }
    Ok(assembly.end(None))
}

/// Putting fragments together to records.
struct Assembly {
    scan: Scan,
    /// The record that is not whole yet: where it began, and its bytes so far.
    open: Option<(u64, Vec<u8>)>,
    /// After damage the fragments up to the next beginning of a record belong to nothing: one report is enough.
    resynchronising: bool,
    /// Where zeros began that may be the tail.
    zeros_from: Option<u64>,
}

impl Assembly {
    fn fragment(&mut self, fragment: &Fragment<'_>, on_record: &mut impl FnMut(u64, &[u8])) {
        self.zeros_were_no_tail();
        let misplaced = match (fragment.part, self.open.is_some()) {
            (Part::Full | Part::First | Part::About, true) => Some("a log record without an end"),
            (Part::Middle | Part::Last, false) if !self.resynchronising => Some("a log record without a beginning"),
            _ => None,
        };
        if let Some(what) = misplaced {
            let record = self.open.take().map_or(fragment.offset, |(record, _)| record);
            self.note(Damage {
                offset: record,
                record,
                what: what.to_owned(),
            });
        }
        match fragment.part {
            Part::Full => {
                on_record(fragment.offset, fragment.payload);
                self.whole(fragment.end);
            }
            Part::About => self.whole(fragment.end),
            Part::First => {
                self.resynchronising = false;
                self.open = Some((fragment.offset, fragment.payload.to_vec()));
            }
            Part::Middle => {
                if let Some((_, bytes)) = &mut self.open {
                    bytes.extend_from_slice(fragment.payload);
                }
            }
            Part::Last => {
                if let Some((record, mut bytes)) = self.open.take() {
                    bytes.extend_from_slice(fragment.payload);
                    on_record(record, &bytes);
                    self.whole(fragment.end);
                }
            }
        }
    }

    fn whole(&mut self, end: u64) {
        self.resynchronising = false;
        self.scan.records += 1;
        if self.scan.damage.is_empty() {
            self.scan.intact_bytes = end;
        } else {
            self.scan.records_behind_damage += 1;
        }
    }

    fn damage(&mut self, offset: u64, what: String) {
        self.zeros_were_no_tail();
        let record = self.open.take().map_or(offset, |(record, _)| record);
        self.note(Damage { offset, record, what });
        self.resynchronising = true;
    }

    fn zeros(&mut self, offset: u64) {
        let record = self.open.take().map_or(offset, |(record, _)| record);
        self.zeros_from.get_or_insert(record);
    }

    fn zeros_were_no_tail(&mut self) {
        if let Some(offset) = self.zeros_from.take() {
            let what = "zero bytes where a log record begins, with other bytes behind them".to_owned();
            self.note(Damage {
                offset,
                record: offset,
                what,
            });
        }
    }

    fn end(mut self, tail: Option<Tail>) -> Scan {
        if tail.is_some() {
            self.zeros_were_no_tail();
        }
        let offset_of_open = self.open.map(|(record, _)| record);
        if self.scan.damage.is_empty() {
            self.scan.tail = match (tail, offset_of_open, self.zeros_from) {
                (Some(Tail { offset, kind }), open, _) => Some(Tail {
                    offset: open.unwrap_or(offset),
                    kind,
                }),
                (None, Some(offset), _) => Some(Tail {
                    offset,
                    kind: TailKind::Torn,
                }),
                (None, None, Some(offset)) => Some(Tail {
                    offset,
                    kind: TailKind::Zeros,
                }),
                (None, None, None) => None,
            };
        }
        self.scan
    }

    fn note(&mut self, damage: Damage) {
        if self.scan.damage.len() < DAMAGE_LISTED_MAX {
            self.scan.damage.push(damage);
        } else {
            self.scan.damage_not_listed += 1;
        }
    }
}
