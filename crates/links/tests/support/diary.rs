//! A receiver that writes down what it hears, and holds frames if told to.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nsquorum_links::{Class, Evidence, Lane, LinkEpoch, PeerIdentity, Received, Receiver};
use nsquorum_topic::NodeId;
use parking_lot::Mutex;

/// Generous: it is reached only by a failure.
const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Up(PeerIdentity, LinkEpoch),
    Frame {
        from: NodeId,
        epoch: LinkEpoch,
        lane: Lane,
        class: Class,
        bytes: Bytes,
    },
    Down(NodeId, LinkEpoch, Evidence),
}

#[derive(Default)]
struct Pages {
    events: Vec<Event>,
    holding: BTreeSet<Lane>,
    held: Vec<(Lane, Received)>,
}

#[derive(Default)]
pub(crate) struct Diary(Mutex<Pages>);

impl Diary {
    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.lock().events.clone()
    }

    /// The frames of a lane and class so far.
    pub(crate) fn frames(&self, wanted: Lane, wanted_class: Class) -> Vec<Bytes> {
        let pages = self.0.lock();
        let frames = pages.events.iter().filter_map(|event| match event {
            Event::Frame { lane, class, bytes, .. } if *lane == wanted && *class == wanted_class => Some(bytes.clone()),
            _ => None,
        });
        frames.collect()
    }

    /// Frames of this lane keep their credit from now on.
    pub(crate) fn hold(&self, lane: Lane) {
        self.0.lock().holding.insert(lane);
    }

    /// Gives all credit back.
    pub(crate) fn release(&self) {
        let held = {
            let mut pages = self.0.lock();
            pages.holding.clear();
            std::mem::take(&mut pages.held)
        };
        drop(held);
    }

    pub(crate) async fn until<R>(&self, what: &str, found: impl Fn(&[Event]) -> Option<R>) -> R {
        eventually(what, || found(&self.0.lock().events)).await
    }

    pub(crate) async fn until_frames(&self, lane: Lane, class: Class, count: usize) -> Vec<Bytes> {
        eventually("frames", || {
            let frames = self.frames(lane, class);
            (frames.len() >= count).then_some(frames)
        })
        .await
    }
}

impl Receiver for Diary {
    fn up(&self, peer: PeerIdentity, epoch: LinkEpoch) {
        self.0.lock().events.push(Event::Up(peer, epoch));
    }

    fn frame(&self, from: PeerIdentity, epoch: LinkEpoch, lane: Lane, frame: Received) {
        let mut pages = self.0.lock();
        pages.events.push(Event::Frame {
            from: from.node,
            epoch,
            lane,
            class: frame.class(),
            bytes: frame.clone(),
        });
        if pages.holding.contains(&lane) {
            pages.held.push((lane, frame));
        } else {
            // The credit must not go back while the diary is open.
            drop(pages);
            drop(frame);
        }
    }

    fn down(&self, node: NodeId, epoch: LinkEpoch, evidence: Evidence) {
        self.0.lock().events.push(Event::Down(node, epoch, evidence));
    }
}

/// Waits until something is the case.
pub(crate) async fn eventually<R>(what: &str, mut found: impl FnMut() -> Option<R>) -> R {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
