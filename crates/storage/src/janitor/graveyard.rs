//! No file is freed at full size.
//!
//! Freeing a large file stalls every other file's sync on common file systems (64 MiB: about 70 ms, 256 MiB: 150 to 270 ms, chains
//! longer than a leader's lease). The database deletes its files itself, whenever it likes. So each gets a second name here soon
//! after it was made; the database's own deletion then frees nothing, and the file, down to one name, is shrunk in small steps.
//! See docs/decisions/0002-slow-deletion.md.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::directory::{DATABASE_FOLDER, GRAVEYARD_FOLDER};

/// Bytes freed in one step.
const STEP_BYTES: u64 = 4 << 20;
/// Endings of the files that grow large.
const LARGE: [&str; 3] = ["log", "sst", "blob"];

/// Whether anything is left to shrink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Swept {
    Clean,
    More,
}

pub(super) struct Graveyard {
    database: PathBuf,
    graves: PathBuf,
    /// Files whose last name is here, with their remaining sizes.
    dead: BTreeMap<PathBuf, u64>,
    /// The file system refused a second name once: it will always.
    disabled: bool,
}

impl Graveyard {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            database: directory.join(DATABASE_FOLDER),
            graves: directory.join(GRAVEYARD_FOLDER),
            dead: BTreeMap::new(),
            disabled: false,
        }
    }

    /// Gives new files their second name and finds those that lost their first.
    pub(super) fn look(&mut self) -> Swept {
        // Graves first: a file linked below must not be taken for dead because of an older look at its names.
        self.find_dead();
        self.link_new();
        if self.dead.is_empty() {
            Swept::Clean
        } else {
            Swept::More
        }
    }

    fn find_dead(&mut self) {
        for item in fs::read_dir(&self.graves).into_iter().flatten().flatten() {
            let Ok(found) = item.metadata() else { continue };
            if found.is_file() && found.nlink() == 1 {
                self.dead.entry(item.path()).or_insert(found.len());
            }
        }
    }

    fn link_new(&mut self) {
        if self.disabled {
            return;
        }
        for item in fs::read_dir(&self.database).into_iter().flatten().flatten() {
            let path = item.path();
            if !path
                .extension()
                .is_some_and(|ending| LARGE.iter().any(|large| ending == *large))
            {
                continue;
            }
            let Ok(found) = item.metadata() else { continue };
            if found.nlink() > 1 {
                continue;
            }
            // The inode makes the name unique: the database may count its files from the start again.
            let name = format!("{}.{}", item.file_name().to_string_lossy(), found.ino());
            match fs::hard_link(&path, self.graves.join(name)) {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) => {}
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "no second names: files are freed at full size");
                    self.disabled = true;
                    return;
                }
            }
        }
    }

    /// What is left to free.
    pub(super) fn dead_bytes(&self) -> u64 {
        self.dead.values().sum()
    }

    /// Frees at most [`STEP_BYTES`] of one dead file.
    pub(super) fn step(&mut self) -> Swept {
        if let Some((path, size)) = self.dead.pop_first() {
            match shrink(&path, size) {
                Ok(0) => {}
                Ok(left) => drop(self.dead.insert(path, left)),
                Err(error) => tracing::warn!(%error, path = %path.display(), "could not shrink a dead file"),
            }
        }
        if self.dead.is_empty() {
            Swept::Clean
        } else {
            Swept::More
        }
    }
}

/// Cuts the end off; at the beginning, removes the file. Says how many bytes are left.
fn shrink(path: &Path, size: u64) -> std::io::Result<u64> {
    if size <= STEP_BYTES {
        // Preallocated space beyond the file's end goes with the rest.
        fs::remove_file(path)?;
        return Ok(0);
    }
    let left = size - STEP_BYTES;
    OpenOptions::new().write(true).open(path)?.set_len(left)?;
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup() -> (tempfile::TempDir, Graveyard) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(DATABASE_FOLDER)).unwrap();
        fs::create_dir(directory.path().join(GRAVEYARD_FOLDER)).unwrap();
        let graveyard = Graveyard::new(directory.path());
        (directory, graveyard)
    }

    fn graves(graveyard: &Graveyard) -> Vec<PathBuf> {
        fs::read_dir(&graveyard.graves)
            .unwrap()
            .map(|item| item.unwrap().path())
            .collect()
    }

    #[test]
    fn a_deleted_file_is_shrunk_in_steps_and_a_living_one_is_left_alone() {
        let (_directory, mut graveyard) = setup();
        let (dying, living) = (
            graveyard.database.join("000004.blob"),
            graveyard.database.join("000005.log"),
        );
        for path in [&dying, &living] {
            fs::write(path, vec![1; 2 * STEP_BYTES as usize + 5]).unwrap();
        }
        fs::write(graveyard.database.join("CURRENT"), "x").unwrap();
        assert_eq!(graveyard.look(), Swept::Clean);
        assert_eq!(
            graves(&graveyard).len(),
            2,
            "large files get a second name, others do not"
        );
        assert_eq!(graveyard.look(), Swept::Clean, "both still have their first name");

        fs::remove_file(&dying).unwrap();
        assert_eq!(graveyard.look(), Swept::More);
        let mut sizes = vec![];
        while graveyard.step() == Swept::More {
            let dead = graves(&graveyard).into_iter().map(|path| fs::metadata(path).unwrap());
            sizes.extend(dead.filter(|found| found.nlink() == 1).map(|found| found.len()));
        }
        assert_eq!(
            sizes,
            [STEP_BYTES + 5, 5],
            "a file must never lose more than one step at once"
        );
        assert_eq!(graves(&graveyard).len(), 1);
        assert_eq!(fs::metadata(&living).unwrap().len(), 2 * STEP_BYTES + 5);
    }

    #[test]
    fn what_a_crash_left_is_swept_at_the_next_start() {
        let (directory, graveyard) = setup();
        fs::write(graveyard.graves.join("000004.sst.99"), "x").unwrap();
        let mut next = Graveyard::new(directory.path());
        assert_eq!(next.look(), Swept::More);
        assert_eq!(next.step(), Swept::Clean);
        assert!(graves(&next).is_empty());
    }

    #[test]
    fn a_file_number_used_again_does_not_disturb_the_dead() {
        let (_directory, mut graveyard) = setup();
        let path = graveyard.database.join("000004.sst");
        fs::write(&path, "old").unwrap();
        graveyard.look();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "new").unwrap();
        graveyard.look();
        while graveyard.step() == Swept::More {}
        graveyard.look();
        assert_eq!(graves(&graveyard).len(), 1);
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
