//! Results, deliveries and time: the inputs of the machine that do not come from the client.

use bytes::Bytes;
use nsquorum_broker::{LeaseEvent, OrphanedLeases, PublishError, SubscriptionEvent};
use nsquorum_environment::Monotonic;
use nsquorum_protocol::{ConnectionState, Fatality, InFlightError, ProtocolError, frame};

use super::consumer::{Room, ToLeader};
use super::machine::{Awaited, End, Machine, OUTPUT_BYTES_MAX, Phase};
use super::replies::Reply;
use crate::config::Corruption;

impl Machine {
    /// What the first unanswered command waits for.
    pub(crate) fn awaited(&self) -> Awaited {
        match self.replies.front() {
            Some(Reply::Publish(_)) => Awaited::Publish,
            Some(Reply::NotHeld { seq, .. }) => Awaited::InFlight(*seq),
            Some(Reply::Failed { .. }) | None => Awaited::Nothing,
            Some(Reply::Response(_) | Reply::Error(_)) => unreachable!("answers that are ready are written at once"),
        }
    }

    /// The result of the oldest publish.
    pub(crate) fn published(&mut self, result: Result<(), PublishError>, now: Monotonic) {
        let Some(Reply::Publish(publish)) = self.replies.pop() else {
            unreachable!("a result arrives only for the publish that is awaited");
        };
        let reply = match result {
            Ok(()) => {
                self.metrics.publishes_ok.increment(1);
                self.metrics.published_messages.increment(publish.message_count);
                self.metrics
                    .publish_seconds
                    .record(now.since(publish.received).as_secs_f64());
                self.record.count_published(&publish.topic, publish.message_count);
                self.outages.stored(&publish.topic, now);
                Reply::Response(Bytes::from_static(frame::OK))
            }
            Err(cause) => {
                self.metrics.publishes_failed.increment(1);
                let error = publish.kind.failed(cause);
                let delay = self.outages.failed(&publish.topic, cause, now);
                if !delay.is_zero() {
                    let tell_at = now + delay;
                    self.replies.push_front(Reply::Failed { error, tell_at });
                    return;
                }
                Reply::Error(error)
            }
        };
        self.write(reply, now);
        self.settle(now);
    }

    /// Whether the message of the oldest refused FIN, REQ or TOUCH is held by any consumer of the channel.
    pub(crate) fn answered_in_flight(&mut self, in_flight: bool, now: Monotonic) {
        let Some(Reply::NotHeld { command, id, .. }) = self.replies.pop() else {
            unreachable!("an answer arrives only for the question that was asked");
        };
        let cause = if in_flight {
            InFlightError::NotOwner
        } else {
            InFlightError::NotInFlight
        };
        self.write(Reply::Error(command.failed(id, cause)), now);
        self.settle(now);
    }

    /// Whether a SUB waits for its result.
    pub(crate) fn is_subscribing(&self) -> bool {
        self.subscribing.is_some()
    }

    /// The result of SUB.
    pub(crate) fn subscribed(&mut self, result: Result<(), impl std::fmt::Display>, now: Monotonic) {
        let (topic, channel, _) = self
            .subscribing
            .take()
            .expect("a result arrives only for a SUB that waits");
        match result {
            Ok(()) => {
                self.consumer = Some(self.new_consumer(topic, channel));
                self.set_state(ConnectionState::Subscribed);
                self.reply(Reply::Response(Bytes::from_static(frame::OK)), now);
            }
            Err(cause) => self.refuse(ProtocolError::sub_failed(cause), now),
        }
    }

    /// Whether the next delivery may be taken, to be written or to go back.
    pub(crate) fn wants_deliveries(&self) -> bool {
        let Some(consumer) = &self.consumer else { return false };
        let wants = match consumer.room() {
            Room::Free => self.output.waiting_bytes() < OUTPUT_BYTES_MAX,
            Room::Awaited => false,
            Room::None => true,
        };
        self.phase == Phase::Open && wants
    }

    /// Something happened on the subscription.
    pub(crate) fn subscription_event(&mut self, event: SubscriptionEvent) -> Result<(), Corruption> {
        let consumer = self.consumer.as_mut().expect("events arrive only on a subscription");
        match event {
            SubscriptionEvent::Deliver(delivery) => consumer.deliver(delivery, &mut self.output, &*self.random),
            SubscriptionEvent::Emptied => {
                consumer.emptied();
                Ok(())
            }
        }
    }

    /// What is to be sent to the topic leader.
    pub(crate) fn take_to_leader(&mut self) -> ToLeader {
        self.consumer
            .as_mut()
            .map(super::consumer::Consumer::take_to_leader)
            .unwrap_or_default()
    }

    /// The socket took `count` bytes.
    pub(crate) fn wrote(&mut self, count: usize, now: Monotonic) {
        self.output.consume(count);
        self.deadlines.write_progressed();
        self.metrics.written_bytes.increment(count as u64);
        if let Some(consumer) = &mut self.consumer {
            let began = consumer.written(self.output.written_bytes(), now);
            if began > 0 {
                self.metrics.deliveries.increment(began);
            }
        }
    }

    /// What was written before has left the layers above the socket too.
    pub(crate) fn flushed(&mut self) {
        self.deadlines.write_progressed();
    }

    /// The socket takes nothing now.
    pub(crate) fn write_stalled(&mut self, now: Monotonic) {
        self.deadlines.write_stalled(now);
    }

    /// When [`on_time`](Self::on_time) has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Monotonic> {
        if self.phase == Phase::Magic {
            return None;
        }
        let publish = match self.replies.front() {
            Some(Reply::Publish(publish)) => Some(publish.deadline),
            Some(Reply::Failed { tell_at, .. }) => Some(*tell_at),
            _ => None,
        };
        let finish = match self.phase {
            Phase::Finishing { by, .. } => Some(by),
            _ => None,
        };
        let subscribe = self.subscribing.as_ref().map(|(_, _, deadline)| *deadline);
        let lease = self
            .consumer
            .as_ref()
            .and_then(super::consumer::Consumer::next_deadline);
        let connection = self.deadlines.next(self.waits_for_client());
        [publish, finish, subscribe, lease, connection]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due.
    pub(crate) fn on_time(&mut self, now: Monotonic) {
        if matches!(self.phase, Phase::Magic | Phase::Ended(_)) {
            return;
        }
        if let Some(consumer) = &mut self.consumer {
            consumer.expire(now);
        }
        while let Some(Reply::Publish(publish)) = self.replies.front()
            && publish.deadline <= now
        {
            self.published(Err(PublishError::TimedOut), now);
        }
        self.tell_failure(now);
        if self
            .subscribing
            .as_ref()
            .is_some_and(|(_, _, deadline)| *deadline <= now)
        {
            self.subscribed(Err("timed out"), now);
        }
        let due = self.deadlines.take_due(self.waits_for_client(), now);
        let may_beat = (self.phase == Phase::Open && self.layers.next().is_none()) || !self.replies.is_empty();
        if due.heartbeat && !due.client_silent && may_beat {
            self.output.append(|tail| frame::response(tail, frame::HEARTBEAT));
        }
        let overdue = matches!(self.phase, Phase::Finishing { by, .. } if by <= now);
        if due.client_silent || due.client_stuck || overdue {
            self.phase = Phase::Ended(End::Close);
        }
    }

    /// Tells a failure that has been held back for long enough, or that nothing needs to be held back any more because the connection ends.
    fn tell_failure(&mut self, now: Monotonic) {
        let is_ending = self.phase != Phase::Open;
        let is_due =
            matches!(self.replies.front(), Some(Reply::Failed { tell_at, .. }) if is_ending || *tell_at <= now);
        if is_due && let Some(Reply::Failed { error, .. }) = self.replies.pop() {
            self.write(Reply::Error(error), now);
        }
    }

    /// The connection is over: what goes to the topic leader for the last time.
    pub(crate) fn end_consumer(&mut self) -> Option<(Vec<LeaseEvent>, OrphanedLeases)> {
        self.consumer.take().map(super::consumer::Consumer::end)
    }

    fn waits_for_client(&self) -> bool {
        self.phase == Phase::Open && self.wants_input() && self.replies.is_empty()
    }

    /// Writes the answers that are ready up to the first that is not.
    pub(super) fn settle(&mut self, now: Monotonic) {
        while let Some(Reply::Response(_) | Reply::Error(_)) = self.replies.front() {
            let reply = self.replies.pop().expect("the front was just seen");
            self.write(reply, now);
        }
        if self.replies.is_empty() {
            self.deadlines.waiting_begins(now);
        }
    }

    fn write(&mut self, reply: Reply, now: Monotonic) {
        match reply {
            Reply::Response(data) => self.output.append(|tail| frame::response(tail, &data)),
            Reply::Error(error) => {
                if let Some(payload) = error.payload() {
                    self.output.append(|tail| frame::error(tail, payload));
                }
                self.metrics.protocol_errors.increment(1);
                if error.fatality() != Fatality::KeepOpen {
                    tracing::debug!(%error, "a connection ends with an error");
                    // The client takes the connection for broken: nothing else is answered or executed.
                    self.replies.clear();
                    self.finish(End::Linger, now);
                    if let Phase::Finishing { end, .. } = &mut self.phase {
                        *end = End::Linger;
                    }
                }
            }
            Reply::Publish(_) | Reply::Failed { .. } | Reply::NotHeld { .. } => unreachable!("these are not ready"),
        }
    }
}
