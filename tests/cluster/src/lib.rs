//! Real clusters: `nsquorum up`, as users start it, and what happens to its processes.
//!
//! As in the tests of one node nothing of the server is linked in: a cluster is what `cluster.json` says, and clients are clients.

mod cluster;
mod ports;

pub use cluster::{Cluster, NodeEntry};
