//! `nsquorum up`: a whole cluster on this machine, for trying things out, for development and for tests.
//!
//! It starts one `serve` process per node, restarts those that die, and says in one file, `cluster.json`, where everything is. It has no
//! part in the cluster itself: a node that is started by hand with the same arguments is as good as one that is started here.

mod cluster_file;
mod page;
mod plan;
mod process;

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use rustix::fs::{FlockOperation, flock};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::cli::complain;
use crate::exit::Exit;
use cluster_file::ClusterFile;
pub(crate) use cluster_file::{http_addresses, listed_nodes};
use plan::Plan;
use process::{Happening, Supervision, supervise};

/// Nodes of a new cluster if nothing else is said: the fewest of which one may fail.
const NODES: usize = 3;
/// The first node's TCP port if nothing else is said: nsqd's.
const BASE_PORT: u16 = 4150;
/// Where everything is if nothing else is said.
pub(crate) const DIRECTORY: &str = "nsquorum-data";
/// After a SIGTERM a node has this long to stop by itself.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Flags of `up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// How many nodes; as many as DIR already has, else 3.
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// Where the data, the logs and cluster.json are.
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    dir: PathBuf,
    /// Node i uses the ports from P+10(i-1) on: TCP, HTTP, lookup TCP, lookup HTTP, peers. As before on this DIR, else 4150.
    #[arg(long, value_name = "P")]
    base_port: Option<u16>,
    /// Leave a node that dies as it is, instead of starting it again.
    #[arg(long)]
    no_restart: bool,
    /// Flags for every node's `serve`.
    #[arg(last = true, value_name = "SERVE FLAGS")]
    serve_flags: Vec<String>,
}

/// Runs the cluster until a signal.
pub(crate) async fn run(args: UpArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.dir).with_context(|| format!("cannot make {}", args.dir.display()))?;
    let dir = args.dir.canonicalize()?;
    let _lock = lock(&dir)?;
    let plan = Plan::load_or_make(&dir, args.nodes, args.base_port, &args.serve_flags)?;
    let mut file = ClusterFile::new(&dir, &plan);
    file.remove()?;

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopping) = watch::channel(false);
    let (tell, mut happenings) = mpsc::channel(64);
    let mut nodes = JoinSet::new();
    for node in &plan.nodes {
        let supervision = Supervision {
            node: node.clone(),
            restart: !args.no_restart,
            stop_deadline: STOP_DEADLINE,
            tell: tell.clone(),
            stopping: stopping.clone(),
        };
        nodes.spawn(supervise(supervision));
    }
    drop(tell);

    let mut welcomed = false;
    let outcome = loop {
        let happening = tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            happening = happenings.recv() => happening,
        };
        let Some((node, happening)) = happening else {
            break Err(anyhow::anyhow!(
                "every node has ended; their logs are in {}",
                dir.display()
            ));
        };
        let name = &plan.nodes[node].name;
        match happening {
            Happening::Started { pid } => file.started(node, pid),
            Happening::Serving => {
                file.serving(node);
                if welcomed {
                    complain(&format!("{name} serves"));
                }
            }
            Happening::Ended { status, again_in } => {
                file.ended(node);
                complain(&ended(name, status, again_in));
            }
            Happening::CannotStart { error } => break Err(error.context(format!("cannot start {name}"))),
        }
        if welcomed || file.all_serve() {
            file.write()?;
        }
        if !welcomed && file.all_serve() {
            welcomed = true;
            page::print(&plan, &dir)?;
        }
    };

    stop.send_replace(true);
    // The nodes still tell how they end; nobody has to hear it, but a full channel would make them wait.
    happenings.close();
    while happenings.recv().await.is_some() {}
    let mut unclean = false;
    while let Some(ended) = nodes.join_next().await {
        unclean |= !ended.unwrap_or(false);
    }
    file.remove()?;
    outcome?;
    if unclean {
        bail!(
            "not every node stopped cleanly; what was answered OK is on disk; the logs are in {}",
            dir.display()
        );
    }
    Ok(())
}

/// Two supervisors on one directory would fight over ports and data.
fn lock(dir: &std::path::Path) -> anyhow::Result<std::fs::File> {
    let path = dir.join("up.lock");
    let file = std::fs::File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another `nsquorum up` runs on {}", dir.display()))?;
    Ok(file)
}

fn ended(name: &str, status: ExitStatus, again_in: Option<Duration>) -> String {
    let meaning = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .and_then(Exit::meaning)
        .map_or_else(String::new, |meaning| format!(" ({meaning})"));
    match again_in {
        Some(delay) => format!(
            "{name} ended with {status}{meaning}; it starts again in {} s",
            delay.as_secs()
        ),
        None => format!("{name} ended with {status}{meaning}; it stays so"),
    }
}
