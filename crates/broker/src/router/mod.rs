//! A node's part in a topic: what its clients have going on there, whoever leads.
//!
//! [`TopicRouter`] is a step machine like the topic leader, and lives in the same task. While the leader is on this node the router has nothing:
//! inputs go straight to the leader, as on a node that is alone, but for the number that each publish gets. While the leader is elsewhere, or
//! nowhere, the router keeps what must not get lost between leaders:
//!
//! - publishes without an answer, in their order. All of them are sent again, in that order and before any new one, whenever an
//!   association begins; their numbers tell the leader which of them it has. After `publish_timeout` the router gives one up, and its outcome
//!   is unknown;
//! - consumers, the deliveries that they hold, and events that no leader has put into the log. A [`Claim`](crate::wire::Claim) tells them to
//!   the next leader, so consumers notice a change of leaders by nothing but a pause;
//! - questions and commands without a reply.
//!
//! It follows the highest term that it has heard of. Frames of a lower one are ignored, so an old leader that does not know of its end can
//! deliver nothing here.

mod machine;

#[cfg(test)]
mod tests;

pub(crate) use machine::{RouterOutput, TopicRouter};
