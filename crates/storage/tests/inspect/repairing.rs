use std::fs;
use std::path::{Path, PathBuf};

use nsquorum_storage::inspect::{Outcome, Place, Repair, RepairError, check_before_recovery, repair};
use nsquorum_storage::{RocksStore, StorageError};

use crate::node::{self, options};

/// A node's directory, its newest write-ahead log, and that log's name in reports.
fn setup() -> (tempfile::TempDir, PathBuf, String) {
    let dir = tempfile::tempdir().unwrap();
    node::make(dir.path());
    let newest = node::files(dir.path())
        .into_iter()
        .filter(|file| file.starts_with("db") && file.extension().is_some_and(|extension| extension == "log"))
        .max()
        .unwrap();
    let path = dir.path().join(&newest);
    assert!(fs::metadata(&path).unwrap().len() > 1000, "the log has records");
    (dir, path, newest.to_str().unwrap().to_owned())
}

/// Writes the mark as the store writes it.
fn mark(dir: &Path, log: &Path, bytes: u64) {
    let number: u64 = log.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let mut record = b"NSQS\x01\0\0\0".to_vec();
    record.extend(number.to_le_bytes());
    record.extend(bytes.to_le_bytes());
    record.extend([0; 4]);
    let crc = crc32c(&record);
    record.extend(crc.to_le_bytes());
    fs::write(dir.join("synced"), record).unwrap();
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// Bytes that are no record: a whole header with a length that fits, and a wrong checksum.
fn garbage() -> Vec<u8> {
    let mut bytes = vec![0xa5; 60];
    bytes[4] = 20;
    bytes[5] = 0;
    bytes[6] = 1;
    bytes
}

fn refused(result: Result<Repair, RepairError>) -> String {
    match result {
        Err(error @ RepairError::Refused(_)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn garbage_behind_the_synced_bytes_is_cut_and_kept_and_the_node_starts() {
    let (dir, log, name) = setup();
    let before = node::read_all_of_copy(dir.path());
    let good = fs::read(&log).unwrap();
    mark(dir.path(), &log, good.len() as u64);
    fs::write(&log, [good.clone(), garbage()].concat()).unwrap();

    let report = node::check(dir.path());
    assert_eq!(report.outcome(), Outcome::Damaged);
    let place = Place::File {
        file: name.clone(),
        offset: good.len() as u64,
    };
    assert_eq!(report.findings[0].place, place, "{report}");
    assert!(report.findings[0].what.contains("repair"), "{report}");
    assert!(
        RocksStore::open(options(dir.path())).is_err(),
        "strict recovery refuses garbage"
    );

    let kept = dir.path().join("repaired-1");
    let cut = Repair::Cut {
        file: name,
        offset: good.len() as u64,
        bytes: 60,
        kept: kept.clone(),
    };
    assert_eq!(repair(dir.path()).unwrap(), cut);
    assert_eq!(fs::read(&log).unwrap(), good);
    assert_eq!(fs::read(kept).unwrap(), garbage());
    assert_eq!(node::check(dir.path()).outcome(), Outcome::Clean);
    assert_eq!(repair(dir.path()).unwrap(), Repair::Nothing);
    assert_eq!(node::read_all_of_copy(dir.path()), before);
}

#[test]
fn a_torn_record_is_no_damage_and_may_be_cut() {
    let (dir, log, name) = setup();
    let good = fs::read(&log).unwrap();
    mark(dir.path(), &log, good.len() as u64);
    // The beginning of the first record again, as if it was the next one.
    fs::write(&log, [&good[..], &good[..12]].concat()).unwrap();
    let report = node::check(dir.path());
    assert_eq!(report.outcome(), Outcome::Clean, "{report}");
    assert_eq!(
        report.notes[0].place,
        Place::File {
            file: name,
            offset: good.len() as u64
        }
    );
    assert!(report.notes[0].what.contains("unsynced tail of 12 bytes"), "{report}");
    assert!(matches!(repair(dir.path()).unwrap(), Repair::Cut { bytes: 12, .. }));
    assert_eq!(fs::read(&log).unwrap(), good);
}

#[test]
fn a_bad_record_below_the_mark_is_never_cut() {
    let (dir, log, name) = setup();
    let mut bytes = fs::read(&log).unwrap();
    mark(dir.path(), &log, bytes.len() as u64);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&log, &bytes).unwrap();
    let why = refused(repair(dir.path()));
    assert!(why.contains(&name) && why.contains("synced"), "{why}");
    assert!(why.contains("restore"), "it says what to do: {why}");
    assert_eq!(fs::read(&log).unwrap(), bytes, "nothing was changed");
    assert!(!dir.path().join("repaired-1").exists());
}

#[test]
fn a_log_that_lost_synced_bytes_is_not_called_repaired() {
    let (dir, log, _) = setup();
    let bytes = fs::read(&log).unwrap();
    mark(dir.path(), &log, bytes.len() as u64);
    fs::write(&log, &bytes[..bytes.len() - 3]).unwrap();
    assert_eq!(node::check(dir.path()).outcome(), Outcome::Damaged);
    refused(repair(dir.path()));
    assert_eq!(fs::metadata(&log).unwrap().len(), bytes.len() as u64 - 3);
}

/// The mark is only a lower bound: what stands before a whole record was synced before that record was begun.
#[test]
fn a_bad_record_with_whole_ones_behind_it_is_never_cut() {
    let (dir, log, _) = setup();
    let mut bytes = fs::read(&log).unwrap();
    mark(dir.path(), &log, 0);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&log, &bytes).unwrap();
    let why = refused(repair(dir.path()));
    assert!(why.contains("whole records lie behind"), "{why}");
    assert_eq!(fs::read(&log).unwrap(), bytes);
}

#[test]
fn damage_elsewhere_stops_a_repair() {
    let (dir, log, _) = setup();
    let good = fs::read(&log).unwrap();
    mark(dir.path(), &log, good.len() as u64);
    let bad = [good, garbage()].concat();
    fs::write(&log, &bad).unwrap();
    let table = node::files(dir.path())
        .into_iter()
        .find(|file| file.starts_with("db") && file.extension().is_some_and(|extension| extension == "sst"))
        .unwrap();
    let mut bytes = fs::read(dir.path().join(&table)).unwrap();
    bytes[10] ^= 1;
    fs::write(dir.path().join(&table), bytes).unwrap();
    let why = refused(repair(dir.path()));
    assert!(why.contains(table.to_str().unwrap()), "{why}");
    assert_eq!(fs::read(&log).unwrap(), bad);
}

#[test]
fn a_mark_that_cannot_be_read_stops_a_repair() {
    let (dir, log, _) = setup();
    let good = fs::read(&log).unwrap();
    fs::write(&log, [good, garbage()].concat()).unwrap();
    fs::write(dir.path().join("synced"), [7; 32]).unwrap();
    let why = refused(repair(dir.path()));
    assert!(why.contains("synced at byte 0"), "{why}");
}

#[test]
fn a_clean_directory_needs_no_repair_and_one_in_use_is_refused() {
    let (dir, _, _) = setup();
    assert_eq!(repair(dir.path()).unwrap(), Repair::Nothing);
    let _held = nsquorum_storage::DirectoryLock::acquire(dir.path()).unwrap();
    assert!(matches!(
        repair(dir.path()),
        Err(RepairError::Storage(StorageError::InUse { .. }))
    ));
}

/// RocksDB's replay ends silently at a length that points past the end of the file.
#[test]
fn a_start_is_warned_of_a_log_that_recovery_would_end_early() {
    let (dir, log, name) = setup();
    check_before_recovery(dir.path()).unwrap();
    let good = fs::read(&log).unwrap();
    let mut last = 0;
    let mut at = 0;
    while at + 7 <= good.len() {
        last = at;
        at += 7 + usize::from(u16::from_le_bytes([good[at + 4], good[at + 5]]));
        if 32_768 - at % 32_768 < 7 {
            at += 32_768 - at % 32_768;
        }
    }
    let mut bytes = good.clone();
    bytes[last + 5] ^= 0x40;
    fs::write(&log, &bytes).unwrap();
    match check_before_recovery(dir.path()) {
        Err(StorageError::Corrupt { what, .. }) => assert!(what.contains(&name), "{what}"),
        other => panic!("{other:?}"),
    }
    match RocksStore::open(node::options(dir.path())) {
        Err(StorageError::Corrupt { what, .. }) => assert!(what.contains(&name), "{what}"),
        other => panic!("a store starts with less than was acknowledged: {other:?}"),
    }
    // What a crash leaves behind is no reason to refuse.
    fs::write(&log, [&good[..], &good[..12]].concat()).unwrap();
    check_before_recovery(dir.path()).unwrap();
}
