//! Who is linked and who is not.

use nsquorum_links::{Class, Evidence, PeerState, Rejection, SendError};

use crate::diary::Event;
use crate::network::{As, Network, Node, cluster, id, lane};

/// The evidence that a peer is not linked. A peer known by its address only does not appear before it is.
async fn refused(node: &Node, peer: u64) -> Evidence {
    node.until_state(peer, "a refusal", |state| match state {
        PeerState::Down {
            evidence: evidence @ Evidence::Rejected(_),
            ..
        } => Some(evidence),
        PeerState::Down { .. } | PeerState::Connecting | PeerState::Up { .. } => None,
    })
    .await
}

pub(crate) async fn a_node_with_another_secret_is_not_linked(mut network: Network) {
    let one = network.start(As::node(1)).await;
    let two = network
        .start(As {
            secret: "what nobody else knows",
            ..As::node(2)
        })
        .await;
    assert_eq!(refused(&two, 1).await, Evidence::Rejected(Rejection::WrongSecret));
    let three = network.start(As::node(3)).await;
    three.until_up(1).await;
    one.until_up(3).await;
    assert!(
        one.diary
            .events()
            .iter()
            .all(|event| matches!(event, Event::Up(peer, _) if peer.node == id(3)))
    );
    assert!(two.diary.events().is_empty());
    let sent = two.links.try_send(id(1), lane(1), Class::Control, vec![1].into());
    assert_eq!(sent, Err(SendError::Down(id(1))));
}

pub(crate) async fn a_node_of_another_cluster_is_not_linked(mut network: Network) {
    let one = network.start(As::node(1)).await;
    let two = network
        .start(As {
            cluster: Some(2),
            ..As::node(2)
        })
        .await;
    assert_eq!(refused(&two, 1).await, Evidence::Rejected(Rejection::OtherCluster));
    assert!(one.diary.events().is_empty());
    assert!(two.diary.events().is_empty());
}

pub(crate) async fn an_old_copy_of_a_node_is_not_linked(mut network: Network) {
    let one = network.start(As::node(1)).await;
    let two = network
        .start(As {
            incarnation: 5,
            ..As::node(2)
        })
        .await;
    one.until_up(2).await;
    two.until_up(1).await;
    let copy = network
        .start(As {
            incarnation: 4,
            ..As::node(2)
        })
        .await;
    assert_eq!(refused(&copy, 1).await, Evidence::Rejected(Rejection::OldIncarnation));
    assert_eq!(refused(&one, 2).await, Evidence::Rejected(Rejection::OldIncarnation));
    assert!(copy.diary.events().is_empty());
}

pub(crate) async fn a_node_without_a_cluster_links_and_adopts(mut network: Network) {
    let one = network.start(As::node(1)).await;
    let two = network
        .start(As {
            cluster: None,
            ..As::node(2)
        })
        .await;
    let before = one.until_up(2).await;
    assert_eq!(two.links.local().cluster, None);
    two.links.adopt(cluster(1));
    let identity = one
        .until_state(2, "the new identity", |state| match state {
            PeerState::Up { identity, epoch } if epoch > before => identity.cluster.map(|_| identity),
            _ => None,
        })
        .await;
    assert_eq!(identity.cluster, Some(cluster(1)));
    one.diary
        .until("a link under the new identity", |events| {
            events
                .contains(&Event::Up(identity, two.state(1)?.epoch()?))
                .then_some(())
        })
        .await;
    // A second time changes nothing.
    let epoch = two.until_up(1).await;
    two.links.adopt(cluster(1));
    assert_eq!(two.until_up(1).await, epoch);
}
