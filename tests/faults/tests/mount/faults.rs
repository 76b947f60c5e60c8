//! Calls that fail, are slow or short, a disk that fills up, and power that goes at a call.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nsquorum_faults::{Action, Call, ErrorCode, Fault};

use super::*;

const EIO: Action = Action::Error(ErrorCode::Eio);
const ENOSPC: Action = Action::Error(ErrorCode::Enospc);

#[test]
fn the_nth_write_on_a_matching_path_fails_and_writes_nothing() {
    on(ordered(), |bed| {
        let (log, table) = (bed.stored("1.log", b""), bed.stored("1.sst", b""));
        let id = bed.fs().fail(Fault::nth(Call::Write, 3, ENOSPC).on("*.log")).unwrap();
        for at in 0..5 {
            table.write_all_at(b"t", at).unwrap();
            let written = log.write_all_at(b"l", at);
            assert_eq!(written.is_err(), at == 2);
            if at == 2 {
                assert_eq!(errno(written), libc::ENOSPC);
            }
        }
        assert_eq!(bed.read("1.log"), b"ll\0ll");
        assert_eq!(bed.read("1.sst"), b"ttttt");
        assert_eq!(bed.fs().stats().unwrap().fired[&id], 1);
    });
}

#[test]
fn a_failed_fsync_loses_its_bytes_though_the_next_one_succeeds() {
    on(ordered(), |bed| {
        let file = bed.stored("f", b"durable");
        file.write_all_at(b"LOST", 0).unwrap();
        bed.fs().fail(Fault::nth(Call::Fsync, 1, EIO)).unwrap();
        assert_eq!(errno(file.sync_data()), libc::EIO);
        assert_eq!(bed.read("f"), b"LOSTble");
        file.write_all_at(b"!", 6).unwrap();
        file.sync_data().unwrap();
        assert_eq!(bed.read("f"), b"LOSTbl!");
        bed.crash();
        assert_eq!(bed.read("f"), b"durabl!");
    });
}

#[test]
fn a_failed_directory_sync_keeps_nothing() {
    on(strict(), |bed| {
        File::create(bed.path("f")).unwrap();
        bed.fs().fail(Fault::nth(Call::Fsyncdir, 1, EIO)).unwrap();
        assert_eq!(errno(File::open(bed.path("")).unwrap().sync_all()), libc::EIO);
        bed.crash();
        assert!(!bed.exists("f"));
    });
}

#[test]
fn a_sync_that_lies_makes_nothing_durable() {
    on(strict(), |bed| {
        let file = bed.stored("1.log", b"durable");
        bed.fs()
            .fail(Fault::every(Call::Fsync, Action::Lie).on("*.log"))
            .unwrap();
        bed.fs().fail(Fault::every(Call::Fsyncdir, Action::Lie)).unwrap();
        file.write_all_at(b"LOST", 0).unwrap();
        file.sync_data().unwrap();
        File::create(bed.path("2.log")).unwrap().sync_all().unwrap();
        File::open(bed.path("")).unwrap().sync_all().unwrap();
        assert_eq!(bed.read("1.log"), b"LOSTble");
        bed.crash();
        assert_eq!(bed.read("1.log"), b"durable");
        assert!(!bed.exists("2.log"));
    });
}

#[test]
fn every_kind_of_call_can_fail_and_then_does_nothing() {
    on(ordered(), |bed| {
        let file = bed.stored("f", b"123");
        fs::create_dir(bed.path("d")).unwrap();
        type Attempt<'a> = (Call, Box<dyn Fn() -> std::io::Result<()> + 'a>);
        let attempts: Vec<Attempt<'_>> = vec![
            (Call::Open, Box::new(|| File::open(bed.path("f")).map(drop))),
            (Call::Create, Box::new(|| File::create(bed.path("new")).map(drop))),
            (Call::Read, Box::new(|| file.read_at(&mut [0], 0).map(drop))),
            (Call::Write, Box::new(|| file.write_at(b"x", 0).map(drop))),
            (Call::Fsync, Box::new(|| file.sync_all())),
            (Call::Fsyncdir, Box::new(|| File::open(bed.path("d"))?.sync_all())),
            (Call::Truncate, Box::new(|| file.set_len(1))),
            (
                Call::Fallocate,
                Box::new(|| Ok(rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 9)?)),
            ),
            (Call::Rename, Box::new(|| fs::rename(bed.path("f"), bed.path("new")))),
            (Call::Link, Box::new(|| fs::hard_link(bed.path("f"), bed.path("new")))),
            (
                Call::Symlink,
                Box::new(|| std::os::unix::fs::symlink("f", bed.path("new"))),
            ),
            (Call::Unlink, Box::new(|| fs::remove_file(bed.path("f")))),
            (Call::Mkdir, Box::new(|| fs::create_dir(bed.path("new")))),
            (Call::Rmdir, Box::new(|| fs::remove_dir(bed.path("d")))),
            (Call::Opendir, Box::new(|| fs::read_dir(bed.path("d")).map(drop))),
            (
                Call::Statfs,
                Box::new(|| Ok(rustix::fs::statvfs(bed.path("d")).map(drop)?)),
            ),
        ];
        assert_eq!(attempts.len(), Call::ALL.len());
        for (call, attempt) in attempts {
            bed.fs().fail(Fault::every(call, EIO)).unwrap();
            assert_eq!(errno(attempt()), libc::EIO, "{call:?}");
            bed.fs().clear().unwrap();
        }
        assert_eq!(bed.names(""), ["d", "f"]);
        assert_eq!(bed.read("f"), b"123");
    });
}

#[test]
fn once_from_a_count_on_and_for_ever() {
    on(ordered(), |bed| {
        let file = bed.stored("f", b"");
        let outcomes = |fault| {
            bed.fs().fail(fault).unwrap();
            let outcomes: Vec<bool> = (0..4).map(|_| file.write_at(b"x", 0).is_ok()).collect();
            bed.fs().clear().unwrap();
            outcomes
        };
        assert_eq!(outcomes(Fault::nth(Call::Write, 2, EIO)), [true, false, true, true]);
        assert_eq!(
            outcomes(Fault {
                after: 2,
                ..Fault::every(Call::Write, EIO)
            }),
            [true, true, false, false]
        );
        assert_eq!(
            outcomes(Fault {
                times: Some(3),
                ..Fault::every(Call::Write, EIO)
            }),
            [false, false, false, true]
        );
        assert!(file.write_at(b"x", 0).is_ok());
    });
}

#[test]
fn a_slow_call_takes_its_time_and_holds_up_no_other() {
    on(ordered(), |bed| {
        let (slow, quick) = (bed.stored("slow", b""), bed.stored("quick", b""));
        bed.fs()
            .fail(Fault::nth(Call::Fsync, 1, Action::DelayMs(4000)).on("slow"))
            .unwrap();
        let started = Instant::now();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| slow.sync_all().unwrap());
            bed.fs()
                .wait_until(|stats| stats.fired.values().sum::<u64>() == 1)
                .unwrap();
            quick.write_all_at(b"x", 0).unwrap();
            quick.sync_all().unwrap();
            assert!(!waiting.is_finished(), "the quick call came back first");
            waiting.join().unwrap();
        });
        assert!(started.elapsed() >= Duration::from_secs(4));
    });
}

#[test]
fn a_short_write_stores_half_and_says_so() {
    on(ordered(), |bed| {
        let file = bed.stored("f", b"");
        bed.fs().fail(Fault::nth(Call::Write, 1, Action::Short)).unwrap();
        assert_eq!(file.write_at(b"01234567", 0).unwrap(), 4);
        assert_eq!(bed.read("f"), b"0123");
    });
}

#[test]
fn a_full_disk_refuses_growth_until_space_returns() {
    on(ordered(), |bed| {
        let file = bed.stored("f", &[1; 8192]);
        bed.stored("other", &[2; 4096]);
        bed.fs().space(Some(4096)).unwrap();
        let stat = rustix::fs::statvfs(bed.fs().path()).unwrap();
        assert_eq!(stat.f_bavail * stat.f_frsize, 4096);
        file.write_all_at(&[3; 4096], 8192).unwrap();
        assert_eq!(errno(file.write_all_at(b"x", 12_288)), libc::ENOSPC);
        assert_eq!(errno(file.set_len(20_000)), libc::ENOSPC);
        file.write_all_at(&[4; 4096], 0).unwrap();
        assert_eq!(bed.fs().stats().unwrap().free_bytes, Some(0));
        fs::remove_file(bed.path("other")).unwrap();
        bed.fs().wait_until(|stats| stats.free_bytes == Some(4096)).unwrap();
        file.write_all_at(b"x", 12_288).unwrap();
        file.set_len(0).unwrap();
        assert_eq!(bed.fs().stats().unwrap().free_bytes, Some(4096 + 12_288));
        bed.fs().space(None).unwrap();
        file.write_all_at(&[5; 65_536], 0).unwrap();
    });
}

#[test]
fn the_limit_counts_what_a_crash_gives_back() {
    on(ordered(), |bed| {
        let file = bed.stored("f", &[1; 1000]);
        bed.fs().space(Some(500)).unwrap();
        file.write_all_at(&[2; 500], 1000).unwrap();
        assert_eq!(bed.fs().stats().unwrap().free_bytes, Some(0));
        bed.crash();
        let stats = bed.fs().stats().unwrap();
        assert_eq!((stats.used_bytes, stats.free_bytes), (1000, Some(500)));
    });
}

#[test]
fn the_power_goes_at_a_call_and_stays_off() {
    on(ordered(), |bed| {
        let file = bed.stored("f", b"durable");
        bed.fs().fail(Fault::power_off_at(3)).unwrap();
        file.write_all_at(b"LOST", 0).unwrap();
        file.write_all_at(b"more", 9).unwrap();
        assert_eq!(errno(file.sync_all()), libc::EIO);
        assert!(bed.fs().stats().unwrap().down);
        assert_eq!(errno(File::open(bed.path("f"))), libc::EIO);
        assert_eq!(errno(File::create(bed.path("g"))), libc::EIO);
        assert_eq!(std::fs::read(bed.durable("f")).unwrap(), b"durable");
        bed.crash();
        let stats = bed.fs().stats().unwrap();
        assert_eq!((stats.down, stats.crashes), (false, 1));
        assert_eq!(bed.read("f"), b"durable");
        assert_eq!(errno(file.sync_all()), libc::EIO);
        bed.stored("f", b"afresh");
        assert_eq!(bed.read("f"), b"afresh");
    });
}

#[test]
fn calls_are_counted() {
    on(ordered(), |bed| {
        let file = bed.stored("f", b"1");
        file.write_all_at(b"2", 1).unwrap();
        file.sync_data().unwrap();
        let stats = bed.fs().stats().unwrap();
        let counts =
            [Call::Create, Call::Write, Call::Fsync, Call::Fsyncdir, Call::Rename].map(|call| stats.count(call));
        assert_eq!(counts, [1, 2, 2, 1, 0]);
        assert_eq!(stats.open_handles, 1);
    });
}
