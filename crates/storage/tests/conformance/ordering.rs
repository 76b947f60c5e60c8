//! Completions, votes, commit marks, and several threads.

use super::*;

pub(crate) fn completions_come_in_the_order_of_the_calls(subject: impl Subject) {
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

pub(crate) fn completions_may_call_the_log(subject: impl Subject) {
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

pub(crate) fn votes_and_commit_marks_survive(mut subject: impl Subject) {
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

pub(crate) fn a_commit_mark_never_lies_beyond_the_log_after_a_restart(mut subject: impl Subject) {
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

pub(crate) fn pending_bytes_return_to_zero(subject: impl Subject) {
    let log = open(subject.store(), 1);
    for index in 0..50 {
        log.append(vec![entry(1, 1, index, &[0; 10_000])], ignore());
    }
    done(|done| subject.store().flush(done));
    assert_eq!(subject.store().pending_bytes(), 0);
}

pub(crate) fn readers_and_a_writer_at_once(subject: impl Subject) {
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
