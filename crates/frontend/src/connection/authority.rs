//! What the client may do, on a node that asks an auth server.

use bytes::Bytes;
use nsquorum_environment::Monotonic;
use nsquorum_protocol::{ChannelName, Command, ProtocolError, TopicName};
use serde::Serialize;

use super::machine::{Machine, Request};
use super::replies::Reply;
use crate::auth::{AuthError, Grants};

/// What is known of the client.
#[derive(Debug)]
pub(super) enum Authority {
    /// It has not said who it is.
    Unknown,
    /// The auth server knows it.
    Known {
        secret: Bytes,
        grants: Box<Grants>,
        until: Monotonic,
    },
}

/// What the auth server is being asked for.
#[derive(Debug)]
pub(super) enum Asking {
    /// An AUTH.
    Auth(Bytes),
    /// What it once granted has expired, and a command needs it.
    Renewal(Bytes),
}

/// Whether a command may run.
pub(super) enum Judgement {
    Allowed,
    /// What is known has expired: ask again.
    Stale(Request),
    Refused(ProtocolError),
}

/// The answer to AUTH, in nsqd's order of keys.
#[derive(Serialize)]
struct Welcome<'a> {
    identity: &'a str,
    identity_url: &'a str,
    permission_count: usize,
}

impl Machine {
    /// AUTH.
    pub(super) fn authenticate(&mut self, secret: Bytes, now: Monotonic) -> Option<Request> {
        let known = matches!(&self.authority, Authority::Known { grants, .. } if grants.count() > 0);
        if known {
            self.refuse(ProtocolError::auth_already_set(), now);
            return None;
        }
        if self.config.auth.is_none() {
            self.refuse(ProtocolError::auth_disabled(), now);
            return None;
        }
        self.asking = Some(Asking::Auth(secret.clone()));
        Some(Request::Authenticate { secret })
    }

    /// Whether `command` may run now.
    pub(super) fn judge(&mut self, command: &Command, now: Monotonic) -> Judgement {
        if self.config.auth.is_none() {
            return Judgement::Allowed;
        }
        let Some((verb, topic, channel)) = demand(command) else {
            return Judgement::Allowed;
        };
        match &self.authority {
            Authority::Known { grants, until, secret } => {
                if *until <= now {
                    let secret = secret.clone();
                    self.asking = Some(Asking::Renewal(secret.clone()));
                    Judgement::Stale(Request::Authenticate { secret })
                } else if grants.allow(topic, channel) {
                    Judgement::Allowed
                } else {
                    Judgement::Refused(ProtocolError::unauthorized(verb, topic, channel))
                }
            }
            Authority::Unknown => Judgement::Refused(ProtocolError::auth_first(verb)),
        }
    }

    /// What the auth server has said.
    pub(crate) fn authenticated(&mut self, result: Result<Grants, AuthError>, now: Monotonic) {
        let asking = self
            .asking
            .take()
            .expect("an answer arrives only for a question that was asked");
        let grants = match result {
            Ok(grants) => grants,
            // Logged where it was asked.
            Err(_) => return self.refuse(ProtocolError::auth_failed(), now),
        };
        self.record.set_identity(&grants.identity, &grants.identity_url);
        let answer = match &asking {
            Asking::Auth(_) if grants.count() == 0 => Some(Reply::Error(ProtocolError::no_authorizations())),
            Asking::Auth(_) => Some(Reply::Response(welcome(&grants))),
            Asking::Renewal(_) => None,
        };
        let (Asking::Auth(secret) | Asking::Renewal(secret)) = asking;
        self.authority = Authority::Known {
            secret,
            until: now + grants.time_to_live,
            grants: Box::new(grants),
        };
        match answer {
            Some(Reply::Error(error)) => self.refuse(error, now),
            Some(answer) => self.reply(answer, now),
            None => {}
        }
    }
}

fn welcome(grants: &Grants) -> Bytes {
    let welcome = Welcome {
        identity: &grants.identity,
        identity_url: &grants.identity_url,
        permission_count: grants.count(),
    };
    serde_json::to_vec(&welcome)
        .expect("numbers and texts always serialise")
        .into()
}

/// What a command needs a permission for.
fn demand(command: &Command) -> Option<(&'static str, &TopicName, Option<&ChannelName>)> {
    match command {
        Command::Pub { topic, .. } => Some(("PUB", topic, None)),
        Command::Mpub { topic, .. } => Some(("MPUB", topic, None)),
        Command::Dpub { topic, .. } => Some(("DPUB", topic, None)),
        Command::Sub { topic, channel } => Some(("SUB", topic, Some(channel))),
        _ => None,
    }
}
