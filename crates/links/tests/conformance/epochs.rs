//! Links that end and come back.

use nsquorum_links::{Class, Evidence, PeerState, SendError};

use crate::diary::Event;
use crate::network::{As, Network, id, lane};

pub(crate) async fn a_broken_link_comes_back_and_nothing_comes_twice(mut network: Network) {
    let (one, two) = network.two().await;
    let mut sent = Vec::new();
    let mut number = 0_u64;
    for _ in 0..8 {
        let epoch = one.until_up(2).await;
        for class in Class::ALL {
            for _ in 0..50 {
                number += 1;
                let mut frame = number.to_be_bytes().to_vec();
                frame.resize(9_000, 0);
                if let Ok(under) = one.links.try_send(id(2), lane(1), class, frame.into()) {
                    sent.push((number, under));
                }
            }
        }
        network.break_link(1, 2);
        one.until_state(2, "another epoch", |state| state.epoch().filter(|new| *new > epoch))
            .await;
    }
    let last = one.until_up(2).await;
    let ended = one
        .links
        .send(id(2), lane(9), Class::Control, vec![9].into())
        .await
        .unwrap();
    assert_eq!(ended, last);
    two.diary.until_frames(lane(9), Class::Control, 1).await;

    let mut present = None;
    let mut newest = None;
    let mut seen = [0; 2];
    let mut ups = 0;
    for event in two.diary.events() {
        match event {
            Event::Up(peer, epoch) => {
                assert_eq!((peer.node, present), (id(1), None), "two links at once");
                assert!(newest < Some(epoch), "an epoch that is not new");
                (present, newest) = (Some(epoch), Some(epoch));
                ups += 1;
            }
            Event::Frame {
                epoch,
                lane: at,
                class,
                bytes,
                ..
            } => {
                assert_eq!(present, Some(epoch), "a frame outside of its epoch");
                if at == lane(1) {
                    let number = u64::from_be_bytes(bytes[..8].try_into().unwrap());
                    assert!(number > seen[class as usize], "twice, or out of order");
                    seen[class as usize] = number;
                    assert!(
                        sent.contains(&(number, epoch)),
                        "another epoch than the sender was told"
                    );
                }
            }
            Event::Down(node, epoch, _) => {
                assert_eq!((node, present), (id(1), Some(epoch)), "the end of another link");
                present = None;
            }
        }
    }
    assert!(ups >= 9, "{ups}");
}

pub(crate) async fn a_silent_peer_is_noticed_and_its_return_too(mut network: Network) {
    let (one, two) = network.two().await;
    let before = one.until_up(2).await;
    network.cut(1, 2);
    let silent = |state| match state {
        PeerState::Down { evidence, last } => Some((evidence, last.map(|last| last.node))),
        PeerState::Up { .. } | PeerState::Connecting => None,
    };
    let noticed = one.until_state(2, "silence noticed", silent).await;
    assert_eq!(noticed, (Evidence::TimedOut, Some(id(2))));
    let noticed = two.until_state(1, "silence noticed", silent).await;
    assert_eq!(noticed, (Evidence::TimedOut, Some(id(1))));
    two.diary
        .until("down", |events| {
            let down = events.iter().find(|event| matches!(event, Event::Down(..)));
            down.map(|down| assert_eq!(down, &Event::Down(id(1), before, Evidence::TimedOut)))
        })
        .await;
    let refused = one.links.try_send(id(2), lane(1), Class::Control, vec![1].into());
    assert_eq!(refused, Err(SendError::Down(id(2))));
    network.heal(1, 2);
    assert!(one.until_up(2).await > before);
    one.links
        .send(id(2), lane(1), Class::Control, vec![2].into())
        .await
        .unwrap();
    two.diary.until_frames(lane(1), Class::Control, 1).await;
}

pub(crate) async fn callers_that_wait_hear_that_the_link_went_down(mut network: Network) {
    let (one, two) = network.two().await;
    two.diary.hold(lane(1));
    one.fill(2, lane(1), Class::Bulk, &[0; 10_000]).await;
    let waits = one.links.send(id(2), lane(1), Class::Bulk, vec![0; 10_000].into());
    let left = one.links.send(id(2), lane(1), Class::Bulk, vec![0; 10_000].into());
    drop(left);
    network.break_link(1, 2);
    assert_eq!(waits.await, Err(SendError::Down(id(2))));
    // The new link has its whole credit, and what the receiver holds of the old one does not count.
    let epoch = one.until_up(2).await;
    assert!(one.fill(2, lane(1), Class::Bulk, &[0; 10_000]).await >= 26);
    two.diary.release();
    two.diary
        .until("frames of the new link", |events| {
            let fresh = events
                .iter()
                .filter(|event| matches!(event, Event::Frame { epoch: at, .. } if *at == epoch));
            (fresh.count() >= 26).then_some(())
        })
        .await;
}

pub(crate) async fn a_killed_node_is_noticed_and_its_next_start_too(mut network: Network) {
    let (one, two) = network.two().await;
    network.kill(2);
    one.until_state(2, "the kill noticed", |state| state.epoch().is_none().then_some(()))
        .await;
    one.diary
        .until("down", |events| {
            matches!(events.last(), Some(Event::Down(node, ..)) if *node == id(2)).then_some(())
        })
        .await;
    let frames_of_the_dead = two.diary.events().len();
    let again = network
        .start(As {
            incarnation: 2,
            ..As::node(2)
        })
        .await;
    let identity = one
        .until_state(2, "the next start", |state| match state {
            PeerState::Up { identity, .. } => Some(identity),
            PeerState::Connecting | PeerState::Down { .. } => None,
        })
        .await;
    assert_eq!(identity, again.links.local());
    again.until_up(1).await;
    again
        .links
        .send(id(1), lane(1), Class::Bulk, vec![1].into())
        .await
        .unwrap();
    one.diary.until_frames(lane(1), Class::Bulk, 1).await;
    assert_eq!(two.diary.events().len(), frames_of_the_dead);
}
