//! Bytes read from a client that have not been decoded.
//!
//! A body is later a slice of this buffer, so the buffer's pieces live as long as the messages in them. Its size follows the traffic: an
//! idle connection has none (the first bytes after a rest are read into the stack and copied), a busy one reads large pieces, and a body
//! whose length is known gets its room at once.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

const PIECE_BYTES_MIN: usize = 4 * 1024;
const PIECE_BYTES_MAX: usize = 256 * 1024;
/// Room below which it is better to start a new piece than to read into the rest of the old one.
const ROOM_BYTES_MIN: usize = 512;
const FIRST_BYTES: usize = 2 * 1024;

/// The input of one connection.
#[derive(Debug)]
pub(crate) struct Input {
    bytes: BytesMut,
    piece_bytes: usize,
}

impl Input {
    /// An empty buffer without memory.
    pub(crate) fn new() -> Self {
        Self {
            bytes: BytesMut::new(),
            piece_bytes: PIECE_BYTES_MIN,
        }
    }

    /// What has been read and not decoded.
    pub(crate) fn bytes(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// What has been read and not decoded leaves: it belongs to another layer.
    pub(crate) fn take(&mut self) -> BytesMut {
        self.bytes.split()
    }

    /// Reads once; `wanted` is how many bytes more the command that has begun needs (0: unknown). Zero bytes read is the end.
    pub(crate) fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        wanted: usize,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<usize>> {
        if self.bytes.capacity() == 0 {
            let mut first = [0; FIRST_BYTES];
            let mut buffer = ReadBuf::new(&mut first);
            ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
            let count = buffer.filled().len();
            if count > 0 {
                self.bytes.reserve(count.max(wanted).max(self.piece_bytes));
                self.bytes.extend_from_slice(buffer.filled());
            }
            return Poll::Ready(Ok(count));
        }
        let room = self.bytes.capacity() - self.bytes.len();
        if room < wanted || room < ROOM_BYTES_MIN {
            self.bytes.reserve(wanted.max(self.piece_bytes));
        }
        let room = self.bytes.spare_capacity_mut().len();
        let count = {
            let mut limited = (&mut self.bytes).limit(PIECE_BYTES_MAX.max(wanted));
            ready!(tokio_read(stream, &mut limited, cx))?
        };
        // Reads that fill the room call for larger pieces, small ones for smaller.
        if count >= room {
            self.piece_bytes = (self.piece_bytes * 2).min(PIECE_BYTES_MAX);
        } else if count < self.piece_bytes / 8 {
            self.piece_bytes = (self.piece_bytes / 2).max(PIECE_BYTES_MIN);
        }
        Poll::Ready(Ok(count))
    }

    /// Gives the memory back if nothing waits in it.
    pub(crate) fn release(&mut self) {
        if self.bytes.is_empty() {
            *self = Self::new();
        }
    }
}

fn tokio_read<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut impl bytes::BufMut,
    cx: &mut Context<'_>,
) -> Poll<std::io::Result<usize>> {
    // `read_buf` keeps no state of its own between polls: all progress is in the buffer.
    let mut read = std::pin::pin!(tokio::io::AsyncReadExt::read_buf(stream, buffer));
    read.as_mut().poll(cx)
}
