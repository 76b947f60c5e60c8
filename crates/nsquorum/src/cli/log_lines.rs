//! Lines of the log as the programs of stock NSQ write them: `[nsqd] 2026/11/22 07:10:28.203881 INFO: TCP: listening on [::]:4150`.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How lines of the log look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogStyle {
    /// As `tracing` has them.
    #[default]
    Plain,
    /// As stock NSQ has them.
    Go {
        /// What every line begins with.
        prefix: String,
    },
}

/// Prints the present time, in UTC, as Go's log does.
pub(super) struct GoTime;

impl fmt::Display for GoTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        SystemTime.format_time(&mut Writer::new(&mut text))?;
        f.write_str(&text.replace('-', "/").replace('T', " ").replace('Z', ""))
    }
}

/// Writes an event as one line.
pub(super) struct GoLines {
    pub(super) prefix: String,
}

impl<S, N> FormatEvent<S, N> for GoLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::TRACE | Level::DEBUG => "DEBUG",
            Level::INFO => "INFO",
            Level::WARN => "WARNING",
            Level::ERROR => "ERROR",
        };
        write!(writer, "{}{GoTime} {level}: ", self.prefix)?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_that_of_stock_nsq() {
        let lines = Lines::default();
        let target = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .event_format(GoLines {
                prefix: "[x] ".to_owned(),
            })
            .with_writer(move || target.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("TCP: listening on {}", "[::]:4150");
            tracing::warn!(count = 3, "odd");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let without_digits = text.replace(|c: char| c.is_ascii_digit(), "9");
        assert_eq!(
            without_digits,
            "[x] 9999/99/99 99:99:99.999999 INFO: TCP: listening on [::]:9999\n[x] 9999/99/99 99:99:99.999999 WARNING: odd count=9\n"
        );
    }
}
