//! The two machines of a topic on one node, and who of them gets what.

use std::sync::Arc;

use bytes::Bytes;
use nsquorum_consensus::{LeaderLocation, TopicEvent};
use nsquorum_environment::Monotonic;
use nsquorum_links::Received;
use nsquorum_topic::SessionId;
use tokio::sync::oneshot;

use super::input::{Held, TopicInput};
use super::machine::{Ended, TopicLeader};
use super::nodes::PeerLink;
use crate::router::TopicRouter;
use crate::wire::{Framed, FromLeader, ToLeader, WireError, is_from_leader, unbundle};

/// The two machines of a topic on this node.
pub(crate) struct Machines {
    pub(crate) leader: TopicLeader,
    /// `None` on a node that is alone.
    pub(crate) router: Option<TopicRouter>,
    /// Who waits until all that this node's clients were done with is in the log.
    flushing: Vec<oneshot::Sender<()>>,
}

impl Machines {
    pub(crate) const fn new(leader: TopicLeader, router: Option<TopicRouter>) -> Self {
        Self {
            leader,
            router,
            flushing: Vec::new(),
        }
    }

    /// Takes an event of the topic's group.
    pub(crate) fn event(&mut self, event: TopicEvent, now: Monotonic) {
        self.leader.event(event, now);
        self.settle(now);
        let (Some(router), Some(term)) = (&mut self.router, self.leader.leads()) else {
            return;
        };
        if router.term() > term {
            // The log tells of a leadership that is over already.
            let later = router.term();
            self.leader.overruled(later);
            self.leader.take_ended();
            return;
        }
        if !router.is_local(term) {
            let (state, questions) = router.local_leads(term);
            self.leader.take_over(state, now);
            for question in questions {
                self.leader.input(question, now);
            }
            if !self.flushing.is_empty() {
                self.leader.flush();
            }
        }
    }

    /// The node has learned where the topic's leader is.
    pub(crate) fn located(&mut self, leader: LeaderLocation, now: Monotonic) {
        if let Some(router) = &mut self.router {
            router.located(leader, now);
        }
    }

    /// Takes what reaches the topic.
    pub(crate) fn input(&mut self, input: TopicInput, now: Monotonic) {
        match input {
            TopicInput::Client(input) => {
                let input = match &mut self.router {
                    None => Some(input),
                    Some(router) => router.input(input, now),
                };
                if let Some(input) = input {
                    self.leader.input(input, now);
                }
            }
            TopicInput::Frame { from, frame } => self.frame(from, frame, now),
            TopicInput::Peer { node, link } => {
                self.leader.peer(node, link, now);
                if let Some(router) = &mut self.router {
                    router.peer(node, matches!(link, PeerLink::Up(_)), now);
                }
            }
            TopicInput::CutOff { is_cut_off } => {
                if let Some(router) = &mut self.router {
                    router.cut_off(is_cut_off, now);
                }
            }
            TopicInput::Flush { flushed } => {
                self.leader.flush();
                self.flushing.push(flushed);
            }
        }
    }

    /// Tells those who wait for it that nothing of this node's clients would be forgotten if it stopped now. To be called after each step.
    pub(crate) fn tell_flushed(&mut self, now: Monotonic) {
        if self.flushing.is_empty() {
            return;
        }
        self.settle(now);
        let is_flushed = match &self.router {
            // A router has no events while the leader is on its node.
            Some(router) => router.has_no_events() && self.leader.is_flushed(),
            None => self.leader.is_flushed(),
        };
        if is_flushed {
            // Whoever waited may have given up.
            for flushed in self.flushing.drain(..) {
                _ = flushed.send(());
            }
        }
    }

    fn frame(&mut self, from: SessionId, frame: Received, now: Monotonic) {
        let frame = Arc::new(frame);
        let result = unbundle(Bytes::clone(&frame)).and_then(|parts| {
            parts
                .into_iter()
                .try_for_each(|part| self.part(from, part, &frame, now))
        });
        if let Err(error) = result {
            tracing::error!(node = from.node.get(), %error, "a frame of another node cannot be read: is it of the same version?");
            metrics::counter!("nsquorum_broker_frames_unreadable_total").increment(1);
        }
    }

    /// Takes one frame of those that came together; their credit goes back when the last of them takes no room any more.
    fn part(&mut self, from: SessionId, part: Bytes, frame: &Arc<Received>, now: Monotonic) -> Result<(), WireError> {
        if is_from_leader(&part) {
            let parsed = Framed::<FromLeader>::parse(part)?;
            self.frame_from_leader(from, parsed, now);
        } else {
            let parsed = Framed::<ToLeader>::parse(part)?;
            let held = Held::Credit {
                _frame: Arc::clone(frame),
            };
            self.leader.frame(from, parsed, held, now);
        }
        Ok(())
    }

    fn frame_from_leader(&mut self, from: SessionId, frame: Framed<FromLeader>, now: Monotonic) {
        let Some(router) = &mut self.router else { return };
        if let Some(term) = router.overrules(&frame) {
            self.leader.overruled(term);
            self.settle(now);
        }
        if let Some(router) = &mut self.router {
            router.frame(from.node, frame, now);
        }
    }

    /// The end of a leadership reaches the router before anything else does.
    pub(crate) fn settle(&mut self, now: Monotonic) {
        match (self.leader.take_ended(), &mut self.router) {
            (Some(Ended::Leadership(state)), Some(router)) => router.take_back(*state, now),
            (Some(Ended::Topic(why)), Some(router)) => router.over(why),
            (_, None) | (None, _) => {}
        }
    }

    /// When one of them has something to do if no input arrives before.
    pub(crate) fn wake_at(&self) -> Option<Monotonic> {
        let router = self.router.as_ref().and_then(TopicRouter::wake_at);
        self.leader.wake_at().into_iter().chain(router).min()
    }
}
