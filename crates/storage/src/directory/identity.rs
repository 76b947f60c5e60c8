//! Who a directory is: written when it is made, raised at every start.

use std::fmt;
use std::path::Path;

use nsquorum_environment::Random;
use nsquorum_topic::{NodeId, NodeIncarnation};
use serde::{Deserialize, Serialize};

use super::{IDENTITY_FILE, durable, located};
use crate::error::StorageError;

const PRODUCT: &str = "nsquorum";
const FORMAT: u32 = 1;

/// A cluster's number: 16 random bytes, written as 32 hex digits. Directories of different clusters are never mixed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClusterId([u8; 16]);

impl ClusterId {
    /// The cluster of these bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads 32 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let number = digits.then(|| u128::from_str_radix(text, 16).ok())??;
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A directory's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The node it is.
    pub node: NodeId,
    /// How often it was started, this time included.
    pub incarnation: NodeIncarnation,
}

/// The record on disk. A person may read it; nobody should have to write it, hence the checksum.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    product: String,
    format: u32,
    cluster: String,
    node: u64,
    incarnation: u64,
    /// CRC32C of the other fields, in this order, each followed by a newline; eight hex digits.
    crc32c: String,
}

impl Record {
    fn checksum(&self) -> String {
        let Self {
            product,
            format,
            cluster,
            node,
            incarnation,
            ..
        } = self;
        format!(
            "{:08x}",
            crc32c::crc32c(format!("{product}\n{format}\n{cluster}\n{node}\n{incarnation}\n").as_bytes())
        )
    }
}

impl Identity {
    /// A new cluster's first node, at its first start.
    pub(super) fn new(node: NodeId, random: &dyn Random) -> Self {
        let mut cluster = [0; 16];
        cluster[..8].copy_from_slice(&random.next().to_be_bytes());
        cluster[8..].copy_from_slice(&random.next().to_be_bytes());
        Self {
            cluster: ClusterId(cluster),
            node,
            incarnation: NodeIncarnation::new(1),
        }
    }

    /// The same, one start later.
    pub(super) fn raised(self) -> Self {
        Self {
            incarnation: NodeIncarnation::new(self.incarnation.get() + 1),
            ..self
        }
    }

    /// Reads the record of a directory.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if it is damaged, [`StorageError::Unsupported`] if it is of a later format.
    pub fn read(directory: &Path) -> Result<Self, StorageError> {
        let path = directory.join(IDENTITY_FILE);
        let text = std::fs::read(&path).map_err(|error| located("read", &path, &error))?;
        let damaged = |what: String| StorageError::Corrupt {
            group: None,
            index: None,
            what: format!("{}: {what}", path.display()).into(),
        };
        let record: Record = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if record.checksum() != record.crc32c {
            return Err(damaged("checksum does not match".into()));
        }
        if record.product != PRODUCT || record.format != FORMAT {
            let what = format!("{}: {} format {}", path.display(), record.product, record.format);
            return Err(StorageError::Unsupported {
                group: None,
                index: None,
                what: what.into(),
            });
        }
        let cluster = ClusterId::parse(&record.cluster).ok_or_else(|| damaged("odd cluster".into()))?;
        Ok(Self {
            cluster,
            node: NodeId::new(record.node),
            incarnation: NodeIncarnation::new(record.incarnation),
        })
    }

    pub(super) fn write(&self, directory: &Path) -> Result<(), StorageError> {
        let mut record = Record {
            product: PRODUCT.into(),
            format: FORMAT,
            cluster: self.cluster.to_string(),
            node: self.node.get(),
            incarnation: self.incarnation.get(),
            crc32c: String::new(),
        };
        record.crc32c = record.checksum();
        let mut text = serde_json::to_vec_pretty(&record).expect("a record of strings and numbers is valid JSON");
        text.push(b'\n');
        durable::replace_file(directory, IDENTITY_FILE, &text)
    }
}
