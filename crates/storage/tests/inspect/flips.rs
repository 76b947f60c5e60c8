//! Single flipped bits anywhere in the directory of a stopped node.

use std::fs;
use std::path::PathBuf;

use nsquorum_storage::inspect::{Outcome, Place, Report};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::node;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The part of a report that says what the directory holds.
fn content(report: &Report) -> String {
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    json["groups"].to_string()
}

/// Every flip is named with its file and an offset at or before it, or changes nothing at all; and whatever a node that starts in
/// the damaged directory reads is what was written.
#[test]
fn a_flipped_bit_is_named_or_changes_nothing() {
    let flips = number("NSQUORUM_FLIPS").unwrap_or(300);
    let seed = number("NSQUORUM_SEED").unwrap_or_else(rand::random);
    println!("{flips} flips; NSQUORUM_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    node::make(dir.path());
    let good = node::check(dir.path());
    assert_eq!(good.outcome(), Outcome::Clean, "{good}");
    let good_content = content(&good);
    let written = node::read_all_of_copy(dir.path());
    let files: Vec<(PathBuf, Vec<u8>)> = node::files(dir.path())
        .into_iter()
        .filter(|file| !file.starts_with("graveyard"))
        .map(|file| (file.clone(), fs::read(dir.path().join(file)).unwrap()))
        .filter(|(_, bytes)| !bytes.is_empty())
        .collect();
    let all_bytes: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    let (mut named, mut harmless) = (0u64, 0u64);
    for flip in 0..flips {
        // By size, and by file: small files matter as much as large ones.
        let (file, bytes) = if random.random() {
            let mut at = random.random_range(0..all_bytes);
            files
                .iter()
                .find(|(_, bytes)| {
                    at < bytes.len() || {
                        at -= bytes.len();
                        false
                    }
                })
                .unwrap()
        } else {
            &files[random.random_range(0..files.len())]
        };
        let at = random.random_range(0..bytes.len());
        let bit = random.random_range(0..8);
        let mut bad = bytes.clone();
        bad[at] ^= 1 << bit;
        let path = dir.path().join(file);
        fs::write(&path, &bad).unwrap();
        let what = format!("seed {seed}, flip {flip}: bit {bit} of byte {at} of {}", file.display());
        let report = node::check(dir.path());
        let place = report.findings.iter().find_map(|finding| match &finding.place {
            Place::File { file: named, offset } if *named == file.to_string_lossy() => Some(*offset),
            _ => None,
        });
        match place {
            Some(offset) => {
                assert!(offset <= at as u64, "{what} was named at {offset}\n{report}");
                named += 1;
            }
            None => {
                assert_eq!(
                    report.outcome(),
                    Outcome::Clean,
                    "{what} was found, but not where it is\n{report}"
                );
                assert_eq!(content(&report), good_content, "{what} was not found\n{report}");
                harmless += 1;
            }
        }
        // Starting is slow (it syncs), so only for what was not named, and some of the rest.
        if place.is_none() || flip % 8 == 0 {
            let copy = tempfile::tempdir().unwrap();
            node::copy(dir.path(), copy.path());
            match node::read_all(copy.path()) {
                Err(error) => assert!(
                    place.is_some(),
                    "{what} was not named, but the node does not start: {error}"
                ),
                Ok(read) => {
                    if place.is_none() {
                        assert_eq!(read, written, "{what} was not named, but the node reads something else");
                    }
                    for (group, entries, _) in &read {
                        let good = &written.iter().find(|(good, _, _)| good == group).unwrap().1;
                        for entry in entries {
                            assert!(good.contains(entry), "{what}: a damaged entry was served");
                        }
                    }
                }
            }
        }
        fs::write(&path, bytes).unwrap();
    }
    println!("{named} named, {harmless} in bytes that mean nothing");
    assert!(
        flips < 100 || named > flips / 3,
        "{named} of {flips} named: the flips miss what matters"
    );
    assert_eq!(node::check(dir.path()).outcome(), Outcome::Clean);
}
