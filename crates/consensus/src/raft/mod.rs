//! openraft behind this crate's own small interface: its types, its log storage, its state machine, its network.
//!
//! Nothing above this module names an openraft type, and nothing on disk or on the wire is openraft's encoding: the alpha may
//! change either with any release (docs/decisions/0001-openraft-alpha.md).

mod calls;
mod checkpoints;
mod log_entry;
mod log_store;
mod machine;
mod membership;
mod network;
#[cfg(test)]
mod network_tests;
mod replica;
mod responder;
mod serving;
mod state_machine;
mod types;
mod wire;

pub(crate) use calls::Calls;
pub(crate) use checkpoints::CheckpointBudget;
pub(crate) use log_entry::Proposal;
pub(crate) use log_store::RaftLog;
pub(crate) use machine::{Impossible, Machine};
pub(crate) use membership::{Membership, decode_membership, encode_membership};
pub(crate) use network::{PeerNetworkFactory, Peers};
pub(crate) use replica::{Answers, Asked, Leadership, RaftReplica, Replica};
pub(crate) use responder::Callback;
pub(crate) use serving::Serving;
pub(crate) use state_machine::GroupStateMachine;
pub(crate) use types::RaftTypes;
#[cfg(any(test, fuzzing))]
pub(crate) use wire::Request;
pub(crate) use wire::{Answer, NoReplica, call_of, is_answer};

#[cfg(test)]
mod conformance;
