//! Credit, and what happens without.

use nsquorum_links::{Class, SendError};

use crate::diary::eventually;
use crate::network::{Network, id, lane, limits};

pub(crate) async fn a_receiver_that_holds_its_frames_stops_only_its_lane(mut network: Network) {
    let (one, two) = network.two().await;
    two.diary.hold(lane(1));
    let frame = [0; 10_000];
    let charge = 10_000 + 64;
    for (class, credit) in [
        (Class::Control, limits().control.lane_credit_bytes),
        (Class::Bulk, limits().bulk.lane_credit_bytes),
    ] {
        let held = one.fill(2, lane(1), class, &frame).await;
        assert_eq!(held as u64, credit / charge);
        two.diary.until_frames(lane(1), class, held).await;
        let full = one.links.try_send(id(2), lane(1), class, frame.to_vec().into());
        assert_eq!(full, Err(SendError::Full(id(2))));
        // Another lane takes many times the credit meanwhile.
        let other = held * 8;
        for _ in 0..other {
            one.links
                .send(id(2), lane(2), class, frame.to_vec().into())
                .await
                .unwrap();
        }
        two.diary.until_frames(lane(2), class, other).await;
        assert_eq!(two.diary.frames(lane(1), class).len(), held);
    }
    two.diary.release();
    for class in Class::ALL {
        let before = two.diary.frames(lane(1), class).len();
        eventually("room again", || {
            one.links.try_send(id(2), lane(1), class, frame.to_vec().into()).ok()
        })
        .await;
        two.diary.until_frames(lane(1), class, before + 1).await;
    }
}

pub(crate) async fn callers_that_wait_keep_their_order(mut network: Network) {
    let (one, two) = network.two().await;
    two.diary.hold(lane(1));
    let held = one.fill(2, lane(1), Class::Control, &[255; 10_000]).await;
    let sending: Vec<_> = (0..50_u8)
        .map(|number| {
            one.links
                .send(id(2), lane(1), Class::Control, vec![number; 3_000].into())
        })
        .collect();
    // Even a small frame does not overtake them.
    let small = one.links.try_send(id(2), lane(1), Class::Control, vec![200].into());
    assert_eq!(small, Err(SendError::Full(id(2))));
    two.diary.until_frames(lane(1), Class::Control, held).await;
    two.diary.release();
    // Awaited last to first: the order is that of the calls.
    for sending in sending.into_iter().rev() {
        sending.await.unwrap();
    }
    let frames = two.diary.until_frames(lane(1), Class::Control, held + 50).await;
    let numbers: Vec<u8> = frames[held..].iter().map(|frame| frame[0]).collect();
    assert_eq!(numbers, (0..50).collect::<Vec<u8>>());
}

pub(crate) async fn a_frame_longer_than_the_credit_passes_alone(mut network: Network) {
    let (one, two) = network.two().await;
    let long = vec![3; limits().frame_bytes_max];
    for _ in 0..3 {
        one.links
            .send(id(2), lane(1), Class::Bulk, long.clone().into())
            .await
            .unwrap();
    }
    let frames = two.diary.until_frames(lane(1), Class::Bulk, 3).await;
    assert!(frames.iter().all(|frame| frame == &long));
    two.diary.hold(lane(1));
    one.links
        .send(id(2), lane(1), Class::Bulk, long.clone().into())
        .await
        .unwrap();
    two.diary.until_frames(lane(1), Class::Bulk, 4).await;
    let second = one.links.try_send(id(2), lane(1), Class::Bulk, vec![1].into());
    assert_eq!(second, Err(SendError::Full(id(2))));
}

pub(crate) async fn a_frame_longer_than_any_is_refused(mut network: Network) {
    let (one, _two) = network.two().await;
    let limit = limits().frame_bytes_max;
    let bytes = limit + 1;
    let refused = Err(SendError::TooLarge { bytes, limit });
    let sent = one.links.try_send(id(2), lane(1), Class::Bulk, vec![0; bytes].into());
    assert_eq!(sent, refused);
    let sent = one.links.send(id(2), lane(1), Class::Bulk, vec![0; bytes].into()).await;
    assert_eq!(sent, refused);
}
