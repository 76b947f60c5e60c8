//! The topic as one would describe it at a table: a queue, and for every channel the set of messages it holds.
//!
//! Messages really move here, from the topic's queue into each channel's set, as in NSQ. The machine knows neither a
//! queue nor such sets; that both agree is what the histories show.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use nsquorum_protocol::ChannelName;
use nsquorum_topic::{
    Accepted, Applied, Attempts, ChannelIncarnation, Effect, Event, LogTime, Origin, RequeueCause, Seq, SessionId,
    SessionVerdict, Term, VoidReason,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NaiveMessage {
    pub(crate) body: Bytes,
    pub(crate) defer_ms: u32,
    pub(crate) published_at: u64,
    pub(crate) origin: Option<Origin>,
}

#[derive(Clone, Debug)]
pub(crate) struct NaiveBatch {
    pub(crate) term: u64,
    pub(crate) first_seq: u64,
    pub(crate) time: u64,
    pub(crate) events: Vec<Event>,
    pub(crate) messages: Vec<NaiveMessage>,
}

#[derive(Clone, Debug)]
pub(crate) struct NaiveChannel {
    pub(crate) name: ChannelName,
    pub(crate) begin: u64,
    pub(crate) is_paused: bool,
    /// Every message that is in the channel: queued, deferred or in flight.
    pub(crate) holds: BTreeSet<u64>,
    /// Those that came back: attempts, not before, behind.
    pub(crate) back: BTreeMap<u64, (u16, Option<u64>, u64)>,
    pub(crate) received: u64,
    pub(crate) finished: u64,
    /// By cause: REQ, timeout, disconnect.
    pub(crate) returned: [u64; 3],
}

#[derive(Clone, Debug)]
pub(crate) struct Naive {
    seq_base: u64,
    /// Every message that was ever accepted.
    pub(crate) stored: Vec<NaiveMessage>,
    /// What has not left the topic, with its delay.
    pub(crate) queue: Vec<(u64, u32)>,
    pub(crate) is_paused: bool,
    pub(crate) is_deleted: bool,
    pub(crate) channels: BTreeMap<u64, NaiveChannel>,
    minted: u64,
    pub(crate) time: u64,
    pub(crate) due: BTreeMap<u64, u64>,
    pub(crate) voided: u64,
    /// Every publish that was ever stored.
    pub(crate) published: BTreeSet<(SessionId, u64)>,
    /// What routers have said that they do not ask for any more.
    pub(crate) resolved_below: BTreeMap<SessionId, u64>,
    pub(crate) ended: BTreeSet<SessionId>,
}

impl Naive {
    pub(crate) fn new(seq_base: u64) -> Self {
        Self {
            seq_base,
            stored: Vec::new(),
            queue: Vec::new(),
            is_paused: false,
            is_deleted: false,
            channels: BTreeMap::new(),
            minted: 0,
            time: 0,
            due: BTreeMap::new(),
            voided: 0,
            published: BTreeSet::new(),
            resolved_below: BTreeMap::new(),
            ended: BTreeSet::new(),
        }
    }

    /// What a session must know about a publish.
    pub(crate) fn verdict(&self, origin: &Origin) -> SessionVerdict {
        let session = origin.session();
        let is_ended = self
            .ended
            .iter()
            .any(|last| last.node == session.node && last.incarnation >= session.incarnation);
        if is_ended {
            SessionVerdict::Ended
        } else if self.published.contains(&(session, origin.number))
            || origin.number < origin.base
            || self
                .resolved_below
                .get(&session)
                .is_some_and(|base| origin.number < *base)
        {
            SessionVerdict::Stored
        } else {
            SessionVerdict::New
        }
    }

    fn publish(&mut self, messages: &[NaiveMessage]) {
        let mut last = None;
        for origin in messages.iter().map(|message| message.origin) {
            if let Some(origin) = origin.filter(|origin| last != Some(*origin)) {
                assert!(
                    self.published.insert((origin.session(), origin.number)),
                    "{origin:?} is stored twice"
                );
                let base = self.resolved_below.entry(origin.session()).or_default();
                *base = origin.base.max(*base);
            }
            last = origin;
        }
    }

    pub(crate) const fn first_seq(&self) -> u64 {
        self.seq_base + 1
    }

    pub(crate) fn next_seq(&self) -> u64 {
        self.seq_base + 1 + self.stored.len() as u64
    }

    pub(crate) fn readable_end(&self) -> u64 {
        self.queue.first().map_or(self.next_seq(), |(seq, _)| *seq)
    }

    pub(crate) fn message(&self, seq: u64) -> &NaiveMessage {
        &self.stored[(seq - self.seq_base - 1) as usize]
    }

    /// The lowest number that anybody may still ask for.
    pub(crate) fn lowest_needed(&self) -> u64 {
        let held = self
            .channels
            .values()
            .filter_map(|channel| channel.holds.first().copied());
        held.chain([self.readable_end()]).min().unwrap()
    }

    pub(crate) fn apply(&mut self, entry_term: u64, batch: &NaiveBatch) -> Applied {
        let reason = if self.is_deleted {
            Some(VoidReason::Deleted)
        } else if batch.term != entry_term {
            Some(VoidReason::Term {
                made_for: Term::new(batch.term),
                appended_in: Term::new(entry_term),
            })
        } else if batch.first_seq != self.next_seq() {
            Some(VoidReason::Number {
                expected: Seq::new(self.next_seq()),
                found: Seq::new(batch.first_seq),
            })
        } else {
            None
        };
        if let Some(reason) = reason {
            self.voided += 1;
            return Applied::Void(reason);
        }
        self.time = self.time.max(batch.time);
        let mut effects = Vec::new();
        for event in &batch.events {
            self.event(event, &mut effects);
        }
        self.publish(&batch.messages);
        for message in &batch.messages {
            self.queue.push((self.next_seq(), message.defer_ms));
            self.stored.push(message.clone());
        }
        self.flow(&mut effects);
        self.forget();
        Applied::Accepted(Accepted {
            first_seq: Seq::new(batch.first_seq),
            count: batch.messages.len() as u32,
            time: LogTime::new(self.time),
            effects,
        })
    }

    pub(crate) fn leader_start(&mut self, clock: u64) {
        self.time = self.time.max(clock);
        self.forget();
    }

    /// Messages leave the topic if something takes them.
    fn flow(&mut self, effects: &mut Vec<Effect>) {
        if self.is_paused || self.channels.is_empty() {
            return;
        }
        for (seq, delay_ms) in std::mem::take(&mut self.queue) {
            for channel in self.channels.values_mut() {
                channel.holds.insert(seq);
                channel.received += 1;
            }
            if delay_ms > 0 {
                let due = self.time + u64::from(delay_ms) * 1_000_000;
                self.due.insert(seq, due);
                effects.push(Effect::Deferred {
                    seq: Seq::new(seq),
                    due: LogTime::new(due),
                });
            }
        }
    }

    fn forget(&mut self) {
        let (time, lowest) = (self.time, self.lowest_needed());
        self.due.retain(|seq, due| *due > time && *seq >= lowest);
    }

    fn event(&mut self, event: &Event, effects: &mut Vec<Effect>) {
        let (next_seq, end) = (self.next_seq(), self.readable_end());
        match event {
            Event::CreateChannel { name } => self.create(name, effects),
            Event::DeleteChannel { channel } => {
                if let Some(gone) = self.channels.remove(&channel.get()) {
                    effects.push(Effect::ChannelDeleted {
                        channel: *channel,
                        name: gone.name,
                    });
                }
            }
            Event::EmptyChannel { channel } => {
                if let Some(found) = self.channels.get_mut(&channel.get()) {
                    found.holds.clear();
                    found.back.clear();
                    effects.push(Effect::ChannelEmptied {
                        channel: *channel,
                        up_to: Seq::new(end),
                    });
                }
            }
            Event::PauseChannel { channel } => {
                if let Some(found) = self.channels.get_mut(&channel.get()).filter(|found| !found.is_paused) {
                    found.is_paused = true;
                    effects.push(Effect::ChannelPaused(*channel));
                }
            }
            Event::UnpauseChannel { channel } => {
                if let Some(found) = self.channels.get_mut(&channel.get()).filter(|found| found.is_paused) {
                    found.is_paused = false;
                    effects.push(Effect::ChannelUnpaused(*channel));
                }
            }
            Event::PauseTopic => {
                if !self.is_paused {
                    self.is_paused = true;
                    effects.push(Effect::TopicPaused);
                }
            }
            Event::UnpauseTopic => {
                if self.is_paused {
                    self.is_paused = false;
                    effects.push(Effect::TopicUnpaused);
                    self.flow(effects);
                }
            }
            Event::EmptyTopic => {
                self.queue.clear();
                effects.push(Effect::TopicEmptied);
            }
            Event::DeleteTopic => {
                self.is_deleted = true;
                self.is_paused = false;
                self.channels.clear();
                self.queue.clear();
                effects.push(Effect::TopicDeleted {
                    next_seq: Seq::new(next_seq),
                });
            }
            Event::EndSession { last } => _ = self.ended.insert(*last),
            Event::Finish { channel, ranges } => {
                let Some(found) = self.channels.get_mut(&channel.get()) else {
                    return;
                };
                let mut newly = 0;
                for seq in ranges.iter().flat_map(|range| range.first().get()..=range.last().get()) {
                    newly += u64::from(found.holds.remove(&seq));
                    found.back.remove(&seq);
                }
                found.finished += newly;
                if newly > 0 {
                    effects.push(Effect::Finished {
                        channel: *channel,
                        newly,
                        ranges: ranges.clone(),
                    });
                }
            }
            Event::Requeue {
                channel,
                seq,
                attempts,
                not_before,
                cause,
            } => {
                let number = seq.get();
                let Some(found) = self.channels.get_mut(&channel.get()) else {
                    return;
                };
                if !found.holds.contains(&number) {
                    return;
                }
                let before = found.back.get(&number).map_or(0, |(attempts, ..)| *attempts);
                let attempts = before.max(attempts.get());
                found
                    .back
                    .insert(number, (attempts, not_before.map(LogTime::get), next_seq));
                found.returned[match cause {
                    RequeueCause::Requeue => 0,
                    RequeueCause::Timeout => 1,
                    RequeueCause::Disconnect => 2,
                }] += 1;
                effects.push(Effect::Requeued {
                    channel: *channel,
                    seq: *seq,
                    attempts: Attempts::new(attempts),
                    not_before: *not_before,
                    behind: Seq::new(next_seq),
                });
            }
        }
    }

    fn create(&mut self, name: &ChannelName, effects: &mut Vec<Effect>) {
        let found = self.channels.iter().find(|(_, channel)| channel.name == *name);
        let existed = found.is_some();
        let (channel, begin) = match found {
            Some((channel, found)) => (*channel, found.begin),
            None => {
                self.minted += 1;
                (self.minted, self.readable_end())
            }
        };
        effects.push(Effect::ChannelCreated {
            name: name.clone(),
            channel: ChannelIncarnation::new(channel),
            begin: Seq::new(begin),
            existed,
        });
        if !existed {
            let new = NaiveChannel {
                name: name.clone(),
                begin,
                is_paused: false,
                holds: BTreeSet::new(),
                back: BTreeMap::new(),
                received: 0,
                finished: 0,
                returned: [0; 3],
            };
            self.channels.insert(channel, new);
            self.flow(effects);
        }
    }
}
