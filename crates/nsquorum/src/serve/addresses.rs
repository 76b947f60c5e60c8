//! Addresses: what to listen on, what it became, and who we are.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use tokio::net::TcpListener;

/// The addresses that the node really listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Addresses {
    pub(crate) tcp: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) lookup_http: Option<SocketAddr>,
}

impl Addresses {
    pub(crate) fn of(tcp: &TcpListener, http: &TcpListener, lookup: Option<&TcpListener>) -> anyhow::Result<Self> {
        let of = |listener: &TcpListener| listener.local_addr().context("cannot read a socket's address");
        Ok(Self {
            tcp: of(tcp)?,
            http: of(http)?,
            lookup_http: lookup.map(of).transpose()?,
        })
    }
}

/// Listens on `HOST:PORT`; no host means all addresses, as in Go. `flag` is named in errors.
pub(crate) fn listen(address: &str, flag: &str) -> anyhow::Result<TcpListener> {
    let doing = || format!("cannot listen on {address:?} ({flag})");
    let first = resolve(address).with_context(doing)?;
    nsquorum_http::bind(first).with_context(doing)
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
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
        let addresses = Addresses::of(&tcp, &http, None).unwrap();
        write_ports_file(&path, &addresses).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read["tcp"], tcp.local_addr().unwrap().to_string());
        assert_eq!(read["http"], http.local_addr().unwrap().to_string());
        assert!(read["lookup_http"].is_null());
        assert_ne!(tcp.local_addr().unwrap().port(), 0);
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }
}
