//! Which files belong to the database: the manifest, read without RocksDB.
//!
//! A manifest is a log whose records are version edits. Folding them gives the table and blob files that must exist and
//! the write-ahead logs that still count. It is read here, and not asked of an opened database, because damage is often what
//! keeps the database from opening; and a file that no edit names (left behind by a crash in mid-flush) must not be
//! called damaged.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::coding::Reader;
use super::log_records::{self, Damage, Scan};

/// A table file of the current version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableFile {
    pub(crate) bytes: u64,
    /// The lowest blob file that it points into.
    pub(crate) oldest_blob: Option<u64>,
}

/// A blob file that some edit added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlobFile {
    pub(crate) records: u64,
    /// Sum of the records' bytes, headers included.
    pub(crate) record_bytes: u64,
    pub(crate) garbage_records: u64,
}

/// One column family's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Family {
    pub(crate) name: String,
    /// Write-ahead logs with lower numbers hold nothing that is not in its tables.
    pub(crate) log_number: u64,
    pub(crate) tables: BTreeMap<u64, TableFile>,
    pub(crate) blobs: BTreeMap<u64, BlobFile>,
}

impl Family {
    /// Blob files that must exist. RocksDB drops a blob file from the version without an edit once all of it is garbage
    /// and no table refers to it, or once it is older than everything that tables refer to.
    pub(crate) fn live_blobs(&self) -> impl Iterator<Item = (u64, BlobFile)> {
        let oldest = self.tables.values().filter_map(|table| table.oldest_blob).min();
        self.blobs
            .iter()
            .filter(move |(number, blob)| {
                let linked = self.tables.values().any(|table| table.oldest_blob == Some(**number));
                oldest.is_some_and(|oldest| **number >= oldest) && (linked || blob.garbage_records < blob.records)
            })
            .map(|(number, blob)| (*number, *blob))
    }
}

/// The database's files as the manifest has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) families: BTreeMap<u32, Family>,
    /// Closed write-ahead logs that RocksDB tracks, with their synced length where it noted one.
    pub(crate) synced_logs: BTreeMap<u64, Option<u64>>,
    /// Write-ahead logs with lower numbers are not read any more, whatever their families say: a family that never held
    /// anything never gets a log number.
    first_log: u64,
}

impl Version {
    /// The lowest write-ahead log that recovery still reads.
    pub(crate) fn first_log(&self) -> u64 {
        self.families
            .values()
            .map(|family| family.log_number)
            .min()
            .unwrap_or(0)
            .max(self.first_log)
    }
}

/// A manifest that was read: the version, what the file looks like, and records that could not be understood.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) version: Version,
    pub(crate) scan: Scan,
}

/// Reads the manifest at `path`. Fails only when the file cannot be read; damage is in the answer.
pub(crate) fn read(path: &Path, number: u64) -> io::Result<Manifest> {
    let mut version = Version::default();
    let mut broken = Vec::new();
    let mut group: Vec<Edit> = Vec::new();
    let mut scan = log_records::scan(path, number, |offset, record| match Edit::parse(record) {
        Ok(edit) => {
            // Edits of an atomic group count together or, when the group is cut off, not at all.
            let last_of_group = edit.remaining_in_group.is_none_or(|remaining| remaining == 0);
            group.push(edit);
            if last_of_group {
                for edit in group.drain(..) {
                    edit.apply(&mut version);
                }
            }
        }
        Err(what) => broken.push(Damage {
            offset,
            record: offset,
            what: format!("version edit: {what}"),
        }),
    })?;
    scan.damage.extend(broken);
    Ok(Manifest { version, scan })
}

#[derive(Debug, Default)]
pub(super) struct Edit {
    family: u32,
    added: Option<String>,
    dropped: bool,
    log_number: Option<u64>,
    new_tables: Vec<(u64, TableFile)>,
    deleted_tables: Vec<u64>,
    new_blobs: Vec<(u64, BlobFile)>,
    blob_garbage: Vec<(u64, u64)>,
    logs_added: Vec<(u64, Option<u64>)>,
    logs_deleted_below: Option<u64>,
    first_log: Option<u64>,
    remaining_in_group: Option<u32>,
}

const IGNORABLE: u32 = 1 << 13;

impl Edit {
    pub(super) fn parse(record: &[u8]) -> Result<Self, &'static str> {
        let mut edit = Self::default();
        let mut input = Reader::new(record);
        while !input.is_empty() {
            let tag = input.varint32().ok_or("tag")?;
            edit.field(tag, &mut input)?;
        }
        Ok(edit)
    }

    fn field(&mut self, tag: u32, input: &mut Reader<'_>) -> Result<(), &'static str> {
        match tag {
            1 => drop(input.length_prefixed().ok_or("comparator")?),
            2 => self.log_number = Some(input.varint().ok_or("log number")?),
            10 => self.first_log = Some(input.varint().ok_or("lowest log number")?),
            3 | 4 | 9 => drop(input.varint().ok_or("file or sequence number")?),
            5 => {
                input.varint32().ok_or("compaction cursor")?;
                input.length_prefixed().ok_or("compaction cursor")?;
            }
            6 => {
                input.varint32().ok_or("deleted file")?;
                self.deleted_tables.push(input.varint().ok_or("deleted file")?);
            }
            103 => self.new_tables.push(new_table(input).ok_or("new file")?),
            200 => self.family = input.varint32().ok_or("column family")?,
            201 => {
                let name = input.length_prefixed().ok_or("column family name")?;
                self.added = Some(String::from_utf8_lossy(name).into_owned());
            }
            202 => self.dropped = true,
            203 => drop(input.varint32().ok_or("highest column family")?),
            300 => self.remaining_in_group = Some(input.varint32().ok_or("atomic group")?),
            400 => self.new_blobs.push(new_blob(input).ok_or("new blob file")?),
            401 => self.blob_garbage.push(blob_garbage(input).ok_or("blob garbage")?),
            tag if tag & IGNORABLE != 0 => {
                let field = input.length_prefixed().ok_or("ignorable field")?;
                match tag - IGNORABLE {
                    7 => self.logs_added.push(log_added(field).ok_or("write-ahead log added")?),
                    8 => {
                        let below = Reader::new(field).varint().ok_or("write-ahead logs deleted")?;
                        self.logs_deleted_below = Some(below);
                    }
                    _ => {}
                }
            }
            _ => return Err("a field that this version does not know"),
        }
        Ok(())
    }

    pub(super) fn apply(self, version: &mut Version) {
        if let Some(below) = self.logs_deleted_below {
            version.synced_logs = version.synced_logs.split_off(&below);
        }
        version.synced_logs.extend(self.logs_added);
        version.first_log = version.first_log.max(self.first_log.unwrap_or(0));
        if self.dropped {
            version.families.remove(&self.family);
            return;
        }
        let family = version.families.entry(self.family).or_default();
        if let Some(name) = self.added {
            family.name = name;
        }
        if self.family == 0 && family.name.is_empty() {
            family.name = "default".to_owned();
        }
        if let Some(number) = self.log_number {
            family.log_number = family.log_number.max(number);
        }
        for number in self.deleted_tables {
            family.tables.remove(&number);
        }
        family.tables.extend(self.new_tables);
        family.blobs.extend(self.new_blobs);
        for (number, records) in self.blob_garbage {
            if let Some(blob) = family.blobs.get_mut(&number) {
                blob.garbage_records = blob.garbage_records.saturating_add(records);
            }
        }
    }
}

fn new_table(input: &mut Reader<'_>) -> Option<(u64, TableFile)> {
    let _level = input.varint32()?;
    let number = input.varint()?;
    let bytes = input.varint()?;
    let _smallest = input.length_prefixed()?;
    let _largest = input.length_prefixed()?;
    let _smallest_sequence = input.varint()?;
    let _largest_sequence = input.varint()?;
    let mut table = TableFile {
        bytes,
        oldest_blob: None,
    };
    loop {
        match input.varint32()? {
            1 => return Some((number, table)),
            4 => table.oldest_blob = Some(Reader::new(input.length_prefixed()?).varint()?).filter(|blob| *blob != 0),
            _ => drop(input.length_prefixed()?),
        }
    }
}

fn new_blob(input: &mut Reader<'_>) -> Option<(u64, BlobFile)> {
    let number = input.varint()?;
    let blob = BlobFile {
        records: input.varint()?,
        record_bytes: input.varint()?,
        garbage_records: 0,
    };
    let _checksum_method = input.length_prefixed()?;
    let _checksum = input.length_prefixed()?;
    skip_custom_fields(input)?;
    Some((number, blob))
}

fn blob_garbage(input: &mut Reader<'_>) -> Option<(u64, u64)> {
    let number = input.varint()?;
    let records = input.varint()?;
    let _bytes = input.varint()?;
    skip_custom_fields(input)?;
    Some((number, records))
}

fn skip_custom_fields(input: &mut Reader<'_>) -> Option<()> {
    while input.varint32()? != 0 {
        input.length_prefixed()?;
    }
    Some(())
}

fn log_added(field: &[u8]) -> Option<(u64, Option<u64>)> {
    let mut input = Reader::new(field);
    let number = input.varint()?;
    let mut synced = None;
    loop {
        match input.varint32()? {
            1 => return Some((number, synced)),
            2 => synced = Some(input.varint()?),
            _ => return None,
        }
    }
}
