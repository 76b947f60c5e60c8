//! What the servers need to know.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use nsquorum_broker::Topology;
use nsquorum_environment::WallTime;
use nsquorum_protocol::{ChannelName, Limits, ServerFeatures, TopicName};
use nsquorum_topic::Seq;

use crate::auth::AuthSettings;
use crate::tls::ServerTls;

/// A stored message whose body does not match the checksum that was made where it entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// Its topic.
    pub topic: TopicName,
    /// The channel on whose way it was found.
    pub channel: ChannelName,
    /// Its number.
    pub seq: Seq,
}

/// Called for every [`Corruption`], after it was logged and instead of the delivery.
pub type CorruptionHook = Arc<dyn Fn(&Corruption) + Send + Sync>;

/// Settings of the TCP and HTTP servers.
#[derive(Clone)]
pub struct FrontendConfig {
    /// Sizes and times that clients are held to.
    pub limits: Limits,
    /// What IDENTIFY offers, and the version that clients see. Whether TLS is offered and AUTH required follows from `tls`
    /// and `auth`.
    pub features: ServerFeatures,
    /// TLS, if there is a certificate.
    pub tls: Option<ServerTls>,
    /// Whether clients of the TCP protocol must use TLS.
    pub tls_required: bool,
    /// Who knows what clients may do; without it all may do everything.
    pub auth: Option<AuthSettings>,
    /// How many consumers one channel may have on this node; `None` for any number.
    pub max_channel_consumers: Option<NonZeroUsize>,
    /// Where this node is, if consumers near it are to be preferred.
    pub topology: Option<Topology>,
    /// The release of nsquorum, for operators (`/cluster/status`).
    pub release: String,
    /// A publish without an answer for this long fails (its outcome is then unknown).
    pub publish_timeout: Duration,
    /// The name under which others reach this node (`/info`).
    pub broadcast_address: String,
    /// The name of the machine (`/info`).
    pub hostname: String,
    /// When the process began (`/info`, `/stats`).
    pub started_at: WallTime,
    /// What to do about damaged messages.
    pub on_corruption: CorruptionHook,
}

impl FrontendConfig {
    /// What IDENTIFY offers to a new connection.
    pub(crate) fn offered(&self) -> ServerFeatures {
        ServerFeatures {
            tls_v1: self.tls.is_some(),
            auth_required: self.auth.is_some(),
            ..self.features.clone()
        }
    }

    /// Bytes of unanswered publishes that one connection may have: max(4 MiB, 2 x the longest command). Enough that a client that pipelines does
    /// not block in its write while the disk works (go-nsq drops a connection whose write blocks for a second).
    pub fn read_ahead_bytes_max(&self) -> usize {
        (4 << 20).max(2 * self.limits.max_body_size.max(self.limits.max_msg_size))
    }
}

impl fmt::Debug for FrontendConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrontendConfig")
            .field("limits", &self.limits)
            .field("features", &self.features)
            .field("publish_timeout", &self.publish_timeout)
            .finish_non_exhaustive()
    }
}
