//! A producer, and what is known of it at a key.

use nsquorum_environment::WallTime;
use serde::Serialize;

use super::Moment;
use crate::ProducerDescription;

/// A connection that has sent IDENTIFY. No number is given twice, so what is left of a connection never touches a later one from the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PeerId(pub(super) u64);

#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) producer: ProducerDescription,
    pub(super) last_update: Moment,
}

/// A producer at a key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Presence {
    pub(super) tombstoned_at: Option<Moment>,
}

/// A producer at a key, as /debug shows it: nsqlookupd's keys in nsqlookupd's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Place {
    broadcast_address: String,
    hostname: String,
    http_port: i64,
    id: String,
    last_update: i64,
    tcp_port: i64,
    tombstoned: bool,
    tombstoned_at: i64,
    topology_region: String,
    topology_zone: String,
    version: String,
}

/// What Go says of a time that was never set, in nanoseconds since 1970.
const NEVER: i64 = -6_795_364_578_871_345_152;

impl Place {
    pub(super) fn new(peer: &Peer, presence: Presence) -> Self {
        let tombstoned_at = presence.tombstoned_at.map(|at| at.wall);
        Self::of(&peer.producer, peer.last_update.wall, tombstoned_at)
    }

    pub(crate) fn of(producer: &ProducerDescription, last_update: WallTime, tombstoned_at: Option<WallTime>) -> Self {
        let producer = producer.clone();
        Self {
            broadcast_address: producer.broadcast_address,
            hostname: producer.hostname,
            http_port: producer.http_port,
            id: producer.remote_address,
            last_update: nanos(last_update),
            tcp_port: producer.tcp_port,
            tombstoned: tombstoned_at.is_some(),
            tombstoned_at: tombstoned_at.map_or(NEVER, nanos),
            topology_region: producer.topology_region,
            topology_zone: producer.topology_zone,
            version: producer.version,
        }
    }
}

fn nanos(at: WallTime) -> i64 {
    i64::try_from(at.as_nanos()).unwrap_or(i64::MAX)
}
