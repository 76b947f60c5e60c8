//! Why reading options ends the program.

use std::io::Write as _;

use super::version_line;
use crate::cli::log_lines::GoTime;
use crate::exit::Exit;

/// Why there is nothing to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// `--help`: the usage.
    Help(String),
    /// `--version`.
    Version,
    /// The command line is wrong: the complaint and the usage.
    Usage(String),
    /// The options cannot be what they are.
    Fatal(String),
}

impl End {
    /// Says it as stock programs do.
    pub(crate) fn report(self, program: &str) -> Exit {
        // Nobody is left to tell that standard output or error is gone.
        match self {
            Self::Help(usage) => {
                drop(write!(std::io::stderr().lock(), "{usage}"));
                Exit::Ok
            }
            Self::Version => match writeln!(std::io::stdout().lock(), "{}", version_line(program)) {
                Ok(()) => Exit::Ok,
                Err(_) => Exit::Failed,
            },
            Self::Usage(text) => {
                drop(write!(std::io::stderr().lock(), "{text}"));
                Exit::Usage
            }
            Self::Fatal(text) => fatal(program, &text),
        }
    }
}

/// The last line of a program that cannot start.
pub(crate) fn fatal(program: &str, text: &str) -> Exit {
    drop(writeln!(
        std::io::stderr().lock(),
        "[{program}] {} FATAL: {text}",
        GoTime
    ));
    Exit::Failed
}
