//! The program under the name `nsqlookupd`: the flags, the file, the log and the exit codes of stock nsqlookupd.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::Context as _;
use nsquorum_environment::Environment;
use nsquorum_http::StopSource;
use nsquorum_lookup::{Lifetimes, LookupService, LookupSettings};

use super::duration::GoDuration;
use super::go::{self, Common, Flag, NSQ_VERSION, Options};
use super::logging;
use crate::exit::Exit;
use crate::serve::{Signals, host_name, resolve};

/// Serves until a signal or a failure.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> Exit {
    let options = match go::read::<LookupdOptions>(arguments) {
        Ok((options, _)) => options,
        Err(end) => return end.report(LookupdOptions::PROGRAM),
    };
    logging::start(options.common.log_level, &options.common.log_style());
    tracing::info!("{}", go::version_line(LookupdOptions::PROGRAM));
    match serve(options) {
        Ok(()) => Exit::Ok,
        Err(error) => go::fatal(
            LookupdOptions::PROGRAM,
            &format!("failed to instantiate nsqlookupd - {error:#}"),
        ),
    }
}

fn serve(options: LookupdOptions) -> anyhow::Result<()> {
    let settings = options.settings()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start")?.block_on(async {
        let mut signals = Signals::new()?;
        let service = LookupService::bind(settings)?;
        tracing::info!("TCP: listening on {}", service.tcp_address());
        tracing::info!("HTTP: listening on {}", service.http_address());
        let (stop, stopped) = StopSource::new();
        let served = tokio::spawn(service.run(Environment::system(), stopped));
        signals.received().await;
        tracing::info!("stopping");
        stop.stop();
        served.await.context("the service failed")
    })
}

/// Options as they are given.
struct LookupdOptions {
    common: Common,
    tcp_address: String,
    http_address: String,
    broadcast_address: String,
    inactive_producer_timeout: GoDuration,
    tombstone_lifetime: GoDuration,
}

impl Default for LookupdOptions {
    fn default() -> Self {
        Self {
            common: Common::of(Self::PROGRAM),
            tcp_address: "0.0.0.0:4160".to_owned(),
            http_address: "0.0.0.0:4161".to_owned(),
            broadcast_address: String::new(),
            inactive_producer_timeout: GoDuration::from_millis(300_000),
            tombstone_lifetime: GoDuration::from_millis(45_000),
        }
    }
}

impl LookupdOptions {
    fn settings(self) -> anyhow::Result<LookupSettings> {
        let address = |address: &str| resolve(address).with_context(|| format!("listen ({address}) failed"));
        let lifetimes = Lifetimes {
            inactive_producer_timeout: time("inactive-producer-timeout", self.inactive_producer_timeout)?,
            tombstone_lifetime: time("tombstone-lifetime", self.tombstone_lifetime)?,
        };
        let hostname = host_name();
        Ok(LookupSettings {
            tcp_address: address(&self.tcp_address)?,
            http_address: address(&self.http_address)?,
            broadcast_address: match self.broadcast_address {
                none if none.is_empty() => hostname.clone(),
                given => given,
            },
            hostname,
            version: NSQ_VERSION.to_owned(),
            lifetimes,
        })
    }
}

fn time(flag: &str, value: GoDuration) -> anyhow::Result<Duration> {
    value.unsigned().with_context(|| format!("--{flag} cannot be {value}"))
}

impl Options for LookupdOptions {
    const PROGRAM: &'static str = "nsqlookupd";

    fn common(&self) -> &Common {
        &self.common
    }

    fn flags(&mut self) -> Vec<Flag<'_>> {
        let own = [
            Flag::new(
                "tcp-address",
                &mut self.tcp_address,
                "where nsqds register: <addr>:<port>",
            ),
            Flag::new(
                "http-address",
                &mut self.http_address,
                "where HTTP clients connect: <addr>:<port>",
            ),
            Flag::new(
                "broadcast-address",
                &mut self.broadcast_address,
                "address of this lookupd (default the host name)",
            ),
            Flag::new(
                "inactive-producer-timeout",
                &mut self.inactive_producer_timeout,
                "how long after its last ping a producer counts as there",
            ),
            Flag::new(
                "tombstone-lifetime",
                &mut self.tombstone_lifetime,
                "how long a producer stays tombstoned",
            ),
        ];
        self.common.flags().into_iter().chain(own).collect()
    }
}
