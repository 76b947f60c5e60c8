//! What one command line says, judged in nsqd's order.

use crate::command::{Command, ConnectionState, Verb};
use crate::decoder::DecodeContext;
use crate::error::{ErrorCode, ProtocolError};
use crate::limits::Limits;
use crate::message_id::MessageId;
use crate::name::{ChannelName, TopicName};
use crate::quote::go_quote;

/// A command that lacks its body.
#[derive(Clone, Debug)]
pub(crate) enum Head {
    Identify,
    Auth,
    Pub { topic: TopicName },
    Dpub { topic: TopicName, defer_ms: u64 },
}

/// What a command line turned out to be.
#[derive(Clone, Debug)]
pub(crate) enum Line {
    Complete(Command),
    Body(Head),
    Mpub(TopicName),
}

/// Judges a line without its newline. Parameters are separated by exactly one space; two make an empty parameter
/// between them. Those that a command has no use for are ignored.
pub(crate) fn parse_line(
    line: &[u8],
    context: &DecodeContext<'_>,
    last_topic: &mut Option<TopicName>,
) -> Result<Line, ProtocolError> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.split(|byte| *byte == b' ');
    let word = words.next().unwrap_or_default();
    let first = words.next();
    let second = words.next();

    let parsed = Verb::parse(word);
    if context.tls_missing && parsed != Some(Verb::Identify) {
        let text = [b"cannot ".as_slice(), word, b" in current state (TLS required)"].concat();
        return Err(ProtocolError::new(ErrorCode::Invalid, text));
    }
    let Some(verb) = parsed else {
        return Err(ProtocolError::echoing(ErrorCode::Invalid, "invalid command ", word));
    };
    if !verb.allowed_in(context.state) {
        return Err(invalid(format!("cannot {} in current state", verb.as_str())));
    }

    let limits = context.limits;
    let command = match verb {
        Verb::Identify => return Ok(Line::Body(Head::Identify)),
        Verb::Auth => {
            if first.is_some() {
                return Err(invalid("AUTH invalid number of parameters"));
            }
            return Ok(Line::Body(Head::Auth));
        }
        Verb::Pub => {
            let name = first.ok_or_else(|| insufficient(verb))?;
            return Ok(Line::Body(Head::Pub {
                topic: topic_name(verb, name, last_topic)?,
            }));
        }
        Verb::Mpub => {
            let name = first.ok_or_else(|| insufficient(verb))?;
            return Ok(Line::Mpub(topic_name(verb, name, last_topic)?));
        }
        Verb::Dpub => {
            let (name, delay) = first.zip(second).ok_or_else(|| insufficient(verb))?;
            let topic = topic_name(verb, name, last_topic)?;
            let defer_ms = dpub_delay(delay, limits)?;
            return Ok(Line::Body(Head::Dpub { topic, defer_ms }));
        }
        Verb::Sub => {
            if !context.heartbeats_enabled {
                return Err(invalid("cannot SUB with heartbeats disabled"));
            }
            let (topic, channel) = first.zip(second).ok_or_else(|| insufficient(verb))?;
            let topic = TopicName::try_from(topic).map_err(|_| bad_topic(verb, topic))?;
            let channel = ChannelName::try_from(channel).map_err(|_| {
                let text = format!("SUB channel name {} is not valid", go_quote(channel));
                ProtocolError::new(ErrorCode::BadChannel, text)
            })?;
            Command::Sub { topic, channel }
        }
        Verb::Rdy if context.state == ConnectionState::Closing => Command::Nop,
        Verb::Rdy => Command::Rdy(first.map_or(Ok(1), |count| ready_count(count, limits))?),
        Verb::Fin => Command::Fin(message_id(first.ok_or_else(|| insufficient(verb))?)?),
        Verb::Touch => Command::Touch(message_id(first.ok_or_else(|| insufficient(verb))?)?),
        Verb::Req => {
            let (id, timeout) = first.zip(second).ok_or_else(|| insufficient(verb))?;
            Command::Req {
                id: message_id(id)?,
                timeout_ms: req_timeout(timeout, limits)?,
            }
        }
        Verb::Cls => Command::Cls,
        Verb::Nop => Command::Nop,
    };
    Ok(Line::Complete(command))
}

fn invalid(description: impl AsRef<[u8]>) -> ProtocolError {
    ProtocolError::new(ErrorCode::Invalid, description)
}

/// nsqd's two spellings of one thing.
fn insufficient(verb: Verb) -> ProtocolError {
    let noun = match verb {
        Verb::Fin | Verb::Req | Verb::Touch => "params",
        _ => "parameters",
    };
    invalid(format!("{} insufficient number of {noun}", verb.as_str()))
}

fn topic_name(verb: Verb, name: &[u8], last_topic: &mut Option<TopicName>) -> Result<TopicName, ProtocolError> {
    match last_topic {
        Some(topic) if topic.as_str().as_bytes() == name => Ok(topic.clone()),
        _ => {
            let topic = TopicName::try_from(name).map_err(|_| bad_topic(verb, name))?;
            *last_topic = Some(topic.clone());
            Ok(topic)
        }
    }
}

fn bad_topic(verb: Verb, name: &[u8]) -> ProtocolError {
    // nsqd says its code twice for MPUB.
    let prefix = if verb == Verb::Mpub { "E_BAD_TOPIC " } else { "" };
    let text = format!("{prefix}{} topic name {} is not valid", verb.as_str(), go_quote(name));
    ProtocolError::new(ErrorCode::BadTopic, text)
}

fn message_id(word: &[u8]) -> Result<MessageId, ProtocolError> {
    let bytes = word.try_into().map_err(|_| invalid("invalid message ID"))?;
    Ok(MessageId::from_bytes(bytes))
}

/// A number as nsqd reads it: ASCII digits only, none at all is 0.
enum Number {
    Value(u64),
    /// Digits, but more than 64 bits. nsqd wraps around, to a number that nobody meant.
    Overflow,
    NotDigits,
}

impl Number {
    fn parse(word: &[u8]) -> Self {
        if !word.iter().all(u8::is_ascii_digit) {
            return Self::NotDigits;
        }
        let digit = |byte: &u8| u64::from(byte - b'0');
        let value = word
            .iter()
            .try_fold(0u64, |sum, byte| sum.checked_mul(10)?.checked_add(digit(byte)));
        value.map_or(Self::Overflow, Self::Value)
    }
}

fn ready_count(word: &[u8], limits: &Limits) -> Result<u32, ProtocolError> {
    let Number::Value(count) = Number::parse(word) else {
        return Err(ProtocolError::echoing(
            ErrorCode::Invalid,
            "RDY could not parse count ",
            word,
        ));
    };
    let max = limits.max_rdy_count;
    match u32::try_from(count) {
        Ok(count) if count <= max => Ok(count),
        // nsqd has the count in an i64, and shows what became of it.
        _ => Err(invalid(format!(
            "RDY count {} out of range 0-{max}",
            count.cast_signed()
        ))),
    }
}

/// Cuts the delay to the limit; one so long that nsqd's nanoseconds overflow is none.
fn req_timeout(word: &[u8], limits: &Limits) -> Result<u64, ProtocolError> {
    const MAX_MS: u64 = i64::MAX as u64 / 1_000_000;
    match Number::parse(word) {
        Number::Value(timeout_ms) if timeout_ms <= MAX_MS => Ok(timeout_ms.min(limits.max_req_timeout_ms)),
        Number::Value(_) | Number::Overflow => Ok(0),
        Number::NotDigits => Err(ProtocolError::echoing(
            ErrorCode::Invalid,
            "REQ could not parse timeout ",
            word,
        )),
    }
}

fn dpub_delay(word: &[u8], limits: &Limits) -> Result<u64, ProtocolError> {
    let Number::Value(delay_ms) = Number::parse(word) else {
        return Err(ProtocolError::echoing(
            ErrorCode::Invalid,
            "DPUB could not parse timeout ",
            word,
        ));
    };
    let max = limits.max_req_timeout_ms;
    if delay_ms > max {
        return Err(invalid(format!("DPUB timeout {delay_ms} out of range 0-{max}")));
    }
    Ok(delay_ms)
}
