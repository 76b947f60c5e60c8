//! The cluster secret: who knows it may link.
//!
//! It never travels. Each end sends a random number, and each proves that it knows the secret by an HMAC over both ends' numbers and
//! identities; the dialler first. That authenticates the two ends of a connection, not each later byte: who can change
//! packets between the nodes can take a connection over. Networks where that is possible need TLS below.

use std::fmt;

use hmac::{Hmac, Mac};
use prost::Message;
use sha2::Sha256;
use thiserror::Error;

use super::wire::{Challenge, Hello};

/// Shortest secret in bytes. An overheard handshake lets anyone try secrets offline, so it must not be guessable.
const SECRET_BYTES_MIN: usize = 16;

/// What all nodes of a cluster know and nobody else does.
#[derive(Clone)]
pub struct ClusterSecret(Box<[u8]>);

/// The secret has fewer than 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a cluster secret needs at least {SECRET_BYTES_MIN} bytes")]
pub struct SecretTooShort;

impl ClusterSecret {
    /// The secret of these bytes.
    ///
    /// # Errors
    /// [`SecretTooShort`].
    pub fn new(bytes: &[u8]) -> Result<Self, SecretTooShort> {
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(SecretTooShort);
        }
        Ok(Self(bytes.into()))
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret")
    }
}

/// Which end proves. The ends' proofs differ, so neither can send the other's back.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Dials,
    Answers,
}

fn hmac(secret: &ClusterSecret, end: End, hello: &Hello, challenge: &Challenge) -> Hmac<Sha256> {
    let mut hmac = <Hmac<Sha256> as Mac>::new_from_slice(&secret.0).expect("HMAC takes keys of any length");
    let label: &[u8] = match end {
        End::Dials => b"nsquorum peer 1 dial",
        End::Answers => b"nsquorum peer 1 answer",
    };
    for part in [label, &hello.encode_to_vec(), &challenge.encode_to_vec()] {
        hmac.update(&(part.len() as u32).to_be_bytes());
        hmac.update(part);
    }
    hmac
}

/// What this end sends; nothing without a secret.
pub(super) fn prove(secret: Option<&ClusterSecret>, end: End, hello: &Hello, challenge: &Challenge) -> Vec<u8> {
    secret.map_or_else(Vec::new, |secret| {
        hmac(secret, end, hello, challenge).finalize().into_bytes().to_vec()
    })
}

/// Whether the other end's proof holds. Takes the same time wherever it differs.
pub(super) fn holds(
    secret: Option<&ClusterSecret>,
    end: End,
    hello: &Hello,
    challenge: &Challenge,
    proof: &[u8],
) -> bool {
    secret.map_or(proof.is_empty(), |secret| {
        hmac(secret, end, hello, challenge).verify_slice(proof).is_ok()
    })
}

/// 32 random bytes that nobody can foresee; the environment's randomness is not for secrets.
pub(super) fn nonce() -> Vec<u8> {
    rand::random::<[u8; 32]>().to_vec()
}

#[cfg(test)]
mod tests {
    use super::{ClusterSecret, End, SecretTooShort, holds, prove};
    use crate::grpc::wire::{Challenge, Hello};

    fn secret(text: &str) -> ClusterSecret {
        ClusterSecret::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_proof_holds_for_its_handshake_end_and_secret_only() {
        let ours = secret("sixteen bytes and more");
        let (hello, challenge) = (Hello::default(), Challenge::default());
        let proof = prove(Some(&ours), End::Dials, &hello, &challenge);
        assert_eq!(proof.len(), 32);
        assert!(holds(Some(&ours), End::Dials, &hello, &challenge, &proof));
        assert!(!holds(Some(&ours), End::Answers, &hello, &challenge, &proof));
        assert!(!holds(Some(&ours), End::Dials, &hello, &challenge, &[]));
        assert!(!holds(None, End::Dials, &hello, &challenge, &proof));
        let theirs = secret("another secret, as long");
        assert!(!holds(Some(&theirs), End::Dials, &hello, &challenge, &proof));
        let other = Hello {
            epoch: 1,
            ..Hello::default()
        };
        assert!(!holds(Some(&ours), End::Dials, &other, &challenge, &proof));
        let other = Challenge {
            version: 7,
            ..Challenge::default()
        };
        assert!(!holds(Some(&ours), End::Dials, &hello, &other, &proof));
    }

    #[test]
    fn short_secrets_are_refused_and_none_is_shown() {
        assert_eq!(ClusterSecret::new(b"fifteen bytes..").err(), Some(SecretTooShort));
        assert_eq!(format!("{:?}", secret("sixteen bytes...")), "ClusterSecret");
    }
}
