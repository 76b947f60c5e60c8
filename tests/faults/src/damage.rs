//! Damage to a directory at rest: what a disk does to bytes long after they were synced.
//!
//! For directories that no process has open. Every damage can be taken back, so that one directory serves many rounds.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::seed::Seed;

/// A page: what a disk loses at once.
const PAGE_BYTES: u64 = 4096;

/// What was done to which file, and how to take it back.
#[derive(Debug)]
#[must_use = "the damage stays unless it is taken back"]
pub struct Damage {
    /// The damaged file.
    pub file: PathBuf,
    /// First damaged byte.
    pub offset: u64,
    /// The damaged bytes as they were, up to the old end of the file.
    original: Vec<u8>,
}

impl Damage {
    /// Restores the bytes.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn undo(self) -> io::Result<()> {
        open(&self.file)?.write_all_at(&self.original, self.offset)
    }

    /// Flips one bit.
    ///
    /// # Errors
    /// If the file cannot be changed, or is not longer than `offset`.
    ///
    /// # Panics
    /// If `bit` is not below 8.
    pub fn flip_bit(path: &Path, offset: u64, bit: u8) -> io::Result<Self> {
        assert!(bit < 8, "a byte has no bit {bit}");
        let file = open(path)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset)?;
        file.write_all_at(&[byte[0] ^ (1 << bit)], offset)?;
        Ok(Self {
            file: path.to_owned(),
            offset,
            original: byte.to_vec(),
        })
    }

    /// Flips a random bit of all the bytes below `directory`, each as likely as any other. `None` if there are none.
    ///
    /// # Errors
    /// If the directory cannot be read or the file not be changed.
    pub fn flip_random_bit(directory: &Path, seed: u64) -> io::Result<Option<Self>> {
        let files = files_below(directory)?;
        let mut at = Seed::new(seed).below(files.iter().map(|(_, bytes)| bytes * 8).sum());
        for (path, bytes) in files {
            if at < bytes * 8 {
                return Self::flip_bit(&path, at / 8, (at % 8) as u8).map(Some);
            }
            at -= bytes * 8;
        }
        Ok(None)
    }

    /// Zeros the page that holds `offset`.
    ///
    /// # Errors
    /// If the file cannot be changed, or is not longer than `offset`.
    pub fn zero_page(path: &Path, offset: u64) -> io::Result<Self> {
        let file = open(path)?;
        let start = offset / PAGE_BYTES * PAGE_BYTES;
        let length = file.metadata()?.len();
        if offset >= length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut original = vec![0; PAGE_BYTES.min(length - start) as usize];
        file.read_exact_at(&mut original, start)?;
        file.write_all_at(&vec![0; original.len()], start)?;
        Ok(Self {
            file: path.to_owned(),
            offset: start,
            original,
        })
    }

    /// Cuts the file off at `length`.
    ///
    /// # Errors
    /// If the file cannot be changed, or is shorter already.
    pub fn cut(path: &Path, length: u64) -> io::Result<Self> {
        let file = open(path)?;
        let cut = file
            .metadata()?
            .len()
            .checked_sub(length)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut original = vec![0; cut as usize];
        file.read_exact_at(&mut original, length)?;
        file.set_len(length)?;
        Ok(Self {
            file: path.to_owned(),
            offset: length,
            original,
        })
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// All regular files below a directory with their lengths, in the order of their paths: the same tree gives the same
/// list.
///
/// # Errors
/// If a directory cannot be read.
pub fn files_below(directory: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                directories.push(entry.path());
            } else if metadata.is_file() {
                files.push((entry.path(), metadata.len()));
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_damage_is_done_and_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let bytes: Vec<u8> = (0..10_000u32).map(|at| (at % 255 + 1) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let check = |damage: Damage, expected: &[u8]| {
            assert!(std::fs::read(&path).unwrap() == expected);
            damage.undo().unwrap();
            assert!(std::fs::read(&path).unwrap() == bytes);
        };
        let mut flipped = bytes.clone();
        flipped[77] ^= 0b1000;
        check(Damage::flip_bit(&path, 77, 3).unwrap(), &flipped);
        let mut zeroed = bytes.clone();
        zeroed[4096..8192].fill(0);
        check(Damage::zero_page(&path, 5000).unwrap(), &zeroed);
        zeroed.clone_from(&bytes);
        zeroed[8192..].fill(0);
        check(Damage::zero_page(&path, 9999).unwrap(), &zeroed);
        check(Damage::cut(&path, 123).unwrap(), &bytes[..123]);
        assert!(Damage::flip_bit(&path, 10_000, 0).is_err());
    }

    #[test]
    fn random_flips_reach_every_file_and_repeat() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("d")).unwrap();
        for name in ["a", "d/b", "d/empty"] {
            std::fs::write(
                directory.path().join(name),
                vec![0; if name == "d/empty" { 0 } else { 50 }],
            )
            .unwrap();
        }
        let mut hit = std::collections::BTreeMap::new();
        for seed in 0..64 {
            let flip = |seed| Damage::flip_random_bit(directory.path(), seed).unwrap().unwrap();
            let first = flip(seed);
            let place = (first.file.clone(), first.offset);
            *hit.entry(first.file.clone()).or_insert(0) += 1;
            first.undo().unwrap();
            let again = flip(seed);
            assert_eq!((again.file.clone(), again.offset), place);
            again.undo().unwrap();
        }
        assert_eq!(hit.len(), 2);
        assert!(hit.values().all(|hits| *hits > 10), "{hit:?}");
        let nothing = tempfile::tempdir().unwrap();
        assert!(Damage::flip_random_bit(nothing.path(), 1).unwrap().is_none());
    }
}
