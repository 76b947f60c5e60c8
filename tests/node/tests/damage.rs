//! Acceptance 5: a flipped bit in a stopped node's directory is named, or changes nothing; a damaged body is never served.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use nsquorum_client::{ClientError, Connection, Event, IdentifyOptions};
use nsquorum_node_tests::{
    BodyId, Disk, ExitReason, Node, NodeFlags, StartFailure, VerifyReport, count, get, seed, until, verify,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Topics, each with these channels.
const TOPICS: [&str; 3] = ["orders", "invoices", "alarms"];
const CHANNELS: [&str; 2] = ["ledger", "archive"];
/// Reading what is left in a directory.
const READ_DEADLINE: Duration = Duration::from_secs(120);
/// A node that has met damage ends.
const END_DEADLINE: Duration = Duration::from_secs(30);
/// Of the flips that were named, one of this many also has a node started on it: that costs more than all else.
const STARTED_ONE_IN: u64 = 8;

fn flags() -> NodeFlags {
    // Small tables and checkpoints, so that a small data set has all kinds of files.
    NodeFlags::new(&["--memory-budget", "16MiB"])
}

/// What a node delivers of each topic and channel: numbers with their bodies, or its words when it refuses.
type Deliveries = BTreeMap<(&'static str, &'static str), Result<BTreeMap<u64, BodyId>, String>>;

/// Publishes, consumes a part, stops; three times, so that there are logs, tables, blobs, checkpoints and purged prefixes.
async fn make(data: &Path) -> Result<()> {
    for round in 0..3 {
        let node = Node::start(data, &flags()).await?;
        for (place, name) in TOPICS.into_iter().enumerate() {
            node.create(name, &CHANNELS).await?;
            let topic = name.parse()?;
            let publisher = u32::try_from(round * TOPICS.len() + place)?;
            let producer = Connection::connect(node.tcp(), IdentifyOptions::default())
                .await?
                .into_producer();
            // Small bodies stay in tables, large ones go to blob files.
            let lengths = match name {
                "orders" => [400, 9000, 60_000],
                "invoices" => [200, 500, 6000],
                _ => [30, 40, 50],
            };
            for serial in 0..150 {
                let body = BodyId { publisher, serial }.body(lengths[usize::try_from(serial % 3)?]);
                match serial % 10 {
                    0 => producer.dpub(&topic, 3_600_000, &body).await?,
                    _ => producer.publish(&topic, &body).await?,
                }
            }
            // One channel is nearly done with, the other has just begun.
            for (channel, share) in CHANNELS.into_iter().zip([120, 15]) {
                let connection = Connection::connect(node.tcp(), IdentifyOptions::default()).await?;
                let mut consumer = connection.subscribe(&topic, &channel.parse()?, 1).await?;
                for taken in 0..share {
                    let Some(Event::Message(message)) = consumer.next().await? else {
                        continue;
                    };
                    match taken % 20 {
                        7 => consumer.req(message.id, 3_600_000)?,
                        _ => consumer.fin(message.id)?,
                    }
                }
                consumer.close().await?;
            }
        }
        node.stop_cleanly().await?;
    }
    Ok(())
}

/// Everything that a node in this directory delivers at once. `Err` with the exit code if it does not start, or ends
/// because of what it finds.
async fn read(data: &Path) -> Result<Result<Deliveries, ExitReason>> {
    let mut node = match Node::start(data, &flags()).await {
        Ok(node) => node,
        Err(error) => return Ok(Err(error.downcast::<StartFailure>()?.exit)),
    };
    let mut all = Deliveries::new();
    for topic in TOPICS {
        for channel in CHANNELS {
            let read = match read_channel(&node, topic, channel).await {
                Ok(read) => Ok(read),
                // A damaged topic is put aside, and the others go on.
                Err(error) if is_put_aside(&node, topic, &error).await => Err(error.to_string()),
                Err(error) => match node.until_ended(END_DEADLINE).await? {
                    Some(exit) => return Ok(Err(exit)),
                    None => bail!("{topic} {channel}: {error}, and the node goes on:\n{}", node.log()),
                },
            };
            all.insert((topic, channel), read);
        }
    }
    node.stop_cleanly().await?;
    Ok(Ok(all))
}

/// The node says that it does not serve this topic.
async fn is_put_aside(node: &Node, topic: &str, error: &anyhow::Error) -> bool {
    if let Some(ClientError::Server(error)) = error.downcast_ref() {
        return error.code() == "E_SUB_FAILED";
    }
    // Its consumers were told nothing: their connections ended with the topic.
    match get(node.http(), &format!("/stats?format=json&topic={topic}")).await {
        Ok(stats) => !stats.text.contains("\"topic_name\""),
        Err(_) => false,
    }
}

async fn read_channel(node: &Node, topic: &str, channel: &str) -> Result<BTreeMap<u64, BodyId>> {
    let connection = Connection::connect(node.tcp(), IdentifyOptions::default()).await?;
    let mut consumer = connection.subscribe(&topic.parse()?, &channel.parse()?, 2500).await?;
    let mut read = BTreeMap::new();
    // What was in flight at the stop or is due comes at once; what is deferred for an hour does not.
    until("the channel has nothing left to deliver", READ_DEADLINE, async || {
        let depth = node.depth(topic, channel).await?;
        let expected = usize::try_from(depth.in_flight)?;
        while read.len() < expected {
            let Some(Event::Message(message)) = consumer.next().await? else {
                continue;
            };
            let number = message.id.to_seq().unwrap_or(0);
            // The point of it all.
            let body = BodyId::of(&message.body);
            let body = body.unwrap_or_else(|| panic!("message {number} of {topic} was delivered damaged"));
            read.insert(number, body);
        }
        Ok(depth.waiting == 0)
    })
    .await?;
    match consumer.close().await {
        Ok(()) | Err(ClientError::ClosedByServer) => Ok(read),
        Err(error) => Err(error.into()),
    }
}

/// Every file below `folder`, by its path there. Second names of the same file are left out.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    use std::os::unix::fs::MetadataExt as _;
    let (mut found, mut seen, mut folders) = (Vec::new(), BTreeSet::new(), vec![folder.to_path_buf()]);
    while let Some(next) = folders.pop() {
        let mut entries = fs::read_dir(next)?.collect::<std::io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::path);
        for entry in entries {
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.len() > 0 {
                found.push((metadata.ino(), entry.path().strip_prefix(folder)?.to_path_buf()));
            }
        }
    }
    // Under the database's own name, where it has one.
    found.sort_by_key(|(_, path)| path.starts_with("graveyard"));
    found.retain(|(inode, _)| seen.insert(*inode));
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for file in files(from)? {
        let place = to.join(&file);
        fs::create_dir_all(place.parent().unwrap_or(to))?;
        fs::copy(from.join(&file), place)?;
    }
    Ok(())
}

/// Where `verify` sees damage: file and offset.
fn named(report: &VerifyReport, file: &Path) -> Option<u64> {
    let name = file.to_string_lossy();
    report
        .findings
        .iter()
        .find(|finding| finding["file"] == *name)
        .and_then(|finding| finding["offset"].as_u64())
}

/// Damage may end the node or put a topic aside, and may be passed by without harm; what is delivered must be what was
/// stored.
fn compare(what: &str, is_named: bool, good: &Deliveries, read: &Result<Deliveries, ExitReason>) {
    if !is_named {
        assert_eq!(
            read.as_ref(),
            Ok(good),
            "{what} was not named, and changes what is delivered"
        );
        return;
    }
    match read {
        Ok(read) => {
            for (place, messages) in read
                .iter()
                .filter_map(|(place, read)| Some((place, read.as_ref().ok()?)))
            {
                let stored = good[place].as_ref().unwrap();
                for (number, body) in messages {
                    let stored = stored.get(number);
                    assert!(
                        stored.is_none_or(|stored| stored == body),
                        "{what}: {number} of {place:?} is another message"
                    );
                }
            }
        }
        Err(exit) => assert!(
            matches!(exit, ExitReason::Code(70 | 72 | 74)),
            "{what} ends the node with {exit:?}"
        ),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_named_or_changes_nothing() {
    let (flips, seed) = (count("NSQUORUM_FLIPS", 40), seed());
    println!("{flips} flips; NSQUORUM_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let disk = Disk::plain().unwrap();
    make(&disk.data()).await.unwrap();
    let good_report = verify(&disk.data()).unwrap();
    assert!(good_report.is_clean(), "{:?}", good_report.findings);
    let untouched = tempfile::tempdir().unwrap();
    copy(&disk.data(), untouched.path()).unwrap();
    let good = read(untouched.path()).await.unwrap().unwrap();
    assert!(
        good.values()
            .all(|read| read.as_ref().is_ok_and(|messages| messages.len() > 15)),
        "there is too little to damage: {good:?}"
    );
    let files = files(&disk.data()).unwrap();
    println!("files: {files:?}");

    let (mut names, mut harmless, mut started) = (0, 0, 0);
    for flip in 0..flips {
        let file = &files[random.random_range(0..files.len())];
        let path = disk.data().join(file);
        let bytes = fs::read(&path).unwrap();
        let at = random.random_range(0..bytes.len());
        let bit = random.random_range(0..8);
        let what = format!("seed {seed}, flip {flip}: bit {bit} of byte {at} of {}", file.display());
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << bit;
        fs::write(&path, &damaged).unwrap();

        let report = verify(&disk.data()).unwrap_or_else(|error| panic!("{what}: {error:#}"));
        let place = named(&report, file);
        match place {
            Some(offset) => {
                assert!(offset <= at as u64, "{what} is named at {offset}, behind it");
                names += 1;
            }
            None => {
                assert!(
                    report.is_clean(),
                    "{what} was found, but not where it is: {:?}",
                    report.findings
                );
                assert_eq!(
                    report.groups, good_report.groups,
                    "{what} was not named, and changes the state"
                );
                harmless += 1;
            }
        }
        if place.is_none() || flip % STARTED_ONE_IN == 0 {
            let beside = tempfile::tempdir().unwrap();
            copy(&disk.data(), beside.path()).unwrap();
            let read = read(beside.path())
                .await
                .unwrap_or_else(|error| panic!("{what}: {error:#}"));
            compare(&what, place.is_some(), &good, &read);
            started += 1;
        }
        fs::write(&path, &bytes).unwrap();
    }
    println!("figure: {flips} flips: {names} named, {harmless} in bytes that mean nothing, {started} started on");
    assert!(names > 0, "no flip was named: they miss what matters");
    assert!(verify(&disk.data()).unwrap().is_clean());
}
