//! One connection as a step machine: bytes and the time go in, answers come out.

use bytes::{BufMut as _, BytesMut};
use nsquorum_protocol::LookupIdentify;
use serde::Serialize;

use super::decoder::{Command, Decoder};
use super::error::LookupError;
use crate::ProducerDescription;
use crate::registrations::{Moment, PeerId, Registrations};

/// What a producer is told about this nsqlookupd: nsqlookupd's keys in nsqlookupd's order. nsqd asks for a new topic's channels at
/// `broadcast_address:http_port`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Greeting {
    pub(crate) broadcast_address: String,
    pub(crate) hostname: String,
    pub(crate) http_port: u16,
    pub(crate) tcp_port: u16,
    pub(crate) version: String,
}

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It does.
    Read,
    /// It ends once the answers are written.
    End,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Session {
    remote_address: String,
    decoder: Decoder,
    peer: Option<PeerId>,
}

impl Session {
    /// A new connection from `ip:port`.
    pub(crate) fn new(remote_address: String) -> Self {
        Self {
            remote_address,
            decoder: Decoder::new(),
            peer: None,
        }
    }

    /// Carries out the commands at the front of `input` and appends the answers to `output`.
    pub(crate) fn step(
        &mut self,
        input: &mut BytesMut,
        registrations: &mut Registrations,
        greeting: &Greeting,
        now: Moment,
        output: &mut BytesMut,
    ) -> Next {
        loop {
            let answer = match self.decoder.next(input) {
                Ok(None) => return Next::Read,
                Ok(Some(command)) => self.execute(&command, registrations, greeting, now),
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) => put_answer(output, &answer),
                Err(error) => {
                    self.refuse(&error, output);
                    return Next::End;
                }
            }
        }
    }

    /// The peer sends nothing more.
    pub(crate) fn end_of_input(&mut self, output: &mut BytesMut) {
        if let Some(error) = self.decoder.end() {
            self.refuse(&error, output);
        }
    }

    /// The connection is over.
    pub(crate) fn close(self, registrations: &mut Registrations) {
        if let Some(peer) = self.peer {
            tracing::info!(peer = self.remote_address, "a producer is gone");
            metrics::gauge!("nsquorum_lookup_producers").decrement(1.0);
            registrations.remove_peer(peer);
        }
    }

    fn execute(
        &mut self,
        command: &Command,
        registrations: &mut Registrations,
        greeting: &Greeting,
        now: Moment,
    ) -> Result<Vec<u8>, LookupError> {
        let peer = self.peer.ok_or(LookupError::MustIdentify);
        match command {
            Command::Ping => {
                if let Ok(peer) = peer {
                    registrations.ping(peer, now);
                }
            }
            Command::Identify(body) => {
                let body = LookupIdentify::parse(body).map_err(|_| LookupError::BadJson)?;
                if !body.is_complete() {
                    return Err(LookupError::MissingFields);
                }
                let producer = ProducerDescription::registered(self.remote_address.clone(), body);
                tracing::info!(
                    peer = producer.remote_address,
                    address = producer.broadcast_address,
                    tcp = producer.tcp_port,
                    http = producer.http_port,
                    version = producer.version,
                    "a producer has identified itself"
                );
                self.peer = Some(registrations.add_peer(producer, now));
                metrics::gauge!("nsquorum_lookup_producers").increment(1.0);
                self.decoder.identified();
                return Ok(serde_json::to_vec(greeting).expect("plain data always serializes"));
            }
            Command::Register(topic, channel) => {
                let full = |_| LookupError::Full;
                registrations.register(peer?, topic, channel.as_ref()).map_err(full)?;
            }
            Command::Unregister(topic, channel) => registrations.unregister(peer?, topic, channel.as_ref()),
        }
        Ok(b"OK".to_vec())
    }

    fn refuse(&self, error: &LookupError, output: &mut BytesMut) {
        tracing::warn!(peer = self.remote_address, %error, "a producer's connection ends");
        metrics::counter!("nsquorum_lookup_errors_total").increment(1);
        put_answer(output, &error.to_bytes());
    }
}

/// `E_BAD_PROTOCOL` too has a length in front.
fn put_answer(output: &mut BytesMut, answer: &[u8]) {
    output.put_i32(i32::try_from(answer.len()).expect("answers echo a line at most, which is bounded"));
    output.put_slice(answer);
}
