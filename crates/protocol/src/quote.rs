//! Quoting as Go's `%q` does.

use std::fmt::Write as _;

/// Quotes bytes as Go's `%q` quotes a string: nsqd puts refused names into its errors that way, and clients compare
/// those texts.
///
/// Printable characters stay, `"` and `\` get a backslash, bytes that are not UTF-8 become `\xff`, control characters
/// their letter (`\n`) or `\x1b`, other unprintable characters `\u200b` or `\U000e0001`. What is printable follows
/// this build's Unicode version, which may know more characters than a given nsqd's.
pub fn go_quote(bytes: &[u8]) -> String {
    let mut quoted = String::with_capacity(bytes.len() + 2);
    quoted.push('"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            push_character(&mut quoted, character);
        }
        for byte in chunk.invalid() {
            push_formatted(&mut quoted, format_args!("\\x{byte:02x}"));
        }
    }
    quoted.push('"');
    quoted
}

fn push_character(quoted: &mut String, character: char) {
    match character {
        '"' => quoted.push_str("\\\""),
        '\\' => quoted.push_str("\\\\"),
        '\x07' => quoted.push_str("\\a"),
        '\x08' => quoted.push_str("\\b"),
        '\x0c' => quoted.push_str("\\f"),
        '\n' => quoted.push_str("\\n"),
        '\r' => quoted.push_str("\\r"),
        '\t' => quoted.push_str("\\t"),
        '\x0b' => quoted.push_str("\\v"),
        _ if is_printable(character) => quoted.push(character),
        '\0'..='\x7f' => push_formatted(quoted, format_args!("\\x{:02x}", character as u32)),
        '\u{80}'..='\u{ffff}' => push_formatted(quoted, format_args!("\\u{:04x}", character as u32)),
        _ => push_formatted(quoted, format_args!("\\U{:08x}", character as u32)),
    }
}

fn push_formatted(quoted: &mut String, text: std::fmt::Arguments<'_>) {
    quoted.write_fmt(text).expect("writing to a String cannot fail");
}

/// The standard library has the same table of printable characters as Go but shows it only through `escape_debug`,
/// which also escapes a combining character at the start of a text; hence the letter in front.
fn is_printable(character: char) -> bool {
    if character.is_ascii() {
        return matches!(character, ' '..='~');
    }
    let mut text = String::from("x");
    text.push(character);
    text.escape_debug().nth(1) == Some(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The right-hand sides were printed by Go's `fmt.Printf("%q")`.
    #[test]
    fn quotes_like_go() {
        let table: &[(&[u8], &str)] = &[
            (b"", r#""""#),
            (b"t$", r#""t$""#),
            (b"a b'c", r#""a b'c""#),
            (b"a\"b\\c", r#""a\"b\\c""#),
            (b"\x07\x08\x0c\n\r\t\x0b", r#""\a\b\f\n\r\t\v""#),
            (b"\x00\x1b\x7f", r#""\x00\x1b\x7f""#),
            (b"\xff\xfe", r#""\xff\xfe""#),
            (b"a\xe2\x82z", r#""a\xe2\x82z""#),
            (b"\xed\xa0\x80", r#""\xed\xa0\x80""#),
            (b"\xc0\xaf", r#""\xc0\xaf""#),
            ("Zürich 日本 😀".as_bytes(), "\"Zürich 日本 😀\""),
            ("e\u{301}".as_bytes(), "\"e\u{301}\""),
            ("\u{301}".as_bytes(), "\"\u{301}\""),
            (
                "\u{a0}\u{200b}\u{2028}\u{feff}".as_bytes(),
                r#""\u00a0\u200b\u2028\ufeff""#,
            ),
            ("\u{85}\u{ad}".as_bytes(), r#""\u0085\u00ad""#),
            ("\u{fffd}".as_bytes(), "\"\u{fffd}\""),
            ("\u{e0001}\u{f0000}".as_bytes(), r#""\U000e0001\U000f0000""#),
        ];
        for (bytes, quoted) in table {
            assert_eq!(go_quote(bytes), *quoted, "{bytes:?}");
        }
    }
}
