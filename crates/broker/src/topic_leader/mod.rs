//! The topic leader: one task per topic that numbers, proposes, answers and dispatches.
//!
//! [`TopicLeader`] is the deciding part, a synchronous step machine: inputs and the time go in; answers, deliveries and [`Output`]s come
//! out. [`shell`] is the task around it. The machine has a file for each of its subjects:
//! - [`publishing`]: what the topic takes; [`pipeline`]: what waits, what is proposed, and what happens when a proposal is refused;
//! - [`applying`]: what the log says; [`beginning`]: which channels a topic has before its first message;
//! - [`consumers`]: how they come, what becomes of what they hold, how they go; [`nodes`]: those at other nodes, and claims;
//! - [`delivering`]: who gets what next; [`dispatch`]: one channel's way through the log, and what came back to it; [`later`]: of that, what
//!   waits for its time; [`turns`]: whose turn it is;
//! - [`ephemeral`]: when an ephemeral topic ends, and what an ephemeral channel does not keep;
//! - [`administration`]: what administrators change; [`repeats`]: what a tool asks of every node although once is enough; [`statistics`];
//! - [`window`]: the newest entries in memory; [`reader`]: older ones from the log.
//!
//! There is one leader task, not one per channel or connection, because numbering needs one place anyway and because everything that waits
//! in one inbox becomes one entry and one sync: the batch grows while the disk works, without any timer.

mod administration;
mod applying;
mod beginning;
mod consumers;
mod delivering;
mod dispatch;
mod ephemeral;
mod inbox;
mod input;
mod later;
mod leading;
mod machine;
mod machines;
mod nodes;
mod pipeline;
mod publishing;
mod reader;
mod repeats;
mod shell;
mod statistics;
mod turns;
mod window;

#[cfg(test)]
mod tests;

pub(crate) use inbox::TopicInbox;
pub(crate) use input::{
    ChannelChange, Command, LeaderInput, LocalConsumer, NodeState, Place, Publish, PublishAnswer, Subscribe, TopicInput,
};
pub(crate) use machine::{LeaderLimits, refuse};
pub(crate) use nodes::PeerLink;
pub(crate) use repeats::REPEATED_WITHIN;
pub(crate) use shell::{LeaderShell, TailBudget, refuse_all};
#[cfg(test)]
pub(crate) use {input::Held, machine::Output, machine::TopicLeader, machines::Machines};
