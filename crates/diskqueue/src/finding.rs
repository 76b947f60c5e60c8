//! What is not as it should be in a queue.

use std::fmt;

use crate::Position;

/// Something in a queue that nsqd's clean exit does not leave behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// There are files and no metadata: nsqd crashed before it wrote any. All files are read, so what was consumed before may come again.
    NoMetadata,
    /// The metadata cannot be understood. All files are read.
    BadMetadata(String),
    /// Files lie behind the place where metadata say that nsqd wrote: it crashed. They are read, as nsqd would.
    BehindMetadata {
        /// Where writing was said to be.
        said: Position,
        /// Where the files end.
        found: Position,
    },
    /// Metadata say another number of messages than there are. More are usual after a crash; fewer are not, for what metadata say was synced
    /// before them.
    Depth {
        /// In the metadata.
        said: u64,
        /// Read.
        found: u64,
    },
    /// A file before the one that is read first: its messages were consumed, only its removal failed. Not read.
    Consumed {
        /// Its number.
        file: u64,
    },
    /// The last record of the last file is incomplete: a write that a crash interrupted.
    TornTail {
        /// Where it begins.
        at: Position,
        /// What is there of it.
        bytes: u64,
    },
    /// What follows in a file is no record; the rest of the file is not read.
    Damaged {
        /// Where it begins.
        at: Position,
        /// Bytes of the file that were not read.
        bytes: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A record without a body, which nsqd accepts from nobody. It is left out.
    EmptyBody {
        /// Where it begins.
        at: Position,
    },
    /// A file that should be there is not.
    MissingFile {
        /// Its number.
        file: u64,
    },
    /// A file that nsqd has set aside because it could not read it. Not read.
    SetAside {
        /// Its name.
        name: String,
        /// Its length.
        bytes: u64,
    },
}

impl Finding {
    /// Whether messages may be missing because of it that had been acknowledged and not been consumed.
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::MissingFile { .. } | Self::SetAside { .. } => true,
            Self::Depth { said, found } => *found < *said,
            Self::NoMetadata
            | Self::BadMetadata(_)
            | Self::BehindMetadata { .. }
            | Self::Consumed { .. }
            | Self::TornTail { .. }
            | Self::EmptyBody { .. } => false,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMetadata => write!(f, "no metadata: everything in its files is taken"),
            Self::BadMetadata(text) => write!(f, "metadata {text:?} make no sense: everything in its files is taken"),
            Self::BehindMetadata { said, found } => {
                write!(
                    f,
                    "nsqd did not stop cleanly: metadata end at {said}, the files at {found}"
                )
            }
            Self::Depth { said, found } => write!(f, "{found} messages, and metadata say {said}"),
            Self::Consumed { file } => write!(f, "file {file:06} was consumed; it is left out"),
            Self::TornTail { at, bytes } => write!(f, "torn tail: an incomplete record of {bytes} bytes at {at}"),
            Self::Damaged { at, bytes, what } => write!(f, "damaged at {at} ({what}): {bytes} bytes are not read"),
            Self::EmptyBody { at } => write!(f, "a record without a body at {at} is left out"),
            Self::MissingFile { file } => write!(f, "file {file:06} is missing"),
            Self::SetAside { name, bytes } => write!(f, "nsqd had set {name} aside ({bytes} bytes); it is not read"),
        }
    }
}
