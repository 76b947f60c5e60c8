//! TCP connections that can be ended from outside.
//!
//! Dropping streams and channels is not enough: HTTP/2 says goodbye first, and to a peer that does not read that takes for ever, a
//! connection and its buffers each time the peer is dialled again. Severing makes the next read or write fail.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// A TCP connection until its token is cancelled.
pub(super) struct Severable {
    stream: TcpStream,
    sever: CancellationToken,
    severed: Pin<Box<WaitForCancellationFutureOwned>>,
    admitted: CancellationToken,
}

/// What the server knows of a connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) remote: Option<SocketAddr>,
    pub(super) sever: CancellationToken,
    /// Cancelled when the peer is accepted: until then the connection has little time.
    pub(super) admitted: CancellationToken,
}

impl Severable {
    pub(super) fn new(stream: TcpStream, sever: CancellationToken) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            severed: Box::pin(sever.clone().cancelled_owned()),
            sever,
            admitted: CancellationToken::new(),
        })
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.sever.is_cancelled() || self.severed.as_mut().poll(cx).is_ready() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl AsyncRead for Severable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Severable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Severable {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        Connection {
            remote: self.stream.peer_addr().ok(),
            sever: self.sever.clone(),
            admitted: self.admitted.clone(),
        }
    }
}
