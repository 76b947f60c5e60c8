//! Messages on their way to consumers with room.

use nsquorum_environment::Monotonic;
use nsquorum_topic::{ChannelIncarnation, Cursor, Seq, TopicState};

use super::consumers::Port;
use super::dispatch::{InFlight, Next};
use super::leading::Leading;
use super::machine::{Output, TopicLeader};
use super::reader::{FetchRequest, ReadPosition, ReadRequest, ReaderJob};
use crate::leases::{Delivery, DeliveryToken};
use crate::subscription::SubscriptionEvent;
use crate::wire::FromLeader;

impl TopicLeader {
    pub(super) fn release_due(&mut self, now: Monotonic) {
        let Some(leading) = &mut self.leading else { return };
        let clock = leading.clock(now);
        let tail = leading.state.next_seq();
        let mut due = Vec::new();
        for dispatch in leading.dispatches.values_mut() {
            if dispatch.next_due().is_some_and(|next| next <= clock) {
                dispatch.release_due(clock, tail);
                due.push(dispatch.channel);
            }
        }
        for channel in due {
            self.dispatch(channel);
        }
    }

    pub(super) fn dispatch_all(&mut self) {
        let Some(leading) = &self.leading else { return };
        let channels: Vec<ChannelIncarnation> = leading
            .dispatches
            .values()
            .filter(|dispatch| dispatch.next_consumer().is_some())
            .map(|dispatch| dispatch.channel)
            .collect();
        for channel in channels {
            self.dispatch(channel);
        }
    }

    /// Hands messages of a channel to consumers with room until one of both has run out.
    pub(super) fn dispatch(&mut self, channel: ChannelIncarnation) {
        let Some(leading) = &mut self.leading else { return };
        if leading.awaited.is_some() || !self.is_confirmed {
            return;
        }
        let Some(found) = leading.state.channel(channel) else {
            return;
        };
        let is_paused = found.is_paused();
        // Beyond this bound nothing new is begun; what came back may still be finished, which makes the state smaller.
        let has_room = leading.has_room(found, self.limits.state_bytes_max);
        let Leading {
            term,
            state,
            window,
            dispatches,
            ..
        } = leading;
        let term = *term;
        let Some(dispatch) = dispatches.get_mut(&channel) else {
            return;
        };
        if is_paused {
            return;
        }
        let mut burst = 0;
        while let Some(id) = dispatch.next_consumer() {
            let Some(consumer) = self.consumers.get_mut(&id).filter(|consumer| consumer.has_room()) else {
                dispatch.leave_turn(id);
                if let Some(consumer) = self.consumers.get_mut(&id) {
                    consumer.in_turn = false;
                }
                continue;
            };
            if burst == self.limits.burst_max {
                if !self.unfinished_bursts.contains(&channel) {
                    self.unfinished_bursts.push(channel);
                }
                break;
            }
            let (message, attempts) = match dispatch.next(state, window, has_room) {
                Next::Message { message, attempts } => (message, attempts),
                Next::Nothing => break,
                Next::Read => {
                    let point = position(state, dispatch.read_next);
                    // What lies before the point may be purged, and reading may have skipped far beyond where it stopped.
                    let from = dispatch
                        .resume
                        .filter(|resume| resume.index > point.index)
                        .unwrap_or(point);
                    let wanted = dispatch.read_next;
                    dispatch.is_reading = true;
                    let request = ReadRequest {
                        term,
                        channel,
                        from,
                        wanted,
                        end: leading.applied_end,
                    };
                    self.outputs.push(Output::Read(ReaderJob::Read(request)));
                    break;
                }
                Next::Fetch(seqs) => {
                    let messages = seqs.into_iter().map(|seq| (seq, position(state, seq))).collect();
                    dispatch.is_fetching = true;
                    let request = FetchRequest {
                        term,
                        channel,
                        messages,
                        end: leading.applied_end,
                    };
                    self.outputs.push(Output::Read(ReaderJob::Fetch(request)));
                    break;
                }
            };
            burst += 1;
            leading.deliveries += 1;
            let token = DeliveryToken {
                channel,
                seq: message.seq,
                attempts: attempts.next(),
                term,
                delivery: leading.deliveries,
            };
            let published_at = message.published_at;
            let delivery = Delivery {
                token,
                published_at,
                body: message.body,
                crc32c: message.crc32c,
            };
            match &consumer.port {
                Port::Local { deliveries, .. } => {
                    if deliveries.send(SubscriptionEvent::Deliver(delivery)).is_err() {
                        // Its connection is gone and will say so; until then it takes no part.
                        dispatch.give_back(token.seq, attempts);
                        consumer.ready = 0;
                        continue;
                    }
                }
                Port::Node(node) => {
                    let subscription = id.subscription;
                    let frame = FromLeader::Deliver { subscription, delivery };
                    if let Some(nodes) = &mut self.nodes {
                        self.outputs.extend(nodes.send(*node, term, frame));
                    }
                }
            }
            self.delivered += 1;
            consumer.in_flight += 1;
            consumer.messages += 1;
            dispatch.in_flight.insert(
                token.seq,
                InFlight {
                    consumer: id,
                    attempts: token.attempts,
                    term,
                    delivery: token.delivery,
                    published_at: Some(published_at),
                },
            );
            dispatch.served(id, consumer.options.nearness);
        }
    }

    pub(super) fn trim_window(&mut self) {
        let bytes_max = self.window_bytes_max;
        if let Some(leading) = &mut self.leading {
            let needed_from = leading.needed_from();
            leading.window.trim(needed_from, bytes_max);
        }
    }
}

/// Where a reader that wants `seq` begins.
fn position(state: &TopicState, seq: Seq) -> ReadPosition {
    let point = state
        .index_point(seq)
        .expect("an unfinished message lies at or after an index point");
    ReadPosition {
        index: point.index,
        cursor: Cursor::at_point(&point),
    }
}
