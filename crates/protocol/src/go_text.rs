//! Where Go's JSON decoder takes more texts than serde's.

use std::borrow::Cow;

/// A JSON text in which escapes that are half of a surrogate pair are escapes of the replacement character, which is how Go reads them.
pub(crate) fn replace_lone_surrogates(json: Cow<'_, str>) -> Cow<'_, str> {
    if !json.contains("\\u") {
        return json;
    }
    // Backslashes stand only in texts; elsewhere they make the JSON invalid before and after.
    let mut replaced = json.into_owned().into_bytes();
    let mut at = 0;
    while at < replaced.len() {
        at += match (replaced[at], escape(&replaced[at..])) {
            (_, Some(0xd800..=0xdbff)) if matches!(escape(&replaced[at + 6..]), Some(0xdc00..=0xdfff)) => 12,
            (_, Some(0xd800..=0xdfff)) => {
                replaced[at + 2..at + 6].copy_from_slice(b"fffd");
                6
            }
            (b'\\', _) => 2,
            _ => 1,
        };
    }
    Cow::Owned(String::from_utf8(replaced).expect("ASCII was replaced by ASCII"))
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
