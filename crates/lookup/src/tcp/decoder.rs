//! From bytes to commands, without IO and with a limit on everything that a peer can send.

use bytes::{Buf as _, Bytes, BytesMut};
use nsquorum_protocol::{ChannelName, TopicName};

use super::error::{LookupError, Verb};

const MAGIC: &[u8; 4] = b"  V1";
/// The longest line without its newline, in bytes. What nsqd sends is below 150.
const LINE_MAX: usize = 4096;
/// The longest body of IDENTIFY in bytes. What nsqd sends is below 500.
const BODY_MAX: usize = 64 << 10;

/// One command, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// PING
    Ping,
    /// IDENTIFY with its body.
    Identify(Bytes),
    /// REGISTER
    Register(TopicName, Option<ChannelName>),
    /// UNREGISTER
    Unregister(TopicName, Option<ChannelName>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expecting {
    Magic,
    Line,
    BodySize,
    Body(usize),
}

/// Splits what arrives into commands.
#[derive(Debug)]
pub struct Decoder {
    expecting: Expecting,
    is_identified: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            expecting: Expecting::Magic,
            is_identified: false,
        }
    }
}

impl Decoder {
    /// A decoder at the beginning of a connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// IDENTIFY was accepted: what follows is judged accordingly.
    pub fn identified(&mut self) {
        self.is_identified = true;
    }

    /// Takes the next command from the front of `input`; `None` if it needs more bytes.
    ///
    /// # Errors
    /// What the peer has to be told; nothing that follows counts.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Command>, LookupError> {
        loop {
            match self.expecting {
                Expecting::Magic => {
                    if input.len() < MAGIC.len() {
                        return Ok(None);
                    }
                    if input.split_to(MAGIC.len()) != MAGIC[..] {
                        return Err(LookupError::BadProtocol);
                    }
                    self.expecting = Expecting::Line;
                }
                Expecting::Line => {
                    let Some(end) = input.iter().take(LINE_MAX + 1).position(|byte| *byte == b'\n') else {
                        return if input.len() > LINE_MAX {
                            Err(LookupError::LineTooLong)
                        } else {
                            Ok(None)
                        };
                    };
                    let line = input.split_to(end);
                    input.advance(1);
                    if let Some(command) = self.line(&line)? {
                        return Ok(Some(command));
                    }
                    self.expecting = Expecting::BodySize;
                }
                Expecting::BodySize => {
                    let Some(size) = input.first_chunk().copied().map(i32::from_be_bytes) else {
                        return Ok(None);
                    };
                    let bytes = usize::try_from(size).ok().filter(|bytes| *bytes <= BODY_MAX);
                    input.advance(4);
                    self.expecting = Expecting::Body(bytes.ok_or(LookupError::BodySize(size))?);
                }
                Expecting::Body(bytes) => {
                    if input.len() < bytes {
                        return Ok(None);
                    }
                    self.expecting = Expecting::Line;
                    return Ok(Some(Command::Identify(input.split_to(bytes).freeze())));
                }
            }
        }
    }

    /// What the peer has to be told if nothing more comes.
    pub fn end(&self) -> Option<LookupError> {
        match self.expecting {
            Expecting::Magic | Expecting::Line => None,
            Expecting::BodySize => Some(LookupError::NoBodySize),
            Expecting::Body(_) => Some(LookupError::NoBody),
        }
    }

    /// `None` is IDENTIFY, whose body follows.
    fn line(&self, line: &[u8]) -> Result<Option<Command>, LookupError> {
        let mut words = trimmed(line).split(|byte| *byte == b' ');
        let word = words.next().unwrap_or_default();
        let verb = match word {
            b"PING" => return Ok(Some(Command::Ping)),
            b"IDENTIFY" if self.is_identified => return Err(LookupError::IdentifiedAlready),
            b"IDENTIFY" => return Ok(None),
            b"REGISTER" => Verb::Register,
            b"UNREGISTER" => Verb::Unregister,
            _ => return Err(LookupError::InvalidCommand(word.to_vec())),
        };
        if !self.is_identified {
            return Err(LookupError::MustIdentify);
        }
        let topic = words.next().ok_or(LookupError::TooFewParams(verb))?;
        // An empty channel is none.
        let channel = words.next().filter(|name| !name.is_empty());
        let bad_topic = |name: &[u8]| LookupError::BadTopic {
            verb,
            name: name.to_vec(),
        };
        let bad_channel = |name: &[u8]| LookupError::BadChannel {
            verb,
            name: name.to_vec(),
        };
        let topic = TopicName::try_from(topic).map_err(|_| bad_topic(topic))?;
        let channel = channel
            .map(|name| ChannelName::try_from(name).map_err(|_| bad_channel(name)))
            .transpose()?;
        Ok(Some(match verb {
            Verb::Register => Command::Register(topic, channel),
            Verb::Unregister => Command::Unregister(topic, channel),
        }))
    }
}

/// Without white space at both ends, as Go means it: of Unicode where the line is Unicode.
fn trimmed(line: &[u8]) -> &[u8] {
    match std::str::from_utf8(line) {
        Ok(text) => text.trim().as_bytes(),
        Err(_) => line.trim_ascii(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that comes out of `input`, and the error that ends it.
    fn decode(decoder: &mut Decoder, input: &[u8]) -> (Vec<Command>, Option<LookupError>) {
        let (mut buffer, mut commands) = (BytesMut::from(input), Vec::new());
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(command)) => commands.push(command),
                Ok(None) => return (commands, None),
                Err(error) => return (commands, Some(error)),
            }
        }
    }

    /// Of a connection that has identified itself.
    fn line(line: &str) -> Result<Option<Command>, LookupError> {
        let mut decoder = Decoder::new();
        decoder.identified();
        decoder.next(&mut BytesMut::from(format!("  V1{line}\n").as_bytes()))
    }

    fn topic(name: &str) -> TopicName {
        name.parse().expect("valid")
    }

    fn channel(name: &str) -> Option<ChannelName> {
        Some(name.parse().expect("valid"))
    }

    #[test]
    fn commands_are_found_wherever_the_bytes_are_cut() {
        let body = br#"{"a":1}"#;
        let mut bytes = b"  V1PING\nIDENTIFY\n".to_vec();
        bytes.extend((body.len() as i32).to_be_bytes());
        bytes.extend(body);
        bytes.extend(b"PING\r\n");
        let expected = [
            Command::Ping,
            Command::Identify(Bytes::from_static(body)),
            Command::Ping,
        ];
        assert_eq!(decode(&mut Decoder::new(), &bytes), (expected.to_vec(), None));
        for cut in 0..=bytes.len() {
            let (mut decoder, mut buffer, mut commands) = (Decoder::new(), BytesMut::new(), Vec::new());
            for part in [&bytes[..cut], &bytes[cut..]] {
                buffer.extend_from_slice(part);
                while let Some(command) = decoder.next(&mut buffer).expect("valid") {
                    commands.push(command);
                }
            }
            assert_eq!(commands, expected, "cut at {cut}");
        }
    }

    #[test]
    fn lines_are_trimmed_and_split_at_each_space() {
        let register = |channel| Ok(Some(Command::Register(topic("t"), channel)));
        assert_eq!(line("REGISTER t"), register(None));
        assert_eq!(line(" \tREGISTER t c x\u{a0}\r"), register(channel("c")));
        assert_eq!(line("REGISTER t  c"), register(None), "an empty channel is none");
        assert_eq!(
            line("UNREGISTER t c#ephemeral"),
            Ok(Some(Command::Unregister(topic("t"), channel("c#ephemeral"))))
        );
        let refused = |text: &str| line(text).expect_err("refused").to_bytes();
        assert_eq!(
            refused("REGISTER  t"),
            b"E_BAD_TOPIC REGISTER topic name '' is not valid"
        );
        assert_eq!(
            refused("UNREGISTER t$ c"),
            b"E_BAD_TOPIC UNREGISTER topic name 't$' is not valid"
        );
        assert_eq!(
            refused("REGISTER t c$"),
            b"E_BAD_CHANNEL REGISTER channel name 'c$' is not valid"
        );
        assert_eq!(refused("REGISTER"), b"E_INVALID REGISTER insufficient number of params");
        assert_eq!(refused("register t"), b"E_INVALID invalid command register");
        assert_eq!(refused(""), b"E_INVALID invalid command ");
        assert_eq!(refused("IDENTIFY"), b"E_INVALID cannot IDENTIFY again");
    }

    #[test]
    fn who_has_not_identified_itself_may_only_ping() {
        let (commands, error) = decode(&mut Decoder::new(), b"  V1PING\nREGISTER\nPING\n");
        assert_eq!(
            (commands, error),
            (vec![Command::Ping], Some(LookupError::MustIdentify))
        );
        assert_eq!(
            decode(&mut Decoder::new(), b"  V2PING\n").1,
            Some(LookupError::BadProtocol)
        );
    }

    #[test]
    fn everything_has_a_limit() {
        let long = [b"  V1".as_slice(), &b"x".repeat(LINE_MAX + 1)].concat();
        assert_eq!(decode(&mut Decoder::new(), &long).1, Some(LookupError::LineTooLong));
        let longest = [&long[..long.len() - 1], b"\n"].concat();
        let word = b"x".repeat(LINE_MAX);
        assert_eq!(
            decode(&mut Decoder::new(), &longest).1,
            Some(LookupError::InvalidCommand(word))
        );
        for size in [-1, i32::MIN, i32::MAX, BODY_MAX as i32 + 1] {
            let bytes = [b"  V1IDENTIFY\n".as_slice(), &size.to_be_bytes()].concat();
            assert_eq!(decode(&mut Decoder::new(), &bytes).1, Some(LookupError::BodySize(size)));
        }
    }

    #[test]
    fn a_body_that_never_comes_is_an_error_and_a_line_is_none() {
        assert_eq!(Decoder::new().end(), None);
        let mut decoder = Decoder::new();
        let mut after = |bytes: &[u8]| {
            assert_eq!(decode(&mut decoder, bytes), (Vec::new(), None));
            decoder.end()
        };
        assert_eq!(after(b"  V1"), None);
        assert_eq!(after(b"IDENTIFY\n"), Some(LookupError::NoBodySize));
        assert_eq!(after(b"\0\0\0\x09"), Some(LookupError::NoBody));
    }
}
