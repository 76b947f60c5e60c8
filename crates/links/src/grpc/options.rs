//! Settings of links between processes.

use std::time::Duration;

use super::secret::ClusterSecret;
use crate::Limits;

/// Settings of links between processes. All nodes of a cluster should have the same.
#[derive(Clone, Debug)]
pub struct GrpcOptions {
    /// Bounds.
    pub limits: Limits,
    /// Without one only nodes on this machine are linked.
    pub secret: Option<ClusterSecret>,
    /// A peer that says nothing for this long is taken for dead; each end speaks four times as often. Holds for the control class; bulk
    /// gets four times as long.
    pub silence_max: Duration,
    /// For a TCP connection to be made.
    pub connect_timeout: Duration,
    /// For a handshake, from the TCP connection on.
    pub handshake_timeout: Duration,
    /// Between attempts: doubles from `min` to `max`, half of it random.
    pub backoff_min: Duration,
    /// See `backoff_min`.
    pub backoff_max: Duration,
    /// After a link broke a redial that breaks too is repeated this fast, because a dying process still owns its listener for a moment
    /// and the refusal that proves its death is about to come.
    pub probe_every: Duration,
    /// For how long after the break.
    pub probe_for: Duration,
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            secret: None,
            silence_max: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(2),
            backoff_min: Duration::from_millis(25),
            backoff_max: Duration::from_secs(1),
            probe_every: Duration::from_millis(4),
            probe_for: Duration::from_secs(1),
        }
    }
}

impl GrpcOptions {
    /// How often each end of a stream says something.
    pub(super) fn keep_alive(&self) -> Duration {
        self.silence_max / 4
    }
}
