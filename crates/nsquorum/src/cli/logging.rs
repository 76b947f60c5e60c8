//! Logs on standard error.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt, reload};

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

impl From<LogLevel> for nsquorum_frontend::LogLevel {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Debug => Self::Debug,
            LogLevel::Info => Self::Info,
            LogLevel::Warn => Self::Warn,
            LogLevel::Error => Self::Error,
            LogLevel::Fatal => Self::Fatal,
        }
    }
}

/// What is logged, while the process runs.
pub(crate) struct LogFilter(Box<dyn Fn(EnvFilter) + Send + Sync>);

impl LogFilter {
    /// From now on this much is logged.
    pub(crate) fn set(&self, level: nsquorum_frontend::LogLevel) {
        (self.0)(filter(level));
    }
}

/// Starts logging. The variable `NSQUORUM_LOG` (in the form of `tracing`'s filters) goes before the flag.
pub(crate) fn start(level: LogLevel, style: &LogStyle) -> LogFilter {
    let filter = EnvFilter::try_from_env("NSQUORUM_LOG").unwrap_or_else(|_| filter(level.into()));
    let (filter, handle) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    // A second start (in tests) changes nothing.
    drop(match style {
        LogStyle::Plain => registry
            .with(lines.with_ansi(std::io::stderr().is_terminal()))
            .try_init(),
        LogStyle::Go { prefix } => {
            let prefix = prefix.clone();
            registry
                .with(lines.with_ansi(false).event_format(GoLines { prefix }))
                .try_init()
        }
    });
    // An error says that another logger was there first.
    LogFilter(Box::new(move |filter| drop(handle.reload(filter))))
}

fn filter(level: nsquorum_frontend::LogLevel) -> EnvFilter {
    use nsquorum_frontend::LogLevel;
    EnvFilter::new(match level {
        LogLevel::Debug => "debug,openraft=info",
        // What the Raft library says at this level is about its inside.
        LogLevel::Info => "info,openraft=warn",
        LogLevel::Warn => "warn",
        LogLevel::Error | LogLevel::Fatal => "error",
    })
}
