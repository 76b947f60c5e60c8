//! One node process.

use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;

use crate::deadline::until;
use crate::http;
use crate::programs::nsquorum_program;

/// No start takes this long, whatever the machine is doing.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// No stop does.
const STOP_DEADLINE: Duration = Duration::from_secs(60);
/// How much of a failed node's log is shown, in bytes.
const LOG_SHOWN_BYTES: usize = 6000;
/// Between two looks at a process.
const INTERVAL: Duration = Duration::from_millis(5);

/// Flags of `nsquorum serve` beside the addresses, the data path and the ports file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFlags(pub Vec<String>);

impl NodeFlags {
    /// These flags.
    #[must_use]
    pub fn new(flags: &[&str]) -> Self {
        Self(flags.iter().map(|flag| (*flag).to_owned()).collect())
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl ExitReason {
    pub(crate) fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => unreachable!("a process that was waited for has ended"),
        }
    }
}

/// A node that ended before it served.
#[derive(Debug)]
pub struct StartFailure {
    /// How it ended.
    pub exit: ExitReason,
    /// What it wrote to standard error.
    pub log: String,
}

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the node ended with {:?} before it served:\n{}", self.exit, self.log)
    }
}

impl std::error::Error for StartFailure {}

#[derive(Deserialize)]
struct PortsFile {
    tcp: String,
    http: String,
    lookup_http: Option<String>,
}

/// A running node. Dropping it kills it.
#[derive(Debug)]
pub struct Node {
    child: Child,
    /// Holds the log and the ports file.
    folder: TempDir,
    tcp: String,
    http: String,
    lookup_http: Option<String>,
    listening_after: Duration,
}

impl Node {
    /// Starts a node in this directory, on ports that the kernel chooses, and waits until it serves.
    ///
    /// # Errors
    /// [`StartFailure`] (by downcast) if it ends instead.
    pub async fn start(data: &Path, flags: &NodeFlags) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let ports_file = folder.path().join("ports.json");
        let started = Instant::now();
        let child = Command::new(nsquorum_program()?)
            .arg("serve")
            .args(["--tcp-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0"])
            .args([
                "--lookup-tcp-address",
                "127.0.0.1:0",
                "--lookup-http-address",
                "127.0.0.1:0",
                "--broadcast-address",
                "127.0.0.1",
            ])
            .arg("--data-path")
            .arg(data)
            .arg("--ports-file")
            .arg(&ports_file)
            .args(&flags.0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log"))?)
            .spawn()
            .context("cannot start the node")?;
        let none = String::new;
        let mut node = Self {
            child,
            folder,
            tcp: none(),
            http: none(),
            lookup_http: None,
            listening_after: Duration::ZERO,
        };
        node.wait_for_ports(&ports_file, started).await?;
        Ok(node)
    }

    async fn wait_for_ports(&mut self, ports_file: &Path, started: Instant) -> Result<()> {
        loop {
            match std::fs::read(ports_file) {
                Ok(text) => {
                    let ports: PortsFile = serde_json::from_slice(&text)?;
                    self.listening_after = started.elapsed();
                    (self.tcp, self.http, self.lookup_http) = (ports.tcp, ports.http, ports.lookup_http);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(StartFailure {
                    exit: ExitReason::of(status),
                    log: self.log(),
                }
                .into());
            }
            if started.elapsed() > START_DEADLINE {
                bail!("the node does not serve after {START_DEADLINE:?}:\n{}", self.log());
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// `host:port` for NSQ clients.
    #[must_use]
    pub fn tcp(&self) -> &str {
        &self.tcp
    }

    /// `host:port` of nsqd's HTTP interface.
    #[must_use]
    pub fn http(&self) -> &str {
        &self.http
    }

    /// `host:port` of nsqlookupd's HTTP interface.
    #[must_use]
    pub fn lookup_http(&self) -> Option<&str> {
        self.lookup_http.as_deref()
    }

    /// From the start of the process until its ports were known.
    #[must_use]
    pub fn listening_after(&self) -> Duration {
        self.listening_after
    }

    /// Waits until /ping says this status.
    ///
    /// # Errors
    /// If it does not within half a minute, or nobody listens.
    pub async fn until_ping(&self, status: u16) -> Result<()> {
        let what = format!("/ping says {status}");
        until(&what, Duration::from_secs(30), async || {
            Ok(http::get(&self.http, "/ping").await?.status == status)
        })
        .await
        .with_context(|| self.log())
    }

    /// Makes a topic with these channels, durably.
    ///
    /// # Errors
    /// If the node refuses.
    pub async fn create(&self, topic: &str, channels: &[&str]) -> Result<()> {
        create(&self.http, topic, channels).await
    }

    /// The end of what it wrote to standard error.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.log_path()).unwrap_or_default();
        let from = bytes.len().saturating_sub(LOG_SHOWN_BYTES);
        String::from_utf8_lossy(&bytes[from..]).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitReason>> {
        Ok(self.child.try_wait()?.map(ExitReason::of))
    }

    /// Waits for it to end by itself; `None` if it does not within `deadline`.
    ///
    /// # Errors
    /// If the system does not say.
    pub async fn until_ended(&mut self, deadline: Duration) -> Result<Option<ExitReason>> {
        let end = Instant::now() + deadline;
        loop {
            match self.ended()? {
                None if Instant::now() < end => tokio::time::sleep(INTERVAL).await,
                ended => return Ok(ended),
            }
        }
    }

    /// SIGKILL; returns when the process is gone.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM; returns how it ended and how long that took.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn stop(&mut self) -> Result<(ExitReason, Duration)> {
        let started = Instant::now();
        if self.ended()?.is_none() {
            kill_process(self.pid(), Signal::TERM)?;
        }
        match self.until_ended(STOP_DEADLINE).await? {
            Some(exit) => Ok((exit, started.elapsed())),
            None => bail!(
                "the node does not stop within {STOP_DEADLINE:?} of a SIGTERM:\n{}",
                self.log()
            ),
        }
    }

    /// The same, for a stop that must succeed.
    ///
    /// # Errors
    /// If it ends with something else than 0.
    pub async fn stop_cleanly(mut self) -> Result<Duration> {
        match self.stop().await? {
            (ExitReason::Code(0), took) => Ok(took),
            (exit, _) => bail!("a SIGTERM ended the node with {exit:?}:\n{}", self.log()),
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Memory that is resident now and at most so far, in bytes.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn resident(&self) -> Result<(u64, u64)> {
        resident(&self.child)
    }

    /// How many files it may have open: the soft limit and the hard one.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn open_files_limit(&self) -> Result<(u64, u64)> {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.child.id()))?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        let mut numbers = line.context("no limit on open files")?.split_whitespace();
        let mut next = || -> Result<u64> { Ok(numbers.next().context("a limit is missing")?.parse()?) };
        Ok((next()?, next()?))
    }
}

/// Makes a topic with these channels at the server with this HTTP interface.
pub(crate) async fn create(http: &str, topic: &str, channels: &[&str]) -> Result<()> {
    let mut paths = vec![format!("/topic/create?topic={topic}")];
    paths.extend(
        channels
            .iter()
            .map(|channel| format!("/channel/create?topic={topic}&channel={channel}")),
    );
    for path in paths {
        let answer = http::post(http, &path, b"").await?;
        if answer.status != 200 {
            bail!("{path} was answered with {answer:?}");
        }
    }
    Ok(())
}

/// Memory of a process that is resident now and at most so far, in bytes.
pub(crate) fn resident(process: &Child) -> Result<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let bytes = |name: &str| -> Result<u64> {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .with_context(|| format!("no {name}"))?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib << 10)
    };
    Ok((bytes("VmRSS:")?, bytes("VmHWM:")?))
}

impl Drop for Node {
    fn drop(&mut self) {
        // It has ended already, or it ends now.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
