//! The writer against a disk that waits for the test before it answers.

use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};
use nsquorum_environment::SystemClock;
use nsquorum_topic::{NodeId, Term};

use super::super::layout::{self, LOG, STATE, StateKey};
use super::batch::Write;
use super::queues::{CYCLE_BYTES, SHARE_BYTES};
use super::*;
use crate::entry::EntryKind;

const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Written {
    Entry(u64, u64),
    State(StateKey),
    Deleted,
}

/// Shows every batch to the test, then waits to be told how its sync ended.
struct Gate {
    shown: Sender<(Vec<Written>, u64)>,
    answers: Receiver<Result<(), StorageError>>,
}

impl Engine for Gate {
    fn write_synced(&self, batch: &Batch) -> Result<(), StorageError> {
        let mut written = Vec::new();
        for write in &batch.writes {
            written.push(match write {
                Write::Put(LOG, key, _) => {
                    let (group, index) = layout::parse_entry_key(key.as_bytes()).unwrap();
                    Written::Entry(group.get(), index.get())
                }
                Write::Put(STATE, key, _) => match StateKey::parse(key.as_bytes()).unwrap() {
                    StateKey::Marker(_) => continue,
                    key => Written::State(key),
                },
                Write::Put(..) => continue,
                Write::Delete(..) | Write::DeleteRange(..) => Written::Deleted,
            });
        }
        let _ = self.shown.send((written, batch.bytes));
        self.answers.recv().unwrap_or(Err(StorageError::Closed))
    }
}

struct Bench {
    inbox: Sender<Message>,
    shown: Receiver<(Vec<Written>, u64)>,
    answers: Sender<Result<(), StorageError>>,
    progress: Arc<Progress>,
    fatal: Arc<AtomicUsize>,
    groups: BTreeMap<u64, Arc<Group>>,
    done: mpsc::Receiver<(u64, bool)>,
    note: mpsc::Sender<(u64, bool)>,
    jobs: u64,
}

impl Bench {
    fn new() -> Self {
        let (inbox, messages) = unbounded();
        let (shown_to, shown) = unbounded();
        let (answers, answers_from) = unbounded();
        let fatal = Arc::new(AtomicUsize::new(0));
        let count = fatal.clone();
        let progress = Arc::new(Progress::new(Arc::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        })));
        let gate = Gate {
            shown: shown_to,
            answers: answers_from,
        };
        let writer = Writer::new(gate, messages, progress.clone(), Arc::new(SystemClock::new()), 1 << 30);
        std::thread::spawn(move || writer.run());
        let (note, done) = mpsc::channel();
        Self {
            inbox,
            shown,
            answers,
            progress,
            fatal,
            groups: BTreeMap::new(),
            done,
            note,
            jobs: 0,
        }
    }

    fn group(&mut self, group: u64) -> Arc<Group> {
        let cached = self.progress.cached_bytes.clone();
        self.groups
            .entry(group)
            .or_insert_with(|| Arc::new(Group::empty(GroupId::new(group), cached)))
            .clone()
    }

    /// Submits a change and returns its number.
    fn submit(&mut self, group: u64, change: Change) -> u64 {
        let (number, note) = (self.jobs, self.note.clone());
        self.jobs += 1;
        let group = self.group(group);
        let first = group.state.lock().first.take();
        let done: Completion = Box::new(move |result| {
            let _ = note.send((number, result.is_ok()));
        });
        self.progress.pending_bytes.fetch_add(1, Ordering::SeqCst);
        let job = Job {
            group,
            first,
            change,
            bytes: 1,
            done: Some(done),
        };
        drop(self.inbox.send(Message::Job(job)));
        number
    }

    fn append(&mut self, group: u64, index: u64, bytes: u64) -> u64 {
        let index = LogIndex::new(index);
        let entry = Entry::copy_of(
            &vec![0; bytes as usize],
            EntryKind::Blank,
            GroupId::new(group),
            Term::new(1),
            index,
        );
        self.submit(group, Change::Append(Ticket(index.get() + 1), vec![entry]))
    }

    fn vote(&mut self, group: u64) -> u64 {
        let vote = Vote {
            term: Term::new(1),
            node: NodeId::new(1),
            committed: false,
        };
        self.submit(group, Change::Vote(vote))
    }

    /// The batch whose sync has begun.
    fn batch(&self) -> Vec<Written> {
        self.shown.recv_timeout(DEADLINE).expect("a batch").0
    }

    fn sync(&self) {
        self.answers.send(Ok(())).unwrap();
    }

    /// The next completions, in order, all good.
    fn completed(&self, count: usize) -> Vec<u64> {
        (0..count)
            .map(|_| {
                let (number, good) = self.done.recv_timeout(DEADLINE).expect("a completion");
                assert!(good, "job {number} failed");
                number
            })
            .collect()
    }

    fn none_completed(&self) {
        assert!(self.done.try_recv().is_err(), "acknowledged before the sync returned");
    }
}

fn vote_of(group: u64) -> Written {
    Written::State(StateKey::Vote(GroupId::new(group)))
}

#[test]
fn nothing_completes_before_its_sync_and_the_next_batch_gathers_meanwhile() {
    let mut bench = Bench::new();
    let first = bench.append(1, 0, 10);
    assert_eq!(bench.batch(), [Written::Entry(1, 0)]);
    let others = [bench.append(2, 7, 10), bench.append(1, 1, 10), bench.append(3, 9, 10)];
    bench.none_completed();
    bench.sync();
    assert_eq!(bench.completed(1), [first]);
    let second = bench.batch();
    assert_eq!(
        second.len(),
        3,
        "everything that came during the sync is one batch: {second:?}"
    );
    bench.none_completed();
    bench.sync();
    let mut completed = bench.completed(3);
    completed.sort_unstable();
    assert_eq!(completed, others);
    assert_eq!(bench.progress.pending_bytes.load(Ordering::SeqCst), 0);
}

#[test]
fn a_group_with_a_vote_comes_first_with_everything_before_the_vote() {
    let mut bench = Bench::new();
    bench.append(1, 0, 10);
    bench.batch();
    for index in 1..=40 {
        bench.append(1, index, SHARE_BYTES);
    }
    bench.append(2, 0, 10);
    bench.vote(2);
    bench.append(2, 1, 10);
    bench.sync();
    let batch = bench.batch();
    assert_eq!(batch[..2], [Written::Entry(2, 0), vote_of(2)]);
    assert!(
        batch.contains(&Written::Entry(1, 1)),
        "the others have their turn in the same cycle"
    );
}

#[test]
fn a_flood_of_one_group_holds_up_no_other() {
    let mut bench = Bench::new();
    bench.append(1, 0, 10);
    bench.batch();
    for index in 1..=100 {
        bench.append(1, index, SHARE_BYTES / 2);
    }
    bench.append(2, 0, 10);
    bench.append(3, 0, 2 * CYCLE_BYTES);
    bench.sync();
    let (batch, bytes) = bench.shown.recv_timeout(DEADLINE).unwrap();
    assert!(batch.contains(&Written::Entry(2, 0)) && batch.contains(&Written::Entry(3, 0)));
    let flood = batch
        .iter()
        .filter(|written| matches!(written, Written::Entry(1, _)))
        .count();
    assert!(
        (2..=3).contains(&flood),
        "a share is about 256 KiB, it was {flood} halves of it"
    );
    assert!(bytes < 4 * CYCLE_BYTES, "a cycle stays short");
    bench.sync();
    let (_, bytes) = bench.shown.recv_timeout(DEADLINE).unwrap();
    assert!(bytes <= CYCLE_BYTES + SHARE_BYTES, "a cycle stays short: {bytes}");
}

#[test]
fn after_a_failed_sync_nothing_succeeds_and_the_hook_is_called_once() {
    let mut bench = Bench::new();
    bench.append(1, 0, 10);
    bench.batch();
    bench.append(1, 1, 10);
    bench.append(2, 0, 10);
    let failed = StorageError::NoSpace {
        doing: "write".into(),
        reason: "full".into(),
    };
    bench.answers.send(Err(failed)).unwrap();
    let next = |bench: &Bench| bench.done.recv_timeout(DEADLINE).expect("a completion");
    let mut failures: Vec<_> = (0..3).map(|_| next(&bench)).collect();
    assert_eq!(failures.remove(0), (0, false));
    bench.vote(2);
    assert_eq!(next(&bench), (3, false));
    assert!(failures.iter().all(|(_, good)| !good));
    assert!(bench.shown.try_recv().is_err(), "a failed store was written to again");
    assert_eq!(bench.fatal.load(Ordering::SeqCst), 1);
    assert_eq!(bench.progress.failure().unwrap().class(), crate::ErrorClass::NoSpace);
    let (sender, flushed) = mpsc::channel();
    bench
        .inbox
        .send(Message::Flush(Flush(Some(Box::new(move |result| {
            drop(sender.send(result))
        })))))
        .unwrap();
    assert!(flushed.recv_timeout(DEADLINE).unwrap().is_err());
}

#[test]
fn a_failed_flush_fails_the_store_with_its_own_error() {
    let bench = Bench::new();
    let unknown = StorageError::Io {
        doing: "flush".into(),
        reason: "counted".into(),
    };
    bench.inbox.send(Message::Failed(unknown)).unwrap();
    assert_eq!(bench.batch(), []);
    let cause = StorageError::NoSpace {
        doing: "write".into(),
        reason: "full".into(),
    };
    bench.answers.send(Err(cause)).unwrap();
    let (sender, flushed) = mpsc::channel();
    let flush: Completion = Box::new(move |result| {
        let _ = sender.send(result);
    });
    bench.inbox.send(Message::Flush(Flush(Some(flush)))).unwrap();
    let error = flushed.recv_timeout(DEADLINE).unwrap().unwrap_err();
    assert_eq!(error.class(), crate::ErrorClass::NoSpace);
    assert_eq!(bench.fatal.load(Ordering::SeqCst), 1);
}

#[test]
fn a_large_checkpoint_is_written_in_parts_and_referred_to_last() {
    let mut bench = Bench::new();
    let state = vec![1; 20 * layout::CHUNK_BYTES];
    let checkpoint = Arc::new(Checkpoint {
        log_id: None,
        membership: Bytes::from_static(b"m"),
        state: state.into(),
    });
    let chunks = Content::chunks_of(&checkpoint);
    assert_eq!(chunks, 21);
    let content = Content {
        ticket: Ticket(1),
        content: 0,
        chunks,
        next_chunk: 0,
        checkpoint,
    };
    let slots = Box::new([None; 3]);
    let large = bench.submit(
        1,
        Change::Slots {
            content: Some(content),
            slots,
            freed: vec![],
        },
    );
    let behind = bench.append(1, 0, 10);
    let mut seen = bench.batch();
    assert!(seen.len() < 10, "the whole checkpoint went into one batch");
    let other = bench.append(2, 0, 10);
    bench.none_completed();
    bench.sync();
    seen.extend(bench.batch());
    assert!(
        seen.contains(&Written::Entry(2, 0)),
        "another group waits for a checkpoint"
    );
    bench.sync();
    assert_eq!(bench.completed(1), [other]);
    while !seen.contains(&Written::Entry(1, 0)) {
        seen.extend(bench.batch());
        bench.sync();
    }
    assert_eq!(bench.completed(2), [large, behind]);
    seen.retain(|written| matches!(written, Written::State(_)));
    assert_eq!(seen.len(), 22);
    assert_eq!(
        seen[21],
        Written::State(StateKey::Slots(GroupId::new(1))),
        "referred to before it was complete"
    );
}

#[test]
fn a_commit_mark_rides_along_but_not_ahead_of_the_log() {
    let mut bench = Bench::new();
    let group = bench.group(1);
    let mark = |index| {
        let mut state = group.state.lock();
        state.committed = Some(LogId {
            term: Term::new(1),
            index: LogIndex::new(index),
        });
        if !std::mem::replace(&mut state.committed_waits, true) {
            bench.progress.committed.lock().push(group.clone());
        }
    };
    mark(1);
    let committed = Written::State(StateKey::Committed(GroupId::new(1)));
    bench.append(1, 0, 10);
    assert_eq!(bench.batch(), [Written::Entry(1, 0)], "entry 1 is not in the log yet");
    bench.sync();
    bench.completed(1);
    bench.append(1, 1, 10);
    assert_eq!(bench.batch(), [Written::Entry(1, 1), committed.clone()]);
    let group = bench.group(1);
    group.state.lock().committed_waits = true;
    bench.progress.committed.lock().push(group);
    bench.sync();
    bench.completed(1);
    assert!(
        bench.shown.try_recv().is_err(),
        "a commit mark caused a write of its own"
    );
    bench.append(2, 0, 10);
    assert_eq!(
        bench.batch(),
        [Written::Entry(2, 0), committed],
        "another group's batch takes it along"
    );
}

#[test]
fn a_flush_waits_for_what_came_before_it_only() {
    let mut bench = Bench::new();
    for index in 0..40 {
        bench.append(1, index, SHARE_BYTES);
    }
    let note = bench.note.clone();
    let flush: Completion = Box::new(move |result| {
        let _ = note.send((1000, result.is_ok()));
    });
    bench.inbox.send(Message::Flush(Flush(Some(flush)))).unwrap();
    let mut completed = Vec::new();
    while completed.len() < 40 {
        let batch = bench.batch();
        bench.sync();
        completed.extend(bench.completed(batch.len()));
    }
    completed.extend(bench.completed(1));
    assert_eq!(completed, (0..40).chain([1000]).collect::<Vec<_>>());
}

#[test]
fn whatever_the_writer_leaves_behind_is_completed() {
    let mut bench = Bench::new();
    let before = bench.append(1, 0, 10);
    bench.inbox.send(Message::Stop).unwrap();
    bench.batch();
    bench.append(1, 1, 10);
    bench.sync();
    assert_eq!(bench.completed(1), [before]);
    assert_eq!(
        bench.done.recv_timeout(DEADLINE).unwrap(),
        (1, false),
        "a completion was lost"
    );
    bench.append(1, 2, 10);
    assert_eq!(
        bench.done.recv_timeout(DEADLINE).unwrap(),
        (2, false),
        "a completion was lost"
    );
}
