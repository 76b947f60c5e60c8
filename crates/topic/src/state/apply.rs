//! Folding entries into the state.

use nsquorum_protocol::ChannelName;

use crate::acceptance::Acceptance;
use crate::batch::{BatchHeader, BatchView, Event, LeaderStart};
use crate::channel::Channel;
use crate::session::{SessionVerdict, Sessions};
use crate::{ChannelIncarnation, Seq, SeqRange};

use super::{Accepted, Applied, Effect, EntryPosition, FEATURE_LEVEL, Impossible, TopicState};

impl TopicState {
    /// Applies a batch entry.
    ///
    /// An accepted batch takes effect whole: its events in order, then its messages. A void one changes nothing but the
    /// count of void batches.
    ///
    /// # Errors
    /// If the batch cannot come from a correct leader. Nothing has changed then.
    pub fn apply_batch(&mut self, at: EntryPosition, batch: &BatchView) -> Result<Applied, Impossible> {
        self.check_order(at)?;
        let header = batch.header();
        if header.feature_level > FEATURE_LEVEL {
            return Err(Impossible::FeatureLevel {
                found: header.feature_level,
                known: FEATURE_LEVEL,
            });
        }
        if self.cursor.is_contradicted_by(at.term, &header) {
            return Err(Impossible::NumbersReused {
                first_seq: header.first_seq,
                next_seq: self.next_seq(),
                term: at.term,
            });
        }
        if let Acceptance::Void(reason) = self.cursor.accepts(at.term, &header) {
            self.applied = Some((at.index, at.term));
            self.counters.void_batches = self.counters.void_batches.saturating_add(1);
            return Ok(Applied::Void(reason));
        }
        for event in batch.events() {
            self.check_event(&event)?;
        }
        let sessions = self.sessions_after(batch)?;
        Ok(Applied::Accepted(self.accept(at, &header, batch, sessions)))
    }

    /// Applies a leader start: the epoch of leases and sessions, and the base of the log clock. One that was appended
    /// in another term than it names is void.
    ///
    /// # Errors
    /// If entries are applied out of order. Nothing has changed then.
    pub fn apply_leader_start(&mut self, at: EntryPosition, start: &LeaderStart) -> Result<(), Impossible> {
        self.check_order(at)?;
        self.applied = Some((at.index, at.term));
        if start.term != at.term {
            self.counters.void_batches = self.counters.void_batches.saturating_add(1);
            return Ok(());
        }
        self.leader = Some(*start);
        self.time = self.time.max(start.clock);
        self.settle();
        Ok(())
    }

    /// Passes an entry that says nothing to the topic: a blank one, or a membership.
    ///
    /// # Errors
    /// If entries are applied out of order. Nothing has changed then.
    pub fn apply_other(&mut self, at: EntryPosition) -> Result<(), Impossible> {
        self.check_order(at)?;
        self.applied = Some((at.index, at.term));
        Ok(())
    }

    /// A gap would be entries that were never applied; going back, entries applied twice.
    fn check_order(&self, at: EntryPosition) -> Result<(), Impossible> {
        match self.applied {
            Some((last_index, last_term)) if at.index != last_index.next() || at.term < last_term => {
                Err(Impossible::Order {
                    index: at.index,
                    term: at.term,
                    last_index,
                    last_term,
                })
            }
            _ => Ok(()),
        }
    }

    /// Refuses events about messages that do not exist, before anything has changed.
    fn check_event(&self, event: &Event) -> Result<(), Impossible> {
        let next_seq = self.next_seq();
        let exists = |seq: Seq| seq.get() > 0 && seq < next_seq;
        match event {
            Event::Finish { ranges, .. } => match ranges
                .iter()
                .find(|range| !exists(range.first()) || !exists(range.last()))
            {
                Some(range) => Err(Impossible::FinishedUnknown {
                    range: *range,
                    next_seq,
                }),
                None => Ok(()),
            },
            Event::Requeue { seq, .. } if !exists(*seq) => Err(Impossible::RequeuedUnknown { seq: *seq, next_seq }),
            _ => Ok(()),
        }
    }

    /// What the sessions remember after a batch; `None` if it says nothing about them.
    fn sessions_after(&self, batch: &BatchView) -> Result<Option<Sessions>, Impossible> {
        let ended = batch.events().filter_map(|event| match event {
            Event::EndSession { last } => Some(last),
            _ => None,
        });
        let mut after: Option<Sessions> = None;
        for last in ended {
            after.get_or_insert_with(|| self.sessions.clone()).end(last);
        }
        for origin in batch.origins() {
            let sessions = after.get_or_insert_with(|| self.sessions.clone());
            match sessions.verdict(&origin) {
                SessionVerdict::New => sessions.record(&origin),
                verdict => {
                    return Err(Impossible::Session {
                        session: origin.session(),
                        number: origin.number,
                        verdict,
                    });
                }
            }
        }
        Ok(after)
    }

    fn accept(
        &mut self,
        at: EntryPosition,
        header: &BatchHeader,
        batch: &BatchView,
        sessions: Option<Sessions>,
    ) -> Accepted {
        self.applied = Some((at.index, at.term));
        if let Some(sessions) = sessions {
            self.sessions = sessions;
        }
        self.time = self.time.max(header.time);
        let mut effects = Vec::new();
        for event in batch.events() {
            self.apply_event(event, &mut effects);
        }
        self.points.record(at, header.first_seq, header.count > 0);
        self.cursor.advance(header);
        self.take_messages(header, batch, &mut effects);
        self.settle();
        Accepted {
            first_seq: header.first_seq,
            count: header.count,
            time: self.time,
            effects,
        }
    }

    fn take_messages(&mut self, header: &BatchHeader, batch: &BatchView, effects: &mut Vec<Effect>) {
        let count = u64::from(header.count);
        // A checkpoint that was made up may hold any counts; they are shown to people and decide nothing.
        let counters = &mut self.counters;
        counters.messages = counters.messages.saturating_add(count);
        counters.message_bytes = counters.message_bytes.saturating_add(u64::from(batch.body_bytes()));
        let leaves_topic = self.paused_at.is_none() && !self.channels.is_empty();
        if leaves_topic {
            self.channels
                .values_mut()
                .for_each(|channel| channel.count_arrivals(count));
        }
        for (seq, delay_ms) in batch.deferrals() {
            if leaves_topic {
                let due = self.deferrals.release(seq, delay_ms, self.time);
                effects.push(Effect::Deferred { seq, due });
            } else {
                self.deferrals.hold(seq, delay_ms);
            }
        }
    }

    /// Drops what time and floors have passed.
    fn settle(&mut self) {
        let floor = self.purge_floor();
        self.deferrals.settle(self.time, floor);
        self.points.prune(floor, self.next_seq());
    }

    fn apply_event(&mut self, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::CreateChannel { name } => self.create_channel(name, effects),
            Event::DeleteChannel { channel } => self.delete_channel(channel, effects),
            Event::EmptyChannel { channel } => self.empty_channel(channel, effects),
            Event::PauseChannel { channel } => {
                if self
                    .channels
                    .get_mut(&channel)
                    .is_some_and(|found| found.set_paused(true))
                {
                    effects.push(Effect::ChannelPaused(channel));
                }
            }
            Event::UnpauseChannel { channel } => {
                if self
                    .channels
                    .get_mut(&channel)
                    .is_some_and(|found| found.set_paused(false))
                {
                    effects.push(Effect::ChannelUnpaused(channel));
                }
            }
            Event::PauseTopic => {
                if self.paused_at.is_none() {
                    self.paused_at = Some(self.readable_end());
                    effects.push(Effect::TopicPaused);
                }
            }
            Event::UnpauseTopic => self.unpause_topic(effects),
            Event::EmptyTopic => self.empty_topic(effects),
            Event::DeleteTopic => self.delete_topic(effects),
            // Folded in by `sessions_after`, before anything has changed.
            Event::EndSession { .. } => {}
            Event::Finish { channel, ranges } => self.finish(channel, ranges, effects),
            Event::Requeue {
                channel,
                seq,
                attempts,
                not_before,
                cause,
            } => {
                let (behind, end) = (self.next_seq(), self.readable_end());
                let Some(found) = self.channels.get_mut(&channel).filter(|_| seq < end) else {
                    return;
                };
                if let Some(exception) = found.requeue(seq, attempts, not_before, behind, cause) {
                    let attempts = exception.attempts;
                    effects.push(Effect::Requeued {
                        channel,
                        seq,
                        attempts,
                        not_before,
                        behind,
                    });
                }
            }
        }
    }

    /// Numbers that have not reached the channel stay unfinished: skipping them would lose them at the release.
    fn finish(&mut self, channel: ChannelIncarnation, ranges: Vec<SeqRange>, effects: &mut Vec<Effect>) {
        let end = self.readable_end();
        let Some(found) = self.channels.get_mut(&channel) else {
            return;
        };
        let reached = |range: &SeqRange| SeqRange::until(range.first(), range.last().next().min(end));
        let newly = ranges.iter().filter_map(reached).map(|range| found.finish(range)).sum();
        if newly > 0 {
            effects.push(Effect::Finished { channel, newly, ranges });
        }
    }

    fn create_channel(&mut self, name: ChannelName, effects: &mut Vec<Effect>) {
        if let Some(found) = self.channel_by_name(&name) {
            let (channel, begin) = (found.incarnation(), found.begin());
            effects.push(Effect::ChannelCreated {
                name,
                channel,
                begin,
                existed: true,
            });
            return;
        }
        // No topic has had so many channels; a checkpoint that was made up may say so.
        let Some(incarnation) = self.last_incarnation.get().checked_add(1) else {
            return;
        };
        let is_first = self.channels.is_empty();
        // The first channel takes over where the topic accumulates from, which is its readable end; for later ones that
        // is the next number, or where the pause holds messages back.
        let begin = self.readable_end();
        let channel = ChannelIncarnation::new(incarnation);
        self.last_incarnation = channel;
        self.names.insert(name.clone(), channel);
        self.channels
            .insert(channel, Channel::new(name.clone(), channel, begin));
        effects.push(Effect::ChannelCreated {
            name,
            channel,
            begin,
            existed: false,
        });
        if is_first {
            self.floor = Seq::default();
            if self.paused_at.is_none() {
                self.release_from(begin, effects);
            }
        }
    }

    fn delete_channel(&mut self, channel: ChannelIncarnation, effects: &mut Vec<Effect>) {
        let end = self.readable_end();
        let Some(removed) = self.channels.remove(&channel) else {
            return;
        };
        self.names.remove(removed.name());
        if self.channels.is_empty() {
            self.floor = end;
        }
        effects.push(Effect::ChannelDeleted {
            channel,
            name: removed.name().clone(),
        });
    }

    fn empty_channel(&mut self, channel: ChannelIncarnation, effects: &mut Vec<Effect>) {
        let up_to = self.readable_end();
        let Some(found) = self.channels.get_mut(&channel) else {
            return;
        };
        found.empty(up_to);
        effects.push(Effect::ChannelEmptied { channel, up_to });
    }

    fn unpause_topic(&mut self, effects: &mut Vec<Effect>) {
        let Some(paused_at) = self.paused_at.take() else { return };
        effects.push(Effect::TopicUnpaused);
        if !self.channels.is_empty() {
            self.release_from(paused_at, effects);
        }
    }

    /// Messages from `begin` on leave the topic, for all channels.
    fn release_from(&mut self, begin: Seq, effects: &mut Vec<Effect>) {
        let count = self.next_seq().get() - begin.get();
        self.channels
            .values_mut()
            .for_each(|channel| channel.count_arrivals(count));
        let released = self.deferrals.release_all(self.time);
        effects.extend(released.into_iter().map(|(seq, due)| Effect::Deferred { seq, due }));
    }

    fn empty_topic(&mut self, effects: &mut Vec<Effect>) {
        let next_seq = self.next_seq();
        if self.channels.is_empty() {
            self.floor = next_seq;
        }
        if let Some(paused_at) = &mut self.paused_at {
            if let Some(range) = SeqRange::until(*paused_at, next_seq) {
                for channel in self.channels.values_mut() {
                    channel.drop_range(range);
                }
            }
            *paused_at = next_seq;
        }
        self.deferrals.drop_unreleased();
        effects.push(Effect::TopicEmptied);
    }

    fn delete_topic(&mut self, effects: &mut Vec<Effect>) {
        let next_seq = self.next_seq();
        self.channels.clear();
        self.names.clear();
        self.paused_at = None;
        self.floor = next_seq;
        self.deferrals.drop_unreleased();
        effects.push(Effect::TopicDeleted { next_seq });
    }
}
