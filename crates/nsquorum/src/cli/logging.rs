//! Logs on standard error.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use super::log_lines::{GoLines, LogStyle};

/// How much is logged. nsqd's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// Everything (a release build has nothing below info).
    Debug,
    /// Starts, stops, and what changes.
    Info,
    /// What may need attention.
    Warn,
    /// What needs it.
    Error,
    /// As error: nsqd's name for what ends the process.
    Fatal,
}

/// Starts logging. The variable `NSQUORUM_LOG` (in the form of `tracing`'s filters) goes before the flag.
pub(crate) fn start(level: LogLevel, style: &LogStyle) {
    let default = match level {
        LogLevel::Debug => "debug,openraft=info",
        // What the Raft library says at this level is about its inside.
        LogLevel::Info => "info,openraft=warn",
        LogLevel::Warn => "warn",
        LogLevel::Error | LogLevel::Fatal => "error",
    };
    let filter = EnvFilter::try_from_env("NSQUORUM_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second start (in tests) changes nothing.
    drop(match style {
        LogStyle::Plain => subscriber.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogStyle::Go { prefix } => {
            let prefix = prefix.clone();
            subscriber.with_ansi(false).event_format(GoLines { prefix }).try_init()
        }
    });
}
