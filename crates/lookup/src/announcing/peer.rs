//! One nsqlookupd elsewhere.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nsquorum_protocol::LookupIdentify;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::difference::difference;
use super::{Announcer, Held};
use crate::ProducerDescription;

/// How long dialling may take, and how long a command and its answer. nsqd's.
const STEP_MAX: Duration = Duration::from_secs(1);
/// Between pings; nsqd's. After 300 s without one nsqlookupd hides a producer.
const PING_EVERY: Duration = Duration::from_secs(15);
/// Until the first attempt to connect again; twice as long after each that fails, up to [`PING_EVERY`], which is how often nsqd tries.
const RETRY: Duration = Duration::from_secs(1);
/// The longest answer that is read, in bytes.
const ANSWER_MAX: u32 = 64 << 10;

/// Why a connection is given up.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it takes longer than {STEP_MAX:?}")]
    TooSlow(#[from] tokio::time::error::Elapsed),
    #[error("{command} was answered with {answer}")]
    Refused { command: String, answer: String },
    #[error("an answer of {0} bytes")]
    LongAnswer(u32),
    #[error("it has ended the connection")]
    Closed,
    #[error("it speaks without being asked")]
    Unasked,
}

/// What a node tells about itself: nsqd's keys.
#[derive(Serialize)]
struct Identify<'a> {
    broadcast_address: &'a str,
    hostname: &'a str,
    http_port: i64,
    tcp_port: i64,
    topology_region: &'a str,
    topology_zone: &'a str,
    version: &'a str,
}

/// Keeps the node registered with one nsqlookupd. Dropping its future ends the connection.
pub(super) struct Peer {
    address: String,
    announcer: Announcer,
    description: Arc<ProducerDescription>,
    held: watch::Receiver<Arc<Held>>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.announcer.lost(&self.address);
        self.announcer.forgotten(&self.address);
        self.show_registered(false);
    }
}

impl Peer {
    pub(super) fn new(
        address: &str,
        announcer: Announcer,
        description: Arc<ProducerDescription>,
        held: watch::Receiver<Arc<Held>>,
    ) -> Self {
        Self {
            address: address.to_owned(),
            announcer,
            description,
            held,
        }
    }

    pub(super) async fn run(mut self) {
        let mut retry = RETRY;
        loop {
            let connected = self.connect().await;
            self.announcer.tried(&self.address);
            let lost = match connected {
                Ok(connection) => {
                    retry = RETRY;
                    self.show_registered(true);
                    let lost = self.serve(connection).await;
                    self.announcer.lost(&self.address);
                    self.show_registered(false);
                    lost
                }
                Err(lost) => lost,
            };
            tracing::warn!(address = self.address, cause = %lost, "not registered with this nsqlookupd");
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(PING_EVERY);
        }
    }

    fn show_registered(&self, is_registered: bool) {
        let gauge = metrics::gauge!("nsquorum_lookupd_registered", "address" => self.address.clone());
        gauge.set(if is_registered { 1.0 } else { 0.0 });
    }

    async fn connect(&self) -> Result<TcpStream, Lost> {
        let mut connection = timeout(STEP_MAX, TcpStream::connect(&self.address)).await??;
        connection.set_nodelay(true)?;
        let body = self.identify();
        let length = u32::try_from(body.len()).expect("a description of a node is short");
        let bytes = [b"  V1IDENTIFY\n".as_slice(), &length.to_be_bytes(), &body].concat();
        let answer = ask(&mut connection, &bytes).await?;
        let info = LookupIdentify::parse(&answer).map_err(|_| Lost::Refused {
            command: "IDENTIFY".to_owned(),
            answer: String::from_utf8_lossy(&answer).into_owned(),
        })?;
        tracing::info!(
            address = self.address,
            version = info.version,
            "connected to an nsqlookupd"
        );
        if !info.broadcast_address.is_empty() {
            let host = match info.broadcast_address {
                host if host.contains(':') => format!("[{host}]"),
                host => host,
            };
            self.announcer
                .registered(&self.address, format!("{host}:{}", info.http_port));
        }
        Ok(connection)
    }

    fn identify(&self) -> Vec<u8> {
        let description = &self.description;
        let body = Identify {
            broadcast_address: &description.broadcast_address,
            hostname: &description.hostname,
            http_port: description.http_port,
            tcp_port: description.tcp_port,
            topology_region: &description.topology_region,
            topology_zone: &description.topology_zone,
            version: &description.version,
        };
        serde_json::to_vec(&body).expect("plain data always serializes")
    }

    /// Says what the node holds until the connection is lost.
    async fn serve(&mut self, mut connection: TcpStream) -> Lost {
        let mut said = Arc::new(Held::new());
        loop {
            let held = Arc::clone(&self.held.borrow_and_update());
            for command in difference(&said, &held) {
                if let Err(lost) = order(&mut connection, &command).await {
                    return lost;
                }
            }
            said = held;
            let mut byte = [0];
            tokio::select! {
                // nsqd hears of a lost connection with its next ping; this node at once.
                heard = connection.peek(&mut byte) => return match heard {
                    Ok(0) => Lost::Closed,
                    Ok(_) => Lost::Unasked,
                    Err(error) => error.into(),
                },
                changed = self.held.changed() => if changed.is_err() {
                    // The announcer ends, and this with it.
                    std::future::pending::<()>().await;
                },
                () = tokio::time::sleep(PING_EVERY) => if let Err(lost) = order(&mut connection, "PING\n").await {
                    return lost;
                },
            }
        }
    }
}

/// A command that is answered with OK.
async fn order(connection: &mut TcpStream, command: &str) -> Result<(), Lost> {
    let answer = ask(connection, command.as_bytes()).await?;
    if answer == b"OK" {
        return Ok(());
    }
    Err(Lost::Refused {
        command: command.trim_end().to_owned(),
        answer: String::from_utf8_lossy(&answer).into_owned(),
    })
}

async fn ask(connection: &mut TcpStream, bytes: &[u8]) -> Result<Vec<u8>, Lost> {
    timeout(STEP_MAX, async {
        connection.write_all(bytes).await?;
        let length = connection.read_u32().await?;
        if length > ANSWER_MAX {
            return Err(Lost::LongAnswer(length));
        }
        let mut answer = vec![0; length as usize];
        connection.read_exact(&mut answer).await?;
        Ok(answer)
    })
    .await?
}
