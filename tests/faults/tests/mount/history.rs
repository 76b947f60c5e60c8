//! Random histories against a naive model.
//!
//! The model knows only what must be: what processes see, which bytes each file had at its last sync, and which names
//! the directory had when they last became durable: at once in ordered mode with no change pending, at the last sync of
//! the directory in strict mode. A crash must give exactly that back.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use super::*;

/// A generator of its own, so that the test does not share faults with what it tests.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[derive(Clone, Default, Debug)]
struct Model {
    /// Names to numbers of files; two names may share one.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Seen and durable bytes of each file.
    files: Vec<(Vec<u8>, Vec<u8>)>,
}

fn write(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

fn run(metadata: Metadata, seed: u64, steps: u32) {
    on(
        MountOptions {
            pending_ops_max: 0,
            metadata,
            ..ordered()
        },
        |bed| {
            let mut dice = Dice(seed + 1);
            let mut model = Model::default();
            for step in 0..steps {
                let name = format!("f{}", dice.below(6));
                let other = format!("f{}", dice.below(6));
                let path = bed.path(&name);
                let known = model.names.get(&name).copied();
                match (dice.below(13), known) {
                    (0..=3, _) => {
                        let file = OpenOptions::new()
                            .write(true)
                            .create(true)
                            .truncate(false)
                            .open(&path)
                            .unwrap();
                        let number = known.unwrap_or_else(|| {
                            model.files.push(Default::default());
                            model.names.insert(name.clone(), model.files.len() - 1);
                            model.files.len() - 1
                        });
                        let at = dice.below(3000) as usize;
                        let data = vec![step as u8; dice.below(2000) as usize];
                        file.write_all_at(&data, at as u64).unwrap();
                        if !data.is_empty() {
                            write(&mut model.files[number].0, at, &data);
                        }
                    }
                    (4..=5, Some(number)) => {
                        OpenOptions::new().write(true).open(&path).unwrap().sync_all().unwrap();
                        model.files[number].1 = model.files[number].0.clone();
                    }
                    (6, Some(number)) => {
                        let length = dice.below(4000) as usize;
                        OpenOptions::new()
                            .write(true)
                            .open(&path)
                            .unwrap()
                            .set_len(length as u64)
                            .unwrap();
                        let (seen, durable) = &mut model.files[number];
                        if metadata == Metadata::Ordered {
                            // Only the part of the durable bytes that is still visible can come back.
                            durable.truncate(length);
                        }
                        seen.resize(length, 0);
                    }
                    (7, Some(_)) => {
                        fs::remove_file(&path).unwrap();
                        model.names.remove(&name);
                    }
                    (8, Some(number)) => {
                        fs::rename(&path, bed.path(&other)).unwrap();
                        if model.names.get(&other) != Some(&number) {
                            model.names.remove(&name);
                            model.names.insert(other, number);
                        }
                    }
                    (9, Some(number)) if !model.names.contains_key(&other) => {
                        fs::hard_link(&path, bed.path(&other)).unwrap();
                        model.names.insert(other, number);
                    }
                    (10, _) => {
                        sync_directory(bed.fs().path());
                        model.durable_names.clone_from(&model.names);
                    }
                    (11, _) => {
                        bed.crash();
                        model.names.clone_from(&model.durable_names);
                        model
                            .files
                            .iter_mut()
                            .for_each(|(seen, durable)| seen.clone_from(durable));
                    }
                    _ => {}
                }
                if metadata == Metadata::Ordered {
                    model.durable_names.clone_from(&model.names);
                }
                let expected: Vec<String> = model.names.keys().cloned().collect();
                assert_eq!(bed.names(""), expected, "seed {seed} step {step}");
                for (name, number) in &model.names {
                    assert!(
                        bed.read(name) == model.files[*number].0,
                        "seed {seed} step {step}: {name}"
                    );
                }
            }
        },
    );
}

#[test]
fn random_histories_agree_with_the_model() {
    for seed in 0..12 {
        run(Metadata::Ordered, seed, 150);
        run(Metadata::Strict, seed, 150);
    }
}
