//! What nodes tell each other, when asked, of the groups that they lead: where each replica is.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use nsquorum_environment::Monotonic;
use nsquorum_links::{Class, Lane, Links};
use nsquorum_topic::{LogIndex, NodeId, Term};

use crate::elections::QuorumClock;
use crate::peers::{Led, NodeCalls, NodeFrame, Port, Ports};

/// How long a node is given to answer. Whoever waits for it is a person.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// A replica, as its group's leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaReport {
    pub(crate) node: NodeId,
    /// The last entry that it is known to have on disk.
    pub(crate) matched: Option<LogIndex>,
    /// Its node answers, and it was level with the leader lately.
    pub(crate) in_sync: bool,
}

/// A group, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupReport {
    pub(crate) led: Led,
    /// The leader's last entry.
    pub(crate) last: Option<LogIndex>,
    pub(crate) replicas: Vec<ReplicaReport>,
}

/// The replicas of a group that this node leads.
pub(crate) fn replicas_of(port: &Port, term: Term, quorum: &QuorumClock, now: Monotonic) -> Vec<ReplicaReport> {
    report(port, term, quorum, now).replicas
}

fn report(port: &Port, term: Term, quorum: &QuorumClock, now: Monotonic) -> GroupReport {
    let progress = port.replica.progress();
    let replica = |node: &NodeId| {
        let matched = progress.matched.iter().find(|(of, _)| of == node);
        let matched = matched.and_then(|(_, matched)| *matched);
        let is_level = matched.is_some() && matched >= progress.last;
        ReplicaReport {
            node: *node,
            matched: matched.map(LogIndex::new),
            in_sync: quorum.is_me(*node)
                || quorum.is_live(*node) && (is_level || port.followers.is_in_sync(now, term, *node)),
        }
    };
    GroupReport {
        led: Led {
            group: port.group,
            term,
            serves: port.pulse.serving() == Some(term) && !port.pulse.is_silent(),
        },
        last: progress.last.map(LogIndex::new),
        replicas: port.replicas.iter().map(replica).collect(),
    }
}

/// All groups that this node leads.
pub(crate) fn led_here(ports: &Ports, quorum: &QuorumClock, now: Monotonic) -> Vec<GroupReport> {
    let ports = ports.all();
    let led = ports.iter().filter_map(|port| {
        let leadership = port.replica.leadership();
        leadership.leading.then(|| report(port, leadership.term, quorum, now))
    });
    led.collect()
}

/// The way to the other nodes' reports.
#[derive(Clone)]
pub(crate) struct Reporters {
    pub(crate) links: Arc<dyn Links>,
    pub(crate) calls: Arc<NodeCalls<Vec<GroupReport>>>,
}

impl Reporters {
    /// Asks these nodes at once. `None` for each that did not answer in time.
    pub(crate) async fn ask(&self, nodes: impl Iterator<Item = NodeId>) -> Vec<(NodeId, Option<Vec<GroupReport>>)> {
        let asked = nodes.map(|node| async move {
            let (call, report) = self.calls.begin();
            let frame = NodeFrame::Ask { call: call.number }.encode();
            let sent = self.links.try_send(node, Lane::NODE, Class::Control, frame);
            let report = match sent {
                Ok(_) => tokio::time::timeout(ANSWER_MAX, report).await.ok().and_then(Result::ok),
                Err(_) => None,
            };
            (node, report)
        });
        join_all(asked).await
    }
}
