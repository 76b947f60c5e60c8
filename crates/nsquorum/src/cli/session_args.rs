//! The flags of what clients may negotiate, and of who they are.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::{Args, ValueEnum};
use nsquorum_broker::Topology;
use nsquorum_frontend::tls::{ClientTls, TlsError};
use nsquorum_frontend::{AuthMethod, AuthSettings};
use nsquorum_protocol::{Limits, ServerFeatures};

use super::duration;
use super::serve_args::millis;

/// Flags of sessions.
#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    /// Whether clients may use deflate.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true",
        value_parser = parse_bool, action = clap::ArgAction::Set)]
    pub(super) deflate: bool,
    /// Highest deflate level that clients are granted, 1 to 9.
    #[arg(long, value_name = "LEVEL", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub(super) max_deflate_level: u32,
    /// Whether clients may use snappy.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true",
        value_parser = parse_bool, action = clap::ArgAction::Set)]
    pub(super) snappy: bool,
    /// Largest output buffer that a client may ask for, in bytes. What is ready is never held back; the value is negotiated all the same.
    #[arg(long, value_name = "BYTES", default_value_t = 64 * 1024)]
    pub(super) max_output_buffer_size: usize,
    /// Longest flush period that a client may ask for.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    pub(super) max_output_buffer_timeout: Duration,
    /// Shortest flush period that a client may ask for.
    #[arg(long, value_name = "DURATION", default_value = "25ms", value_parser = duration::parse)]
    pub(super) min_output_buffer_timeout: Duration,
    /// Flush period of clients that ask for none.
    #[arg(long, value_name = "DURATION", default_value = "250ms", value_parser = duration::parse)]
    pub(super) output_buffer_timeout: Duration,
    /// Most consumers of one channel on this node; 0 for any number.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub(super) max_channel_consumers: usize,
    /// Messages that an `#ephemeral` channel keeps for consumers that are not ready; beyond it the oldest are dropped. (Others keep all, in the log.)
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    pub(crate) mem_queue_size: u64,
    /// An auth server, HOST:PORT or a complete URL; repeat for several. Clients then have to AUTH.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) auth_http_address: Vec<String>,
    /// How auth servers are asked.
    #[arg(long, value_name = "METHOD", value_enum, default_value = "get")]
    pub(super) auth_http_request_method: Method,
    /// How long a connection to an auth server may take to be made.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration::parse)]
    pub(crate) http_client_connect_timeout: Duration,
    /// How long an auth server may take to answer.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    pub(crate) http_client_request_timeout: Duration,
    /// The region of this node.
    #[arg(long, value_name = "REGION", default_value = "")]
    pub(super) topology_region: String,
    /// The zone of this node.
    #[arg(long, value_name = "ZONE", default_value = "")]
    pub(super) topology_zone: String,
    /// Whether consumers that say in IDENTIFY that they are in this node's zone, or else in its region, get messages before others.
    #[arg(long)]
    pub(super) topology_aware_consumption: bool,
}

/// How auth servers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Method {
    Get,
    Post,
}

impl SessionArgs {
    /// The limits that are set here; the others have nsqd's defaults.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            max_output_buffer_size: self.max_output_buffer_size,
            max_output_buffer_timeout_ms: millis(self.max_output_buffer_timeout),
            min_output_buffer_timeout_ms: millis(self.min_output_buffer_timeout),
            output_buffer_timeout_ms: millis(self.output_buffer_timeout),
            max_deflate_level: self.max_deflate_level,
            ..Limits::default()
        }
    }

    /// What IDENTIFY offers.
    pub(crate) fn features(&self) -> ServerFeatures {
        ServerFeatures {
            deflate: self.deflate,
            snappy: self.snappy,
            topology_region: self.topology_region.clone(),
            topology_zone: self.topology_zone.clone(),
            ..ServerFeatures::default()
        }
    }

    /// Where this node is, if consumers near it are preferred.
    pub(crate) fn topology(&self) -> Option<Topology> {
        self.topology_aware_consumption.then(|| Topology {
            zone: self.topology_zone.clone(),
            region: self.topology_region.clone(),
        })
    }

    /// The auth servers as they were given.
    pub(crate) fn auth_addresses(&self) -> &[String] {
        &self.auth_http_address
    }

    /// The most consumers of one channel.
    pub(crate) fn max_channel_consumers(&self) -> Option<NonZeroUsize> {
        NonZeroUsize::new(self.max_channel_consumers)
    }

    /// The auth servers, if there are any; `tls` is read for those with https.
    pub(crate) fn auth(
        &self,
        tls: impl FnOnce() -> Result<ClientTls, TlsError>,
    ) -> Result<Option<AuthSettings>, TlsError> {
        if self.auth_http_address.is_empty() {
            return Ok(None);
        }
        Ok(Some(AuthSettings {
            addresses: self.auth_http_address.clone(),
            method: match self.auth_http_request_method {
                Method::Get => AuthMethod::Get,
                Method::Post => AuthMethod::Post,
            },
            connect_timeout: self.http_client_connect_timeout,
            request_timeout: self.http_client_request_timeout,
            tls: tls()?,
        }))
    }
}

/// A boolean as Go reads it.
pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("{other:?} is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use nsquorum_frontend::tls::MinVersion;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        session: SessionArgs,
    }

    fn parse(line: &str) -> SessionArgs {
        let arguments = std::iter::once("x").chain(line.split_whitespace());
        Cli::try_parse_from(arguments).expect(line).session
    }

    #[test]
    fn defaults_are_nsqds() {
        let session = parse("");
        assert_eq!(session.limits(), Limits::default());
        let features = session.features();
        assert!(features.deflate && features.snappy);
        assert_eq!(session.max_channel_consumers(), None);
        let auth = session.auth(|| unreachable!("there is nobody to ask")).unwrap();
        assert!(auth.is_none());
    }

    #[test]
    fn booleans_are_gos() {
        for (line, deflate, snappy) in [
            ("--deflate --snappy=false", true, false),
            ("--deflate=0 --snappy", false, true),
            ("--deflate=F --snappy=TRUE", false, true),
        ] {
            let features = parse(line).features();
            assert_eq!((features.deflate, features.snappy), (deflate, snappy), "{line}");
        }
        assert!(Cli::try_parse_from(["x", "--snappy=yes"]).is_err());
        assert!(Cli::try_parse_from(["x", "--max-deflate-level=10"]).is_err());
    }

    #[test]
    fn auth_servers_are_a_list() {
        let line = "--auth-http-address a:1 --auth-http-address=http://b/c --auth-http-request-method post";
        let auth = parse(line).auth(|| ClientTls::load(None, MinVersion::Tls12));
        let auth = auth.unwrap().unwrap();
        assert_eq!(auth.addresses, ["a:1", "http://b/c"]);
        assert_eq!(auth.method, AuthMethod::Post);
        let times = (auth.connect_timeout.as_secs(), auth.request_timeout.as_secs());
        assert_eq!(times, (2, 5));
    }
}
