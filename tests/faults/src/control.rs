//! The control protocol: one JSON object per line over a Unix stream socket, one answer line per request.
//!
//! ```text
//! {"cmd":"fail","fault":{"calls":["fsync"],"action":{"error":"EIO"},"path":"*.log","after":3,"times":1}}
//! {"ok":{"fault":1}}
//! {"cmd":"crash"}
//! {"ok":{}}
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Which directory changes a crash takes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Metadata {
    /// As a journaling file system: in order, but the last few may be lost.
    #[default]
    Ordered,
    /// As POSIX promises: all that were not followed by an fsync of their directory.
    Strict,
}

/// A kind of call that processes make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Call {
    /// open of a file that exists.
    Open,
    /// Creation of a regular file.
    Create,
    /// read, pread.
    Read,
    /// write, pwrite. The kernel splits large ones at 1 MiB.
    Write,
    /// fsync and fdatasync of a file.
    Fsync,
    /// fsync of a directory.
    Fsyncdir,
    /// ftruncate, truncate, and open with `O_TRUNC` of a file that exists.
    Truncate,
    /// fallocate.
    Fallocate,
    /// rename, renameat2.
    Rename,
    /// link.
    Link,
    /// symlink.
    Symlink,
    /// unlink.
    Unlink,
    /// mkdir.
    Mkdir,
    /// rmdir.
    Rmdir,
    /// opendir.
    Opendir,
    /// statfs.
    Statfs,
}

impl Call {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::Open,
        Self::Create,
        Self::Read,
        Self::Write,
        Self::Fsync,
        Self::Fsyncdir,
        Self::Truncate,
        Self::Fallocate,
        Self::Rename,
        Self::Link,
        Self::Symlink,
        Self::Unlink,
        Self::Mkdir,
        Self::Rmdir,
        Self::Opendir,
        Self::Statfs,
    ];

    /// The kinds that change something or make a change durable: the points between which a power cut makes a
    /// difference.
    pub const CHANGING: [Self; 11] = [
        Self::Create,
        Self::Write,
        Self::Fsync,
        Self::Fsyncdir,
        Self::Truncate,
        Self::Rename,
        Self::Link,
        Self::Unlink,
        Self::Mkdir,
        Self::Rmdir,
        Self::Symlink,
    ];
}

/// An error that a call can be made to fail with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorCode {
    /// Input or output error.
    #[serde(rename = "EIO")]
    Eio,
    /// No space left on device.
    #[serde(rename = "ENOSPC")]
    Enospc,
    /// Read-only file system.
    #[serde(rename = "EROFS")]
    Erofs,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It fails and does nothing. A failed fsync also drops the bytes it was to write.
    Error(ErrorCode),
    /// It takes this many milliseconds longer.
    DelayMs(u64),
    /// A write stores the first half and says so; other calls are not changed.
    Short,
    /// An fsync, of a file or of a directory, answers that all is well and makes nothing durable, as a disk does whose
    /// cache ignores flushes; other calls are not changed. It is how a test shows that it would see a loss.
    Lie,
    /// The power goes just before it: everything unsynced is dropped, and this and every later call fails with EIO
    /// until the next crash command.
    PowerOff,
}

/// A rule: which calls, and what happens to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The kinds of call; empty means [`Call::CHANGING`].
    #[serde(default)]
    pub calls: Vec<Call>,
    /// What happens.
    pub action: Action,
    /// Only calls on these paths: `*` stands for any text, `?` for one character. A pattern without `/` is compared
    /// with the file's name, one with `/` with the path from the mount point. A rename or link matches by either name.
    #[serde(default)]
    pub path: Option<String>,
    /// Calls that match but pass before the first is touched.
    #[serde(default)]
    pub after: u64,
    /// How many calls are touched; `None` means all that follow.
    #[serde(default)]
    pub times: Option<u64>,
}

impl Fault {
    /// Every call of one kind, from now on.
    #[must_use]
    pub fn every(call: Call, action: Action) -> Self {
        Self {
            calls: vec![call],
            action,
            path: None,
            after: 0,
            times: None,
        }
    }

    /// The `n`-th call of a kind from now on, counted from 1, and only that.
    ///
    /// # Panics
    /// If `n` is 0.
    #[must_use]
    pub fn nth(call: Call, n: u64, action: Action) -> Self {
        assert!(n > 0, "calls are counted from 1");
        Self {
            calls: vec![call],
            action,
            path: None,
            after: n - 1,
            times: Some(1),
        }
    }

    /// The power goes at the `n`-th changing call from now on, counted from 1.
    ///
    /// # Panics
    /// If `n` is 0.
    #[must_use]
    pub fn power_off_at(n: u64) -> Self {
        assert!(n > 0, "calls are counted from 1");
        Self {
            calls: Vec::new(),
            action: Action::PowerOff,
            path: None,
            after: n - 1,
            times: Some(1),
        }
    }

    /// The same, only on paths that match `pattern`.
    #[must_use]
    pub fn on(mut self, pattern: &str) -> Self {
        self.path = Some(pattern.to_owned());
        self
    }
}

/// Number of a rule, until [`Command::Clear`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FaultId(pub u64);

/// Which of the directory changes that are not durable yet make it through a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepOps {
    /// Ordered mode: a random number of the oldest ones, from the seed. Strict mode: none.
    #[default]
    Random,
    /// None.
    None,
    /// All.
    All,
}

/// How a crash goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CrashOptions {
    /// Which directory changes make it.
    #[serde(default)]
    pub keep: KeepOps,
    /// Every call fails until the next crash command, instead of going on at once with the durable image.
    #[serde(default)]
    pub stay_down: bool,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case")]
pub enum Command {
    /// Drops everything that is not durable. After a power-off it only turns the power on again.
    Crash {
        /// How.
        #[serde(flatten)]
        options: CrashOptions,
    },
    /// Adds a rule.
    Fail {
        /// The rule.
        fault: Fault,
    },
    /// Removes all rules.
    Clear,
    /// Asks for [`Stats`].
    Stats,
    /// Limits the space.
    Space {
        /// Bytes that may still be written; `None` lifts the limit.
        free: Option<u64>,
    },
    /// Makes everything durable, like a clean unmount but mounted on.
    Sync,
    /// Makes everything durable, unmounts and ends.
    Unmount,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done.
    Ok(Reply),
    /// Not done, with the reason.
    Error(String),
}

/// What an answer carries.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reply {
    /// To [`Command::Fail`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<FaultId>,
    /// To [`Command::Stats`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<Stats>,
}

/// Counters and state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Calls of each kind since the mount, failed ones included.
    pub calls: BTreeMap<Call, u64>,
    /// Bytes written that no sync has stored.
    pub dirty_bytes: u64,
    /// Directory changes that are not durable.
    pub pending_ops: u64,
    /// Sum of the lengths of all files.
    pub used_bytes: u64,
    /// What may still be written, if a limit is set.
    pub free_bytes: Option<u64>,
    /// Files and directories that are open.
    pub open_handles: u64,
    /// Crashes and power-offs since the mount.
    pub crashes: u64,
    /// The power is off.
    pub down: bool,
    /// Of each rule, how many calls it touched.
    pub fired: BTreeMap<FaultId, u64>,
}

impl Stats {
    /// Calls of one kind.
    #[must_use]
    pub fn count(&self, call: Call) -> u64 {
        self.calls.get(&call).copied().unwrap_or(0)
    }
}
