//! How far an import has come, in a file beside the queues: a line of JSON for each request, the last one of a queue counts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use nsquorum_diskqueue::{Position, Queue};
use serde::{Deserialize, Serialize};

use super::on_disk;

const FILE_NAME: &str = "nsquorum-import.json";

/// A line.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Moved {
    /// Name of the queue.
    queue: String,
    /// [`Queue::mark`] when the import began.
    mark: String,
    /// Everything before it is stored.
    position: Position,
    /// Messages that were.
    messages: u64,
}

/// The queues that were begun.
#[derive(Debug)]
pub(super) struct Progress {
    path: PathBuf,
    /// Lines are appended to it.
    file: Arc<File>,
    queues: BTreeMap<String, Moved>,
}

impl Progress {
    /// What an earlier import of the same data path has stored; nothing if there was none. It can be written when this returns.
    ///
    /// # Errors
    /// If an nsqd has run on the data path since: what was moved may be gone, and what is there may be moved already.
    pub(super) async fn open(directory: &Path, queues: &[Queue]) -> anyhow::Result<Self> {
        let path = directory.join(FILE_NAME);
        let from = path.clone();
        let moved = on_disk(move || read(&from)).await??;
        for queue in queues {
            let begun = moved.get(&queue.name().to_string());
            anyhow::ensure!(
                begun.is_none_or(|begun| begun.mark == queue.mark()),
                "{} has changed since {} was written: an nsqd has run here. Remove that file to import all that is there now",
                queue.name(),
                path.display()
            );
        }
        let lines = moved.values().map(line).collect::<anyhow::Result<Vec<_>>>()?.concat();
        let to = path.clone();
        let replaced = on_disk(move || replace(&to, &lines)).await?;
        let file = replaced.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            path,
            file: Arc::new(file),
            queues: moved,
        })
    }

    /// Where to go on; `None` for a queue that was not begun.
    pub(super) fn position(&self, queue: &Queue) -> Option<Position> {
        self.queues.get(&queue.name().to_string()).map(|moved| moved.position)
    }

    /// So many messages more, up to here, are stored. On disk when it returns.
    pub(super) async fn save(&mut self, queue: &Queue, position: Position, messages: u64) -> anyhow::Result<()> {
        let name = queue.name().to_string();
        let moved = self.queues.entry(name.clone()).or_insert_with(|| Moved {
            queue: name,
            mark: queue.mark(),
            position,
            messages: 0,
        });
        moved.position = position;
        moved.messages += messages;
        let (line, file) = (line(moved)?, Arc::clone(&self.file));
        let appended = on_disk(move || {
            (&*file).write_all(&line)?;
            file.sync_data()
        })
        .await?;
        appended.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn line(moved: &Moved) -> anyhow::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(moved).context("numbers and names are JSON")?;
    line.push(b'\n');
    Ok(line)
}

fn read(path: &Path) -> anyhow::Result<BTreeMap<String, Moved>> {
    let cannot = || format!("cannot read {}", path.display());
    let mut moved = BTreeMap::new();
    let mut file = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(moved),
        Err(error) => return Err(error).with_context(cannot),
    };
    let mut line = Vec::new();
    // A last line without its end is one whose import was stopped while it wrote: what it would say was not yet noted.
    while file.read_until(b'\n', &mut line).with_context(cannot)? > 0 && line.ends_with(b"\n") {
        let last: Moved =
            serde_json::from_slice(&line).with_context(|| format!("{} makes no sense", path.display()))?;
        moved.insert(last.queue.clone(), last);
        line.clear();
    }
    Ok(moved)
}

/// Returns the new file, to append to.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let new = path.with_extension("json.new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(file)
}
