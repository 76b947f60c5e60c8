//! The command line. The name under which the program was started decides whose: `nsqd` and `nsqlookupd` have those of stock NSQ.

mod bytes;
mod duration;
mod go;
mod inspect;
mod log_lines;
mod logging;
mod lookup_args;
mod metrics_args;
mod nsqd;
mod nsqlookupd;
mod publish;
mod serve_args;
mod session_args;
mod tail;
mod tls_args;

use std::ffi::OsStr;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::bench;
use crate::exit::{self, Exit};
use crate::import;
use crate::serve;
use crate::status;
use crate::up;

pub(crate) use serve_args::ServeArgs;
pub(crate) use tls_args::TlsRequirement;

#[derive(Debug, Parser)]
#[command(name = "nsquorum", version, about, after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node. Without flags: a durable node of one on nsqd's ports, with its data in the current directory.
    #[command(after_help = exit::HELP)]
    Serve(Box<ServeArgs>),
    /// Run a whole cluster on this machine.
    Up(Box<up::UpArgs>),
    /// Say how the cluster is: nodes, topics, leaders, replicas, lag. Exit code 0: all is well; 3: something is missing, but everything works;
    /// 4: something does not work; 1: no node answered.
    Status(status::StatusArgs),
    /// Publish one message.
    Pub(publish::PubArgs),
    /// Print the messages of a topic as they come.
    Tail(tail::TailArgs),
    /// Publish what a stopped stock nsqd left in its data path.
    #[command(after_help = exit::HELP)]
    Import(import::ImportArgs),
    /// Measure a running node.
    Bench(Box<bench::BenchArgs>),
    /// Check the data directory of a stopped node.
    Verify(inspect::VerifyArgs),
    /// Cut what a power loss left behind the last synced byte in the directory of a stopped node.
    Repair(inspect::RepairArgs),
}

/// Parses the arguments and carries the command out.
pub(crate) fn run() -> Exit {
    let mut arguments = std::env::args_os();
    let program = arguments.next().map(PathBuf::from);
    match program.as_deref().and_then(Path::file_name).and_then(OsStr::to_str) {
        Some("nsqd") => nsqd::run(arguments),
        Some("nsqlookupd") => nsqlookupd::run(arguments),
        _ => run_nsquorum(),
    }
}

fn run_nsquorum() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" too, and go to standard output.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            return error.print().map_or(Exit::Failed, |()| exit);
        }
    };
    match cli.command {
        Command::Serve(args) => serve_node(&args),
        Command::Up(args) => client(Box::pin(up::run(*args))),
        Command::Status(args) => client(status::run(args)),
        Command::Pub(args) => client(publish::run(args)),
        Command::Tail(args) => client(tail::run(args)),
        Command::Import(args) => client(import::run(args)),
        Command::Bench(args) => client(Box::pin(bench::run(*args))),
        Command::Verify(args) => inspect::verify(&args),
        Command::Repair(args) => inspect::repair(&args),
    }
}

fn serve_node(args: &ServeArgs) -> Exit {
    let log_filter = start_logging(args.log_level, &args.log_style);
    if let Err(complaint) = args.limits() {
        complain(&complaint);
        return Exit::Usage;
    }
    match serve::run(args, log_filter) {
        Ok(()) => Exit::Ok,
        Err(stopped) => {
            complain(&format!("{:#}", stopped.cause));
            stopped.exit
        }
    }
}

/// Runs a client command on one thread: it waits for the network, and on a small machine the server needs the other cores.
fn client<T: Into<Exit>>(command: impl Future<Output = anyhow::Result<T>>) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    match runtime.block_on(command) {
        Ok(done) => done.into(),
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> Exit {
    complain(&format!("{error:#}"));
    Exit::Failed
}

/// One line on standard error.
pub(crate) fn complain(text: &str) {
    // Without standard error there is nobody to tell.
    drop(writeln!(std::io::stderr().lock(), "nsquorum: {text}"));
}

pub(crate) use duration::parse as parse_duration;
pub(crate) use logging::{LogFilter, start as start_logging};

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_needs_no_flags_and_has_nsqds_ports() {
        let cli = Cli::try_parse_from(["nsquorum", "serve"]).unwrap();
        let Command::Serve(args) = cli.command else {
            panic!("not serve")
        };
        assert_eq!(args.tcp_address, "0.0.0.0:4150");
        assert_eq!(args.http_address, "0.0.0.0:4151");
        assert_eq!(args.lookup.lookup_http_address, "0.0.0.0:4161");
        assert_eq!(args.limits().unwrap(), nsquorum_protocol::Limits::default());
    }

    #[test]
    fn flags_have_nsqds_names_and_forms() {
        let flags = [
            "nsquorum",
            "serve",
            "--tcp-address=127.0.0.1:0",
            "--max-msg-size",
            "2048",
            "--msg-timeout=2s",
            "--max-req-timeout=168h",
            "--max-heartbeat-interval=1m30s",
            "--publish-timeout=250ms",
            "--memory-budget=64MiB",
        ];
        let Command::Serve(args) = Cli::try_parse_from(flags).unwrap().command else {
            panic!("not serve")
        };
        let limits = args.limits().unwrap();
        assert_eq!(limits.max_msg_size, 2048);
        assert_eq!(limits.msg_timeout_ms, 2000);
        assert_eq!(limits.max_req_timeout_ms, 168 * 3_600_000);
        assert_eq!(limits.max_heartbeat_interval_ms, 90_000);
        assert_eq!(args.publish_timeout.as_millis(), 250);
        assert_eq!(args.memory_budget, 64 << 20);
    }

    fn is_refused(flags: [&str; 2]) -> bool {
        let cli = Cli::try_parse_from(["nsquorum", "serve"].into_iter().chain(flags));
        match cli {
            Err(_) => true,
            Ok(Cli {
                command: Command::Serve(args),
            }) => args.limits().is_err(),
            Ok(_) => false,
        }
    }

    #[test]
    fn impossible_settings_are_refused() {
        for flags in [
            ["--msg-timeout", "30"],
            ["--msg-timeout", "0"],
            ["--max-req-timeout", "1200h"],
            ["--max-msg-size", "0"],
            ["--max-msg-size", "1073741825"],
            ["--max-body-size", "1073741825"],
        ] {
            assert!(is_refused(flags), "{flags:?}");
        }
    }

    #[test]
    fn what_nsqd_allows_is_allowed() {
        for flags in [
            ["--msg-timeout", "20m"],
            ["--max-req-timeout", "168h"],
            ["--max-msg-size", "10485760"],
            ["--max-body-size", "1024"],
            ["--max-heartbeat-interval", "500ms"],
            ["--max-output-buffer-size", "0"],
            ["--min-output-buffer-timeout", "1m"],
        ] {
            assert!(!is_refused(flags), "{flags:?}");
        }
    }
}
