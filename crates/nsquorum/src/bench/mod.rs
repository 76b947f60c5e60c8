//! `nsquorum bench`: what a server does for publishers and consumers, beside what its disk can do at all.
//!
//! It reaches the server only over NSQ's ports, with NSQ's default client settings, so it measures stock nsqd as well
//! as nsquorum. Three habits keep its figures honest:
//!
//! - **A floor in the same minute.** Before and after each case a raw loop appends and syncs the same bytes; the ratio
//!   to it is what can be compared between machines and days.
//! - **Several runs.** Cases are interleaved over the runs and reported as medians with their range.
//! - **No coordinated omission** where arrivals do not wait: the end-to-end case runs on a fixed schedule, and a
//!   message's latency counts from the time it was due.
//!
//! All load comes from one thread: on a small machine a client with several threads takes the server's cores, and one
//! thread drives more than a million messages a second.

mod case;
mod consumed;
mod deliver;
mod latency;
#[cfg(test)]
mod memory_server;
mod pace;
mod publish;
mod raw;
mod report;
mod table;
mod target;
mod usage;
mod window;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use nsquorum_protocol::TopicName;

use self::case::{Case, Settings};
use self::report::{CaseReport, RawFigures, Report, RunFigures};
use self::target::Target;
use self::usage::Server;
use crate::up::listed_nodes;

/// Measure a running server: publish rates and latencies, delivery latency, draining.
#[derive(Clone, Debug, Args)]
pub(crate) struct BenchArgs {
    /// The server's TCP address.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:4150")]
    nsqd_tcp_address: String,

    /// The server's HTTP address: to read /metrics and to delete the topics afterwards.
    #[arg(long, value_name = "HOST:PORT")]
    http_address: Option<String>,

    /// The server's process on this machine: to read its CPU time and memory.
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,

    /// A cluster on this machine instead of one server: the directory of `nsquorum up`. Clients use the first node, CPU time and syncs are
    /// those of all, and as many raw loops as nodes run side by side.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["nsqd_tcp_address", "http_address", "server_pid"])]
    cluster_dir: Option<PathBuf>,

    /// Where the raw loop writes; should be on the server's disk.
    #[arg(long, value_name = "DIR", default_value = ".")]
    raw_dir: PathBuf,

    /// The measured seconds of each case.
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = seconds)]
    seconds: f64,

    /// Seconds of the same load before them.
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = seconds)]
    warm_up: f64,

    /// Seconds of each raw loop.
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = seconds)]
    raw_seconds: f64,

    /// Bytes of a message, except in the end-to-end case.
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = clap::value_parser!(u32).range(16..))]
    size: u32,

    /// Bytes of a message in the end-to-end case.
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(16..))]
    end_to_end_size: u32,

    /// Messages per second in the end-to-end case.
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    end_to_end_rate: u32,

    /// Messages of the backlog in the drain case.
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    drain_messages: u32,

    /// Fail after so many seconds without a delivery while messages are missing.
    #[arg(long, value_name = "S", default_value_t = 60.0, value_parser = seconds)]
    stall_seconds: f64,

    /// Runs of all cases; more than one gives medians with ranges.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,

    /// Only these cases; all if not given.
    #[arg(long = "case", value_name = "CASE")]
    cases: Vec<Case>,

    /// Write all figures to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A duration in seconds that a clock can hold.
fn seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..=86_400.0).contains(&value) {
        Ok(value)
    } else {
        Err("must be between 0 and 86400".to_owned())
    }
}

/// Runs the benchmark and prints its table to standard output; progress goes to standard error.
///
/// # Errors
/// If the server cannot be reached, refuses a command, loses a message or does not deliver it in time, or if the raw
/// directory or the JSON file cannot be written.
pub(crate) async fn run(args: BenchArgs) -> anyhow::Result<()> {
    // A thread and a runtime of its own: the caller's runtime has other threads, which would take the server's cores.
    let report = tokio::task::spawn_blocking(move || measure(&args)).await??;
    std::io::stdout()
        .lock()
        .write_all(table::render(&report).as_bytes())
        .context("cannot print the table")
}

/// Runs all cases and writes the JSON. Blocks.
fn measure(args: &BenchArgs) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let settings = args.settings();
    let (target, nodes) = args.target()?;
    let server_version = runtime.block_on(target.connect())?.settings().version.clone();
    let cases = if args.cases.is_empty() {
        Case::ALL.to_vec()
    } else {
        args.cases.clone()
    };
    let mut figures: Vec<Vec<RunFigures>> = vec![Vec::new(); cases.len()];
    let started = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    for run in 1..=args.runs {
        for (case, figures) in cases.iter().zip(&mut figures) {
            let one = measure_case(args, &runtime, &target, nodes, *case, &settings, run)
                .with_context(|| format!("case {}, run {run}", case.name()))?;
            progress(&format!(
                "run {run}/{} {}: {:.0} msg/s, p50 {:.0} us, {:.2} x raw",
                args.runs,
                case.name(),
                one.rate_per_s,
                one.latency.p50_us,
                one.rate_over_raw
            ));
            figures.push(one);
        }
    }
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        server_version,
        nsqd_tcp_address: target.tcp_address,
        nodes,
        started_unix_s: started,
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
            .ok()
            .map(|release| release.trim().to_owned()),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        runs: args.runs,
        seconds: args.seconds,
        warm_up_seconds: args.warm_up,
        end_to_end_rate_per_s: settings.end_to_end_rate,
        drain_messages: settings.drain_messages,
        raw_dir: args.raw_dir.display().to_string(),
        cases: cases
            .iter()
            .zip(figures)
            .map(|(case, runs)| CaseReport::new(*case, &settings, nodes, runs))
            .collect(),
    };
    if let Some(path) = &args.json {
        let json = serde_json::to_vec_pretty(&report).context("the report has no JSON form")?;
        fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report)
}

/// One case between its raw loops, on a topic of its own.
fn measure_case(
    args: &BenchArgs,
    runtime: &tokio::runtime::Runtime,
    target: &Target,
    nodes: usize,
    case: Case,
    settings: &Settings,
    run: u32,
) -> anyhow::Result<RunFigures> {
    let (message_bytes, command_bytes) = (case.message_bytes(settings), case.command_bytes(settings));
    let raw_seconds = Duration::from_secs_f64(args.raw_seconds);
    let raw_loop = |bytes| raw::run_side_by_side(nodes, &args.raw_dir, bytes, raw_seconds);
    // One message per record, and where a command has several, also one command per record.
    let raw_loops = || -> anyhow::Result<_> {
        let command = if command_bytes == message_bytes {
            None
        } else {
            Some(raw_loop(command_bytes)?)
        };
        Ok((raw_loop(message_bytes)?, command))
    };
    let name = format!("bench-{}-{}-{run}", case.name(), std::process::id());
    let topic: TopicName = name.parse().context("the topic name of a case")?;

    let (message_before, command_before) = raw_loops()?;
    let measured = runtime.block_on(case.run(target, &topic, settings));
    // Also after a failure; but then the failure is the news.
    let deleted = runtime.block_on(target.server.delete_topic(&name));
    let measured = measured?;
    deleted?;
    let (message_after, command_after) = raw_loops()?;

    let raw = RawFigures::new(message_bytes, &message_before, &message_after);
    let raw_command = command_before
        .zip(command_after)
        .map(|(before, after)| RawFigures::new(command_bytes, &before, &after));
    Ok(RunFigures::new(&measured, raw, raw_command))
}

fn progress(line: &str) {
    // Nobody may be looking.
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

impl BenchArgs {
    fn settings(&self) -> Settings {
        Settings {
            message_bytes: self.size as usize,
            end_to_end_bytes: self.end_to_end_size as usize,
            end_to_end_rate: f64::from(self.end_to_end_rate),
            drain_messages: u64::from(self.drain_messages),
            warm_up: Duration::from_secs_f64(self.warm_up),
            length: Duration::from_secs_f64(self.seconds),
            stall_max: Duration::from_secs_f64(self.stall_seconds),
        }
    }

    /// What is measured, and how many nodes on this machine it has.
    fn target(&self) -> anyhow::Result<(Target, usize)> {
        let Some(dir) = &self.cluster_dir else {
            let server = Server {
                http_addresses: self.http_address.iter().cloned().collect(),
                pids: self.server_pid.iter().copied().collect(),
            };
            let tcp_address = self.nsqd_tcp_address.clone();
            return Ok((Target { tcp_address, server }, 1));
        };
        let nodes = listed_nodes(dir)?;
        let first = nodes.first().context("the cluster has no nodes")?;
        let server = Server {
            http_addresses: nodes.iter().map(|node| node.http.clone()).collect(),
            pids: nodes.iter().filter_map(|node| node.pid).collect(),
        };
        let tcp_address = first.tcp.clone();
        Ok((Target { tcp_address, server }, nodes.len()))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::memory_server::MemoryServer;
    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn args(server: &MemoryServer, more: &[&str]) -> BenchArgs {
        let raw_dir = server.dir();
        let own = ["bench", "--nsqd-tcp-address", server.address(), "--raw-dir", raw_dir];
        Cli::try_parse_from(own.iter().chain(more)).unwrap().bench
    }

    const SHORT: [&str; 8] = [
        "--seconds",
        "0.2",
        "--warm-up",
        "0.05",
        "--raw-seconds",
        "0.02",
        "--drain-messages",
        "5001",
    ];

    #[test]
    fn every_case_gives_figures_and_the_json_has_them_all() {
        let server = MemoryServer::start();
        let json_path = format!("{}/report.json", server.dir());
        let pid = std::process::id().to_string();
        let mut more = SHORT.to_vec();
        more.extend(["--runs", "2", "--json", &json_path, "--server-pid", &pid]);
        let report = measure(&args(&server, &more)).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&json_path).unwrap()).unwrap();
        assert_eq!(json["server_version"], "memory");
        let cases = json["cases"].as_array().unwrap();
        assert_eq!(cases.len(), Case::ALL.len());
        for (case, expected) in cases.iter().zip(Case::ALL) {
            assert_eq!(case["case"], expected.name());
            assert_eq!(case["runs"].as_array().unwrap().len(), 2, "{case}");
            for run in case["runs"].as_array().unwrap() {
                assert!(run["messages"].as_u64().unwrap() > 0, "{case}");
                assert!(run["latency"]["p50_us"].as_f64().unwrap() > 0.0, "{case}");
                assert!(run["raw"]["rate_per_s_after"].as_f64().unwrap() > 0.0, "{case}");
                assert!(run["server_cpu_s_per_million"].as_f64().is_some(), "{case}");
                assert!(run["fsyncs_per_1000_messages"].is_null(), "{case}");
                let mpub = matches!(expected, Case::Mpub | Case::MpubConsumed);
                assert_eq!(run["raw_command"].is_null(), !mpub, "{case}");
                assert_eq!(
                    run["consumed_per_s"].is_null(),
                    expected != Case::MpubConsumed,
                    "{case}"
                );
                assert_eq!(run["publish_latency"].is_null(), expected != Case::EndToEnd, "{case}");
            }
        }
        // 0.2 s at 2,000/s, whatever the machine: the schedule does not depend on the server.
        assert_eq!(report.cases[5].runs[0].messages, 400);
        assert_eq!(report.cases[6].runs[0].messages, 5001);
        let text = table::render(&report);
        for case in Case::ALL {
            assert!(text.contains(case.name()), "{text}");
        }
    }

    #[test]
    fn a_server_that_loses_a_message_fails_the_benchmark() {
        let server = MemoryServer::start_losing(17);
        for (case, text) in [
            ("drain", "5000 of 5001 messages"),
            ("end-to-end", "messages came, then none in 2s"),
            ("mpub-consumed", "messages came, then none in 2s"),
        ] {
            let mut more = SHORT.to_vec();
            more.extend(["--case", case, "--stall-seconds", "2"]);
            let error = measure(&args(&server, &more)).unwrap_err();
            assert!(format!("{error:#}").contains(text), "{error:#}");
        }
    }

    #[test]
    fn an_unreachable_server_is_named() {
        let server = MemoryServer::start();
        let mut args = args(&server, &SHORT);
        args.nsqd_tcp_address = "127.0.0.1:1".to_owned();
        let error = measure(&args).unwrap_err();
        assert!(format!("{error:#}").contains("127.0.0.1:1"), "{error:#}");
    }

    #[test]
    fn durations_and_sizes_have_bounds() {
        for bad in [
            ["--seconds", "-1"],
            ["--seconds", "nan"],
            ["--size", "15"],
            ["--runs", "0"],
        ] {
            assert!(Cli::try_parse_from(["bench"].iter().chain(&bad)).is_err(), "{bad:?}");
        }
    }
}
