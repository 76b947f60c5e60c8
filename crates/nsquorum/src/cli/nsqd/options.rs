//! The options of nsqd.

use nsquorum_protocol::Limits;

use super::milliseconds;
use super::values::{AuthMethod, ClientAuthPolicy};
use crate::cli::duration::GoDuration;
use crate::cli::go::{Common, Flag, Options, Percentiles};
use crate::cli::tls_args::{TlsRequirement, TlsVersion};

/// All of them, in the order of nsqd's own usage by subject.
pub(super) struct NsqdOptions {
    pub(super) common: Common,
    worker_id: bool,
    pub(super) node_id: i64,
    pub(super) tcp_address: String,
    pub(super) http_address: String,
    pub(super) https_address: String,
    pub(super) broadcast_address: String,
    pub(super) broadcast_tcp_port: i64,
    pub(super) broadcast_http_port: i64,
    pub(super) lookupd_tcp_address: Vec<String>,
    pub(super) auth_http_address: Vec<String>,
    pub(super) auth_http_request_method: AuthMethod,
    pub(super) http_client_connect_timeout: GoDuration,
    pub(super) http_client_request_timeout: GoDuration,
    pub(super) topology_region: String,
    pub(super) topology_zone: String,
    pub(super) enable_experiment: Vec<String>,
    pub(super) data_path: String,
    pub(super) mem_queue_size: i64,
    max_bytes_per_file: i64,
    sync_every: i64,
    sync_timeout: GoDuration,
    queue_scan_worker_pool_max: i64,
    queue_scan_selection_count: i64,
    pub(super) msg_timeout: GoDuration,
    pub(super) max_msg_timeout: GoDuration,
    pub(super) max_msg_size: i64,
    pub(super) max_req_timeout: GoDuration,
    pub(super) max_body_size: i64,
    pub(super) max_heartbeat_interval: GoDuration,
    pub(super) max_rdy_count: i64,
    pub(super) max_output_buffer_size: i64,
    pub(super) max_output_buffer_timeout: GoDuration,
    pub(super) min_output_buffer_timeout: GoDuration,
    pub(super) output_buffer_timeout: GoDuration,
    pub(super) max_channel_consumers: i64,
    pub(super) statsd_address: String,
    pub(super) statsd_interval: GoDuration,
    pub(super) statsd_mem_stats: bool,
    pub(super) statsd_prefix: String,
    pub(super) statsd_udp_packet_size: i64,
    pub(super) statsd_exclude_ephemeral: bool,
    pub(super) e2e_processing_latency_percentile: Percentiles,
    pub(super) e2e_processing_latency_window_time: GoDuration,
    pub(super) tls_cert: String,
    pub(super) tls_key: String,
    pub(super) tls_client_auth_policy: ClientAuthPolicy,
    pub(super) tls_root_ca_file: String,
    pub(super) tls_required: TlsRequirement,
    pub(super) tls_min_version: TlsVersion,
    pub(super) deflate: bool,
    pub(super) max_deflate_level: i64,
    pub(super) snappy: bool,
}

fn count(limit: impl TryInto<i64>) -> i64 {
    limit.try_into().ok().expect("defaults are small")
}

impl Default for NsqdOptions {
    fn default() -> Self {
        let limits = Limits::default();
        let seconds = |seconds: i64| GoDuration::from_millis(1000 * seconds);
        Self {
            common: Common::of(Self::PROGRAM),
            worker_id: false,
            node_id: 0,
            tcp_address: "0.0.0.0:4150".to_owned(),
            http_address: "0.0.0.0:4151".to_owned(),
            https_address: "0.0.0.0:4152".to_owned(),
            broadcast_address: String::new(),
            broadcast_tcp_port: 0,
            broadcast_http_port: 0,
            lookupd_tcp_address: Vec::new(),
            auth_http_address: Vec::new(),
            auth_http_request_method: AuthMethod::default(),
            http_client_connect_timeout: seconds(2),
            http_client_request_timeout: seconds(5),
            topology_region: String::new(),
            topology_zone: String::new(),
            enable_experiment: Vec::new(),
            data_path: String::new(),
            mem_queue_size: 10_000,
            max_bytes_per_file: 100 << 20,
            sync_every: 2500,
            sync_timeout: seconds(2),
            queue_scan_worker_pool_max: 4,
            queue_scan_selection_count: 20,
            msg_timeout: milliseconds(|limits| limits.msg_timeout_ms),
            max_msg_timeout: milliseconds(|limits| limits.max_msg_timeout_ms),
            max_msg_size: count(limits.max_msg_size),
            max_req_timeout: milliseconds(|limits| limits.max_req_timeout_ms),
            max_body_size: count(limits.max_body_size),
            max_heartbeat_interval: milliseconds(|limits| limits.max_heartbeat_interval_ms),
            max_rdy_count: count(limits.max_rdy_count),
            max_output_buffer_size: count(limits.max_output_buffer_size),
            max_output_buffer_timeout: milliseconds(|limits| limits.max_output_buffer_timeout_ms),
            min_output_buffer_timeout: milliseconds(|limits| limits.min_output_buffer_timeout_ms),
            output_buffer_timeout: milliseconds(|limits| limits.output_buffer_timeout_ms),
            max_channel_consumers: 0,
            statsd_address: String::new(),
            statsd_interval: seconds(60),
            statsd_mem_stats: true,
            statsd_prefix: "nsq.%s".to_owned(),
            statsd_udp_packet_size: 508,
            statsd_exclude_ephemeral: false,
            e2e_processing_latency_percentile: Percentiles::default(),
            e2e_processing_latency_window_time: seconds(600),
            tls_cert: String::new(),
            tls_key: String::new(),
            tls_client_auth_policy: ClientAuthPolicy::default(),
            tls_root_ca_file: String::new(),
            tls_required: TlsRequirement::Nobody,
            tls_min_version: TlsVersion::V1_0,
            deflate: true,
            max_deflate_level: count(limits.max_deflate_level),
            snappy: true,
        }
    }
}

impl Options for NsqdOptions {
    const PROGRAM: &'static str = "nsqd";

    fn common(&self) -> &Common {
        &self.common
    }

    fn flags(&mut self) -> Vec<Flag<'_>> {
        let flag = Flag::new;
        let own = [
            flag("worker-id", &mut self.worker_id, "[deprecated] no effect").on_the_command_line_only(),
            flag("node-id", &mut self.node_id, "no effect; a number from 0 to 1023").key("id"),
            flag("tcp-address", &mut self.tcp_address, "where TCP clients connect: <addr>:<port>, or the path of a unix socket"),
            flag("http-address", &mut self.http_address, "where HTTP clients connect: <addr>:<port>, or the path of a unix socket; nothing for no HTTP"),
            flag("https-address", &mut self.https_address, "where HTTPS clients connect, if there is a certificate: <addr>:<port>"),
            flag("broadcast-address", &mut self.broadcast_address, "address that is registered with lookupd (default the host name)"),
            flag("broadcast-tcp-port", &mut self.broadcast_tcp_port, "TCP port that is registered with lookupd (default the one that is listened on)"),
            flag("broadcast-http-port", &mut self.broadcast_http_port, "HTTP port that is registered with lookupd (default the one that is listened on)"),
            flag("lookupd-tcp-address", &mut self.lookupd_tcp_address, "an nsqlookupd to register with, <addr>:<port> (may be given several times)")
                .key("nsqlookupd_tcp_addresses"),
            flag("auth-http-address", &mut self.auth_http_address, "an auth server, <addr>:<port> or a complete URL (may be given several times)")
                .key("auth_http_addresses"),
            flag("auth-http-request-method", &mut self.auth_http_request_method, "how auth servers are asked: get or post"),
            flag("http-client-connect-timeout", &mut self.http_client_connect_timeout, "how long a connection to an auth server may take to be made"),
            flag("http-client-request-timeout", &mut self.http_client_request_timeout, "how long an auth server may take to answer"),
            flag("topology-region", &mut self.topology_region, "the region of this node"),
            flag("topology-zone", &mut self.topology_zone, "the zone of this node"),
            flag("enable-experiment", &mut self.enable_experiment, "topology-aware-consumption: near consumers go first (may be given several times)"),
            flag("data-path", &mut self.data_path, "where the data are; must exist (default the current directory)"),
            flag("mem-queue-size", &mut self.mem_queue_size, "messages that an #ephemeral channel keeps for consumers that are not ready (others keep all, in the log)"),
            flag("max-bytes-per-file", &mut self.max_bytes_per_file, "no effect: the log's files have their own sizes"),
            flag("sync-every", &mut self.sync_every, "no effect: a message is synced before it is answered OK"),
            flag("sync-timeout", &mut self.sync_timeout, "no effect: a message is synced before it is answered OK"),
            flag("queue-scan-worker-pool-max", &mut self.queue_scan_worker_pool_max, "no effect: timeouts are met without a scan"),
            flag("queue-scan-selection-count", &mut self.queue_scan_selection_count, "no effect: timeouts are met without a scan"),
            flag("msg-timeout", &mut self.msg_timeout, "how long a message may be in flight until it is delivered again"),
            flag("max-msg-timeout", &mut self.max_msg_timeout, "longest such time that a client may ask for"),
            flag("max-msg-size", &mut self.max_msg_size, "longest message in bytes"),
            flag("max-req-timeout", &mut self.max_req_timeout, "longest delay of a requeued or deferred message"),
            flag("max-body-size", &mut self.max_body_size, "longest body of one command in bytes"),
            flag("max-heartbeat-interval", &mut self.max_heartbeat_interval, "longest heartbeat interval that a client may ask for"),
            flag("max-rdy-count", &mut self.max_rdy_count, "highest RDY"),
            flag("max-output-buffer-size", &mut self.max_output_buffer_size, "largest output buffer that a client may ask for, in bytes"),
            flag("max-output-buffer-timeout", &mut self.max_output_buffer_timeout, "longest flush period that a client may ask for"),
            flag("min-output-buffer-timeout", &mut self.min_output_buffer_timeout, "shortest flush period that a client may ask for"),
            flag("output-buffer-timeout", &mut self.output_buffer_timeout, "flush period of clients that ask for none"),
            flag("max-channel-consumers", &mut self.max_channel_consumers, "most consumers of one channel on this node (default 0, for any number)"),
            flag("statsd-address", &mut self.statsd_address, "a statsd daemon to push stats to, over UDP: <addr>:<port>"),
            flag("statsd-interval", &mut self.statsd_interval, "time between two pushes to statsd"),
            flag("statsd-mem-stats", &mut self.statsd_mem_stats, "whether memory is among what statsd gets"),
            flag("statsd-prefix", &mut self.statsd_prefix, "prefix of the keys for statsd; %s is the host"),
            flag("statsd-udp-packet-size", &mut self.statsd_udp_packet_size, "size of packets to statsd in bytes"),
            flag("statsd-exclude-ephemeral", &mut self.statsd_exclude_ephemeral, "whether ephemeral topics and channels are left out for statsd"),
            flag("e2e-processing-latency-percentile", &mut self.e2e_processing_latency_percentile,
                "percentiles of the time from publish to FIN to keep, each above 0 and at most 1 (several times, or with commas)")
                .key("e2e_processing_latency_percentiles"),
            flag("e2e-processing-latency-window-time", &mut self.e2e_processing_latency_window_time, "over how long they are taken"),
            flag("tls-cert", &mut self.tls_cert, "file of the certificate"),
            flag("tls-key", &mut self.tls_key, "file of its key"),
            flag("tls-client-auth-policy", &mut self.tls_client_auth_policy, "what clients must show: 'require' any certificate, 'require-verify' one of the root CA"),
            flag("tls-root-ca-file", &mut self.tls_root_ca_file, "file of root certificates"),
            flag("tls-required", &mut self.tls_required, "whether clients must use TLS: true, false, tcp-https"),
            flag("tls-min-version", &mut self.tls_min_version, "oldest version of TLS: 'tls1.0', 'tls1.1', 'tls1.2' or 'tls1.3'; what is older than 1.2 means 1.2"),
            flag("deflate", &mut self.deflate, "whether clients may use deflate"),
            flag("max-deflate-level", &mut self.max_deflate_level, "highest deflate level that clients are granted"),
            flag("snappy", &mut self.snappy, "whether clients may use snappy"),
        ];
        self.common.flags().into_iter().chain(own).collect()
    }
}
