//! Stock nsqd, for figures beside ours.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::deadline::until;
use crate::node::{create, resident};

/// A running nsqd. Dropping it kills it.
#[derive(Debug)]
pub struct StockNsqd {
    process: Child,
    /// Holds its data and its log.
    folder: TempDir,
    tcp: String,
    http: String,
}

impl StockNsqd {
    /// Where the program is: `$NSQUORUM_STOCK_NSQD`. `None`: there is nothing to compare with.
    #[must_use]
    pub fn program() -> Option<PathBuf> {
        std::env::var_os("NSQUORUM_STOCK_NSQD").map(PathBuf::from)
    }

    /// Starts it with an empty directory on ports that the kernel chooses, and waits until it serves.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(program: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("log");
        let process = Command::new(program)
            .args(["-tcp-address", "127.0.0.1:0", "-http-address", "127.0.0.1:0"])
            .arg("-data-path")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut started = Self {
            process,
            folder,
            tcp: String::new(),
            http: String::new(),
        };
        until("nsqd listens", Duration::from_secs(30), async || started.find_ports()).await?;
        Ok(started)
    }

    /// It tells its ports in its log only.
    fn find_ports(&mut self) -> Result<bool> {
        let log = std::fs::read_to_string(self.folder.path().join("log"))?;
        let find = |name: &str| {
            let (_, rest) = log.split_once(&format!("{name}: listening on "))?;
            Some(rest.split_once('\n')?.0.trim().to_owned())
        };
        let (Some(tcp), Some(http)) = (find("TCP"), find("HTTP")) else {
            return Ok(false);
        };
        (self.tcp, self.http) = (tcp, http);
        Ok(true)
    }

    /// `host:port` for NSQ clients.
    #[must_use]
    pub fn tcp(&self) -> &str {
        &self.tcp
    }

    /// Makes a topic with these channels.
    ///
    /// # Errors
    /// If it refuses.
    pub async fn create(&self, topic: &str, channels: &[&str]) -> Result<()> {
        create(&self.http, topic, channels).await
    }

    /// Memory that is resident now and at most so far, in bytes.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn resident(&self) -> Result<(u64, u64)> {
        resident(&self.process)
    }
}

impl Drop for StockNsqd {
    fn drop(&mut self) {
        // It has ended already, or it ends now.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
