//! Routers that number their publishes, lose answers and send again, and the question that a leader asks before it
//! proposes.

use std::collections::{BTreeMap, BTreeSet};

use nsquorum_topic::{Event, NodeId, NodeIncarnation, Origin, SessionId, SessionVerdict, TopicState};

use super::content::Content;
use super::dice::Dice;
use super::naive::Naive;

const NODES: u64 = 3;

#[derive(Debug, Default)]
struct Router {
    incarnation: u64,
    last_number: u64,
    unresolved: BTreeSet<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Routers {
    nodes: BTreeMap<u64, Router>,
}

impl Routers {
    /// Gives most messages of new content a place in a session; neighbours may be one publish. Now and then a node has
    /// started again, and its earlier sessions end.
    pub(crate) fn number(&mut self, dice: &mut Dice, content: &mut Content) {
        let node = 1 + dice.below(NODES);
        let router = self.nodes.entry(node).or_default();
        if dice.one_in(60) && !content.events.contains(&Event::DeleteTopic) {
            let last = SessionId {
                node: NodeId::new(node),
                incarnation: NodeIncarnation::new(router.incarnation),
            };
            content.events.push(Event::EndSession { last });
            *router = Router {
                incarnation: router.incarnation + 1,
                ..Router::default()
            };
        }
        let mut is_first = true;
        for message in &mut content.messages {
            if dice.one_in(4) {
                is_first = true;
                continue;
            }
            if is_first || dice.one_in(2) {
                router.last_number += 1;
                router.unresolved.insert(router.last_number);
                is_first = false;
            }
            message.origin = Some(Origin {
                node: NodeId::new(node),
                incarnation: NodeIncarnation::new(router.incarnation),
                number: router.last_number,
                base: router.base(),
            });
        }
    }

    /// What a leader does with content before it proposes it: only publishes that are neither stored nor under way go on.
    /// Returns how many messages it dropped.
    pub(crate) fn keep_new(
        &mut self,
        content: &mut Content,
        under_way: &[&Content],
        state: &TopicState,
        naive: &Naive,
    ) -> u64 {
        let ending: BTreeSet<SessionId> = content
            .events
            .iter()
            .chain(under_way.iter().flat_map(|content| &content.events))
            .filter_map(|event| match event {
                Event::EndSession { last } => Some(*last),
                _ => None,
            })
            .collect();
        let pending: BTreeSet<(SessionId, u64)> = under_way
            .iter()
            .flat_map(|content| &content.messages)
            .filter_map(|message| message.origin)
            .map(|origin| (origin.session(), origin.number))
            .collect();
        let before = content.messages.len();
        let mut answered = Vec::new();
        content.messages.retain_mut(|message| {
            let Some(origin) = &mut message.origin else { return true };
            if let Some(router) = self.current(origin.session()) {
                origin.base = router.base().min(origin.number);
            }
            let verdict = state.session_verdict(origin);
            assert_eq!(verdict, naive.verdict(origin), "verdict on {origin:?}");
            if verdict == SessionVerdict::Stored {
                answered.push(*origin);
            }
            let ends = ending
                .iter()
                .any(|last| last.node == origin.node && last.incarnation >= origin.incarnation);
            // What is under way may rise the base over this one; if its fate is open, so is this one's.
            verdict == SessionVerdict::New && !ends && !pending.contains(&(origin.session(), origin.number))
        });
        for origin in answered {
            self.resolve(&origin);
        }
        (before - content.messages.len()) as u64
    }

    /// The routers hear that their publishes are stored.
    pub(crate) fn answered(&mut self, content: &Content) {
        for origin in content.messages.iter().filter_map(|message| message.origin) {
            self.resolve(&origin);
        }
    }

    fn resolve(&mut self, origin: &Origin) {
        if let Some(router) = self.current(origin.session()) {
            router.unresolved.remove(&origin.number);
        }
    }

    fn current(&mut self, session: SessionId) -> Option<&mut Router> {
        self.nodes
            .get_mut(&session.node.get())
            .filter(|router| router.incarnation == session.incarnation.get())
    }
}

impl Router {
    fn base(&self) -> u64 {
        self.unresolved.first().copied().unwrap_or(self.last_number + 1)
    }
}
