//! Amounts of bytes: a number, or one with `KiB`, `MiB`, `GiB`.

/// Parses an amount of bytes.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let unit = units
        .iter()
        .find_map(|(name, shift)| text.strip_suffix(name).map(|number| (number, *shift)));
    let (number, shift) = unit.unwrap_or((text, 0));
    let number = number.trim().parse::<u64>().ok();
    let bytes = number.and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| format!("{text:?} is not an amount of bytes such as 1048576 or 256MiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_numbers_and_binary_units() {
        assert_eq!(parse("1048576"), Ok(1 << 20));
        assert_eq!(parse("4KiB"), Ok(4096));
        assert_eq!(parse("256MiB"), Ok(256 << 20));
        assert_eq!(parse("1GiB"), Ok(1 << 30));
        for text in ["", "MiB", "-1", "1MB", "1.5GiB", "99999999999GiB"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
