//! openraft behind this crate's own small interface: its types, its log storage, its state machine, its (absent) network.
//!
//! Nothing above this module names an openraft type, and nothing on disk or on the wire is openraft's encoding: the alpha may
//! change either with any release (docs/decisions/0001-openraft-alpha.md).

mod checkpoints;
mod log_entry;
mod log_store;
mod machine;
mod membership;
mod network;
mod responder;
mod state_machine;
mod types;

pub(crate) use checkpoints::CheckpointBudget;
pub(crate) use log_entry::Proposal;
pub(crate) use log_store::RaftLog;
pub(crate) use machine::{Impossible, Machine};
pub(crate) use membership::{Membership, encode_membership};
pub(crate) use network::NoPeers;
pub(crate) use responder::Callback;
pub(crate) use state_machine::GroupStateMachine;
pub(crate) use types::RaftTypes;

#[cfg(test)]
mod conformance;
