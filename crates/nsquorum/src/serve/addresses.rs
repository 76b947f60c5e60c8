//! Addresses: what to listen on, what it became, and who we are.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;

use anyhow::Context as _;
use nsquorum_http::{ListenAddress, Listener};
use serde::{Serialize, Serializer};
use tokio::net::TcpListener;

/// The addresses that the node really listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Addresses {
    pub(crate) tcp: Address,
    pub(crate) http: Option<Address>,
    pub(crate) https: Option<Address>,
    pub(crate) lookup_tcp: Option<Address>,
    pub(crate) lookup_http: Option<Address>,
}

impl Addresses {
    /// The port of plain HTTP; none of a path.
    pub(crate) fn http_port(&self) -> Option<u16> {
        self.http.as_ref().and_then(Address::port)
    }

    /// Says where the node listens, in nsqd's words.
    pub(crate) fn log(&self) {
        let all = [
            ("TCP", Some(&self.tcp)),
            ("HTTP", self.http.as_ref()),
            ("HTTPS", self.https.as_ref()),
            ("LOOKUP TCP", self.lookup_tcp.as_ref()),
            ("LOOKUP HTTP", self.lookup_http.as_ref()),
        ];
        for (name, address) in all {
            if let Some(address) = address {
                tracing::info!("{name}: listening on {address}");
            }
        }
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address(ListenAddress);

impl Address {
    pub(crate) fn of(listener: &Listener) -> anyhow::Result<Self> {
        listener.address().map(Self).context("cannot read a socket's address")
    }

    /// The port; none of a path.
    pub(crate) fn port(&self) -> Option<u16> {
        match &self.0 {
            ListenAddress::Tcp(address) => Some(address.port()),
            ListenAddress::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Listens on `HOST:PORT`; no host, as 0.0.0.0, means all addresses, those of IPv6 too, as in Go. `flag` is named in errors.
pub(crate) fn listen(address: &str, flag: &str) -> anyhow::Result<Listener> {
    let failed = || format!("listen ({address}) failed ({flag})");
    let first = resolve(address).with_context(failed)?;
    Listener::bind(&ListenAddress::Tcp(first)).with_context(failed)
}

/// As [`listen`]; what is no `HOST:PORT` is the path of a Unix socket, as in nsqd.
pub(crate) fn listen_anywhere(address: &str, flag: &str) -> anyhow::Result<Listener> {
    if address.contains(':') {
        return listen(address, flag);
    }
    Listener::bind(&ListenAddress::Unix(address.into())).with_context(|| format!("listen ({address}) failed ({flag})"))
}

/// Listens on `HOST:PORT` for other nodes.
pub(crate) fn listen_for_peers(address: &str, flag: &str) -> anyhow::Result<TcpListener> {
    let failed = || format!("listen ({address}) failed ({flag})");
    let first = resolve(address).with_context(failed)?;
    nsquorum_http::bind(first).with_context(failed)
}

/// The first address of `HOST:PORT`.
pub(crate) fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let address = match address.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => address.to_owned(),
    };
    address.to_socket_addrs()?.next().context("the host has no address")
}

/// Writes the addresses so that a reader never sees half of the file.
pub(crate) fn write_ports_file(path: &Path, addresses: &Addresses) -> anyhow::Result<()> {
    let doing = || format!("cannot write {}", path.display());
    let mut name = path.file_name().with_context(doing)?.to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let text = serde_json::to_vec(addresses)?;
    std::fs::write(&temporary, text).with_context(doing)?;
    std::fs::rename(&temporary, path).with_context(doing)
}

/// The name of this machine.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_without_a_host_mean_all() {
        assert_eq!(resolve(":4150").unwrap(), "0.0.0.0:4150".parse().unwrap());
        assert_eq!(resolve("127.0.0.1:0").unwrap(), "127.0.0.1:0".parse().unwrap());
        assert!(resolve("nowhere").is_err());
    }

    #[tokio::test]
    async fn the_ports_file_has_the_real_ports() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ports.json");
        let tcp = listen("127.0.0.1:0", "--tcp-address").unwrap();
        let http = listen("127.0.0.1:0", "--http-address").unwrap();
        let (tcp, http) = (Address::of(&tcp).unwrap(), Address::of(&http).unwrap());
        let addresses = Addresses {
            tcp: tcp.clone(),
            http: Some(http.clone()),
            https: None,
            lookup_tcp: None,
            lookup_http: None,
        };
        write_ports_file(&path, &addresses).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read["tcp"], tcp.to_string());
        assert_eq!(read["http"], http.to_string());
        assert!(read["lookup_http"].is_null());
        assert_ne!(tcp.port(), Some(0));
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[tokio::test]
    async fn what_is_no_host_and_port_is_a_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nsqd.sock");
        let name = path.to_str().unwrap();
        let address = Address::of(&listen_anywhere(name, "--tcp-address").unwrap()).unwrap();
        assert_eq!((address.port(), address.to_string()), (None, name.to_owned()));
        let tcp = listen_anywhere("127.0.0.1:0", "--tcp-address").unwrap();
        assert!(Address::of(&tcp).unwrap().port().is_some());
    }
}
