//! Where servers listen and what they accept: TCP, or a socket in the file system.

use std::io::{self, IoSlice};
use std::net::{Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

const BACKLOG: u32 = 1024;
/// Until the first probe of a silent peer, and between probes.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A path in the file system.
    Unix(PathBuf),
}

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// At an address and a port.
    Tcp(TcpListener),
    /// At a path, whose file goes with the listener.
    Unix(UnixListener, SocketFile),
}

/// The file of a socket; removed on drop.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

/// A connection without anything on top.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Through the file system.
    Unix(UnixStream),
}

/// A TCP listener with `SO_REUSEADDR`: a node that was killed must be able to return to its port at once.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// As [`bind`]; all addresses of IPv4 are all of IPv6 too, if the machine has it, as in Go.
fn bind_all(address: SocketAddr) -> io::Result<TcpListener> {
    if !(address.is_ipv4() && address.ip().is_unspecified()) {
        return bind(address);
    }
    match bind((Ipv6Addr::UNSPECIFIED, address.port()).into()) {
        // A port that is taken is no reason to try another family: half of the clients would come to somebody else.
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => bind(address),
        both => both,
    }
}

impl Listener {
    /// Listens. 0.0.0.0 means the addresses of IPv6 as well, if there are any. A socket file that a killed process has left, on which nobody listens, is replaced.
    pub fn bind(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => Ok(Self::Tcp(bind_all(*address)?)),
            ListenAddress::Unix(path) => {
                remove_abandoned(path)?;
                Ok(Self::Unix(UnixListener::bind(path)?, SocketFile(path.clone())))
            }
        }
    }

    /// Where it really listens: with the port that the system has chosen.
    pub fn address(&self) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(listener) => Ok(ListenAddress::Tcp(listener.local_addr()?)),
            Self::Unix(_, file) => Ok(ListenAddress::Unix(file.0.clone())),
        }
    }

    /// The next connection, and over TCP the other end's address; one of IPv4 as such, also where both families are listened to.
    pub async fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                Ok((Socket::Tcp(stream), Some(address)))
            }
            Self::Unix(listener, _) => Ok((Socket::Unix(listener.accept().await?.0), None)),
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

fn remove_abandoned(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        _ => Ok(()),
    }
}

impl Socket {
    /// Small answers leave at once; without it the kernel would hold them back.
    pub fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Unix(_) => Ok(()),
        }
    }

    /// The kernel asks a silent peer whether it still lives, as Go does on every connection: one whose machine has vanished says nothing.
    pub fn set_keepalive(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                let probes = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
                SockRef::from(stream).set_tcp_keepalive(&probes)
            }
            Self::Unix(_) => Ok(()),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_addresses_are_those_of_both_families() {
        let any: SocketAddr = "0.0.0.0:0".parse().expect("an address");
        let listener = Listener::bind(&ListenAddress::Tcp(any)).expect("a free port");
        let ListenAddress::Tcp(bound) = listener.address().expect("bound") else {
            panic!("it was bound to a port");
        };
        let loopbacks: &[&str] = if bound.is_ipv6() {
            &["127.0.0.1", "::1"]
        } else {
            &["127.0.0.1"]
        };
        for loopback in loopbacks {
            let ip: std::net::IpAddr = loopback.parse().expect("an address");
            let client = TcpStream::connect((ip, bound.port())).await.expect("somebody listens");
            let (_socket, from) = listener.accept().await.expect("a connection");
            assert_eq!(from, client.local_addr().ok(), "the address is the client's own");
        }
    }

    #[tokio::test]
    async fn a_killed_process_leaves_its_path_to_the_next_and_a_living_one_does_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("nsqd.sock");
        let address = ListenAddress::Unix(path.clone());
        let abandoned = UnixListener::bind(&path).expect("a free path");
        drop(abandoned);
        assert!(path.exists(), "as after SIGKILL");
        let living = Listener::bind(&address).expect("nobody listens there");
        assert_eq!(living.address().expect("bound"), address);
        let second = Listener::bind(&address).map(|_| ()).map_err(|error| error.kind());
        assert_eq!(second, Err(io::ErrorKind::AddrInUse));
        drop(living);
        assert!(!path.exists(), "the file goes with the listener");
        std::fs::write(&path, "precious").expect("written");
        assert!(Listener::bind(&address).is_err());
        assert_eq!(std::fs::read(&path).expect("kept"), b"precious");
    }
}
