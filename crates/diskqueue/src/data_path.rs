//! The directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use nsquorum_protocol::{ChannelName, TopicName};
use serde::Deserialize;
use thiserror::Error;

use crate::{Finding, Position, Queue};

/// The largest `nsqd.dat` that is read: names are short, and a million of them would be a tenth of it.
const NSQD_DAT_BYTES_MAX: u64 = 1 << 30;
/// The largest metadata of a queue that is read: five numbers.
const METADATA_BYTES_MAX: u64 = 256;

/// Why a data path cannot be read at all.
#[derive(Debug, Error)]
pub enum DataPathError {
    /// An nsqd, or another import, uses it.
    #[error("{0} is in use: stop its nsqd first")]
    InUse(PathBuf),
    /// No nsqd has written here.
    #[error("there is no nsqd.dat in {0}: this is not the data path of an nsqd")]
    NotADataPath(PathBuf),
    /// `nsqd.dat` is damaged.
    #[error("{path} makes no sense: {why}")]
    BadTopics {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A message is longer than the reader was told that messages are. Nothing behind it was read.
    #[error("{path}: the message at {at} has {bytes} bytes, which is more than --max-msg-size: give that of the nsqd")]
    MessageTooLong {
        /// The file.
        path: PathBuf,
        /// Where the message begins.
        at: Position,
        /// The length of its body.
        bytes: u64,
    },
    /// The disk, or permissions.
    #[error("cannot read {path}: {error}")]
    Io {
        /// What was to be read.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
}

impl DataPathError {
    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            error,
        }
    }
}

/// A topic of `nsqd.dat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicEntry {
    /// Its name.
    pub name: TopicName,
    /// Whether nothing flowed to its channels.
    pub paused: bool,
    /// Its channels, in the file's order.
    pub channels: Vec<ChannelEntry>,
}

/// A channel of `nsqd.dat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelEntry {
    /// Its name.
    pub name: ChannelName,
    /// Whether nothing was delivered.
    pub paused: bool,
}

/// What a queue belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueName {
    /// Messages that have not left the topic.
    Topic(TopicName),
    /// Messages of a channel.
    Channel(TopicName, ChannelName),
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(topic) => write!(f, "{topic}"),
            Self::Channel(topic, channel) => write!(f, "{topic}:{channel}"),
        }
    }
}

/// The files of a queue, as the directory lists them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listed {
    pub(crate) has_metadata: bool,
    /// Numbers and lengths.
    pub(crate) files: BTreeMap<u64, u64>,
    pub(crate) set_aside: Vec<Finding>,
}

/// The data path of a stopped nsqd. No nsqd can start in it for as long as this lives.
#[derive(Debug)]
pub struct DataPath {
    directory: PathBuf,
    topics: Vec<TopicEntry>,
    queues: BTreeMap<String, Listed>,
    /// nsqd's own lock: `flock` on the directory.
    _lock: File,
}

#[derive(Deserialize)]
struct NsqdDat {
    // Go writes `null` for lists without elements.
    topics: Option<Vec<NsqdDatTopic>>,
}

#[derive(Deserialize)]
struct NsqdDatTopic {
    name: String,
    paused: bool,
    channels: Option<Vec<NsqdDatChannel>>,
}

#[derive(Deserialize)]
struct NsqdDatChannel {
    name: String,
    paused: bool,
}

impl DataPath {
    /// Locks a data path and looks at what is there.
    ///
    /// # Errors
    /// If it is in use, is not the data path of an nsqd, or cannot be read.
    pub fn open(directory: &Path) -> Result<Self, DataPathError> {
        let lock = File::open(directory).map_err(|error| DataPathError::io(directory, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataPathError::InUse(directory.to_owned())),
            Err(TryLockError::Error(error)) => return Err(DataPathError::io(directory, error)),
        }
        Ok(Self {
            topics: read_topics(directory)?,
            queues: list(directory)?,
            directory: directory.to_owned(),
            _lock: lock,
        })
    }

    /// The topics, in the order of `nsqd.dat`.
    pub fn topics(&self) -> &[TopicEntry] {
        &self.topics
    }

    /// The queues of all topics and channels in `nsqd.dat`: of each topic those of its channels first, because their messages are older.
    pub fn queue_names(&self) -> Vec<QueueName> {
        let of = |topic: &TopicEntry| {
            let name = topic.name.clone();
            let of_channel = |channel: &ChannelEntry| QueueName::Channel(topic.name.clone(), channel.name.clone());
            let channels: Vec<_> = topic.channels.iter().map(of_channel).collect();
            channels.into_iter().chain([QueueName::Topic(name)])
        };
        self.topics.iter().flat_map(of).collect()
    }

    /// Queues with files that belong to nothing in `nsqd.dat`: nsqd does not read them either.
    pub fn leftovers(&self) -> Vec<String> {
        let known: BTreeSet<String> = self.queue_names().iter().map(QueueName::to_string).collect();
        let left = self.queues.iter().filter(|(name, listed)| {
            !known.contains(*name) && (!listed.files.is_empty() || !listed.set_aside.is_empty())
        });
        left.map(|(name, _)| name.clone()).collect()
    }

    /// Looks at a queue.
    ///
    /// # Errors
    /// If its metadata cannot be read.
    pub fn queue(&self, name: &QueueName) -> Result<Queue, DataPathError> {
        let text = name.to_string();
        let listed = self.queues.get(&text).cloned().unwrap_or_default();
        let metadata = if listed.has_metadata {
            let path = self.directory.join(format!("{text}.diskqueue.meta.dat"));
            let bytes = read(&path, METADATA_BYTES_MAX).map_err(|error| DataPathError::io(&path, error))?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        } else {
            None
        };
        Ok(Queue::new(&self.directory, name.clone(), metadata, listed))
    }
}

fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_topics(directory: &Path) -> Result<Vec<TopicEntry>, DataPathError> {
    let path = directory.join("nsqd.dat");
    let bad = |why: String| DataPathError::BadTopics {
        path: path.clone(),
        why,
    };
    let bytes = match read(&path, NSQD_DAT_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(DataPathError::NotADataPath(directory.to_owned()));
        }
        Err(error) => return Err(DataPathError::io(&path, error)),
    };
    let parsed: NsqdDat = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    let channel = |channel: NsqdDatChannel| -> Result<ChannelEntry, DataPathError> {
        let name = channel
            .name
            .parse()
            .map_err(|_| bad(format!("no channel can be called {:?}", channel.name)))?;
        Ok(ChannelEntry {
            name,
            paused: channel.paused,
        })
    };
    let topic = |topic: NsqdDatTopic| -> Result<TopicEntry, DataPathError> {
        let name = topic
            .name
            .parse()
            .map_err(|_| bad(format!("no topic can be called {:?}", topic.name)))?;
        Ok(TopicEntry {
            name,
            paused: topic.paused,
            channels: topic
                .channels
                .unwrap_or_default()
                .into_iter()
                .map(channel)
                .filter(|channel| !matches!(channel, Ok(channel) if channel.name.is_ephemeral()))
                .collect::<Result<_, DataPathError>>()?,
        })
    };
    let topics = parsed.topics.unwrap_or_default().into_iter().map(topic);
    // nsqd 1.3.0 writes nothing ephemeral down. It would have no messages on the disk, and no consumer that keeps it alive.
    topics
        .filter(|topic| !matches!(topic, Ok(topic) if topic.name.is_ephemeral()))
        .collect()
}

fn list(directory: &Path) -> Result<BTreeMap<String, Listed>, DataPathError> {
    let failed = |error| DataPathError::io(directory, error);
    let mut queues: BTreeMap<String, Listed> = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let Some((queue, rest)) = name.to_str().and_then(|name| name.rsplit_once(".diskqueue.")) else {
            continue;
        };
        let bytes = entry.metadata().map_err(failed)?.len();
        let listed = queues.entry(queue.to_owned()).or_default();
        if rest == "meta.dat" {
            listed.has_metadata = true;
        } else if let Some(file) = rest.strip_suffix(".dat").and_then(number) {
            listed.files.insert(file, bytes);
        } else if rest.strip_suffix(".dat.bad").and_then(number).is_some() {
            listed.set_aside.push(Finding::SetAside {
                name: name.to_string_lossy().into_owned(),
                bytes,
            });
        }
    }
    Ok(queues)
}

fn number(digits: &str) -> Option<u64> {
    (digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}
