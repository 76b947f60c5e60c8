//! What nodes say to each other before they are one cluster. Rare and small, hence JSON.

use nsquorum_storage::Member;
use serde::{Deserialize, Serialize};

/// Far more than any list of members.
const BYTES_MAX: usize = 64 << 10;

/// A message of the formation service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Message {
    /// My directory is empty, and this is where peers reach me.
    Here {
        /// `host:port`.
        address: String,
    },
    /// There is a cluster, and you belong to it.
    Founded {
        /// 32 hex digits.
        cluster: String,
        /// All its members.
        members: Vec<Member>,
    },
    /// There is a cluster, and you do not belong to it.
    Stranger {
        /// 32 hex digits.
        cluster: String,
    },
}

impl Message {
    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers are valid JSON")
    }

    /// `None` for what no node of this version says.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= BYTES_MAX).then(|| serde_json::from_slice(bytes).ok())?
    }
}
