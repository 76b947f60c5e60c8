//! Random operations on several groups, checked after each against plain maps, with restarts in between.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use nsquorum_storage::{Checkpoint, CheckpointSlot, GroupLog, NodeStore, Vote};
use nsquorum_topic::{GroupId, NodeId, Term};
use proptest::prelude::*;
use support::model::Group;
use support::{Memory, Rocks, Subject, at, done, entry, id, ignore, open};

#[derive(Clone, Debug)]
enum Operation {
    Append { count: u64, payload: usize },
    Truncate { back: u64 },
    Purge { ahead: u64 },
    Vote(u64),
    Committed { back: u64 },
    Put { slots: u8, bytes: usize },
    Move(usize, usize),
    Clear(usize),
    Delete,
    Flush,
    Restart,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => (0..80u64, 0..600usize).prop_map(|(count, payload)| Operation::Append { count, payload }),
        3 => (0..50u64).prop_map(|back| Operation::Truncate { back }),
        3 => (0..120u64).prop_map(|ahead| Operation::Purge { ahead }),
        2 => any::<u64>().prop_map(Operation::Vote),
        3 => (0..20u64).prop_map(|back| Operation::Committed { back }),
        2 => (1..8u8, 0..3_000usize).prop_map(|(slots, bytes)| Operation::Put { slots, bytes }),
        1 => (0..3usize, 0..3usize).prop_map(|(from, to)| Operation::Move(from, to)),
        1 => (0..3usize).prop_map(Operation::Clear),
        1 => Just(Operation::Delete),
        1 => Just(Operation::Flush),
        1 => Just(Operation::Restart),
    ]
}

/// The groups' numbers are neighbours: their keys are too.
const GROUPS: u64 = 3;

fn run<S: Subject>(history: &[(u64, Operation)]) {
    let mut subject = S::new();
    let mut models: BTreeMap<u64, Group> = (0..GROUPS).map(|group| (group, Group::default())).collect();
    for (step, (group, operation)) in (1u64..).zip(history) {
        let log = open(subject.store(), *group);
        let model = models.get_mut(group).unwrap();
        let last = model.state().last;
        match operation {
            Operation::Append { count, payload } => {
                let first = if last.is_none() { step % 3 } else { model.next_index() };
                let made: Vec<_> = (first..first + count)
                    .map(|index| entry(*group, step, index, &vec![index as u8; payload + index as usize % 5]))
                    .collect();
                model.append(&made);
                log.append(made, ignore());
            }
            Operation::Truncate { back } => {
                // Committed entries are never truncated.
                let floor = model.committed.map(|mark| mark.index.get());
                let kept = last.and_then(|last| last.index.get().checked_sub(*back)).max(floor);
                model.truncate_after(kept);
                log.truncate_after(kept.map(at), ignore());
            }
            Operation::Purge { ahead } => {
                let from = model.entries.keys().next().copied().unwrap_or(0);
                let up_to = from + ahead;
                let term = model
                    .entries
                    .get(&up_to)
                    .map_or(step, |entry| entry.log_id().term.get());
                model.purge(id(term, up_to));
                log.purge(id(term, up_to), ignore());
            }
            Operation::Vote(term) => {
                let vote = Vote {
                    term: Term::new(*term),
                    node: NodeId::new(step),
                    committed: term % 2 == 0,
                };
                model.vote = Some(vote);
                log.save_vote(vote, ignore());
            }
            Operation::Committed { back } => {
                let index = model.next_index().checked_sub(back + 1);
                if let Some(found) = index
                    .and_then(|index| model.entries.get(&index))
                    .map(|entry| entry.log_id())
                    && model.committed.is_none_or(|before| before < found)
                {
                    model.committed = Some(found);
                    log.save_committed(found);
                }
            }
            Operation::Put { slots, bytes } => {
                let slots: Vec<_> = CheckpointSlot::ALL
                    .into_iter()
                    .filter(|slot| slots & (1 << *slot as u8) != 0)
                    .collect();
                let checkpoint = Checkpoint {
                    log_id: last,
                    membership: step.to_string().into(),
                    state: vec![step as u8; *bytes].into(),
                };
                model
                    .checkpoints
                    .extend(slots.iter().map(|slot| (*slot, checkpoint.clone())));
                log.put_checkpoint(&slots, checkpoint, ignore());
            }
            Operation::Move(from, to) => {
                let (from, to) = (CheckpointSlot::ALL[*from], CheckpointSlot::ALL[*to]);
                model.move_checkpoint(from, to);
                log.move_checkpoint(from, to, ignore());
            }
            Operation::Clear(slot) => {
                model.checkpoints.remove(&CheckpointSlot::ALL[*slot]);
                log.clear_checkpoint(CheckpointSlot::ALL[*slot], ignore());
            }
            Operation::Delete => {
                *model = Group::default();
                subject.store().delete_group(GroupId::new(*group), ignore());
            }
            Operation::Flush => done(|done| subject.store().flush(done)),
            Operation::Restart => {
                drop(log);
                subject.reopen();
            }
        }
        for (group, model) in &models {
            check(&open(subject.store(), *group), model, step);
        }
    }
    subject.reopen();
    for (group, model) in &models {
        check(&open(subject.store(), *group), model, step_count(history));
    }
}

fn step_count(history: &[(u64, Operation)]) -> u64 {
    history.len() as u64
}

fn check(log: &impl GroupLog, model: &Group, step: u64) {
    let group = log.group();
    assert_eq!(log.state(), model.state(), "state of group {group} after step {step}");
    assert_eq!(log.vote(), model.vote, "vote of group {group} after step {step}");
    assert_eq!(
        log.committed(),
        model.committed,
        "commit mark of group {group} after step {step}"
    );
    let all = model.all();
    assert_eq!(
        log.read(at(0), at(u64::MAX), usize::MAX).unwrap(),
        all,
        "entries of group {group} after step {step}"
    );
    assert_eq!(
        log.rows(at(0), at(u64::MAX)).unwrap(),
        model.rows(),
        "rows of group {group} after step {step}"
    );
    if let Some(middle) = all.get(all.len() / 2) {
        let from = middle.header().index;
        let some = log.read(from, at(u64::MAX), 2_000).unwrap();
        assert_eq!(some, all[all.len() / 2..][..some.len()]);
        assert!(!some.is_empty());
        if let Some(cached) = log.read_cached(from, at(u64::MAX), 2_000) {
            assert_eq!(cached, some);
        }
    }
    for slot in CheckpointSlot::ALL {
        let found = log.checkpoint(slot).unwrap();
        assert_eq!(
            found.as_ref(),
            model.checkpoints.get(&slot),
            "{slot:?} of group {group} after step {step}"
        );
    }
}

fn history(steps: usize) -> impl Strategy<Value = Vec<(u64, Operation)>> {
    proptest::collection::vec((0..GROUPS, operation()), 1..steps)
}

/// `NSQUORUM_CASES` asks for more. A failing history is printed whole, shrunk.
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("NSQUORUM_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::with_cases(asked.unwrap_or(cases))
    }
}

proptest! {
    #![proptest_config(config(200))]
    #[test]
    fn memory_does_what_plain_maps_do(history in history(60)) {
        run::<Memory>(&history);
    }
}

proptest! {
    #![proptest_config(config(30))]
    #[test]
    fn rocks_does_what_plain_maps_do(history in history(60)) {
        run::<Rocks>(&history);
    }
}
