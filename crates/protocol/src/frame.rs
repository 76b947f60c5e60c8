//! What a server sends: `[size][type][data]`, the size counting the type and the data.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::message_id::{MESSAGE_ID_LENGTH, MessageId};

/// The response of a command that succeeded.
pub const OK: &[u8] = b"OK";
/// The response of CLS.
pub const CLOSE_WAIT: &[u8] = b"CLOSE_WAIT";
/// The response that nobody asked for; clients answer it with any command.
pub const HEARTBEAT: &[u8] = b"_heartbeat_";

const SIZE_FIELD: usize = 4;
const TYPE_FIELD: usize = 4;
/// Timestamp, attempts and id.
const MESSAGE_HEADER: usize = 8 + 2 + MESSAGE_ID_LENGTH;

/// The bytes of a message frame in front of the body.
pub const MESSAGE_HEAD_LENGTH: usize = SIZE_FIELD + TYPE_FIELD + MESSAGE_HEADER;

const RESPONSE: i32 = 0;
const ERROR: i32 = 1;
const MESSAGE: i32 = 2;

/// Appends a response.
///
/// # Panics
/// If `data` has 2 GiB or more, which no frame can carry.
pub fn response(dst: &mut BytesMut, data: &[u8]) {
    simple(dst, RESPONSE, data);
}

/// Appends an error; `payload` is [`ProtocolError::payload`](crate::ProtocolError::payload).
///
/// # Panics
/// If `payload` has 2 GiB or more, which no frame can carry.
pub fn error(dst: &mut BytesMut, payload: &[u8]) {
    simple(dst, ERROR, payload);
}

/// Appends a message. `timestamp_ns` is the time of its publishing in nanoseconds since 1970; `attempts` counts this
/// delivery, so it is at least 1.
///
/// # Panics
/// If the body has 2 GiB or more, which no frame can carry.
pub fn message(dst: &mut BytesMut, timestamp_ns: i64, attempts: u16, id: MessageId, body: &[u8]) {
    dst.reserve(MESSAGE_HEAD_LENGTH + body.len());
    message_head(dst, timestamp_ns, attempts, id, body.len());
    dst.put_slice(body);
}

/// Appends all of a message but its body, for a caller that writes a large body from where it is.
///
/// # Panics
/// If the body has 2 GiB or more, which no frame can carry.
pub fn message_head(dst: &mut BytesMut, timestamp_ns: i64, attempts: u16, id: MessageId, body_length: usize) {
    head(dst, MESSAGE, MESSAGE_HEADER + body_length);
    dst.put_i64(timestamp_ns);
    dst.put_u16(attempts);
    dst.put_slice(id.as_bytes());
}

fn simple(dst: &mut BytesMut, frame_type: i32, data: &[u8]) {
    dst.reserve(SIZE_FIELD + TYPE_FIELD + data.len());
    head(dst, frame_type, data.len());
    dst.put_slice(data);
}

fn head(dst: &mut BytesMut, frame_type: i32, data_length: usize) {
    let size = i32::try_from(TYPE_FIELD + data_length).expect("what a frame carries is below 2 GiB");
    dst.put_i32(size);
    dst.put_i32(frame_type);
}

/// A frame as a client sees it. The parts are parts of the read buffer, not copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The answer to a command, or a heartbeat.
    Response(Bytes),
    /// An error: code, space, description.
    Error(Bytes),
    /// A message.
    Message {
        /// When it was published, in nanoseconds since 1970.
        timestamp_ns: i64,
        /// How often it was delivered, this time included.
        attempts: u16,
        /// Its id.
        id: MessageId,
        /// Its body.
        body: Bytes,
    },
}

/// Why bytes are not a frame. The stream cannot be read on: only a new connection helps, and only if the peer is a
/// server of this protocol at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The size is not between a type's four bytes and the limit. An HTTP server's answer looks like that.
    #[error("frame size {size} is not between 4 and {max}")]
    Size {
        /// The size as received.
        size: i32,
        /// The limit.
        max: usize,
    },
    /// No such type.
    #[error("frame type {0} is unknown")]
    Type(i32),
    /// A message that does not even have its header.
    #[error("a message frame of {size} bytes has no room for its header")]
    Message {
        /// The size as received.
        size: usize,
    },
}

/// Takes frames off a connection's bytes.
#[derive(Clone, Copy, Debug)]
pub struct FrameDecoder {
    max_size: usize,
    wanted: usize,
}

impl FrameDecoder {
    /// A decoder that refuses frames whose size field is above `max_size` bytes. A message of `n` bytes makes a size
    /// of `n + 30`.
    pub const fn new(max_size: usize) -> Self {
        Self { max_size, wanted: 0 }
    }

    /// Takes the next frame off the front of `buf`; `None` if it is not complete.
    ///
    /// # Errors
    /// [`FrameError`], as soon as the frame's first bytes show it. Nothing is consumed then.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some((size_field, rest)) = buf.split_first_chunk::<SIZE_FIELD>() else {
            self.wanted = SIZE_FIELD + TYPE_FIELD - buf.len();
            return Ok(None);
        };
        let announced = i32::from_be_bytes(*size_field);
        let size = match usize::try_from(announced) {
            Ok(size) if (TYPE_FIELD..=self.max_size).contains(&size) => size,
            _ => {
                return Err(FrameError::Size {
                    size: announced,
                    max: self.max_size,
                });
            }
        };
        let missing = (SIZE_FIELD + size).saturating_sub(buf.len());
        let Some(type_field) = rest.first_chunk::<TYPE_FIELD>() else {
            self.wanted = missing;
            return Ok(None);
        };
        let frame_type = i32::from_be_bytes(*type_field);
        match frame_type {
            RESPONSE | ERROR => {}
            MESSAGE if size >= TYPE_FIELD + MESSAGE_HEADER => {}
            MESSAGE => return Err(FrameError::Message { size }),
            other => return Err(FrameError::Type(other)),
        }
        if missing > 0 {
            self.wanted = missing;
            return Ok(None);
        }
        self.wanted = 0;
        buf.advance(SIZE_FIELD + TYPE_FIELD);
        let mut data = buf.split_to(size - TYPE_FIELD).freeze();
        Ok(Some(match frame_type {
            RESPONSE => Frame::Response(data),
            ERROR => Frame::Error(data),
            _ => {
                let timestamp_ns = data.get_i64();
                let attempts = data.get_u16();
                let mut id = [0; MESSAGE_ID_LENGTH];
                data.copy_to_slice(&mut id);
                Frame::Message {
                    timestamp_ns,
                    attempts,
                    id: MessageId::from_bytes(id),
                    body: data,
                }
            }
        }))
    }

    /// How many bytes the next frame still lacks as far as is known, at least 1 and at most the limit plus 4.
    pub const fn wanted(&self) -> usize {
        if self.wanted == 0 { 1 } else { self.wanted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1000;

    #[test]
    fn frames_have_nsqs_bytes() {
        let mut dst = BytesMut::new();
        response(&mut dst, OK);
        assert_eq!(&dst[..], b"\0\0\0\x06\0\0\0\0OK");
        dst.clear();
        error(&mut dst, b"E_BAD_PROTOCOL");
        assert_eq!(&dst[..], b"\0\0\0\x12\0\0\0\x01E_BAD_PROTOCOL");
        dst.clear();
        message(
            &mut dst,
            0x0102_0304_0506_0708,
            0x0a0b,
            MessageId::from_seq(0xc),
            b"body",
        );
        assert_eq!(
            &dst[..],
            b"\0\0\0\x22\0\0\0\x02\x01\x02\x03\x04\x05\x06\x07\x08\x0a\x0b000000000000000cbody"
        );
        let mut head = BytesMut::new();
        message_head(&mut head, 0x0102_0304_0506_0708, 0x0a0b, MessageId::from_seq(0xc), 4);
        assert_eq!(head.len(), MESSAGE_HEAD_LENGTH);
        assert_eq!(head[..], dst[..MESSAGE_HEAD_LENGTH]);
    }

    #[test]
    fn frames_come_back_whatever_the_pieces() {
        let frames = [
            Frame::Response(Bytes::from_static(HEARTBEAT)),
            Frame::Error(Bytes::from_static(b"E_INVALID x")),
            Frame::Response(Bytes::new()),
            Frame::Message {
                timestamp_ns: -1,
                attempts: u16::MAX,
                id: MessageId::from_seq(7),
                body: Bytes::from_static(b"a body"),
            },
        ];
        let mut wire = BytesMut::new();
        for frame in &frames {
            match frame {
                Frame::Response(data) => response(&mut wire, data),
                Frame::Error(data) => error(&mut wire, data),
                Frame::Message {
                    timestamp_ns,
                    attempts,
                    id,
                    body,
                } => {
                    message(&mut wire, *timestamp_ns, *attempts, *id, body);
                }
            }
        }
        for piece in 1..=wire.len() {
            let mut decoder = FrameDecoder::new(LIMIT);
            let mut buf = BytesMut::new();
            let mut decoded = Vec::new();
            for part in wire.chunks(piece) {
                buf.extend_from_slice(part);
                while let Some(frame) = decoder.decode(&mut buf).unwrap() {
                    decoded.push(frame);
                }
            }
            assert_eq!(decoded, frames, "pieces of {piece}");
            assert!(buf.is_empty());
        }
    }

    #[test]
    fn tells_what_is_missing() {
        let mut decoder = FrameDecoder::new(LIMIT);
        let mut buf = BytesMut::new();
        assert_eq!(decoder.decode(&mut buf), Ok(None));
        assert_eq!(decoder.wanted(), 8);
        buf.extend_from_slice(b"\0\0\0\x64\0");
        assert_eq!(decoder.decode(&mut buf), Ok(None));
        assert_eq!(decoder.wanted(), 99);
    }

    #[test]
    fn refuses_what_is_no_frame() {
        let table: &[(&[u8], FrameError)] = &[
            (
                b"HTTP/1.1 400",
                FrameError::Size {
                    size: 0x4854_5450,
                    max: LIMIT,
                },
            ),
            (b"\0\0\0\x03", FrameError::Size { size: 3, max: LIMIT }),
            (b"\0\0\x03\xe9", FrameError::Size { size: 1001, max: LIMIT }),
            (b"\xff\xff\xff\xff", FrameError::Size { size: -1, max: LIMIT }),
            (b"\0\0\0\x04\0\0\0\x03", FrameError::Type(3)),
            (b"\0\0\0\x1d\0\0\0\x02", FrameError::Message { size: 29 }),
        ];
        for (bytes, error) in table {
            let mut buf = BytesMut::from(*bytes);
            assert_eq!(FrameDecoder::new(LIMIT).decode(&mut buf), Err(*error));
        }
        let mut largest = BytesMut::from(&b"\0\0\x03\xe8\0\0\0\0"[..]);
        assert_eq!(FrameDecoder::new(LIMIT).decode(&mut largest), Ok(None));
    }
}
