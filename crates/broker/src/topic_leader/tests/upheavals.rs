//! What happens below the leader: the log goes on, leaders change, others write, readers read.

use nsquorum_consensus::{Refusal, TopicEvent};
use nsquorum_storage::{ENTRY_HEADER_BYTES, EntryKind};
use nsquorum_topic::{
    Attempts, BatchBuilder, ChannelIncarnation, EntryPosition, Event, FeatureLevel, LogTime, NodeId, RequeueCause, Seq,
    SeqRange, Term,
};

use super::group::{GroupEvent, ME, OTHER};
use super::history::History;
use super::{message, topic};
use crate::topic_leader::machine::TopicLeader;

impl History {
    pub(super) fn apply(&mut self) {
        for _ in 0..=self.dice.below(3) {
            self.group.apply_one();
        }
    }

    /// The oldest event reaches the leader; false if there is none.
    pub(super) fn deliver_event(&mut self) -> bool {
        let Some(GroupEvent { event, proposed_in }) = self.group.events.pop_front() else {
            return false;
        };
        match &event {
            TopicEvent::LeaderStarted { term, state } => {
                self.leaderships += 1;
                self.model.start(*term, (**state).clone(), self.now);
            }
            TopicEvent::Applied { entry, batch, applied } => {
                let header = entry.header();
                let encoded_bytes = entry.encoded_len() as u32;
                self.model.applied(
                    EntryPosition {
                        index: header.index,
                        term: header.term,
                        encoded_bytes,
                    },
                    batch,
                    applied,
                    &self.publishers.only,
                );
            }
            TopicEvent::Deposed => self.model.stop(),
            TopicEvent::Refused {
                refusal: Refusal::NotLeader,
                ..
            } if proposed_in == self.model.term() => self.model.stop(),
            _ => {}
        }
        let is_applied = matches!(event, TopicEvent::Applied { .. });
        self.tell(|leader, now| leader.event(event, now));
        if is_applied {
            self.model.overflow();
        }
        true
    }

    pub(super) fn elect(&mut self, node: NodeId) {
        // Wall clocks jump.
        let wall = LogTime::new(1_000_000_000 + self.dice.below(1_000_000_000));
        self.group.elect(node, wall, &mut self.dice);
    }

    pub(super) fn upheaval(&mut self) {
        match self.dice.below(3) {
            0 => {
                // The process is gone, and with it everything in it. Other nodes' frontends may have got FINs.
                self.group.restart();
                self.publishers.forget();
                self.restart_leader();
                for mut consumer in std::mem::take(&mut self.consumers).into_values() {
                    let unwritten = consumer.return_unwritten();
                    self.part(consumer, unwritten);
                }
                self.elect(ME);
            }
            1 => self.elect(ME),
            _ => self.elect(OTHER),
        }
    }

    /// The task of the leader ends, and another begins.
    pub(super) fn restart_leader(&mut self) {
        self.model.stop();
        self.leader = TopicLeader::new(topic(), self.limits);
        self.leader.set_window_bytes_max(self.bias.window_bytes_max);
        self.jobs.clear();
        self.done.clear();
    }

    /// Something that does not come from the tested leader.
    pub(super) fn foreign_entry(&mut self) {
        if self.group.unapplied() > 0 {
            return;
        }
        match self.dice.below(3) {
            0 => self.group.append_blank(),
            1 if self.group.leader == OTHER => self.foreign_batch(),
            _ => self.foreign_void(),
        }
    }

    /// A batch of another leader: messages, deliveries, FINs.
    pub(super) fn foreign_batch(&mut self) {
        let state = &self.group.state;
        let Some(channel) = self
            .dice
            .pick(&state.channels().map(|c| c.incarnation()).collect::<Vec<_>>())
        else {
            return;
        };
        let found = state.channel(channel).expect("picked from the state");
        let unfinished: Vec<Seq> = (found.floor().get()..state.readable_end().get())
            .map(Seq::new)
            .filter(|seq| !found.is_finished(*seq))
            .collect();
        let mut builder = BatchBuilder::with_header_room(ENTRY_HEADER_BYTES);
        if let Some(seq) = self.dice.pick(&unfinished) {
            let event = if self.dice.one_in(2) {
                Event::Finish {
                    channel,
                    ranges: vec![SeqRange::single(seq)],
                }
            } else {
                let attempts = found
                    .exception(seq)
                    .map_or(Attempts::default(), |exception| exception.attempts)
                    .next();
                Event::Requeue {
                    channel,
                    seq,
                    attempts,
                    not_before: None,
                    cause: RequeueCause::Requeue,
                }
            };
            builder.push_event(&event);
            self.model.delivered_elsewhere(channel, seq);
        }
        for _ in 0..self.dice.below(3) {
            self.foreign += 1;
            builder.push_message(&message(format!("other{}", self.foreign)));
        }
        let buffer = builder.finish(self.group.term, state.next_seq(), state.time(), FeatureLevel::new(1));
        self.group.append(EntryKind::TopicBatch, buffer);
    }

    /// A batch that was made for an earlier term: none of it may ever be seen.
    pub(super) fn foreign_void(&mut self) {
        let mut builder = BatchBuilder::with_header_room(ENTRY_HEADER_BYTES);
        builder.push_event(&Event::EmptyChannel {
            channel: ChannelIncarnation::new(1),
        });
        for _ in 0..1 + self.dice.below(3) {
            self.foreign += 1;
            builder.push_message(&message(format!("phantom{}", self.foreign)));
        }
        let state = &self.group.state;
        let made_for = Term::new(self.group.term.get() - 1);
        let first_seq = Seq::new((state.next_seq().get() + self.dice.below(3)).saturating_sub(1).max(1));
        let buffer = builder.finish(made_for, first_seq, state.time(), FeatureLevel::new(1));
        self.group.append(EntryKind::TopicBatch, buffer);
    }

    pub(super) fn run_job(&mut self) {
        let Some(place) = self.dice.place(self.jobs.len()) else {
            return;
        };
        let job = self.jobs.remove(place);
        self.group.log.chunk = 1 + self.dice.below(6) as usize;
        self.group.log.is_cached = self.dice.one_in(2);
        let done = job.run_from_memory(&self.group.log);
        self.done
            .push(done.unwrap_or_else(|| job.run_from_disk(&self.group.log)));
    }

    /// What a reader found reaches the leader; false if there is nothing.
    pub(super) fn deliver_found(&mut self) -> bool {
        let Some(place) = self.dice.place(self.done.len()) else {
            return false;
        };
        let done = self.done.remove(place);
        // The shell takes what happened in the log first: a job may have failed because of it.
        while self.deliver_event() {}
        self.tell(|leader, _| leader.reader_done(done));
        true
    }
}
