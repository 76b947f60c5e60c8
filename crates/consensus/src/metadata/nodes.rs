//! What the cluster knows of its nodes.

use serde::{Deserialize, Serialize};

/// How clients reach a node, as discovery publishes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDescription {
    /// The machine's name.
    pub hostname: String,
    /// The address that clients connect to.
    pub broadcast_address: String,
    /// The port for TCP.
    pub tcp_port: u16,
    /// The port for HTTP.
    pub http_port: u16,
    /// The version that clients see; three numbers with dots.
    pub version: String,
    /// The node's zone, or nothing.
    pub topology_zone: String,
    /// The node's region, or nothing.
    pub topology_region: String,
    /// The release of nsquorum that it runs; empty for one that did not say so.
    #[serde(default)]
    pub release: String,
}
