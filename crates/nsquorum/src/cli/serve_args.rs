//! The flags of `serve`. Where nsqd has the flag, it has nsqd's name, form and default.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches as _};
use nsquorum_protocol::Limits;
use nsquorum_storage::Neighbours;

use super::log_lines::LogStyle;
use super::logging::LogLevel;
use super::lookup_args::LookupArgs;
use super::metrics_args::MetricsArgs;
use super::session_args::SessionArgs;
use super::tls_args::TlsArgs;
use super::{bytes, duration};

/// What a node is told: by the flags of `serve`, or by those of nsqd under that name.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address for NSQ clients over TCP; port 0 lets the system choose. What is no HOST:PORT is the path of a Unix socket.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:4150")]
    pub(crate) tcp_address: String,
    /// Address for HTTP, or the path of a Unix socket; empty to have none.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:4151")]
    pub(crate) http_address: String,
    /// Address for HTTP over TLS, if there is a certificate.
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:4152")]
    pub(crate) https_address: String,
    #[command(flatten)]
    pub(crate) lookup: LookupArgs,
    /// Address that discovery gives to clients; the host name if not given.
    #[arg(long, value_name = "HOST")]
    pub(crate) broadcast_address: Option<String>,
    /// TCP port that discovery gives to clients; 0 is the real one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) broadcast_tcp_port: u16,
    /// HTTP port that discovery gives to clients; 0 is the real one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) broadcast_http_port: u16,
    /// Where the data are; the current directory if not given.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) data_path: PathBuf,
    /// Peer addresses of all nodes of the cluster, this one included; the same on every node. Without them the node is a cluster of one.
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',')]
    pub(crate) cluster_seeds: Vec<String>,
    /// How many nodes form the cluster: a check against a list of seeds that was cut short.
    #[arg(long, value_name = "N", requires = "cluster_seeds")]
    pub(crate) cluster_expect: Option<usize>,
    /// Address for the other nodes of the cluster.
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:4170")]
    pub(crate) peer_address: String,
    /// How the other nodes reach that address; one of the seeds. The peer address if not given.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) peer_broadcast_address: Option<String>,
    /// A file with the secret that all nodes of the cluster share, at least 16 bytes. Without it only nodes on this machine are accepted.
    #[arg(long, value_name = "FILE")]
    pub(crate) cluster_secret_file: Option<PathBuf>,
    /// Threads that serve connections and groups; one per core if not given. The writer of the log and what reads the disk have their own.
    #[arg(long, value_name = "N")]
    pub(crate) worker_threads: Option<NonZeroUsize>,
    /// Longest message in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    pub(super) max_msg_size: usize,
    /// Longest body of one command in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 5 << 20)]
    pub(super) max_body_size: usize,
    /// Time until an unanswered message is delivered again.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::parse)]
    pub(super) msg_timeout: Duration,
    /// Longest such time that a client may ask for.
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = duration::parse)]
    pub(super) max_msg_timeout: Duration,
    /// Longest delay of a requeued or deferred message.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration::parse)]
    pub(super) max_req_timeout: Duration,
    /// Highest RDY.
    #[arg(long, value_name = "COUNT", default_value_t = 2500)]
    pub(super) max_rdy_count: u32,
    /// Longest heartbeat interval that a client may ask for.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::parse)]
    pub(super) max_heartbeat_interval: Duration,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    #[command(flatten)]
    pub(crate) session: SessionArgs,
    #[command(flatten)]
    pub(crate) metrics: MetricsArgs,
    /// A publish that is not on disk after this time fails.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    pub(crate) publish_timeout: Duration,
    /// Memory for buffers and caches, as a number of bytes or with KiB, MiB, GiB.
    #[arg(long, value_name = "BYTES", default_value = "256MiB", value_parser = bytes::parse)]
    pub(crate) memory_budget: u64,
    /// Refuse publishes while less disk space than this is free; default from the memory budget.
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse)]
    pub(crate) disk_refuse_publishes_below: Option<u64>,
    /// Refuse every write while less disk space than this is free.
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse)]
    pub(crate) disk_refuse_all_below: Option<u64>,
    /// Write the real addresses to this file as JSON once the node serves.
    #[arg(long, value_name = "FILE")]
    pub(crate) ports_file: Option<PathBuf>,
    /// How much is logged.
    #[arg(long, value_name = "LEVEL", value_enum, default_value = "info", ignore_case = true)]
    pub(crate) log_level: LogLevel,
    /// How lines of the log look.
    #[arg(skip)]
    pub(crate) log_style: LogStyle,
    /// What else may be in the data directory.
    #[arg(skip)]
    pub(crate) neighbours: Neighbours,
}

impl Default for ServeArgs {
    /// What `serve` without flags means.
    fn default() -> Self {
        let command = Self::augment_args(Command::new("serve"));
        let matches = command.try_get_matches_from(["serve"]);
        let args = matches.and_then(|matches| Self::from_arg_matches(&matches));
        args.expect("serve needs no flags")
    }
}

impl ServeArgs {
    /// What clients are held to; an error if the values contradict each other.
    pub(crate) fn limits(&self) -> Result<Limits, String> {
        let limits = Limits {
            max_msg_size: self.max_msg_size,
            max_body_size: self.max_body_size,
            max_rdy_count: self.max_rdy_count,
            msg_timeout_ms: millis(self.msg_timeout),
            max_msg_timeout_ms: millis(self.max_msg_timeout),
            max_req_timeout_ms: millis(self.max_req_timeout),
            max_heartbeat_interval_ms: millis(self.max_heartbeat_interval),
            ..self.session.limits()
        };
        // What only makes some wishes of clients impossible is allowed, as in nsqd: a longest message above the longest body (which is MPUB's)
        // is in many a configuration.
        let checks = [
            (limits.max_msg_size > 0, "--max-msg-size must not be 0"),
            (
                limits.max_msg_size.max(limits.max_body_size) <= 1 << 30,
                "--max-msg-size and --max-body-size must not exceed 1 GiB",
            ),
            (limits.msg_timeout_ms > 0, "--msg-timeout must be at least 1ms"),
            (
                limits.max_req_timeout_ms <= u64::from(u32::MAX),
                "--max-req-timeout must not exceed 49 days",
            ),
        ];
        self.tls.check()?;
        self.metrics.check()?;
        match checks.iter().find(|(holds, _)| !holds) {
            Some((_, complaint)) => Err((*complaint).to_owned()),
            None => Ok(limits),
        }
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
