use std::collections::BTreeMap;
use std::fs;
use std::time::SystemTime;

use nsquorum_storage::inspect::{Outcome, Place, VerifyOptions, verify};
use nsquorum_storage::{
    CheckpointSlot, DirectoryLock, Entry, EntryKind, GroupLog, NodeStore, RocksStore, StorageError,
};
use nsquorum_topic::{LogIndex, Seq};

use crate::node::{self, INVOICES, METADATA, ORDERS, TERM, Topic, durably, options};

#[test]
fn a_stopped_node_is_clean_and_comes_to_the_state_that_was_applied() {
    let dir = tempfile::tempdir().unwrap();
    let expected = node::make(dir.path());
    let report = node::check(dir.path());
    assert_eq!(report.outcome(), Outcome::Clean, "{report}");
    assert_eq!(
        report.groups.iter().map(|group| group.group).collect::<Vec<_>>(),
        [METADATA, ORDERS, INVOICES]
    );
    for (at, name, state) in [(1, "orders", &expected.orders), (2, "invoices", &expected.invoices)] {
        let group = &report.groups[at];
        assert_eq!(group.name.as_deref(), Some(name));
        assert_eq!(group.vote.unwrap().term, TERM);
        assert_eq!(group.committed, group.last);
        let topic = group.topic.as_ref().unwrap();
        assert_eq!(topic.digest, state.digest());
        assert_eq!(topic.next_seq, state.next_seq());
        assert_eq!(topic.void_batches, state.void_batches());
        assert_eq!(topic.channels.len(), 2);
        assert_eq!(topic.channels[0].name, "ledger");
        let messages = topic.messages.as_ref().unwrap();
        assert_eq!(messages.last().unwrap().seq.next(), state.next_seq());
        assert!(
            messages.windows(2).all(|pair| pair[1].seq == pair[0].seq.next()),
            "dense"
        );
        assert!(
            messages[0].seq <= state.purge_floor(),
            "everything that is needed is still there"
        );
    }
    let orders = report.groups[1].topic.as_ref().unwrap();
    assert!(report.groups[1].purged.is_some());
    assert_eq!(orders.channels[0].floor, Seq::new(121));
    assert_eq!(orders.channels[0].finished.len(), 1);
    assert!(
        orders.replayed_void > 0,
        "void batches behind the purge checkpoint were replayed"
    );
    assert_eq!(report.groups[1].checkpoints.len(), 3);
    let invoices = report.groups[2].topic.as_ref().unwrap();
    assert_eq!(invoices.channels[1].exceptions.len(), 1);
    assert_eq!(invoices.deferred.len(), 1);
    assert!(report.files.tables > 0 && report.files.blobs > 0, "{report}");
}

#[test]
fn the_json_report_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let expected = node::make(dir.path());
    let json: serde_json::Value = serde_json::from_str(&node::check(dir.path()).to_json()).unwrap();
    assert_eq!(json["outcome"], "clean");
    assert_eq!(json["identity"]["node"], 1);
    let orders = &json["groups"][1];
    assert_eq!(orders["name"], "orders");
    assert_eq!(orders["topic"]["digest"], expected.orders.digest().to_string());
    assert_eq!(orders["topic"]["next_seq"], expected.orders.next_seq().get());
    assert_eq!(orders["topic"]["channels"][0]["floor"], 121);
    assert_eq!(
        orders["topic"]["channels"][0]["finished"],
        serde_json::json!([[125, 126]])
    );
    let invoices = &json["groups"][2]["topic"];
    assert_eq!(
        invoices["channels"][1]["exceptions"],
        serde_json::json!([{"seq": 4, "attempts": 2, "not_before": 90}])
    );
    assert_eq!(invoices["messages"].as_array().unwrap().len(), 37);
}

#[test]
fn nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    node::make(dir.path());
    let look = || -> BTreeMap<_, (u64, SystemTime, Vec<u8>)> {
        node::files(dir.path())
            .into_iter()
            .map(|file| {
                let path = dir.path().join(&file);
                let metadata = fs::metadata(&path).unwrap();
                (
                    file,
                    (metadata.len(), metadata.modified().unwrap(), fs::read(path).unwrap()),
                )
            })
            .collect()
    };
    let before = look();
    node::check(dir.path());
    assert!(before == look());
}

#[test]
fn a_directory_in_use_is_refused_and_names_who_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    node::make(dir.path());
    let _held = DirectoryLock::acquire(dir.path()).unwrap();
    match verify(dir.path(), VerifyOptions::default(), None) {
        Err(StorageError::InUse { holder, .. }) => {
            assert!(holder.contains(&std::process::id().to_string()), "{holder}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_directory_that_is_not_ours_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        verify(dir.path(), VerifyOptions::default(), None),
        Err(StorageError::Foreign { .. })
    ));
    fs::write(dir.path().join("nsqd.dat"), b"{}").unwrap();
    assert!(matches!(
        verify(dir.path(), VerifyOptions::default(), None),
        Err(StorageError::Foreign { .. })
    ));
}

#[test]
fn a_node_that_died_before_it_wrote_anything_is_clean() {
    let dir = tempfile::tempdir().unwrap();
    RocksStore::open(options(dir.path())).unwrap().close().unwrap();
    let report = node::check(dir.path());
    assert_eq!(report.outcome(), Outcome::Clean, "{report}");
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    fs::create_dir(dir.path().join("db")).unwrap();
    let report = node::check(dir.path());
    assert_eq!(report.outcome(), Outcome::Clean, "{report}");
}

#[test]
fn a_restarted_node_is_clean() {
    let dir = tempfile::tempdir().unwrap();
    let expected = node::make(dir.path());
    for _ in 0..2 {
        node::read_all(dir.path()).unwrap();
        let report = node::check(dir.path());
        assert_eq!(report.outcome(), Outcome::Clean, "{report}");
        assert_eq!(
            report.groups[1].topic.as_ref().unwrap().digest,
            expected.orders.digest()
        );
    }
}

#[test]
fn a_deleted_group_leaves_nothing_that_is_called_damage() {
    let dir = tempfile::tempdir().unwrap();
    node::make(dir.path());
    let store = RocksStore::open(options(dir.path())).unwrap();
    durably(|done| store.delete_group(ORDERS, done));
    store.close().unwrap();
    let report = node::check(dir.path());
    assert_eq!(report.outcome(), Outcome::Clean, "{report}");
    assert_eq!(
        report.groups.iter().map(|group| group.group).collect::<Vec<_>>(),
        [METADATA, INVOICES]
    );
}

#[test]
fn what_no_correct_leader_writes_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = RocksStore::open(options(dir.path())).unwrap();
    let mut topic = Topic::new(&store, ORDERS);
    topic.publish(3, 10);
    let index = topic.last().index.next();
    let foreign = Entry::copy_of(b"{}", EntryKind::Metadata, ORDERS, TERM, index);
    durably(|done| topic.log.append(vec![foreign], done));
    drop(topic);
    store.close().unwrap();
    let report = node::check(dir.path());
    assert_eq!(report.findings.len(), 1, "{report}");
    assert_eq!(report.findings[0].place, Place::Entry { group: ORDERS, index });
}

#[test]
fn a_checkpoint_of_another_state_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = RocksStore::open(options(dir.path())).unwrap();
    let mut topic = Topic::new(&store, ORDERS);
    topic.publish(3, 10);
    let state = std::mem::replace(&mut topic.state, nsquorum_topic::TopicState::new(Seq::new(7)));
    topic.checkpoint(&[CheckpointSlot::Newest]);
    drop((topic, state));
    store.close().unwrap();
    let report = node::check(dir.path());
    let place = Place::Checkpoint {
        group: ORDERS,
        slot: CheckpointSlot::Newest,
    };
    assert!(report.findings.iter().any(|finding| finding.place == place), "{report}");
}

#[test]
fn a_group_that_the_metadata_does_not_know_is_only_a_note() {
    let dir = tempfile::tempdir().unwrap();
    let store = RocksStore::open(options(dir.path())).unwrap();
    let metadata = store.open_group(METADATA).unwrap();
    let entry = Entry::copy_of(b"{}", EntryKind::Metadata, METADATA, TERM, LogIndex::new(0));
    durably(|done| metadata.append(vec![entry], done));
    let topic = Topic::new(&store, nsquorum_topic::GroupId::new(9));
    drop((topic, metadata));
    store.close().unwrap();
    let report = node::check(dir.path());
    assert_eq!(report.outcome(), Outcome::Clean, "{report}");
    assert_eq!(report.notes.len(), 1, "{report}");
    assert_eq!(report.groups[1].name, None);
}
