//! The errors of the protocol, byte for byte as nsqd sends them.
//!
//! Clients compare error texts and decide by code and by whether the connection stays open, so the text is made here,
//! where the order of nsqd's checks is known, and not where it is sent. An error is its payload: parameters that a
//! client sent are echoed as raw bytes, which need not be UTF-8.

use std::fmt;

use bytes::Bytes;

use crate::message_id::MessageId;
use crate::name::{ChannelName, TopicName};
use crate::quote::go_quote;

/// The first word of an error frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// `E_INVALID`: the command, its parameters or the moment it was sent.
    Invalid,
    /// `E_BAD_TOPIC`: not the name of a topic.
    BadTopic,
    /// `E_BAD_CHANNEL`: not the name of a channel.
    BadChannel,
    /// `E_BAD_BODY`: the body of IDENTIFY, AUTH or MPUB.
    BadBody,
    /// `E_BAD_MESSAGE`: a message's size or body.
    BadMessage,
    /// `E_BAD_PROTOCOL`: the connection did not begin with the magic.
    BadProtocol,
    /// `E_IDENTIFY_FAILED`: what was negotiated could not be set up.
    IdentifyFailed,
    /// `E_AUTH_DISABLED`: AUTH was sent to a server that has no authentication.
    AuthDisabled,
    /// `E_AUTH_FAILED`: who the client is could not be found out.
    AuthFailed,
    /// `E_AUTH_FIRST`: the command needs an AUTH before it.
    AuthFirst,
    /// `E_UNAUTHORIZED`: the client may not do this.
    Unauthorized,
    /// `E_SUB_FAILED`: the subscription was refused.
    SubFailed,
    /// `E_PUB_FAILED`: the outcome of a PUB is unknown or it was refused.
    PubFailed,
    /// `E_MPUB_FAILED`: the outcome of an MPUB is unknown or it was refused.
    MpubFailed,
    /// `E_DPUB_FAILED`: the outcome of a DPUB is unknown or it was refused.
    DpubFailed,
    /// `E_FIN_FAILED`: the message is not this connection's to finish.
    FinFailed,
    /// `E_REQ_FAILED`: the message is not this connection's to requeue.
    ReqFailed,
    /// `E_TOUCH_FAILED`: the message is not this connection's to touch.
    TouchFailed,
}

impl ErrorCode {
    /// The word as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "E_INVALID",
            Self::BadTopic => "E_BAD_TOPIC",
            Self::BadChannel => "E_BAD_CHANNEL",
            Self::BadBody => "E_BAD_BODY",
            Self::BadMessage => "E_BAD_MESSAGE",
            Self::BadProtocol => "E_BAD_PROTOCOL",
            Self::IdentifyFailed => "E_IDENTIFY_FAILED",
            Self::AuthDisabled => "E_AUTH_DISABLED",
            Self::AuthFailed => "E_AUTH_FAILED",
            Self::AuthFirst => "E_AUTH_FIRST",
            Self::Unauthorized => "E_UNAUTHORIZED",
            Self::SubFailed => "E_SUB_FAILED",
            Self::PubFailed => "E_PUB_FAILED",
            Self::MpubFailed => "E_MPUB_FAILED",
            Self::DpubFailed => "E_DPUB_FAILED",
            Self::FinFailed => "E_FIN_FAILED",
            Self::ReqFailed => "E_REQ_FAILED",
            Self::TouchFailed => "E_TOUCH_FAILED",
        }
    }
}

/// What becomes of the connection after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fatality {
    /// The error is sent and the next command is read. Only `E_FIN_FAILED`, `E_REQ_FAILED` and `E_TOUCH_FAILED`:
    /// they are normal after a timeout, and clients expect every other error to end the connection.
    KeepOpen,
    /// The error is sent, then the connection is closed.
    Close,
    /// The connection is closed and nothing is sent.
    CloseSilently,
}

/// Why a message that a client named cannot be finished, requeued or touched by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InFlightError {
    /// Nobody holds it: it timed out, was answered before, or never existed.
    #[error("ID not in flight")]
    NotInFlight,
    /// Another connection holds it.
    #[error("client does not own message")]
    NotOwner,
}

/// An error in what a client sent, or in doing what it asked for.
///
/// Sending the same bytes again helps only after `E_PUB_FAILED`, `E_MPUB_FAILED`, `E_DPUB_FAILED` and `E_SUB_FAILED`,
/// on a new connection; a publish that failed may nevertheless have been stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Told to the client.
    #[error("{}", String::from_utf8_lossy(payload))]
    Answered {
        /// The first word of `payload`.
        code: ErrorCode,
        /// The whole payload of the error frame.
        payload: Bytes,
    },
    /// A line of more than [`MAX_LINE_LENGTH`](crate::MAX_LINE_LENGTH) bytes. nsqd closes without a word, because
    /// what follows cannot be told from garbage.
    #[error("the command line is longer than {} bytes", crate::MAX_LINE_LENGTH)]
    LineTooLong,
}

impl ProtocolError {
    /// The payload of the error frame; `None` if the connection is to be closed without one.
    pub fn payload(&self) -> Option<&Bytes> {
        match self {
            Self::Answered { payload, .. } => Some(payload),
            Self::LineTooLong => None,
        }
    }

    /// The first word of the payload, if there is one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Answered { code, .. } => Some(*code),
            Self::LineTooLong => None,
        }
    }

    /// What becomes of the connection.
    pub fn fatality(&self) -> Fatality {
        match self {
            Self::Answered { code, .. } => match code {
                ErrorCode::FinFailed | ErrorCode::ReqFailed | ErrorCode::TouchFailed => Fatality::KeepOpen,
                _ => Fatality::Close,
            },
            Self::LineTooLong => Fatality::CloseSilently,
        }
    }

    /// The connection began with something else than the magic. The only error without a description.
    pub fn bad_protocol() -> Self {
        let code = ErrorCode::BadProtocol;
        let payload = Bytes::from_static(code.as_str().as_bytes());
        Self::Answered { code, payload }
    }

    /// A FIN for a message that this connection does not hold.
    pub fn fin_failed(id: MessageId, cause: InFlightError) -> Self {
        Self::not_held(ErrorCode::FinFailed, "FIN", id, cause)
    }

    /// A REQ for a message that this connection does not hold.
    pub fn req_failed(id: MessageId, cause: InFlightError) -> Self {
        Self::not_held(ErrorCode::ReqFailed, "REQ", id, cause)
    }

    /// A TOUCH for a message that this connection does not hold.
    pub fn touch_failed(id: MessageId, cause: InFlightError) -> Self {
        Self::not_held(ErrorCode::TouchFailed, "TOUCH", id, cause)
    }

    /// A PUB that was not stored, or of which nobody can say so; nsqd's own cause is `exiting`.
    pub fn pub_failed(cause: impl fmt::Display) -> Self {
        Self::new(ErrorCode::PubFailed, format!("PUB failed {cause}"))
    }

    /// An MPUB that was not stored, or of which nobody can say so.
    pub fn mpub_failed(cause: impl fmt::Display) -> Self {
        Self::new(ErrorCode::MpubFailed, format!("MPUB failed {cause}"))
    }

    /// A DPUB that was not stored, or of which nobody can say so.
    pub fn dpub_failed(cause: impl fmt::Display) -> Self {
        Self::new(ErrorCode::DpubFailed, format!("DPUB failed {cause}"))
    }

    /// A subscription that was refused; nsqd's causes are `consumers for T:C exceeds limit of N` and
    /// `to deleted topic/channel`.
    pub fn sub_failed(cause: impl fmt::Display) -> Self {
        Self::new(ErrorCode::SubFailed, format!("SUB failed {cause}"))
    }

    /// What IDENTIFY granted could not be set up, for example a TLS handshake.
    pub fn identify_failed(cause: impl fmt::Display) -> Self {
        Self::new(ErrorCode::IdentifyFailed, format!("IDENTIFY failed {cause}"))
    }

    /// AUTH to a server without authentication. nsqd checks the body first, so this is for the executor of the
    /// decoded command.
    pub fn auth_disabled() -> Self {
        Self::new(ErrorCode::AuthDisabled, "AUTH disabled")
    }

    /// A second AUTH.
    pub fn auth_already_set() -> Self {
        Self::new(ErrorCode::Invalid, "AUTH already set")
    }

    /// The auth server did not answer, or not as it should; which of it the client is not told.
    pub fn auth_failed() -> Self {
        Self::new(ErrorCode::AuthFailed, "AUTH failed")
    }

    /// The auth server knows nothing that the client may do.
    pub fn no_authorizations() -> Self {
        Self::new(ErrorCode::Unauthorized, "AUTH no authorizations found")
    }

    /// `verb` is SUB, PUB, MPUB or DPUB, on a connection without AUTH.
    pub fn auth_first(verb: &str) -> Self {
        Self::new(ErrorCode::AuthFirst, format!("AUTH required before {verb}"))
    }

    /// The client may not do `verb` there; without a channel for publishes.
    pub fn unauthorized(verb: &str, topic: &TopicName, channel: Option<&ChannelName>) -> Self {
        let topic = go_quote(topic.as_str().as_bytes());
        let channel = go_quote(channel.map_or(&[], |channel| channel.as_str().as_bytes()));
        Self::new(
            ErrorCode::Unauthorized,
            format!("AUTH failed for {verb} on {topic} {channel}"),
        )
    }

    /// An error with nsqd's text.
    pub(crate) fn new(code: ErrorCode, description: impl AsRef<[u8]>) -> Self {
        Self::with_parts(code, &[description.as_ref()])
    }

    /// An error whose text ends with bytes that the client sent.
    pub(crate) fn echoing(code: ErrorCode, description: &str, echo: &[u8]) -> Self {
        Self::with_parts(code, &[description.as_bytes(), echo])
    }

    fn not_held(code: ErrorCode, verb: &str, id: MessageId, cause: InFlightError) -> Self {
        let cause = format!(" failed {cause}");
        let parts = [verb.as_bytes(), b" ", id.as_bytes(), cause.as_bytes()];
        Self::with_parts(code, &parts)
    }

    fn with_parts(code: ErrorCode, description: &[&[u8]]) -> Self {
        let mut payload = Vec::with_capacity(64);
        payload.extend_from_slice(code.as_str().as_bytes());
        payload.push(b' ');
        for part in description {
            payload.extend_from_slice(part);
        }
        Self::Answered {
            code,
            payload: payload.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(error: &ProtocolError) -> &[u8] {
        error.payload().unwrap()
    }

    #[test]
    fn errors_of_execution_have_nsqds_text() {
        let id = MessageId::from_seq(0x2a);
        let topic = TopicName::try_from("t").unwrap();
        let channel = ChannelName::try_from("c#ephemeral").unwrap();
        let table = [
            (
                ProtocolError::fin_failed(id, InFlightError::NotInFlight),
                "E_FIN_FAILED FIN 000000000000002a failed ID not in flight",
            ),
            (
                ProtocolError::req_failed(id, InFlightError::NotOwner),
                "E_REQ_FAILED REQ 000000000000002a failed client does not own message",
            ),
            (
                ProtocolError::touch_failed(id, InFlightError::NotInFlight),
                "E_TOUCH_FAILED TOUCH 000000000000002a failed ID not in flight",
            ),
            (ProtocolError::pub_failed("exiting"), "E_PUB_FAILED PUB failed exiting"),
            (
                ProtocolError::mpub_failed("exiting"),
                "E_MPUB_FAILED MPUB failed exiting",
            ),
            (
                ProtocolError::dpub_failed("exiting"),
                "E_DPUB_FAILED DPUB failed exiting",
            ),
            (
                ProtocolError::sub_failed("consumers for t:c exceeds limit of 1"),
                "E_SUB_FAILED SUB failed consumers for t:c exceeds limit of 1",
            ),
            (
                ProtocolError::identify_failed("no TLS"),
                "E_IDENTIFY_FAILED IDENTIFY failed no TLS",
            ),
            (ProtocolError::auth_disabled(), "E_AUTH_DISABLED AUTH disabled"),
            (ProtocolError::auth_already_set(), "E_INVALID AUTH already set"),
            (ProtocolError::auth_failed(), "E_AUTH_FAILED AUTH failed"),
            (
                ProtocolError::no_authorizations(),
                "E_UNAUTHORIZED AUTH no authorizations found",
            ),
            (
                ProtocolError::auth_first("MPUB"),
                "E_AUTH_FIRST AUTH required before MPUB",
            ),
            (
                ProtocolError::unauthorized("SUB", &topic, Some(&channel)),
                r#"E_UNAUTHORIZED AUTH failed for SUB on "t" "c#ephemeral""#,
            ),
            (
                ProtocolError::unauthorized("PUB", &topic, None),
                r#"E_UNAUTHORIZED AUTH failed for PUB on "t" """#,
            ),
            (ProtocolError::bad_protocol(), "E_BAD_PROTOCOL"),
        ];
        for (error, expected) in table {
            assert_eq!(String::from_utf8_lossy(text(&error)), expected);
            assert_eq!(error.to_string(), expected);
            assert!(expected.starts_with(error.code().unwrap().as_str()));
        }
    }

    #[test]
    fn an_id_is_echoed_as_it_came() {
        let id = MessageId::from_bytes(*b"\xff\0opaque client!");
        let error = ProtocolError::fin_failed(id, InFlightError::NotInFlight);
        assert_eq!(
            text(&error),
            b"E_FIN_FAILED FIN \xff\0opaque client! failed ID not in flight"
        );
    }

    #[test]
    fn only_three_errors_keep_the_connection() {
        let id = MessageId::from_seq(1);
        let cause = InFlightError::NotInFlight;
        for error in [
            ProtocolError::fin_failed(id, cause),
            ProtocolError::req_failed(id, cause),
            ProtocolError::touch_failed(id, cause),
        ] {
            assert_eq!(error.fatality(), Fatality::KeepOpen);
        }
        for error in [
            ProtocolError::pub_failed("x"),
            ProtocolError::mpub_failed("x"),
            ProtocolError::dpub_failed("x"),
            ProtocolError::sub_failed("x"),
            ProtocolError::identify_failed("x"),
            ProtocolError::auth_disabled(),
            ProtocolError::bad_protocol(),
        ] {
            assert_eq!(error.fatality(), Fatality::Close, "{error}");
        }
        assert_eq!(ProtocolError::LineTooLong.fatality(), Fatality::CloseSilently);
        assert_eq!(ProtocolError::LineTooLong.payload(), None);
    }
}
