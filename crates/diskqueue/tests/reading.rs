//! Data paths as nsqd leaves them, cleanly and otherwise. That nsqd really writes this is shown by tests/stock/migration, with nsqd itself.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use nsquorum_diskqueue::{DataPath, DataPathError, Finding, Position, Queue, QueueName, Record};

const NSQD_DAT: &str = r#"{"topics":[{"channels":[{"name":"ledger","paused":true},{"name":"mail","paused":false}],"name":"orders","paused":false},{"channels":null,"name":"idle","paused":true}],"version":"1.3.0"}"#;

fn record(body: &str) -> Vec<u8> {
    let mut bytes = i32::try_from(26 + body.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(&1_700_000_000_000_000_000_i64.to_be_bytes());
    bytes.extend_from_slice(&3_u16.to_be_bytes());
    bytes.extend_from_slice(b"0d3a5c7e9f1b2c4d");
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

fn records(bodies: &[&str]) -> Vec<u8> {
    bodies.iter().flat_map(|body| record(body)).collect()
}

struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        disk.write("nsqd.dat", NSQD_DAT.as_bytes());
        disk
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path().join(name), bytes).unwrap();
    }

    fn metadata(&self, text: &str) {
        self.write("orders:mail.diskqueue.meta.dat", text.as_bytes());
    }

    fn file(&self, number: u64, bytes: &[u8]) {
        self.write(&format!("orders:mail.diskqueue.{number:06}.dat"), bytes);
    }

    fn queue(&self) -> Queue {
        let name = QueueName::Channel("orders".parse().unwrap(), "mail".parse().unwrap());
        DataPath::open(self.path()).unwrap().queue(&name).unwrap()
    }

    /// Bodies and findings of the queue.
    fn read(&self) -> (Vec<String>, Vec<Finding>) {
        read(&self.queue())
    }
}

fn read(queue: &Queue) -> (Vec<String>, Vec<Finding>) {
    let mut reader = queue.read(100);
    let mut bodies = Vec::new();
    while let Some(Record { body, attempts, .. }) = reader.next_record().unwrap() {
        assert_eq!(attempts, 3);
        bodies.push(String::from_utf8(body).unwrap());
    }
    assert!(reader.next_record().unwrap().is_none(), "the end stays the end");
    (bodies, [queue.findings(), reader.findings()].concat())
}

#[test]
fn topics_channels_and_pauses_are_those_of_nsqd_dat() {
    let disk = Disk::new();
    let data_path = DataPath::open(disk.path()).unwrap();
    let names: Vec<String> = data_path.queue_names().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["orders:ledger", "orders:mail", "orders", "idle"]);
    let [orders, idle] = data_path.topics() else {
        panic!("two")
    };
    assert!(!orders.paused && orders.channels[0].paused && !orders.channels[1].paused && idle.paused);
}

#[test]
fn what_is_ephemeral_is_left_out() {
    let disk = Disk::new();
    let text = NSQD_DAT
        .replace("mail", "mail#ephemeral")
        .replace("idle", "idle#ephemeral");
    disk.write("nsqd.dat", text.as_bytes());
    let names = DataPath::open(disk.path()).unwrap().queue_names();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["orders:ledger", "orders"]);
}

#[test]
fn a_queue_is_read_from_its_place_over_its_files() {
    let disk = Disk::new();
    let begin = record("consumed").len();
    disk.file(3, &records(&["consumed", "a", "b"]));
    disk.file(4, &records(&["c"]));
    disk.metadata(&format!("3\n3,{begin}\n4,{}\n", record("c").len()));
    assert_eq!(disk.read(), (vec!["a".into(), "b".into(), "c".into()], vec![]));
    assert_eq!(disk.queue().depth(), Some(3));
}

#[test]
fn a_queue_without_files_is_empty() {
    let disk = Disk::new();
    assert_eq!(disk.read(), (vec![], vec![]));
    disk.metadata("0\n7,0\n7,0\n");
    assert_eq!(
        disk.read(),
        (vec![], vec![]),
        "nothing was written since the last file was consumed"
    );
}

#[test]
fn what_a_crashed_nsqd_wrote_behind_its_metadata_is_read() {
    let disk = Disk::new();
    disk.file(0, &records(&["a", "b"]));
    disk.file(1, &records(&["c"]));
    disk.metadata("1\n0,0\n0,31\n");
    let at = |file, offset| Position { file, offset };
    let finding = Finding::BehindMetadata {
        said: at(0, 31),
        found: at(1, 31),
    };
    assert_eq!(disk.read(), (vec!["a".into(), "b".into(), "c".into()], vec![finding]));
}

#[test]
fn without_metadata_that_make_sense_everything_is_read() {
    let disk = Disk::new();
    disk.file(2, &records(&["a"]));
    assert_eq!(disk.read(), (vec!["a".into()], vec![Finding::NoMetadata]));
    disk.metadata("1\n9,9\n0,0\n");
    let finding = Finding::BadMetadata("1\n9,9\n0,0\n".into());
    assert_eq!(disk.read(), (vec!["a".into()], vec![finding]));
    disk.write("orders:mail.diskqueue.meta.dat", b"1\n\xff,9\n");
    let finding = Finding::BadMetadata("1\n\u{fffd},9\n".into());
    assert_eq!(disk.read(), (vec!["a".into()], vec![finding]), "not even text");
}

#[test]
fn a_count_below_what_metadata_say_is_damage() {
    let depth = |said, found| Finding::Depth { said, found };
    assert!(depth(2, 1).is_damage(), "a file may end early where a record ends");
    assert!(!depth(1, 2).is_damage());
}

#[test]
fn a_file_that_ends_before_reading_begins_is_damage() {
    let disk = Disk::new();
    disk.file(0, &record("consumed"));
    disk.file(1, &record("b"));
    disk.metadata("3\n0,76\n1,31\n");
    let short = Finding::Damaged {
        at: Position { file: 0, offset: 38 },
        bytes: 38,
        what: "the file is shorter than the metadata say",
    };
    assert_eq!(disk.read(), (vec!["b".into()], vec![short]));
}

#[test]
fn a_message_that_is_too_long_is_not_passed_over() {
    let disk = Disk::new();
    let long = "x".repeat(101);
    disk.file(0, &records(&["a", &long, "b"]));
    disk.metadata("3\n0,0\n0,193\n");
    let queue = disk.queue();
    let mut reader = queue.read(100);
    assert_eq!(reader.next_record().unwrap().unwrap().body, b"a");
    for _ in 0..2 {
        let refused = reader.next_record();
        assert!(
            matches!(refused, Err(DataPathError::MessageTooLong { bytes: 101, .. })),
            "{refused:?}"
        );
    }
    let mut reader = queue.read(101);
    assert_eq!(std::iter::from_fn(|| reader.next_record().unwrap()).count(), 3);
}

#[test]
fn a_torn_tail_is_named_and_is_no_damage() {
    let whole = records(&["a", "bc"]);
    for cut in 1..record("bc").len() {
        let disk = Disk::new();
        disk.file(0, &whole[..whole.len() - cut]);
        disk.metadata("1\n0,0\n0,0\n");
        let (bodies, findings) = disk.read();
        assert_eq!(bodies, ["a"]);
        let tail = Finding::TornTail {
            at: Position { file: 0, offset: 31 },
            bytes: (record("bc").len() - cut) as u64,
        };
        assert!(
            findings.contains(&tail) && !findings.iter().any(Finding::is_damage),
            "{findings:?}"
        );
    }
}

#[test]
fn behind_damage_the_next_file_is_read() {
    let first = record("a").len();
    let length = |length: i32| length.to_be_bytes().to_vec();
    let broken: [(Vec<u8>, &str); 5] = [
        (length(25), "no record has this length"),
        (length(-1), "no record has this length"),
        (length(127), "no record has this length"),
        (
            [&record("b")[..14], b"not an id.......b"].concat(),
            "no message has this id",
        ),
        (record("b")[..20].to_vec(), "the file ends in a record"),
    ];
    for (bytes, what) in broken {
        let disk = Disk::new();
        disk.file(0, &[record("a"), bytes.clone()].concat());
        disk.file(1, &record("c"));
        disk.metadata("3\n0,0\n1,31\n");
        let (bodies, findings) = disk.read();
        assert_eq!(bodies, ["a", "c"], "{what}");
        let at = Position {
            file: 0,
            offset: first as u64,
        };
        let bytes = bytes.len() as u64;
        assert_eq!(findings, [Finding::Damaged { at, bytes, what }]);
        assert!(findings[0].is_damage());
    }
}

#[test]
fn files_that_are_missing_short_set_aside_or_consumed_are_named() {
    let disk = Disk::new();
    disk.file(0, &record("old"));
    disk.file(1, &record("a"));
    disk.write("orders:mail.diskqueue.000002.dat.bad", b"12345");
    disk.file(3, &record("c"));
    disk.metadata("3\n1,0\n3,62\n");
    let (bodies, findings) = disk.read();
    assert_eq!(bodies, ["a", "c"]);
    let set_aside = Finding::SetAside {
        name: "orders:mail.diskqueue.000002.dat.bad".into(),
        bytes: 5,
    };
    let short = Finding::Damaged {
        at: Position { file: 3, offset: 31 },
        bytes: 31,
        what: "the file is shorter than the metadata say",
    };
    let expected = [
        set_aside,
        Finding::Consumed { file: 0 },
        Finding::MissingFile { file: 2 },
        short,
    ];
    assert_eq!(findings, expected);
}

#[test]
fn an_empty_body_is_left_out() {
    let disk = Disk::new();
    disk.file(0, &records(&["a", "", "b"]));
    disk.metadata("3\n0,0\n0,92\n");
    let at = Position { file: 0, offset: 31 };
    assert_eq!(
        disk.read(),
        (vec!["a".into(), "b".into()], vec![Finding::EmptyBody { at }])
    );
}

#[test]
fn queues_of_nothing_in_nsqd_dat_are_named() {
    let disk = Disk::new();
    disk.write("gone:mail.diskqueue.000000.dat", &record("a"));
    disk.write("empty.diskqueue.meta.dat", b"0\n0,0\n0,0\n");
    assert_eq!(DataPath::open(disk.path()).unwrap().leftovers(), ["gone:mail"]);
}

#[test]
fn a_data_path_in_use_or_of_something_else_is_refused() {
    let disk = Disk::new();
    let first = DataPath::open(disk.path()).unwrap();
    assert!(matches!(DataPath::open(disk.path()), Err(DataPathError::InUse(_))));
    drop(first);
    for damaged in [
        &b""[..],
        b"{\"topics\":[{}]}",
        b"{\"topics\":[{\"name\":\"no name\",\"paused\":false}]}",
        b"{\"topics\":[]} \xff",
        &NSQD_DAT.as_bytes()[..NSQD_DAT.len() / 2],
    ] {
        disk.write("nsqd.dat", damaged);
        assert!(
            matches!(DataPath::open(disk.path()), Err(DataPathError::BadTopics { .. })),
            "{}",
            String::from_utf8_lossy(damaged)
        );
    }
    fs::remove_file(disk.path().join("nsqd.dat")).unwrap();
    assert!(matches!(
        DataPath::open(disk.path()),
        Err(DataPathError::NotADataPath(_))
    ));
}
