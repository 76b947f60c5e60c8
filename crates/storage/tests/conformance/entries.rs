//! Entries: append, read, truncate, purge.

use super::*;

pub(crate) fn a_new_group_is_empty(mut subject: impl Subject) {
    assert_eq!(subject.store().groups().unwrap(), []);
    let log = open(subject.store(), 3);
    assert_eq!(log.group(), GroupId::new(3));
    assert_eq!(
        (log.state(), log.vote(), log.committed()),
        (LogState::default(), None, None)
    );
    assert_eq!(ids(&log), []);
    assert_eq!(log.read_cached(at(0), at(9), 1), Some(vec![]));
    for slot in CheckpointSlot::ALL {
        assert_eq!(log.checkpoint(slot).unwrap(), None);
    }
    assert_eq!(subject.store().groups().unwrap(), [GroupId::new(3)]);
    assert_eq!(subject.store().space(), SpaceState::Ok);
    drop(log);
    subject.reopen();
    assert_eq!(ids(&open(subject.store(), 3)), []);
}

pub(crate) fn appends_are_readable_on_return_and_there_after_a_restart(mut subject: impl Subject) {
    let log = open(subject.store(), 1);
    let other = log.clone();
    let (first, waiting) = completion();
    log.append(entries(1, 1, 0..3), first);
    assert_eq!(ids(&other), [(1, 0), (1, 1), (1, 2)]);
    assert_eq!(
        other.state(),
        LogState {
            last_purged: None,
            last: Some(id(1, 2))
        }
    );
    waiting.recv_timeout(support::DEADLINE).unwrap().unwrap();
    done(|done| log.append(entries(1, 2, 3..5), done));
    let expected = other.read(at(0), at(9), usize::MAX).unwrap();
    assert_eq!(expected[4].payload(), "1/2/4");
    subject.reopen();
    let log = open(subject.store(), 1);
    assert_eq!(log.read(at(0), at(9), usize::MAX).unwrap(), expected);
    assert_eq!(ids(&log), [(1, 0), (1, 1), (1, 2), (2, 3), (2, 4)]);
    assert_eq!(
        log.state(),
        LogState {
            last_purged: None,
            last: Some(id(2, 4))
        }
    );
    assert_eq!(subject.store().groups().unwrap(), [GroupId::new(1)]);
}

pub(crate) fn reads_are_clipped_to_what_exists_and_bounded_in_bytes(mut subject: impl Subject) {
    for restart in [false, true] {
        if restart {
            subject.reopen();
        } else {
            let log = open(subject.store(), 1);
            done(|done| log.append((5..25).map(|index| entry(1, 1, index, &[7; 952])).collect(), done));
        }
        let log = open(subject.store(), 1);
        let count = |from, to, bytes| log.read(at(from), at(to), bytes).unwrap().len();
        assert_eq!(count(0, 5, usize::MAX), 0);
        assert_eq!(count(0, 7, usize::MAX), 2);
        assert_eq!(count(20, 99, usize::MAX), 5);
        assert_eq!(count(25, 99, usize::MAX), 0);
        assert_eq!(count(9, 6, usize::MAX), 0);
        assert_eq!(count(5, 25, 0), 1, "at least one");
        assert_eq!(count(5, 25, 1999), 1);
        assert_eq!(count(5, 25, 2000), 2);
        assert_eq!(count(0, 99, 15_000), 15, "the bound holds across memory and disk");
        assert_eq!(log.rows(at(0), at(99)).unwrap().len(), 20);
        assert_eq!(log.rows(at(23), at(24)).unwrap().len(), 1);
        assert_eq!(log.rows(at(24), at(23)).unwrap().len(), 0);
        if let Some(cached) = log.read_cached(at(23), at(99), 1000) {
            assert_eq!(cached, log.read(at(23), at(24), usize::MAX).unwrap());
        }
    }
}

pub(crate) fn truncation_and_new_entries_replace_old_ones_at_once(mut subject: impl Subject) {
    let log = open(subject.store(), 1);
    // Nothing here waits for the disk: memory must be right while all of it is still on its way.
    log.append(entries(1, 1, 0..6), ignore());
    log.truncate_after(Some(at(3)), ignore());
    assert_eq!(ids(&log), [(1, 0), (1, 1), (1, 2), (1, 3)]);
    log.append(entries(1, 2, 4..6), ignore());
    log.truncate_after(Some(at(4)), ignore());
    log.append(entries(1, 3, 5..7), ignore());
    let expected = [(1, 0), (1, 1), (1, 2), (1, 3), (2, 4), (3, 5), (3, 6)];
    assert_eq!(ids(&log), expected);
    done(|done| subject.store().flush(done));
    assert_eq!(ids(&log), expected);
    subject.reopen();
    let log = open(subject.store(), 1);
    assert_eq!(ids(&log), expected);
    done(|done| log.truncate_after(Some(at(1)), done));
    assert_eq!(
        log.state().last,
        Some(id(1, 1)),
        "the term of an entry that is only on disk"
    );
    subject.reopen();
    let log = open(subject.store(), 1);
    assert_eq!(ids(&log), [(1, 0), (1, 1)]);
    done(|done| log.truncate_after(None, done));
    assert_eq!((log.state(), ids(&log)), (LogState::default(), vec![]));
    done(|done| log.append(entries(1, 9, 2..4), done));
    subject.reopen();
    assert_eq!(ids(&open(subject.store(), 1)), [(9, 2), (9, 3)]);
}

pub(crate) fn truncating_nothing_changes_nothing(subject: impl Subject) {
    let log = open(subject.store(), 1);
    done(|done| log.truncate_after(None, done));
    done(|done| log.truncate_after(Some(at(4)), done));
    done(|done| log.append(entries(1, 1, 2..4), done));
    done(|done| log.truncate_after(Some(at(3)), done));
    done(|done| log.truncate_after(Some(at(9)), done));
    assert_eq!(ids(&log), [(1, 2), (1, 3)]);
    done(|done| log.purge(id(1, 2), done));
    done(|done| log.truncate_after(Some(at(0)), done));
    assert_eq!(
        log.state(),
        LogState {
            last_purged: Some(id(1, 2)),
            last: Some(id(1, 2))
        }
    );
}

pub(crate) fn a_log_may_begin_anywhere_above_the_purge_mark(mut subject: impl Subject) {
    let log = open(subject.store(), 1);
    done(|done| log.append(entries(1, 1, 2..5), done));
    assert_eq!(ids(&log), [(1, 2), (1, 3), (1, 4)]);
    done(|done| log.purge(id(1, 1), done));
    assert_eq!(
        log.state(),
        LogState {
            last_purged: Some(id(1, 1)),
            last: Some(id(1, 4))
        }
    );
    assert_eq!(ids(&log).len(), 3);
    let far = open(subject.store(), 2);
    done(|done| far.purge(id(3, 10), done));
    done(|done| far.append(entries(2, 4, 15..17), done));
    subject.reopen();
    assert_eq!(ids(&open(subject.store(), 1)).len(), 3);
    let far = open(subject.store(), 2);
    assert_eq!(ids(&far), [(4, 15), (4, 16)]);
    assert_eq!(
        far.state(),
        LogState {
            last_purged: Some(id(3, 10)),
            last: Some(id(4, 16))
        }
    );
}

pub(crate) fn purging_may_pass_the_end(mut subject: impl Subject) {
    let log = open(subject.store(), 1);
    log.append(entries(1, 1, 0..11), ignore());
    done(|done| log.purge(id(1, 20), done));
    let expected = LogState {
        last_purged: Some(id(1, 20)),
        last: Some(id(1, 20)),
    };
    assert_eq!((log.state(), ids(&log)), (expected, vec![]));
    subject.reopen();
    let log = open(subject.store(), 1);
    assert_eq!((log.state(), ids(&log)), (expected, vec![]));
    done(|done| log.append(entries(1, 2, 21..23), done));
    subject.reopen();
    assert_eq!(ids(&open(subject.store(), 1)), [(2, 21), (2, 22)]);
}

pub(crate) fn purging_back_changes_nothing(subject: impl Subject) {
    let log = open(subject.store(), 1);
    log.append(entries(1, 1, 0..9), ignore());
    done(|done| log.purge(id(1, 5), done));
    done(|done| log.purge(id(1, 3), done));
    done(|done| log.purge(id(1, 5), done));
    assert_eq!(
        log.state(),
        LogState {
            last_purged: Some(id(1, 5)),
            last: Some(id(1, 8))
        }
    );
    assert_eq!(ids(&log), [(1, 6), (1, 7), (1, 8)]);
}

pub(crate) fn long_and_short_prefixes_are_purged_alike(mut subject: impl Subject) {
    let log = open(subject.store(), 1);
    done(|done| log.append(entries(1, 1, 0..1000), done));
    for up_to in [3, 300, 301, 999] {
        done(|done| log.purge(id(1, up_to), done));
        assert_eq!(ids(&log).len() as u64, 999 - up_to);
    }
    subject.reopen();
    let log = open(subject.store(), 1);
    assert_eq!(
        log.state(),
        LogState {
            last_purged: Some(id(1, 999)),
            last: Some(id(1, 999))
        }
    );
    done(|done| log.append(entries(1, 1, 1000..1002), done));
    assert_eq!(ids(&log), [(1, 1000), (1, 1001)]);
}

pub(crate) fn a_hole_in_a_log_is_refused(subject: impl Subject) {
    let log = open(subject.store(), 1);
    done(|done| log.append(entries(1, 1, 3..5), done));
    done(|done| log.purge(id(1, 3), done));
    let bad: [Vec<_>; 5] = [
        entries(1, 1, 6..7),
        entries(1, 1, 4..5),
        entries(2, 1, 5..6),
        entries(1, 1, 5..6).into_iter().chain(entries(1, 1, 7..8)).collect(),
        entries(1, 1, 2..3),
    ];
    for entries in bad {
        let log = log.clone();
        let append = std::panic::AssertUnwindSafe(move || log.append(entries, ignore()));
        assert!(std::panic::catch_unwind(append).is_err());
    }
    assert_eq!(ids(&log), [(1, 4)]);
    done(|done| log.append(entries(1, 1, 5..6), done));
}
