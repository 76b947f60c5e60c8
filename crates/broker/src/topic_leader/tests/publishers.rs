//! Everybody who waits for an answer.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use nsquorum_protocol::ChannelName;
use nsquorum_topic::NewMessage;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::oneshot::{self, Receiver};

use crate::dice::Dice;
use crate::node::AdminError;
use crate::publish::PublishError;
use crate::topic_leader::input::{Held, Publish};

/// A publish without an answer.
#[derive(Debug)]
struct Waiting {
    bodies: Vec<Bytes>,
    answer: Receiver<Result<(), PublishError>>,
}

/// What the publishers were told.
#[derive(Debug, Default)]
pub(super) struct Publishers {
    count: u64,
    waiting: Vec<Waiting>,
    commands: Vec<Receiver<Result<(), AdminError>>>,
    /// Answered `OK`.
    pub(super) safe: Vec<Bytes>,
    /// Refused with a promise that nothing is stored.
    pub(super) refused: BTreeSet<Bytes>,
    /// What was published for one channel.
    pub(super) only: BTreeMap<Bytes, ChannelName>,
}

/// The how-manieth message of the publishers this is; none of theirs if `None`.
pub(super) fn number_of(body: &[u8]) -> Option<u64> {
    let digits = body.strip_prefix(b"m")?.get(..8)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

impl Publishers {
    /// One publish of unlike messages.
    pub(super) fn publish(&mut self, dice: &mut Dice) -> Publish {
        let count = if dice.one_in(3) { 1 + dice.below(6) } else { 1 };
        let defer_ms = if dice.one_in(5) { 1 + dice.below(60) as u32 } else { 0 };
        // Some are large enough that the log gets index points.
        let padding = if dice.one_in(12) {
            10_000 + dice.below(20_000)
        } else {
            dice.below(120)
        };
        self.publish_of(count, padding as usize, defer_ms)
    }

    /// One publish for one channel.
    pub(super) fn publish_to(&mut self, channel: ChannelName, count: u64) -> Publish {
        let mut publish = self.publish_of(count, 10, 0);
        let bodies = publish.messages.iter().map(|message| message.body.clone());
        self.only.extend(bodies.map(|body| (body, channel.clone())));
        publish.only = Some(channel);
        publish
    }

    /// One publish.
    pub(super) fn publish_of(&mut self, count: u64, padding: usize, defer_ms: u32) -> Publish {
        let messages: Vec<NewMessage> = (0..count)
            .map(|_| {
                self.count += 1;
                let body = format!("m{:08}{}", self.count, "-".repeat(padding));
                NewMessage {
                    defer_ms,
                    ..super::message(body)
                }
            })
            .collect();
        let (answer, receiver) = oneshot::channel();
        let bodies = messages.iter().map(|message| message.body.clone()).collect();
        self.waiting.push(Waiting {
            bodies,
            answer: receiver,
        });
        Publish {
            messages,
            only: None,
            answer: answer.into(),
            place: None,
            _held: Held::Nothing,
        }
    }

    /// Somebody to whom a command is answered.
    pub(super) fn command(&mut self) -> oneshot::Sender<Result<(), AdminError>> {
        let (answer, receiver) = oneshot::channel();
        self.commands.push(receiver);
        answer
    }

    /// The process has died with everybody in it.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
        self.commands.clear();
    }

    /// Looks at the answers; `is_stored` says what the leader has applied.
    pub(super) fn look(&mut self, is_stored: impl Fn(&Bytes) -> bool) {
        let mut still = Vec::new();
        for mut waiting in std::mem::take(&mut self.waiting) {
            match waiting.answer.try_recv() {
                Ok(Ok(())) => {
                    for body in &waiting.bodies {
                        assert!(
                            is_stored(body),
                            "answered OK before it was applied: {:?}",
                            number_of(body)
                        );
                    }
                    self.safe.extend(waiting.bodies);
                }
                Ok(Err(
                    PublishError::DiskFull
                    | PublishError::TooManyDeferred
                    | PublishError::Exiting
                    | PublishError::ChannelNotFound
                    | PublishError::TopicPaused,
                )) => {
                    self.refused.extend(waiting.bodies);
                }
                Ok(Err(PublishError::Stopping | PublishError::TimedOut)) => {}
                Ok(Err(PublishError::Quarantined)) => panic!("the leader has given up on an intact log"),
                Err(TryRecvError::Empty) => still.push(waiting),
                Err(TryRecvError::Closed) => panic!("a publish was dropped without an answer"),
            }
        }
        self.waiting = still;
        self.commands.retain_mut(|answer| match answer.try_recv() {
            Ok(_) => false,
            Err(TryRecvError::Empty) => true,
            Err(TryRecvError::Closed) => panic!("a command was dropped without an answer"),
        });
    }

    /// Whether everybody has an answer.
    pub(super) fn are_answered(&self) -> bool {
        self.waiting.is_empty() && self.commands.is_empty()
    }
}
