//! What is ephemeral: when a topic ends by itself, and what a channel does not keep.

use nsquorum_topic::Event;

use super::leading::Leading;
use super::machine::TopicLeader;

impl TopicLeader {
    /// An ephemeral topic goes with its last channel, as in nsqd; one that never had a channel stays. What waits behind the end is refused.
    ///
    /// To be called when channels may have gone, and when a leadership begins: the last leader may have died between the two.
    pub(super) fn end_unused_ephemeral_topic(&mut self) {
        let Some(leading) = self.leading.as_ref().filter(|_| self.name.is_ephemeral()) else {
            return;
        };
        let had_channels = !leading.state.never_had_channel();
        if had_channels && leading.state.channels().len() == 0 && !self.pipeline.has_channel_or_end() {
            tracing::debug!(topic = %self.name, "an ephemeral topic ends with its last channel");
            self.pipeline.command(Event::DeleteTopic, None);
        }
    }
    /// An ephemeral channel keeps a bounded number of messages for consumers that have no room, as in nsqd, which drops what comes beyond
    /// mem-queue-size: a forgotten `nsq_tail` must not keep the log from being purged. Here the oldest go, so that whoever looks again sees
    /// what is new, and what came back or waits for its time is kept. They are finished in the log like any others: the next leader knows.
    ///
    /// To be called when messages have arrived and consumers have taken what they have room for.
    pub(super) fn drop_overflow_of_ephemeral_channels(&mut self) {
        // What consumers hold that are still to be claimed looks as if nobody had it.
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.awaited.is_none()) else {
            return;
        };
        let Leading { state, dispatches, .. } = leading;
        for (channel, dispatch) in dispatches
            .iter_mut()
            .filter(|(_, dispatch)| dispatch.name.is_ephemeral())
        {
            let dropped = dispatch.overflow(self.limits.ephemeral_depth_max, state);
            metrics::counter!("nsquorum_ephemeral_messages_dropped_total").increment(dropped.len() as u64);
            for seq in dropped {
                self.pipeline.finish(*channel, seq, self.stepped_at);
            }
        }
    }

    /// Ephemeral channels live as long as a consumer is attached; a new leader has none yet that belonged to an earlier one.
    pub(super) fn delete_unused_ephemeral_channels(&mut self) {
        // Consumers that are still to be claimed keep theirs.
        let Some(leading) = self.leading.as_ref().filter(|leading| leading.awaited.is_none()) else {
            return;
        };
        for dispatch in leading
            .dispatches
            .values()
            .filter(|dispatch| dispatch.name.is_ephemeral() && dispatch.consumers.is_empty())
        {
            self.pipeline.command(
                Event::DeleteChannel {
                    channel: dispatch.channel,
                },
                None,
            );
        }
    }
}
