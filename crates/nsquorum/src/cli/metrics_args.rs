//! The flags of figures that leave the node: statsd, and percentiles of latency.

use std::time::Duration;

use clap::Args;
use nsquorum_broker::{LatencySettings, Quantile};
use nsquorum_frontend::StatsdSettings;

use super::duration;
use super::session_args::parse_bool;

/// Flags of metrics.
#[derive(Debug, Args)]
pub(crate) struct MetricsArgs {
    /// HOST:PORT of a statsd server to which figures are pushed over UDP; empty for none.
    #[arg(long, value_name = "HOST:PORT", default_value = "")]
    pub(crate) statsd_address: String,
    /// Time between two pushes.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::parse)]
    pub(crate) statsd_interval: Duration,
    /// Whether figures about memory are pushed, too.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true",
        value_parser = parse_bool, action = clap::ArgAction::Set)]
    pub(crate) statsd_mem_stats: bool,
    /// What stands before the name of every figure; %s is this node's host and HTTP port.
    #[arg(long, value_name = "PREFIX", default_value = "nsq.%s")]
    pub(crate) statsd_prefix: String,
    /// Longest packet in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 508)]
    pub(crate) statsd_udp_packet_size: usize,
    /// Whether topics and channels that end with #ephemeral are left out.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true",
        value_parser = parse_bool, action = clap::ArgAction::Set)]
    pub(crate) statsd_exclude_ephemeral: bool,
    /// Shares of messages, above 0 and at most 1, whose time from publish to FIN is shown in /stats; repeat it, or separate them with commas.
    #[arg(long, value_name = "SHARE,...", value_delimiter = ',')]
    pub(crate) e2e_processing_latency_percentile: Vec<f64>,
    /// How far back those times are looked at.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration::parse)]
    pub(crate) e2e_processing_latency_window_time: Duration,
}

impl MetricsArgs {
    /// Where figures are pushed, if anywhere. The host and port are those that discovery gives to clients.
    pub(crate) fn statsd(&self, host: &str, http_port: u16) -> Option<StatsdSettings> {
        (!self.statsd_address.is_empty()).then(|| StatsdSettings {
            address: self.statsd_address.clone(),
            interval: self.statsd_interval,
            prefix: StatsdSettings::prefix_of(&self.statsd_prefix, host, http_port),
            memory: self.statsd_mem_stats,
            packet_bytes_max: self.statsd_udp_packet_size,
            exclude_ephemeral: self.statsd_exclude_ephemeral,
        })
    }

    /// The shares, the greatest first, as nsqd shows them.
    pub(crate) fn percentiles(&self) -> Vec<f64> {
        let mut shares = self.e2e_processing_latency_percentile.clone();
        shares.sort_by(|one, other| other.total_cmp(one));
        shares
    }

    /// Which latencies are measured, if any.
    pub(crate) fn latency(&self) -> Option<LatencySettings> {
        let quantiles: Vec<Quantile> = self.percentiles().into_iter().filter_map(Quantile::new).collect();
        (!quantiles.is_empty()).then_some(LatencySettings {
            quantiles,
            window: self.e2e_processing_latency_window_time,
        })
    }

    /// An error if a value cannot be.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(share) = self.percentiles().iter().find(|share| Quantile::new(**share).is_none()) {
            return Err(format!("invalid E2E processing latency percentile: {share}"));
        }
        if self.statsd_interval.is_zero() && !self.statsd_address.is_empty() {
            return Err("--statsd-interval must not be 0".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        metrics: MetricsArgs,
    }

    fn parse(line: &str) -> MetricsArgs {
        let arguments = std::iter::once("x").chain(line.split_whitespace());
        Cli::try_parse_from(arguments).expect(line).metrics
    }

    #[test]
    fn nothing_is_pushed_or_measured_by_default() {
        let metrics = parse("");
        assert_eq!(metrics.statsd("host", 4151), None);
        assert_eq!(metrics.latency(), None);
        assert_eq!(metrics.check(), Ok(()));
    }

    #[test]
    fn statsd_has_nsqds_defaults() {
        let settings = parse("--statsd-address=127.0.0.1:8125")
            .statsd("a.b", 4151)
            .expect("asked for");
        assert_eq!(
            settings,
            StatsdSettings {
                address: "127.0.0.1:8125".to_owned(),
                interval: Duration::from_secs(60),
                prefix: "nsq.a_b_4151.".to_owned(),
                memory: true,
                packet_bytes_max: 508,
                exclude_ephemeral: false,
            }
        );
        let line = "--statsd-address a:1 --statsd-mem-stats=false --statsd-exclude-ephemeral --statsd-prefix p.";
        let settings = parse(line).statsd("a.b", 4151).expect("asked for");
        assert!(!settings.memory && settings.exclude_ephemeral && settings.prefix == "p.");
        assert!(parse("--statsd-address a:1 --statsd-interval 0").check().is_err());
    }

    #[test]
    fn percentiles_are_shares() {
        let line = "--e2e-processing-latency-percentile=0.5,1.0 --e2e-processing-latency-percentile 0.99";
        let latency = parse(line).latency().expect("asked for");
        let shares: Vec<f64> = latency.quantiles.iter().map(|quantile| quantile.get()).collect();
        assert_eq!((shares, latency.window.as_secs()), (vec![1.0, 0.99, 0.5], 600));
        for share in ["0", "1.5", "-1", "NaN"] {
            let refused = parse(&format!("--e2e-processing-latency-percentile={share}")).check();
            assert!(refused.is_err(), "{share}");
        }
    }
}
