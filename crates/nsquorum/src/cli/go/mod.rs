//! Command lines and configuration files as the programs of stock NSQ read them: Go's `flag` package, and TOML below it.
//!
//! A program's options are a struct of plain fields with the program's defaults; [`Options::flags`] lists them once, with names and
//! meanings, for the command line, the file and the usage alike. What is given on the command line goes before the file.

mod config;
mod end;
mod flags;
mod level;
mod values;

use std::ffi::OsString;

pub(crate) use end::{End, fatal};
pub(crate) use flags::{Flag, Given};
pub(crate) use values::{BadValue, GoValue, Percentiles, configure_as_text, plain};

use super::log_lines::LogStyle;
use super::logging::LogLevel;

/// The version of NSQ whose programs these are.
pub(crate) const NSQ_VERSION: &str = "1.3.0";

/// The options of a program.
pub(crate) trait Options: Default {
    /// The program's name.
    const PROGRAM: &'static str;

    /// Those that all programs have.
    fn common(&self) -> &Common;

    /// All of them.
    fn flags(&mut self) -> Vec<Flag<'_>>;
}

/// Options of every program.
pub(crate) struct Common {
    version: bool,
    config: String,
    verbose: bool,
    /// How much is logged.
    pub(crate) log_level: LogLevel,
    log_prefix: String,
}

impl Common {
    /// The defaults of a program.
    pub(crate) fn of(program: &str) -> Self {
        Self {
            version: false,
            config: String::new(),
            verbose: false,
            log_level: LogLevel::Info,
            log_prefix: format!("[{program}] "),
        }
    }

    /// Their flags.
    pub(crate) fn flags(&mut self) -> [Flag<'_>; 5] {
        [
            Flag::new("version", &mut self.version, "print the version and exit").on_the_command_line_only(),
            Flag::new("config", &mut self.config, "path of a configuration file in TOML").on_the_command_line_only(),
            Flag::new(
                "log-level",
                &mut self.log_level,
                "how much is logged: debug, info, warn, error, or fatal",
            ),
            Flag::new(
                "log-prefix",
                &mut self.log_prefix,
                "what every line of the log begins with",
            ),
            Flag::new("verbose", &mut self.verbose, "[deprecated] no effect; see --log-level")
                .on_the_command_line_only(),
        ]
    }

    /// How lines of the log look.
    pub(crate) fn log_style(&self) -> LogStyle {
        LogStyle::Go {
            prefix: self.log_prefix.clone(),
        }
    }
}

/// What a program calls itself, in its log and for `--version`.
pub(crate) fn version_line(program: &str) -> String {
    format!(
        "{program} v{NSQ_VERSION} (built w/nsquorum {})",
        env!("CARGO_PKG_VERSION")
    )
}

/// Reads the command line (without the program's name) and the file that it names, and says which options were given in either.
pub(crate) fn read<O: Options>(arguments: impl Iterator<Item = OsString>) -> Result<(O, Given), End> {
    let mut options = O::default();
    let mut given = flags::parse(O::PROGRAM, &mut options.flags(), arguments)?;
    if options.common().version {
        return Err(End::Version);
    }
    let file = options.common().config.clone();
    if !file.is_empty() {
        config::apply(&file, &mut options.flags(), &mut given)?;
    }
    Ok((options, given))
}
