//! Bytes: what was synced stays, what was not goes.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use super::*;

#[test]
fn unsynced_bytes_are_readable_and_gone_after_a_crash() {
    on(ordered(), |bed| {
        let file = bed.stored("f", b"durable");
        file.write_all_at(b" and more", 7).unwrap();
        assert_eq!(bed.read("f"), b"durable and more");
        assert_eq!(std::fs::metadata(bed.path("f")).unwrap().len(), 16);
        assert_eq!(std::fs::read(bed.durable("f")).unwrap(), b"durable");
        assert_eq!(bed.fs().stats().unwrap().dirty_bytes, 9);
        bed.crash();
        assert_eq!(bed.read("f"), b"durable");
        assert_eq!(bed.fs().stats().unwrap().dirty_bytes, 0);
    });
}

#[test]
fn fsync_and_fdatasync_keep_bytes_and_close_does_not() {
    on(ordered(), |bed| {
        bed.stored("fsync", b"1").sync_all().unwrap();
        let data = File::create(bed.path("fdatasync")).unwrap();
        data.write_all_at(b"2", 0).unwrap();
        data.sync_data().unwrap();
        bed.stored("closed", b"");
        std::fs::write(bed.path("closed"), b"3").unwrap();
        bed.crash();
        assert_eq!(bed.read("fsync"), b"1");
        assert_eq!(bed.read("fdatasync"), b"2");
        assert_eq!(bed.read("closed"), b"");
    });
}

#[test]
fn an_overwrite_that_was_not_synced_gives_the_old_bytes_back() {
    on(ordered(), |bed| {
        let file = bed.stored("f", b"0123456789");
        file.write_all_at(b"abc", 3).unwrap();
        file.write_all_at(b"Z", 4).unwrap();
        assert_eq!(bed.read("f"), b"012aZc6789");
        bed.crash();
        assert_eq!(bed.read("f"), b"0123456789");
    });
}

#[test]
fn handles_of_before_the_crash_fail() {
    on(ordered(), |bed| {
        let file = bed.stored("f", b"x");
        let directory = File::open(bed.path("")).unwrap();
        bed.crash();
        assert_eq!(errno(file.write_at(b"y", 0)), libc::EIO);
        assert_eq!(errno(file.read_at(&mut [0], 0)), libc::EIO);
        assert_eq!(errno(file.sync_all()), libc::EIO);
        assert_eq!(errno(directory.sync_all()), libc::EIO);
        assert_eq!(bed.read("f"), b"x");
        bed.stored("f", b"afresh");
        assert_eq!(bed.read("f"), b"afresh");
    });
}

/// Ordered: a truncation goes with the directory changes. Strict: with the bytes.
#[test]
fn a_truncation_comes_back_as_its_mode_says() {
    for (options, crash, expected) in [
        (ordered(), LOSE_ALL, &b"0123456789"[..]),
        (ordered(), KEEP_ALL, b"0123"),
        (
            MountOptions {
                pending_ops_max: 0,
                ..ordered()
            },
            LOSE_ALL,
            b"0123",
        ),
        (strict(), KEEP_ALL, b"0123456789"),
    ] {
        on(options, |bed| {
            let file = bed.stored("f", b"0123456789");
            file.set_len(4).unwrap();
            file.write_all_at(b"new", 6).unwrap();
            assert_eq!(bed.read("f"), b"0123\0\0new");
            bed.fs().crash_with(crash).unwrap();
            assert_eq!(bed.read("f"), expected);
        });
    }
}

#[test]
fn truncate_then_append_then_sync_then_crash() {
    for options in [ordered(), strict()] {
        on(options, |bed| {
            let path = bed.path("f");
            bed.stored("f", b"0123456789");
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            file.set_len(3).unwrap();
            file.write_all(b"ab").unwrap();
            file.sync_all().unwrap();
            file.write_all(b"lost").unwrap();
            assert_eq!(bed.read("f"), b"012ablost");
            file.set_len(7).unwrap();
            assert_eq!(bed.read("f"), b"012ablo");
            bed.crash();
            assert_eq!(bed.read("f"), b"012ab");
        });
    }
}

#[test]
fn what_is_behind_a_cut_never_shines_through() {
    on(ordered(), |bed| {
        let file = bed.stored("f", b"0123456789");
        file.set_len(2).unwrap();
        file.set_len(6).unwrap();
        assert_eq!(bed.read("f"), b"01\0\0\0\0");
        file.sync_all().unwrap();
        bed.crash();
        assert_eq!(bed.read("f"), b"01\0\0\0\0");
    });
}

#[test]
fn two_cuts_and_a_rename_between_keep_their_order() {
    on(ordered(), |bed| {
        let file = bed.stored("f", b"0123456789");
        file.set_len(6).unwrap();
        std::fs::rename(bed.path("f"), bed.path("g")).unwrap();
        file.set_len(2).unwrap();
        bed.fs().crash_with(LOSE_ALL).unwrap();
        // The second cut made the first one durable, not the other way round.
        let name = if bed.exists("f") { "f" } else { "g" };
        assert_eq!(bed.read(name), b"012345");
    });
}

#[test]
fn open_with_truncate_and_exclusive() {
    on(ordered(), |bed| {
        bed.stored("f", b"old");
        let exclusive = OpenOptions::new().write(true).create_new(true).open(bed.path("f"));
        assert_eq!(errno(exclusive), libc::EEXIST);
        let file = File::create(bed.path("f")).unwrap();
        assert_eq!(bed.read("f"), b"");
        file.write_all_at(b"new", 0).unwrap();
        file.sync_all().unwrap();
        bed.crash();
        assert_eq!(bed.read("f"), b"new");
    });
}

#[test]
fn fallocate_grows_and_punches_as_asked() {
    on(ordered(), |bed| {
        let file = bed.stored("f", b"0123456789");
        let allocate = |flags, from, bytes| rustix::fs::fallocate(&file, flags, from, bytes).unwrap();
        use rustix::fs::FallocateFlags;
        allocate(FallocateFlags::KEEP_SIZE, 0, 4096);
        assert_eq!(bed.read("f").len(), 10);
        allocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 2, 3);
        assert_eq!(bed.read("f"), b"01\0\0\x0056789");
        allocate(FallocateFlags::empty(), 0, 12);
        assert_eq!(bed.read("f").len(), 12);
        bed.crash();
        assert_eq!(bed.read("f"), b"0123456789");
    });
}

#[test]
fn direct_io_and_append_and_seeks_work() {
    on(ordered(), |bed| {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .custom_flags(libc::O_DIRECT)
            .open(bed.path("f"))
            .unwrap();
        file.write_all(&[1; 4096]).unwrap();
        file.write_all(&[2; 100]).unwrap();
        file.seek(SeekFrom::Start(4000)).unwrap();
        let mut tail = Vec::new();
        file.read_to_end(&mut tail).unwrap();
        assert_eq!(tail, [vec![1; 96], vec![2; 100]].concat());
        let mut one = OpenOptions::new().append(true).open(bed.path("f")).unwrap();
        let mut other = OpenOptions::new().append(true).open(bed.path("f")).unwrap();
        one.write_all(b"one").unwrap();
        other.write_all(b"other").unwrap();
        assert_eq!(&bed.read("f")[4196..], b"oneother");
    });
}

#[test]
fn large_writes_and_reads_arrive_whole() {
    on(ordered(), |bed| {
        let data: Vec<u8> = (0..5_000_000u32).map(|at| (at % 251) as u8).collect();
        let file = bed.stored("f", &data);
        file.write_all_at(&data[..3_000_000], 1_000_001).unwrap();
        let mut expected = data.clone();
        expected[1_000_001..4_000_001].copy_from_slice(&data[..3_000_000]);
        assert!(bed.read("f") == expected);
        bed.crash();
        assert!(bed.read("f") == data);
    });
}

#[test]
fn unsynced_bytes_are_bounded() {
    on(
        MountOptions {
            dirty_bytes_max: 1 << 20,
            ..ordered()
        },
        |bed| {
            let file = bed.stored("f", b"");
            for piece in 0..64 {
                file.write_all_at(&[piece; 65_536], u64::from(piece) * 65_536).unwrap();
                assert!(bed.fs().stats().unwrap().dirty_bytes <= 1 << 20);
            }
            bed.crash();
            assert!(bed.read("f").len() >= 3 << 20);
        },
    );
}
