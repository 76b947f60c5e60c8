//! What the log says: a batch is applied to the leader's copy of the state, and everybody whom it concerns hears of it.

use nsquorum_protocol::ChannelName;
use nsquorum_storage::Entry;
use nsquorum_topic::{Accepted, Applied, BatchView, ChannelIncarnation, Effect, EntryPosition, Seq, SeqRange};

use super::consumers::Port;
use super::dispatch::Dispatch;
use super::leading::Leading;
use super::machine::{Output, TopicLeader};
use crate::publish::PublishError;
use crate::subscription::SubscriptionEvent;
use crate::wire::FromLeader;

impl TopicLeader {
    pub(super) fn applied(&mut self, entry: &Entry, batch: BatchView, applied: &Applied) {
        let Some(leading) = &mut self.leading else { return };
        let header = entry.header();
        leading.applied_end = header.index.next();
        let at = EntryPosition {
            index: header.index,
            term: header.term,
            encoded_bytes: u32::try_from(entry.encoded_len()).expect("an entry's length is a u32 in its header"),
        };
        leading.pass_others(at);
        let own = leading
            .state
            .apply_batch(at, &batch)
            .expect("the group has applied the same entry to an equal state");
        assert_eq!(
            &own, applied,
            "the leader's copy of the state went another way than the group's"
        );
        let batch_header = batch.header();
        let is_own = batch_header.term == leading.term && header.term == leading.term;
        let next_seq = leading.state.next_seq();
        match own {
            Applied::Accepted(accepted) => {
                leading.window.push(batch, entry.encoded_len());
                let for_one_channel = if is_own {
                    let for_one_channel = self.pipeline.for_one_channel(batch_header.first_seq);
                    let stored = self.pipeline.accepted(batch_header.first_seq);
                    self.tell(stored);
                    for_one_channel
                } else {
                    Vec::new()
                };
                self.add_channels(&accepted);
                // Before anything is delivered, which the effects may bring about.
                for (range, only) in for_one_channel {
                    self.finish_on_others(range, &only);
                }
                self.effects(&accepted);
            }
            Applied::Void(reason) => {
                tracing::warn!(topic = %self.name, index = header.index.get(), %reason, "a void batch");
                metrics::counter!("nsquorum_void_batches_total").increment(1);
                if is_own {
                    self.pipeline.void(batch_header.first_seq);
                }
            }
        }
        self.pipeline.settle(next_seq);
        self.end_unused_ephemeral_topic();
        self.dispatch_all();
        self.drop_overflow_of_ephemeral_channels();
    }

    /// Messages for one channel have reached all of them: the others are done with these, and wait until that is in the log.
    fn finish_on_others(&mut self, range: SeqRange, only: &ChannelName) {
        let Some(Leading { state, dispatches, .. }) = &mut self.leading else {
            return;
        };
        // Nobody can be done with what has not left the topic. The pipeline lets no pause, and no end of their channel, get before them.
        if range.last() >= state.readable_end() {
            debug_assert!(false, "messages for one channel are held back for all");
            tracing::error!(topic = %self.name, %only, ?range, "messages for one channel were held back for all, and reach all of them");
            return;
        }
        for (channel, dispatch) in dispatches.iter_mut().filter(|(_, dispatch)| dispatch.name != *only) {
            dispatch.pass_over(range, state);
            for seq in range.first().get()..=range.last().get() {
                self.pipeline.finish(*channel, Seq::new(seq), self.stepped_at);
            }
        }
        self.pipeline.hurry();
    }

    fn add_channels(&mut self, accepted: &Accepted) {
        let Some(Leading { state, dispatches, .. }) = &mut self.leading else {
            return;
        };
        for effect in &accepted.effects {
            if let Effect::ChannelCreated {
                channel,
                existed: false,
                ..
            } = effect
                // An effect later in the same batch may have deleted it again.
                && let Some(created) = state.channel(*channel)
            {
                dispatches.insert(*channel, Dispatch::new(created, state));
            }
        }
    }

    fn effects(&mut self, accepted: &Accepted) {
        for effect in &accepted.effects {
            let Some(leading) = &mut self.leading else { return };
            match effect {
                Effect::ChannelCreated { name, channel, .. } => {
                    // Whoever waits behind the end of an ephemeral channel waits for the next of that name.
                    let is_ending = name.is_ephemeral() && self.pipeline.is_deleting(*channel);
                    if leading.state.channel(*channel).is_some() && !is_ending {
                        self.attach_waiting(name, *channel);
                    }
                }
                Effect::ChannelDeleted { channel, .. } => {
                    leading.dispatches.remove(channel);
                    let channel = *channel;
                    self.end_consumers_of(channel);
                    self.consumers.retain(|_, consumer| consumer.channel != channel);
                    self.orphans.retain(|orphans| orphans.channel != channel);
                }
                Effect::ChannelEmptied { channel, up_to } => {
                    if let Some(dispatch) = leading.dispatches.get_mut(channel) {
                        dispatch.empty(*up_to);
                    }
                    self.emptied(*channel);
                }
                Effect::Deferred { seq, due } => {
                    for (incarnation, dispatch) in &mut leading.dispatches {
                        if let Some(channel) = leading.state.channel(*incarnation) {
                            dispatch.defer(*seq, *due, channel);
                        }
                    }
                }
                Effect::Requeued {
                    channel,
                    seq,
                    attempts,
                    not_before,
                    behind,
                } => {
                    if let Some(dispatch) = leading.dispatches.get_mut(channel) {
                        dispatch.requeued(*seq, *attempts, *not_before, *behind);
                    }
                }
                Effect::Finished { channel, ranges, .. } => {
                    if let Some(dispatch) = leading.dispatches.get_mut(channel) {
                        dispatch.finished(ranges, &leading.state);
                    }
                }
                Effect::TopicEmptied => {
                    let next_seq = leading.state.next_seq();
                    for dispatch in leading.dispatches.values_mut() {
                        dispatch.raise_horizon(next_seq);
                    }
                }
                Effect::TopicDeleted { next_seq } => {
                    let last_seq = Seq::new(next_seq.get() - 1);
                    self.outputs.push(Output::TopicDeleted { last_seq });
                    self.end(PublishError::Exiting);
                    return;
                }
                Effect::ChannelPaused { .. }
                | Effect::ChannelUnpaused { .. }
                | Effect::TopicPaused
                | Effect::TopicUnpaused => {}
            }
        }
    }

    /// Emptying takes the messages out of the consumers' hands: they have room at once.
    fn emptied(&mut self, channel: ChannelIncarnation) {
        let Some(dispatch) = self
            .leading
            .as_mut()
            .and_then(|leading| leading.dispatches.get_mut(&channel))
        else {
            return;
        };
        let mut emptied = Vec::new();
        for id in dispatch.consumers.keys().copied().collect::<Vec<_>>() {
            if let Some(consumer) = self.consumers.get_mut(&id) {
                consumer.in_flight = 0;
                match &consumer.port {
                    // A consumer that is gone is noticed at its disconnect.
                    Port::Local { deliveries, .. } => drop(deliveries.send(SubscriptionEvent::Emptied)),
                    Port::Node(node) => emptied.push((*node, id.subscription)),
                }
                if consumer.has_room() && !consumer.in_turn {
                    consumer.in_turn = true;
                    dispatch.enter_turn(id);
                }
            }
        }
        for (node, subscription) in emptied {
            self.send(node, FromLeader::Emptied { subscription });
        }
        for orphans in self.orphans.iter_mut().filter(|orphans| orphans.channel == channel) {
            orphans.leases.empty();
        }
    }
}
