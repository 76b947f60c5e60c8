//! Answers what peers ask of one group's replica.
//!
//! Requests reach openraft's core in the order in which they arrived, without waiting for one another's syncs: that is what lets a leader
//! pipeline. A request's credit returns to its sender when the request is answered, so a replica that falls behind slows its own group down
//! and no other.

use std::sync::Arc;

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nsquorum_storage::log::CHECKPOINT_STATE_BYTES_MAX;
use nsquorum_topic::{GroupId, NodeId};
use tokio::sync::mpsc;

use super::replica::{Answers, Asked, Replica};
use super::state_machine::SnapshotBytes;
use super::wire::{self, Answer, NoReplica, Request, SnapshotPart};
use crate::elections::Pulse;
use crate::group::BoxFuture;

/// A snapshot that is arriving.
struct Arriving {
    from: NodeId,
    part: SnapshotPart,
    state: BytesMut,
}

/// One group's side of what peers ask.
pub(crate) struct Serving {
    pub(crate) group: GroupId,
    pub(crate) replica: Arc<dyn Replica>,
    pub(crate) answers: Answers,
    pub(crate) pulse: Arc<Pulse>,
}

impl Serving {
    /// Runs until the inbox closes.
    pub(crate) async fn run(self, mut inbox: mpsc::UnboundedReceiver<Asked>) {
        let mut under_way: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        let mut arriving = None;
        loop {
            // Answers first: a new future's first poll hands its request to the core, in the order of arrival.
            tokio::select! {
                biased;
                Some(()) = under_way.next() => {}
                asked = inbox.recv() => match asked {
                    Some(asked) => under_way.push(self.start(asked, &mut arriving)),
                    None => break,
                },
            }
        }
    }

    fn start(&self, asked: Asked, arriving: &mut Option<Arriving>) -> BoxFuture<'static, ()> {
        let Asked { from, frame } = asked;
        let Some(call) = wire::call_of(&frame) else {
            tracing::error!(group = self.group.get(), %from, "a peer frame without a call number");
            return Box::pin(std::future::ready(()));
        };
        let answer: BoxFuture<'static, Answer> = match Request::decode(&frame, self.group) {
            Ok(request) => self.answer(from.node, request, arriving),
            Err(error) => {
                tracing::error!(group = self.group.get(), %from, %error, "a peer's request cannot be read");
                metrics::counter!("nsquorum_peer_frames_refused_total", "why" => "unreadable").increment(1);
                Box::pin(std::future::ready(Answer::Refused(NoReplica::Unreadable)))
            }
        };
        let answers = self.answers.clone();
        Box::pin(async move {
            let answer = answer.await;
            // Its bytes are in the log by now, or nowhere.
            drop(frame);
            answers.send(from.node, call, &answer).await;
        })
    }

    fn answer(&self, from: NodeId, request: Request, arriving: &mut Option<Arriving>) -> BoxFuture<'static, Answer> {
        match request {
            Request::Append(request) => answered(self.replica.append(request), Answer::Append),
            Request::Vote(request) => answered(self.replica.vote(request), Answer::Vote),
            Request::PreVote(request) => {
                // A leader that this node hears (or is) is not given up because another node does not hear it.
                let candidate = NodeId::new(request.vote.leader_id().voted_for);
                let leads = self.replica.leadership().leading && !self.pulse.is_silent();
                if leads || self.pulse.hears_other_than(candidate) {
                    let refused = self.replica.refuse_vote();
                    return Box::pin(std::future::ready(Answer::Vote(refused)));
                }
                answered(self.replica.pre_vote(request), Answer::Vote)
            }
            Request::Transfer(request) => {
                answered(self.replica.transfer(request), |accepted| Answer::Transfer { accepted })
            }
            Request::Snapshot(part) => self.take_part(from, part, arriving),
        }
    }

    fn take_part(
        &self,
        from: NodeId,
        part: SnapshotPart,
        arriving: &mut Option<Arriving>,
    ) -> BoxFuture<'static, Answer> {
        if part.total > CHECKPOINT_STATE_BYTES_MAX as u64 {
            return Box::pin(std::future::ready(Answer::Refused(NoReplica::Unreadable)));
        }
        let goes_on = arriving.as_ref().is_some_and(|arriving| {
            arriving.from == from
                && arriving.part.vote == part.vote
                && arriving.part.meta == part.meta
                && arriving.state.len() as u64 == part.offset
        });
        if !goes_on {
            if part.offset != 0 {
                // The beginning went elsewhere; the sender starts again.
                *arriving = None;
                return Box::pin(std::future::ready(Answer::Refused(NoReplica::Unreadable)));
            }
            *arriving = Some(Arriving {
                from,
                part: part.clone(),
                state: BytesMut::new(),
            });
        }
        let gathered = arriving.as_mut().expect("set above unless it went on");
        gathered.state.extend_from_slice(&part.bytes);
        if (gathered.state.len() as u64) < part.total {
            return Box::pin(std::future::ready(Answer::Snapshot(part.vote)));
        }
        let Arriving { part, state, .. } = arriving.take().expect("looked at above");
        tracing::info!(
            group = self.group.get(),
            from = from.get(),
            bytes = state.len(),
            "installing a snapshot"
        );
        metrics::counter!("nsquorum_snapshots_installed_total").increment(1);
        answered(
            self.replica
                .install(part.vote, part.meta, SnapshotBytes(state.freeze())),
            Answer::Snapshot,
        )
    }
}

/// The answer of a replica that may have stopped.
fn answered<T: 'static>(
    outcome: BoxFuture<'static, Option<T>>,
    answer: impl FnOnce(T) -> Answer + Send + 'static,
) -> BoxFuture<'static, Answer> {
    Box::pin(async move { outcome.await.map_or(Answer::Refused(NoReplica::Stopped), answer) })
}
