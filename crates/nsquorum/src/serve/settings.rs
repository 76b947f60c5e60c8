//! What `/config` shows: the flags of `serve` under nsqd's names, and nsqd's defaults for what has no meaning here.

use std::path::Path;
use std::time::Duration;

use nsquorum_broker::NodeDescription;
use nsquorum_frontend::{EffectiveSettings, FrontendConfig, Setting, StatsdSettings};
use tokio::sync::watch;

use crate::cli::{LogFilter, ServeArgs, TlsRequirement};

/// The settings of a node that clients reach as `description` says.
pub(super) fn effective(
    args: &ServeArgs,
    config: &FrontendConfig,
    description: &NodeDescription,
    filter: LogFilter,
    lookupd_addresses: watch::Sender<Vec<String>>,
) -> EffectiveSettings {
    let fixed = flags(args, config, description).into_iter().chain(without_meaning());
    let set_log_level = move |level| filter.set(level);
    EffectiveSettings::new(fixed, args.log_level.into(), set_log_level, lookupd_addresses)
}

fn flags(
    args: &ServeArgs,
    config: &FrontendConfig,
    description: &NodeDescription,
) -> impl IntoIterator<Item = (&'static str, Setting)> {
    let (limits, metrics, session, tls) = (&config.limits, &args.metrics, &args.session, &args.tls);
    let prefix = StatsdSettings::prefix_of(
        &metrics.statsd_prefix,
        &description.broadcast_address,
        description.http_port,
    );
    let consumers = config.max_channel_consumers.map_or(0, usize::from);
    [
        ("tcp_address", text(&args.tcp_address)),
        ("http_address", text(&args.http_address)),
        ("https_address", text(&args.https_address)),
        ("broadcast_address", text(&description.broadcast_address)),
        ("broadcast_tcp_port", integer(description.tcp_port)),
        ("broadcast_http_port", integer(description.http_port)),
        ("data_path", path(Some(&args.data_path))),
        ("auth_http_addresses", Setting::Texts(session.auth_addresses().to_vec())),
        (
            "http_client_connect_timeout",
            Setting::Duration(session.http_client_connect_timeout),
        ),
        (
            "http_client_request_timeout",
            Setting::Duration(session.http_client_request_timeout),
        ),
        ("msg_timeout", millis(limits.msg_timeout_ms)),
        ("max_msg_timeout", millis(limits.max_msg_timeout_ms)),
        ("max_msg_size", size(limits.max_msg_size)),
        ("max_body_size", size(limits.max_body_size)),
        ("max_req_timeout", millis(limits.max_req_timeout_ms)),
        ("max_heartbeat_interval", millis(limits.max_heartbeat_interval_ms)),
        ("max_rdy_count", integer(limits.max_rdy_count)),
        ("max_output_buffer_size", size(limits.max_output_buffer_size)),
        ("max_output_buffer_timeout", millis(limits.max_output_buffer_timeout_ms)),
        ("min_output_buffer_timeout", millis(limits.min_output_buffer_timeout_ms)),
        ("output_buffer_timeout", millis(limits.output_buffer_timeout_ms)),
        ("max_channel_consumers", size(consumers)),
        ("mem_queue_size", size(session.mem_queue_size)),
        ("statsd_address", text(&metrics.statsd_address)),
        ("statsd_prefix", Setting::Text(prefix)),
        ("statsd_interval", Setting::Duration(metrics.statsd_interval)),
        ("statsd_mem_stats", Setting::Boolean(metrics.statsd_mem_stats)),
        ("statsd_udp_packet_size", size(metrics.statsd_udp_packet_size)),
        (
            "statsd_exclude_ephemeral",
            Setting::Boolean(metrics.statsd_exclude_ephemeral),
        ),
        (
            "e2e_processing_latency_window_time",
            Setting::Duration(metrics.e2e_processing_latency_window_time),
        ),
        (
            "e2e_processing_latency_percentiles",
            Setting::Numbers(metrics.percentiles()),
        ),
        ("tls_cert", path(tls.tls_cert.as_deref())),
        ("tls_key", path(tls.tls_key.as_deref())),
        ("tls_root_ca_file", path(tls.tls_root_ca_file.as_deref())),
        ("tls_client_auth_policy", text(tls.policy())),
        (
            "tls_required",
            Setting::Integer(match tls.requirement() {
                TlsRequirement::Nobody => 0,
                TlsRequirement::TcpClients => 1,
                TlsRequirement::Everybody => 2,
            }),
        ),
        ("tls_min_version", integer(tls.version_number())),
        ("deflate", Setting::Boolean(config.features.deflate)),
        ("max_deflate_level", integer(limits.max_deflate_level)),
        ("snappy", Setting::Boolean(config.features.snappy)),
    ]
}

/// What nsqd can be told about its queues on disk and about itself, with its defaults: tools that show it find it.
fn without_meaning() -> [(&'static str, Setting); 7] {
    [
        ("id", Setting::Integer(0)),
        ("log_prefix", text("[nsqd] ")),
        ("max_bytes_per_file", Setting::Integer(100 << 20)),
        ("sync_every", Setting::Integer(2_500)),
        ("sync_timeout", Setting::Duration(Duration::from_secs(2))),
        ("queue_scan_selection_count", Setting::Integer(20)),
        ("queue_scan_worker_pool_max", Setting::Integer(4)),
    ]
}

fn text(text: &str) -> Setting {
    Setting::Text(text.to_owned())
}

fn path(path: Option<&Path>) -> Setting {
    Setting::Text(path.map_or_else(String::new, |path| path.display().to_string()))
}

fn integer(number: impl Into<i64>) -> Setting {
    Setting::Integer(number.into())
}

fn size(size: impl TryInto<i64>) -> Setting {
    Setting::Integer(size.try_into().unwrap_or(i64::MAX))
}

const fn millis(millis: u64) -> Setting {
    Setting::Duration(Duration::from_millis(millis))
}
