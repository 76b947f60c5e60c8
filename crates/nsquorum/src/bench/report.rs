//! From measurements to figures: one record per case and run, medians over the runs, the table and the JSON.

use serde::Serialize;

use super::case::{Case, Settings};
use super::latency::Quantiles;
use super::raw::RawLoop;
use super::usage::Usage;
use super::window::Measured;

/// The raw loop with one record size, before and after a case.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RawFigures {
    record_bytes: usize,
    rate_per_s_before: f64,
    rate_per_s_after: f64,
    latency_before: Quantiles,
    latency_after: Quantiles,
}

impl RawFigures {
    pub(super) fn new(record_bytes: usize, before: &RawLoop, after: &RawLoop) -> Self {
        Self {
            record_bytes,
            rate_per_s_before: before.rate(),
            rate_per_s_after: after.rate(),
            latency_before: before.latencies.quantiles(),
            latency_after: after.latencies.quantiles(),
        }
    }

    /// The mean of before and after.
    fn rate(&self) -> f64 {
        f64::midpoint(self.rate_per_s_before, self.rate_per_s_after)
    }

    /// The mean of before and after.
    fn p50_us(&self) -> f64 {
        f64::midpoint(self.latency_before.p50_us, self.latency_after.p50_us)
    }
}

/// What one batch of the topic's log costs all nodes together.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct BatchFigures {
    pub(super) messages: f64,
    pub(super) fsyncs: f64,
    /// Frames between nodes, heartbeats and answers included.
    pub(super) frames: f64,
    /// How often a thread slept and had to be woken.
    pub(super) wake_ups: f64,
    /// Entries deleted from the logs of all nodes.
    pub(super) purged: f64,
}

impl BatchFigures {
    /// `None` where something is not known, or where there was no batch.
    fn of(usage: &Usage) -> Option<Self> {
        let batches = usage.batches.filter(|batches| *batches > 0.0)?;
        Some(Self {
            messages: usage.batch_messages? / batches,
            fsyncs: usage.fsyncs? / batches,
            frames: usage.frames? / batches,
            wake_ups: usage.wake_ups? / batches,
            purged: usage.purged_entries? / batches,
        })
    }
}

/// One case in one run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RunFigures {
    pub(super) messages: u64,
    pub(super) seconds: f64,
    pub(super) rate_per_s: f64,
    pub(super) latency: Quantiles,
    pub(super) publish_latency: Option<Quantiles>,
    /// Where publishing is what is measured: messages that were finished meanwhile.
    pub(super) consumed_per_s: Option<f64>,
    pub(super) redeliveries: u64,
    /// With records of one message.
    pub(super) raw: RawFigures,
    /// With records of one command, where that is more than one message.
    pub(super) raw_command: Option<RawFigures>,
    /// Messages per second over the raw loop's records per second, records of one message.
    pub(super) rate_over_raw: f64,
    /// The case's p50 less the raw loop's p50 of the same bytes: what the server adds to a lone sync.
    pub(super) p50_over_raw_us: f64,
    pub(super) fsyncs_per_1000_messages: Option<f64>,
    pub(super) written_bytes_per_1000_messages: Option<f64>,
    pub(super) server_cpu_s_per_million: Option<f64>,
    pub(super) client_cpu_s_per_million: Option<f64>,
    pub(super) batch: Option<BatchFigures>,
    pub(super) server_peak_memory_bytes: Option<u64>,
}

impl RunFigures {
    pub(super) fn new(measured: &Measured, raw: RawFigures, raw_command: Option<RawFigures>) -> Self {
        let messages = measured.messages as f64;
        let seconds = measured.elapsed.as_secs_f64();
        let per = |unit: f64, amount: Option<f64>| amount.map(|amount| amount * unit / messages.max(1.0));
        let usage = &measured.cost.usage;
        let latency = measured.latencies.quantiles();
        Self {
            messages: measured.messages,
            seconds,
            rate_per_s: messages / seconds,
            latency,
            publish_latency: measured
                .publish_latencies
                .as_ref()
                .map(|latencies| latencies.quantiles()),
            consumed_per_s: measured.consumed.map(|count| count as f64 / seconds),
            redeliveries: measured.redeliveries,
            rate_over_raw: messages / seconds / raw.rate(),
            p50_over_raw_us: latency.p50_us - raw_command.as_ref().unwrap_or(&raw).p50_us(),
            raw,
            raw_command,
            fsyncs_per_1000_messages: per(1e3, usage.fsyncs),
            written_bytes_per_1000_messages: per(1e3, usage.written_bytes),
            server_cpu_s_per_million: per(1e6, usage.server_cpu.map(|time| time.as_secs_f64())),
            client_cpu_s_per_million: per(1e6, usage.client_cpu.map(|time| time.as_secs_f64())),
            batch: BatchFigures::of(usage),
            server_peak_memory_bytes: measured.cost.server_peak_memory_bytes,
        }
    }
}

/// A figure over the runs.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// `None` of no values.
    fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, min, max })
    }
}

/// The figures that are summed up over the runs, by their names in the JSON.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    pub(super) rate_per_s: Option<Spread>,
    pub(super) p50_us: Option<Spread>,
    pub(super) p99_us: Option<Spread>,
    pub(super) p99_9_us: Option<Spread>,
    pub(super) max_us: Option<Spread>,
    pub(super) consumed_per_s: Option<Spread>,
    pub(super) publish_p50_us: Option<Spread>,
    pub(super) publish_p99_us: Option<Spread>,
    pub(super) raw_rate_per_s: Option<Spread>,
    pub(super) raw_p50_us: Option<Spread>,
    pub(super) raw_command_p50_us: Option<Spread>,
    pub(super) rate_over_raw: Option<Spread>,
    pub(super) p50_over_raw_us: Option<Spread>,
    pub(super) fsyncs_per_1000_messages: Option<Spread>,
    pub(super) written_bytes_per_1000_messages: Option<Spread>,
    pub(super) server_cpu_s_per_million: Option<Spread>,
    pub(super) client_cpu_s_per_million: Option<Spread>,
    pub(super) batch_messages: Option<Spread>,
    pub(super) batch_fsyncs: Option<Spread>,
    pub(super) batch_frames: Option<Spread>,
    pub(super) batch_wake_ups: Option<Spread>,
    pub(super) batch_purged: Option<Spread>,
    pub(super) server_peak_memory_bytes: Option<Spread>,
}

impl Summary {
    fn of(runs: &[RunFigures]) -> Self {
        let spread = |figure: &dyn Fn(&RunFigures) -> Option<f64>| Spread::of(runs.iter().filter_map(figure));
        Self {
            rate_per_s: spread(&|run| Some(run.rate_per_s)),
            p50_us: spread(&|run| Some(run.latency.p50_us)),
            p99_us: spread(&|run| Some(run.latency.p99_us)),
            p99_9_us: spread(&|run| Some(run.latency.p99_9_us)),
            max_us: spread(&|run| Some(run.latency.max_us)),
            consumed_per_s: spread(&|run| run.consumed_per_s),
            publish_p50_us: spread(&|run| Some(run.publish_latency?.p50_us)),
            publish_p99_us: spread(&|run| Some(run.publish_latency?.p99_us)),
            raw_rate_per_s: spread(&|run| Some(run.raw.rate())),
            raw_p50_us: spread(&|run| Some(run.raw.p50_us())),
            raw_command_p50_us: spread(&|run| Some(run.raw_command.as_ref()?.p50_us())),
            rate_over_raw: spread(&|run| Some(run.rate_over_raw)),
            p50_over_raw_us: spread(&|run| Some(run.p50_over_raw_us)),
            fsyncs_per_1000_messages: spread(&|run| run.fsyncs_per_1000_messages),
            written_bytes_per_1000_messages: spread(&|run| run.written_bytes_per_1000_messages),
            server_cpu_s_per_million: spread(&|run| run.server_cpu_s_per_million),
            client_cpu_s_per_million: spread(&|run| run.client_cpu_s_per_million),
            batch_messages: spread(&|run| Some(run.batch?.messages)),
            batch_fsyncs: spread(&|run| Some(run.batch?.fsyncs)),
            batch_frames: spread(&|run| Some(run.batch?.frames)),
            batch_wake_ups: spread(&|run| Some(run.batch?.wake_ups)),
            batch_purged: spread(&|run| Some(run.batch?.purged)),
            server_peak_memory_bytes: spread(&|run| Some(run.server_peak_memory_bytes? as f64)),
        }
    }
}

/// A case over all runs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CaseReport {
    pub(super) case: &'static str,
    pub(super) latency_of: &'static str,
    pub(super) message_bytes: usize,
    pub(super) summary: Summary,
    pub(super) targets: Vec<Verdict>,
    pub(super) runs: Vec<RunFigures>,
}

impl CaseReport {
    pub(super) fn new(case: Case, settings: &Settings, nodes: usize, runs: Vec<RunFigures>) -> Self {
        let summary = Summary::of(&runs);
        Self {
            case: case.name(),
            latency_of: case.latency_of(),
            message_bytes: case.message_bytes(settings),
            targets: Verdict::of(case, nodes, &summary),
            summary,
            runs,
        }
    }
}

/// What a node of one, or a cluster of three on one machine, is built to reach, next to what it reached (medians over the runs).
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) target: &'static str,
    pub(super) reached: f64,
    pub(super) limit: f64,
    pub(super) met: bool,
}

impl Verdict {
    fn of(case: Case, nodes: usize, summary: &Summary) -> Vec<Self> {
        let at_most = |target, reached: Option<Spread>, limit: f64| {
            let reached = reached?.median;
            Some(Self {
                target,
                reached,
                limit,
                met: reached <= limit,
            })
        };
        let at_least = |target, reached: Option<Spread>, limit: f64| {
            let reached = reached?.median;
            Some(Self {
                target,
                reached,
                limit,
                met: reached >= limit,
            })
        };
        let rate = |limit| at_least("msg/s", summary.rate_per_s, limit);
        // The slower of the two: what can go on for ever.
        let both = match (summary.rate_per_s, summary.consumed_per_s) {
            (Some(published), Some(consumed)) if consumed.median < published.median => Some(consumed),
            (published, _) => published,
        };
        let verdicts = match (nodes, case) {
            (1, Case::OneSync) => [at_most("p50 less raw p50, us", summary.p50_over_raw_us, 100.0), None],
            (1, Case::ManySync) => [at_least("messages per raw record", summary.rate_over_raw, 1.0), None],
            (1, Case::Mpub) => [at_least("messages per raw record", summary.rate_over_raw, 8.0), None],
            (1, Case::EndToEnd) => [at_most("delivery p50, us", summary.p50_us, 1_000.0), None],
            (3, Case::OneSync) => [rate(4_000.0), at_most("p50, us", summary.p50_us, 300.0)],
            (3, Case::ManySync) => [rate(45_000.0), None],
            (3, Case::InFlight) => [rate(130_000.0), None],
            (3, Case::Mpub) => [rate(250_000.0), None],
            (3, Case::MpubConsumed) => [
                at_least("msg/s published and consumed", both, 250_000.0),
                at_most("slowest publish, us", summary.max_us, 200_000.0),
            ],
            (3, Case::EndToEnd) => [
                at_most("delivery p50, us", summary.p50_us, 1_000.0),
                at_most("delivery p99, us", summary.p99_us, 8_000.0),
            ],
            _ => [None, None],
        };
        verdicts.into_iter().flatten().collect()
    }
}

/// Everything that a benchmark found; what `--json` writes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// The benchmark's own version.
    pub(super) version: &'static str,
    /// What the server answered to IDENTIFY.
    pub(super) server_version: String,
    pub(super) nsqd_tcp_address: String,
    /// On this machine; as many raw loops ran side by side.
    pub(super) nodes: usize,
    /// Seconds since 1970.
    pub(super) started_unix_s: u64,
    pub(super) kernel: Option<String>,
    pub(super) cores: usize,
    pub(super) runs: u32,
    pub(super) seconds: f64,
    pub(super) warm_up_seconds: f64,
    pub(super) end_to_end_rate_per_s: f64,
    pub(super) drain_messages: u64,
    pub(super) raw_dir: String,
    pub(super) cases: Vec<CaseReport>,
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::super::latency::Latencies;
    use super::super::usage::Usage;
    use super::super::window::Cost;
    use super::*;

    fn raw(records: u64, micros: u64) -> RawLoop {
        let mut latencies = Latencies::default();
        latencies.record_many(Duration::from_micros(micros), records);
        RawLoop {
            records,
            elapsed: Duration::from_micros(records * micros),
            latencies,
        }
    }

    /// 20,000 messages in 2 s with a p50 of `micros`, beside a raw loop of 10,000/s before and 5,000/s after.
    pub(in super::super) fn run(micros: u64) -> RunFigures {
        let mut latencies = Latencies::default();
        latencies.record_many(Duration::from_micros(micros), 20_000);
        let usage = Usage {
            server_cpu: Some(Duration::from_millis(500)),
            client_cpu: None,
            fsyncs: Some(40.0),
            written_bytes: Some(8e6),
            batches: Some(20.0),
            purged_entries: None,
            batch_messages: Some(20_000.0),
            frames: Some(120.0),
            wake_ups: None,
        };
        let measured = Measured {
            messages: 20_000,
            elapsed: Duration::from_secs(2),
            latencies,
            publish_latencies: None,
            consumed: None,
            redeliveries: 0,
            cost: Cost {
                usage,
                server_peak_memory_bytes: Some(1 << 20),
            },
        };
        RunFigures::new(&measured, RawFigures::new(200, &raw(1000, 100), &raw(1000, 200)), None)
    }

    fn near(value: f64, expected: f64) -> bool {
        (value - expected).abs() <= expected.abs() * 0.002
    }

    #[test]
    fn figures_are_per_message_and_beside_the_mean_of_both_raw_loops() {
        let run = run(300);
        assert!(near(run.rate_per_s, 10_000.0));
        assert!(near(run.rate_over_raw, 10_000.0 / 7_500.0), "{}", run.rate_over_raw);
        assert!(near(run.p50_over_raw_us, 150.0), "{}", run.p50_over_raw_us);
        assert_eq!(run.fsyncs_per_1000_messages, Some(2.0));
        assert_eq!(run.written_bytes_per_1000_messages, Some(400_000.0));
        assert_eq!(run.server_cpu_s_per_million, Some(25.0));
        assert_eq!(run.client_cpu_s_per_million, None);
    }

    #[test]
    fn the_median_is_the_middle_and_of_two_their_mean() {
        assert_eq!(
            Spread::of([3.0, 1.0, 2.0]),
            Some(Spread {
                median: 2.0,
                min: 1.0,
                max: 3.0
            })
        );
        assert_eq!(
            Spread::of([4.0, 1.0]),
            Some(Spread {
                median: 2.5,
                min: 1.0,
                max: 4.0
            })
        );
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn verdicts_compare_medians_in_the_right_direction() {
        let met = |case, runs: &[RunFigures]| {
            let verdicts = Verdict::of(case, 1, &Summary::of(runs));
            verdicts.first().map(|verdict| verdict.met)
        };
        // Raw p50 is 150 us, so 250 us is the limit.
        assert_eq!(met(Case::OneSync, &[run(240), run(240), run(9_999)]), Some(true));
        assert_eq!(met(Case::OneSync, &[run(260)]), Some(false));
        assert_eq!(met(Case::ManySync, &[run(1)]), Some(true));
        assert_eq!(met(Case::Mpub, &[run(1)]), Some(false));
        assert_eq!(met(Case::EndToEnd, &[run(1_010)]), Some(false));
        assert_eq!(met(Case::Drain, &[run(1)]), None);
        let all_met = |case, micros| {
            let verdicts = Verdict::of(case, 3, &Summary::of(&[run(micros)]));
            verdicts.iter().map(|verdict| verdict.met).collect::<Vec<_>>()
        };
        // 10,000 a second.
        assert_eq!(all_met(Case::OneSync, 290), [true, true]);
        assert_eq!(all_met(Case::OneSync, 310), [true, false]);
        assert_eq!(all_met(Case::ManySync, 290), [false]);
        assert_eq!(all_met(Case::EndToEnd, 7_000), [false, true]);
    }
}
