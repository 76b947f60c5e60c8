//! Names: create, link, rename and unlink in both modes.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use super::*;

#[test]
fn ordered_fsync_of_a_file_keeps_its_name_and_all_before() {
    on(ordered(), |bed| {
        fs::create_dir(bed.path("d")).unwrap();
        File::create(bed.path("d/empty")).unwrap();
        let file = File::create(bed.path("d/f")).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        file.sync_all().unwrap();
        File::create(bed.path("d/late")).unwrap();
        bed.fs().crash_with(LOSE_ALL).unwrap();
        assert_eq!(bed.names("d"), ["empty", "f"]);
        assert_eq!(bed.read("d/f"), b"x");
        assert_eq!(bed.read("d/empty"), b"");
    });
}

#[test]
fn ordered_loses_a_suffix_of_the_last_few_changes() {
    let mut kept = std::collections::BTreeSet::new();
    for seed in 0..24 {
        on(
            MountOptions {
                pending_ops_max: 4,
                seed,
                ..ordered()
            },
            |bed| {
                for number in 0..10 {
                    File::create(bed.path(&number.to_string())).unwrap();
                }
                assert_eq!(bed.fs().stats().unwrap().pending_ops, 4);
                bed.crash();
                let names = bed.names("");
                assert!((6..=10).contains(&names.len()), "{names:?}");
                assert_eq!(
                    names,
                    (0..names.len()).map(|number| number.to_string()).collect::<Vec<_>>()
                );
                kept.insert(names.len());
            },
        );
    }
    assert!(
        kept.is_empty() || kept.len() > 2,
        "crashes of different seeds lose different changes: {kept:?}"
    );
}

#[test]
fn strict_loses_a_name_whose_directory_was_not_synced() {
    on(strict(), |bed| {
        let file = File::create(bed.path("f")).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        file.sync_all().unwrap();
        assert!(!bed.durable("f").exists());
        bed.crash();
        assert!(!bed.exists("f"));

        let file = File::create(bed.path("f")).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        file.sync_all().unwrap();
        sync_directory(bed.fs().path());
        file.write_all_at(b"y", 1).unwrap();
        bed.crash();
        assert_eq!(bed.read("f"), b"x");
    });
}

#[test]
fn strict_directory_sync_keeps_the_name_but_no_bytes() {
    on(strict(), |bed| {
        fs::write(bed.path("f"), b"never synced").unwrap();
        sync_directory(bed.fs().path());
        bed.crash();
        assert_eq!(bed.read("f"), b"");
    });
}

#[test]
fn a_rename_over_a_file_is_all_or_nothing() {
    for options in [ordered(), strict()] {
        for sync in [false, true] {
            on(options.clone(), |bed| {
                bed.stored("current", b"old");
                bed.stored("tmp", b"new");
                fs::rename(bed.path("tmp"), bed.path("current")).unwrap();
                assert_eq!(bed.read("current"), b"new");
                assert!(!bed.exists("tmp"));
                if sync {
                    sync_directory(bed.fs().path());
                }
                bed.fs().crash_with(LOSE_ALL).unwrap();
                if sync {
                    assert_eq!(bed.names(""), ["current"]);
                    assert_eq!(bed.read("current"), b"new");
                } else {
                    assert_eq!(bed.names(""), ["current", "tmp"]);
                    assert_eq!(bed.read("current"), b"old");
                    assert_eq!(bed.read("tmp"), b"new");
                }
            });
        }
    }
}

#[test]
fn a_rename_without_a_sync_of_the_bytes_leaves_an_empty_file() {
    on(ordered(), |bed| {
        bed.stored("current", b"old");
        fs::write(bed.path("tmp"), b"new").unwrap();
        fs::rename(bed.path("tmp"), bed.path("current")).unwrap();
        sync_directory(bed.fs().path());
        bed.crash();
        assert_eq!(bed.read("current"), b"");
    });
}

#[test]
fn hard_links_share_one_inode_and_its_unsynced_bytes() {
    for options in [ordered(), strict()] {
        on(options, |bed| {
            bed.stored("a", b"1");
            fs::hard_link(bed.path("a"), bed.path("b")).unwrap();
            let by_b = fs::OpenOptions::new().write(true).open(bed.path("b")).unwrap();
            by_b.write_all_at(b"2", 1).unwrap();
            assert_eq!(bed.read("a"), b"12");
            let (a, b) = (
                fs::metadata(bed.path("a")).unwrap(),
                fs::metadata(bed.path("b")).unwrap(),
            );
            assert_eq!((a.ino(), a.nlink(), b.nlink()), (b.ino(), 2, 2));
            File::open(bed.path("a")).unwrap().sync_all().unwrap();
            sync_directory(bed.fs().path());
            fs::remove_file(bed.path("a")).unwrap();
            assert_eq!(bed.read("b"), b"12");
            bed.fs().crash_with(LOSE_ALL).unwrap();
            assert_eq!(bed.names(""), ["a", "b"]);
            assert_eq!((bed.read("a"), bed.read("b")), (b"12".to_vec(), b"12".to_vec()));
            let (a, b) = (
                fs::metadata(bed.path("a")).unwrap(),
                fs::metadata(bed.path("b")).unwrap(),
            );
            assert_eq!((a.ino(), a.nlink()), (b.ino(), 2));
        });
    }
}

#[test]
fn the_last_durable_name_may_go_before_the_new_one_comes() {
    on(strict(), |bed| {
        for name in ["from", "to"] {
            fs::create_dir(bed.path(name)).unwrap();
        }
        sync_directory(bed.fs().path());
        bed.stored("from/f", b"x");
        fs::hard_link(bed.path("from/f"), bed.path("to/f")).unwrap();
        fs::remove_file(bed.path("from/f")).unwrap();
        sync_directory(&bed.path("from"));
        assert_eq!(bed.read("to/f"), b"x");
        sync_directory(&bed.path("to"));
        bed.crash();
        assert_eq!(bed.names("from"), [""; 0]);
        assert_eq!(bed.read("to/f"), b"x");
    });
}

#[test]
fn an_unlinked_file_lives_while_it_is_open() {
    for options in [ordered(), strict()] {
        on(options, |bed| {
            let file = bed.stored("f", b"0123");
            fs::remove_file(bed.path("f")).unwrap();
            sync_directory(bed.fs().path());
            file.write_all_at(b"45", 4).unwrap();
            file.sync_all().unwrap();
            let mut data = [0; 6];
            file.read_exact_at(&mut data, 0).unwrap();
            assert_eq!(&data, b"012345");
            assert_eq!(file.metadata().unwrap().nlink(), 0);
            assert_eq!(bed.fs().stats().unwrap().used_bytes, 6);
            drop(file);
            bed.fs().wait_until(|stats| stats.used_bytes == 0).unwrap();
            bed.crash();
            assert_eq!(bed.names(""), [""; 0]);
        });
    }
}

#[test]
fn an_unlink_that_was_not_synced_comes_back_with_the_durable_bytes() {
    for options in [ordered(), strict()] {
        on(options, |bed| {
            let file = bed.stored("f", b"kept");
            file.write_all_at(b"lost", 4).unwrap();
            drop(file);
            fs::remove_file(bed.path("f")).unwrap();
            bed.fs().crash_with(LOSE_ALL).unwrap();
            assert_eq!(bed.read("f"), b"kept");
        });
    }
}

#[test]
fn a_name_is_used_again_and_again() {
    for options in [ordered(), strict()] {
        on(options, |bed| {
            for round in 0..5u8 {
                fs::write(bed.path("f"), [round]).unwrap();
                fs::rename(bed.path("f"), bed.path("g")).unwrap();
                fs::write(bed.path("f"), [round]).unwrap();
                fs::remove_file(bed.path("g")).unwrap();
                fs::create_dir(bed.path("g")).unwrap();
                fs::remove_dir(bed.path("g")).unwrap();
            }
            File::open(bed.path("f")).unwrap().sync_all().unwrap();
            sync_directory(bed.fs().path());
            bed.crash();
            assert_eq!(bed.names(""), ["f"]);
            assert_eq!(bed.read("f"), [4]);
        });
    }
}

#[test]
fn directories_move_with_what_is_in_them() {
    for options in [ordered(), strict()] {
        on(options, |bed| {
            fs::create_dir(bed.path("tmp")).unwrap();
            bed.stored("tmp/f", b"x");
            fs::rename(bed.path("tmp"), bed.path("final")).unwrap();
            sync_directory(bed.fs().path());
            bed.stored("final/g", b"y");
            assert_eq!(errno(fs::remove_dir(bed.path("final"))), libc::ENOTEMPTY);
            bed.crash();
            assert_eq!(bed.names(""), ["final"]);
            assert_eq!(bed.names("final"), ["f", "g"]);
            assert_eq!(
                (bed.read("final/f"), bed.read("final/g")),
                (b"x".to_vec(), b"y".to_vec())
            );
            fs::remove_dir_all(bed.path("final")).unwrap();
            sync_directory(bed.fs().path());
            bed.crash();
            assert_eq!(bed.names(""), [""; 0]);
        });
    }
}

#[test]
fn a_file_that_moves_into_a_new_directory_is_never_lost() {
    on(strict(), |bed| {
        bed.stored("f", b"x");
        fs::create_dir(bed.path("new")).unwrap();
        fs::rename(bed.path("f"), bed.path("new/f")).unwrap();
        sync_directory(&bed.path("new"));
        bed.crash();
        assert_eq!(bed.names(""), ["new"]);
        assert_eq!(bed.read("new/f"), b"x");
    });
}

#[test]
fn rename_flags() {
    on(ordered(), |bed| {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        bed.stored("a", b"a");
        bed.stored("b", b"b");
        let rename = |flags| renameat_with(CWD, bed.path("a"), CWD, bed.path("b"), flags);
        assert_eq!(rename(RenameFlags::NOREPLACE).unwrap_err(), rustix::io::Errno::EXIST);
        rename(RenameFlags::EXCHANGE).unwrap();
        sync_directory(bed.fs().path());
        bed.crash();
        assert_eq!((bed.read("a"), bed.read("b")), (b"b".to_vec(), b"a".to_vec()));
    });
}

#[test]
fn symbolic_links_modes_and_times() {
    on(ordered(), |bed| {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let file = bed.stored("f", b"x");
        symlink("f", bed.path("l")).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
        let when = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        file.set_modified(when).unwrap();
        sync_directory(bed.fs().path());
        bed.crash();
        assert_eq!(bed.read("l"), b"x");
        assert_eq!(fs::read_link(bed.path("l")).unwrap(), Path::new("f"));
        let metadata = fs::metadata(bed.path("f")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o640);
        assert_eq!(metadata.modified().unwrap(), when);
    });
}

#[test]
fn many_names_are_listed_once_each() {
    on(ordered(), |bed| {
        let mut expected: Vec<String> = (0..3000)
            .map(|number| format!("a-rather-long-name-{number:05}"))
            .collect();
        for name in &expected {
            File::create(bed.path(name)).unwrap();
        }
        assert_eq!(bed.names(""), expected);
        // Removing while listing, as remove_dir_all does.
        for entry in fs::read_dir(bed.path("")).unwrap().take(1500) {
            let name = entry.unwrap().file_name();
            fs::remove_file(bed.path(name.to_str().unwrap())).unwrap();
            expected.retain(|known| *known != name.to_str().unwrap());
        }
        assert_eq!(bed.names(""), expected);
    });
}
