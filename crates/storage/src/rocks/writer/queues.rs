//! Who is next: one queue per group, votes first, then in turn.

use std::collections::{BTreeMap, VecDeque};

use nsquorum_topic::GroupId;

use super::batch::{Gathering, Step};
use super::{Change, Job, group_of};

/// About how much of one group goes into a cycle before the next group has its turn.
pub(super) const SHARE_BYTES: u64 = 256 << 10;
/// About how much goes into a cycle.
pub(super) const CYCLE_BYTES: u64 = 4 << 20;

#[derive(Default)]
pub(super) struct Queues {
    groups: BTreeMap<GroupId, Queue>,
    /// Groups with a vote waiting, in order of their votes' arrival.
    voting: VecDeque<GroupId>,
    /// Groups with something waiting, in turn.
    ring: VecDeque<GroupId>,
    pushed: u64,
}

#[derive(Default)]
struct Queue {
    /// Jobs with their arrival numbers.
    jobs: VecDeque<(u64, Job)>,
    votes: usize,
}

impl Queues {
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// How many jobs ever came.
    pub(super) fn pushed(&self) -> u64 {
        self.pushed
    }

    /// The arrival number of the oldest job that waits.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.groups
            .values()
            .filter_map(|queue| queue.jobs.front().map(|(arrival, _)| *arrival))
            .min()
    }

    pub(super) fn push(&mut self, job: Job) {
        let group = group_of(&job);
        let queue = self.groups.entry(group).or_insert_with(|| {
            self.ring.push_back(group);
            Queue::default()
        });
        if matches!(job.change, Change::Vote(_)) {
            queue.votes += 1;
            if queue.votes == 1 {
                self.voting.push_back(group);
            }
        }
        queue.jobs.push_back((self.pushed, job));
        self.pushed += 1;
    }

    /// Fills a cycle.
    pub(super) fn gather(&mut self, gathering: &mut Gathering) {
        while let Some(&group) = self.voting.front() {
            while gathering.bytes() < CYCLE_BYTES && self.groups.get(&group).is_some_and(|queue| queue.votes > 0) {
                self.take_step(group, gathering);
            }
            match self.groups.get(&group) {
                Some(queue) if queue.votes > 0 => return,
                Some(_) => {}
                None => self.ring.retain(|waiting| *waiting != group),
            }
            self.voting.pop_front();
        }
        while gathering.bytes() < CYCLE_BYTES {
            let Some(group) = self.ring.pop_front() else { return };
            let until = gathering.bytes() + SHARE_BYTES;
            while self.groups.contains_key(&group) {
                self.take_step(group, gathering);
                if gathering.bytes() >= until {
                    break;
                }
            }
            if self.groups.contains_key(&group) {
                self.ring.push_back(group);
            }
        }
    }

    /// Puts the group's first job, or the next part of it, into the batch. If that was its last one the caller takes the group out
    /// of the ring.
    fn take_step(&mut self, group: GroupId, gathering: &mut Gathering) {
        let Some(queue) = self.groups.get_mut(&group) else {
            return;
        };
        let (_, job) = queue.jobs.front_mut().expect("a group without jobs has no queue");
        match gathering.add(job) {
            Step::More => {}
            Step::Whole => {
                let (_, job) = queue.jobs.pop_front().expect("the job that was just looked at");
                if matches!(job.change, Change::Vote(_)) {
                    queue.votes -= 1;
                }
                if queue.jobs.is_empty() {
                    self.groups.remove(&group);
                }
                gathering.take(job);
            }
        }
    }
}
