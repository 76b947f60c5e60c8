//! The human form of a report: one aligned table, a line per case, and with several runs a second line with the range.

use std::fmt::Write as _;

use super::report::{CaseReport, Report, Spread, Summary};

/// A column: its heading, its figure, and the factor from the figure's unit to the column's.
struct Column {
    heading: &'static str,
    figure: fn(&Summary) -> Option<Spread>,
    factor: f64,
}

const COLUMNS: [Column; 13] = [
    Column {
        heading: "msg/s",
        figure: |summary| summary.rate_per_s,
        factor: 1.0,
    },
    Column {
        heading: "p50 us",
        figure: |summary| summary.p50_us,
        factor: 1.0,
    },
    Column {
        heading: "p99 us",
        figure: |summary| summary.p99_us,
        factor: 1.0,
    },
    Column {
        heading: "p99.9 us",
        figure: |summary| summary.p99_9_us,
        factor: 1.0,
    },
    Column {
        heading: "max us",
        figure: |summary| summary.max_us,
        factor: 1.0,
    },
    Column {
        heading: "raw/s",
        figure: |summary| summary.raw_rate_per_s,
        factor: 1.0,
    },
    Column {
        heading: "raw p50",
        figure: |summary| summary.raw_p50_us,
        factor: 1.0,
    },
    Column {
        heading: "x raw",
        figure: |summary| summary.rate_over_raw,
        factor: 1.0,
    },
    Column {
        heading: "fsync/1k",
        figure: |summary| summary.fsyncs_per_1000_messages,
        factor: 1.0,
    },
    Column {
        heading: "kB/1k",
        figure: |summary| summary.written_bytes_per_1000_messages,
        factor: 1e-3,
    },
    Column {
        heading: "srv s/M",
        figure: |summary| summary.server_cpu_s_per_million,
        factor: 1.0,
    },
    Column {
        heading: "cli s/M",
        figure: |summary| summary.client_cpu_s_per_million,
        factor: 1.0,
    },
    Column {
        heading: "peak MB",
        figure: |summary| summary.server_peak_memory_bytes,
        factor: 1e-6,
    },
];

/// The table, the lines below it, and what the columns mean.
pub(super) fn render(report: &Report) -> String {
    let mut rows = vec![heading()];
    for case in &report.cases {
        rows.extend(case_rows(case));
    }
    let mut text = aligned(&rows);
    text.push('\n');
    for case in &report.cases {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{}: {} B, latency is {}.",
            case.case, case.message_bytes, case.latency_of
        );
        if let (Some(p50), Some(p99)) = (case.summary.publish_p50_us, case.summary.publish_p99_us) {
            let (p50, p99) = (number(p50.median), number(p99.median));
            let _ = writeln!(text, "  publish, time due to OK: p50 {p50} us, p99 {p99} us.");
        }
        if let Some(p50) = case.summary.raw_command_p50_us {
            let p50 = number(p50.median);
            let _ = writeln!(text, "  raw loop with a record of a whole command: p50 {p50} us.");
        }
        if let Some(consumed) = case.summary.consumed_per_s {
            let (consumed, min, max) = (number(consumed.median), number(consumed.min), number(consumed.max));
            let _ = writeln!(text, "  consumed meanwhile: {consumed}/s ({min}..{max}).");
        }
        let of = &case.summary;
        let figures = [
            of.batch_messages,
            of.batch_fsyncs,
            of.batch_frames,
            of.batch_wake_ups,
            of.batch_purged,
        ];
        if let [Some(messages), Some(fsyncs), Some(frames), Some(wake_ups), Some(purged)] =
            figures.map(|figure| Some(number(figure?.median)))
        {
            let _ = writeln!(
                text,
                "  a batch of {messages} messages: {fsyncs} syncs, {frames} frames between nodes, {wake_ups} wake-ups of threads, \
                 {purged} entries deleted."
            );
        }
        let redeliveries: u64 = case.runs.iter().map(|run| run.redeliveries).sum();
        if redeliveries > 0 {
            let _ = writeln!(text, "  {redeliveries} redeliveries.");
        }
        for verdict in &case.targets {
            let word = if verdict.met { "met" } else { "MISSED" };
            let (reached, limit) = (number(verdict.reached), number(verdict.limit));
            let _ = writeln!(text, "  target {word}: {} is {reached}, limit {limit}.", verdict.target);
        }
    }
    text.push_str(
        "raw: append + fdatasync of one message's bytes by one thread, in a cluster as many side by side as nodes; mean of before and \
         after the case. x raw: msg/s over raw/s.\n\
         Per 1,000 messages: the server's syncs and kB written. Per million: CPU seconds of server and client. \
         - is not known.\n",
    );
    text
}

fn heading() -> Vec<String> {
    std::iter::once("case")
        .chain(COLUMNS.iter().map(|column| column.heading))
        .map(str::to_owned)
        .collect()
}

fn case_rows(case: &CaseReport) -> Vec<Vec<String>> {
    let cells = |show: &dyn Fn(Spread) -> String| {
        COLUMNS
            .iter()
            .map(|column| {
                let Spread { median, min, max } = (column.figure)(&case.summary)?;
                let factor = column.factor;
                Some(show(Spread {
                    median: median * factor,
                    min: min * factor,
                    max: max * factor,
                }))
            })
            .map(|cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned()))
            .collect::<Vec<_>>()
    };
    let row = |first: &str, cells: Vec<String>| std::iter::once(first.to_owned()).chain(cells).collect();
    let mut rows = vec![row(case.case, cells(&|spread| number(spread.median)))];
    if case.runs.len() > 1 {
        let range = |spread: Spread| format!("{}..{}", number(spread.min), number(spread.max));
        rows.push(row("  min..max", cells(&range)));
    }
    rows
}

/// Three significant digits at least, no more decimals than that needs, thousands short.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 999_950.0 => format!("{:.2}M", value / 1e6),
        size if size >= 9_999.5 => format!("{:.1}k", value / 1e3),
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The first column to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(String::len)
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let written = if column == 0 {
                write!(text, "{cell:<width$}")
            } else {
                write!(text, "  {cell:>width$}")
            };
            written.expect("writing to a string cannot fail");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::run;
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.127, "0.13"),
            (9.996, "10.0"),
            (14.9, "14.9"),
            (99.96, "100"),
            (1234.4, "1234"),
            (9999.6, "10.0k"),
            (123_456.0, "123.5k"),
            (1_234_567.0, "1.23M"),
            (-150.0, "-150"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn columns_align_and_unknown_figures_are_dashes() {
        let case = |runs: Vec<_>| {
            let settings = super::super::case::Settings {
                message_bytes: 200,
                end_to_end_bytes: 1024,
                end_to_end_rate: 2000.0,
                drain_messages: 1,
                warm_up: std::time::Duration::ZERO,
                length: std::time::Duration::ZERO,
                stall_max: std::time::Duration::ZERO,
            };
            CaseReport::new(super::super::case::Case::OneSync, &settings, 1, runs)
        };
        let mut rows = vec![heading()];
        rows.extend(case_rows(&case(vec![run(300)])));
        assert_eq!(rows.len(), 2, "one run has no range");
        rows.extend(case_rows(&case(vec![run(300), run(400)])));
        assert_eq!(rows.len(), 4);
        let text = aligned(&rows);
        let lengths: Vec<usize> = text.lines().map(str::len).collect();
        assert!(lengths.iter().all(|length| *length == lengths[0]), "{text}");
        assert!(text.contains("10.0k"), "{text}");
        assert!(text.contains("300..400"), "{text}");
        let client_cpu = COLUMNS.iter().position(|column| column.heading == "cli s/M").unwrap();
        assert_eq!(rows[1][client_cpu + 1], "-");
    }
}
