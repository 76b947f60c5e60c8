//! One node's process, and the next one when it dies.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};

use super::plan::NodePlan;
use crate::exit::Exit;

/// Between a node's death and its next start.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// Between two questions whether a starting node serves.
const PING_INTERVAL: Duration = Duration::from_millis(50);

/// What became of a node.
pub(super) enum Happening {
    Started {
        pid: u32,
    },
    Serving,
    Ended {
        status: ExitStatus,
        again_in: Option<Duration>,
    },
    CannotStart {
        error: anyhow::Error,
    },
}

/// What a supervision is made from.
pub(super) struct Supervision {
    pub(super) node: NodePlan,
    pub(super) restart: bool,
    pub(super) stop_deadline: Duration,
    pub(super) tell: mpsc::Sender<(usize, Happening)>,
    pub(super) stopping: watch::Receiver<bool>,
}

impl Supervision {
    async fn tell(&self, happening: Happening) {
        // Nobody listens any more once everything stops.
        drop(self.tell.send((self.node.number - 1, happening)).await);
    }

    async fn stop_requested(&self) {
        let mut stopping = self.stopping.clone();
        drop(stopping.wait_for(|stopping| *stopping).await);
    }
}

/// Keeps a node running until told to stop. Returns whether its last process ended cleanly.
pub(super) async fn supervise(supervision: Supervision) -> bool {
    loop {
        let mut child = match start(&supervision.node) {
            Ok(child) => child,
            Err(error) => {
                supervision.tell(Happening::CannotStart { error }).await;
                return false;
            }
        };
        let pid = child.id().expect("a child that was not waited for has a pid");
        supervision.tell(Happening::Started { pid }).await;
        let ended = tokio::select! {
            ended = child.wait() => ended,
            () = serving(&supervision) => tokio::select! {
                ended = child.wait() => ended,
                () = supervision.stop_requested() => return stop(child, supervision.stop_deadline).await,
            },
            () = supervision.stop_requested() => return stop(child, supervision.stop_deadline).await,
        };
        let Ok(status) = ended else { return false };
        let again = supervision.restart && restart_may_help(status);
        let again_in = again.then_some(RESTART_DELAY);
        supervision.tell(Happening::Ended { status, again_in }).await;
        let Some(delay) = again_in else {
            return status.success();
        };
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = supervision.stop_requested() => return true,
        }
    }
}

fn start(node: &NodePlan) -> anyhow::Result<Child> {
    std::fs::create_dir_all(&node.data_dir).with_context(|| format!("cannot make {}", node.data_dir.display()))?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(&node.log);
    let log = log.with_context(|| format!("cannot write {}", node.log.display()))?;
    Command::new(&node.argv[0])
        .args(&node.argv[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        // Ctrl-C in a terminal goes to the whole process group; the nodes shall hear of it from here only.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start the process")
}

/// Tells, once, that the node answers `/ping` with OK; then waits for ever.
async fn serving(supervision: &Supervision) {
    while !ping(&supervision.node.http).await {
        tokio::time::sleep(PING_INTERVAL).await;
    }
    supervision.tell(Happening::Serving).await;
}

async fn ping(address: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(b"GET /ping HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<bool, std::io::Error>(answer.starts_with(b"HTTP/1.1 200"))
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), ask).await, Ok(Ok(true)))
}

/// SIGTERM, and SIGKILL if that does not help. Says whether it ended cleanly.
async fn stop(mut child: Child, deadline: Duration) -> bool {
    if let Some(pid) = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw)
    {
        // It may just have ended by itself.
        _ = kill_process(pid, Signal::TERM);
    }
    match tokio::time::timeout(deadline, child.wait()).await {
        Ok(ended) => ended.is_ok_and(|status| status.success()),
        Err(_) => {
            drop(child.kill().await);
            false
        }
    }
}

/// Whether another start could end differently.
fn restart_may_help(status: ExitStatus) -> bool {
    let hopeless = [
        Exit::Usage,
        Exit::ImpossibleData,
        Exit::DirectoryInUse,
        Exit::ForeignDirectory,
    ];
    !hopeless
        .iter()
        .any(|exit| status.code() == Some(i32::from(exit.code())))
}
