//! Whether this node leads a topic, as the topic's leader task is told it.
//!
//! Two see the end of a leadership: the state machine (another leader's start is applied) and the watch over the group (the term is over,
//! or no majority answers). One object under one lock makes one order of it, and a term that is over never begins again: a LeaderStart
//! that is applied late starts nothing.

use std::sync::Arc;

use nsquorum_topic::{Term, TopicState};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::events::TopicEvent;
use crate::elections::Pulse;

#[derive(Default)]
struct Inner {
    leading: Option<Term>,
    /// Terms up to this one are over.
    over: Option<Term>,
}

/// A topic's leadership on this node.
pub(crate) struct TopicLeading {
    events: mpsc::UnboundedSender<TopicEvent>,
    pulse: Arc<Pulse>,
    inner: Mutex<Inner>,
}

impl TopicLeading {
    pub(crate) fn new(events: mpsc::UnboundedSender<TopicEvent>, pulse: Arc<Pulse>) -> Arc<Self> {
        Arc::new(Self {
            events,
            pulse,
            inner: Mutex::default(),
        })
    }

    /// This node's LeaderStart of `term` is applied. Says whether it leads now.
    pub(crate) fn start(&self, term: Term, state: &TopicState) -> bool {
        let mut inner = self.inner.lock();
        if inner.over.is_some_and(|over| over >= term) {
            return false;
        }
        inner.leading = Some(term);
        self.pulse.set_serving(Some(term));
        self.tell(TopicEvent::LeaderStarted {
            term,
            state: Box::new(state.clone()),
        });
        true
    }

    /// Leaderships of this node up to and including `term` are over.
    pub(crate) fn end(&self, term: Term) {
        let mut inner = self.inner.lock();
        inner.over = inner.over.max(Some(term));
        if inner.leading.is_some_and(|leading| leading <= term) {
            inner.leading = None;
            self.pulse.set_serving(None);
            self.tell(TopicEvent::Deposed);
        }
    }

    /// Whatever this node led is over: another leader has started, or the state was replaced.
    pub(crate) fn end_any(&self) {
        let leading = self.inner.lock().leading;
        if let Some(leading) = leading {
            self.end(leading);
        }
    }

    /// Whether a term of this node is over already.
    pub(crate) fn is_over(&self, term: Term) -> bool {
        self.inner.lock().over.is_some_and(|over| over >= term)
    }

    /// Tells of an applied entry, if this node leads.
    pub(crate) fn applied(&self, event: impl FnOnce() -> TopicEvent) {
        let inner = self.inner.lock();
        if inner.leading.is_some() {
            self.tell(event());
        }
    }

    pub(crate) fn tell(&self, event: TopicEvent) {
        // Nobody listens any more: the topic's task has ended, and the node is stopping.
        drop(self.events.send(event));
    }
}

#[cfg(test)]
mod tests {
    use nsquorum_environment::Environment;
    use nsquorum_topic::Seq;

    use super::*;

    fn leading() -> (Arc<TopicLeading>, mpsc::UnboundedReceiver<TopicEvent>) {
        let (sender, events) = mpsc::unbounded_channel();
        (
            TopicLeading::new(sender, Pulse::new(Environment::system().clock)),
            events,
        )
    }

    #[test]
    fn a_term_that_is_over_never_begins() {
        let (leading, mut events) = leading();
        let state = TopicState::new(Seq::new(0));
        leading.end(Term::new(3));
        assert!(!leading.start(Term::new(3), &state));
        assert!(events.try_recv().is_err(), "nothing began, so nothing ended");
        assert!(leading.start(Term::new(4), &state));
        assert!(matches!(events.try_recv(), Ok(TopicEvent::LeaderStarted { .. })));
        leading.end(Term::new(3));
        assert!(events.try_recv().is_err(), "an earlier term's end");
        leading.end(Term::new(5));
        leading.end_any();
        assert!(matches!(events.try_recv(), Ok(TopicEvent::Deposed)));
        assert!(events.try_recv().is_err(), "told once");
    }
}
