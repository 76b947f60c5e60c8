//! The beginning of a topic: which channels it has before its first message.
//!
//! The first channel of a topic gets all that the topic has, every later one what is published after its creation. So the channels that are known
//! elsewhere have to be in the log before the first message is. The leader sees to it and nobody else, because all that reaches the log goes
//! through it, whichever node's client has created the topic; if it dies before they are created, the next leader finds the topic untouched
//! and asks again.

use nsquorum_protocol::ChannelName;
use nsquorum_topic::{Event, Term};

use super::machine::{Output, TopicLeader};

impl TopicLeader {
    /// Whether somebody can be asked which channels the topic has elsewhere.
    pub(crate) fn set_asks_for_channels(&mut self, asks: bool) {
        self.asks_for_channels = asks;
    }

    /// A leadership begins: if nobody has used the topic yet nothing is proposed before its channels are known.
    pub(super) fn ask_for_channels(&mut self) {
        let Some(leading) = self.leading.as_mut().filter(|_| self.asks_for_channels) else {
            return;
        };
        if leading.state.is_untouched() {
            leading.is_asking = true;
            self.outputs.push(Output::AskForChannels { term: leading.term });
        }
    }

    /// Takes the answer to [`Output::AskForChannels`]. Ephemeral channels belong to consumers that are elsewhere, as in nsqd.
    pub(crate) fn channels_known(&mut self, term: Term, channels: Vec<ChannelName>) {
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.term == term) else {
            return;
        };
        leading.is_asking = false;
        let lasting = channels.into_iter().filter(|name| !name.is_ephemeral());
        self.pipeline
            .commands_first(lasting.map(|name| Event::CreateChannel { name }));
    }
}
