//! The network of a cluster of one: there is nobody to talk to.
//!
//! Every call fails as unreachable. None is ever made while a group has a single voter; peer links replace this type when a
//! second replica exists. `stream_append` polls its input once before it fails: openraft's back-off lives inside that input, and failing
//! without polling makes it spin (measured, 161 % CPU).

use std::future::Future;
use std::io;

use futures_util::{FutureExt, StreamExt};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::network::v2::RaftNetworkV2;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory};

use super::state_machine::SnapshotBytes;
use super::types::RaftTypes;

type SnapshotOf = openraft::alias::SnapshotOf<RaftTypes, SnapshotBytes>;
type VoteOf = openraft::alias::VoteOf<RaftTypes>;
type AppendStream<'s> = futures_util::stream::BoxStream<'s, Result<StreamAppendResult<RaftTypes>, RPCError<RaftTypes>>>;

/// No peers at all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoPeers;

fn unreachable() -> Unreachable<RaftTypes> {
    Unreachable::new(&io::Error::new(
        io::ErrorKind::NotConnected,
        "this node is a cluster of one",
    ))
}

impl RaftNetworkFactory<RaftTypes> for NoPeers {
    type Network = Self;

    async fn new_client(&mut self, _target: u64, _node: &()) -> Self {
        Self
    }
}

impl RaftNetworkV2<RaftTypes> for NoPeers {
    type SnapshotData = SnapshotBytes;

    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<RaftTypes>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<RaftTypes>, RPCError<RaftTypes>> {
        Err(RPCError::Unreachable(unreachable()))
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        _option: RPCOption,
    ) -> futures_util::future::BoxFuture<'s, Result<AppendStream<'s>, RPCError<RaftTypes>>>
    where
        S: futures_util::Stream<Item = AppendEntriesRequest<RaftTypes>> + OptionalSend + Unpin + 'static,
    {
        async move {
            input.next().await;
            Err(RPCError::Unreachable(unreachable()))
        }
        .boxed()
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<RaftTypes>,
        _option: RPCOption,
    ) -> Result<VoteResponse<RaftTypes>, RPCError<RaftTypes>> {
        Err(RPCError::Unreachable(unreachable()))
    }

    /// openraft's default grants; granting for a peer that does not exist would elect on nobody's word.
    async fn pre_vote(
        &mut self,
        _rpc: VoteRequest<RaftTypes>,
        _option: RPCOption,
    ) -> Result<VoteResponse<RaftTypes>, RPCError<RaftTypes>> {
        Err(RPCError::Unreachable(unreachable()))
    }

    async fn full_snapshot(
        &mut self,
        _vote: VoteOf,
        _snapshot: SnapshotOf,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<RaftTypes>, StreamingError<RaftTypes>> {
        Err(StreamingError::Unreachable(unreachable()))
    }
}
