//! The other nodes: what they say, and where it goes.

mod frames;
mod ports;
mod receivers;

pub(crate) use frames::{CommandOutcome, Led, NodeFrame};
pub(crate) use ports::{Port, Ports};
pub(crate) use receivers::{NodeCalls, NodeReceiver, RaftReceiver};
