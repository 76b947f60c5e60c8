//! Real clusters: `nsquorum up`, as users start it, and what happens to its processes.
//!
//! As in the tests of one node nothing of the server is linked in: a cluster is what `cluster.json` says, and clients are clients.
//!
//! Where faults have to hit single nodes at chosen moments a [`Trio`] is used instead of `nsquorum up`: three processes that the test itself starts, each
//! on a disk of its own, under [`Clients`] that come back after every error. What the clients saw is judged by the same rules as in the
//! tests of one node; what the directories hold is compared bit by bit.
//!
//! Counts are small by default and come from the environment for full runs: `NSQUORUM_KILLS`, `NSQUORUM_ROUNDS`, `NSQUORUM_TOPICS`; `NSQUORUM_BREAKS` picks kinds
//! of partitions by name. Where the machine makes no network namespaces the tests that need them say `NOT RUN` and end well;
//! `NSQUORUM_DEMAND_NETWORKS=1` makes that a failure.

mod clients;
mod cluster;
mod equal;
mod figures;
mod leader;
mod load;
mod metrics;
mod network;
mod ports;
mod quiet;
mod replica;
mod signals;
mod trio;

pub use clients::{CHANNELS, Clients, Plan, TOPIC, TOPIC_GROUP};
pub use cluster::{Cluster, NodeEntry};
pub use equal::differences;
pub use figures::{figure, quantile};
pub use load::{Answer, ConnectionId, Habits, Journal, Load, Pause, Publish, Record, Verdict};
pub use network::{Network, in_own_network};
pub use replica::{Place, Replica};
pub use trio::Trio;
