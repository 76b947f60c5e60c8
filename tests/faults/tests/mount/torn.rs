//! Torn crashes: of the unsynced writes of a file a random prefix stays, and the seed decides which.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;

use super::*;

fn torn(seed: u64) -> MountOptions {
    MountOptions {
        torn: true,
        seed,
        ..ordered()
    }
}

fn length_after_a_torn_crash(seed: u64) -> Option<usize> {
    let bed = Bed::new(torn(seed))?;
    let file = bed.stored("f", b"durable");
    for at in 0..10 {
        file.write_all_at(&[b'a' + at; 10], 7 + 10 * u64::from(at)).unwrap();
    }
    bed.crash();
    let data = bed.read("f");
    let whole: Vec<u8> = (0..10).flat_map(|at| [b'a' + at; 10]).collect();
    assert_eq!(&data[..7], b"durable");
    assert!(whole.starts_with(&data[7..]), "{data:?}");
    Some(data.len())
}

#[test]
fn a_prefix_in_bytes_stays_and_the_seed_decides() {
    let lengths: Vec<Option<usize>> = (0..12).map(length_after_a_torn_crash).collect();
    let again: Vec<Option<usize>> = (0..12).map(length_after_a_torn_crash).collect();
    assert_eq!(lengths, again);
    let distinct: BTreeSet<usize> = lengths.iter().flatten().copied().collect();
    assert!(lengths[0].is_none() || distinct.len() > 4, "{distinct:?}");
    assert!(
        distinct.is_empty() || distinct.iter().any(|length| length % 10 != 7),
        "some cut is inside a write"
    );
}

#[test]
fn what_was_synced_is_never_torn() {
    for seed in 0..8 {
        on(torn(seed), |bed| {
            let file = bed.stored("f", &[1; 100]);
            file.write_all_at(&[2; 50], 25).unwrap();
            file.sync_all().unwrap();
            file.set_len(60).unwrap();
            file.write_all_at(&[3; 20], 60).unwrap();
            file.sync_all().unwrap();
            let stored = bed.read("f");
            file.write_all_at(&[4; 30], 80).unwrap();
            bed.crash();
            let after = bed.read("f");
            assert!(after.starts_with(&stored) && after.len() <= 110);
        });
    }
}
