//! The daemon: mounts, serves the control socket, and ends cleanly.
//!
//! It ends on SIGTERM or SIGINT, on the unmount request, when the mount is taken away from outside, and, if asked to,
//! when its standard input closes: so that no mount outlives a test that died.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context, Result};
use fuser::{Config, MountOption, SessionACL};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::control::{Answer, Command, Metadata, Reply};
use crate::filesystem::Filesystem;
use crate::volume::Volume;

/// Source of the mount in `/proc/self/mountinfo`, by which a stale one is known as ours.
const SOURCE: &str = "nsquorum-faultfs";
/// Several, so that a delayed call does not hold up the others.
const THREADS: usize = 8;
/// A control line longer than this is not ours.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// One descriptor per file in the backing directory.
const OPEN_FILES_WANTED: u64 = 65_536;

/// What the daemon is started with.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "nsquorum-faultfs", about = "A file system that keeps only what was synced")]
pub struct DaemonOptions {
    /// Directory that holds the durable image.
    #[arg(long)]
    pub backing: PathBuf,
    /// Directory to mount on.
    #[arg(long)]
    pub mount: PathBuf,
    /// Unix socket to listen on for control requests.
    #[arg(long)]
    pub control: PathBuf,
    /// Which directory changes a crash takes back.
    #[arg(long, value_enum, default_value_t = Metadata::Ordered)]
    pub metadata: Metadata,
    /// Directory changes that an ordered crash may take back.
    #[arg(long, default_value_t = 8)]
    pub pending_ops_max: usize,
    /// Of the unsynced writes of a file a crash keeps a random prefix, instead of none.
    #[arg(long)]
    pub torn: bool,
    /// Seed of what is random.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// A sync also syncs the backing file, at the real disk's cost.
    #[arg(long)]
    pub real_sync: bool,
    /// Unsynced bytes beyond which the file being written is written back.
    #[arg(long, default_value_t = 1 << 30)]
    pub dirty_bytes_max: u64,
    /// End when standard input closes.
    #[arg(long)]
    pub until_stdin_closes: bool,
}

/// Why the daemon ends.
#[derive(Debug)]
enum End {
    Asked(Option<UnixStream>),
    MountGone,
}

/// Mounts, prints `ready` and serves until the end.
///
/// # Errors
/// If the mount or the socket cannot be made, or the image cannot be read or written at the end.
pub fn run(options: &DaemonOptions) -> Result<()> {
    // A worker that panicked would leave its callers waiting for ever; a dead mount fails them at once.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    raise_open_files();
    unmount_stale(&options.mount).context("cannot take away a stale mount")?;
    let volume = Arc::new(Volume::open(options).with_context(|| format!("cannot read {}", options.backing.display()))?);
    let listener = listen(&options.control)?;
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(THREADS);
    config.mount_options = vec![
        MountOption::FSName(SOURCE.to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoAtime,
    ];
    let session = fuser::spawn_mount2(Filesystem(volume.clone()), &options.mount, &config)
        .with_context(|| format!("cannot mount on {}", options.mount.display()))?;

    let (end, ended) = channel();
    watch_session(session, end.clone())?;
    watch_signals(end.clone())?;
    if options.until_stdin_closes {
        watch_stdin(end.clone())?;
    }
    serve(listener, volume.clone(), end)?;
    {
        let mut out = std::io::stdout().lock();
        writeln!(out, "ready")
            .and_then(|()| out.flush())
            .context("cannot say that the mount is ready")?;
    }
    finish(options, &volume, &ended)
}

fn finish(options: &DaemonOptions, volume: &Volume, ended: &Receiver<End>) -> Result<()> {
    let end = ended.recv().context("nobody is left to end the daemon")?;
    if !matches!(end, End::MountGone) {
        detach(&options.mount).context("cannot unmount")?;
    }
    let stored = volume.shut_down();
    let _gone_already = std::fs::remove_file(&options.control);
    if let End::Asked(Some(mut stream)) = end {
        let answer = match stored {
            Ok(()) => Answer::Ok(Reply::default()),
            Err(error) => Answer::Error(error.to_string()),
        };
        // A client that does not wait for the answer has what it asked for.
        let _unread = send(&mut stream, &answer);
    }
    stored.context("cannot store the rest in the backing directory")
}

/// A directory with a mount of ours on it, dead or alive, becomes a plain directory again.
fn unmount_stale(mount: &Path) -> Result<()> {
    // A dead mount cannot be resolved, and there is nothing to resolve then: take the path as it is.
    let path = std::fs::canonicalize(mount).unwrap_or_else(|_| mount.to_path_buf());
    while is_mounted(&path)? {
        detach(&path)?;
    }
    Ok(())
}

fn is_mounted(path: &Path) -> Result<bool> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mounts.lines().any(|line| {
        let place = line.split(' ').nth(4).map(unescape);
        let source = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').nth(1));
        place.as_deref() == path.to_str() && source == Some(SOURCE)
    }))
}

/// mountinfo writes blanks as octal escapes.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

/// Takes the mount away even if files are open on it; their owners keep a dead one.
fn detach(mount: &Path) -> Result<(), Errno> {
    match rustix::mount::unmount(mount, UnmountFlags::DETACH) {
        // Not a mount point: gone already.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(error),
    }
}

fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit
        .maximum
        .map_or(OPEN_FILES_WANTED, |maximum| maximum.max(OPEN_FILES_WANTED));
    // Root may raise the hard limit too; whoever may not keeps what there is.
    if setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(wanted),
            maximum: Some(wanted),
        },
    )
    .is_err()
    {
        let _keeps_the_old = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        );
    }
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .with_context(|| format!("cannot start {name}"))?;
    Ok(())
}

fn watch_session(session: fuser::BackgroundSession, end: Sender<End>) -> Result<()> {
    thread("faultfs-session", move || {
        let _reason_is_the_end_itself = session.join();
        let _daemon_ends_already = end.send(End::MountGone);
    })
}

fn watch_signals(end: Sender<End>) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    thread("faultfs-signals", move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        let _daemon_ends_already = end.send(End::Asked(None));
    })
}

fn watch_stdin(end: Sender<End>) -> Result<()> {
    thread("faultfs-stdin", move || {
        let mut ignored = [0; 256];
        while matches!(std::io::stdin().read(&mut ignored), Ok(read) if read > 0) {}
        let _daemon_ends_already = end.send(End::Asked(None));
    })
}

fn listen(path: &Path) -> Result<UnixListener> {
    if std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        std::fs::remove_file(path).context("cannot remove the old control socket")?;
    }
    UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))
}

fn serve(listener: UnixListener, volume: Arc<Volume>, end: Sender<End>) -> Result<()> {
    thread("faultfs-control", move || {
        for stream in listener.incoming().flatten() {
            let (volume, end) = (volume.clone(), end.clone());
            // A connection that cannot be served is closed by dropping it; the client sees that.
            let _dropped = thread("faultfs-client", move || {
                let _client_left = converse(stream, &volume, &end);
            });
        }
    })
}

fn converse(mut stream: UnixStream, volume: &Volume, end: &Sender<End>) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_str(&line) {
            Ok(Command::Unmount) => {
                end.send(End::Asked(Some(stream)))?;
                return Ok(());
            }
            Ok(command) => volume.command(command),
            Err(error) => Answer::Error(format!("not a request: {error}")),
        };
        send(&mut stream, &answer)?;
    }
}

fn send(stream: &mut UnixStream, answer: &Answer) -> Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    Ok(())
}
