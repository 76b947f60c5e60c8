//! Cutting what a power loss left behind the last synced byte.
//!
//! Recovery is strict: bytes that are neither whole records nor a torn record end it with an error, because a flipped bit
//! in acknowledged data looks just like that. After a power loss the file system may have kept such bytes from a write
//! that was never synced, and never acknowledged. The writer notes from time to time how far it has synced (a lower bound), and
//! it never begins a write before the one before is synced. So bytes are cut only if they lie beyond the mark **and** no
//! whole record lies behind them: one that does is proof that what stands before it was synced and acknowledged.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::directory::Directory;
use super::files::{self, LogCheck};
use super::log_records::TailKind;
use super::report::{Finding, Place};
use crate::directory::{DATABASE_FOLDER, located};
use crate::error::StorageError;

/// What `repair` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Nothing needed to be cut.
    Nothing,
    /// A file was cut; the bytes were kept aside.
    Cut {
        /// The file, within the directory.
        file: String,
        /// Its new length.
        offset: u64,
        /// How many bytes were cut.
        bytes: u64,
        /// Where they are now.
        kept: PathBuf,
    },
}

/// Why `repair` changed nothing.
#[derive(Debug, Error)]
pub enum RepairError {
    /// The directory cannot be read or written, is in use, or is not one of nsquorum's.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Acknowledged data are damaged: cutting would lose them. Trying again cannot help: restore the directory from a backup, or
    /// empty it and let the node join its cluster again.
    #[error("{}; nothing was changed: restore the directory, or replace the node", list(.0))]
    Refused(Vec<Finding>),
}

fn list(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Cuts the newest write-ahead log of a stopped node at its first bad record, if that was never acknowledged.
///
/// # Errors
/// See [`RepairError`]. After an error while cutting the directory is as before or already cut; running it again is safe.
pub fn repair(dir: &Path) -> Result<Repair, RepairError> {
    let directory = Directory::for_writing(dir)?;
    let mut refused = Vec::new();
    let mark = directory.mark().unwrap_or_else(|finding| {
        refused.push(finding);
        None
    });
    let folder = directory.database();
    let check = files::check(&folder, DATABASE_FOLDER, mark).map_err(|error| located("read", &folder, &error))?;
    let newest = check.logs.last();
    let cut = newest.and_then(cut_of);
    let newest_file = newest.map(|log| log_name(log.number));
    refused.extend(
        check
            .findings
            .iter()
            .filter(|finding| !in_file(finding, newest_file.as_deref()))
            .cloned(),
    );
    match (newest, cut) {
        (Some(log), Some(offset)) => {
            if let Some(why) = refusal(log, offset) {
                let file = log_name(log.number);
                refused.extend(
                    check
                        .findings
                        .iter()
                        .filter(|finding| in_file(finding, Some(&file)))
                        .cloned(),
                );
                refused.push(Finding {
                    place: Place::File { file, offset },
                    what: why,
                });
            }
            if !refused.is_empty() {
                return Err(RepairError::Refused(refused));
            }
            Ok(cut_at(dir, &folder, log, offset)?)
        }
        _ if refused.is_empty() && check.findings.is_empty() => Ok(Repair::Nothing),
        _ => {
            refused.extend(
                check
                    .findings
                    .into_iter()
                    .filter(|finding| in_file(finding, newest_file.as_deref())),
            );
            Err(RepairError::Refused(refused))
        }
    }
}

fn log_name(number: u64) -> String {
    format!("{}/{number:06}.log", DATABASE_FOLDER)
}

fn in_file(finding: &Finding, name: Option<&str>) -> bool {
    matches!(&finding.place, Place::File { file, .. } if Some(file.as_str()) == name)
}

/// Where the first bad record begins.
fn cut_of(log: &LogCheck) -> Option<u64> {
    log.scan.damage.iter().map(|damage| damage.record).min().or_else(|| {
        log.scan
            .tail
            .filter(|tail| tail.kind == TailKind::Torn)
            .map(|tail| tail.offset)
    })
}

fn refusal(log: &LogCheck, offset: u64) -> Option<String> {
    if offset < log.durable {
        Some(format!(
            "the first bad record begins here, below the {} bytes that are known to be synced",
            log.durable
        ))
    } else if log.scan.records_behind_damage > 0 {
        Some(format!(
            "{} whole records lie behind the first bad one, which was therefore synced",
            log.scan.records_behind_damage
        ))
    } else {
        None
    }
}

fn cut_at(dir: &Path, folder: &Path, log: &LogCheck, offset: u64) -> Result<Repair, StorageError> {
    let path = folder.join(format!("{:06}.log", log.number));
    let cutting = || -> io::Result<PathBuf> {
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        let kept = keep(dir, &mut file, offset)?;
        file.set_len(offset)?;
        file.sync_all()?;
        Ok(kept)
    };
    let kept = cutting().map_err(|error| located("cut", &path, &error))?;
    let bytes = log.scan.file_bytes - offset;
    Ok(Repair::Cut {
        file: log_name(log.number),
        offset,
        bytes,
        kept,
    })
}

/// Copies the bytes from `offset` on to a new file `repaired-N`, durably.
fn keep(dir: &Path, file: &mut File, offset: u64) -> io::Result<PathBuf> {
    let (mut copy, path) = new_file(dir)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut piece = [0; 1 << 14];
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            break;
        }
        copy.write_all(&piece[..count])?;
    }
    copy.sync_all()?;
    File::open(dir)?.sync_all()?;
    Ok(path)
}

fn new_file(dir: &Path) -> io::Result<(File, PathBuf)> {
    for number in 1u32.. {
        let path = dir.join(format!("repaired-{number}"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no free name for the bytes that are cut"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn kept_bytes_never_overwrite_earlier_ones() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("repaired-1"), b"earlier").unwrap();
        let path = dir.path().join("log");
        fs::write(&path, b"keep|cut").unwrap();
        let mut file = File::open(&path).unwrap();
        let kept = keep(dir.path(), &mut file, 5).unwrap();
        assert_eq!(kept, dir.path().join("repaired-2"));
        assert_eq!(fs::read(kept).unwrap(), b"cut");
        assert_eq!(fs::read(dir.path().join("repaired-1")).unwrap(), b"earlier");
    }
}
