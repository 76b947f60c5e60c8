//! What arrives, and in which order.

use bytes::Bytes;
use nsquorum_links::Class;

use crate::diary::{Event, eventually};
use crate::network::{Network, id, lane};

fn numbered(number: u64, bytes: usize) -> Vec<u8> {
    let mut frame = number.to_be_bytes().to_vec();
    frame.resize(bytes.max(8), number as u8);
    frame
}

pub(crate) async fn frames_of_a_lane_arrive_once_and_in_order(mut network: Network) {
    let (one, two) = network.two().await;
    let mut senders = Vec::new();
    for group in 0..4 {
        for class in Class::ALL {
            let links = one.links.clone();
            senders.push(tokio::spawn(async move {
                for number in 0..400_u64 {
                    // Up to three chunks, and more than the credit in all.
                    let frame = numbered(number, (number as usize * 997) % 12_000);
                    links.send(id(2), lane(group), class, frame.into()).await.unwrap();
                }
            }));
        }
    }
    for group in 0..4 {
        for class in Class::ALL {
            let frames = two.diary.until_frames(lane(group), class, 400).await;
            for (number, frame) in (0..).zip(&frames) {
                assert_eq!(frame, &numbered(number, (number as usize * 997) % 12_000));
            }
        }
    }
    for sender in senders {
        sender.await.unwrap();
    }
    let events = two.diary.events();
    assert!(
        matches!(events[0], Event::Up(peer, _) if peer == one.links.local()),
        "{:?}",
        events[0]
    );
    assert_eq!(events.len(), 1 + 8 * 400);
}

pub(crate) async fn frames_of_any_size_arrive_whole(mut network: Network) {
    let (one, two) = network.two().await;
    let chunk = 4 << 10;
    let sizes = [0, 1, chunk - 1, chunk, chunk + 1, 3 * chunk, 200_000];
    for size in sizes {
        let body: Bytes = (0..size).map(|at| (at % 251) as u8).collect();
        // In pieces that do not fall on chunks.
        let pieces: Vec<Bytes> = body.chunks(1_000).map(Bytes::copy_from_slice).collect();
        one.links
            .send(id(2), lane(1), Class::Bulk, pieces.into())
            .await
            .unwrap();
    }
    let frames = two.diary.until_frames(lane(1), Class::Bulk, sizes.len()).await;
    for (size, frame) in sizes.into_iter().zip(frames) {
        assert_eq!(frame.len(), size);
        assert!(frame.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
    }
}

/// 64 MiB wait in 256 lanes when two more frames join at the end; both must overtake nearly all of them.
pub(crate) async fn a_full_lane_delays_no_other_lane_and_no_other_class(mut network: Network) {
    let (one, two) = network.two().await;
    network.stall(1, 2);
    let mut filled = 0;
    for group in 0..256 {
        filled += one.fill(2, lane(group), Class::Bulk, &[7; 16_000]).await;
    }
    one.links
        .try_send(id(2), lane(1_000), Class::Bulk, vec![1].into())
        .unwrap();
    one.links
        .try_send(id(2), lane(1_001), Class::Control, vec![2].into())
        .unwrap();
    network.flow(1, 2);
    let events = eventually("all frames", || {
        let events = two.diary.events();
        (events.len() == filled + 3).then_some(events)
    })
    .await;
    let place = |group| {
        events
            .iter()
            .position(|event| matches!(event, Event::Frame { lane: at, .. } if *at == lane(group)))
            .unwrap()
    };
    // In the sockets' buffers some megabytes were before them; in the queue nothing but one turn of each lane is.
    assert!(place(1_000) < filled * 3 / 4, "{} of {filled}", place(1_000));
    assert!(place(1_001) < filled * 3 / 4, "{} of {filled}", place(1_001));
}
