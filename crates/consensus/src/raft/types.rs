//! openraft's type configuration.

use nsquorum_storage::LogId;
use nsquorum_topic::{LogIndex, Term};
use openraft::RaftTypeConfig;
use openraft::vote::leader_id_std::{CommittedLeaderId, LeaderId};

use super::log_entry::{LogEntry, Proposal};
use super::responder::Callback;

/// Standard Raft leader ids (one leader per term), entries that carry our own encoding, callbacks instead of channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RaftTypes;

impl RaftTypeConfig for RaftTypes {
    type D = Proposal;
    type R = ();
    type NodeId = u64;
    /// Addresses are metadata, not membership: a node that moves needs no membership change.
    type Node = ();
    type Term = u64;
    type LeaderId = LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Proposal, u64, ()>;
    type Entry = LogEntry;
    type AsyncRuntime = openraft_rt_tokio::TokioRuntime;
    type Responder<T>
        = Callback<T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// openraft's log id of ours.
pub(crate) fn to_openraft(log_id: LogId) -> openraft::LogId<CommittedLeaderId<u64>> {
    openraft::LogId::new(CommittedLeaderId::new(log_id.term.get()), log_id.index.get())
}

/// Our log id of openraft's.
pub(crate) fn from_openraft(log_id: &openraft::LogId<CommittedLeaderId<u64>>) -> LogId {
    LogId {
        term: Term::new(log_id.committed_leader_id().term),
        index: LogIndex::new(log_id.index()),
    }
}
