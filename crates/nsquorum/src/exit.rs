//! Exit codes. Supervisors and scripts may rely on them.

use std::process::ExitCode;

use nsquorum_storage::{ErrorClass, StorageError};

/// Why the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, or stopped by SIGTERM or SIGINT.
    Ok,
    /// It could not start (an address in use, a directory that cannot be read), or a client command failed.
    Failed,
    /// The command line is wrong.
    Usage,
    /// `status`: something is missing, but everything works.
    Degraded,
    /// `status`: something does not work.
    Unavailable,
    /// A write or a sync failed. What was answered OK is on disk; restarting is right once the disk works.
    WriteFailed,
    /// No space was left for a write. What was answered OK is on disk; restarting with space loses nothing.
    NoSpace,
    /// Stored data are damaged or hold what no correct node writes, or an invariant of the program does not hold. Restarting does not help; see `nsquorum verify`.
    ImpossibleData,
    /// Another process uses the data directory.
    DirectoryInUse,
    /// The directory holds something else.
    ForeignDirectory,
}

impl Exit {
    /// The number that the process ends with.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Degraded => 3,
            Self::Unavailable => 4,
            Self::WriteFailed => 70,
            Self::NoSpace => 71,
            Self::ImpossibleData => 72,
            Self::DirectoryInUse => 73,
            Self::ForeignDirectory => 74,
        }
    }

    /// Why a node whose storage says this cannot go on.
    pub(crate) const fn of_storage(error: &StorageError) -> Self {
        match error.class() {
            ErrorClass::Io => Self::WriteFailed,
            ErrorClass::NoSpace => Self::NoSpace,
            ErrorClass::Data => Self::ImpossibleData,
            ErrorClass::InUse => Self::DirectoryInUse,
            ErrorClass::Foreign => Self::ForeignDirectory,
            ErrorClass::Closed => Self::Failed,
        }
    }

    /// What a code of [`Exit::code`] means, in a few words; `None` for a code that is none of ours.
    pub(crate) const fn meaning(code: u8) -> Option<&'static str> {
        Some(match code {
            0 => "stopped",
            1 => "could not start; see its log",
            2 => "wrong flags",
            70 => "a write or a sync failed",
            71 => "no space left for a write",
            72 => "stored data are damaged or impossible: see `nsquorum verify`",
            73 => "the data directory is in use",
            74 => "the data directory belongs to something else",
            _ => return None,
        })
    }

    /// Ends the process here and now, from any thread: after a failed write nothing may go on.
    pub(crate) fn now(self) -> ! {
        std::process::exit(i32::from(self.code()))
    }
}

impl From<()> for Exit {
    fn from((): ()) -> Self {
        Self::Ok
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// What `--help` says about the codes.
pub(crate) const HELP: &str = "\
Exit codes:
  0   done, or stopped by SIGTERM or SIGINT
  1   could not start, or the command failed
  2   wrong usage
  3   status: something is missing, but everything works
  4   status: something does not work
  70  a write or a sync failed
  71  no space left for a write
  72  stored data are damaged or impossible
  73  the data directory is in use
  74  the data directory belongs to something else";
