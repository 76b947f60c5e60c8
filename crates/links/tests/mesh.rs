//! What only the mesh in memory does: it holds, cuts and shuffles as a test says, and repeats itself.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use nsquorum_links::{
    Class, Evidence, Frame, Lane, LinkEpoch, Links, MemoryLinks, MemoryMesh, MeshOptions, MeshOrder, PeerIdentity,
    PeerState, Received, Receiver, SendError, Service,
};
use nsquorum_topic::{GroupId, NodeId, NodeIncarnation};
use parking_lot::Mutex;

#[derive(Default)]
struct Diary(Mutex<Vec<String>>);

impl Diary {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Receiver for Diary {
    fn up(&self, peer: PeerIdentity, _epoch: LinkEpoch) {
        self.0.lock().push(format!("up {}", peer.node));
    }

    fn frame(&self, from: PeerIdentity, _epoch: LinkEpoch, lane: Lane, frame: Received) {
        let text = String::from_utf8_lossy(&frame).into_owned();
        self.0.lock().push(format!("{}/{}: {text}", from.node, lane.group));
    }

    fn down(&self, node: NodeId, _epoch: LinkEpoch, evidence: Evidence) {
        self.0.lock().push(format!("down {node}: {evidence}"));
    }
}

fn identity(node: u64) -> PeerIdentity {
    PeerIdentity {
        cluster: None,
        node: NodeId::new(node),
        incarnation: NodeIncarnation::new(1),
    }
}

fn node(mesh: &MemoryMesh, number: u64) -> (Arc<MemoryLinks>, Arc<Diary>) {
    let links = mesh.join(identity(number));
    let diary = Arc::new(Diary::default());
    links.register(Service::Raft, Arc::clone(&diary) as Arc<dyn Receiver>);
    links.start();
    (links, diary)
}

fn lane(group: u64) -> Lane {
    Lane::new(Service::Raft, GroupId::new(group))
}

fn text(text: impl Into<String>) -> Frame {
    Frame::from(Bytes::from(text.into()))
}

const ONE: NodeId = NodeId::new(1);
const TWO: NodeId = NodeId::new(2);

fn send(links: &MemoryLinks, to: NodeId, group: u64, class: Class, what: &str) -> Result<LinkEpoch, SendError> {
    links.try_send(to, lane(group), class, text(what))
}

#[test]
fn a_cut_one_way_leaves_the_other_way() {
    let mesh = MemoryMesh::new(MeshOptions::default());
    let (one, at_one) = node(&mesh, 1);
    let (two, at_two) = node(&mesh, 2);
    mesh.cut_one_way(ONE, TWO);
    assert_eq!(send(&one, TWO, 1, Class::Control, "x"), Err(SendError::Down(TWO)));
    send(&two, ONE, 1, Class::Control, "y").unwrap();
    mesh.settle(100);
    assert_eq!(at_one.take(), ["up 2", "2/1: y"]);
    assert_eq!(at_two.take(), ["up 1", "down 1: nothing heard in time"]);
    mesh.heal(ONE, TWO);
    send(&one, TWO, 1, Class::Control, "z").unwrap();
    mesh.settle(100);
    assert_eq!(at_two.take(), ["up 1", "1/1: z"]);
}

#[test]
fn a_held_lane_waits_and_others_pass() {
    let mesh = MemoryMesh::new(MeshOptions::default());
    let (one, _) = node(&mesh, 1);
    let (_two, at_two) = node(&mesh, 2);
    mesh.hold(ONE, TWO, Some(lane(1)));
    for (group, what) in [(1, "a"), (2, "b"), (1, "c")] {
        send(&one, TWO, group, Class::Bulk, what).unwrap();
    }
    mesh.settle(100);
    assert_eq!(at_two.take(), ["up 1", "1/2: b"]);
    mesh.release(ONE, TWO, Some(lane(1)));
    mesh.settle(100);
    assert_eq!(at_two.take(), ["1/1: a", "1/1: c"]);
}

#[test]
fn a_killed_node_is_refused_and_hears_nothing() {
    let mesh = MemoryMesh::new(MeshOptions::default());
    let (one, at_one) = node(&mesh, 1);
    let (two, at_two) = node(&mesh, 2);
    mesh.settle(100);
    at_two.take();
    send(&two, ONE, 1, Class::Bulk, "under way").unwrap();
    mesh.kill(TWO);
    mesh.settle(100);
    assert_eq!(at_one.take(), ["up 2", "down 2: connection broken"]);
    assert!(at_two.take().is_empty());
    let PeerState::Down { evidence, last } = one.peers().borrow()[&TWO] else {
        panic!("up")
    };
    assert_eq!((evidence, last), (Evidence::Refused, Some(identity(2))));
    assert_eq!(
        send(&two, ONE, 1, Class::Bulk, "from the grave"),
        Err(SendError::Down(ONE))
    );
}

fn shuffled(seed: u64) -> Vec<String> {
    let mesh = MemoryMesh::new(MeshOptions {
        order: MeshOrder::Shuffled { seed },
        ..MeshOptions::default()
    });
    let (one, _) = node(&mesh, 1);
    let (_two, at_two) = node(&mesh, 2);
    for number in 0..60 {
        send(
            &one,
            TWO,
            number % 3,
            Class::ALL[(number % 2) as usize],
            &number.to_string(),
        )
        .unwrap();
    }
    mesh.settle(1000);
    at_two.take()
}

#[test]
fn a_shuffled_run_repeats_from_its_seed_and_keeps_lanes_in_order() {
    assert_eq!(shuffled(7), shuffled(7));
    assert_ne!(shuffled(7), shuffled(8));
    for seed in 0..20 {
        let mut last = [None; 6];
        let run = shuffled(seed);
        assert_eq!(run.len(), 61);
        for line in &run[1..] {
            let number: u64 = line.split_once(": ").unwrap().1.parse().unwrap();
            // Six lanes with their class: the remainder by six names both.
            let place = &mut last[(number % 6) as usize];
            assert!(place.is_none_or(|before| before < number), "{run:?}");
            *place = Some(number);
        }
    }
}
