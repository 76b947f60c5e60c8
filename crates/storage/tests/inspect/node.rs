//! A small node directory with everything in it: two topics and a metadata group, purged prefixes, checkpoints, blob files, several
//! tables, and a write-ahead log that was not flushed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use bytes::Bytes;
use nsquorum_environment::{Environment, ManualClock, WallTime};
use nsquorum_storage::inspect::{MetadataReplay, NamedTopic, Report, VerifyOptions, verify};
use nsquorum_storage::{
    Checkpoint, CheckpointSlot, Completion, ENTRY_HEADER_BYTES, Entry, EntryKind, GroupLog, LogId, NodeStore, RocksLog,
    RocksStore, StorageError, StoreOptions, Vote,
};
use nsquorum_topic::{
    BatchBuilder, BatchView, ChannelIncarnation, EntryPosition, Event, FeatureLevel, GroupId, LeaderStart, LogIndex,
    LogTime, NewMessage, NodeId, NodeIncarnation, Seq, SeqRange, Term, TopicState,
};

pub(crate) const METADATA: GroupId = GroupId::METADATA;
pub(crate) const ORDERS: GroupId = GroupId::new(1);
pub(crate) const INVOICES: GroupId = GroupId::new(2);
pub(crate) const TERM: Term = Term::new(3);

pub(crate) fn options(dir: &Path) -> StoreOptions {
    let environment = Environment::manual(ManualClock::new(WallTime::default()).into(), 7);
    StoreOptions {
        memtable_bytes: 128 << 10,
        ballast_bytes: 0,
        refuse_publishes_below_bytes: 0,
        refuse_all_below_bytes: 0,
        ..StoreOptions::new(dir, environment)
    }
}

/// Runs an operation and waits until it is durable.
pub(crate) fn durably(operation: impl FnOnce(Completion)) {
    let (sender, receiver) = mpsc::channel();
    operation(Box::new(move |result| drop(sender.send(result))));
    receiver.recv().expect("a completion is always called").unwrap();
}

/// A topic whose entries are made, applied and appended together.
pub(crate) struct Topic {
    pub(crate) log: RocksLog,
    pub(crate) state: TopicState,
    next: LogIndex,
}

impl Topic {
    pub(crate) fn new(store: &RocksStore, group: GroupId) -> Self {
        let log = store.open_group(group).unwrap();
        let mut topic = Self {
            log,
            state: TopicState::new(Seq::new(0)),
            next: LogIndex::new(0),
        };
        durably(|done| {
            topic.log.save_vote(
                Vote {
                    term: TERM,
                    node: NodeId::new(1),
                    committed: true,
                },
                done,
            )
        });
        topic.append(Entry::copy_of(
            b"members",
            EntryKind::Membership,
            group,
            Term::new(0),
            LogIndex::new(0),
        ));
        topic.append(Entry::copy_of(b"", EntryKind::Blank, group, TERM, LogIndex::new(1)));
        let start = LeaderStart {
            node: NodeId::new(1),
            incarnation: NodeIncarnation::new(1),
            term: TERM,
            clock: LogTime::new(5),
        };
        topic.append(Entry::seal(
            start.encode(ENTRY_HEADER_BYTES),
            EntryKind::LeaderStart,
            group,
            TERM,
            LogIndex::new(2),
        ));
        topic.batch(|batch| {
            batch.push_event(&Event::CreateChannel {
                name: "ledger".parse().unwrap(),
            });
            batch.push_event(&Event::CreateChannel {
                name: "archive".parse().unwrap(),
            });
        });
        topic
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        let header = *entry.header();
        assert_eq!(header.index, self.next);
        self.next = self.next.next();
        let at = EntryPosition {
            index: header.index,
            term: header.term,
            encoded_bytes: entry.encoded_len() as u32,
        };
        match header.kind {
            EntryKind::TopicBatch => {
                let batch = BatchView::parse(entry.payload()).unwrap();
                let _applied = self.state.apply_batch(at, &batch).unwrap();
            }
            EntryKind::LeaderStart => {
                self.state
                    .apply_leader_start(at, &LeaderStart::decode(&entry.payload()).unwrap())
                    .unwrap();
            }
            _ => self.state.apply_other(at).unwrap(),
        }
        durably(|done| self.log.append(vec![entry], done));
    }

    pub(crate) fn batch(&mut self, fill: impl FnOnce(&mut BatchBuilder)) {
        self.batch_at(self.state.next_seq(), fill);
    }

    /// A batch made for `first`; void unless that is the next number.
    pub(crate) fn batch_at(&mut self, first: Seq, fill: impl FnOnce(&mut BatchBuilder)) {
        let mut batch = BatchBuilder::with_header_room(ENTRY_HEADER_BYTES);
        fill(&mut batch);
        let payload = batch.finish(TERM, first, LogTime::new(9), FeatureLevel::default());
        self.append(Entry::seal(
            payload,
            EntryKind::TopicBatch,
            self.log.group(),
            TERM,
            self.next,
        ));
    }

    pub(crate) fn publish(&mut self, count: u64, body_bytes: usize) {
        let first = self.state.next_seq().get();
        self.batch(|batch| {
            for number in first..first + count {
                let mut body = number.to_string().into_bytes();
                body.resize(body_bytes, number as u8);
                batch.push_message(&NewMessage::new(body.into(), LogTime::new(7)));
            }
        });
    }

    pub(crate) fn finish(&mut self, channel: u64, first: u64, last: u64) {
        let ranges = vec![SeqRange::new(Seq::new(first), Seq::new(last)).unwrap()];
        self.batch(|batch| {
            batch.push_event(&Event::Finish {
                channel: ChannelIncarnation::new(channel),
                ranges,
            })
        });
    }

    pub(crate) fn last(&self) -> LogId {
        self.log.state().last.unwrap()
    }

    pub(crate) fn checkpoint(&self, slots: &[CheckpointSlot]) {
        let checkpoint = Checkpoint {
            log_id: Some(self.last()),
            membership: Bytes::from_static(b"members"),
            state: self.state.encode().into(),
        };
        durably(|done| self.log.put_checkpoint(slots, checkpoint, done));
    }
}

/// A metadata machine that counts: its state is the number of commands.
#[derive(Default)]
pub(crate) struct Counting(pub(crate) u64);

impl MetadataReplay for Counting {
    fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        self.0 = u64::from_le_bytes(state.try_into().map_err(|_| "8 bytes".to_owned())?);
        Ok(())
    }

    fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        match entry.header().kind {
            EntryKind::Metadata => self.0 += 1,
            EntryKind::Blank | EntryKind::Membership => {}
            other => return Err(format!("{other:?}")),
        }
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }

    fn topics(&self) -> Vec<NamedTopic> {
        [(ORDERS, "orders"), (INVOICES, "invoices")]
            .map(|(group, name)| NamedTopic {
                group,
                name: name.to_owned(),
                seq_base: Seq::new(0),
            })
            .to_vec()
    }
}

fn metadata_group(store: &RocksStore) {
    let log = store.open_group(METADATA).unwrap();
    for index in 0..6 {
        let entry = Entry::copy_of(b"{}", EntryKind::Metadata, METADATA, TERM, LogIndex::new(index));
        durably(|done| log.append(vec![entry], done));
        if index == 3 {
            let checkpoint = Checkpoint {
                log_id: log.state().last,
                membership: Bytes::from_static(b"members"),
                state: 4u64.to_le_bytes().to_vec().into(),
            };
            durably(|done| log.put_checkpoint(&[CheckpointSlot::Newest], checkpoint, done));
        }
    }
    log.save_committed(log.state().last.unwrap());
}

/// What the topics of a directory must come to.
pub(crate) struct Expected {
    pub(crate) orders: TopicState,
    pub(crate) invoices: TopicState,
}

/// Fills a new directory and closes it.
pub(crate) fn make(dir: &Path) -> Expected {
    let store = RocksStore::open(options(dir)).unwrap();
    metadata_group(&store);
    // Many small messages, purged as consumers get on.
    let mut orders = Topic::new(&store, ORDERS);
    let mut purge_at = None;
    for round in 0..30u64 {
        orders.publish(5, 1500);
        if round % 5 == 4 {
            let next = orders.state.next_seq();
            orders.batch_at(next.plus(2), |batch| {
                batch.push_message(&NewMessage::new(Bytes::from_static(b"never answered"), LogTime::new(7)));
            });
        }
        if round == 12 {
            orders.checkpoint(&[CheckpointSlot::Purge, CheckpointSlot::Newest]);
            purge_at = Some(orders.last());
        }
        if round == 24 {
            for channel in [1, 2] {
                orders.finish(channel, 1, 120);
            }
            let purged = purge_at.expect("the checkpoint was taken before");
            // Readers begin at an index point: the log goes only up to that.
            assert!(orders.state.purge_index() > purged.index);
            durably(|done| orders.log.purge(purged, done));
        }
        if round == 20 {
            orders.checkpoint(&[CheckpointSlot::Newest, CheckpointSlot::Candidate]);
        }
    }
    orders.finish(1, 125, 126);
    // Large ones, some requeued or deferred.
    let mut invoices = Topic::new(&store, INVOICES);
    for round in 0..12u64 {
        invoices.publish(3, 9000);
        if round == 6 {
            invoices.checkpoint(&[CheckpointSlot::Newest]);
        }
    }
    invoices.batch(|batch| {
        batch.push_event(&Event::Requeue {
            channel: ChannelIncarnation::new(2),
            seq: Seq::new(4),
            attempts: nsquorum_topic::Attempts::new(2),
            not_before: Some(LogTime::new(90)),
            cause: nsquorum_topic::RequeueCause::Timeout,
        });
        let mut message = NewMessage::new(Bytes::from_static(b"later"), LogTime::new(7));
        message.defer_ms = 60_000;
        batch.push_message(&message);
    });
    for topic in [&orders, &invoices] {
        topic.log.save_committed(topic.last());
    }
    durably(|done| store.flush(done));
    let expected = Expected {
        orders: orders.state.clone(),
        invoices: invoices.state.clone(),
    };
    drop((orders, invoices));
    store.close().unwrap();
    expected
}

pub(crate) fn check(dir: &Path) -> Report {
    verify(
        dir,
        VerifyOptions { with_messages: true },
        Some(&mut Counting::default()),
    )
    .unwrap()
}

/// Every file below `dir`, with its path from there, in order.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(dir.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path)
            } else {
                found.push(path)
            }
        }
    }
    found.sort();
    found
}

pub(crate) fn copy(from: &Path, to: &Path) {
    for file in files(from).iter().filter(|file| !file.starts_with("graveyard")) {
        let target = to.join(file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(from.join(file), target).unwrap();
    }
}

/// A group, the entries that could be read, and why there are no more.
pub(crate) type Read = (GroupId, Vec<Entry>, Option<String>);

/// What a node reads that starts in a copy of the directory.
pub(crate) fn read_all_of_copy(dir: &Path) -> Vec<Read> {
    let to = tempfile::tempdir().unwrap();
    copy(dir, to.path());
    read_all(to.path()).unwrap()
}

/// All entries that a node reads that starts in the directory.
pub(crate) fn read_all(dir: &Path) -> Result<Vec<Read>, StorageError> {
    let store = RocksStore::open(options(dir))?;
    let mut groups = Vec::new();
    for group in store.groups()? {
        let log = match store.open_group(group) {
            Ok(log) => log,
            Err(error) => {
                groups.push((group, Vec::new(), Some(error.to_string())));
                continue;
            }
        };
        let state = log.state();
        let mut from = state.last_purged.map_or(LogIndex::new(0), |purged| purged.index.next());
        let to = state.last.map_or(from, |last| last.index.next());
        let (mut entries, mut refused) = (Vec::new(), None);
        while from < to {
            match log.read(from, to, 1 << 20) {
                Ok(read) if read.is_empty() => break,
                Ok(read) => {
                    from = read.last().unwrap().header().index.next();
                    entries.extend(read);
                }
                Err(error) => {
                    refused = Some(error.to_string());
                    break;
                }
            }
        }
        groups.push((group, entries, refused));
    }
    store.close()?;
    Ok(groups)
}
