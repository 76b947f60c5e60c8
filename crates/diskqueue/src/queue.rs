//! One disk queue, and reading it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data_path::Listed;
use crate::metadata::Metadata;
use crate::{DataPathError, Finding, QueueName, RECORD_HEADER_BYTES};

const LENGTH_BYTES: usize = 4;
const ID_BYTES: usize = 16;

/// A place in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Number of the file.
    pub file: u64,
    /// Bytes before the place in it.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}:{}", self.file, self.offset)
    }
}

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was published, in Unix nanoseconds.
    pub published_at: i64,
    /// Deliveries that were made of it.
    pub attempts: u16,
    /// Its id: hexadecimal digits.
    pub id: [u8; 16],
    /// What was published.
    pub body: Vec<u8>,
}

/// A queue that can be read.
#[derive(Clone, Debug)]
pub struct Queue {
    directory: PathBuf,
    name: QueueName,
    metadata_text: String,
    depth: Option<u64>,
    start: Position,
    files: BTreeMap<u64, u64>,
    findings: Vec<Finding>,
}

impl Queue {
    pub(crate) fn new(directory: &Path, name: QueueName, metadata: Option<String>, listed: Listed) -> Self {
        let mut findings = listed.set_aside;
        let files = listed.files;
        let end = files.last_key_value().map(|(file, bytes)| Position {
            file: *file,
            offset: *bytes,
        });
        let parsed = metadata.as_deref().and_then(Metadata::parse);
        match (&metadata, parsed) {
            (_, Some(parsed)) => {
                findings.extend(
                    files
                        .range(..parsed.read.file)
                        .map(|(file, _)| Finding::Consumed { file: *file }),
                );
                findings.extend(
                    end.filter(|end| *end > parsed.write)
                        .map(|found| Finding::BehindMetadata {
                            said: parsed.write,
                            found,
                        }),
                );
            }
            (Some(text), None) => findings.push(Finding::BadMetadata(text.clone())),
            (None, None) if !files.is_empty() => findings.push(Finding::NoMetadata),
            (None, None) => {}
        }
        let first = files
            .first_key_value()
            .map(|(file, _)| Position { file: *file, offset: 0 });
        let start = parsed.map(|parsed| parsed.read).or(first).unwrap_or_default();
        if let Some(parsed) = parsed {
            // Everything from where reading begins to where writing was must be there; an empty last file may be missing.
            let ends = if parsed.write.offset > 0 {
                parsed.write.file + 1
            } else {
                parsed.write.file
            };
            let begins = start.file.max(ends.saturating_sub(1 << 20));
            let missing = (begins..ends).filter(|file| !files.contains_key(file));
            let is_unread = |file: &u64| *file != parsed.write.file || parsed.read < parsed.write;
            findings.extend(missing.filter(is_unread).map(|file| Finding::MissingFile { file }));
            let read = Some(parsed.read).filter(|read| read.file != parsed.write.file);
            let short = read.into_iter().chain([parsed.write]).filter_map(|said| {
                let bytes = *files.get(&said.file)?;
                (bytes < said.offset && parsed.read < parsed.write).then(|| Finding::Damaged {
                    at: Position {
                        file: said.file,
                        offset: bytes,
                    },
                    bytes: said.offset - bytes,
                    what: "the file is shorter than the metadata say",
                })
            });
            findings.extend(short);
        }
        Self {
            directory: directory.to_owned(),
            name,
            metadata_text: metadata.unwrap_or_default(),
            depth: parsed.map(|parsed| parsed.depth),
            start,
            files: files.into_iter().filter(|(file, _)| *file >= start.file).collect(),
            findings,
        }
    }

    /// What it belongs to.
    pub fn name(&self) -> &QueueName {
        &self.name
    }

    /// What identifies this content of the queue: an nsqd that has run on it since has changed this.
    pub fn mark(&self) -> String {
        let (file, bytes) = self
            .files
            .last_key_value()
            .map_or((0, 0), |(file, bytes)| (*file, *bytes));
        format!("{} {file:06}:{bytes}", self.metadata_text.trim_end().replace('\n', " "))
    }

    /// Messages in it, as its metadata say.
    pub fn depth(&self) -> Option<u64> {
        self.depth
    }

    /// What can be seen without reading the messages.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Reads from the beginning.
    /// `body_bytes_max`: the longest body that is believed, nsqd's `--max-msg-size`.
    pub fn read(&self, body_bytes_max: u32) -> QueueReader {
        QueueReader {
            directory: self.directory.clone(),
            name: self.name.to_string(),
            files: self.files.clone(),
            at: self.start,
            open: None,
            body_bytes_max: u64::from(body_bytes_max),
            findings: Vec::new(),
        }
    }
}

/// Reads a queue's messages in their order.
#[derive(Debug)]
pub struct QueueReader {
    directory: PathBuf,
    name: String,
    files: BTreeMap<u64, u64>,
    at: Position,
    /// The file of `at`, read up to there.
    open: Option<BufReader<File>>,
    body_bytes_max: u64,
    findings: Vec<Finding>,
}

impl QueueReader {
    /// The place of the next record.
    pub fn position(&self) -> Position {
        self.at
    }

    /// What was wrong on the way so far.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The next message; `None` at the end. May touch the disk.
    ///
    /// # Errors
    /// If the disk cannot be read, or a message is longer than was said; damage is no error but a finding.
    pub fn next_record(&mut self) -> Result<Option<Record>, DataPathError> {
        loop {
            let Some((&file, &bytes)) = self.files.range(self.at.file..).next() else {
                return Ok(None);
            };
            if file > self.at.file {
                self.at = Position { file, offset: 0 };
                self.open = None;
            }
            let left = bytes.saturating_sub(self.at.offset);
            if left == 0 {
                self.leave(file);
                continue;
            }
            let path = self.directory.join(format!("{}.diskqueue.{file:06}.dat", self.name));
            match self
                .record(&path, left)
                .map_err(|error| DataPathError::io(&path, error))?
            {
                Ok(record) => return Ok(Some(record)),
                Err(Unreadable::Empty) => {}
                // Passing over it would lose it: what an import has passed it does not read again.
                Err(Unreadable::TooLong(bytes)) => {
                    self.open = None;
                    let at = self.at;
                    return Err(DataPathError::MessageTooLong { path, at, bytes });
                }
                Err(Unreadable::Cut) if file == self.last_file() => {
                    self.findings.push(Finding::TornTail {
                        at: self.at,
                        bytes: left,
                    });
                    self.leave(file);
                }
                Err(unreadable) => {
                    self.findings.push(Finding::Damaged {
                        at: self.at,
                        bytes: left,
                        what: unreadable.what(),
                    });
                    self.leave(file);
                }
            }
        }
    }

    fn last_file(&self) -> u64 {
        self.files.last_key_value().map_or(0, |(file, _)| *file)
    }

    fn leave(&mut self, file: u64) {
        self.open = None;
        self.at = Position {
            file: file + 1,
            offset: 0,
        };
    }

    fn record(&mut self, path: &Path, left: u64) -> io::Result<Result<Record, Unreadable>> {
        let Some(left) = left.checked_sub(LENGTH_BYTES as u64) else {
            return Ok(Err(Unreadable::Cut));
        };
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(self.at.offset))?;
                BufReader::with_capacity(256 << 10, file)
            }
        };
        let mut length = [0; LENGTH_BYTES];
        open.read_exact(&mut length)?;
        let header = RECORD_HEADER_BYTES as u64;
        let length = match u64::try_from(i32::from_be_bytes(length)) {
            Ok(length) if length >= header => length,
            _ => return Ok(Err(Unreadable::Length)),
        };
        let is_too_long = length > header + self.body_bytes_max;
        if length > left {
            return Ok(Err(if is_too_long {
                Unreadable::Length
            } else {
                Unreadable::Cut
            }));
        }
        let mut head = [0; RECORD_HEADER_BYTES];
        open.read_exact(&mut head)?;
        let has_id = head.iter().rev().take(ID_BYTES).all(u8::is_ascii_hexdigit);
        if is_too_long {
            return Ok(Err(if has_id {
                Unreadable::TooLong(length - header)
            } else {
                Unreadable::Length
            }));
        }
        if !has_id {
            return Ok(Err(Unreadable::Id));
        }
        let body_bytes = usize::try_from(length - header).expect("bounded by a 32-bit number");
        let mut body = vec![0; body_bytes];
        open.read_exact(&mut body)?;
        let (time, rest) = head.split_at(8);
        let (attempts, id) = rest.split_at(2);
        let record = Record {
            published_at: i64::from_be_bytes(time.try_into().expect("split at eight bytes")),
            attempts: u16::from_be_bytes(attempts.try_into().expect("split at two bytes")),
            id: id.try_into().expect("the rest of 26 bytes"),
            body,
        };
        let at = self.at;
        self.at.offset += LENGTH_BYTES as u64 + length;
        self.open = Some(open);
        if record.body.is_empty() {
            self.findings.push(Finding::EmptyBody { at });
            return Ok(Err(Unreadable::Empty));
        }
        Ok(Ok(record))
    }
}

/// Why there is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unreadable {
    /// The file ends in it.
    Cut,
    /// No record has this length.
    Length,
    /// No message has this id.
    Id,
    /// There is one, with a body of more bytes than was said.
    TooLong(u64),
    /// There is one, without a body.
    Empty,
}

impl Unreadable {
    const fn what(self) -> &'static str {
        match self {
            Self::Cut => "the file ends in a record",
            Self::Length => "no record has this length",
            Self::Id => "no message has this id",
            Self::TooLong(_) => "longer than messages are",
            Self::Empty => "a record without a body",
        }
    }
}
