//! Membership as bytes.
//!
//! `version u8 = 1 | configs u8 | per config: count u32, node ids u64... | all nodes (voters and learners): count u32, ids u64...`,
//! little-endian, ids ascending.

use std::collections::BTreeSet;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// openraft's membership: node ids only.
pub(crate) type Membership = openraft::Membership<u64, ()>;

const VERSION: u8 = 1;

/// Why membership bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed membership")]
pub(crate) struct MalformedMembership;

pub(crate) fn encode_membership(membership: &Membership, out: &mut BytesMut) {
    out.put_u8(VERSION);
    let configs = membership.get_joint_config();
    out.put_u8(u8::try_from(configs.len()).expect("a joint configuration has at most two parts"));
    for config in configs {
        put_ids(out, config.iter().copied());
    }
    put_ids(out, membership.nodes().map(|(id, ())| *id));
}

pub(crate) fn decode_membership(mut bytes: &[u8]) -> Result<Membership, MalformedMembership> {
    if bytes.len() < 2 || bytes.get_u8() != VERSION {
        return Err(MalformedMembership);
    }
    let count = bytes.get_u8();
    let configs = (0..count)
        .map(|_| take_ids(&mut bytes))
        .collect::<Result<Vec<_>, _>>()?;
    let nodes = take_ids(&mut bytes)?;
    if !bytes.is_empty() {
        return Err(MalformedMembership);
    }
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(
        configs,
        nodes
            .into_iter()
            .map(|id| (id, ()))
            .collect::<std::collections::BTreeMap<_, _>>(),
    )
    .map_err(|_| MalformedMembership)
}

/// A stored membership (with the log id that set it) for checkpoints: `0` or `1 | term u64 | index u64`, then the membership.
pub(crate) fn encode_stored(
    stored: &openraft::StoredMembership<openraft::vote::leader_id_std::CommittedLeaderId<u64>, u64, ()>,
) -> Bytes {
    let mut out = BytesMut::new();
    match stored.log_id() {
        None => out.put_u8(0),
        Some(log_id) => {
            out.put_u8(1);
            out.put_u64_le(log_id.committed_leader_id().term);
            out.put_u64_le(log_id.index());
        }
    }
    encode_membership(stored.membership(), &mut out);
    out.freeze()
}

pub(crate) fn decode_stored(
    mut bytes: &[u8],
) -> Result<
    openraft::StoredMembership<openraft::vote::leader_id_std::CommittedLeaderId<u64>, u64, ()>,
    MalformedMembership,
> {
    if bytes.is_empty() {
        return Err(MalformedMembership);
    }
    let log_id = match bytes.get_u8() {
        0 => None,
        1 if bytes.len() >= 16 => {
            let term = bytes.get_u64_le();
            let index = bytes.get_u64_le();
            Some(openraft::LogId::new(
                openraft::vote::leader_id_std::CommittedLeaderId::new(term),
                index,
            ))
        }
        _ => return Err(MalformedMembership),
    };
    Ok(openraft::StoredMembership::new(log_id, decode_membership(bytes)?))
}

fn put_ids(out: &mut BytesMut, ids: impl Iterator<Item = u64>) {
    let ids: BTreeSet<u64> = ids.collect();
    out.put_u32_le(u32::try_from(ids.len()).expect("a cluster has far fewer than 2^32 nodes"));
    for id in ids {
        out.put_u64_le(id);
    }
}

fn take_ids(bytes: &mut &[u8]) -> Result<BTreeSet<u64>, MalformedMembership> {
    if bytes.len() < 4 {
        return Err(MalformedMembership);
    }
    let count = bytes.get_u32_le() as usize;
    if bytes.len() / 8 < count {
        return Err(MalformedMembership);
    }
    Ok((0..count).map(|_| bytes.get_u64_le()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(membership: &Membership) -> Membership {
        let mut out = BytesMut::new();
        encode_membership(membership, &mut out);
        decode_membership(&out).expect("own encoding")
    }

    #[test]
    fn memberships_survive_the_round_trip() {
        let uniform = Membership::new_with_defaults(vec![BTreeSet::from([1, 2, 3])], []);
        let joint = Membership::new_with_defaults(vec![BTreeSet::from([1]), BTreeSet::from([1, 2, 3])], [4]);
        for membership in [Membership::default(), uniform, joint] {
            assert_eq!(round_trip(&membership), membership);
        }
    }

    #[test]
    fn cut_bytes_are_refused() {
        let mut out = BytesMut::new();
        encode_membership(
            &Membership::new_with_defaults(vec![BTreeSet::from([1, 2, 3])], []),
            &mut out,
        );
        for cut in 0..out.len() {
            assert_eq!(decode_membership(&out[..cut]), Err(MalformedMembership), "cut at {cut}");
        }
    }
}
