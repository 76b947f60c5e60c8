//! The client: a mount that lives as long as a value.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::control::{Answer, Command, CrashOptions, Fault, FaultId, Metadata, Reply, Stats};

/// Environment variable with the path of the daemon.
const DAEMON_VARIABLE: &str = "NSQUORUM_FAULTFS";
const DAEMON_NAME: &str = "nsquorum-faultfs";
/// No request takes this long, whatever the machine is doing.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Why a request to the fault file system failed. None may be retried: each means that the test cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FaultFsError {
    /// The daemon's program was not found. It is built by `cargo build -p nsquorum-faults`.
    #[error("no {DAEMON_NAME} beside {}, and ${DAEMON_VARIABLE} is not set", beside.display())]
    NoDaemon {
        /// Where it was looked for.
        beside: PathBuf,
    },
    /// The daemon could not be started or did not mount.
    #[error("{DAEMON_NAME} did not mount: {0}")]
    NotMounted(String),
    /// The daemon cannot be reached.
    #[error("{DAEMON_NAME} does not answer: {0}")]
    Connection(#[from] std::io::Error),
    /// The daemon refused the request.
    #[error("{DAEMON_NAME} refused: {0}")]
    Refused(String),
    /// The daemon sent something else than an answer.
    #[error("{DAEMON_NAME} answered with something else: {0}")]
    Protocol(String),
    /// A condition did not come true in time.
    #[error("still not so after {DEADLINE:?}: {0:?}")]
    Deadline(Box<Stats>),
}

/// How to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// Which directory changes a crash takes back.
    pub metadata: Metadata,
    /// Directory changes that an ordered crash may take back.
    pub pending_ops_max: usize,
    /// Of the unsynced writes of a file a crash keeps a random prefix, instead of none.
    pub torn: bool,
    /// Seed of what is random.
    pub seed: u64,
    /// A sync also syncs the backing file, at the real disk's cost.
    pub real_sync: bool,
    /// Unsynced bytes beyond which the file being written is written back.
    pub dirty_bytes_max: u64,
    /// The daemon's program; `None` takes it from `$NSQUORUM_FAULTFS` or from beside the running program.
    pub daemon: Option<PathBuf>,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            metadata: Metadata::Ordered,
            pending_ops_max: 8,
            torn: false,
            seed: 0,
            real_sync: false,
            dirty_bytes_max: 1 << 30,
            daemon: None,
        }
    }
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
}

/// A mounted fault file system. Dropping it makes everything durable and unmounts; if this process dies, the daemon
/// unmounts by itself.
#[derive(Debug)]
pub struct FaultFs {
    mount: PathBuf,
    backing: PathBuf,
    control: PathBuf,
    daemon: Child,
    connection: Mutex<Connection>,
    ended: bool,
}

impl FaultFs {
    /// Mounts `backing` on `mount` with the default options. Both must be directories.
    ///
    /// # Errors
    /// If there is no daemon or it cannot mount.
    pub fn mount(backing: &Path, mount: &Path) -> Result<Self, FaultFsError> {
        Self::mount_with(backing, mount, &MountOptions::default())
    }

    /// Mounts `backing` on `mount`. Both must be directories.
    ///
    /// # Errors
    /// If there is no daemon or it cannot mount.
    pub fn mount_with(backing: &Path, mount: &Path, options: &MountOptions) -> Result<Self, FaultFsError> {
        let program = match &options.daemon {
            Some(program) => program.clone(),
            None => find_daemon()?,
        };
        let control = control_path();
        let mut command = Process::new(&program);
        command
            .arg("--backing")
            .arg(backing)
            .arg("--mount")
            .arg(mount)
            .arg("--control")
            .arg(&control);
        command.arg("--metadata").arg(match options.metadata {
            Metadata::Ordered => "ordered",
            Metadata::Strict => "strict",
        });
        command
            .arg("--pending-ops-max")
            .arg(options.pending_ops_max.to_string());
        command.arg("--seed").arg(options.seed.to_string());
        command
            .arg("--dirty-bytes-max")
            .arg(options.dirty_bytes_max.to_string());
        command.arg("--until-stdin-closes");
        if options.torn {
            command.arg("--torn");
        }
        if options.real_sync {
            command.arg("--real-sync");
        }
        let mut daemon = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| FaultFsError::NotMounted(format!("{}: {error}", program.display())))?;
        if let Err(error) = wait_ready(&mut daemon) {
            let _never_made = std::fs::remove_file(&control);
            return Err(error);
        }
        let stream = UnixStream::connect(&control)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Self {
            mount: mount.to_path_buf(),
            backing: backing.to_path_buf(),
            control,
            daemon,
            connection: Mutex::new(Connection { stream, reader }),
            ended: false,
        })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// The durable image.
    #[must_use]
    pub fn backing(&self) -> &Path {
        &self.backing
    }

    /// Drops everything that is not durable; every open handle fails from now on. After a power-off it turns the power
    /// on again.
    ///
    /// # Errors
    /// If the daemon is gone or cannot read the image.
    pub fn crash(&self) -> Result<(), FaultFsError> {
        self.crash_with(CrashOptions::default())
    }

    /// The same, with options.
    ///
    /// # Errors
    /// If the daemon is gone or cannot read the image.
    pub fn crash_with(&self, options: CrashOptions) -> Result<(), FaultFsError> {
        self.request(&Command::Crash { options }).map(drop)
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// If the daemon is gone or has too many rules.
    pub fn fail(&self, fault: Fault) -> Result<FaultId, FaultFsError> {
        let reply = self.request(&Command::Fail { fault })?;
        reply
            .fault
            .ok_or_else(|| FaultFsError::Protocol("no rule number".to_owned()))
    }

    /// Removes all rules.
    ///
    /// # Errors
    /// If the daemon is gone.
    pub fn clear(&self) -> Result<(), FaultFsError> {
        self.request(&Command::Clear).map(drop)
    }

    /// Limits the bytes that may still be written; `None` lifts the limit. statfs shows it.
    ///
    /// # Errors
    /// If the daemon is gone.
    pub fn space(&self, free: Option<u64>) -> Result<(), FaultFsError> {
        self.request(&Command::Space { free }).map(drop)
    }

    /// Makes everything durable.
    ///
    /// # Errors
    /// If the daemon is gone or cannot write the image.
    pub fn sync(&self) -> Result<(), FaultFsError> {
        self.request(&Command::Sync).map(drop)
    }

    /// Counters and state.
    ///
    /// # Errors
    /// If the daemon is gone.
    pub fn stats(&self) -> Result<Stats, FaultFsError> {
        let reply = self.request(&Command::Stats)?;
        reply
            .stats
            .ok_or_else(|| FaultFsError::Protocol("no counters".to_owned()))
    }

    /// Waits until the counters satisfy `condition`, and returns them.
    ///
    /// # Errors
    /// [`FaultFsError::Deadline`] after a minute.
    pub fn wait_until(&self, condition: impl Fn(&Stats) -> bool) -> Result<Stats, FaultFsError> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let stats = self.stats()?;
            if condition(&stats) {
                return Ok(stats);
            }
            if Instant::now() > deadline {
                return Err(FaultFsError::Deadline(Box::new(stats)));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Makes everything durable and unmounts.
    ///
    /// # Errors
    /// If the daemon is gone or cannot write the image.
    pub fn unmount(mut self) -> Result<(), FaultFsError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), FaultFsError> {
        self.ended = true;
        let asked = self.request(&Command::Unmount).map(drop);
        let status = self.wait_for_exit()?;
        if !status.success() {
            // A daemon that died left a dead mount, which would hinder whoever removes the directory. Often there is
            // none, and the reason for the status matters more than this.
            let _none_left = rustix::mount::unmount(&self.mount, rustix::mount::UnmountFlags::DETACH);
            let _gone_already = std::fs::remove_file(&self.control);
        }
        asked?;
        if status.success() {
            Ok(())
        } else {
            Err(FaultFsError::NotMounted(format!("it ended with {status}")))
        }
    }

    fn wait_for_exit(&mut self) -> Result<ExitStatus, FaultFsError> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.daemon.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                self.daemon.kill()?;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    fn request(&self, command: &Command) -> Result<Reply, FaultFsError> {
        let mut line = serde_json::to_vec(command).map_err(|error| FaultFsError::Protocol(error.to_string()))?;
        line.push(b'\n');
        let mut connection = self.connection.lock();
        connection.stream.write_all(&line)?;
        let mut answer = String::new();
        if connection.reader.read_line(&mut answer)? == 0 {
            return Err(FaultFsError::Connection(std::io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_str(&answer) {
            Ok(Answer::Ok(reply)) => Ok(reply),
            Ok(Answer::Error(reason)) => Err(FaultFsError::Refused(reason)),
            Err(error) => Err(FaultFsError::Protocol(error.to_string())),
        }
    }
}

impl Drop for FaultFs {
    fn drop(&mut self) {
        if !self.ended {
            let _a_drop_cannot_fail = self.end();
        }
    }
}

fn wait_ready(daemon: &mut Child) -> Result<(), FaultFsError> {
    let stdout = daemon.stdout.take().expect("standard output was asked to be a pipe");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    if line.trim_end() == "ready" {
        return Ok(());
    }
    let status = daemon.wait()?;
    Err(FaultFsError::NotMounted(format!(
        "{status}; the reason is on standard error"
    )))
}

/// Unix socket paths are short, so it is not in a test's deep directory.
fn control_path() -> PathBuf {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, Relaxed);
    std::env::temp_dir().join(format!("{DAEMON_NAME}-{}-{number}.sock", std::process::id()))
}

/// The daemon stands beside the running program, or one directory above for tests (`target/debug/deps`).
fn find_daemon() -> Result<PathBuf, FaultFsError> {
    if let Some(path) = std::env::var_os(DAEMON_VARIABLE) {
        return Ok(path.into());
    }
    let program = std::env::current_exe()?;
    let beside = program.parent().unwrap_or(Path::new("/")).to_path_buf();
    beside
        .ancestors()
        .take(2)
        .map(|directory| directory.join(DAEMON_NAME))
        .find(|path| path.is_file())
        .ok_or(FaultFsError::NoDaemon { beside })
}
