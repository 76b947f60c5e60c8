//! The flags of discovery: of the lookup service on every node, and of nsqlookupds elsewhere.

use std::time::Duration;

use clap::Args;
use nsquorum_lookup::Lifetimes;

use super::duration;

/// Flags of discovery.
#[derive(Debug, Args)]
pub(crate) struct LookupArgs {
    /// Address for nsqlookupd's HTTP interface; empty to have none.
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:4161")]
    pub(crate) lookup_http_address: String,
    /// Address for nsqlookupd's TCP interface, where stock nsqds may register; empty to have none.
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:4160")]
    pub(crate) lookup_tcp_address: String,
    /// An nsqlookupd elsewhere that this node registers with as nsqd does; repeat for several.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) lookupd_tcp_address: Vec<String>,
    /// How long an nsqd that has registered here is listed after its last ping.
    #[arg(long, value_name = "DURATION", default_value = "300s", value_parser = duration::parse)]
    inactive_producer_timeout: Duration,
    /// How long a tombstone hides a producer of a topic.
    #[arg(long, value_name = "DURATION", default_value = "45s", value_parser = duration::parse)]
    tombstone_lifetime: Duration,
}

impl LookupArgs {
    /// For how long things count.
    pub(crate) fn lifetimes(&self) -> Lifetimes {
        Lifetimes {
            inactive_producer_timeout: self.inactive_producer_timeout,
            tombstone_lifetime: self.tombstone_lifetime,
        }
    }
}
