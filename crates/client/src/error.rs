//! What can go wrong on a connection, and what that says about the command that was under way.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// An error frame of the server: its code and its whole text as sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerError {
    text: Arc<str>,
}

impl ServerError {
    pub(crate) fn new(payload: &[u8]) -> Self {
        Self {
            text: String::from_utf8_lossy(payload).into(),
        }
    }

    /// The first word, for example `E_BAD_TOPIC`.
    #[must_use]
    pub fn code(&self) -> &str {
        self.text.split(' ').next().unwrap_or_default()
    }

    /// The whole text, for example `E_PUB_FAILED PUB failed exiting`. Bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// True for the three errors after which NSQ keeps the connection: a FIN, REQ or TOUCH that came too late.
    #[must_use]
    pub fn keeps_connection(&self) -> bool {
        matches!(self.code(), "E_FIN_FAILED" | "E_REQ_FAILED" | "E_TOUCH_FAILED")
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether the server may have carried out the command that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The server refused it for what it says (a bad name, a body too large): the same command fails again.
    Rejected,
    /// It was not sent, or the server did not get to it: a retry cannot duplicate anything.
    NotDone,
    /// It may have been carried out: a retry may publish a message twice.
    Unknown,
}

/// Why a connection could not be made or a command was not answered with success.
///
/// Clonable, because the end of one connection is the answer to every command that was waiting on it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// No TCP connection to this address. A retry may help.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The address as given.
        address: String,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// The server did not finish the handshake in time. A retry may help.
    #[error("{address} did not answer IDENTIFY within {after:?}")]
    HandshakeTimeout {
        /// The address as given.
        address: String,
        /// The time allowed.
        after: Duration,
    },
    /// The server's answer to IDENTIFY is not NSQ's. A retry does not help: this is another kind of server.
    #[error("the answer to IDENTIFY is not understood: {0}")]
    Handshake(String),
    /// The server answered this very command with an error frame.
    #[error("{0}")]
    Server(ServerError),
    /// The server ended the connection with an error frame that was the answer to another command.
    #[error("the connection ended with an error that was not the answer to this: {0}")]
    EndedByServer(ServerError),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(Arc<io::Error>),
    /// The server closed the connection without saying why (it exits, or the topic or channel was deleted).
    #[error("the server closed the connection")]
    ClosedByServer,
    /// This side closed the connection.
    #[error("the connection was closed by this side")]
    Closed,
    /// The command was not sent: the connection had ended before.
    #[error("not sent, because {0}")]
    NotSent(Arc<ClientError>),
    /// Neither a heartbeat nor anything else came for two heartbeat intervals.
    #[error("the server has been silent for {0:?}, two heartbeat intervals")]
    Silent(Duration),
    /// The server sent what NSQ never sends at this point; the connection was ended.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// The command was not sent because the buffer for FIN, REQ, TOUCH and RDY is full: the server has stopped
    /// reading. A later retry on the same connection may help.
    #[error("the send buffer of {limit_bytes} bytes is full")]
    SendBufferFull {
        /// The limit in bytes.
        limit_bytes: usize,
    },
    /// The command was not sent because NSQ has no form for it (an empty body, a batch of none).
    #[error("not a valid command: {0}")]
    Invalid(&'static str),
}

impl ClientError {
    /// What this error says about the fate of the command that got it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Connect { .. } | Self::HandshakeTimeout { .. } | Self::NotSent(_) | Self::SendBufferFull { .. } => {
                Outcome::NotDone
            }
            Self::Handshake(_) | Self::Invalid(_) => Outcome::Rejected,
            // NSQ's text for "could not be stored" also covers "nobody knows whether it was stored".
            Self::Server(error) => match error.code() {
                "E_PUB_FAILED" | "E_MPUB_FAILED" | "E_DPUB_FAILED" => Outcome::Unknown,
                "E_SUB_FAILED" | "E_FIN_FAILED" | "E_REQ_FAILED" | "E_TOUCH_FAILED" => Outcome::NotDone,
                _ => Outcome::Rejected,
            },
            // A server that stores pipelined publishes together may have stored what followed the failed one.
            Self::EndedByServer(_)
            | Self::Io(_)
            | Self::ClosedByServer
            | Self::Closed
            | Self::Silent(_)
            | Self::Protocol(_) => Outcome::Unknown,
        }
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_text_decides_what_a_retry_risks() {
        let server = |text: &str| ClientError::Server(ServerError::new(text.as_bytes())).outcome();
        assert_eq!(server("E_PUB_FAILED PUB failed exiting"), Outcome::Unknown);
        assert_eq!(
            server("E_BAD_TOPIC PUB topic name \"$\" is not valid"),
            Outcome::Rejected
        );
        assert_eq!(
            server("E_FIN_FAILED FIN 0000000000000001 failed ID not in flight"),
            Outcome::NotDone
        );
        assert_eq!(ClientError::ClosedByServer.outcome(), Outcome::Unknown);
        assert_eq!(
            ClientError::NotSent(Arc::new(ClientError::ClosedByServer)).outcome(),
            Outcome::NotDone
        );
    }

    #[test]
    fn only_the_three_late_answers_keep_the_connection() {
        for (text, keeps) in [
            ("E_FIN_FAILED FIN x failed", true),
            ("E_REQ_FAILED REQ x failed", true),
            ("E_TOUCH_FAILED TOUCH x failed", true),
            ("E_FIN_FAILEDX", false),
            ("E_INVALID cannot FIN in current state", false),
            ("", false),
        ] {
            assert_eq!(ServerError::new(text.as_bytes()).keeps_connection(), keeps, "{text}");
        }
    }
}
