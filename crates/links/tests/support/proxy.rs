//! A wire between two nodes that a test can stop or cut.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wire {
    /// Nothing passes, and nothing is lost.
    stopped: bool,
    /// Connections of an earlier number are broken.
    cut: u64,
}

/// A wire in one direction of dialling; bytes pass both ways.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    wire: Arc<watch::Sender<Wire>>,
}

impl Proxy {
    pub(crate) async fn new(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let wire = Arc::new(watch::channel(Wire { stopped: false, cut: 0 }).0);
        tokio::spawn(accept(listener, target, Arc::downgrade(&wire)));
        Self { address, wire }
    }

    pub(crate) fn stop(&self, stopped: bool) {
        self.wire.send_modify(|wire| wire.stopped = stopped);
    }

    pub(crate) fn cut(&self) {
        self.wire.send_modify(|wire| wire.cut += 1);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, wire: std::sync::Weak<watch::Sender<Wire>>) {
    while let Ok((near, _)) = listener.accept().await {
        let Some(wire) = wire.upgrade() else { return };
        let watch = wire.subscribe();
        tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(target).await else {
                return;
            };
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let (near_in, near_out) = near.into_split();
            let (far_in, far_out) = far.into_split();
            let cut = watch.borrow().cut;
            // Either end takes the other with it.
            tokio::select! {
                () = pump(near_in, far_out, watch.clone(), cut) => {}
                () = pump(far_in, near_out, watch, cut) => {}
            }
        });
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut wire: watch::Receiver<Wire>, cut: u64) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        if wire.wait_for(|wire| !wire.stopped || wire.cut != cut).await.is_err() || wire.borrow().cut != cut {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = wire.changed() => continue,
        };
        match read {
            Ok(0) | Err(_) => return,
            Ok(read) if to.write_all(&buffer[..read]).await.is_err() => return,
            Ok(_) => {}
        }
    }
}
