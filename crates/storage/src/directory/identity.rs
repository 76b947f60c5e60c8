//! Who a directory is: written when it is made, raised at every start.

use std::path::Path;

use nsquorum_environment::Random;
use nsquorum_topic::{ClusterId, NodeId, NodeIncarnation};
use serde::{Deserialize, Serialize};

use super::{IDENTITY_FILE, durable, located};
use crate::error::StorageError;

const PRODUCT: &str = "nsquorum";
const FORMAT: u32 = 1;
/// Numbers of nodes that found a cluster together: random, ten digits, and exact in any JSON reader.
const NODE_MIN: u64 = 1_000_000_000;
/// See [`NODE_MIN`].
const NODE_MAX: u64 = 10_000_000_000;

/// How a new directory gets its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Founding {
    /// It is a cluster of its own from the first moment.
    Alone,
    /// It waits for others: see [`NodeDirectory::found`](super::NodeDirectory::found).
    Together,
}

/// A number for a new cluster.
pub fn new_cluster(random: &dyn Random) -> ClusterId {
    let mut cluster = [0; 16];
    cluster[..8].copy_from_slice(&random.next().to_be_bytes());
    cluster[8..].copy_from_slice(&random.next().to_be_bytes());
    ClusterId::new(cluster)
}

/// A directory's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster it belongs to; `None` until it has found one.
    pub cluster: Option<ClusterId>,
    /// The node it is.
    pub node: NodeId,
    /// How often it was started, this time included.
    pub incarnation: NodeIncarnation,
    /// The storage nodes that the cluster was formed from, this one included, by node. Empty for a cluster of one.
    pub members: Vec<Member>,
}

/// A storage node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The node's number.
    pub node: u64,
    /// `host:port` at which its peers reach it.
    pub address: String,
}

/// The record on disk. A person may read it; nobody should have to write it, hence the checksum.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    product: String,
    format: u32,
    /// Empty before the node has a cluster.
    cluster: String,
    node: u64,
    incarnation: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    members: Vec<Member>,
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
            members,
            ..
        } = self;
        let mut text = format!("{product}\n{format}\n{cluster}\n{node}\n{incarnation}\n");
        for Member { node, address } in members {
            text.push_str(&format!("{node} {address}\n"));
        }
        format!("{:08x}", crc32c::crc32c(text.as_bytes()))
    }
}

impl Identity {
    /// A node at its first start.
    pub(super) fn new(founding: Founding, random: &dyn Random) -> Self {
        let (cluster, node) = match founding {
            Founding::Alone => (Some(new_cluster(random)), NodeId::new(1)),
            // Never a number that another directory may have had: what the cluster knows of a lost disk must not be taken for this one.
            Founding::Together => (None, NodeId::new(NODE_MIN + random.below(NODE_MAX - NODE_MIN))),
        };
        Self {
            cluster,
            node,
            incarnation: NodeIncarnation::new(1),
            members: Vec::new(),
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
        let cluster = match record.cluster.as_str() {
            "" => None,
            text => Some(ClusterId::parse(text).ok_or_else(|| damaged("odd cluster".into()))?),
        };
        Ok(Self {
            cluster,
            node: NodeId::new(record.node),
            incarnation: NodeIncarnation::new(record.incarnation),
            members: record.members,
        })
    }

    pub(super) fn write(&self, directory: &Path) -> Result<(), StorageError> {
        let mut record = Record {
            product: PRODUCT.into(),
            format: FORMAT,
            cluster: self.cluster.map_or_else(String::new, |cluster| cluster.to_string()),
            node: self.node.get(),
            incarnation: self.incarnation.get(),
            members: self.members.clone(),
            crc32c: String::new(),
        };
        record.crc32c = record.checksum();
        let mut text = serde_json::to_vec_pretty(&record).expect("a record of strings and numbers is valid JSON");
        text.push(b'\n');
        durable::replace_file(directory, IDENTITY_FILE, &text)
    }
}
