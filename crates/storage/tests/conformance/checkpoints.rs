//! Checkpoint slots.

use super::*;

pub(crate) fn checkpoint(index: u64, state: &[u8]) -> Checkpoint {
    Checkpoint {
        log_id: Some(id(1, index)),
        membership: format!("m{index}").into(),
        state: state.to_vec().into(),
    }
}

pub(crate) fn checkpoints_are_put_moved_and_cleared(mut subject: impl Subject) {
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

pub(crate) fn a_checkpoint_of_many_parts_survives(mut subject: impl Subject) {
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
