//! Directory changes that are not durable yet, in the order in which they happened.
//!
//! Both modes answer one question: which entries does a sync make durable? An ordered file system commits everything up
//! to a point, so the answer is a prefix. A strict one commits a directory, so the answer is the entries of that
//! directory, and those before them without which they would mean nothing.

use std::collections::{HashSet, VecDeque};

use crate::node::{Ino, Place};

/// One change of names, or the truncation of durable bytes in ordered mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// A new name: create, mkdir, symlink, link.
    Link(Place),
    /// A name goes: unlink, rmdir.
    Unlink(Place),
    /// A name moves, over another inode or not.
    Rename {
        from: Place,
        to: Place,
        replaced: Option<Ino>,
    },
    /// Two names change places.
    Exchange { from: Place, to: Place, other: Ino },
    /// Durable bytes of the file are cut off.
    Cut,
}

/// A change of an inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) ino: Ino,
    pub(crate) change: Change,
}

impl Entry {
    /// The names it changes.
    fn places(&self) -> Vec<&Place> {
        match &self.change {
            Change::Link(place) | Change::Unlink(place) => vec![place],
            Change::Rename { from, to, .. } | Change::Exchange { from, to, .. } => vec![from, to],
            Change::Cut => Vec::new(),
        }
    }

    /// The directory whose sync makes it durable in strict mode.
    fn home(&self) -> Option<Ino> {
        match &self.change {
            Change::Link(place) | Change::Unlink(place) => Some(place.dir),
            Change::Rename { to, .. } | Change::Exchange { to, .. } => Some(to.dir),
            Change::Cut => None,
        }
    }

    /// All inodes it needs until it is applied.
    pub(crate) fn inodes(&self) -> Vec<Ino> {
        let mut inodes = vec![self.ino];
        match &self.change {
            Change::Rename {
                replaced: Some(other), ..
            }
            | Change::Exchange { other, .. } => inodes.push(*other),
            _ => {}
        }
        inodes.extend(self.places().iter().map(|place| place.dir));
        inodes
    }
}

/// The queue of entries. Its owner bounds it: see [`Journal::take_beyond`].
#[derive(Debug, Default)]
pub(crate) struct Journal {
    entries: VecDeque<Entry>,
}

impl Journal {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        self.entries.push_back(entry);
    }

    /// Puts back, at the front, what could not be applied.
    pub(crate) fn put_back(&mut self, entries: impl DoubleEndedIterator<Item = Entry>) {
        for entry in entries.rev() {
            self.entries.push_front(entry);
        }
    }

    /// The oldest entries, so that `keep` stay.
    pub(crate) fn take_beyond(&mut self, keep: usize) -> Vec<Entry> {
        self.entries.drain(..self.entries.len().saturating_sub(keep)).collect()
    }

    pub(crate) fn take_first(&mut self, count: usize) -> Vec<Entry> {
        self.entries.drain(..count.min(self.entries.len())).collect()
    }

    /// The prefix that ends with the last entry that changes `file` itself (ordered mode).
    pub(crate) fn take_through_file(&mut self, file: Ino) -> Vec<Entry> {
        self.take_through(|entry| entry.ino == file)
    }

    /// The prefix that ends with the last entry that changes a name in `dir` or `dir`'s own name (ordered mode).
    pub(crate) fn take_through_directory(&mut self, dir: Ino) -> Vec<Entry> {
        self.take_through(|entry| entry.ino == dir || entry.places().iter().any(|place| place.dir == dir))
    }

    /// Whether the truncation of `file` waits here.
    pub(crate) fn has_cut(&self, file: Ino) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.ino == file && entry.change == Change::Cut)
    }

    fn take_through(&mut self, matches: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let count = self.entries.iter().rposition(matches).map_or(0, |last| last + 1);
        self.take_first(count)
    }

    /// What a sync of `dir` makes durable in strict mode: the entries whose new name is in `dir`, and the earlier ones
    /// they stand on: those of the same names, those inside a directory that is removed or replaced, and, where
    /// something moves into a directory, that directory's own name (a real file system never loses a file because the
    /// directory it moved to was new).
    pub(crate) fn take_of_directory(&mut self, dir: Ino) -> Vec<Entry> {
        let mut names: HashSet<Place> = HashSet::new();
        let mut emptied: HashSet<Ino> = HashSet::new();
        let mut reached: HashSet<Ino> = HashSet::new();
        let mut taken = Vec::new();
        let mut kept = VecDeque::with_capacity(self.entries.len());
        while let Some(entry) = self.entries.pop_back() {
            let wanted = entry.home() == Some(dir)
                || reached.contains(&entry.ino)
                || entry
                    .places()
                    .iter()
                    .any(|place| names.contains(*place) || emptied.contains(&place.dir));
            if !wanted {
                kept.push_front(entry);
                continue;
            }
            names.extend(entry.places().into_iter().cloned());
            match &entry.change {
                Change::Unlink(_) => drop(emptied.insert(entry.ino)),
                Change::Rename { to, replaced, .. } => {
                    emptied.extend(replaced);
                    reached.insert(to.dir);
                }
                Change::Exchange { from, to, .. } => reached.extend([from.dir, to.dir]),
                Change::Link(_) | Change::Cut => {}
            }
            taken.push(entry);
        }
        self.entries = kept;
        taken.reverse();
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn place(dir: u64, name: &str) -> Place {
        Place::new(Ino(dir), OsStr::new(name))
    }

    fn link(ino: u64, dir: u64, name: &str) -> Entry {
        Entry {
            ino: Ino(ino),
            change: Change::Link(place(dir, name)),
        }
    }

    fn rename(ino: u64, from: Place, to: Place) -> Entry {
        Entry {
            ino: Ino(ino),
            change: Change::Rename {
                from,
                to,
                replaced: None,
            },
        }
    }

    fn journal(entries: &[Entry]) -> Journal {
        Journal {
            entries: entries.iter().cloned().collect(),
        }
    }

    #[test]
    fn ordered_takes_a_prefix() {
        let entries = [link(10, 1, "a"), link(11, 2, "b"), link(12, 1, "c")];
        let mut by_file = journal(&entries);
        assert_eq!(by_file.take_through_file(Ino(11)), entries[..2]);
        assert_eq!(by_file.len(), 1);
        assert!(by_file.take_through_file(Ino(11)).is_empty());
        let mut by_directory = journal(&entries);
        assert_eq!(by_directory.take_through_directory(Ino(2)), entries[..2]);
        assert_eq!(by_directory.take_through_directory(Ino(1)), entries[2..]);
    }

    #[test]
    fn strict_takes_only_the_directory() {
        let entries = [link(10, 1, "a"), link(11, 2, "b"), link(12, 1, "c")];
        let mut strict = journal(&entries);
        assert_eq!(
            strict.take_of_directory(Ino(1)),
            [entries[0].clone(), entries[2].clone()]
        );
        assert_eq!(strict.take_of_directory(Ino(2)), entries[1..2]);
    }

    #[test]
    fn strict_takes_what_an_entry_stands_on() {
        // a moves from 1 to 2, then a new a takes its name in 1: the second needs the first.
        let entries = [
            rename(10, place(1, "a"), place(2, "a")),
            link(11, 2, "other"),
            link(12, 1, "a"),
        ];
        let mut same_name = journal(&entries);
        assert_eq!(
            same_name.take_of_directory(Ino(1)),
            [entries[0].clone(), entries[2].clone()]
        );

        // A file moves into a directory that is itself not durable: the directory comes along.
        let entries = [
            link(20, 1, "new"),
            link(21, 1, "other"),
            rename(10, place(3, "f"), place(20, "f")),
        ];
        let mut new_directory = journal(&entries);
        assert_eq!(
            new_directory.take_of_directory(Ino(20)),
            [entries[0].clone(), entries[2].clone()]
        );

        // rmdir needs the removals inside.
        let inside = Entry {
            ino: Ino(31),
            change: Change::Unlink(place(30, "x")),
        };
        let removed = Entry {
            ino: Ino(30),
            change: Change::Unlink(place(1, "d")),
        };
        let mut rmdir = journal(&[inside.clone(), link(40, 5, "y"), removed.clone()]);
        assert_eq!(rmdir.take_of_directory(Ino(1)), [inside, removed]);
    }
}
