//! What a topic takes: publishes that are refused, placed and proposed.

use nsquorum_environment::Monotonic;
use nsquorum_protocol::ChannelName;
use nsquorum_storage::{ENTRY_HEADER_BYTES, SpaceState};
use nsquorum_topic::FeatureLevel;

use super::input::{Publish, PublishAnswer};
use super::machine::{Output, TopicLeader};
use crate::publish::PublishError;

/// The meaning of apply that this release writes for.
const FEATURE_LEVEL: FeatureLevel = FeatureLevel::new(1);

impl TopicLeader {
    pub(super) fn publish(&mut self, publish: Publish) {
        let Some(publish) = self.place_in_session(publish) else {
            return;
        };
        match self.publish_refusal(&publish) {
            None => self.pipeline.publish(publish),
            Some(why) => self.answer_publish(publish.answer, Err(why)),
        }
    }

    pub(super) fn answer_publish(&mut self, answer: PublishAnswer, result: Result<(), PublishError>) {
        match answer {
            PublishAnswer::Client(answer) => drop(answer.send(result)),
            PublishAnswer::Node { session, number } => self.answer_node(session, number, result),
        }
    }

    fn publish_refusal(&self, publish: &Publish) -> Option<PublishError> {
        if self.space != SpaceState::Ok {
            return Some(PublishError::DiskFull);
        }
        if let Some(why) = publish.only.as_ref().and_then(|only| self.refusal_for_one(only)) {
            // Whoever leads meanwhile may know better.
            return Some(if self.is_confirmed { why } else { PublishError::TimedOut });
        }
        let deferred = publish.messages.iter().filter(|message| message.defer_ms > 0).count() as u64;
        if deferred > 0 {
            let known = self
                .leading
                .as_ref()
                .map_or(0, |leading| leading.state.usage().deferred);
            if known + self.pipeline.deferred_waiting() + deferred > self.limits.deferred_max {
                return Some(PublishError::TooManyDeferred);
            }
        }
        None
    }

    fn refusal_for_one(&self, only: &ChannelName) -> Option<PublishError> {
        let state = &self.leading.as_ref()?.state;
        if state.paused_at().is_some() || self.pipeline.is_pausing() {
            return Some(PublishError::TopicPaused);
        }
        let channel = state.channel_by_name(only);
        let is_there = channel.is_some_and(|channel| !self.pipeline.is_deleting(channel.incarnation()));
        (!is_there).then_some(PublishError::ChannelNotFound)
    }

    pub(super) fn propose(&mut self, now: Monotonic) {
        let Some(leading) = self.leading.as_ref().filter(|leading| !leading.is_asking) else {
            return;
        };
        // Far below the publish watermark even FINs wait: the last space belongs to whatever frees some.
        if self.space == SpaceState::RefuseAll {
            return;
        }
        while let Some(ready) = self.pipeline.next(
            now,
            self.limits.proposals_max,
            self.limits.batch_bytes_max,
            ENTRY_HEADER_BYTES,
        ) {
            let time = leading.clock(now);
            metrics::histogram!("nsquorum_batch_messages").record(f64::from(ready.builder.message_count()));
            let buffer = ready.builder.finish(leading.term, ready.first_seq, time, FEATURE_LEVEL);
            self.outputs.push(Output::Propose {
                term: leading.term,
                buffer,
                ticket: ready.ticket,
            });
        }
    }
}
