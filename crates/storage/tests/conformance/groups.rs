//! Several groups in one store.

use super::checkpoints::checkpoint;
use super::*;

pub(crate) fn groups_do_not_see_each_other(mut subject: impl Subject) {
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

pub(crate) fn a_deleted_group_is_gone_and_its_number_usable(mut subject: impl Subject) {
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

pub(crate) fn a_closed_store_refuses_everything(subject: impl Subject) {
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
