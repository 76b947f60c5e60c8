//! Durations as Go writes them: `60s`, `1m30s`, `250ms`, `1.5h`.

use std::time::Duration;

/// Units, the longer spellings first where one begins with another.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("μs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

/// Parses a duration that is not negative. A number without a unit is refused (only 0 needs none), as nsqd does.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let invalid = || format!("{text:?} is not a duration such as 60s, 1m30s or 250ms");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(invalid)?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let (name, unit) = UNITS
            .iter()
            .find(|(name, _)| rest.starts_with(name))
            .ok_or_else(invalid)?;
        rest = &rest[name.len()..];
        seconds += number * unit;
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid())
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
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse("15us"), Ok(Duration::from_micros(15)));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "60",
            "s",
            "-1s",
            "1x",
            "1s2",
            "1 s",
            "1.2.3s",
            "9999999999999999999999h",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
