//! From nsqd's options to those of the node.

use std::path::PathBuf;
use std::time::Duration;

use nsquorum_storage::Neighbours;

use super::options::NsqdOptions;
use crate::cli::ServeArgs;
use crate::cli::duration::GoDuration;

impl NsqdOptions {
    /// What `serve` would have been told. An error says what cannot be.
    pub(super) fn serve_args(self) -> Result<ServeArgs, String> {
        if !(1..=9).contains(&self.max_deflate_level) {
            return Err("--max-deflate-level must be [1,9]".to_owned());
        }
        if !(0..1024).contains(&self.node_id) {
            return Err("--node-id must be [0,1024)".to_owned());
        }
        for percentile in &self.e2e_processing_latency_percentile.0 {
            if !(*percentile > 0.0 && *percentile <= 1.0) {
                return Err(format!("invalid E2E processing latency percentile: {percentile}"));
            }
        }
        let mut args = ServeArgs {
            tcp_address: self.tcp_address,
            http_address: self.http_address,
            https_address: self.https_address,
            broadcast_address: given(self.broadcast_address),
            broadcast_tcp_port: number("broadcast-tcp-port", self.broadcast_tcp_port)?,
            broadcast_http_port: number("broadcast-http-port", self.broadcast_http_port)?,
            data_path: data_path(&self.data_path)?,
            neighbours: Neighbours::Allowed,
            max_msg_size: number("max-msg-size", self.max_msg_size)?,
            max_body_size: number("max-body-size", self.max_body_size)?,
            msg_timeout: time("msg-timeout", self.msg_timeout)?,
            max_msg_timeout: time("max-msg-timeout", self.max_msg_timeout)?,
            max_req_timeout: time("max-req-timeout", self.max_req_timeout)?,
            max_rdy_count: number("max-rdy-count", self.max_rdy_count)?,
            max_heartbeat_interval: time("max-heartbeat-interval", self.max_heartbeat_interval)?,
            log_level: self.common.log_level,
            log_style: self.common.log_style(),
            ..ServeArgs::default()
        };
        // nsqlookupd is another program, and may run beside this one.
        args.lookup.lookup_http_address.clear();
        args.lookup.lookup_tcp_address.clear();
        args.lookup.lookupd_tcp_address = self.lookupd_tcp_address;
        let tls = &mut args.tls;
        tls.tls_cert = given(self.tls_cert).map(PathBuf::from);
        tls.tls_key = given(self.tls_key).map(PathBuf::from);
        tls.tls_client_auth_policy = self.tls_client_auth_policy.0;
        tls.tls_root_ca_file = given(self.tls_root_ca_file).map(PathBuf::from);
        tls.tls_required = self.tls_required;
        tls.tls_min_version = self.tls_min_version;
        let session = &mut args.session;
        session.deflate = self.deflate;
        session.max_deflate_level = number("max-deflate-level", self.max_deflate_level)?;
        session.snappy = self.snappy;
        session.max_output_buffer_size = number("max-output-buffer-size", self.max_output_buffer_size)?;
        session.max_output_buffer_timeout = time("max-output-buffer-timeout", self.max_output_buffer_timeout)?;
        session.min_output_buffer_timeout = time("min-output-buffer-timeout", self.min_output_buffer_timeout)?;
        session.output_buffer_timeout = time("output-buffer-timeout", self.output_buffer_timeout)?;
        session.max_channel_consumers = number("max-channel-consumers", self.max_channel_consumers)?;
        // nsqd takes what is negative for no queue in memory.
        session.mem_queue_size = u64::try_from(self.mem_queue_size).unwrap_or(0);
        session.auth_http_address = self.auth_http_address;
        session.auth_http_request_method = self.auth_http_request_method.0;
        session.http_client_connect_timeout = time("http-client-connect-timeout", self.http_client_connect_timeout)?;
        session.http_client_request_timeout = time("http-client-request-timeout", self.http_client_request_timeout)?;
        session.topology_region = self.topology_region;
        session.topology_zone = self.topology_zone;
        for experiment in self.enable_experiment {
            match experiment.as_str() {
                "topology-aware-consumption" => session.topology_aware_consumption = true,
                other => {
                    return Err(format!(
                        "--enable-experiment {other}: there is only topology-aware-consumption"
                    ));
                }
            }
        }
        let metrics = &mut args.metrics;
        metrics.statsd_address = self.statsd_address;
        metrics.statsd_interval = time("statsd-interval", self.statsd_interval)?;
        metrics.statsd_mem_stats = self.statsd_mem_stats;
        metrics.statsd_prefix = self.statsd_prefix;
        metrics.statsd_udp_packet_size = number("statsd-udp-packet-size", self.statsd_udp_packet_size)?;
        metrics.statsd_exclude_ephemeral = self.statsd_exclude_ephemeral;
        metrics.e2e_processing_latency_percentile = self.e2e_processing_latency_percentile.0;
        let window = self.e2e_processing_latency_window_time;
        metrics.e2e_processing_latency_window_time = time("e2e-processing-latency-window-time", window)?;
        args.limits()?;
        Ok(args)
    }
}

fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// The directory; unlike that of `serve` it must exist: under nsqd's name a directory that is missing is a mistake, or a disk that is.
fn data_path(path: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(if path.is_empty() { "." } else { path });
    let cannot = |reason: &str| format!("failed to lock data-path: open {}: {reason}", path.display());
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => Ok(path),
        Ok(_) => Err(cannot("not a directory")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(cannot("no such file or directory")),
        Err(error) => Err(cannot(&error.to_string())),
    }
}

fn number<N: TryFrom<i64>>(flag: &str, value: i64) -> Result<N, String> {
    N::try_from(value).map_err(|_| format!("--{flag} cannot be {value}"))
}

fn time(flag: &str, value: GoDuration) -> Result<Duration, String> {
    value.unsigned().ok_or_else(|| format!("--{flag} cannot be {value}"))
}
