//! What a producer is told before its connection ends.

use std::fmt;

/// Commands that name a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// REGISTER
    Register,
    /// UNREGISTER
    Unregister,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Register => "REGISTER",
            Self::Unregister => "UNREGISTER",
        })
    }
}

/// Why a connection ends. The texts are nsqlookupd's; those of the limits, which it does not have, are in its manner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The first four bytes are not `␠␠V1`.
    #[error("E_BAD_PROTOCOL")]
    BadProtocol,
    /// REGISTER or UNREGISTER before IDENTIFY.
    #[error("E_INVALID client must IDENTIFY")]
    MustIdentify,
    /// IDENTIFY for the second time.
    #[error("E_INVALID cannot IDENTIFY again")]
    IdentifiedAlready,
    /// No such command; its first word.
    #[error("E_INVALID invalid command {}", .0.escape_ascii())]
    InvalidCommand(Vec<u8>),
    /// No topic.
    #[error("E_INVALID {0} insufficient number of params")]
    TooFewParams(Verb),
    /// What cannot be a topic's name.
    #[error("E_BAD_TOPIC {verb} topic name '{}' is not valid", name.escape_ascii())]
    BadTopic {
        /// Of which command.
        verb: Verb,
        /// What was given.
        name: Vec<u8>,
    },
    /// What cannot be a channel's name.
    #[error("E_BAD_CHANNEL {verb} channel name '{}' is not valid", name.escape_ascii())]
    BadChannel {
        /// Of which command.
        verb: Verb,
        /// What was given.
        name: Vec<u8>,
    },
    /// The connection ended in the middle of IDENTIFY's length.
    #[error("E_BAD_BODY IDENTIFY failed to read body size")]
    NoBodySize,
    /// The connection ended in the middle of IDENTIFY's body.
    #[error("E_BAD_BODY IDENTIFY failed to read body")]
    NoBody,
    /// IDENTIFY's length is negative, or above the limit.
    #[error("E_BAD_BODY IDENTIFY invalid body size {0}")]
    BodySize(i32),
    /// IDENTIFY's body is not the JSON that it should be.
    #[error("E_BAD_BODY IDENTIFY failed to decode JSON body")]
    BadJson,
    /// IDENTIFY lacks what a consumer needs.
    #[error("E_BAD_BODY IDENTIFY missing fields")]
    MissingFields,
    /// A line without an end.
    #[error("E_INVALID command line is too long")]
    LineTooLong,
    /// The database is full.
    #[error("E_INVALID too many registrations")]
    Full,
}

impl LookupError {
    /// The bytes that the producer gets: names as it sent them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let quoted = |before: String, name: &[u8]| [before.as_bytes(), name, b"' is not valid"].concat();
        match self {
            Self::InvalidCommand(word) => [b"E_INVALID invalid command ", word.as_slice()].concat(),
            Self::BadTopic { verb, name } => quoted(format!("E_BAD_TOPIC {verb} topic name '"), name),
            Self::BadChannel { verb, name } => quoted(format!("E_BAD_CHANNEL {verb} channel name '"), name),
            other => other.to_string().into_bytes(),
        }
    }
}
