//! The end of an ephemeral topic.

use nsquorum_topic::Event;

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
}
