//! How a producer is described to whoever looks it up.

use nsquorum_broker::NodeDescription;
use nsquorum_protocol::LookupIdentify;

/// How others reach a producer, as discovery publishes it: nsqlookupd's keys in nsqlookupd's order.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ProducerDescription {
    /// `address:port` of the other end of the producer's registration; of a node itself what nsqlookupd would see.
    pub remote_address: String,
    /// The machine's name.
    pub hostname: String,
    /// The address that consumers connect to.
    pub broadcast_address: String,
    /// The port for TCP. What registers here may claim any number but 0, as with nsqlookupd.
    pub tcp_port: i64,
    /// The port for HTTP.
    pub http_port: i64,
    /// The version that clients see; three numbers with dots.
    pub version: String,
    /// The zone, or nothing.
    pub topology_zone: String,
    /// The region, or nothing.
    pub topology_region: String,
}

impl ProducerDescription {
    /// Of an nsqd at the other end of a connection.
    pub(crate) fn registered(remote_address: String, body: LookupIdentify) -> Self {
        Self {
            remote_address,
            hostname: body.hostname,
            broadcast_address: body.broadcast_address,
            tcp_port: body.tcp_port,
            http_port: body.http_port,
            version: body.version,
            topology_zone: body.topology_zone,
            topology_region: body.topology_region,
        }
    }

    /// Whether it is this that a tombstone names: `broadcast_address:http_port`, without brackets around an IPv6 address.
    pub(crate) fn is_at(&self, node: &[u8]) -> bool {
        format!("{}:{}", self.broadcast_address, self.http_port).as_bytes() == node
    }

    /// Whether clients would take the two for one: they tell producers apart by where they connect.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        (&self.broadcast_address, self.tcp_port) == (&other.broadcast_address, other.tcp_port)
    }
}

impl From<NodeDescription> for ProducerDescription {
    fn from(node: NodeDescription) -> Self {
        Self {
            remote_address: format!("{}:{}", node.broadcast_address, node.tcp_port),
            hostname: node.hostname,
            broadcast_address: node.broadcast_address,
            tcp_port: node.tcp_port.into(),
            http_port: node.http_port.into(),
            version: node.version,
            topology_zone: node.topology_zone,
            topology_region: node.topology_region,
        }
    }
}
