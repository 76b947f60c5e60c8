//! What arrives from peers.
//!
//! These run in the task that reads a peer's connection, so they only sort: answers to whoever waits, words of leaders into the groups'
//! pulses, requests into the groups' inboxes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nsquorum_environment::Environment;
use nsquorum_links::{Class, Evidence, Lane, LinkEpoch, Links, PeerIdentity, Received, Receiver, Service};
use nsquorum_topic::{GroupId, NodeId};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::frames::{CommandOutcome, Led, NodeFrame};
use super::ports::Ports;
use crate::elections::QuorumClock;
use crate::locations::{LeaderLocation, LeaderLocations};
use crate::metadata::Asking;
use crate::raft::{Answer, Answers, Asked, Calls, NoReplica, call_of, is_answer};
use crate::reports::{GroupReport, led_here};

/// Frames about one group.
pub(crate) struct RaftReceiver {
    pub(crate) links: Arc<dyn Links>,
    pub(crate) environment: Environment,
    pub(crate) calls: Arc<Calls>,
    pub(crate) ports: Ports,
}

impl RaftReceiver {
    /// Tells the sender of a request that nobody will answer it.
    pub(crate) fn refuse(links: &Arc<dyn Links>, environment: &Environment, group: GroupId, asked: Asked) {
        metrics::counter!("nsquorum_peer_frames_refused_total", "why" => "unknown_group").increment(1);
        let Some(call) = call_of(&asked.frame) else { return };
        let answers = Answers {
            links: Arc::clone(links),
            group,
        };
        environment.spawn.spawn(Box::pin(async move {
            let Asked { from, frame } = asked;
            answers
                .send(from.node, call, &Answer::Refused(NoReplica::Unknown))
                .await;
            // Held until here, so that the sender's credit bounds these tasks.
            drop(frame);
        }));
    }
}

impl Receiver for RaftReceiver {
    /// What was asked before may have been answered while there was no connection to answer over: only a new one tells of it.
    fn up(&self, peer: PeerIdentity, _epoch: LinkEpoch) {
        self.calls.answers_lost(peer.node);
    }

    fn frame(&self, from: PeerIdentity, _epoch: LinkEpoch, lane: Lane, frame: Received) {
        if is_answer(&frame) {
            match Answer::decode(&frame) {
                Ok((call, answer)) => self.calls.answered(from.node, call, answer),
                Err(error) => tracing::error!(%from, %error, "a peer's answer cannot be read"),
            }
            return;
        }
        let now = self.environment.clock.now();
        if let Err(asked) = self.ports.deliver(lane.group, Asked { from, frame }, now) {
            Self::refuse(&self.links, &self.environment, lane.group, asked);
        }
    }

    fn down(&self, node: NodeId, _epoch: LinkEpoch, _evidence: Evidence) {
        self.calls.answers_lost(node);
    }
}

/// Questions to other nodes that wait for their answers.
pub(crate) struct NodeCalls<T> {
    next: AtomicU64,
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<T>>>,
}

impl<T> NodeCalls<T> {
    pub(crate) fn new(life: u64) -> Self {
        Self {
            // Unique over the lives of a node, like the calls of groups.
            next: AtomicU64::new(life << 44),
            waiting: Mutex::default(),
        }
    }

    /// A new call, and where its answer arrives. Forgotten when the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> (NodeCall<T>, oneshot::Receiver<T>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().insert(number, sender);
        let guard = NodeCall {
            number,
            calls: Arc::clone(self),
        };
        (guard, answer)
    }

    fn settle(&self, call: u64, answer: T) {
        if let Some(waiting) = self.waiting.lock().remove(&call) {
            _ = waiting.send(answer);
        }
    }
}

/// Somebody waits for a call's answer.
pub(crate) struct NodeCall<T> {
    pub(crate) number: u64,
    calls: Arc<NodeCalls<T>>,
}

impl<T> Drop for NodeCall<T> {
    fn drop(&mut self) {
        self.calls.waiting.lock().remove(&self.number);
    }
}

/// Frames about nodes.
pub(crate) struct NodeReceiver {
    pub(crate) links: Arc<dyn Links>,
    pub(crate) environment: Environment,
    pub(crate) ports: Ports,
    pub(crate) locations: LeaderLocations,
    pub(crate) quorum: Arc<QuorumClock>,
    pub(crate) command_calls: Arc<NodeCalls<CommandOutcome>>,
    pub(crate) report_calls: Arc<NodeCalls<Vec<GroupReport>>>,
    pub(crate) commands: mpsc::Sender<Asking>,
}

impl NodeReceiver {
    fn led(&self, from: PeerIdentity, led: Led) {
        if let Some(port) = self.ports.get(led.group) {
            port.pulse.hear(from, led.term);
        }
        if led.serves {
            let location = LeaderLocation {
                term: led.term,
                node: from.node,
            };
            self.locations.learn(led.group, location);
        }
    }

    /// Carries out a metadata command for another node, if this node leads.
    fn command(&self, from: PeerIdentity, call: u64, frame: Received, command: &[u8]) {
        let links = Arc::clone(&self.links);
        let answer = move |outcome| {
            let frame = NodeFrame::Outcome { call, outcome }.encode();
            // Whoever asked tries again when it hears nothing.
            _ = links.try_send(from.node, Lane::NODE, Class::Control, frame);
        };
        let Ok(command) = serde_json::from_slice(command) else {
            tracing::error!(%from, "a peer's metadata command cannot be read");
            return answer(CommandOutcome::Failed);
        };
        let (asking, outcome) = Asking::new(command);
        if self.commands.try_send(asking).is_err() {
            return answer(CommandOutcome::Failed);
        }
        self.environment.spawn.spawn(Box::pin(async move {
            answer(match outcome.await {
                Ok(Ok(index)) => CommandOutcome::Applied(index),
                Ok(Err(error)) if error.is_retryable() => CommandOutcome::NotLeader,
                Ok(Err(_)) | Err(_) => CommandOutcome::Failed,
            });
            // Held until here, so that the sender's credit bounds these tasks.
            drop(frame);
        }));
    }
}

impl NodeReceiver {
    /// Tells another node what this one leads. In a task of its own: there may be thousands of groups.
    fn report(&self, from: PeerIdentity, call: u64, frame: Received) {
        let (links, ports, quorum) = (Arc::clone(&self.links), self.ports.clone(), Arc::clone(&self.quorum));
        let now = self.environment.clock.now();
        self.environment.spawn.spawn(Box::pin(async move {
            let groups = led_here(&ports, &quorum, now);
            let report = NodeFrame::Report { call, groups }.encode();
            // Whoever asked says that this node did not answer. Bulk, so that heartbeats never wait behind it.
            _ = links.try_send(from.node, Lane::NODE, Class::Bulk, report);
            // Held until here, so that the sender's credit bounds these tasks.
            drop(frame);
        }));
    }
}

impl Receiver for NodeReceiver {
    fn up(&self, _peer: PeerIdentity, _epoch: LinkEpoch) {}

    fn frame(&self, from: PeerIdentity, _epoch: LinkEpoch, lane: Lane, frame: Received) {
        debug_assert_eq!(
            lane.service,
            Service::Node,
            "links give frames to their service's receiver"
        );
        match NodeFrame::decode(frame.clone()) {
            Some(NodeFrame::Heartbeat { sent, led }) => {
                for led in led {
                    self.led(from, led);
                }
                let answer = NodeFrame::Answer { sent }.encode();
                // Lost with the link, or for want of room: the next heartbeat is answered.
                _ = self.links.try_send(from.node, Lane::NODE, Class::Control, answer);
            }
            Some(NodeFrame::Answer { sent }) => self.quorum.answered(from.node, sent),
            Some(NodeFrame::Leads(led)) => self.led(from, led),
            Some(NodeFrame::Command { call, command }) => self.command(from, call, frame, &command),
            Some(NodeFrame::Outcome { call, outcome }) => self.command_calls.settle(call, outcome),
            Some(NodeFrame::Ask { call }) => self.report(from, call, frame),
            Some(NodeFrame::Report { call, groups }) => self.report_calls.settle(call, groups),
            None => tracing::error!(%from, "a peer's frame cannot be read"),
        }
    }

    fn down(&self, _node: NodeId, _epoch: LinkEpoch, _evidence: Evidence) {}
}
