//! Figures of a campaign.

use std::time::Duration;

/// The time below which this part of them lies (nearest rank); zero if there are none.
#[must_use]
pub fn quantile(times: &[Duration], part: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// In one line, for the proof: count, median, 99th percentile and the longest.
#[must_use]
pub fn figure(what: &str, times: &[Duration]) -> String {
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| quantile(times, part).as_millis());
    format!(
        "figure: {what}: {} times, p50 {p50} ms, p99 {p99} ms, max {max} ms",
        times.len()
    )
}
