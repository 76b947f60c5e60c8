//! How far an import has come, in a file beside the queues.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nsquorum_diskqueue::{Position, Queue};
use serde::{Deserialize, Serialize};

use super::on_disk;

const FILE_NAME: &str = "nsquorum-import.json";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Moved {
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
    queues: BTreeMap<String, Moved>,
}

impl Progress {
    /// What an earlier import of the same data path has stored; nothing if there was none.
    ///
    /// # Errors
    /// If an nsqd has run on the data path since: what was moved may be gone, and what is there may be moved already.
    pub(super) fn load(directory: &Path, queues: &[Queue]) -> anyhow::Result<Self> {
        let path = directory.join(FILE_NAME);
        let moved: BTreeMap<String, Moved> = match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("{} makes no sense", path.display()))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        for queue in queues {
            let begun = moved.get(&queue.name().to_string());
            anyhow::ensure!(
                begun.is_none_or(|begun| begun.mark == queue.mark()),
                "{} has changed since {} was written: an nsqd has run here. Remove that file to import all that is there now",
                queue.name(),
                path.display()
            );
        }
        Ok(Self { path, queues: moved })
    }

    /// Where to go on; `None` for a queue that was not begun.
    pub(super) fn position(&self, queue: &Queue) -> Option<Position> {
        self.queues.get(&queue.name().to_string()).map(|moved| moved.position)
    }

    /// So many messages more, up to here, are stored. On disk when it returns.
    pub(super) async fn save(&mut self, queue: &Queue, position: Position, messages: u64) -> anyhow::Result<()> {
        let moved = self.queues.entry(queue.name().to_string()).or_insert_with(|| Moved {
            mark: queue.mark(),
            ..Moved::default()
        });
        moved.position = position;
        moved.messages += messages;
        self.write().await
    }

    /// On disk when it returns.
    pub(super) async fn write(&self) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec_pretty(&self.queues).context("numbers and names are JSON")?;
        let path = self.path.clone();
        let written = on_disk(move || replace(&path, &bytes)).await?;
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("json.new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
