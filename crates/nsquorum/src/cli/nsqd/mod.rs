//! The program under the name `nsqd`: the flags, the file, the log and the exit codes of stock nsqd, in front of the node that `serve` runs.

mod options;
mod settings;
mod values;

use std::ffi::OsString;

use nsquorum_protocol::Limits;

use super::go::{self, Given, Options as _};
use super::logging;
use crate::exit::Exit;
use crate::serve;
use options::NsqdOptions;

/// Runs a node until a signal or a failure.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> Exit {
    let (options, given) = match go::read::<NsqdOptions>(arguments) {
        Ok(read) => read,
        Err(end) => return end.report(NsqdOptions::PROGRAM),
    };
    let cannot = |complaint: &str| {
        go::fatal(
            NsqdOptions::PROGRAM,
            &format!("failed to instantiate nsqd - {complaint}"),
        )
    };
    let args = match options.serve_args() {
        Ok(args) => args,
        Err(complaint) => return cannot(&complaint),
    };
    let log_filter = logging::start(args.log_level, &args.log_style);
    tracing::info!("{}", go::version_line(NsqdOptions::PROGRAM));
    say_what_means_something_else(&given);
    match serve::run(&args, log_filter) {
        Ok(()) => Exit::Ok,
        Err(stopped) => cannot(&format!("{:#}", stopped.cause)),
    }
}

/// Flags of stock nsqd about what is different here, and what is true instead.
const MEANS_SOMETHING_ELSE: [(&str, &str); 9] = [
    ("verbose", "no effect, as in nsqd; see --log-level"),
    ("worker-id", "no effect, as in nsqd"),
    ("node-id", "no effect: a message's ID is its place in the topic's log"),
    (
        "mem-queue-size",
        "the bound of ephemeral channels only: messages are in the log, and memory for queues has a fixed budget",
    ),
    ("max-bytes-per-file", "no effect: the log's files have their own sizes"),
    ("sync-every", "no effect: a message is synced before it is answered OK"),
    (
        "sync-timeout",
        "no effect: a message is synced before it is answered OK",
    ),
    (
        "queue-scan-worker-pool-max",
        "no effect: timeouts are met without a scan",
    ),
    (
        "queue-scan-selection-count",
        "no effect: timeouts are met without a scan",
    ),
];

fn say_what_means_something_else(given: &Given) {
    for (name, meaning) in MEANS_SOMETHING_ELSE {
        if given.has(name) {
            tracing::info!("--{name}: {meaning}");
        }
    }
}

/// As a default of the options.
fn milliseconds(limit: impl Fn(&Limits) -> u64) -> super::duration::GoDuration {
    let milliseconds = limit(&Limits::default());
    super::duration::GoDuration::from_millis(i64::try_from(milliseconds).expect("defaults are short"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cli::ServeArgs;

    fn args(line: &str) -> Result<ServeArgs, String> {
        let (options, _) =
            go::read::<NsqdOptions>(line.split_whitespace().map(OsString::from)).map_err(|end| format!("{end:?}"))?;
        options.serve_args()
    }

    #[test]
    fn without_flags_it_is_serve_without_lookup() {
        let mut expected = ServeArgs {
            neighbours: nsquorum_storage::Neighbours::Allowed,
            log_style: crate::cli::log_lines::LogStyle::Go {
                prefix: "[nsqd] ".to_owned(),
            },
            ..ServeArgs::default()
        };
        expected.lookup.lookup_tcp_address.clear();
        expected.lookup.lookup_http_address.clear();
        assert_eq!(format!("{:?}", args("").unwrap()), format!("{expected:?}"));
    }

    #[test]
    fn flags_reach_the_node() {
        let line = "-tcp-address :1 --http-address= -broadcast-tcp-port=7 --max-rdy-count 5000 -deflate=false -tls-required=TCP-HTTPS -tls-cert=c \
                    -tls-key=k --auth-http-address a --auth-http-address=b -topology-zone z -enable-experiment topology-aware-consumption -msg-timeout=20m --max-msg-size=10485760";
        let args = args(line).unwrap();
        assert_eq!(
            (
                args.tcp_address.as_str(),
                args.http_address.as_str(),
                args.broadcast_tcp_port
            ),
            (":1", "", 7)
        );
        let limits = args.limits().unwrap();
        assert_eq!(
            (limits.max_rdy_count, limits.msg_timeout_ms, limits.max_msg_size),
            (5000, 1_200_000, 10 << 20)
        );
        assert_eq!(args.session.topology().map(|here| here.zone), Some("z".to_owned()));
        let features = args.session.features();
        assert!(!features.deflate && features.snappy && features.topology_zone == "z");
        assert_eq!(args.tls.requirement(), crate::cli::TlsRequirement::TcpClients);
        assert_eq!(args.session.auth_http_address, ["a", "b"]);

        let line = "-max-output-buffer-size=1000 -max-output-buffer-timeout=2s -min-output-buffer-timeout=3ms -output-buffer-timeout=40ms";
        let limits = self::args(line).unwrap().limits().unwrap();
        let timeouts = (
            limits.max_output_buffer_timeout_ms,
            limits.min_output_buffer_timeout_ms,
            limits.output_buffer_timeout_ms,
        );
        assert_eq!((limits.max_output_buffer_size, timeouts), (1000, (2000, 3, 40)));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for line in [
            "-max-rdy-count=-1",
            "-msg-timeout=-1s",
            "-enable-experiment=telepathy",
            "-broadcast-tcp-port=70000",
            "-max-msg-size=0",
            "-tls-client-auth-policy=yes",
        ] {
            assert!(args(line).is_err(), "{line}");
        }
    }

    /// The flags of nsqd 1.3.0, as its `--help` lists them.
    #[test]
    fn no_flag_of_stock_nsqd_is_missing() {
        let stock = "auth-http-address broadcast-address broadcast-http-port broadcast-tcp-port config data-path deflate \
                     e2e-processing-latency-percentile e2e-processing-latency-window-time http-address http-client-connect-timeout \
                     http-client-request-timeout https-address log-level log-prefix lookupd-tcp-address max-body-size max-bytes-per-file \
                     max-channel-consumers max-deflate-level max-heartbeat-interval max-msg-size max-msg-timeout max-output-buffer-size \
                     max-output-buffer-timeout max-rdy-count max-req-timeout mem-queue-size min-output-buffer-timeout msg-timeout node-id \
                     output-buffer-timeout queue-scan-selection-count queue-scan-worker-pool-max snappy statsd-address \
                     statsd-exclude-ephemeral statsd-interval statsd-mem-stats statsd-prefix statsd-udp-packet-size sync-every sync-timeout \
                     tcp-address tls-cert tls-client-auth-policy tls-key tls-min-version tls-required tls-root-ca-file verbose version worker-id";
        let Err(go::End::Help(usage)) = go::read::<NsqdOptions>([OsString::from("-h")].into_iter()) else {
            panic!("no help")
        };
        let ours: BTreeSet<&str> = usage
            .lines()
            .filter_map(|line| line.strip_prefix("  -")?.split(' ').next())
            .collect();
        let missing: Vec<_> = stock.split_whitespace().filter(|name| !ours.contains(name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
