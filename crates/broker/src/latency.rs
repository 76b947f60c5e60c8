//! How long messages take from their publish to their FIN, as percentiles over the last minutes.
//!
//! As in nsqd two sketches take turns, each for half of the window, and what is shown is both together: between half a window and a whole
//! one. A sketch keeps counts in buckets that grow by 2 %, so a percentile is off by 1 % at most, and a channel costs at most 2,048 counters
//! per half, in practice a few hundred.

use std::fmt;
use std::time::Duration;

use nsquorum_environment::Monotonic;
use sketches_ddsketch::{Config, DDSketch};

/// The greatest relative error of a percentile.
const ERROR: f64 = 0.01;
/// Buckets of a sketch at most; beyond that the fastest ones are counted together. Enough for everything from a microsecond to years.
const BUCKETS_MAX: u32 = 2048;
/// What is faster than this many nanoseconds counts as 0.
const NANOS_MIN: f64 = 1.0;

/// A share of all messages, above 0 and at most 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile(f64);

impl Quantile {
    /// `None` if it is not in (0, 1].
    pub fn new(share: f64) -> Option<Self> {
        (share > 0.0 && share <= 1.0).then_some(Self(share))
    }

    /// The share.
    pub const fn get(self) -> f64 {
        self.0
    }
}

/// Which percentiles are measured.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencySettings {
    /// In the order in which they are shown.
    pub quantiles: Vec<Quantile>,
    /// How far back they look.
    pub window: Duration,
}

/// Percentiles of one channel, or of all channels of a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencySummary {
    /// Messages that were finished within the window.
    pub count: u64,
    /// One for each quantile of the settings.
    pub percentiles: Vec<LatencyPercentile>,
}

/// One percentile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatencyPercentile {
    /// The share of messages that took no longer.
    pub quantile: Quantile,
    /// Nanoseconds; 0 if nothing was finished within the window.
    pub nanos: f64,
}

/// The latencies of one channel.
#[derive(Clone)]
pub(crate) struct LatencyWindow {
    /// The second is empty, or the half window before the first.
    current: DDSketch,
    previous: DDSketch,
    half: Duration,
    current_since: Monotonic,
}

impl LatencyWindow {
    pub(crate) fn new(settings: &LatencySettings, now: Monotonic) -> Self {
        Self {
            current: empty(),
            previous: empty(),
            half: settings.window / 2,
            current_since: now,
        }
    }

    /// A message was finished this long after its publish.
    pub(crate) fn record(&mut self, latency: Duration, now: Monotonic) {
        let age = now.since(self.current_since);
        if age > self.half {
            let current = std::mem::replace(&mut self.current, empty());
            self.previous = if age > 2 * self.half { empty() } else { current };
            self.current_since = now;
        }
        self.current.add(latency.as_nanos() as f64);
    }
}

impl fmt::Debug for LatencyWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = (self.current.count(), self.previous.count());
        f.debug_tuple("LatencyWindow").field(&counts).finish()
    }
}

/// What several channels have measured together.
pub(crate) fn summary<'a>(
    settings: &LatencySettings,
    windows: impl IntoIterator<Item = &'a LatencyWindow>,
    now: Monotonic,
) -> LatencySummary {
    let mut all = empty();
    for window in windows {
        let age = now.since(window.current_since);
        let halves = [(&window.current, 2 * window.half), (&window.previous, window.half)];
        for (half, _) in halves.into_iter().filter(|(_, age_max)| age <= *age_max) {
            all.merge(half).expect("all sketches are made alike");
        }
    }
    let percentile = |quantile: &Quantile| LatencyPercentile {
        quantile: *quantile,
        nanos: all
            .quantile(quantile.get())
            .expect("a quantile is between 0 and 1")
            .unwrap_or(0.0),
    };
    LatencySummary {
        count: all.count() as u64,
        percentiles: settings.quantiles.iter().map(percentile).collect(),
    }
}

fn empty() -> DDSketch {
    DDSketch::new(Config::new(ERROR, BUCKETS_MAX, NANOS_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(quantiles: &[f64]) -> LatencySettings {
        LatencySettings {
            quantiles: quantiles
                .iter()
                .map(|share| Quantile::new(*share).expect("a share"))
                .collect(),
            window: Duration::from_secs(10),
        }
    }

    fn at(secs: u64) -> Monotonic {
        Monotonic::START + Duration::from_secs(secs)
    }

    fn of(window: &LatencyWindow, settings: &LatencySettings, now: Monotonic) -> (u64, Vec<f64>) {
        let summary = summary(settings, [window], now);
        let nanos = summary.percentiles.iter().map(|percentile| percentile.nanos);
        (summary.count, nanos.collect())
    }

    #[test]
    fn percentiles_are_within_one_per_cent() {
        let settings = settings(&[1.0, 0.99, 0.5]);
        let mut window = LatencyWindow::new(&settings, at(0));
        for ms in 1..=1000 {
            window.record(Duration::from_millis(ms), at(1));
        }
        let (count, nanos) = of(&window, &settings, at(1));
        assert_eq!(count, 1000);
        for (found, ms) in nanos.iter().zip([1000.0, 990.0, 500.0]) {
            let wanted = ms * 1e6;
            assert!((found - wanted).abs() <= 0.011 * wanted, "{found} instead of {wanted}");
        }
    }

    #[test]
    fn latencies_of_all_sizes_fit() {
        let settings = settings(&[1.0, 0.01]);
        let mut window = LatencyWindow::new(&settings, at(0));
        for latency in [
            Duration::ZERO,
            Duration::from_micros(1),
            Duration::from_secs(100 * 86_400),
        ] {
            window.record(latency, at(0));
        }
        let (count, nanos) = of(&window, &settings, at(0));
        assert_eq!((count, nanos[1]), (3, 0.0));
        assert!((nanos[0] / 8.64e15 - 1.0).abs() < 0.011, "{}", nanos[0]);
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let settings = settings(&[1.0]);
        let mut window = LatencyWindow::new(&settings, at(0));
        window.record(Duration::from_secs(9), at(1));
        window.record(Duration::from_secs(2), at(6));
        assert_eq!(of(&window, &settings, at(6)).0, 2, "the first is in the half before");
        assert_eq!(of(&window, &settings, at(11)).0, 2);
        // Nothing happens, and it is forgotten all the same.
        let (count, nanos) = of(&window, &settings, at(12));
        assert_eq!((count, nanos), (1, vec![2e9]));
        assert_eq!(of(&window, &settings, at(17)), (0, vec![0.0]));
        window.record(Duration::from_secs(1), at(40));
        assert_eq!(
            of(&window, &settings, at(40)),
            (1, vec![1e9]),
            "nothing of long ago comes back"
        );
    }

    #[test]
    fn a_topic_is_all_its_channels() {
        let settings = settings(&[1.0]);
        let mut one = LatencyWindow::new(&settings, at(0));
        let mut other = LatencyWindow::new(&settings, at(0));
        one.record(Duration::from_secs(1), at(0));
        other.record(Duration::from_secs(3), at(0));
        let both = summary(&settings, [&one, &other], at(1));
        assert_eq!((both.count, both.percentiles[0].nanos), (2, 3e9));
    }

    #[test]
    fn quantiles_are_shares() {
        assert!(Quantile::new(1.0).is_some() && Quantile::new(0.001).is_some());
        assert!(
            [0.0, -0.1, 1.1, f64::NAN]
                .iter()
                .all(|share| Quantile::new(*share).is_none())
        );
    }
}
