//! The program under another name: as `nsqd` or `nsqlookupd`, through a link.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::deadline::until;
use crate::node::ExitReason;
use crate::programs::nsquorum_program;

/// For whatever a process does that ends by itself.
const DEADLINE: Duration = Duration::from_secs(60);

/// A process of the program under a name. Dropping it kills it.
#[derive(Debug)]
pub struct Named {
    child: Child,
    /// Holds the link, the log and what was printed.
    folder: TempDir,
}

impl Named {
    /// Starts it in a directory.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: &str, directory: &Path, arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let link = folder.path().join(name);
        std::os::unix::fs::symlink(std::fs::canonicalize(nsquorum_program()?)?, &link)?;
        let child = Command::new(link)
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(File::create(folder.path().join("out"))?)
            .stderr(File::create(folder.path().join("log"))?)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, folder })
    }

    /// Starts it and waits until it has ended by itself.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn run(name: &str, directory: &Path, arguments: &[&str]) -> Result<Ended> {
        let mut program = Self::start(name, directory, arguments)?;
        let exit = program.until_ended().await?;
        Ok(Ended {
            exit,
            out: program.read("out"),
            log: program.log(),
        })
    }

    /// What it wrote to standard error.
    #[must_use]
    pub fn log(&self) -> String {
        self.read("log")
    }

    fn read(&self, name: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Waits for the line of the log in which it says that it listens, and returns the address; `what` is `TCP`, `HTTP` or `HTTPS`.
    ///
    /// # Errors
    /// If it ends instead, or says nothing.
    pub async fn listening(&mut self, what: &str) -> Result<String> {
        let before = format!(" INFO: {what}: listening on ");
        let mut address = None;
        let found = until(&before, DEADLINE, async || {
            let log = self.log();
            // The last line may be half written.
            let lines = log.rsplit_once('\n').map_or("", |(lines, _)| lines);
            address = lines
                .lines()
                .find_map(|line| Some(line.split_once(&before)?.1.to_owned()));
            if let (None, Some(exit)) = (&address, self.ended()?) {
                bail!("it ended with {exit:?}");
            }
            Ok(address.is_some())
        });
        found.await.with_context(|| self.log())?;
        address.context("the address was found")
    }

    fn ended(&mut self) -> Result<Option<ExitReason>> {
        Ok(self.child.try_wait()?.map(|status: ExitStatus| ExitReason::of(status)))
    }

    /// Waits for it to end.
    ///
    /// # Errors
    /// If it does not.
    pub async fn until_ended(&mut self) -> Result<ExitReason> {
        let end = Instant::now() + DEADLINE;
        loop {
            match self.ended()? {
                Some(exit) => return Ok(exit),
                None if Instant::now() > end => bail!("it runs on:\n{}", self.log()),
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Sends a signal and waits for the end.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn end_by(&mut self, signal: Signal) -> Result<ExitReason> {
        kill_process(Pid::from_child(&self.child), signal)?;
        self.until_ended().await
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // It has ended already, or it ends now.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a process left that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub exit: ExitReason,
    /// What it printed.
    pub out: String,
    /// What it wrote to standard error.
    pub log: String,
}
