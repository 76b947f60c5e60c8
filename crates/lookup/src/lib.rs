//! nsqlookupd: TCP for nsqds that register, HTTP for consumers and tools.
//!
//! A node knows its cluster's topics and channels, so discovery of them needs no second process: consumers that are pointed at any node's
//! HTTP port find all replicas of a topic as its producers. Nodes that have not answered this one for five seconds are left out until they
//! do. Beside them stand stock nsqds that have registered here, so a fleet can move over piece by piece. [`LookupService`] is the same without a
//! node. [`Announcer`] is the other way round: a node that registers with nsqlookupds elsewhere.

mod announcing;
mod answers;
mod description;
mod directory;
mod http;
mod own;
mod registrations;
mod routes;
mod service;
mod tcp;

pub use announcing::{Announcer, QuestionTimeouts};
pub use description::ProducerDescription;
pub use directory::Directory;
pub use http::LookupFrontend;
pub use registrations::Lifetimes;
pub use service::{CannotListen, LookupService, LookupSettings};
pub use tcp::{Command, Decoder, LookupError, LookupServer};
