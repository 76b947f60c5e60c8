//! Latencies: recorded exactly enough, summed up as the quantiles that matter.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longer times are recorded as this.
const LONGEST: Duration = Duration::from_secs(600);

/// A histogram of times, with three significant digits: about 100 KB, whatever the number of values.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let longest = u64::try_from(LONGEST.as_nanos()).expect("600 s in nanoseconds fit 64 bits");
        Self(Histogram::new_with_bounds(1, longest, 3).expect("the bounds and digits are valid constants"))
    }
}

impl Latencies {
    pub(super) fn record(&mut self, time: Duration) {
        self.record_many(time, 1);
    }

    /// Records the same time for `count` messages (those of one batch).
    pub(super) fn record_many(&mut self, time: Duration, count: u64) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record_n(nanos.max(1), count);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both histograms have the same bounds");
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(super) fn quantiles(&self) -> Quantiles {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        Quantiles {
            count: self.count(),
            mean_us: self.0.mean() / 1e3,
            p50_us: micros(self.0.value_at_quantile(0.5)),
            p99_us: micros(self.0.value_at_quantile(0.99)),
            p99_9_us: micros(self.0.value_at_quantile(0.999)),
            max_us: micros(self.0.max()),
        }
    }
}

/// The figures of a histogram, in microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Quantiles {
    pub(super) count: u64,
    pub(super) mean_us: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) p99_9_us: f64,
    pub(super) max_us: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_known_values() {
        let mut latencies = Latencies::default();
        for micros in 1..=1000 {
            latencies.record(Duration::from_micros(micros));
        }
        let quantiles = latencies.quantiles();
        let near = |value: f64, expected: f64| (value - expected).abs() <= expected * 0.001 + 0.001;
        assert_eq!(quantiles.count, 1000);
        assert!(near(quantiles.p50_us, 500.0), "{quantiles:?}");
        assert!(near(quantiles.p99_us, 990.0), "{quantiles:?}");
        assert!(near(quantiles.p99_9_us, 999.0), "{quantiles:?}");
        assert!(near(quantiles.max_us, 1000.0), "{quantiles:?}");
        assert!(near(quantiles.mean_us, 500.5), "{quantiles:?}");
    }

    #[test]
    fn batches_and_merging_count_every_message() {
        let (mut one, mut other) = (Latencies::default(), Latencies::default());
        one.record_many(Duration::from_millis(1), 200);
        other.record(Duration::from_secs(10_000));
        one.merge(&other);
        assert_eq!(one.count(), 201);
        assert!(one.quantiles().max_us >= 600e6 * 0.999);
    }
}
