//! Real nsquorum processes on real and on hostile disks.
//!
//! Every test here starts the binary that users start and talks to it as clients do; nothing of the node is linked in. That
//! is slower than testing the crates and finds what they cannot: a sync that is missing, an exit code that is wrong, a
//! process that hangs instead of stopping.
//!
//! A test is a [`Campaign`]: lives of one node in one directory, each under load and each ended in some rough way, then a
//! drain, then a verdict. What clients saw goes into a [`History`]; what a directory held at each cut comes from
//! `nsquorum verify`; [`check`] holds both against named [`Rule`]s and returns every violation. The rules know nothing of the
//! node's inside, so they hold for any correct queue with these promises.
//!
//! The counts are small by default and come from the environment for full runs (`NSQUORUM_KILLS`, `NSQUORUM_FAILURES`,
//! `NSQUORUM_FLIPS`, `NSQUORUM_BACKLOG`, `NSQUORUM_CONNECTIONS`, …); every test prints its seed, and `NSQUORUM_SEED` repeats it.

mod body;
mod campaign;
mod checker;
mod consumers;
mod deadline;
mod disk;
mod history;
mod http;
mod named;
mod node;
mod programs;
mod publishers;
mod seed;
mod stats;
mod stock;
mod verify;

pub use body::BodyId;
pub use campaign::{Campaign, Ending, LifeEnd, Load};
pub use checker::{Evidence, Rule, Violation, check};
pub use consumers::{Habits, consume, drain};
pub use deadline::until;
pub use disk::Disk;
pub use history::{Answer, Delivery, History, Life, Publish, PublishId, Records, Requeue};
pub use http::{HttpAnswer, get, post};
pub use named::{Ended, Named};
pub use node::{ExitReason, Node, NodeFlags, StartFailure};
pub use programs::{faultfs_program, nsquorum_program};
pub use publishers::{Manner, publish};
pub use seed::{count, seed};
pub use stats::ChannelDepth;
pub use stock::StockNsqd;
pub use verify::{ChannelState, TopicState, VerifyReport, verify};
