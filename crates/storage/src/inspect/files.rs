//! Check of the database's files, one by one, without RocksDB.
//!
//! Goes from `CURRENT` to the manifest, from the manifest to the table and blob files that must exist, and through every
//! write-ahead log. A flipped bit is thereby named with the file and the offset it lies in, whether or not RocksDB would open
//! the database, notice, or silently take it for the end of a log.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use super::log_records::{self, Scan, TailKind};
use super::manifest::{self, Version};
use super::report::{Finding, Place};
use super::{blob, table};

/// What is in the database's folder, by number.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) logs: BTreeSet<u64>,
    pub(crate) tables: BTreeSet<u64>,
    pub(crate) blobs: BTreeSet<u64>,
    pub(crate) manifests: BTreeSet<u64>,
}

/// The write-ahead log that a sync covered, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DurableMark {
    pub(crate) log: u64,
    pub(crate) bytes: u64,
}

/// One write-ahead log that recovery reads.
#[derive(Debug)]
pub(crate) struct LogCheck {
    pub(crate) number: u64,
    pub(crate) scan: Scan,
    /// Bytes known to be synced, 0 if nothing is known.
    pub(crate) durable: u64,
}

/// The outcome of the checks of files.
#[derive(Debug, Default)]
pub(crate) struct FileCheck {
    pub(crate) findings: Vec<Finding>,
    pub(crate) notes: Vec<Finding>,
    /// What the manifest says; `None` if there is no telling.
    pub(crate) version: Option<Version>,
    /// The manifest is damaged: the database's own reader may not come to an end of it.
    pub(crate) manifest_is_damaged: bool,
    pub(crate) logs: Vec<LogCheck>,
    pub(crate) tables: u64,
    pub(crate) blobs: u64,
    pub(crate) bytes: u64,
}

impl FileCheck {
    fn damaged(&mut self, file: impl Into<String>, offset: u64, what: impl Into<String>) {
        self.findings.push(Finding {
            place: Place::File {
                file: file.into(),
                offset,
            },
            what: what.into(),
        });
    }

    fn note(&mut self, file: impl Into<String>, offset: u64, what: impl Into<String>) {
        self.notes.push(Finding {
            place: Place::File {
                file: file.into(),
                offset,
            },
            what: what.into(),
        });
    }
}

/// The numbered files of a database's folder.
pub(crate) fn list(folder: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let numbered = |suffix: &str| name.strip_suffix(suffix).and_then(|digits| digits.parse::<u64>().ok());
        if let Some(number) = numbered(".log") {
            listing.logs.insert(number);
        } else if let Some(number) = numbered(".sst") {
            listing.tables.insert(number);
        } else if let Some(number) = numbered(".blob") {
            listing.blobs.insert(number);
        } else if let Some(number) = name.strip_prefix("MANIFEST-").and_then(|digits| digits.parse().ok()) {
            listing.manifests.insert(number);
        }
    }
    Ok(listing)
}

/// Checks every file of the database in `folder`; `named` is how the folder is called in findings. Fails only where a file cannot be read.
pub(crate) fn check(folder: &Path, named: &str, mark: Option<DurableMark>) -> io::Result<FileCheck> {
    let mut check = FileCheck::default();
    let listing = list(folder)?;
    let version = current_version(folder, named, &listing, &mut check)?;
    check_logs(folder, named, &listing, version.as_ref(), mark, &mut check)?;
    if let Some(version) = &version {
        check_tables(folder, named, &listing, version, &mut check)?;
        check_blobs(folder, named, &listing, version, &mut check)?;
    }
    check.version = version;
    Ok(check)
}

/// Only what recovery reads first: `CURRENT`, the manifest and the write-ahead logs.
pub(crate) fn check_logs_only(folder: &Path, named: &str, mark: Option<DurableMark>) -> io::Result<FileCheck> {
    let mut check = FileCheck::default();
    let listing = list(folder)?;
    let version = current_version(folder, named, &listing, &mut check)?;
    check_logs(folder, named, &listing, version.as_ref(), mark, &mut check)?;
    Ok(check)
}

/// The version of the current manifest; `None` if there is no telling which files belong to the database.
fn current_version(
    folder: &Path,
    named: &str,
    listing: &Listing,
    check: &mut FileCheck,
) -> io::Result<Option<Version>> {
    let current = match fs::read(folder.join("CURRENT")) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if listing.logs.is_empty() && listing.manifests.is_empty() {
                check.note(format!("{named}/CURRENT"), 0, "no database yet");
            } else {
                check.damaged(
                    format!("{named}/CURRENT"),
                    0,
                    "missing: nothing says which manifest is current",
                );
            }
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let named_by_current = std::str::from_utf8(&current)
        .ok()
        .and_then(|text| text.strip_suffix('\n'))
        .and_then(|text| text.strip_prefix("MANIFEST-"))
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok());
    let Some(number) = named_by_current.filter(|number| listing.manifests.contains(number)) else {
        let text = String::from_utf8_lossy(&current);
        check.damaged(
            format!("{named}/CURRENT"),
            0,
            format!("names {text:?}, which is no manifest here"),
        );
        return Ok(None);
    };
    let name = format!("{named}/MANIFEST-{number:06}");
    let manifest = manifest::read(&folder.join(format!("MANIFEST-{number:06}")), number)?;
    check.bytes += manifest.scan.file_bytes;
    check.manifest_is_damaged = !manifest.scan.damage.is_empty();
    for damage in &manifest.scan.damage {
        check.damaged(&name, damage.offset, &damage.what);
    }
    match manifest.scan.tail {
        // RocksDB writes a manifest record in one call and syncs it before it counts, so a torn one never counted.
        Some(tail) => {
            let bytes = manifest.scan.file_bytes - tail.offset;
            check.note(&name, tail.offset, format!("unsynced tail of {bytes} bytes"));
        }
        None if manifest.scan.records == 0 => check.damaged(&name, 0, "holds no version"),
        None => {}
    }
    Ok(Some(manifest.version))
}

fn check_logs(
    folder: &Path,
    named: &str,
    listing: &Listing,
    version: Option<&Version>,
    mark: Option<DurableMark>,
    check: &mut FileCheck,
) -> io::Result<()> {
    let first = version.map_or(0, Version::first_log);
    let mut durable: BTreeMap<u64, u64> = BTreeMap::new();
    for (number, bytes) in version.into_iter().flat_map(|version| &version.synced_logs) {
        durable.insert(*number, bytes.unwrap_or(0));
    }
    if let Some(mark) = mark {
        let known = durable.entry(mark.log).or_default();
        *known = mark.bytes.max(*known);
    }
    for (number, bytes) in durable
        .range(first..)
        .filter(|(number, _)| !listing.logs.contains(number))
    {
        if *bytes > 0 {
            let name = format!("{named}/{number:06}.log");
            check.damaged(
                name,
                0,
                format!("missing: its first {bytes} bytes were synced and are still needed"),
            );
        }
    }
    for number in &listing.logs {
        let name = format!("{named}/{number:06}.log");
        if *number < first {
            check.note(name, 0, "obsolete write-ahead log, not read");
            continue;
        }
        let scan = log_records::scan(&folder.join(format!("{number:06}.log")), *number, |_, _| {})?;
        check.bytes += scan.file_bytes;
        let durable = durable.get(number).copied().unwrap_or(0);
        for damage in &scan.damage {
            let what = if damage.record >= durable && durable > 0 {
                format!(
                    "{}; beyond the synced {durable} bytes, so `nsquorum repair` may cut it",
                    damage.what
                )
            } else {
                damage.what.clone()
            };
            check.damaged(&name, damage.offset, what);
        }
        if scan.damage_not_listed > 0 {
            let offset = scan.damage.last().map_or(0, |damage| damage.offset);
            check.damaged(
                &name,
                offset,
                format!("{} more places of damage behind this one", scan.damage_not_listed),
            );
        }
        if scan.damage.is_empty() && scan.intact_bytes < durable {
            let at = scan.intact_bytes;
            check.damaged(
                &name,
                at,
                format!("whole records end here, but {durable} bytes were synced"),
            );
        } else if let Some(tail) = scan.tail {
            let bytes = scan.file_bytes - tail.offset;
            let kind = match tail.kind {
                TailKind::Torn => "a record that a crash cut off",
                TailKind::Zeros => "zeros",
                TailKind::Recycled => "records of the file's earlier life",
            };
            check.note(&name, tail.offset, format!("unsynced tail of {bytes} bytes: {kind}"));
        }
        check.logs.push(LogCheck {
            number: *number,
            scan,
            durable,
        });
    }
    Ok(())
}

fn check_tables(
    folder: &Path,
    named: &str,
    listing: &Listing,
    version: &Version,
    check: &mut FileCheck,
) -> io::Result<()> {
    let mut known = BTreeSet::new();
    for (number, file) in version.families.values().flat_map(|family| &family.tables) {
        known.insert(*number);
        let name = format!("{named}/{number:06}.sst");
        if !listing.tables.contains(number) {
            check.damaged(name, 0, "missing: the manifest names it");
            continue;
        }
        let found = table::check(&folder.join(format!("{number:06}.sst")), file.bytes)?;
        for (offset, what) in found.damage {
            check.damaged(&name, offset, what);
        }
        check.tables += 1;
        check.bytes += file.bytes;
    }
    for number in listing.tables.difference(&known) {
        check.note(
            format!("{named}/{number:06}.sst"),
            0,
            "not named by the manifest, not read",
        );
    }
    Ok(())
}

fn check_blobs(
    folder: &Path,
    named: &str,
    listing: &Listing,
    version: &Version,
    check: &mut FileCheck,
) -> io::Result<()> {
    let mut live = BTreeSet::new();
    for (id, family) in &version.families {
        for (number, blob) in family.live_blobs() {
            if !listing.blobs.contains(&number) {
                check.damaged(format!("{named}/{number:06}.blob"), 0, "missing: the manifest names it");
                continue;
            }
            live.insert(number);
            let path = folder.join(format!("{number:06}.blob"));
            check.blobs += 1;
            check.bytes += fs::metadata(&path)?.len();
            if let Some((offset, what)) = blob::check(&path, *id, blob)? {
                check.damaged(format!("{named}/{number:06}.blob"), offset, what);
            }
        }
    }
    // A file that was on its way out may have its name back after a power cut, and its end gone: it was shrunk before it was removed.
    for number in listing.blobs.difference(&live) {
        check.note(
            format!("{named}/{number:06}.blob"),
            0,
            "nothing in the manifest refers to it, not read",
        );
    }
    Ok(())
}
