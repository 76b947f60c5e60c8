//! `verify` and `repair` on directories that a real store wrote.

mod flips;
mod node;
mod repairing;
mod verifying;
