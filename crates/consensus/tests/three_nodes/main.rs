//! Three nodes in one process: real groups over links and disks that the test owns.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

mod behaviour;
mod cluster;
mod disk;
mod histories;
mod ledger;
mod writer;
