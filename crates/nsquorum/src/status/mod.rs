//! `nsquorum status`: asks any node how the cluster is.

mod page;
mod report;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::exit::Exit;
use crate::http_request::request;
use crate::up;
use report::{Report, State};

/// A node's HTTP address if nothing else is known.
const ADDRESS: &str = "127.0.0.1:4151";
const PATH: &str = "/cluster/status";

/// Flags of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// HTTP addresses of nodes: the first that answers is asked. Without it and --dir: those of ./nsquorum-data/cluster.json if that is there, else
    /// 127.0.0.1:4151.
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', conflicts_with = "dir")]
    http_address: Vec<String>,
    /// The directory of a cluster that `nsquorum up` runs.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print the node's answer, one JSON object, as it is.
    #[arg(long)]
    json: bool,
    /// List every topic, not only the first ones and those with problems.
    #[arg(long)]
    all: bool,
}

/// Prints the cluster's state; the exit code says whether all is well.
pub(crate) async fn run(args: StatusArgs) -> anyhow::Result<Exit> {
    let text = ask(&args.addresses()?).await?;
    let report: Report = serde_json::from_str(&text).context("the node's answer is not understood")?;
    let out = if args.json {
        format!("{}\n", text.trim_end())
    } else {
        page::text(&report, args.all)
    };
    std::io::stdout().lock().write_all(out.as_bytes())?;
    Ok(match report.state {
        State::Ok => Exit::Ok,
        State::Degraded => Exit::Degraded,
        State::Unavailable => Exit::Unavailable,
    })
}

impl StatusArgs {
    fn addresses(&self) -> anyhow::Result<Vec<String>> {
        if !self.http_address.is_empty() {
            return Ok(self.http_address.clone());
        }
        match &self.dir {
            Some(dir) => up::http_addresses(dir),
            // A file that is not there means that no cluster of `up` is meant.
            None => Ok(up::http_addresses(Path::new(up::DIRECTORY)).unwrap_or_else(|_| vec![ADDRESS.to_owned()])),
        }
    }
}

/// The answer of the first node that gives one.
async fn ask(addresses: &[String]) -> anyhow::Result<String> {
    let mut refusals = Vec::new();
    for address in addresses {
        match request(address, "GET", PATH).await {
            Ok(text) => return Ok(text),
            Err(error) => refusals.push(format!("{error:#}")),
        }
    }
    bail!(
        "no node answers (a node that starts answers when a majority of the nodes does): {}",
        refusals.join("; ")
    )
}
