//! The contract of `nsquorum_storage::log`, run against every implementation.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use nsquorum_storage::{Checkpoint, CheckpointSlot, GroupLog, LogState, NodeStore, SpaceState, StorageError, Vote};
use nsquorum_topic::{GroupId, NodeId, Term};
use support::{Memory, Rocks, Subject, at, completion, done, entries, entry, id, ids, ignore, open, wait};

macro_rules! conformance {
    ($($name:ident)*) => {
        mod memory {
            $(#[test] fn $name() { super::$name(<super::Memory as super::Subject>::new()); })*
        }
        mod rocks {
            $(#[test] fn $name() { super::$name(<super::Rocks as super::Subject>::new()); })*
        }
    };
}

conformance! {
    a_new_group_is_empty
    appends_are_readable_on_return_and_there_after_a_restart
    reads_are_clipped_to_what_exists_and_bounded_in_bytes
    truncation_and_new_entries_replace_old_ones_at_once
    truncating_nothing_changes_nothing
    a_log_may_begin_anywhere_above_the_purge_mark
    purging_may_pass_the_end
    purging_back_changes_nothing
    long_and_short_prefixes_are_purged_alike
    completions_come_in_the_order_of_the_calls
    completions_may_call_the_log
    votes_and_commit_marks_survive
    a_commit_mark_never_lies_beyond_the_log_after_a_restart
    checkpoints_are_put_moved_and_cleared
    a_checkpoint_of_many_parts_survives
    groups_do_not_see_each_other
    a_deleted_group_is_gone_and_its_number_usable
    a_closed_store_refuses_everything
    a_hole_in_a_log_is_refused
    pending_bytes_return_to_zero
    readers_and_a_writer_at_once
}

fn a_new_group_is_empty(mut subject: impl Subject) {
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

fn appends_are_readable_on_return_and_there_after_a_restart(mut subject: impl Subject) {
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

fn reads_are_clipped_to_what_exists_and_bounded_in_bytes(mut subject: impl Subject) {
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

fn truncation_and_new_entries_replace_old_ones_at_once(mut subject: impl Subject) {
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

fn truncating_nothing_changes_nothing(subject: impl Subject) {
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

fn a_log_may_begin_anywhere_above_the_purge_mark(mut subject: impl Subject) {
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

fn purging_may_pass_the_end(mut subject: impl Subject) {
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

fn purging_back_changes_nothing(subject: impl Subject) {
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

fn long_and_short_prefixes_are_purged_alike(mut subject: impl Subject) {
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

fn completions_come_in_the_order_of_the_calls(subject: impl Subject) {
    let order = Arc::new(Mutex::new(Vec::new()));
    let logs: Vec<_> = (1..4).map(|group| open(subject.store(), group)).collect();
    let vote = |term| Vote {
        term: Term::new(term),
        node: NodeId::new(1),
        committed: false,
    };
    for round in 0..20u64 {
        for (group, log) in (1..4).zip(&logs) {
            let mut call = 0;
            let mut note = || {
                let (order, number) = (order.clone(), (group, round, call));
                call += 1;
                let done: nsquorum_storage::Completion = Box::new(move |result| {
                    result.unwrap();
                    order.lock().unwrap().push(number);
                });
                done
            };
            let first = round * 4;
            log.append(entries(group, 1, first..first + 6), note());
            log.append(vec![], note());
            log.save_vote(vote(round), note());
            log.truncate_after(Some(at(first + 3)), note());
            log.truncate_after(Some(at(first + 9)), note());
            log.purge(id(1, round), note());
            log.move_checkpoint(CheckpointSlot::Newest, CheckpointSlot::Purge, note());
            let checkpoint = Checkpoint {
                log_id: Some(id(1, round)),
                membership: Bytes::new(),
                state: vec![1; 300_000].into(),
            };
            log.put_checkpoint(&[CheckpointSlot::Newest], checkpoint, note());
        }
    }
    done(|done| subject.store().flush(done));
    let order = order.lock().unwrap();
    assert_eq!(order.len(), 20 * 3 * 8);
    for group in 1..4 {
        let own: Vec<_> = order.iter().filter(|(of, ..)| *of == group).collect();
        assert!(own.is_sorted(), "group {group}: {own:?}");
    }
}

fn completions_may_call_the_log(subject: impl Subject) {
    let log = open(subject.store(), 1);
    let (last, called) = completion();
    let inner = log.clone();
    log.append(
        entries(1, 1, 0..1),
        Box::new(move |result| {
            result.unwrap();
            assert_eq!(inner.state().last, Some(id(1, 0)));
            inner.clone().append(
                entries(1, 1, 1..2),
                Box::new(move |result| {
                    inner.purge(id(1, 0), {
                        result.unwrap();
                        last
                    })
                }),
            );
        }),
    );
    called.recv_timeout(support::DEADLINE).unwrap().unwrap();
    assert_eq!(ids(&log), [(1, 1)]);
}

fn votes_and_commit_marks_survive(mut subject: impl Subject) {
    let vote = Vote {
        term: Term::new(4),
        node: NodeId::new(2),
        committed: true,
    };
    let log = open(subject.store(), 1);
    log.append(entries(1, 1, 0..5), ignore());
    log.save_committed(id(1, 2));
    assert_eq!(log.committed(), Some(id(1, 2)));
    log.save_vote(
        Vote {
            committed: false,
            ..vote
        },
        ignore(),
    );
    assert_eq!(
        log.vote(),
        Some(Vote {
            committed: false,
            ..vote
        })
    );
    done(|done| log.save_vote(vote, done));
    subject.reopen();
    let log = open(subject.store(), 1);
    assert_eq!((log.vote(), log.committed()), (Some(vote), Some(id(1, 2))));
    log.save_committed(id(1, 4));
    done(|done| subject.store().flush(done));
    subject.reopen();
    assert_eq!(
        open(subject.store(), 1).committed(),
        Some(id(1, 4)),
        "a flush takes the commit mark along"
    );
}

fn a_commit_mark_never_lies_beyond_the_log_after_a_restart(mut subject: impl Subject) {
    let log = open(subject.store(), 1);
    done(|done| log.append(entries(1, 1, 0..3), done));
    log.save_committed(id(1, 2));
    done(|done| log.append(entries(1, 1, 3..4), done));
    log.save_committed(id(1, 7));
    assert_eq!(log.committed(), Some(id(1, 7)));
    done(|done| subject.store().flush(done));
    subject.reopen();
    let log = open(subject.store(), 1);
    let mark = log.committed().expect("the earlier mark was durable");
    assert!(
        mark >= id(1, 2) && mark.index <= log.state().last.unwrap().index,
        "{mark:?}"
    );
}

fn checkpoint(index: u64, state: &[u8]) -> Checkpoint {
    Checkpoint {
        log_id: Some(id(1, index)),
        membership: format!("m{index}").into(),
        state: state.to_vec().into(),
    }
}

fn checkpoints_are_put_moved_and_cleared(mut subject: impl Subject) {
    use CheckpointSlot::{Candidate, Newest, Purge};
    let (first, second) = (checkpoint(5, b"five"), checkpoint(9, b""));
    let log = open(subject.store(), 1);
    log.put_checkpoint(&[Newest, Candidate], first.clone(), ignore());
    assert_eq!(
        log.checkpoint(Candidate).unwrap(),
        Some(first.clone()),
        "readable on return"
    );
    done(|done| log.put_checkpoint(&[Newest], second.clone(), done));
    let look = |log: &_| -> Vec<_> {
        [Newest, Purge, Candidate]
            .map(|slot| GroupLog::checkpoint(log, slot).unwrap())
            .into()
    };
    assert_eq!(look(&log), [Some(second.clone()), None, Some(first.clone())]);
    done(|done| log.move_checkpoint(Candidate, Purge, done));
    done(|done| log.move_checkpoint(Candidate, Newest, done));
    done(|done| log.move_checkpoint(Purge, Purge, done));
    assert_eq!(look(&log), [Some(second.clone()), Some(first.clone()), None]);
    subject.reopen();
    let log = open(subject.store(), 1);
    assert_eq!(look(&log), [Some(second.clone()), Some(first), None]);
    done(|done| log.move_checkpoint(Newest, Purge, done));
    done(|done| log.clear_checkpoint(Candidate, done));
    assert_eq!(look(&log), [None, Some(second), None]);
    let empty = Checkpoint {
        log_id: None,
        membership: Bytes::new(),
        state: Bytes::new(),
    };
    done(|done| log.put_checkpoint(&CheckpointSlot::ALL, empty.clone(), done));
    done(|done| log.clear_checkpoint(Purge, done));
    subject.reopen();
    assert_eq!(
        look(&open(subject.store(), 1)),
        [Some(empty.clone()), None, Some(empty)]
    );
}

fn a_checkpoint_of_many_parts_survives(mut subject: impl Subject) {
    let state: Vec<u8> = (0..(3 << 20) + 5u32).map(|at| (at / 7) as u8).collect();
    let log = open(subject.store(), 1);
    for exact in [3 << 20, (3 << 20) + 5] {
        let large = checkpoint(8, &state[..exact]);
        let (called, waiting) = completion();
        log.put_checkpoint(&[CheckpointSlot::Newest], large.clone(), called);
        log.put_checkpoint(&[CheckpointSlot::Purge], checkpoint(1, b"small"), ignore());
        assert_eq!(log.checkpoint(CheckpointSlot::Newest).unwrap(), Some(large.clone()));
        waiting.recv_timeout(support::DEADLINE).unwrap().unwrap();
        assert_eq!(log.checkpoint(CheckpointSlot::Newest).unwrap(), Some(large));
    }
    drop(log);
    subject.reopen();
    let log = open(subject.store(), 1);
    assert_eq!(
        log.checkpoint(CheckpointSlot::Newest).unwrap(),
        Some(checkpoint(8, &state))
    );
    assert_eq!(
        log.checkpoint(CheckpointSlot::Purge).unwrap(),
        Some(checkpoint(1, b"small"))
    );
}

fn groups_do_not_see_each_other(mut subject: impl Subject) {
    let numbers = [0, 1, 255, 256, u64::MAX];
    for group in numbers {
        let log = open(subject.store(), group);
        log.append(entries(group, 1, 0..5), ignore());
        log.save_vote(
            Vote {
                term: Term::new(group),
                node: NodeId::new(1),
                committed: true,
            },
            ignore(),
        );
    }
    done(|done| open(subject.store(), 1).truncate_after(Some(at(0)), done));
    done(|done| open(subject.store(), 255).purge(id(1, 100), done));
    subject.reopen();
    assert_eq!(subject.store().groups().unwrap(), numbers.map(GroupId::new));
    for (group, count) in numbers.into_iter().zip([5, 1, 0, 5, 5]) {
        let log = open(subject.store(), group);
        assert_eq!(ids(&log).len(), count, "group {group}");
        assert_eq!(log.vote().map(|vote| vote.term.get()), Some(group));
        let payloads = log.read(at(0), at(9), usize::MAX).unwrap();
        assert!(
            payloads
                .iter()
                .all(|entry| entry.payload().starts_with(format!("{group}/").as_bytes()))
        );
    }
}

fn a_deleted_group_is_gone_and_its_number_usable(mut subject: impl Subject) {
    for group in [1, 2, 3] {
        let log = open(subject.store(), group);
        log.append(entries(group, 1, 0..100), ignore());
        log.put_checkpoint(&[CheckpointSlot::Newest], checkpoint(5, b"state"), ignore());
        log.save_vote(
            Vote {
                term: Term::new(9),
                node: NodeId::new(1),
                committed: true,
            },
            ignore(),
        );
    }
    let old = open(subject.store(), 2);
    let (deleted, waiting) = completion();
    subject.store().delete_group(GroupId::new(2), deleted);
    assert!(matches!(
        wait(|done| old.append(entries(2, 1, 100..101), done)),
        Err(StorageError::Deleted(_))
    ));
    assert!(matches!(old.read(at(0), at(1), 1), Err(StorageError::Deleted(_))));
    old.save_committed(id(1, 1));
    let new = open(subject.store(), 2);
    assert_eq!(
        (new.state(), new.vote(), ids(&new)),
        (LogState::default(), None, vec![])
    );
    done(|done| new.append(entries(2, 7, 50..52), done));
    waiting.recv_timeout(support::DEADLINE).unwrap().unwrap();
    done(|done| subject.store().delete_group(GroupId::new(3), done));
    subject.reopen();
    assert_eq!(subject.store().groups().unwrap(), [GroupId::new(1), GroupId::new(2)]);
    done(|done| subject.store().delete_group(GroupId::new(1), done));
    let log = open(subject.store(), 2);
    assert_eq!((ids(&log), log.vote()), (vec![(7, 50), (7, 51)], None));
    assert_eq!(log.checkpoint(CheckpointSlot::Newest).unwrap(), None);
    subject.reopen();
    assert_eq!(subject.store().groups().unwrap(), [GroupId::new(2)]);
    assert_eq!(ids(&open(subject.store(), 1)), []);
}

fn a_closed_store_refuses_everything(subject: impl Subject) {
    let log = open(subject.store(), 1);
    let (accepted, waiting) = completion();
    log.append(entries(1, 1, 0..2), accepted);
    let store = subject.store().clone();
    store.clone().close().unwrap();
    assert!(
        matches!(waiting.recv_timeout(support::DEADLINE), Ok(Ok(()))),
        "what came before is durable"
    );
    assert!(matches!(
        wait(|done| log.append(entries(1, 1, 2..3), done)),
        Err(StorageError::Closed)
    ));
    assert!(matches!(wait(|done| store.flush(done)), Err(StorageError::Closed)));
    assert!(matches!(
        wait(|done| store.delete_group(GroupId::new(1), done)),
        Err(StorageError::Closed)
    ));
    assert!(matches!(log.read(at(0), at(9), 9), Err(StorageError::Closed)));
    assert!(matches!(store.groups(), Err(StorageError::Closed)));
    assert!(matches!(store.open_group(GroupId::new(1)), Err(StorageError::Closed)));
    store.close().unwrap();
}

fn a_hole_in_a_log_is_refused(subject: impl Subject) {
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

fn pending_bytes_return_to_zero(subject: impl Subject) {
    let log = open(subject.store(), 1);
    for index in 0..50 {
        log.append(vec![entry(1, 1, index, &[0; 10_000])], ignore());
    }
    done(|done| subject.store().flush(done));
    assert_eq!(subject.store().pending_bytes(), 0);
}

fn readers_and_a_writer_at_once(subject: impl Subject) {
    let log = open(subject.store(), 1);
    done(|done| log.append(entries(1, 1, 0..200), done));
    std::thread::scope(|scope| {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        for _ in 0..2 {
            let (log, stop) = (log.clone(), stop.clone());
            scope.spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let found = log.read(at(0), at(u64::MAX), usize::MAX).unwrap();
                    for pair in found.windows(2) {
                        assert_eq!(pair[0].header().index.next(), pair[1].header().index);
                        assert!(pair[0].header().term <= pair[1].header().term, "a mixture of two logs");
                    }
                    log.rows(at(0), at(u64::MAX)).unwrap();
                }
            });
        }
        for round in 0..200u64 {
            let first = 150 + round;
            log.truncate_after(Some(at(first - 1)), ignore());
            log.append(entries(1, 2 + round, first..first + 60), ignore());
            log.purge(id(1, round / 4), ignore());
        }
        done(|done| subject.store().flush(done));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(log.state().last.unwrap().index, at(408));
}
