//! The floor to compare with: one thread that appends records of a given size to a file and syncs each.
//!
//! It runs right before and right after each case, because the speed of one disk differs by a factor of two between
//! minutes, and only a ratio taken in the same minute says something about the server. It is the plainest durable
//! store there is (`write`, `fdatasync`, no preallocation): a server that answers each publish only after a sync can
//! beat its rate only by putting several publishes into one sync. A cluster is compared with as many loops side by side
//! as it has nodes on this machine: each of its nodes syncs what is published.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::latency::Latencies;

/// The loop ends early at this file size, so that large records do not fill the disk.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The file is shrunk by so much at a time before it is unlinked: freeing a large file at once stalls every other sync
/// of the file system, and with it the case that is measured next.
const SHRINK_BYTES: u64 = 4 << 20;

/// The pause between two such steps.
const SHRINK_PAUSE: Duration = Duration::from_millis(10);

/// Numbers the files of this process.
static FILES: AtomicU32 = AtomicU32::new(0);

/// What the loop did, or each of several loops in the mean.
#[derive(Debug)]
pub(super) struct RawLoop {
    /// Appended and synced records.
    pub(super) records: u64,
    /// How long that took.
    pub(super) elapsed: Duration,
    /// The times of appends with their syncs, of all loops.
    pub(super) latencies: Latencies,
}

impl RawLoop {
    /// Records per second.
    pub(super) fn rate(&self) -> f64 {
        self.records as f64 / self.elapsed.as_secs_f64()
    }
}

/// Runs so many loops side by side, each on a file of its own. Blocks.
pub(super) fn run_side_by_side(
    loops: usize,
    dir: &Path,
    record_bytes: usize,
    duration: Duration,
) -> anyhow::Result<RawLoop> {
    let all: Vec<RawLoop> = thread::scope(|scope| {
        let started: Vec<_> = (0..loops)
            .map(|_| scope.spawn(|| run(dir, record_bytes, duration)))
            .collect();
        let ended = started
            .into_iter()
            .map(|one| one.join().expect("a raw loop does not panic"));
        ended.collect::<anyhow::Result<_>>()
    })?;
    let mut latencies = Latencies::default();
    all.iter().for_each(|one| latencies.merge(&one.latencies));
    let mean = |sum: u64| sum / loops.max(1) as u64;
    let nanos = all.iter().map(|one| one.elapsed.as_nanos() as u64).sum();
    Ok(RawLoop {
        records: mean(all.iter().map(|one| one.records).sum()),
        elapsed: Duration::from_nanos(mean(nanos)),
        latencies,
    })
}

/// Appends records of `record_bytes` to a new file in `dir` for `duration`, each with its own sync. Blocks.
fn run(dir: &Path, record_bytes: usize, duration: Duration) -> anyhow::Result<RawLoop> {
    let scratch = Scratch::create(dir)?;
    let mut file = &scratch.file;
    let record = vec![0xa5_u8; record_bytes];
    let records_max = (FILE_BYTES_MAX / record_bytes.max(1) as u64).max(1);
    let mut latencies = Latencies::default();
    let mut records = 0;
    let start = Instant::now();
    let mut before = start;
    while records < records_max && before - start < duration {
        file.write_all(&record)
            .and_then(|()| file.sync_data())
            .context("raw loop")?;
        let after = Instant::now();
        latencies.record(after - before);
        before = after;
        records += 1;
    }
    Ok(RawLoop {
        records,
        elapsed: before - start,
        latencies,
    })
}

/// The loop's file, removed at the end also when the loop fails.
struct Scratch {
    path: PathBuf,
    file: File,
}

impl Scratch {
    fn create(dir: &Path) -> anyhow::Result<Self> {
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("nsquorum-bench-raw-{}-{number}", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("cannot create {} for the raw loop", path.display()))?;
        Ok(Self { path, file })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut length = self.file.metadata().map_or(0, |metadata| metadata.len());
        while length > SHRINK_BYTES {
            length -= SHRINK_BYTES;
            if self.file.set_len(length).is_err() {
                break;
            }
            thread::sleep(SHRINK_PAUSE);
        }
        drop(std::fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_counted_and_the_file_is_gone_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let raw = run(dir.path(), 200, Duration::from_millis(20)).unwrap();
        assert!(raw.records > 0);
        assert_eq!(raw.records, raw.latencies.count());
        assert!(raw.rate() > 0.0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn several_loops_run_side_by_side() {
        let dir = tempfile::tempdir().unwrap();
        let duration = Duration::from_millis(100);
        let raw = run_side_by_side(3, dir.path(), 200, duration).unwrap();
        assert!(raw.latencies.count() / 3 == raw.records, "{raw:?}");
        assert!(
            raw.elapsed >= duration,
            "one after the other would each have had less: {raw:?}"
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_file_size_bounds_the_loop() {
        let dir = tempfile::tempdir().unwrap();
        let raw = run(dir.path(), (FILE_BYTES_MAX / 2) as usize, Duration::from_secs(600)).unwrap();
        assert_eq!(raw.records, 2);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_does_not_exist_is_named() {
        let error = run(Path::new("/nonexistent/dir"), 1, Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/dir"), "{error}");
    }
}
