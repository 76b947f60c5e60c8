//! Where Go's JSON decoder takes more texts than serde's.

use std::borrow::Cow;

/// A JSON text that serde reads as Go reads `body`:
/// - each byte that is not UTF-8 is a replacement character;
/// - escapes that are half of a surrogate pair are escapes of the replacement character;
/// - `-0` is the integer 0, which serde takes for a float.
pub(crate) fn as_go_reads(body: &[u8]) -> Cow<'_, str> {
    let json = repaired(body);
    if !json.contains("\\u") && !json.contains("-0") {
        return json;
    }
    // Backslashes stand only in texts; elsewhere they make the JSON invalid before and after.
    let mut replaced = json.into_owned().into_bytes();
    let (mut at, mut in_text) = (0, false);
    while at < replaced.len() {
        at += match (replaced[at], escape(&replaced[at..])) {
            (_, Some(0xd800..=0xdbff)) if matches!(escape(&replaced[at + 6..]), Some(0xdc00..=0xdfff)) => 12,
            (_, Some(0xd800..=0xdfff)) => {
                replaced[at + 2..at + 6].copy_from_slice(b"fffd");
                6
            }
            (b'\\', _) => 2,
            (b'"', _) => {
                in_text = !in_text;
                1
            }
            (b'-', _) if !in_text && is_minus_zero(&replaced, at) => {
                replaced[at] = b' ';
                2
            }
            _ => 1,
        };
    }
    Cow::Owned(String::from_utf8(replaced).expect("ASCII was replaced by ASCII"))
}

fn repaired(body: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(body) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(body.len());
    for chunk in body.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text)
}

/// Whether all of a number is `-0`: not a part of one, as in `1e-0` and `-0.5`.
fn is_minus_zero(json: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).map(|before| json[before]);
    json.get(at + 1) == Some(&b'0')
        && before.is_none_or(|byte| matches!(byte, b':' | b'[' | b',' | b' ' | b'\t' | b'\n' | b'\r'))
        && !matches!(json.get(at + 2), Some(b'0'..=b'9' | b'.' | b'e' | b'E'))
}

/// The value of a `\uXXXX` at the front.
fn escape(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    digits.iter().try_fold(0, |value, byte| Some(value * 16 + digit(byte)?))
}

/// A key in the spelling that all spellings of it share. Under Unicode's simple case folding two letters outside ASCII are letters of ours.
pub(crate) fn fold_key(key: &str) -> String {
    let fold = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    key.chars().map(fold).collect()
}
