//! The power goes at every call of a small store, one call after the other: a store that syncs rightly never loses what
//! it answered, and one that leaves a sync out is caught. The second half is what makes the first mean something.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use nsquorum_faults::Fault;

use super::*;

/// What the store leaves out.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Sloppy {
    Nothing,
    SyncOfTheBytes,
    SyncOfTheDirectory,
}

/// Replaces the value by writing beside it and renaming over it, the way every checkpoint does.
fn replace(directory: &Path, value: u64, sloppy: Sloppy) -> std::io::Result<()> {
    let mut file = File::create(directory.join("tmp"))?;
    file.write_all(&value.to_be_bytes().repeat(100))?;
    if sloppy != Sloppy::SyncOfTheBytes {
        file.sync_data()?;
    }
    fs::rename(directory.join("tmp"), directory.join("value"))?;
    if sloppy != Sloppy::SyncOfTheDirectory {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn stored_value(bed: &Bed) -> Option<u64> {
    let bytes = fs::read(bed.path("value")).unwrap_or_default();
    let value = u64::from_be_bytes(bytes.get(..8)?.try_into().unwrap());
    (bytes == value.to_be_bytes().repeat(100)).then_some(value)
}

/// How often an answered value was lost, over power cuts at each of the first calls.
fn losses(options: &MountOptions, sloppy: Sloppy) -> u32 {
    let mut losses = 0;
    on(options.clone(), |bed| {
        replace(bed.fs().path(), 0, Sloppy::Nothing).unwrap();
        for call in 1..=24 {
            // A loss is counted once, not again by every later cut.
            let before = stored_value(bed).unwrap_or(0);
            bed.fs().fail(Fault::power_off_at(call)).unwrap();
            let mut answered = before;
            while replace(bed.fs().path(), answered + 1, sloppy).is_ok() {
                answered += 1;
            }
            assert!(bed.fs().stats().unwrap().down, "only the power cut makes it fail");
            bed.crash();
            bed.fs().clear().unwrap();
            match stored_value(bed) {
                Some(value) if value == answered || value == answered + 1 => {}
                _ => losses += 1,
            }
        }
        assert_eq!(bed.fs().stats().unwrap().crashes, 24);
    });
    losses
}

#[test]
fn a_store_that_syncs_rightly_loses_nothing_at_any_call() {
    for options in [
        ordered(),
        strict(),
        MountOptions {
            torn: true,
            ..ordered()
        },
        MountOptions { torn: true, ..strict() },
    ] {
        assert_eq!(losses(&options, Sloppy::Nothing), 0, "{options:?}");
    }
}

#[test]
fn a_store_that_leaves_a_sync_out_is_caught() {
    if !Path::new("/dev/fuse").exists() {
        return println!("skipped: this machine has no /dev/fuse");
    }
    for options in [ordered(), strict()] {
        for sloppy in [Sloppy::SyncOfTheBytes, Sloppy::SyncOfTheDirectory] {
            assert!(losses(&options, sloppy) > 0, "{sloppy:?} {options:?}");
        }
    }
}

/// Several writers append to files of their own, synced, while crashes come at any moment.
#[test]
fn what_several_writers_were_answered_is_there_after_each_crash() {
    on(ordered(), |bed| {
        const WRITERS: usize = 4;
        for round in 0..10 {
            let answered: [AtomicU64; WRITERS] = Default::default();
            std::thread::scope(|scope| {
                for (writer, answered) in answered.iter().enumerate() {
                    let path = bed.path(&format!("log-{round}-{writer}"));
                    scope.spawn(move || {
                        let open = OpenOptions::new().append(true).create_new(true).open(&path);
                        let Ok(mut file) = open else { return };
                        let parent = path.parent().unwrap();
                        if File::open(parent).and_then(|directory| directory.sync_all()).is_err() {
                            return;
                        }
                        for number in 1u64.. {
                            let wrote = file.write_all(&number.to_be_bytes()).and_then(|()| file.sync_data());
                            if wrote.is_err() {
                                return;
                            }
                            answered.store(number, SeqCst);
                        }
                    });
                }
                let deadline = Instant::now() + Duration::from_secs(60);
                while answered.iter().any(|answered| answered.load(SeqCst) < 20) && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(1));
                }
                bed.crash();
            });
            for (writer, answered) in answered.iter().enumerate() {
                let bytes = bed.read(&format!("log-{round}-{writer}"));
                let numbers: Vec<u64> = bytes
                    .chunks(8)
                    .map(|number| u64::from_be_bytes(number.try_into().unwrap()))
                    .collect();
                assert!(numbers.iter().copied().eq(1..=numbers.len() as u64));
                assert!(numbers.len() as u64 >= answered.load(SeqCst));
                assert!(numbers.len() >= 20, "the writers came nowhere in a minute");
            }
        }
    });
}

/// A process that goes on for a moment must meet errors only: what a disk without power seems to hold is no disk's answer.
#[test]
fn nobody_sees_what_a_power_cut_has_taken_before_the_power_is_back() {
    const BYTES: usize = 100_000;
    on(ordered(), |bed| {
        for round in 0..300 {
            let name = format!("f{round}");
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(bed.path(&name))
                .unwrap();
            sync_directory(bed.fs().path());
            (&file).write_all(&[1; BYTES]).unwrap();
            let cut = CrashOptions {
                keep: KeepOps::None,
                stay_down: true,
            };
            std::thread::scope(|scope| {
                let look = || {
                    let mut all = vec![0; BYTES];
                    loop {
                        match file.metadata() {
                            Ok(found) => assert_eq!(found.len(), BYTES as u64, "round {round}"),
                            Err(error) => break assert_eq!(error.raw_os_error(), Some(libc::EIO)),
                        }
                        match file.read_at(&mut all, 0) {
                            Ok(count) => assert!(count == BYTES && all.iter().all(|byte| *byte == 1), "round {round}"),
                            Err(error) => break assert_eq!(error.raw_os_error(), Some(libc::EIO)),
                        }
                    }
                };
                let looking = [scope.spawn(look), scope.spawn(look)];
                bed.fs().crash_with(cut).unwrap();
                for thread in looking {
                    thread.join().unwrap();
                }
            });
            bed.crash();
            assert_eq!(bed.read(&name), b"", "round {round}: nothing of it was synced");
        }
    });
}
