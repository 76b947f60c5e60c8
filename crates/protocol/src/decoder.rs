//! From a connection's bytes to commands.
//!
//! One command at a time: IDENTIFY, SUB and CLS change what the next bytes mean (state, TLS, compression), so the
//! caller executes a command before it asks for the next, and nothing beyond the command's last byte is taken. The
//! order of checks is nsqd's, because a command with several faults must show the same one.
//!
//! Bodies are parts of the read buffer, never copies. The price: a small body keeps the whole buffer that it came in
//! alive, so whoever holds bodies for long copies them into something of the right size.

use bytes::{Buf, Bytes, BytesMut};

use crate::command::{Command, ConnectionState, Verb};
use crate::error::{ErrorCode, ProtocolError};
use crate::limits::Limits;
use crate::line::{Head, Line, parse_line};
use crate::mpub::{self, MpubItems};
use crate::name::TopicName;

/// The longest command line in bytes with its newline: nsqd's read buffer.
pub const MAX_LINE_LENGTH: usize = 16 * 1024;

const LENGTH_FIELD: usize = 4;

/// What a command is judged by, apart from its own bytes.
#[derive(Clone, Copy, Debug)]
pub struct DecodeContext<'a> {
    /// The connection's state.
    pub state: ConnectionState,
    /// What the node accepts.
    pub limits: &'a Limits,
    /// Whether the connection has heartbeats; without them it may not subscribe.
    pub heartbeats_enabled: bool,
    /// Whether the node requires TLS and this connection does not have it: then only IDENTIFY is legal.
    pub tls_missing: bool,
}

impl<'a> DecodeContext<'a> {
    /// A connection with heartbeats on a node that does not require TLS.
    pub const fn new(state: ConnectionState, limits: &'a Limits) -> Self {
        Self {
            state,
            limits,
            heartbeats_enabled: true,
            tls_missing: false,
        }
    }
}

/// Reads the commands of one connection, after the magic.
#[derive(Debug, Default)]
pub struct Decoder {
    progress: Progress,
    wanted: usize,
    /// The topic of the last publish. Producers nearly always stay with one, and so share one allocation.
    last_topic: Option<TopicName>,
}

#[derive(Debug)]
enum Progress {
    /// Of the line, this many bytes are known to hold no newline.
    Line { scanned: usize },
    /// The line is consumed; its body's length comes next.
    BodySize(Head),
    /// The length is consumed.
    Body { head: Head, size: usize },
    /// The line of an MPUB is consumed; the body's length comes next.
    MpubSize(TopicName),
    /// The length, as the client told it, is consumed; nothing of the rest is.
    MpubItems {
        topic: TopicName,
        told: usize,
        items: MpubItems,
    },
    /// What was received is no command, and where the next one begins is unknown.
    Refused(ProtocolError),
}

impl Default for Progress {
    fn default() -> Self {
        Self::Line { scanned: 0 }
    }
}

/// Where one step of reading a command led.
enum Step {
    Next(Progress),
    Missing(Progress, usize),
    Complete(Command),
}

impl Decoder {
    /// A decoder at the start of a command.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next command off the front of `buf`; `None` if it is not complete. What belongs to an incomplete
    /// command may be taken already: between calls for one command the caller may only append to `buf`.
    ///
    /// # Errors
    /// Every error of this function ends the connection, and asking again gives the same one.
    pub fn decode(
        &mut self,
        buf: &mut BytesMut,
        context: &DecodeContext<'_>,
    ) -> Result<Option<Command>, ProtocolError> {
        self.wanted = 0;
        loop {
            let progress = std::mem::take(&mut self.progress);
            match self.step(progress, buf, context) {
                Ok(Step::Next(progress)) => self.progress = progress,
                Ok(Step::Missing(progress, wanted)) => {
                    self.progress = progress;
                    self.wanted = wanted;
                    return Ok(None);
                }
                Ok(Step::Complete(command)) => return Ok(Some(command)),
                Err(error) => {
                    self.progress = Progress::Refused(error.clone());
                    return Err(error);
                }
            }
        }
    }

    /// How many bytes the command most likely still lacks, at least 1: what the caller may reserve in its buffer.
    /// At most the larger of `max_msg_size` and `max_body_size`. Only an estimate, because a client may lie about an
    /// MPUB's length: do not wait for that many before calling [`Decoder::decode`] again.
    pub fn wanted(&self) -> usize {
        self.wanted.max(1)
    }

    /// The error that nsqd sends when the client closes its side here; `None` between commands, within a line, where
    /// it says nothing, and after an error. To be asked after [`Decoder::decode`] returned `None` on all that was
    /// received.
    pub fn at_eof(&self) -> Option<ProtocolError> {
        match &self.progress {
            Progress::Line { .. } | Progress::Refused(_) => None,
            Progress::BodySize(head) => Some(ProtocolError::new(
                head.code(),
                format!("{} failed to read {} size", head.verb(), head.noun()),
            )),
            Progress::Body { head, .. } => Some(ProtocolError::new(
                head.code(),
                format!("{} failed to read {}", head.verb(), head.noun()),
            )),
            Progress::MpubSize(_) => Some(ProtocolError::new(ErrorCode::BadBody, "MPUB failed to read body size")),
            Progress::MpubItems { items, .. } => Some(items.cut_short()),
        }
    }

    fn step(
        &mut self,
        progress: Progress,
        buf: &mut BytesMut,
        context: &DecodeContext<'_>,
    ) -> Result<Step, ProtocolError> {
        Ok(match progress {
            Progress::Line { scanned } => {
                let window = &buf[..buf.len().min(MAX_LINE_LENGTH)];
                let Some(offset) = window[scanned..].iter().position(|byte| *byte == b'\n') else {
                    if window.len() == MAX_LINE_LENGTH {
                        return Err(ProtocolError::LineTooLong);
                    }
                    return Ok(Step::Missing(Progress::Line { scanned: window.len() }, 1));
                };
                let end = scanned + offset;
                let line = parse_line(&window[..end], context, &mut self.last_topic)?;
                buf.advance(end + 1);
                match line {
                    Line::Complete(command) => Step::Complete(command),
                    Line::Body(head) => Step::Next(Progress::BodySize(head)),
                    Line::Mpub(topic) => Step::Next(Progress::MpubSize(topic)),
                }
            }
            Progress::BodySize(head) => match take_length(buf) {
                Ok(size) => {
                    let size = head.checked_size(size, context.limits)?;
                    Step::Next(Progress::Body { head, size })
                }
                Err(missing) => Step::Missing(Progress::BodySize(head), missing),
            },
            Progress::Body { head, size } if buf.len() < size => {
                Step::Missing(Progress::Body { head, size }, size - buf.len())
            }
            Progress::Body { head, size } => Step::Complete(head.with_body(buf.split_to(size).freeze())),
            Progress::MpubSize(topic) => match take_length(buf) {
                Ok(size) => {
                    let told = checked_mpub_size(size, context.limits)?;
                    Step::Next(Progress::MpubItems {
                        topic,
                        told,
                        items: MpubItems::default(),
                    })
                }
                Err(missing) => Step::Missing(Progress::MpubSize(topic), missing),
            },
            Progress::MpubItems { topic, told, mut items } => match items.read(buf, context.limits)? {
                mpub::Progress::Complete(length) => {
                    let data = buf.split_to(length).freeze();
                    Step::Complete(Command::Mpub {
                        topic,
                        bodies: items.into_bodies(&data),
                    })
                }
                mpub::Progress::Missing(missing) => {
                    let wanted = missing.max(told.saturating_sub(buf.len()));
                    Step::Missing(Progress::MpubItems { topic, told, items }, wanted)
                }
            },
            Progress::Refused(error) => return Err(error),
        })
    }
}

impl Head {
    const fn verb(&self) -> &'static str {
        match self {
            Self::Identify => Verb::Identify.as_str(),
            Self::Auth => Verb::Auth.as_str(),
            Self::Pub { .. } => Verb::Pub.as_str(),
            Self::Dpub { .. } => Verb::Dpub.as_str(),
        }
    }

    const fn code(&self) -> ErrorCode {
        match self {
            Self::Identify | Self::Auth => ErrorCode::BadBody,
            Self::Pub { .. } | Self::Dpub { .. } => ErrorCode::BadMessage,
        }
    }

    /// What nsqd calls the body in its errors of reading and of size.
    const fn noun(&self) -> &'static str {
        match self {
            Self::Identify | Self::Auth => "body",
            Self::Pub { .. } | Self::Dpub { .. } => "message body",
        }
    }

    fn checked_size(&self, size: i32, limits: &Limits) -> Result<usize, ProtocolError> {
        let (limit, subject) = match self {
            Self::Identify | Self::Auth => (limits.max_body_size, "body"),
            Self::Pub { .. } | Self::Dpub { .. } => (limits.max_msg_size, "message"),
        };
        let verb = self.verb();
        match usize::try_from(size) {
            Ok(size) if size > limit => Err(ProtocolError::new(
                self.code(),
                format!("{verb} {subject} too big {size} > {limit}"),
            )),
            Ok(size) if size > 0 => Ok(size),
            _ => Err(ProtocolError::new(
                self.code(),
                format!("{verb} invalid {} size {size}", self.noun()),
            )),
        }
    }

    fn with_body(self, body: Bytes) -> Command {
        match self {
            Self::Identify => Command::Identify(body),
            Self::Auth => Command::Auth(body),
            Self::Pub { topic } => Command::Pub { topic, body },
            Self::Dpub { topic, defer_ms } => Command::Dpub { topic, defer_ms, body },
        }
    }
}

/// Takes a length field, or tells how many bytes it lacks.
fn take_length(buf: &mut BytesMut) -> Result<i32, usize> {
    if buf.len() < LENGTH_FIELD {
        Err(LENGTH_FIELD - buf.len())
    } else {
        Ok(buf.get_i32())
    }
}

fn checked_mpub_size(size: i32, limits: &Limits) -> Result<usize, ProtocolError> {
    let limit = limits.max_body_size;
    match usize::try_from(size) {
        Ok(size) if size > limit => Err(ProtocolError::new(
            ErrorCode::BadBody,
            format!("MPUB body too big {size} > {limit}"),
        )),
        Ok(size) if size > 0 => Ok(size),
        _ => Err(ProtocolError::new(
            ErrorCode::BadBody,
            format!("MPUB invalid body size {size}"),
        )),
    }
}
