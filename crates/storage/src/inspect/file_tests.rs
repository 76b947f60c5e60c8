//! The readers of RocksDB's files against files that RocksDB really wrote.

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rocksdb::{ColumnFamilyDescriptor, DB, FlushOptions, Options, WriteBatch, WriteOptions};

use super::files::{self, DurableMark, FileCheck};
use super::log_records::{self, Scan, TailKind};
use super::report::Place;
use super::{manifest, table};

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_atomic_flush(true);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_wal_recovery_mode(rocksdb::DBRecoveryMode::TolerateCorruptedTailRecords);
    options
}

fn families() -> Vec<ColumnFamilyDescriptor> {
    let mut log = Options::default();
    log.set_enable_blob_files(true);
    log.set_min_blob_size(1024);
    log.set_compression_type(rocksdb::DBCompressionType::None);
    let mut rows = Options::default();
    rows.set_compression_type(rocksdb::DBCompressionType::None);
    vec![
        ColumnFamilyDescriptor::new("log", log),
        ColumnFamilyDescriptor::new("rows", rows),
    ]
}

fn open(folder: &Path) -> DB {
    DB::open_cf_descriptors(&options(), folder, families()).unwrap()
}

fn write(db: &DB, from: u64, to: u64, length: impl Fn(u64) -> usize) {
    for index in from..to {
        let mut batch = WriteBatch::default();
        let mut value = vec![index as u8; length(index)];
        value.extend(index.to_le_bytes());
        batch.put_cf(db.cf_handle("log").unwrap(), index.to_be_bytes(), &value);
        batch.put_cf(db.cf_handle("rows").unwrap(), index.to_be_bytes(), index.to_le_bytes());
        let mut sync = WriteOptions::default();
        sync.set_sync(true);
        db.write_opt(batch, &sync).unwrap();
    }
}

fn flush(db: &DB) {
    let mut wait = FlushOptions::default();
    wait.set_wait(true);
    db.flush_cfs_opt(&[db.cf_handle("log").unwrap(), db.cf_handle("rows").unwrap()], &wait)
        .unwrap();
}

/// A closed database with tables, blobs, a deleted range, and a log that was not flushed.
fn database() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("db");
    {
        let db = open(&folder);
        write(&db, 0, 40, |index| if index % 4 == 0 { 3000 } else { 40 });
        flush(&db);
        write(&db, 40, 80, |index| (index as usize * 37) % 1500);
        db.delete_range_cf(db.cf_handle("log").unwrap(), 0u64.to_be_bytes(), 10u64.to_be_bytes())
            .unwrap();
        flush(&db);
        write(&db, 80, 120, |index| if index == 100 { 90_000 } else { 100 });
        db.cancel_all_background_work(true);
    }
    (dir, folder)
}

fn newest_log(folder: &Path) -> (PathBuf, u64) {
    let number = *files::list(folder).unwrap().logs.last().unwrap();
    (folder.join(format!("{number:06}.log")), number)
}

fn check(folder: &Path, mark: Option<DurableMark>) -> FileCheck {
    files::check(folder, "db", mark).unwrap()
}

fn scan(path: &Path, number: u64) -> Scan {
    log_records::scan(path, number, |_, _| {}).unwrap()
}

#[test]
fn an_undamaged_database_is_clean() {
    let (_dir, folder) = database();
    let (path, number) = newest_log(&folder);
    let mark = DurableMark {
        log: number,
        bytes: fs::metadata(path).unwrap().len(),
    };
    let found = check(&folder, Some(mark));
    assert!(found.findings.is_empty(), "{:?}", found.findings);
    assert!(found.notes.is_empty(), "{:?}", found.notes);
    assert!(
        found.tables >= 4 && found.blobs >= 2,
        "{} tables, {} blobs",
        found.tables,
        found.blobs
    );
    assert_eq!(found.logs.iter().map(|log| log.scan.records).sum::<u64>(), 40);
}

#[test]
fn records_of_a_log_are_read_as_they_were_written() {
    let (_dir, folder) = database();
    let (path, number) = newest_log(&folder);
    let mut sequences = Vec::new();
    let scan = log_records::scan(&path, number, |_, record| {
        // A write batch begins with its sequence number and its count.
        sequences.push(u64::from_le_bytes(record[..8].try_into().unwrap()));
        assert_eq!(u32::from_le_bytes(record[8..12].try_into().unwrap()), 2);
    })
    .unwrap();
    assert_eq!(sequences.len(), 40);
    assert!(sequences.windows(2).all(|pair| pair[1] == pair[0] + 2));
    assert_eq!(scan.intact_bytes, scan.file_bytes);
    assert_eq!((scan.damage.len(), scan.tail), (0, None));
}

#[test]
fn every_byte_of_a_table_lies_in_a_block_whose_checksum_was_checked() {
    let (_dir, folder) = database();
    for number in files::list(&folder).unwrap().tables {
        let path = folder.join(format!("{number:06}.sst"));
        let bytes = fs::metadata(&path).unwrap().len();
        let mut blocks = table::check(&path, bytes).unwrap().intact;
        blocks.sort();
        let end = blocks.iter().fold(0, |end, block| {
            assert_eq!(block.offset, end, "a gap in table {number}");
            block.offset + block.bytes + 5
        });
        assert_eq!(end, bytes - 53);
    }
}

#[test]
fn the_manifest_names_the_files_that_exist() {
    let (_dir, folder) = database();
    let listing = files::list(&folder).unwrap();
    let number = *listing.manifests.last().unwrap();
    let manifest = manifest::read(&folder.join(format!("MANIFEST-{number:06}")), number).unwrap();
    let version = manifest.version;
    let tables: Vec<u64> = version
        .families
        .values()
        .flat_map(|family| family.tables.keys().copied())
        .collect();
    assert_eq!(tables.len(), listing.tables.len());
    assert!(tables.iter().all(|number| listing.tables.contains(number)));
    let names: Vec<&str> = version.families.values().map(|family| family.name.as_str()).collect();
    assert_eq!(names, ["default", "log", "rows"]);
    assert_eq!(
        version.families[&1].blobs.keys().copied().collect::<Vec<_>>(),
        listing.blobs.iter().copied().collect::<Vec<_>>()
    );
    assert_eq!(version.first_log(), *listing.logs.last().unwrap());
}

/// Every flipped bit in a file that counts is found, and found in that file.
#[test]
fn a_flipped_bit_is_named_with_its_file_and_a_place_before_it() {
    let seed = std::env::var("NSQUORUM_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    println!("NSQUORUM_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (_dir, folder) = database();
    let mut names: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| {
            !(name.starts_with("LOG") || name.starts_with("OPTIONS") || name == "IDENTITY" || name == "LOCK")
        })
        .collect();
    names.sort();
    for name in names {
        let path = folder.join(&name);
        let good = fs::read(&path).unwrap();
        for round in 0..60 {
            // Headers and footers are small: aim at both ends as often as anywhere.
            let near = good.len().min(64);
            let at = match round % 3 {
                0 => random.random_range(0..good.len()),
                1 => random.random_range(0..near),
                _ => good.len() - 1 - random.random_range(0..near),
            };
            let bit = random.random_range(0..8);
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            fs::write(&path, &bad).unwrap();
            let found = check(&folder, None);
            let named = found.findings.iter().find_map(|finding| match &finding.place {
                Place::File { file, offset } if *file == format!("db/{name}") => Some(*offset),
                _ => None,
            });
            let offset = named.unwrap_or_else(|| {
                panic!(
                    "bit {bit} of byte {at} of {} in {name} was not found: {:?} {:?}",
                    good.len(),
                    found.findings,
                    found.notes
                )
            });
            assert!(offset <= at as u64, "{name}: damage at {at} was named at {offset}");
        }
        fs::write(&path, &good).unwrap();
    }
}

/// More than a flipped bit: blocks of garbage, and files cut short.
#[test]
fn no_damage_makes_a_reader_panic() {
    let seed = std::env::var("NSQUORUM_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    println!("NSQUORUM_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (_dir, folder) = database();
    let names: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    for path in names.iter().filter(|path| path.is_file()) {
        let good = fs::read(path).unwrap();
        for _ in 0..20 {
            let mut bad = good.clone();
            let begin = random.random_range(0..=bad.len());
            let end = (begin + random.random_range(0..200)).min(bad.len());
            bad[begin..end].fill_with(|| random.random());
            if random.random() {
                bad.truncate(random.random_range(0..=bad.len()));
            }
            fs::write(path, &bad).unwrap();
            check(&folder, None);
        }
        fs::write(path, &good).unwrap();
    }
}

/// Lengths and types are the fields that RocksDB's reader takes for the end of a log.
#[test]
fn every_flipped_bit_of_the_last_record_of_a_log_is_damage() {
    let (_dir, folder) = database();
    let (path, number) = newest_log(&folder);
    let good = fs::read(&path).unwrap();
    let mut last = 0;
    log_records::scan(&path, number, |offset, _| last = offset as usize).unwrap();
    for at in last..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            fs::write(&path, &bad).unwrap();
            let scan = scan(&path, number);
            assert_eq!(
                scan.damage.len(),
                1,
                "bit {bit} of byte {at}, last record at {last}: {scan:?}"
            );
            assert_eq!(scan.damage[0].offset, last as u64);
            assert_eq!(scan.intact_bytes, last as u64);
        }
    }
}

#[test]
fn a_log_cut_anywhere_has_a_torn_tail_and_no_damage() {
    let (_dir, folder) = database();
    let (path, number) = newest_log(&folder);
    let good = fs::read(&path).unwrap();
    let mut ends = vec![0];
    log_records::scan(&path, number, |offset, _| ends.push(offset)).unwrap();
    for length in (0..good.len()).step_by(97) {
        fs::write(&path, &good[..length]).unwrap();
        let scan = scan(&path, number);
        assert!(scan.damage.is_empty(), "cut to {length}: {scan:?}");
        assert!(scan.intact_bytes <= length as u64);
        if scan.intact_bytes < length as u64 {
            let tail = scan.tail.unwrap();
            assert!(
                ends.contains(&tail.offset),
                "cut to {length}: the tail begins with a record"
            );
        }
        let found = check(
            &folder,
            Some(DurableMark {
                log: number,
                bytes: scan.intact_bytes,
            }),
        );
        assert!(found.findings.is_empty(), "{:?}", found.findings);
        if scan.intact_bytes > 0 {
            let found = check(
                &folder,
                Some(DurableMark {
                    log: number,
                    bytes: good.len() as u64,
                }),
            );
            assert_eq!(
                found.findings.len(),
                1,
                "bytes that were synced are gone: {:?}",
                found.findings
            );
        }
    }
}

#[test]
fn zeros_behind_a_log_are_a_tail_and_bytes_behind_zeros_are_damage() {
    let (_dir, folder) = database();
    let (path, number) = newest_log(&folder);
    let mut bytes = fs::read(&path).unwrap();
    let length = bytes.len() as u64;
    bytes.resize(bytes.len() + 100_000, 0);
    fs::write(&path, &bytes).unwrap();
    let zeros = scan(&path, number);
    assert!(zeros.damage.is_empty(), "{zeros:?}");
    assert_eq!(zeros.tail.unwrap().kind, TailKind::Zeros);
    assert!(zeros.tail.unwrap().offset >= length && zeros.intact_bytes == length);
    *bytes.last_mut().unwrap() = 1;
    fs::write(&path, &bytes).unwrap();
    assert!(!scan(&path, number).damage.is_empty());
}

#[test]
fn garbage_behind_a_log_is_named_as_what_repair_may_cut() {
    let (_dir, folder) = database();
    let (path, number) = newest_log(&folder);
    let mut bytes = fs::read(&path).unwrap();
    let length = bytes.len() as u64;
    bytes.extend([0xa5; 20]);
    bytes[length as usize + 4] = 3;
    bytes[length as usize + 5] = 0;
    fs::write(&path, &bytes).unwrap();
    let found = check(
        &folder,
        Some(DurableMark {
            log: number,
            bytes: length,
        }),
    );
    assert_eq!(found.findings.len(), 1, "{:?}", found.findings);
    assert_eq!(
        found.findings[0].place,
        Place::File {
            file: format!("db/{number:06}.log"),
            offset: length
        }
    );
    assert!(found.findings[0].what.contains("repair"), "{}", found.findings[0].what);
}

#[test]
fn a_missing_file_is_named() {
    let (_dir, folder) = database();
    let listing = files::list(&folder).unwrap();
    let (path, number) = newest_log(&folder);
    let mark = DurableMark {
        log: number,
        bytes: fs::metadata(&path).unwrap().len(),
    };
    let victims = listing
        .tables
        .iter()
        .map(|number| format!("{number:06}.sst"))
        .chain(listing.blobs.iter().map(|number| format!("{number:06}.blob")))
        .chain([format!("{number:06}.log"), "CURRENT".to_owned()]);
    for victim in victims {
        let aside = folder.parent().unwrap().join("aside");
        fs::rename(folder.join(&victim), &aside).unwrap();
        let found = check(&folder, Some(mark));
        let named = Place::File {
            file: format!("db/{victim}"),
            offset: 0,
        };
        assert!(
            found.findings.iter().any(|finding| finding.place == named),
            "{victim}: {:?}",
            found.findings
        );
        fs::rename(&aside, folder.join(&victim)).unwrap();
    }
}

#[test]
fn files_that_no_manifest_names_are_not_damage() {
    let (_dir, folder) = database();
    fs::write(folder.join("999998.sst"), b"cut off by a crash").unwrap();
    fs::write(folder.join("999999.blob"), b"cut off by a crash").unwrap();
    let found = check(&folder, None);
    assert!(found.findings.is_empty(), "{:?}", found.findings);
    assert_eq!(found.notes.len(), 2);
}

#[test]
fn a_blob_file_that_nothing_refers_to_is_not_damage_when_it_is_cut() {
    let (_dir, folder) = database();
    {
        let db = open(&folder);
        db.delete_range_cf(db.cf_handle("log").unwrap(), 0u64.to_be_bytes(), 100u64.to_be_bytes())
            .unwrap();
        flush(&db);
        db.compact_range_cf(db.cf_handle("log").unwrap(), None::<&[u8]>, None::<&[u8]>);
        db.cancel_all_background_work(true);
    }
    let number = *files::list(&folder).unwrap().manifests.last().unwrap();
    let manifest = manifest::read(&folder.join(format!("MANIFEST-{number:06}")), number).unwrap();
    let log = &manifest.version.families[&1];
    let live: Vec<u64> = log.live_blobs().map(|(number, _)| number).collect();
    let dead: Vec<u64> = log
        .blobs
        .keys()
        .copied()
        .filter(|number| !live.contains(number))
        .collect();
    assert!(!live.is_empty() && !dead.is_empty(), "live {live:?}, dead {dead:?}");
    for number in &dead {
        // Its removal was not durable when the power went, but that it was shrunk was.
        fs::write(folder.join(format!("{number:06}.blob")), b"cut").unwrap();
    }
    let found = check(&folder, None);
    assert!(found.findings.is_empty(), "{:?}", found.findings);
    assert_eq!(found.notes.len(), dead.len());
}
