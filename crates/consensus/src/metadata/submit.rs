//! Metadata commands, from any node.
//!
//! A command goes to the node that leads the metadata group, and its caller hears of it when it is applied *here* too: whoever created a
//! topic finds it. Every command does nothing the second time, so one whose outcome is unknown simply goes again.

use std::sync::Arc;
use std::time::Duration;

use nsquorum_links::{Class, Lane, Links};
use nsquorum_topic::{GroupId, LogIndex, NodeId};
use tokio::sync::{mpsc, oneshot, watch};

use super::command::MetadataCommand;
use crate::error::ConsensusError;
use crate::locations::LeaderLocations;
use crate::peers::{CommandOutcome, NodeCalls, NodeFrame};

/// How long one caller is kept waiting for a leader; then it hears that there is none, and may come again.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one node is given for an answer before the leader is looked up again.
const ATTEMPT_MAX: Duration = Duration::from_secs(1);
/// Between two attempts, unless another leader is announced.
const RETRY: Duration = Duration::from_millis(20);

/// A command that waits to be proposed on this node.
pub(crate) struct Asking {
    pub(crate) command: MetadataCommand,
    pub(crate) answer: oneshot::Sender<Result<LogIndex, ConsensusError>>,
}

impl Asking {
    pub(crate) fn new(command: MetadataCommand) -> (Self, oneshot::Receiver<Result<LogIndex, ConsensusError>>) {
        let (answer, outcome) = oneshot::channel();
        (Self { command, answer }, outcome)
    }
}

/// The way to the other nodes.
#[derive(Clone)]
pub(crate) struct Elsewhere {
    pub(crate) links: Arc<dyn Links>,
    pub(crate) calls: Arc<NodeCalls<CommandOutcome>>,
}

/// Where commands go. A clone goes to the same.
#[derive(Clone)]
pub(crate) struct Commands {
    pub(crate) me: NodeId,
    pub(crate) here: mpsc::Sender<Asking>,
    pub(crate) elsewhere: Option<Elsewhere>,
    pub(crate) locations: LeaderLocations,
    /// The last metadata entry that is applied here.
    pub(crate) applied: watch::Receiver<LogIndex>,
}

impl Commands {
    /// Resolves when the command is applied here, or fails when no leader took it for a while.
    pub(crate) async fn submit(self, command: MetadataCommand) -> Result<(), ConsensusError> {
        tokio::time::timeout(PATIENCE, self.until_applied(command))
            .await
            .unwrap_or(Err(ConsensusError::NoLeader))
    }

    /// The same without an end, for what has nobody to complain to.
    pub(crate) async fn until_applied(mut self, command: MetadataCommand) -> Result<(), ConsensusError> {
        let mut leader = self.locations.watch(GroupId::METADATA);
        loop {
            let location = *leader.borrow_and_update();
            let attempt = async {
                match location {
                    Some(location) if location.node != self.me => self.ask(location.node, &command).await,
                    // Nobody is known to lead: this node may be about to.
                    _ => self.propose_here(command.clone()).await,
                }
            };
            match tokio::time::timeout(ATTEMPT_MAX, attempt).await {
                Ok(Ok(index)) => {
                    let applied = self.applied.wait_for(|applied| *applied >= index).await;
                    return applied.map(|_| ()).map_err(|_| ConsensusError::Stopped);
                }
                Ok(Err(error)) if !error.is_retryable() => return Err(error),
                Ok(Err(_)) | Err(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                changed = leader.changed() => if changed.is_err() { return Err(ConsensusError::Stopped) },
            }
        }
    }

    async fn propose_here(&self, command: MetadataCommand) -> Result<LogIndex, ConsensusError> {
        let (asking, outcome) = Asking::new(command);
        self.here.send(asking).await.map_err(|_| ConsensusError::Stopped)?;
        outcome.await.unwrap_or(Err(ConsensusError::Stopped))
    }

    async fn ask(&self, leader: NodeId, command: &MetadataCommand) -> Result<LogIndex, ConsensusError> {
        let elsewhere = self.elsewhere.as_ref().ok_or(ConsensusError::NoLeader)?;
        let (call, outcome) = elsewhere.calls.begin();
        let frame = NodeFrame::Command {
            call: call.number,
            command: serde_json::to_vec(command)
                .expect("plain data always serializes")
                .into(),
        };
        elsewhere
            .links
            .send(leader, Lane::NODE, Class::Control, frame.encode())
            .await
            .map_err(|_| ConsensusError::NoLeader)?;
        match outcome.await {
            Ok(CommandOutcome::Applied(index)) => Ok(index),
            Ok(CommandOutcome::NotLeader | CommandOutcome::Failed) | Err(_) => Err(ConsensusError::NoLeader),
        }
    }
}
