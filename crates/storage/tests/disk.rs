//! What only the store on disk has: damage, crashes, files, space.

#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nsquorum_storage::{
    Checkpoint, CheckpointSlot, ErrorClass, GroupLog, NodeStore, RocksStore, SpaceState, StorageError, StoreOptions,
    SyncedMark, Vote,
};
use nsquorum_topic::{GroupId, LogIndex, NodeId, Term};
use rocksdb::{DB, Options};
use support::{DEADLINE, Rocks, Subject, at, completion, done, entries, entry, id, ids, ignore, open, options};

/// Changes the closed database behind the store's back.
fn tamper(directory: &Path, change: impl FnOnce(&DB)) {
    let db = DB::open_cf(
        &Options::default(),
        directory.join("db"),
        ["default", "log", "rows", "state"],
    )
    .unwrap();
    change(&db);
}

fn key(group: u64, index: u64) -> Vec<u8> {
    [group.to_be_bytes(), index.to_be_bytes()].concat()
}

fn state_key(kind: u8, group: u64) -> Vec<u8> {
    [&[kind][..], &group.to_be_bytes()].concat()
}

/// A closed directory with entries 0..20 in group 7, a vote and a checkpoint.
fn stopped() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = RocksStore::open(options(directory.path())).unwrap();
    let log = open(&store, 7);
    log.append(entries(7, 1, 0..20), ignore());
    log.save_vote(
        Vote {
            term: Term::new(1),
            node: NodeId::new(1),
            committed: true,
        },
        ignore(),
    );
    let checkpoint = Checkpoint {
        log_id: None,
        membership: "m".into(),
        state: vec![5; 2 << 20].into(),
    };
    log.put_checkpoint(&[CheckpointSlot::Newest], checkpoint, ignore());
    drop(log);
    store.close().unwrap();
    directory
}

fn place(error: &StorageError) -> (Option<u64>, Option<u64>) {
    match error {
        StorageError::Corrupt { group, index, .. } => (group.map(GroupId::get), index.map(LogIndex::get)),
        other => panic!("not damage: {other}"),
    }
}

#[test]
fn a_damaged_entry_is_named_and_its_neighbours_are_served() {
    let directory = stopped();
    tamper(directory.path(), |db| {
        let log = db.cf_handle("log").unwrap();
        let mut value = db.get_cf(log, key(7, 11)).unwrap().unwrap();
        *value.last_mut().unwrap() ^= 1;
        db.put_cf(log, key(7, 11), value).unwrap();
        let other = db.get_cf(log, key(7, 3)).unwrap().unwrap();
        db.put_cf(log, key(7, 14), other).unwrap();
        db.delete_cf(log, key(7, 17)).unwrap();
    });
    let store = RocksStore::open(options(directory.path())).unwrap();
    let log = open(&store, 7);
    for (from, damaged) in [(0, 11), (11, 11), (12, 14), (15, 17)] {
        let error = log.read(at(from), at(20), usize::MAX).unwrap_err();
        assert_eq!(place(&error), (Some(7), Some(damaged)), "{error}");
        assert!(!error.is_retryable());
    }
    assert_eq!(log.read(at(0), at(11), usize::MAX).unwrap().len(), 11);
    assert_eq!(log.read(at(18), at(20), usize::MAX).unwrap().len(), 2);
    assert_eq!(log.rows(at(0), at(20)).unwrap().len(), 20, "rows never look at bodies");
}

#[test]
fn damaged_rows_votes_and_checkpoints_are_named() {
    let directory = stopped();
    let flip = |db: &DB, family: &str, key: &[u8]| {
        let family = db.cf_handle(family).unwrap();
        let mut value = db.get_cf(family, key).unwrap().unwrap();
        value[0] ^= 1;
        db.put_cf(family, key, value).unwrap();
    };
    let chunk = [&state_key(5, 7)[..], &[0; 8], &[0, 0, 0, 2]].concat();
    tamper(directory.path(), |db| {
        flip(db, "rows", &key(7, 4));
        flip(db, "state", &chunk);
    });
    let store = RocksStore::open(options(directory.path())).unwrap();
    let log = open(&store, 7);
    assert_eq!(place(&log.rows(at(0), at(9)).unwrap_err()), (Some(7), Some(4)));
    assert_eq!(
        place(&log.checkpoint(CheckpointSlot::Newest).unwrap_err()),
        (Some(7), None)
    );
    let (called, waiting) = completion();
    log.truncate_after(Some(at(4)), called);
    assert_eq!(
        place(&waiting.recv_timeout(DEADLINE).unwrap().unwrap_err()),
        (Some(7), Some(4))
    );
    assert_eq!(
        log.state().last,
        Some(id(1, 19)),
        "a refused truncation changes nothing"
    );
    drop(log);
    store.close().unwrap();
    for (kind, healthy) in [(1, 8), (4, 9)] {
        tamper(directory.path(), |db| flip(db, "state", &state_key(kind, 7)));
        let store = RocksStore::open(options(directory.path())).unwrap();
        assert_eq!(place(&store.open_group(GroupId::new(7)).unwrap_err()), (Some(7), None));
        done(|done| open(&store, healthy).append(entries(healthy, 1, 0..1), done));
        store.close().unwrap();
        tamper(directory.path(), |db| flip(db, "state", &state_key(kind, 7)));
    }
    tamper(directory.path(), |db| flip(db, "state", &state_key(0, 7)));
    assert_eq!(
        place(&RocksStore::open(options(directory.path())).unwrap_err()),
        (Some(7), None)
    );
}

#[test]
fn a_damaged_group_can_be_deleted() {
    let directory = stopped();
    tamper(directory.path(), |db| {
        db.put_cf(db.cf_handle("state").unwrap(), state_key(1, 7), b"odd")
            .unwrap()
    });
    let store = RocksStore::open(options(directory.path())).unwrap();
    assert!(store.open_group(GroupId::new(7)).is_err());
    done(|done| store.delete_group(GroupId::new(7), done));
    assert_eq!(ids(&open(&store, 7)), []);
    store.close().unwrap();
    tamper(directory.path(), |db| {
        for family in ["log", "rows", "state"] {
            let left = db
                .iterator_cf(db.cf_handle(family).unwrap(), rocksdb::IteratorMode::Start)
                .count();
            assert_eq!(left, 0, "{family} still has something of the group");
        }
    });
}

#[test]
fn what_a_crash_left_of_a_checkpoint_is_removed() {
    let directory = stopped();
    let orphan = |chunk: u32| [&state_key(5, 7)[..], &9u64.to_be_bytes(), &chunk.to_be_bytes()].concat();
    tamper(directory.path(), |db| {
        let state = db.cf_handle("state").unwrap();
        for chunk in 0..3 {
            db.put_cf(state, orphan(chunk), b"part").unwrap();
        }
    });
    let store = RocksStore::open(options(directory.path())).unwrap();
    let log = open(&store, 7);
    let small = Checkpoint {
        log_id: None,
        membership: "n".into(),
        state: "s".into(),
    };
    done(|done| log.put_checkpoint(&[CheckpointSlot::Purge], small.clone(), done));
    assert_eq!(log.checkpoint(CheckpointSlot::Purge).unwrap(), Some(small));
    assert_eq!(
        log.checkpoint(CheckpointSlot::Newest).unwrap().unwrap().state.len(),
        2 << 20
    );
    drop(log);
    store.close().unwrap();
    tamper(directory.path(), |db| {
        let state = db.cf_handle("state").unwrap();
        for chunk in 0..3 {
            assert_eq!(db.get_cf(state, orphan(chunk)).unwrap(), None);
        }
    });
}

/// Copies the files as a killed process leaves them.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let path = item.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let subject = Rocks::new();
    let log = open(subject.store(), 1);
    let mut copies = Vec::new();
    for index in 0..5 {
        done(|done| log.append(vec![entry(1, 1, index, &vec![9; 100_000])], done));
        log.save_committed(id(1, index));
        let to = tempfile::tempdir().unwrap();
        copy(subject.directory.path(), to.path());
        copy(&subject.directory.path().join("db"), &to.path().join("db"));
        copies.push((index, to));
    }
    for (index, copied) in copies {
        let store = RocksStore::open(options(copied.path())).unwrap();
        let log = open(&store, 1);
        let expected: Vec<_> = (0..=index).map(|index| (1, index)).collect();
        assert_eq!(ids(&log), expected);
        assert_eq!(
            log.committed().map(|mark| mark.index.get()),
            index.checked_sub(1),
            "it rode along with the next"
        );
        assert_eq!(store.identity().incarnation.get(), 2);
        let log = open(&store, 1);
        done(|done| log.append(entries(1, 2, index + 1..index + 2), done));
    }
}

#[test]
fn the_cache_is_bounded_and_reads_go_on_without_it() {
    let directory = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        cache_bytes: 100_000,
        ..options(directory.path())
    };
    let store = RocksStore::open(options).unwrap();
    let (first, second) = (open(&store, 1), open(&store, 2));
    done(|done| first.append((0..40).map(|index| entry(1, 1, index, &[1; 952])).collect(), done));
    assert_eq!(
        first.read_cached(at(0), at(40), usize::MAX).unwrap().len(),
        40,
        "it fits"
    );
    for index in 0..90 {
        done(|done| second.append(vec![entry(2, 1, index, &[1; 952])], done));
    }
    // A completion comes before the eviction of its own batch, a second one after it.
    done(|done| store.flush(done));
    done(|done| second.append(vec![], done));
    assert_eq!(second.read_cached(at(0), at(90), usize::MAX).unwrap().len(), 90);
    assert!(
        first.read_cached(at(0), at(40), usize::MAX).is_none(),
        "the least recently appended group gives way"
    );
    let left = first.read_cached(at(30), at(40), usize::MAX).unwrap().len();
    assert_eq!(left, 10, "oldest entries leave first, and no more than necessary");
    assert_eq!(ids(&first).len(), 40);
    assert_eq!(ids(&second).len(), 90);
}

#[test]
fn a_directory_in_use_is_refused() {
    let subject = Rocks::new();
    let error = RocksStore::open(options(subject.directory.path())).unwrap_err();
    assert_eq!(error.class(), ErrorClass::InUse);
    assert!(
        error.to_string().contains(&format!("process {}", std::process::id())),
        "{error}"
    );
}

#[test]
fn a_dropped_store_gives_the_directory_free() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let store = RocksStore::open(options(directory.path())).unwrap();
        let log = open(&store, 1);
        drop(store);
        done(|done| log.append(entries(1, 1, round..round + 1), done));
        drop(log);
        let store = RocksStore::open(options(directory.path())).unwrap();
        assert_eq!(ids(&open(&store, 1)).len() as u64, round + 1);
    }
}

#[test]
fn watermarks_are_seen_at_the_start() {
    for (publishes, all, expected) in [
        (0, 0, SpaceState::Ok),
        (u64::MAX, 0, SpaceState::RefusePublishes),
        (u64::MAX, u64::MAX, SpaceState::RefuseAll),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            refuse_publishes_below_bytes: publishes,
            refuse_all_below_bytes: all,
            ..options(directory.path())
        };
        let store = RocksStore::open(options).unwrap();
        assert_eq!(store.space(), expected);
        done(|done| open(&store, 1).append(entries(1, 1, 0..1), done));
    }
}

/// Waits for the janitor; it looks several times a second.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let pause = std::time::Duration::from_millis(20);
    for _ in 0..DEADLINE.as_millis() / pause.as_millis() {
        if holds() {
            return;
        }
        std::thread::sleep(pause);
    }
    panic!("never: {what}");
}

fn large_files(folder: &Path) -> Vec<(std::path::PathBuf, u64)> {
    let large = |path: &Path| {
        ["log", "sst", "blob"]
            .iter()
            .any(|part| path.to_string_lossy().contains(&format!(".{part}")))
    };
    std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|item| item.ok().map(|item| item.path()))
        .filter(|path| large(path))
        .filter_map(|path| std::fs::metadata(&path).ok().map(|found| (path, found.nlink())))
        .collect()
}

#[test]
fn every_large_file_gets_a_second_name_and_the_dead_disappear() {
    let subject = Rocks::new();
    let (database, graves) = (
        subject.directory.path().join("db"),
        subject.directory.path().join("graveyard"),
    );
    let log = open(subject.store(), 1);
    for index in 0..40 {
        done(|done| log.append(vec![entry(1, 1, index, &vec![index as u8; 200_000])], done));
    }
    // 8 MB through a memtable of 1 MB: logs have come and gone.
    done(|done| log.purge(id(1, 38), done));
    eventually(
        "all large files have two names, and no grave is a file's last name",
        || {
            large_files(&database).iter().all(|(_, names)| *names == 2)
                && large_files(&graves).iter().all(|(_, names)| *names == 2)
                && !large_files(&graves).is_empty()
        },
    );
    assert_eq!(ids(&log), [(1, 39)]);
}

#[test]
fn the_mark_of_what_is_synced_follows_the_log() {
    let subject = Rocks::new();
    let log = open(subject.store(), 1);
    let read = || SyncedMark::read(subject.directory.path()).unwrap();
    assert_eq!(read(), None);
    done(|done| log.append(entries(1, 1, 0..50), done));
    let newest = || -> (u64, u64) {
        let name = |path: &Path| path.file_name()?.to_str()?.strip_suffix(".log")?.parse::<u64>().ok();
        let logs = large_files(&subject.directory.path().join("db")).into_iter();
        let (number, path) = logs.filter_map(|(path, _)| Some((name(&path)?, path))).max().unwrap();
        (number, std::fs::metadata(path).unwrap().len())
    };
    eventually("the mark covers the first writes", || {
        let (log_file, bytes) = newest();
        read() == Some(SyncedMark { log_file, bytes })
    });
    done(|done| log.append(entries(1, 1, 50..99), done));
    let before = read().unwrap();
    let (log_file, bytes) = newest();
    assert!(before <= SyncedMark { log_file, bytes }, "a mark beyond the log");
    eventually("the mark moves on", || read() == Some(SyncedMark { log_file, bytes }));
}
