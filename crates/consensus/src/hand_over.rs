//! Giving every leadership to another node before this one stops.

use std::sync::Arc;
use std::time::Duration;

use nsquorum_topic::NodeId;

use crate::elections::QuorumClock;
use crate::peers::{Port, Ports};

/// How long all of them may take together. What is still led then is taken over when the peers find this node gone.
const TIME_MAX: Duration = Duration::from_secs(2);
/// Before a target that did not take over is replaced by the next.
const ATTEMPT: Duration = Duration::from_millis(400);
const LOOK: Duration = Duration::from_millis(5);
/// Under way at the same time: each is an election, with votes to sync on every replica.
const AT_ONCE: usize = 32;

/// Hands over all leaderships that another live replica can take. Bounded in time, whatever the peers do.
pub(crate) async fn hand_over_all(ports: &Ports, quorum: &QuorumClock, me: NodeId) {
    let leading: Vec<_> = ports
        .all()
        .into_iter()
        .filter(|port| port.replica.leadership().leading)
        .collect();
    let done = async {
        for some in leading.chunks(AT_ONCE) {
            hand_over(some, quorum, me).await;
        }
    };
    if tokio::time::timeout(TIME_MAX, done).await.is_err() {
        tracing::warn!("not every leadership could be handed over in time");
    }
}

/// Who can take a leadership of this node over, the most advanced first: it has the least to copy before it may campaign.
pub(crate) fn heirs(port: &Port, quorum: &QuorumClock, me: NodeId) -> Vec<NodeId> {
    let mut heirs = port.replica.progress().matched;
    heirs.retain(|(node, _)| *node != me && quorum.is_live(*node));
    heirs.sort_by_key(|(node, matched)| (std::cmp::Reverse(*matched), *node));
    heirs.into_iter().map(|(node, _)| node).collect()
}

async fn hand_over(ports: &[Arc<Port>], quorum: &QuorumClock, me: NodeId) {
    for attempt in 0_usize.. {
        let left: Vec<_> = ports.iter().filter(|port| port.replica.leadership().leading).collect();
        if left.is_empty() {
            return;
        }
        let mut asked = false;
        for port in left {
            let heirs = heirs(port, quorum, me);
            if let Some(to) = heirs.get(attempt % heirs.len().max(1)) {
                asked = true;
                port.replica.hand_over(*to).await;
            }
        }
        if !asked {
            return; // nobody is there to take over
        }
        for _ in 0..ATTEMPT.as_millis() / LOOK.as_millis() {
            tokio::time::sleep(LOOK).await;
            if !ports.iter().any(|port| port.replica.leadership().leading) {
                return;
            }
        }
    }
}
