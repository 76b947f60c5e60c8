//! Times as Go prints them.

use std::time::Duration;

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// `1h2m3.5s`, `1.25ms`, `0s`: what Go's `Duration` prints.
pub(super) fn duration(duration: Duration) -> String {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanos, 1_000)),
        1_000_000..NANOS_PER_SEC => format!("{}ms", decimal(nanos, 1_000_000)),
        _ => {
            let minutes = nanos / (60 * NANOS_PER_SEC);
            let seconds = decimal(nanos % (60 * NANOS_PER_SEC), NANOS_PER_SEC);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `value / unit` with as many digits behind the point as it has. `unit` is a power of ten.
fn decimal(value: u64, unit: u64) -> String {
    let digits = unit.ilog10() as usize;
    let text = format!("{}.{:0digits$}", value / unit, value % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Nanoseconds with one digit behind the point and the unit that nsqd takes for latencies: `1.5ms`.
pub(super) fn latency(nanos: f64) -> String {
    let (divisor, unit) = match nanos {
        nanos if nanos > 1e9 => (1e9, "s"),
        nanos if nanos > 1e6 => (1e6, "ms"),
        nanos if nanos > 1e3 => (1e3, "us"),
        _ => (1.0, "ns"),
    };
    format!("{:.1}{unit}", nanos / divisor)
}

/// Seconds since 1970 as a UTC date (proleptic Gregorian calendar, counted in 400-year cycles that begin in March).
pub(super) fn rfc3339(secs: u64) -> String {
    let (days, rest) = (secs / 86_400, secs % 86_400);
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_330_965), "2026-11-22T07:02:45Z");
    }

    #[test]
    fn durations() {
        for (nanos, text) in [
            (0, "0s"),
            (999, "999ns"),
            (1_500, "1.5µs"),
            (250_000_000, "250ms"),
            (1_000_000_000, "1s"),
            (65_000_000_000, "1m5s"),
            (1_234_567_891, "1.234567891s"),
            (3_600_000_000_000, "1h0m0s"),
            (90_061_000_001_000, "25h1m1.000001s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn latencies() {
        let texts = [0.0, 1_000.0, 1_550.0, 2.5e6, 6.12e10].map(latency);
        assert_eq!(texts, ["0.0ns", "1000.0ns", "1.6us", "2.5ms", "61.2s"]);
    }
}
