//! A queue's metadata.

use crate::Position;

/// A queue's `meta.dat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) depth: u64,
    pub(crate) read: Position,
    pub(crate) write: Position,
}

impl Metadata {
    /// `None` if it is not what go-diskqueue writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        // A count that started anew after a crash goes below zero.
        let depth = lines.next()?.parse::<i64>().ok()?;
        let depth = u64::try_from(depth).unwrap_or(0);
        let read = position(lines.next()?)?;
        let write = position(lines.next()?)?;
        let is_possible = lines.next().is_none() && read <= write;
        is_possible.then_some(Self { depth, read, write })
    }
}

fn position(line: &str) -> Option<Position> {
    let (file, offset) = line.split_once(',')?;
    Some(Position {
        file: file.parse().ok()?,
        offset: offset.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_go_diskqueue_writes_is_understood() {
        let at = |file, offset| Position { file, offset };
        let expected = Metadata {
            depth: 3,
            read: at(0, 20),
            write: at(1, 0),
        };
        assert_eq!(Metadata::parse("3\n0,20\n1,0\n"), Some(expected));
        let counted_below_zero = Metadata { depth: 0, ..expected };
        assert_eq!(Metadata::parse("-2\n0,20\n1,0\n"), Some(counted_below_zero));
        for text in [
            "",
            "3\n",
            "3\n0,20\n",
            "-\n0,0\n0,0\n",
            "3\n0,20\n1\n",
            "3\n0,20\n1,0\nx\n",
            "3\n1,0\n0,20\n",
            "3\n0,-1\n1,0\n",
        ] {
            assert_eq!(Metadata::parse(text), None, "{text:?}");
        }
    }
}
