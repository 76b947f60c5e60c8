//! The store on a file system that loses what was not synced and fails the n-th call.
//!
//! A fixed history of appends, truncations, purges, votes and checkpoints on two groups runs again and again; each time the power
//! goes, or a call fails, some steps later. Afterwards each group must be what its history had made of it after some operation: at
//! least the last that was acknowledged, at most the last that was submitted. Anything else is a loss, a reordering or a hole.
//!
//! By default few of the steps are tried; `NSQUORUM_STRIDE=1` tries each. Needs /dev/fuse and the daemon, which
//! `cargo build -p nsquorum-faults` makes.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use nsquorum_faults::{Action, Call, ErrorCode, Fault, FaultFs};
use nsquorum_storage::{
    Checkpoint, CheckpointSlot, Completion, Entry, ErrorClass, GroupLog, NodeStore, RocksLog, RocksStore, StorageError,
    StoreOptions, Vote,
};
use nsquorum_topic::{NodeId, Term};
use support::model::Group;
use support::{DEADLINE, at, completion, entry, id, open, options};

const GROUPS: u64 = 2;
const OPERATIONS: u64 = 60;

#[derive(Clone, Debug)]
enum Operation {
    Append(Vec<Entry>),
    Vote(Vote),
    Truncate(u64),
    Purge(u64),
    Put(CheckpointSlot, Checkpoint),
    Move,
}

/// Operations, and what the group is after none, one, two … of them.
struct History {
    operations: Vec<Operation>,
    after: Vec<Group>,
}

impl History {
    fn of(group: u64) -> Self {
        let (mut operations, mut after, mut model) = (Vec::new(), vec![Group::default()], Group::default());
        for step in 0..OPERATIONS {
            let operation = Self::operation(group, step, &model);
            match &operation {
                Operation::Append(entries) => model.append(entries),
                Operation::Vote(vote) => model.vote = Some(*vote),
                Operation::Truncate(kept) => model.truncate_after(Some(*kept)),
                Operation::Purge(up_to) => model.purge(id(step, *up_to)),
                Operation::Put(slot, checkpoint) => drop(model.checkpoints.insert(*slot, checkpoint.clone())),
                Operation::Move => model.move_checkpoint(CheckpointSlot::Newest, CheckpointSlot::Candidate),
            }
            operations.push(operation);
            after.push(model.clone());
        }
        Self { operations, after }
    }

    fn operation(group: u64, step: u64, model: &Group) -> Operation {
        match step % 10 {
            1 => Operation::Vote(Vote {
                term: Term::new(step),
                node: NodeId::new(group + 1),
                committed: step % 4 == 1,
            }),
            4 => Operation::Truncate(model.next_index().saturating_sub(3)),
            6 => Operation::Purge(model.entries.keys().next().map_or(0, |first| first + step)),
            8 => {
                let checkpoint = Checkpoint {
                    log_id: model.state().last,
                    membership: step.to_string().into(),
                    state: vec![step as u8; 40_000 * step as usize].into(),
                };
                Operation::Put(CheckpointSlot::ALL[step as usize / 10 % 3], checkpoint)
            }
            9 => Operation::Move,
            _ => {
                let first = model.next_index();
                let entry = |index: u64| entry(group, step, index, &vec![step as u8; 40 + index as usize % 7 * 3_000]);
                Operation::Append((first..=first + step % 40).map(entry).collect())
            }
        }
    }
}

fn submit(log: &RocksLog, step: u64, operation: &Operation, done: Completion) {
    match operation.clone() {
        Operation::Append(entries) => log.append(entries, done),
        Operation::Vote(vote) => log.save_vote(vote, done),
        Operation::Truncate(kept) => log.truncate_after(Some(at(kept)), done),
        Operation::Purge(up_to) => log.purge(id(step, up_to), done),
        Operation::Put(slot, checkpoint) => log.put_checkpoint(&[slot], checkpoint, done),
        Operation::Move => log.move_checkpoint(CheckpointSlot::Newest, CheckpointSlot::Candidate, done),
    }
}

/// How far a run came, per group.
#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    submitted: usize,
    acknowledged: usize,
}

struct Run {
    reached: BTreeMap<u64, Reached>,
    failure: Option<StorageError>,
}

/// Runs the histories until they end or the store fails, a few operations in flight.
fn run(directory: &Path, histories: &BTreeMap<u64, History>) -> Run {
    run_with(options(directory), histories)
}

fn run_with(mut options: StoreOptions, histories: &BTreeMap<u64, History>) -> Run {
    let fatal = Arc::new(Mutex::new(Vec::new()));
    let seen = fatal.clone();
    options.on_fatal = Arc::new(move |error| seen.lock().unwrap().push(error.clone()));
    let mut reached: BTreeMap<u64, Reached> = histories.keys().map(|group| (*group, Reached::default())).collect();
    let store = match RocksStore::open(options) {
        Ok(store) => store,
        Err(error) => {
            return Run {
                reached,
                failure: Some(error),
            };
        }
    };
    let mut logs = BTreeMap::new();
    for group in histories.keys() {
        match store.open_group(nsquorum_topic::GroupId::new(*group)) {
            Ok(log) => drop(logs.insert(*group, log)),
            Err(error) => {
                return Run {
                    reached,
                    failure: Some(error),
                };
            }
        }
    }
    let mut waiting = std::collections::VecDeque::new();
    let mut broken: BTreeMap<u64, bool> = BTreeMap::new();
    let mut settle = |group, result: Result<(), StorageError>, reached: &mut BTreeMap<u64, Reached>| {
        let broken = broken.entry(group).or_default();
        assert!(!(*broken && result.is_ok()), "acknowledged after a failure");
        *broken |= result.is_err();
        if result.is_ok() {
            reached.get_mut(&group).unwrap().acknowledged += 1;
        }
    };
    for step in 0..OPERATIONS {
        for (group, history) in histories {
            let (done, result) = completion();
            submit(&logs[group], step, &history.operations[step as usize], done);
            reached.get_mut(group).unwrap().submitted += 1;
            waiting.push_back((*group, result));
        }
        while waiting.len() > 5 {
            let (group, result): (u64, std::sync::mpsc::Receiver<_>) = waiting.pop_front().unwrap();
            settle(group, result.recv_timeout(DEADLINE).unwrap(), &mut reached);
        }
    }
    for (group, result) in waiting {
        settle(group, result.recv_timeout(DEADLINE).unwrap(), &mut reached);
    }
    drop(logs);
    let failure = store.close().err();
    let fatal = fatal.lock().unwrap();
    assert_eq!(
        fatal.len(),
        usize::from(failure.is_some()),
        "the hook is called once, if the store failed"
    );
    Run { reached, failure }
}

/// What a group is, as far as the history determines it.
fn stored(log: &RocksLog) -> Group {
    let entries = log.read(at(0), at(u64::MAX), usize::MAX).unwrap();
    let rows: Vec<_> = entries.iter().map(nsquorum_storage::EntryRow::of).collect();
    assert_eq!(log.rows(at(0), at(u64::MAX)).unwrap(), rows);
    let mut group = Group {
        vote: log.vote(),
        purged: log.state().last_purged,
        ..Group::default()
    };
    group.append(&entries);
    assert_eq!(log.state(), group.state());
    for slot in CheckpointSlot::ALL {
        group
            .checkpoints
            .extend(log.checkpoint(slot).unwrap().map(|checkpoint| (slot, checkpoint)));
    }
    group
}

/// Opens the directory again and finds each group at a point of its history that the run allows; then it must still work.
fn check(directory: &Path, histories: &BTreeMap<u64, History>, run: &Run, what: &str) {
    let store = RocksStore::open(options(directory)).unwrap_or_else(|error| panic!("{what}: does not open: {error}"));
    for (group, history) in histories {
        let log = open(&store, *group);
        let (stored, reached) = (stored(&log), run.reached[group]);
        let same = |model: &Group| {
            (model.vote, model.purged, &model.entries, &model.checkpoints)
                == (stored.vote, stored.purged, &stored.entries, &stored.checkpoints)
        };
        let points: Vec<_> = (0..history.after.len())
            .filter(|point| same(&history.after[*point]))
            .collect();
        let allowed = points
            .iter()
            .any(|point| (reached.acknowledged..=reached.submitted).contains(point));
        assert!(
            allowed,
            "{what}: group {group} is at {points:?} of its history, but {reached:?}"
        );
        support::done(|done| log.append(vec![entry(*group, 99, stored.next_index(), b"on")], done));
    }
    store.close().unwrap();
}

struct Disk {
    fs: FaultFs,
    _backing: tempfile::TempDir,
    _mount: tempfile::TempDir,
}

impl Disk {
    /// `None` where there is no FUSE.
    fn new() -> Option<Self> {
        if !Path::new("/dev/fuse").exists() {
            eprintln!("NOT TESTED: there is no /dev/fuse");
            return None;
        }
        let (backing, mount) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let fs = FaultFs::mount(backing.path(), mount.path()).unwrap_or_else(|error| panic!("{error}"));
        Some(Self {
            fs,
            _backing: backing,
            _mount: mount,
        })
    }
}

/// Runs the history once for every few of its changing calls, with the fault that `fault` makes of the call's number.
fn sweep(name: &str, stride: u64, fault: impl Fn(u64) -> Fault, after: impl Fn(&Disk, &Run, &str)) {
    let Some(disk) = Disk::new() else { return };
    let histories: BTreeMap<u64, History> = (0..GROUPS).map(|group| (group, History::of(group))).collect();
    let calls = || {
        let stats = disk.fs.stats().unwrap();
        Call::CHANGING.iter().map(|call| stats.count(*call)).sum::<u64>()
    };
    let before = calls();
    let directory = disk.fs.path().join("whole");
    let whole = run(&directory, &histories);
    assert!(whole.failure.is_none(), "{:?}", whole.failure);
    let total = calls() - before;
    check(&directory, &histories, &whole, "without a fault");
    std::fs::remove_dir_all(&directory).unwrap();
    let stride = std::env::var("NSQUORUM_STRIDE")
        .ok()
        .and_then(|stride| stride.parse().ok())
        .unwrap_or(stride);
    // Timing moves the calls a little from run to run; a little beyond the end costs nothing.
    for call in (1..=total).step_by(usize::try_from(stride).unwrap()) {
        let what = format!("{name} at call {call} of {total}");
        let directory = disk.fs.path().join(call.to_string());
        disk.fs.fail(fault(call)).unwrap();
        let broken = run(&directory, &histories);
        disk.fs.clear().unwrap();
        after(&disk, &broken, &what);
        check(&directory, &histories, &broken, &what);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

#[test]
fn a_power_cut_at_any_call_loses_nothing_acknowledged() {
    sweep("power cut", 41, Fault::power_off_at, |disk, _, _| {
        disk.fs.crash().unwrap()
    });
}

#[test]
fn a_power_cut_after_the_last_call_loses_nothing_acknowledged() {
    let never = |_| Fault::power_off_at(u64::MAX);
    sweep("power cut after the end", 200, never, |disk, run, _| {
        assert!(run.failure.is_none());
        disk.fs.crash().unwrap();
    });
}

#[test]
fn an_input_output_error_at_any_call_fails_the_store_or_does_no_harm() {
    let once = |call| Fault {
        action: Action::Error(ErrorCode::Eio),
        ..Fault::power_off_at(call)
    };
    sweep("EIO", 37, once, |_, run, what| {
        if let Some(failure) = &run.failure {
            assert!(
                matches!(failure.class(), ErrorClass::Io | ErrorClass::Data),
                "{what}: {failure}"
            );
        }
    });
}

#[test]
fn a_disk_that_is_full_from_some_call_on_fails_the_store_with_that() {
    let full = |call| Fault {
        action: Action::Error(ErrorCode::Enospc),
        times: None,
        ..Fault::power_off_at(call)
    };
    sweep("full disk", 37, full, |_, run, what| {
        if let Some(failure) = &run.failure {
            assert_eq!(failure.class(), ErrorClass::NoSpace, "{what}: {failure}");
        }
    });
}

#[test]
fn a_moment_without_space_fails_the_store_or_does_no_harm() {
    let once = |call| Fault {
        action: Action::Error(ErrorCode::Enospc),
        ..Fault::power_off_at(call)
    };
    sweep("ENOSPC", 53, once, |_, run, what| {
        if let Some(failure) = &run.failure {
            // The database may have made up for a failed flush before anybody could ask it for the reason.
            assert!(
                matches!(failure.class(), ErrorClass::NoSpace | ErrorClass::Io),
                "{what}: {failure}"
            );
        }
    });
}

#[test]
fn a_failed_sync_of_the_log_is_fatal() {
    let Some(disk) = Disk::new() else { return };
    let histories: BTreeMap<u64, History> = (0..GROUPS).map(|group| (group, History::of(group))).collect();
    for (n, call) in [(1, Call::Fsync), (5, Call::Fsync), (20, Call::Write)] {
        let directory = disk.fs.path().join(n.to_string());
        RocksStore::open(options(&directory)).unwrap().close().unwrap();
        disk.fs
            .fail(Fault::nth(call, n, Action::Error(ErrorCode::Eio)).on("*.log"))
            .unwrap();
        let run = run(&directory, &histories);
        disk.fs.clear().unwrap();
        let failure = run.failure.as_ref().expect("a failed sync went unnoticed");
        assert_eq!(failure.class(), ErrorClass::Io, "{failure}");
        assert!(
            run.reached
                .values()
                .all(|reached| reached.acknowledged < reached.submitted)
        );
        disk.fs.crash().unwrap();
        check(&directory, &histories, &run, "failed sync");
    }
}

#[test]
fn a_disk_that_ignores_syncs_is_noticed_by_these_tests() {
    let Some(disk) = Disk::new() else { return };
    let histories: BTreeMap<u64, History> = (0..GROUPS).map(|group| (group, History::of(group))).collect();
    let directory = disk.fs.path().join("lie");
    RocksStore::open(options(&directory)).unwrap().close().unwrap();
    disk.fs
        .fail(Fault::every(Call::Fsync, Action::Lie).on("*.log"))
        .unwrap();
    // With the memtables of the other tests a flush, which syncs its own file, may save all that the log lost.
    let run = run_with(
        StoreOptions {
            memtable_bytes: 256 << 20,
            ..options(&directory)
        },
        &histories,
    );
    disk.fs.crash().unwrap();
    disk.fs.clear().unwrap();
    let noticed = std::panic::catch_unwind(|| check(&directory, &histories, &run, "a lie"));
    assert!(noticed.is_err(), "unsynced entries survived: these tests prove nothing");
}
