//! Durations as Go writes them: `60s`, `1m30s`, `250ms`, `1.5h`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Units in nanoseconds.
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A duration as Go has it: nanoseconds with a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GoDuration(i64);

/// The text is no duration, or none of at most 292 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotADuration;

impl GoDuration {
    /// So many milliseconds.
    pub(crate) const fn from_millis(milliseconds: i64) -> Self {
        Self(milliseconds.saturating_mul(1_000_000))
    }

    /// Without its sign, if it has none.
    pub(crate) fn unsigned(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_nanos)
    }
}

impl FromStr for GoDuration {
    type Err = NotADuration;

    /// A number without a unit is refused (only 0 needs none).
    fn from_str(text: &str) -> Result<Self, NotADuration> {
        let (sign, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(NotADuration);
        }
        let mut nanos: i128 = 0;
        while !rest.is_empty() {
            let (part, behind) = one_part(rest).ok_or(NotADuration)?;
            nanos += part;
            if nanos > i128::from(i64::MAX) {
                return Err(NotADuration);
            }
            rest = behind;
        }
        i64::try_from(sign * nanos).map(Self).map_err(|_| NotADuration)
    }
}

/// One number with its unit, in nanoseconds, and what stands behind it.
fn one_part(text: &str) -> Option<(i128, &str)> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), digits);
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let unit_length = rest
        .find(|c: char| c == '.' || c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_length);
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse::<u64>().ok()?.into()
    };
    // An hour has fewer than 10^13 nanoseconds: digits behind these change nothing.
    let shown = &fraction[..fraction.len().min(15)];
    let scale = 10_i128.pow(u32::try_from(shown.len()).ok()?);
    let fraction: i128 = if shown.is_empty() { 0 } else { shown.parse().ok()? };
    Some((whole * unit + fraction * unit / scale, rest))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

impl fmt::Display for GoDuration {
    /// As Go prints it: `1m0s`, `250ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{sign}{nanos}ns"),
            1_000..1_000_000 => write!(f, "{sign}{}µs", decimal(nanos, 1_000)),
            1_000_000..1_000_000_000 => write!(f, "{sign}{}ms", decimal(nanos, 1_000_000)),
            _ => {
                let minutes = nanos / 60_000_000_000;
                let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000);
                match (minutes / 60, minutes % 60) {
                    (0, 0) => write!(f, "{sign}{seconds}s"),
                    (0, minutes) => write!(f, "{sign}{minutes}m{seconds}s"),
                    (hours, minutes) => write!(f, "{sign}{hours}h{minutes}m{seconds}s"),
                }
            }
        }
    }
}

/// `nanos` in units of so many, without zeros at the end.
fn decimal(nanos: u64, unit: u64) -> String {
    let places = unit.ilog10() as usize;
    let text = format!("{}.{:0places$}", nanos / unit, nanos % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Parses a duration that is not negative.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let duration = text.parse().ok().and_then(GoDuration::unsigned);
    duration.ok_or_else(|| format!("{text:?} is not a duration such as 60s, 1m30s or 250ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_forms_are_read() {
        for (text, ms) in [
            ("0", 0),
            ("60s", 60_000),
            ("1m30s", 90_000),
            ("250ms", 250),
            ("1.5h", 5_400_000),
            ("2h0m1s", 7_201_000),
            ("+5s", 5_000),
            (".5s", 500),
            ("5.s", 5_000),
            ("-0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse("15us"), Ok(Duration::from_micros(15)));
        assert_eq!(parse("0.000000001s"), Ok(Duration::from_nanos(1)));
        assert_eq!("-1.5s".parse(), Ok(GoDuration::from_millis(-1_500)));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "60",
            "s",
            ".s",
            "-1s",
            "1x",
            "1s2",
            "1 s",
            "1.2.3s",
            "--1s",
            "9999999999999999999999h",
            "2562048h",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn printed_as_go_prints_them() {
        for text in [
            "0s",
            "1ns",
            "1.5µs",
            "250ms",
            "2.5ms",
            "1s",
            "1.05s",
            "1m0s",
            "10m0s",
            "1h0m0s",
            "168h0m0.5s",
            "-1m30s",
        ] {
            assert_eq!(text.parse::<GoDuration>().unwrap().to_string(), text);
        }
    }
}
