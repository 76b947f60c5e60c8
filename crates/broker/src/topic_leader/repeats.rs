//! One click, several requests: a tool that takes a cluster for so many single nodes posts `empty` and `delete` to each of them, one after
//! the other. The first is carried out. The others would drop what was published, or created anew, after the click.

use std::time::Duration;

use nsquorum_environment::Monotonic;
use nsquorum_protocol::ChannelName;
use nsquorum_topic::{Event, NodeId};

use super::input::{ChannelChange, Command};

/// How long after a change the same one is taken for its repetition if it comes from another node. nsqadmin gives a node that does not answer
/// seven seconds before it goes on to the next.
pub(crate) const REPEATED_WITHIN: Duration = Duration::from_secs(10);
/// Changes that are remembered; beyond it the oldest are forgotten.
const REMEMBERED_MAX: usize = 1024;

/// A change that is not the same when it is done twice.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    EmptyTopic,
    EmptyChannel(ChannelName),
    DeleteChannel(ChannelName),
}

impl Change {
    fn of(command: &Command) -> Option<Self> {
        match command {
            Command::Topic(Event::EmptyTopic) => Some(Self::EmptyTopic),
            Command::Channel(name, ChannelChange::Empty) => Some(Self::EmptyChannel(name.clone())),
            Command::Channel(name, ChannelChange::Delete) => Some(Self::DeleteChannel(name.clone())),
            Command::Topic(_)
            | Command::CreateChannel(_)
            | Command::Channel(_, ChannelChange::Pause | ChannelChange::Unpause) => None,
        }
    }
}

#[derive(Debug)]
struct Done {
    change: Change,
    /// Through which node it came; `None` is the leader's.
    by: Option<NodeId>,
    at: Monotonic,
}

/// What was changed lately.
#[derive(Debug, Default)]
pub(super) struct Repeats(Vec<Done>);

impl Repeats {
    /// Whether the same was done a moment ago at the word of another node.
    pub(super) fn is_repeated(&self, command: &Command, by: Option<NodeId>, now: Monotonic) -> bool {
        let Some(change) = Change::of(command) else {
            return false;
        };
        let is_same = |done: &Done| done.change == change && done.by != by && now.since(done.at) < REPEATED_WITHIN;
        self.0.iter().any(is_same)
    }

    /// It is being done.
    pub(super) fn remember(&mut self, command: &Command, by: Option<NodeId>, now: Monotonic) {
        let Some(change) = Change::of(command) else {
            return;
        };
        self.0.retain(|done| now.since(done.at) < REPEATED_WITHIN);
        if self.0.len() == REMEMBERED_MAX {
            self.0.remove(0);
        }
        self.0.push(Done { change, by, at: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty(name: &str) -> Command {
        Command::Channel(name.parse().expect("valid"), ChannelChange::Empty)
    }

    #[test]
    fn only_the_same_change_through_another_node_is_a_repetition_and_only_for_a_while() {
        let (first, second) = (Some(NodeId::new(1)), Some(NodeId::new(2)));
        let start = Monotonic::START + Duration::from_secs(60);
        let mut repeats = Repeats::default();
        assert!(!repeats.is_repeated(&empty("a"), first, start));
        repeats.remember(&empty("a"), first, start);
        assert!(
            !repeats.is_repeated(&empty("a"), first, start),
            "the same node means it"
        );
        assert!(repeats.is_repeated(&empty("a"), second, start));
        assert!(
            repeats.is_repeated(&empty("a"), None, start),
            "the leader's own node is a node"
        );
        assert!(!repeats.is_repeated(&empty("b"), second, start));
        let delete = Command::Channel("a".parse().expect("valid"), ChannelChange::Delete);
        assert!(!repeats.is_repeated(&delete, second, start));
        assert!(!repeats.is_repeated(&empty("a"), second, start + REPEATED_WITHIN));
    }

    #[test]
    fn what_may_be_done_twice_is_never_a_repetition() {
        let mut repeats = Repeats::default();
        let pause = Command::Channel("a".parse().expect("valid"), ChannelChange::Pause);
        for command in [
            pause,
            Command::Topic(Event::PauseTopic),
            Command::Topic(Event::DeleteTopic),
        ] {
            repeats.remember(&command, None, Monotonic::START);
            assert!(!repeats.is_repeated(&command, Some(NodeId::new(1)), Monotonic::START));
        }
    }
}
