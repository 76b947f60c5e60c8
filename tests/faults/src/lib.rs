//! A file system that keeps only what was synced, for tests of durability.
//!
//! SIGKILL alone proves nothing about fsync: the page cache outlives the process, so a store that never syncs passes
//! every kill test. This crate mounts a FUSE file system over a backing directory and holds everything a process wrote
//! in its own memory until the process syncs it. A *crash* drops that memory, and what is left is what a power cut would
//! have left. It also fails, slows or shortens the n-th call of a kind, and runs out of space on demand.
//!
//! # The one idea
//!
//! The backing directory **is** the durable image, always. The daemon's memory holds the live tree that processes see:
//! names, lengths and bytes that are not durable yet. fsync moves changes from memory into the backing directory; a
//! crash throws the memory away and reads the backing directory again. So a kill of the daemon itself is a crash too,
//! and no code path exists that could "forget to lose" something.
//!
//! Why not the obvious alternatives: an `LD_PRELOAD` library does not see statically linked or raw system calls and dies
//! with the process it watches; a device-mapper target needs a kernel module that containers do not have; copying the
//! page cache state is not possible from outside.
//!
//! # What survives a crash
//!
//! | change | [`Metadata::Ordered`] (as ext4) | [`Metadata::Strict`] (as POSIX) |
//! |---|---|---|
//! | bytes written, growth of a file | fsync or fdatasync of the file | the same |
//! | shrinking a file | in order with the directory changes | fsync of the file |
//! | create, link, unlink, rename, mkdir, rmdir | in order; the last few may be lost unless an fsync of the file or of the directory followed | fsync of the directory, nothing else |
//! | mode, owner, times | at once | at once |
//!
//! `sync_file_range`, close, `sync(2)` and the passing of time make nothing durable. The one exception: when more than
//! [`MountOptions::dirty_bytes_max`] bytes are unsynced, the file being written is written back, as a kernel short
//! of memory would.
//!
//! A *failed* fsync drops the bytes it was to write, as Linux does: they can still be read, a repeated fsync succeeds,
//! and they are gone after a crash.
//!
//! # Use
//!
//! [`FaultFs`] spawns the daemon `nsquorum-faultfs` and talks to it over a Unix socket ([`control`] has the protocol).
//! The protocol of a crash test is: SIGKILL the process, [`FaultFs::crash`], start it again in the same directory. For a
//! cut at an exact call, arm [`Action::PowerOff`]: at that call everything unsynced is dropped and every later call
//! fails with EIO until [`FaultFs::crash`] turns the power on again.

mod client;
mod content;
pub mod control;
mod daemon;
pub mod damage;
mod durable;
mod extents;
mod faults;
mod filesystem;
mod journal;
mod namespace;
mod node;
mod seed;
mod usage;
mod volume;

pub use client::{FaultFs, FaultFsError, MountOptions};
pub use control::{Action, Call, CrashOptions, ErrorCode, Fault, FaultId, KeepOps, Metadata, Stats};
pub use daemon::{DaemonOptions, run};
