//! The body of a publish of many messages, over TCP and HTTP.
//!
//! nsqd reads the length in front of an MPUB's body, checks its range and then forgets it: how long the body really is
//! follows from the count and the sizes inside. Clients that get the length wrong work with nsqd, so they work here.
//! But those sizes alone allow a million messages of a megabyte each, which would have to be held until the last one
//! has arrived; therefore the real length is held to `max_body_size` too, with the error of the length in front.

use bytes::Bytes;

use crate::error::{ErrorCode, ProtocolError};
use crate::limits::Limits;

const LENGTH_FIELD: usize = 4;

/// How far `[count]([size][body])*` has been read. Looks at a body that still grows at its end, from its start each
/// time, and never twice at the same bytes.
#[derive(Debug, Default)]
pub(crate) struct MpubItems {
    stage: Stage,
    /// Offset of the first byte that was not yet used.
    at: usize,
    /// Where each complete message ends; it starts after the size behind its predecessor.
    ends: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    #[default]
    Count,
    Size {
        count: u32,
    },
    Body {
        count: u32,
        size: usize,
    },
}

/// What a look at the data found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All messages are there; the body has this many bytes.
    Complete(usize),
    /// At least this many bytes are missing.
    Missing(usize),
}

impl MpubItems {
    pub(crate) fn read(&mut self, data: &[u8], limits: &Limits) -> Result<Progress, ProtocolError> {
        loop {
            match self.stage {
                Stage::Count => {
                    let Some(count) = self.field(data) else {
                        return Ok(self.missing(data, LENGTH_FIELD));
                    };
                    // The smallest message takes a size and one byte.
                    let max_count = limits.max_body_size.saturating_sub(LENGTH_FIELD) / (LENGTH_FIELD + 1);
                    let valid = u32::try_from(count).ok().filter(|n| *n > 0 && *n as usize <= max_count);
                    let Some(count) = valid else {
                        return Err(ProtocolError::new(
                            ErrorCode::BadBody,
                            format!("MPUB invalid message count {count}"),
                        ));
                    };
                    self.at += LENGTH_FIELD;
                    self.stage = Stage::Size { count };
                }
                Stage::Size { count } => {
                    if self.ends.len() == count as usize {
                        return Ok(Progress::Complete(self.at));
                    }
                    let Some(size) = self.field(data) else {
                        return Ok(self.missing(data, LENGTH_FIELD));
                    };
                    let size = self.checked_size(size, limits)?;
                    self.at += LENGTH_FIELD;
                    self.stage = Stage::Body { count, size };
                }
                Stage::Body { count, size } => {
                    if data.len() - self.at < size {
                        return Ok(self.missing(data, size));
                    }
                    self.at += size;
                    self.ends
                        .push(u32::try_from(self.at).expect("sizes of 31 bits were added up below max_body_size"));
                    self.stage = Stage::Size { count };
                }
            }
        }
    }

    /// What nsqd says when the client closes before the body is complete.
    pub(crate) fn cut_short(&self) -> ProtocolError {
        match self.stage {
            Stage::Count => ProtocolError::new(ErrorCode::BadBody, "MPUB failed to read message count"),
            Stage::Size { .. } => ProtocolError::new(
                ErrorCode::BadMessage,
                format!("MPUB failed to read message({}) body size", self.ends.len()),
            ),
            Stage::Body { .. } => ProtocolError::new(ErrorCode::BadMessage, "MPUB failed to read message body"),
        }
    }

    /// The messages of a body that was read to [`Progress::Complete`], as parts of it.
    pub(crate) fn into_bodies(self, data: &Bytes) -> Vec<Bytes> {
        let mut start = LENGTH_FIELD;
        let mut bodies = Vec::with_capacity(self.ends.len());
        for end in self.ends {
            let end = end as usize;
            bodies.push(data.slice(start + LENGTH_FIELD..end));
            start = end;
        }
        bodies
    }

    fn checked_size(&self, size: i32, limits: &Limits) -> Result<usize, ProtocolError> {
        let valid = usize::try_from(size).ok().filter(|n| *n > 0);
        let Some(valid) = valid else {
            return Err(ProtocolError::new(
                ErrorCode::BadMessage,
                format!("MPUB invalid message({}) body size {size}", self.ends.len()),
            ));
        };
        if valid > limits.max_msg_size {
            return Err(ProtocolError::new(
                ErrorCode::BadMessage,
                format!("MPUB message too big {valid} > {}", limits.max_msg_size),
            ));
        }
        let total = self.at + LENGTH_FIELD + valid;
        if total > limits.max_body_size || u32::try_from(total).is_err() {
            return Err(ProtocolError::new(
                ErrorCode::BadBody,
                format!("MPUB body too big {total} > {}", limits.max_body_size),
            ));
        }
        Ok(valid)
    }

    fn field(&self, data: &[u8]) -> Option<i32> {
        data[self.at..].first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
    }

    fn missing(&self, data: &[u8], wanted: usize) -> Progress {
        Progress::Missing(self.at + wanted - data.len())
    }
}

/// Why the body of HTTP `/mpub` was refused. nsqd answers all of them with status 413; the same body cannot succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MpubBodyError {
    /// More than `max_body_size` bytes.
    #[error("BODY_TOO_BIG")]
    BodyTooBig,
    /// A line of more than `max_msg_size` bytes.
    #[error("MSG_TOO_BIG")]
    MessageTooBig,
    /// The count of a binary body.
    #[error("BAD_BODY")]
    BadBody,
    /// A message of a binary body: its size, or bytes missing.
    #[error("BAD_MESSAGE")]
    BadMessage,
}

impl MpubBodyError {
    /// The status of the answer.
    pub const HTTP_STATUS: u16 = 413;

    /// The `message` of the answer.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BodyTooBig => "BODY_TOO_BIG",
            Self::MessageTooBig => "MSG_TOO_BIG",
            Self::BadBody => "BAD_BODY",
            Self::BadMessage => "BAD_MESSAGE",
        }
    }
}

/// The messages of a text body: one a line, without the newline; a `\r` in front of it belongs to the message, and
/// empty lines are no messages. An empty body is no messages and no error.
///
/// The messages are parts of `body`, not copies.
///
/// # Errors
/// [`MpubBodyError::MessageTooBig`] and [`MpubBodyError::BodyTooBig`], whichever nsqd would meet first when it reads
/// line by line.
pub fn mpub_text(body: &Bytes, limits: &Limits) -> Result<Vec<Bytes>, MpubBodyError> {
    let mut bodies = Vec::new();
    let mut start = 0;
    while start < body.len() {
        let newline = body[start..]
            .iter()
            .position(|byte| *byte == b'\n')
            .map(|offset| start + offset);
        let end = newline.unwrap_or(body.len());
        let next = newline.map_or(body.len(), |at| at + 1);
        if next > limits.max_body_size {
            return Err(MpubBodyError::BodyTooBig);
        }
        if end - start > limits.max_msg_size {
            return Err(MpubBodyError::MessageTooBig);
        }
        if end > start {
            bodies.push(body.slice(start..end));
        }
        start = next;
    }
    Ok(bodies)
}

/// The messages of a binary body: `[count]([size][message])*`, without the length in front that TCP has. Bytes after
/// the last message are ignored.
///
/// The messages are parts of `body`, not copies.
///
/// # Errors
/// [`MpubBodyError::BodyTooBig`] for the whole body, else the code of the same error over TCP.
pub fn mpub_binary(body: &Bytes, limits: &Limits) -> Result<Vec<Bytes>, MpubBodyError> {
    if body.len() > limits.max_body_size {
        return Err(MpubBodyError::BodyTooBig);
    }
    let mut items = MpubItems::default();
    let refused = match items.read(body, limits) {
        Ok(Progress::Complete(_)) => return Ok(items.into_bodies(body)),
        Ok(Progress::Missing(_)) => items.cut_short(),
        Err(error) => error,
    };
    Err(match refused.code() {
        Some(ErrorCode::BadMessage) => MpubBodyError::BadMessage,
        _ => MpubBodyError::BadBody,
    })
}
