//! The bytes under a connection: a socket, TLS on it, compression on either.
//!
//! The common case, a socket without anything, is one branch away from it. A layer is put on between two bytes: what the client had
//! already sent behind the last command before it belongs to the layer, and goes there first.

mod compressed;
mod rewound;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use nsquorum_http::Socket;
use nsquorum_protocol::Compression;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use crate::tls::{ServerTls, TlsSession};
use compressed::Compressed;
use rewound::Rewound;

/// What a connection reads from and writes to.
#[derive(Debug)]
pub(crate) enum Transport {
    Plain(Carrier),
    Compressed(Box<Compressed>),
}

/// What may be compressed.
#[derive(Debug)]
pub(crate) enum Carrier {
    Socket(Socket),
    Tls(Box<TlsStream<Rewound>>),
}

/// A handshake that failed; the socket is still there for a last word.
#[derive(Debug)]
pub(crate) struct HandshakeFailed {
    pub(crate) cause: io::Error,
    pub(crate) transport: Transport,
}

impl Transport {
    /// Serves a TLS handshake on a plain socket until `deadline`; `unread` was received behind the last command.
    pub(crate) async fn encrypt(
        self,
        tls: &ServerTls,
        deadline: Sleep,
        unread: BytesMut,
    ) -> Result<(Self, TlsSession), Box<HandshakeFailed>> {
        let Self::Plain(Carrier::Socket(socket)) = self else {
            unreachable!("TLS is granted once, and never on top of a compression");
        };
        match tls
            .acceptor()
            .accept(Rewound::until(deadline, unread, socket))
            .into_fallible()
            .await
        {
            Ok(mut stream) => {
                stream.get_mut().0.without_deadline();
                let session = TlsSession::of(stream.get_ref().1);
                Ok((Self::Plain(Carrier::Tls(Box::new(stream))), session))
            }
            Err((cause, rewound)) => Err(Box::new(HandshakeFailed {
                cause,
                transport: Self::from(rewound.into_socket()),
            })),
        }
    }

    /// Compresses from here on; `unread` was received behind the last command.
    pub(crate) fn compress(self, compression: Compression, unread: BytesMut) -> Self {
        let Self::Plain(carrier) = self else {
            unreachable!("one compression is granted, once");
        };
        Self::Compressed(Box::new(Compressed::new(carrier, compression, unread)))
    }

    /// The socket under everything.
    pub(crate) fn socket(&mut self) -> &mut Socket {
        let carrier = match self {
            Self::Plain(carrier) => carrier,
            Self::Compressed(compressed) => compressed.carrier(),
        };
        match carrier {
            Carrier::Socket(socket) => socket,
            Carrier::Tls(stream) => stream.get_mut().0.socket(),
        }
    }
}

impl From<Socket> for Transport {
    fn from(socket: Socket) -> Self {
        Self::Plain(Carrier::Socket(socket))
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(carrier) => Pin::new(carrier).poll_read(cx, buffer),
            Self::Compressed(compressed) => compressed.poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(carrier) => Pin::new(carrier).poll_write_vectored(cx, slices),
            Self::Compressed(compressed) => compressed.poll_write(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(carrier) => Pin::new(carrier).poll_flush(cx),
            Self::Compressed(compressed) => compressed.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(carrier) => Pin::new(carrier).poll_shutdown(cx),
            Self::Compressed(compressed) => compressed.poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
