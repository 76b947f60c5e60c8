//! `verify` and `repair` on directories that a real store wrote.

#![allow(clippy::unwrap_used, reason = "a step that fails in a helper is a test that fails")]

mod flips;
mod node;
mod repairing;
mod verifying;
