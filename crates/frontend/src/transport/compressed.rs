//! A compressed connection: the codecs of `nsquorum-protocol` around a carrier.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use nsquorum_protocol::Compression;
use nsquorum_protocol::compression::{Compressor, Decoded, Decompressor};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::Carrier;

/// What is compressed in one step: a snappy chunk at its largest.
const PIECE_BYTES_MAX: usize = 64 * 1024;
/// While this much waits for the carrier nothing more is compressed.
const OUTGOING_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 8 * 1024;
/// What is decompressed in one step.
const DECOMPRESSED_BYTES_MAX: usize = 16 * 1024;

/// Compresses what is written and decompresses what is read.
#[derive(Debug)]
pub(crate) struct Compressed {
    carrier: Carrier,
    compressor: Compressor,
    decompressor: Decompressor,
    /// Received and not decompressed.
    incoming: BytesMut,
    /// Compressed and not written.
    outgoing: BytesMut,
}

impl Compressed {
    pub(super) fn new(carrier: Carrier, compression: Compression, unread: BytesMut) -> Self {
        Self {
            carrier,
            compressor: Compressor::new(compression),
            decompressor: Decompressor::new(compression),
            incoming: unread,
            outgoing: BytesMut::new(),
        }
    }

    pub(super) fn carrier(&mut self) -> &mut Carrier {
        &mut self.carrier
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let room = buffer.remaining().min(DECOMPRESSED_BYTES_MAX);
            let out = buffer.initialize_unfilled_to(room);
            let corrupt = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            match self.decompressor.decompress(&mut self.incoming, out).map_err(corrupt)? {
                Decoded::Bytes(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Decoded::End => return Poll::Ready(Ok(())),
                Decoded::Missing => {}
            }
            if self.incoming.is_empty() {
                // An idle connection keeps no buffer.
                self.incoming = BytesMut::new();
            }
            let mut piece = [0; READ_BYTES];
            let mut piece = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut self.carrier).poll_read(cx, &mut piece))?;
            if piece.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.incoming.extend_from_slice(piece.filled());
        }
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        while self.outgoing.len() >= OUTGOING_BYTES_MAX {
            ready!(self.poll_write_some(cx))?;
        }
        match slices {
            [only] => {
                let piece = &only[..only.len().min(PIECE_BYTES_MAX)];
                self.compressor.compress(piece, &mut self.outgoing);
                Poll::Ready(Ok(piece.len()))
            }
            several => {
                // Several small slices become one piece, which compresses better.
                let mut piece = Vec::new();
                for slice in several {
                    let room = PIECE_BYTES_MAX - piece.len();
                    piece.extend_from_slice(&slice[..slice.len().min(room)]);
                }
                self.compressor.compress(&piece, &mut self.outgoing);
                Poll::Ready(Ok(piece.len()))
            }
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.compressor.flush(&mut self.outgoing);
        while !self.outgoing.is_empty() {
            ready!(self.poll_write_some(cx))?;
        }
        self.outgoing = BytesMut::new();
        Pin::new(&mut self.carrier).poll_flush(cx)
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.carrier).poll_shutdown(cx)
    }

    fn poll_write_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let count = ready!(Pin::new(&mut self.carrier).poll_write(cx, &self.outgoing))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.outgoing.advance(count);
        Poll::Ready(Ok(()))
    }
}
