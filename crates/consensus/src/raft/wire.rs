//! What nodes say to each other about a group, as bytes.
//!
//! The encoding is ours, like the one on disk: openraft's types may change with any release. Entries travel as the very bytes that are
//! stored, each with its own checksums, which are checked when a frame is read: a follower never stores what its leader did not.
//!
//! ```text
//! frame    kind u8 | call u64 | body                     little-endian; options are a byte 0 or 1 before the value
//! vote     term u64 | node u64 | committed u8            log id   term u64 | index u64
//! append   vote | previous? | commit? | count u32 | length u32 per entry | the entries
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use nsquorum_links::Frame;
use nsquorum_storage::Entry;
use nsquorum_topic::GroupId;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse};
use openraft::vote::RaftVote;
use openraft::vote::leader_id_std::{CommittedLeaderId, LeaderId};

use super::log_entry::LogEntry;
use super::membership::{decode_stored, encode_stored};
use super::types::RaftTypes;

pub(crate) type VoteOf = openraft::impls::Vote<LeaderId<u64, u64>>;
pub(crate) type RaftLogId = openraft::LogId<CommittedLeaderId<u64>>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<RaftTypes>;

/// Names a request until its answer arrives. Unique over all lives of a node: an answer to an earlier life must not be taken for one to
/// this life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CallId(pub(crate) u64);

/// Bytes that no correct node sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed peer frame: {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

const APPEND: u8 = 1;
const VOTE: u8 = 2;
const PRE_VOTE: u8 = 3;
const TRANSFER: u8 = 4;
const SNAPSHOT: u8 = 5;
const APPEND_ANSWER: u8 = 33;
const VOTE_ANSWER: u8 = 34;
const TRANSFER_ANSWER: u8 = 36;
const SNAPSHOT_ANSWER: u8 = 37;
const REFUSED: u8 = 63;

/// What a node asks of another node's replica of a group.
#[derive(Debug)]
pub(crate) enum Request {
    Append(AppendEntriesRequest<RaftTypes>),
    Vote(VoteRequest<RaftTypes>),
    PreVote(VoteRequest<RaftTypes>),
    Transfer(TransferLeaderRequest<RaftTypes>),
    Snapshot(SnapshotPart),
}

/// A piece of a snapshot's state. Pieces come in order; the one that reaches `total` is answered when the snapshot is installed.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotPart {
    pub(crate) vote: VoteOf,
    pub(crate) meta: SnapshotMeta,
    pub(crate) total: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
}

/// What the replica answers.
#[derive(Debug)]
pub(crate) enum Answer {
    Append(AppendEntriesResponse<RaftTypes>),
    Vote(VoteResponse<RaftTypes>),
    /// Whether the replica took the leadership over, or stood aside for the one that does.
    Transfer {
        accepted: bool,
    },
    Snapshot(VoteOf),
    Refused(NoReplica),
}

/// Why a request was not given to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoReplica {
    #[error("the peer does not run the group")]
    Unknown,
    #[error("the peer's replica has stopped")]
    Stopped,
    #[error("the peer could not read the request")]
    Unreadable,
}

/// Whether these bytes are an answer; they go to whoever waits for the call, not to a group.
pub(crate) fn is_answer(frame: &[u8]) -> bool {
    frame.first().is_some_and(|kind| *kind > 32)
}

/// The call of a frame, however unreadable the rest.
pub(crate) fn call_of(frame: &[u8]) -> Option<CallId> {
    let mut rest = frame.get(1..9)?;
    Some(CallId(rest.get_u64_le()))
}

impl Request {
    /// The frame of this request. Entries are shared, not copied.
    pub(crate) fn encode(self, call: CallId, group: GroupId) -> Frame {
        match self {
            Self::Append(request) => encode_append(request, call, group),
            Self::Vote(request) => encode_vote(VOTE, call, &request),
            Self::PreVote(request) => encode_vote(PRE_VOTE, call, &request),
            Self::Transfer(request) => {
                let mut out = head(TRANSFER, call, 64);
                put_vote(&mut out, request.from_leader());
                out.put_u64_le(*request.to_node_id());
                put_log_id(&mut out, request.last_log_id());
                out.freeze().into()
            }
            Self::Snapshot(part) => {
                let mut out = head(SNAPSHOT, call, 128);
                put_vote(&mut out, &part.vote);
                put_log_id(&mut out, part.meta.last_log_id.as_ref());
                let membership = encode_stored(&part.meta.last_membership);
                out.put_u32_le(u32::try_from(membership.len()).expect("memberships are bounded far below 4 GiB"));
                out.put_slice(&membership);
                out.put_u64_le(part.total);
                out.put_u64_le(part.offset);
                vec![out.freeze(), part.bytes].into()
            }
        }
    }

    /// Reads a request about `group`.
    pub(crate) fn decode(frame: &Bytes, group: GroupId) -> Result<Self, Malformed> {
        let mut input = Input(frame.clone());
        let kind = input.u8()?;
        input.u64()?;
        let request = match kind {
            APPEND => Self::Append(decode_append(&mut input, group)?),
            VOTE => Self::Vote(decode_vote(&mut input)?),
            PRE_VOTE => Self::PreVote(decode_vote(&mut input)?),
            TRANSFER => {
                let from = input.vote()?;
                let to = input.u64()?;
                Self::Transfer(TransferLeaderRequest::new(from, to, input.log_id()?))
            }
            SNAPSHOT => {
                let vote = input.vote()?;
                let last_log_id = input.log_id()?;
                let membership_bytes = input.u32()? as usize;
                let last_membership =
                    decode_stored(&input.take(membership_bytes)?).map_err(|_| Malformed("a snapshot's membership"))?;
                Self::Snapshot(SnapshotPart {
                    vote,
                    meta: SnapshotMeta {
                        last_log_id,
                        last_membership,
                    },
                    total: input.u64()?,
                    offset: input.u64()?,
                    bytes: std::mem::take(&mut input.0),
                })
            }
            _ => return Err(Malformed("unknown kind of request")),
        };
        input.end()?;
        Ok(request)
    }
}

impl Answer {
    /// The frame of this answer.
    pub(crate) fn encode(&self, call: CallId) -> Frame {
        let out = match self {
            Self::Append(answer) => {
                let mut out = head(APPEND_ANSWER, call, 32);
                match answer {
                    AppendEntriesResponse::Success => out.put_u8(0),
                    AppendEntriesResponse::PartialSuccess(matching) => {
                        out.put_u8(1);
                        put_log_id(&mut out, matching.as_ref());
                    }
                    AppendEntriesResponse::Conflict => out.put_u8(2),
                    AppendEntriesResponse::HigherVote(vote) => {
                        out.put_u8(3);
                        put_vote(&mut out, vote);
                    }
                }
                out
            }
            Self::Vote(answer) => {
                let mut out = head(VOTE_ANSWER, call, 64);
                put_vote(&mut out, &answer.vote);
                out.put_u8(u8::from(answer.vote_granted));
                put_log_id(&mut out, answer.last_log_id.as_ref());
                out
            }
            Self::Transfer { accepted } => {
                let mut out = head(TRANSFER_ANSWER, call, 1);
                out.put_u8(u8::from(*accepted));
                out
            }
            Self::Snapshot(vote) => {
                let mut out = head(SNAPSHOT_ANSWER, call, 32);
                put_vote(&mut out, vote);
                out
            }
            Self::Refused(why) => {
                let mut out = head(REFUSED, call, 1);
                out.put_u8(match why {
                    NoReplica::Unknown => 0,
                    NoReplica::Stopped => 1,
                    NoReplica::Unreadable => 2,
                });
                out
            }
        };
        out.freeze().into()
    }

    /// Reads an answer.
    pub(crate) fn decode(frame: &Bytes) -> Result<(CallId, Self), Malformed> {
        let mut input = Input(frame.clone());
        let kind = input.u8()?;
        let call = CallId(input.u64()?);
        let answer = match kind {
            APPEND_ANSWER => Self::Append(match input.u8()? {
                0 => AppendEntriesResponse::Success,
                1 => AppendEntriesResponse::PartialSuccess(input.log_id()?),
                2 => AppendEntriesResponse::Conflict,
                3 => AppendEntriesResponse::HigherVote(input.vote()?),
                _ => return Err(Malformed("unknown outcome of an append")),
            }),
            VOTE_ANSWER => {
                let vote = input.vote()?;
                let granted = input.flag()?;
                Self::Vote(VoteResponse::new(vote, input.log_id()?, granted))
            }
            TRANSFER_ANSWER => Self::Transfer {
                accepted: input.flag()?,
            },
            SNAPSHOT_ANSWER => Self::Snapshot(input.vote()?),
            REFUSED => Self::Refused(match input.u8()? {
                0 => NoReplica::Unknown,
                1 => NoReplica::Stopped,
                2 => NoReplica::Unreadable,
                _ => return Err(Malformed("unknown reason of a refusal")),
            }),
            _ => return Err(Malformed("unknown kind of answer")),
        };
        input.end()?;
        Ok((call, answer))
    }
}

fn head(kind: u8, call: CallId, room: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(9 + room);
    out.put_u8(kind);
    out.put_u64_le(call.0);
    out
}

fn encode_append(request: AppendEntriesRequest<RaftTypes>, call: CallId, group: GroupId) -> Frame {
    let mut out = head(APPEND, call, 64 + 4 * request.entries.len());
    put_vote(&mut out, &request.vote);
    put_log_id(&mut out, request.prev_log_id.as_ref());
    put_log_id(&mut out, request.leader_commit.as_ref());
    let entries: Vec<Bytes> = request
        .entries
        .into_iter()
        .map(|entry| entry.seal(group).bytes().clone())
        .collect();
    out.put_u32_le(u32::try_from(entries.len()).expect("a request has at most max_payload_entries"));
    for entry in &entries {
        out.put_u32_le(u32::try_from(entry.len()).expect("an entry's length is a u32 in its header"));
    }
    let mut pieces = Vec::with_capacity(1 + entries.len());
    pieces.push(out.freeze());
    pieces.extend(entries);
    pieces.into()
}

fn decode_append(input: &mut Input, group: GroupId) -> Result<AppendEntriesRequest<RaftTypes>, Malformed> {
    let vote = input.vote()?;
    let prev_log_id = input.log_id()?;
    let leader_commit = input.log_id()?;
    let count = input.u32()? as usize;
    if input.0.len() / 4 < count {
        return Err(Malformed("more entries than bytes"));
    }
    let lengths = (0..count).map(|_| input.u32()).collect::<Result<Vec<_>, _>>()?;
    let entries = lengths
        .into_iter()
        .map(|length| {
            let entry = Entry::parse(input.take(length as usize)?).map_err(|_| Malformed("a damaged entry"))?;
            if entry.header().group != group {
                return Err(Malformed("an entry of another group"));
            }
            LogEntry::stored(entry).map_err(|_| Malformed("a membership entry"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    })
}

fn encode_vote(kind: u8, call: CallId, request: &VoteRequest<RaftTypes>) -> Frame {
    let mut out = head(kind, call, 64);
    put_vote(&mut out, &request.vote);
    put_log_id(&mut out, request.last_log_id.as_ref());
    out.put_u8(u8::from(request.leadership_transfer));
    out.freeze().into()
}

fn decode_vote(input: &mut Input) -> Result<VoteRequest<RaftTypes>, Malformed> {
    let mut request = VoteRequest::new(input.vote()?, input.log_id()?);
    request.leadership_transfer = input.flag()?;
    Ok(request)
}

fn put_vote(out: &mut BytesMut, vote: &VoteOf) {
    let leader = vote.leader_id();
    out.put_u64_le(leader.term);
    out.put_u64_le(leader.voted_for);
    out.put_u8(u8::from(vote.is_committed()));
}

fn put_log_id(out: &mut BytesMut, log_id: Option<&RaftLogId>) {
    match log_id {
        None => out.put_u8(0),
        Some(log_id) => {
            out.put_u8(1);
            out.put_u64_le(log_id.committed_leader_id().term);
            out.put_u64_le(log_id.index());
        }
    }
}

/// Reads without ever running past the end.
struct Input(Bytes);

impl Input {
    fn take(&mut self, bytes: usize) -> Result<Bytes, Malformed> {
        if self.0.len() < bytes {
            return Err(Malformed("cut short"));
        }
        Ok(self.0.split_to(bytes))
    }

    fn end(&self) -> Result<(), Malformed> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Malformed("bytes behind its end")),
        }
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?.get_u8())
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(self.take(4)?.get_u32_le())
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(self.take(8)?.get_u64_le())
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a flag that is neither 0 nor 1")),
        }
    }

    fn vote(&mut self) -> Result<VoteOf, Malformed> {
        let leader = LeaderId {
            term: self.u64()?,
            voted_for: self.u64()?,
        };
        Ok(VoteOf::from_leader_id(leader, self.flag()?))
    }

    fn log_id(&mut self) -> Result<Option<RaftLogId>, Malformed> {
        if !self.flag()? {
            return Ok(None);
        }
        let term = self.u64()?;
        Ok(Some(RaftLogId::new(CommittedLeaderId::new(term), self.u64()?)))
    }
}

#[cfg(test)]
mod tests {
    use nsquorum_storage::EntryKind;
    use nsquorum_topic::{LogIndex, Term};

    use super::*;

    fn vote(term: u64, node: u64, committed: bool) -> VoteOf {
        VoteOf::from_leader_id(LeaderId { term, voted_for: node }, committed)
    }

    fn log_id(term: u64, index: u64) -> RaftLogId {
        RaftLogId::new(CommittedLeaderId::new(term), index)
    }

    fn bytes_of(frame: &Frame) -> Bytes {
        frame.slice(0, usize::MAX)
    }

    fn entry(group: u64, index: u64, body: &[u8]) -> LogEntry {
        let entry = Entry::copy_of(
            body,
            EntryKind::TopicBatch,
            GroupId::new(group),
            Term::new(3),
            LogIndex::new(index),
        );
        LogEntry::stored(entry).expect("no membership")
    }

    fn append() -> Request {
        Request::Append(AppendEntriesRequest {
            vote: vote(3, 1, true),
            prev_log_id: Some(log_id(2, 6)),
            entries: vec![entry(7, 7, b"seven"), entry(7, 8, b"")],
            leader_commit: Some(log_id(2, 5)),
        })
    }

    #[test]
    fn an_append_arrives_with_the_stored_bytes() {
        let frame = bytes_of(&append().encode(CallId(9), GroupId::new(7)));
        assert!(!is_answer(&frame));
        assert_eq!(call_of(&frame), Some(CallId(9)));
        let Ok(Request::Append(read)) = Request::decode(&frame, GroupId::new(7)) else {
            panic!("an append");
        };
        assert_eq!(read.vote, vote(3, 1, true));
        assert_eq!(read.prev_log_id, Some(log_id(2, 6)));
        assert_eq!(read.leader_commit, Some(log_id(2, 5)));
        let bodies: Vec<_> = read
            .entries
            .iter()
            .map(|entry| entry.as_stored().expect("stored").payload())
            .collect();
        assert_eq!(bodies, [&b"seven"[..], &b""[..]]);
        assert!(
            Request::decode(&frame, GroupId::new(8)).is_err(),
            "entries of another group are refused"
        );
    }

    #[test]
    fn damage_and_cuts_are_refused() {
        let frame = bytes_of(&append().encode(CallId(9), GroupId::new(7)));
        for cut in 0..frame.len() {
            assert!(
                Request::decode(&frame.slice(..cut), GroupId::new(7)).is_err(),
                "cut at {cut}"
            );
        }
        let longer = Bytes::from([&frame[..], &[0]].concat());
        assert!(Request::decode(&longer, GroupId::new(7)).is_err(), "a byte more");
        let mut damaged = frame.to_vec();
        let last = damaged.len() - 50;
        damaged[last] ^= 1;
        assert!(Request::decode(&damaged.into(), GroupId::new(7)).is_err());
    }

    #[test]
    fn votes_transfers_and_snapshots_survive_the_round_trip() {
        let group = GroupId::new(7);
        let mut request = VoteRequest::new(vote(4, 2, false), Some(log_id(3, 8)));
        request.leadership_transfer = true;
        let frame = bytes_of(&Request::Vote(request.clone()).encode(CallId(1), group));
        assert!(matches!(Request::decode(&frame, group), Ok(Request::Vote(read)) if read == request));
        request.leadership_transfer = false;
        let frame = bytes_of(&Request::PreVote(request.clone()).encode(CallId(1), group));
        assert!(matches!(Request::decode(&frame, group), Ok(Request::PreVote(read)) if read == request));
        let transfer = TransferLeaderRequest::new(vote(4, 2, true), 3, None);
        let frame = bytes_of(&Request::Transfer(transfer.clone()).encode(CallId(1), group));
        assert!(matches!(Request::decode(&frame, group), Ok(Request::Transfer(read)) if read == transfer));
        let part = SnapshotPart {
            vote: vote(4, 2, true),
            meta: SnapshotMeta {
                last_log_id: Some(log_id(3, 8)),
                last_membership: openraft::StoredMembership::default(),
            },
            total: 10,
            offset: 4,
            bytes: Bytes::from_static(b"state"),
        };
        let frame = bytes_of(&Request::Snapshot(part.clone()).encode(CallId(1), group));
        let Ok(Request::Snapshot(read)) = Request::decode(&frame, group) else {
            panic!("a snapshot's part");
        };
        assert_eq!((read.vote, read.meta, read.bytes), (part.vote, part.meta, part.bytes));
        assert_eq!((read.total, read.offset), (10, 4));
    }

    #[test]
    fn answers_survive_the_round_trip() {
        let answers = [
            Answer::Append(AppendEntriesResponse::Success),
            Answer::Append(AppendEntriesResponse::PartialSuccess(Some(log_id(3, 8)))),
            Answer::Append(AppendEntriesResponse::Conflict),
            Answer::Append(AppendEntriesResponse::HigherVote(vote(5, 3, false))),
            Answer::Vote(VoteResponse::new(vote(5, 3, false), None, true)),
            Answer::Transfer { accepted: true },
            Answer::Snapshot(vote(5, 3, true)),
            Answer::Refused(NoReplica::Unknown),
            Answer::Refused(NoReplica::Stopped),
            Answer::Refused(NoReplica::Unreadable),
        ];
        for answer in answers {
            let frame = bytes_of(&answer.encode(CallId(77)));
            assert!(is_answer(&frame));
            let (call, read) = Answer::decode(&frame).expect("own encoding");
            assert_eq!(call, CallId(77));
            assert_eq!(format!("{read:?}"), format!("{answer:?}"));
            for cut in 0..frame.len() {
                assert!(Answer::decode(&frame.slice(..cut)).is_err(), "{answer:?} cut at {cut}");
            }
            let longer = Bytes::from([&frame[..], &[0]].concat());
            assert!(Answer::decode(&longer).is_err(), "{answer:?} and a byte more");
        }
    }
}
