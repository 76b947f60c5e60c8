//! The whole path above the disk: broker, consensus and topics over the store in memory.

mod behaviour;
mod harness;
mod power_cut;
