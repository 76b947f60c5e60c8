//! Random histories of an outbox and the assembler at the other end, against what a link promises.
//!
//! `NSQUORUM_HISTORIES` sets how many (500), `NSQUORUM_SEED` the seed of the first (0); history *i* has seed + *i*. A failure names its seed:
//! `NSQUORUM_SEED=<seed> NSQUORUM_HISTORIES=1 cargo test -p nsquorum-links --lib histories`.

use std::collections::{BTreeMap, VecDeque};

use nsquorum_environment::{Random, SeededRandom};
use nsquorum_topic::GroupId;
use tokio::sync::oneshot;

use super::{Outbox, Refusal};
use crate::grpc::Assembler;
use crate::limits::charge;
use crate::{ClassLimits, Lane, LinkEpoch, Service};

const LIMITS: ClassLimits = ClassLimits {
    lane_credit_bytes: 600,
    queued_bytes_max: 1_500,
};
const CHUNK_BYTES: usize = 50;
const LANES: u64 = 5;

type Told = oneshot::Receiver<Result<LinkEpoch, Refusal>>;

/// What the test knows of one lane.
#[derive(Default)]
struct LaneModel {
    /// Frames that must arrive, in order; those that wait are not here.
    due: VecDeque<Vec<u8>>,
    /// Charges of frames that arrived and are held.
    held: Vec<u64>,
    /// Charges of frames that are queued, travelling or held.
    outstanding: u64,
    waiting: VecDeque<(Vec<u8>, Told)>,
}

struct History {
    random: SeededRandom,
    outbox: Outbox,
    assembler: Assembler,
    epoch: u64,
    frames: u64,
    lanes: BTreeMap<Lane, LaneModel>,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut history = Self {
            random: SeededRandom::new(seed),
            outbox: Outbox::new(LIMITS),
            assembler: Assembler::new(10_000, 10_000),
            epoch: 0,
            frames: 0,
            lanes: BTreeMap::new(),
        };
        history.reopen();
        history
    }

    fn below(&self, end: u64) -> u64 {
        self.random.below(end)
    }

    fn lane(&self) -> Lane {
        Lane::new(Service::Raft, GroupId::new(self.below(LANES)))
    }

    /// A frame like no other; now and then longer than all credit.
    fn frame(&mut self) -> Vec<u8> {
        self.frames += 1;
        let length = match self.below(20) {
            0 => 700 + self.below(1_500),
            1 => 8,
            _ => 8 + self.below(200),
        };
        let mut frame = self.frames.to_be_bytes().to_vec();
        frame.resize(length as usize, self.frames as u8);
        frame
    }

    fn reopen(&mut self) {
        if self.epoch > 0 {
            self.outbox.close();
            for lane in self.lanes.values_mut() {
                for (_, mut told) in lane.waiting.drain(..) {
                    assert_eq!(told.try_recv(), Ok(Err(Refusal::Down)), "a caller that waits for ever");
                }
            }
        }
        assert_eq!(self.outbox.push(self.lane(), vec![1].into()), Err(Refusal::Down));
        self.lanes.clear();
        self.assembler = Assembler::new(10_000, 10_000);
        self.epoch += 1;
        self.outbox.open(LinkEpoch::new(self.epoch));
    }

    /// Callers that waited and were let in.
    fn settle_waiting(&mut self) {
        for lane in self.lanes.values_mut() {
            while let Some((_, told)) = lane.waiting.front_mut() {
                match told.try_recv() {
                    Ok(told) => {
                        assert_eq!(told, Ok(LinkEpoch::new(self.epoch)));
                        let (frame, _) = lane.waiting.pop_front().unwrap();
                        lane.outstanding += charge(frame.len());
                        lane.due.push_back(frame);
                    }
                    Err(_) => break,
                }
            }
            for (_, told) in &mut lane.waiting {
                assert!(told.try_recv().is_err(), "a caller overtook an earlier one");
            }
        }
    }

    fn queued_or_travelling(&self) -> u64 {
        let charges = self
            .lanes
            .values()
            .flat_map(|lane| &lane.due)
            .map(|frame| charge(frame.len()));
        charges.sum()
    }

    fn step(&mut self) {
        match self.below(12) {
            0..4 => {
                let (at, frame) = (self.lane(), self.frame());
                let model = self.lanes.entry(at).or_default();
                let crowded = !model.waiting.is_empty();
                match self.outbox.push(at, frame.clone().into()) {
                    Ok(_) => {
                        assert!(!crowded, "a frame overtook a caller that waits");
                        model.outstanding += charge(frame.len());
                        model.due.push_back(frame);
                    }
                    Err(Refusal::Full) => {}
                    Err(Refusal::Down) => panic!("the link is up"),
                }
            }
            4..6 => {
                let (at, frame) = (self.lane(), self.frame());
                let model = self.lanes.entry(at).or_default();
                match self.outbox.push_or_wait(at, frame.clone().into()) {
                    Ok(_) => {
                        model.outstanding += charge(frame.len());
                        model.due.push_back(frame);
                    }
                    Err(Some(told)) => model.waiting.push_back((frame, told)),
                    Err(None) => panic!("the link is up"),
                }
            }
            6..9 => {
                let bytes = self.below(300) as usize;
                for chunk in self.outbox.take(bytes, CHUNK_BYTES) {
                    assert!(chunk.data.len() <= CHUNK_BYTES);
                    let whole = self.assembler.chunk(chunk.lane, chunk.begins, chunk.data);
                    let whole = whole.expect("chunks that make sense");
                    assert_eq!(whole.is_some(), chunk.ends);
                    if let Some(arrived) = whole {
                        self.settle_waiting();
                        let model = self.lanes.get_mut(&chunk.lane).unwrap();
                        let due = model.due.pop_front().expect("a frame that was sent");
                        assert_eq!(due, arrived, "out of order");
                        model.held.push(charge(due.len()));
                    }
                }
            }
            9..11 => {
                let at = self.lane();
                let drop_one = |held: &mut Vec<u64>, place: u64| {
                    (!held.is_empty()).then(|| held.swap_remove(place as usize % held.len()))
                };
                let place = self.below(1_000);
                if let Some(model) = self.lanes.get_mut(&at)
                    && let Some(credit) = drop_one(&mut model.held, place)
                {
                    model.outstanding -= credit;
                    self.outbox.credit(at, credit).unwrap();
                }
            }
            _ => {
                let at = self.lane();
                let place = self.below(1_000);
                if let Some(model) = self.lanes.get_mut(&at)
                    && !model.waiting.is_empty()
                {
                    // A caller gives up.
                    let place = place as usize % model.waiting.len();
                    model.waiting.remove(place);
                }
            }
        }
        self.settle_waiting();
        for model in self.lanes.values() {
            let frames = model.due.len() + model.held.len();
            assert!(
                model.outstanding <= LIMITS.lane_credit_bytes || frames == 1,
                "more under way than the credit"
            );
        }
        assert!(self.queued_or_travelling() <= LIMITS.queued_bytes_max || self.lanes_due() == 1);
    }

    fn lanes_due(&self) -> usize {
        self.lanes.values().map(|lane| lane.due.len()).sum()
    }

    /// Everything arrives once the receiver drops what it holds.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            for chunk in self.outbox.take(10_000, CHUNK_BYTES) {
                if let Some(arrived) = self.assembler.chunk(chunk.lane, chunk.begins, chunk.data).unwrap() {
                    self.settle_waiting();
                    let model = self.lanes.get_mut(&chunk.lane).unwrap();
                    let due = model.due.pop_front().unwrap();
                    assert_eq!(due, arrived);
                    model.held.push(charge(due.len()));
                }
            }
            for (at, model) in &mut self.lanes {
                for credit in model.held.drain(..) {
                    model.outstanding -= credit;
                    self.outbox.credit(*at, credit).unwrap();
                }
            }
            self.settle_waiting();
            if self
                .lanes
                .values()
                .all(|lane| lane.due.is_empty() && lane.waiting.is_empty())
            {
                assert!(self.outbox.lanes.is_empty(), "accounts of lanes that nothing concerns");
                assert!(self.outbox.credit(self.lane(), 1).is_err(), "credit from nowhere");
                return;
            }
        }
        panic!("something waits for ever");
    }
}

fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn histories() {
    let first = number("NSQUORUM_SEED", 0);
    for seed in first..first + number("NSQUORUM_HISTORIES", 500) {
        let run = std::panic::catch_unwind(|| {
            let mut history = History::new(seed);
            for _ in 0..400 {
                history.step();
                if history.below(150) == 0 {
                    history.reopen();
                }
            }
            history.drain();
        });
        if let Err(panic) = run {
            eprintln!("NSQUORUM_SEED={seed} NSQUORUM_HISTORIES=1 cargo test -p nsquorum-links --lib histories");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn lanes_take_turns_by_the_chunk() {
    let mut outbox = Outbox::new(ClassLimits {
        lane_credit_bytes: 1 << 20,
        queued_bytes_max: 1 << 20,
    });
    outbox.open(LinkEpoch::new(1));
    let lane = |group| Lane::new(Service::Raft, GroupId::new(group));
    outbox.push(lane(1), vec![1; 1_000].into()).unwrap();
    outbox.push(lane(2), vec![2; 150].into()).unwrap();
    outbox.push(lane(3), vec![3; 10].into()).unwrap();
    let turns: Vec<_> = outbox
        .take(usize::MAX, 100)
        .into_iter()
        .map(|chunk| (chunk.lane.group.get(), chunk.data.len(), chunk.ends))
        .take(7)
        .collect();
    let expected = [
        (1, 100, false),
        (2, 100, false),
        (3, 10, true),
        (1, 100, false),
        (2, 50, true),
        (1, 100, false),
        (1, 100, false),
    ];
    assert_eq!(turns, expected);
}
