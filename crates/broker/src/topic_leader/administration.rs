//! What administrators change, and small questions.

use nsquorum_environment::Monotonic;
use nsquorum_protocol::ChannelName;
use nsquorum_topic::{Event, NodeId, Seq};
use tokio::sync::oneshot;

use super::dispatch::ConsumerId;
use super::input::{ChannelChange, Command};
use super::machine::TopicLeader;
use crate::node::AdminError;

impl TopicLeader {
    /// Carries out a change that came through a node; `None` is this one.
    pub(super) fn command(
        &mut self,
        command: Command,
        by: Option<NodeId>,
        now: Monotonic,
        answer: oneshot::Sender<Result<(), AdminError>>,
    ) {
        let Some(leading) = &mut self.leading else { return };
        if leading.repeats.is_repeated(&command, by, now) {
            tracing::info!(topic = %self.name, ?command, "not done again: another node has just asked for the same");
            metrics::counter!("nsquorum_actions_skipped_total", "why" => "repeated").increment(1);
            drop(answer.send(Ok(())));
            return;
        }
        let done = command.clone();
        let event = match command {
            Command::Topic(event) => event,
            Command::CreateChannel(name) => Event::CreateChannel { name },
            Command::Channel(name, change) => {
                let Some(channel) = leading
                    .state
                    .channel_by_name(&name)
                    .map(|channel| channel.incarnation())
                else {
                    drop(answer.send(Err(AdminError::ChannelNotFound)));
                    return;
                };
                match change {
                    ChannelChange::Delete => Event::DeleteChannel { channel },
                    ChannelChange::Empty => Event::EmptyChannel { channel },
                    ChannelChange::Pause => Event::PauseChannel { channel },
                    ChannelChange::Unpause => Event::UnpauseChannel { channel },
                }
            }
        };
        leading.repeats.remember(&done, by, now);
        self.pipeline.command(event, Some(answer));
    }

    pub(super) fn is_in_flight(&self, id: ConsumerId, seq: Seq) -> bool {
        let channel = self.consumers.get(&id).map(|consumer| consumer.channel);
        channel
            .and_then(|channel| self.leading.as_ref()?.dispatches.get(&channel))
            .is_some_and(|dispatch| dispatch.in_flight.contains_key(&seq))
    }

    pub(super) fn channels(&self) -> Vec<ChannelName> {
        let Some(leading) = &self.leading else {
            return Vec::new();
        };
        let mut names: Vec<ChannelName> = leading.state.channels().map(|channel| channel.name().clone()).collect();
        names.sort();
        names
    }
}
