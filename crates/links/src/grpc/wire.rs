//! The messages of `proto/peer.proto`, and what they mean here.

use nsquorum_topic::{ClusterId, GroupId, NodeId, NodeIncarnation};

use crate::{Class, Lane, PeerIdentity, Rejection, Service};

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::unwrap_used,
    reason = "generated"
)]
mod generated {
    tonic::include_proto!("nsquorum.peer.v1");
}

pub(super) use generated::{
    Answered, Challenge, Chunk, Credit, Credits, Dialled, Hello, Identity, Proof, Verdict, Write, answered, dialled,
    peer_client, peer_server,
};

/// Of the protocol. Nodes of different versions do not link.
pub(super) const VERSION: u32 = 1;

/// The message makes no sense.
#[derive(Debug)]
pub(super) struct Senseless;

impl From<PeerIdentity> for Identity {
    fn from(identity: PeerIdentity) -> Self {
        Self {
            cluster: identity
                .cluster
                .map(|cluster| bytes::Bytes::copy_from_slice(cluster.as_bytes()))
                .unwrap_or_default(),
            node: identity.node.get(),
            incarnation: identity.incarnation.get(),
        }
    }
}

pub(super) fn identity_from_wire(identity: Option<&Identity>) -> Result<PeerIdentity, Senseless> {
    let identity = identity.ok_or(Senseless)?;
    let cluster = match identity.cluster.len() {
        0 => None,
        _ => {
            let bytes: [u8; 16] = identity.cluster.as_ref().try_into().map_err(|_| Senseless)?;
            Some(ClusterId::new(bytes))
        }
    };
    Ok(PeerIdentity {
        cluster,
        node: NodeId::new(identity.node),
        incarnation: NodeIncarnation::new(identity.incarnation),
    })
}

pub(super) const fn class_to_wire(class: Class) -> i32 {
    match class {
        Class::Control => generated::Class::Control as i32,
        Class::Bulk => generated::Class::Bulk as i32,
    }
}

pub(super) fn class_from_wire(class: i32) -> Result<Class, Senseless> {
    match generated::Class::try_from(class) {
        Ok(generated::Class::Control) => Ok(Class::Control),
        Ok(generated::Class::Bulk) => Ok(Class::Bulk),
        Ok(generated::Class::Unspecified) | Err(_) => Err(Senseless),
    }
}

pub(super) const fn service_to_wire(service: Service) -> i32 {
    match service {
        Service::Node => generated::Service::Node as i32,
        Service::Raft => generated::Service::Raft as i32,
        Service::Broker => generated::Service::Broker as i32,
        Service::Formation => generated::Service::Formation as i32,
    }
}

pub(super) fn lane_from_wire(service: i32, group: u64) -> Result<Lane, Senseless> {
    let service = match generated::Service::try_from(service) {
        Ok(generated::Service::Node) => Service::Node,
        Ok(generated::Service::Raft) => Service::Raft,
        Ok(generated::Service::Broker) => Service::Broker,
        Ok(generated::Service::Formation) => Service::Formation,
        Ok(generated::Service::Unspecified) | Err(_) => return Err(Senseless),
    };
    Ok(Lane::new(service, GroupId::new(group)))
}

/// What a node that was dialled may say. The dialler has reasons of its own; those never travel.
pub(super) const fn rejection_to_wire(rejection: Option<Rejection>) -> i32 {
    let wire = match rejection {
        None => generated::Rejection::None,
        Some(Rejection::Version) => generated::Rejection::Version,
        Some(Rejection::WrongSecret) => generated::Rejection::WrongSecret,
        Some(Rejection::SecretRequired) => generated::Rejection::SecretRequired,
        Some(Rejection::OtherCluster) => generated::Rejection::OtherCluster,
        Some(Rejection::OldIncarnation) => generated::Rejection::OldIncarnation,
        Some(Rejection::Myself) => generated::Rejection::Myself,
        Some(Rejection::Stale | Rejection::OtherNode | Rejection::SecondAddress) => generated::Rejection::Stale,
    };
    wire as i32
}

pub(super) fn rejection_from_wire(rejection: i32) -> Result<Option<Rejection>, Senseless> {
    match generated::Rejection::try_from(rejection).map_err(|_| Senseless)? {
        generated::Rejection::None => Ok(None),
        generated::Rejection::Version => Ok(Some(Rejection::Version)),
        generated::Rejection::WrongSecret => Ok(Some(Rejection::WrongSecret)),
        generated::Rejection::SecretRequired => Ok(Some(Rejection::SecretRequired)),
        generated::Rejection::OtherCluster => Ok(Some(Rejection::OtherCluster)),
        generated::Rejection::OldIncarnation => Ok(Some(Rejection::OldIncarnation)),
        generated::Rejection::Myself => Ok(Some(Rejection::Myself)),
        generated::Rejection::Stale => Ok(Some(Rejection::Stale)),
    }
}
