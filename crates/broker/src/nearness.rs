//! Zones: of the consumers with room, those that are near their node get the next message.
//!
//! nsqd's experiment `topology-aware-consumption`. A consumer is as near as IDENTIFY says it is to the node to which it is connected, which is nsqd's rule.
//! In a cluster it also keeps the whole way short: a message crosses zones between the leader and a consumer's node, between that node and the
//! consumer, or not at all, and consumers of equal nearness at the leader's own node come before those at others.
//!
//! Nearness is a preference and no promise: a far consumer with room gets what no near one has room for, so nothing waits for a zone.

use crate::stats::ClientDescription;

/// Where a node is. An empty name is no place: nothing is near it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// nsqd's `--topology-zone`.
    pub zone: String,
    /// nsqd's `--topology-region`.
    pub region: String,
}

impl Topology {
    /// How near a client is by its IDENTIFY.
    pub fn nearness(&self, client: &ClientDescription) -> Nearness {
        let is_same = |here: &str, there: &str| !here.is_empty() && here == there;
        if is_same(&self.zone, &client.topology_zone) {
            Nearness::Zone
        } else if is_same(&self.region, &client.topology_region) {
            Nearness::Region
        } else {
            Nearness::Global
        }
    }
}

/// How near a consumer is to the node to which it is connected; nearer is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nearness {
    /// In the same zone.
    Zone,
    /// In the same region.
    Region,
    /// Anywhere else.
    Global,
}

/// How many deliveries went how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveriesByNearness {
    /// Within a zone.
    pub zone: u64,
    /// Within a region.
    pub region: u64,
    /// Farther.
    pub global: u64,
}

impl DeliveriesByNearness {
    /// This many to consumers that are this near; none if nearness is not looked at.
    pub fn all(nearness: Option<Nearness>, count: u64) -> Self {
        let mut deliveries = Self::default();
        if let Some(of) = deliveries.of(nearness) {
            *of = count;
        }
        deliveries
    }

    pub(crate) fn delivered(&mut self, nearness: Option<Nearness>) {
        if let Some(of) = self.of(nearness) {
            *of += 1;
        }
    }

    /// A delivery came back unwritten: it was none.
    pub(crate) fn returned(&mut self, nearness: Option<Nearness>) {
        if let Some(of) = self.of(nearness) {
            *of = of.saturating_sub(1);
        }
    }

    fn of(&mut self, nearness: Option<Nearness>) -> Option<&mut u64> {
        nearness.map(|nearness| match nearness {
            Nearness::Zone => &mut self.zone,
            Nearness::Region => &mut self.region,
            Nearness::Global => &mut self.global,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(zone: &str, region: &str) -> ClientDescription {
        ClientDescription {
            topology_zone: zone.to_owned(),
            topology_region: region.to_owned(),
            ..ClientDescription::default()
        }
    }

    #[test]
    fn a_zone_is_nearer_than_a_region_and_an_empty_name_is_no_place() {
        let node = |zone: &str, region: &str| Topology {
            zone: zone.to_owned(),
            region: region.to_owned(),
        };
        for (node, client, nearness) in [
            (node("z", "r"), client("z", "r"), Nearness::Zone),
            (node("z", "r"), client("z", ""), Nearness::Zone),
            (node("z", "r"), client("y", "r"), Nearness::Region),
            (node("z", "r"), client("", "r"), Nearness::Region),
            (node("z", "r"), client("y", "q"), Nearness::Global),
            (node("", ""), client("", ""), Nearness::Global),
            (node("", "r"), client("", "r"), Nearness::Region),
        ] {
            assert_eq!(node.nearness(&client), nearness, "{node:?} {client:?}");
        }
        assert!(Nearness::Zone < Nearness::Region && Nearness::Region < Nearness::Global);
    }
}
