//! One node of a cluster, as a process that a test starts, stops, pauses and kills by hand, on a disk of its own.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nsquorum_node_tests::{Disk, ExitReason, VerifyReport, get, nsquorum_program, until, verify};
use rustix::process::{Pid, Signal, kill_process};

/// No start takes this long, whatever the machine is doing.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// No stop does.
const STOP_DEADLINE: Duration = Duration::from_secs(60);
/// How much of a log is shown, in bytes.
const LOG_SHOWN_BYTES: usize = 3000;

/// Where a node runs and how it is reached there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The command before the node's own that brings it there; empty for this process's own network.
    pub enter: Vec<String>,
    /// Its address.
    pub host: String,
    /// Ports from this one on are its own: TCP, HTTP, peers.
    pub first_port: u16,
}

impl Place {
    fn address(&self, offset: u16) -> String {
        format!("{}:{}", self.host, self.first_port + offset)
    }

    /// `host:port` for NSQ clients.
    #[must_use]
    pub fn tcp(&self) -> String {
        self.address(0)
    }

    /// `host:port` of nsqd's HTTP interface.
    #[must_use]
    pub fn http(&self) -> String {
        self.address(1)
    }

    /// `host:port` for the other nodes.
    #[must_use]
    pub fn peer(&self) -> String {
        self.address(4)
    }
}

/// A node. Dropping it kills its process.
#[derive(Debug)]
pub struct Replica {
    place: Place,
    disk: Disk,
    log: PathBuf,
    argv: Vec<String>,
    child: Option<Child>,
}

impl Replica {
    /// A node that was never started. `peers` are the peer addresses of all nodes; `secret` is a file that all of them share.
    ///
    /// # Errors
    /// If there is no program.
    pub(crate) fn new(place: Place, disk: Disk, peers: &[String], secret: &str, flags: &[&str]) -> Result<Self> {
        let data = disk.data();
        let data = data.to_str().context("a temporary directory is UTF-8")?.to_owned();
        let program = nsquorum_program()?;
        let program = program.to_str().context("the program's name is UTF-8")?.to_owned();
        let mut argv = place.enter.clone();
        argv.extend([program, "serve".to_owned()]);
        argv.extend(["--data-path".to_owned(), data]);
        argv.extend(["--tcp-address".to_owned(), place.tcp()]);
        argv.extend(["--http-address".to_owned(), place.http()]);
        argv.extend(["--lookup-http-address", "", "--lookup-tcp-address", ""].map(str::to_owned));
        argv.extend(["--broadcast-address".to_owned(), place.host.clone()]);
        argv.extend(["--peer-address".to_owned(), place.peer()]);
        argv.extend(["--cluster-secret-file".to_owned(), secret.to_owned()]);
        argv.extend(["--cluster-seeds".to_owned(), peers.join(",")]);
        argv.extend(["--cluster-expect".to_owned(), peers.len().to_string()]);
        argv.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let log = disk.beside().join("log");
        Ok(Self {
            place,
            disk,
            log,
            argv,
            child: None,
        })
    }

    /// Where it runs.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// What its directory is on.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Starts its process and does not wait for anything.
    ///
    /// # Errors
    /// If it runs, or cannot be started.
    pub fn start(&mut self) -> Result<()> {
        if self.child.is_some() {
            bail!("the node runs already");
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.argv[0])
            .args(&self.argv[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {:?}", self.argv))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until `/ping` says that it serves.
    ///
    /// # Errors
    /// If it ends, or does not.
    pub async fn until_serving(&mut self) -> Result<()> {
        let address = self.place.http();
        let what = format!("the node at {address} serves");
        let serves = until(&what, START_DEADLINE, async || {
            if let Some(status) = self.child.as_mut().context("the node does not run")?.try_wait()? {
                bail!("the node at {address} ended with {status}");
            }
            Ok(get(&address, "/ping").await.is_ok_and(|answer| answer.status == 200))
        });
        let serves = serves.await;
        serves.with_context(|| self.log())
    }

    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_child(self.child.as_ref().context("the node does not run")?))
    }

    /// Stops it from running, without its noticing.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&self) -> Result<()> {
        Ok(kill_process(self.pid()?, Signal::STOP)?)
    }

    /// Lets it run on.
    ///
    /// # Errors
    /// If it does not run.
    pub fn resume(&self) -> Result<()> {
        Ok(kill_process(self.pid()?, Signal::CONT)?)
    }

    /// Sends SIGKILL and does not wait: so that several end at once.
    ///
    /// # Errors
    /// If it does not run.
    pub fn strike(&self) -> Result<()> {
        Ok(kill_process(self.pid()?, Signal::KILL)?)
    }

    /// SIGKILL; returns when the process is gone.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGKILL, and everything that it had not synced is gone.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn lose_power(&mut self) -> Result<()> {
        self.kill()?;
        self.disk.power_cut()
    }

    /// Whether its process has ended, and how.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitReason>> {
        use std::os::unix::process::ExitStatusExt as _;
        let Some(child) = &mut self.child else { return Ok(None) };
        Ok(child.try_wait()?.map(|status| match status.code() {
            Some(code) => ExitReason::Code(code),
            None => ExitReason::Signal(status.signal().unwrap_or(0)),
        }))
    }

    /// Asks it to stop, without waiting.
    ///
    /// # Errors
    /// If it does not run.
    pub fn terminate(&self) -> Result<()> {
        Ok(kill_process(self.pid()?, Signal::TERM)?)
    }

    /// Waits for the end that it was asked for, which must be a clean one.
    ///
    /// # Errors
    /// If it is not, or does not come.
    pub async fn until_stopped(&mut self) -> Result<()> {
        let mut exit = None;
        let ended = until("the node stops", STOP_DEADLINE, async || {
            exit = self.ended()?;
            Ok(exit.is_some())
        });
        ended.await.with_context(|| self.log())?;
        self.child = None;
        match exit {
            Some(ExitReason::Code(0)) => Ok(()),
            other => bail!("a SIGTERM ended the node with {other:?}\n{}", self.log()),
        }
    }

    /// What `verify` says of its directory while it does not run.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub fn verify(&self) -> Result<VerifyReport> {
        verify(&self.disk.data())
    }

    /// The process's number, while it runs.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The last term in which it was elected for a group, as its log says; 0 for none.
    #[must_use]
    pub fn elected(&self, group: u64) -> u64 {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let elections = format!("this node was elected group={group} term=");
        let terms = log.lines().filter_map(|line| line.split_once(&elections));
        terms
            .filter_map(|(_, term)| term.trim().parse().ok())
            .max()
            .unwrap_or(0)
    }

    /// The end of its log.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let from = bytes.len().saturating_sub(LOG_SHOWN_BYTES);
        format!("== {}\n{}", self.place.tcp(), String::from_utf8_lossy(&bytes[from..]))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // It has ended already, or it ends now.
        drop(self.kill());
    }
}
