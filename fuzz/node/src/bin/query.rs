//! Query strings, beside a second reading of Go's rules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nsquorum_fuzz_parsers::bounded;
use nsquorum_http::Query;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // Two bytes are a pair already (`a&`): 48 bytes of the list, three times that while it grows, and a byte of its own for each name.
    let query = bounded(80 * text.len() + 1024, || Query::parse(Some(text)));
    let model: Option<Vec<_>> = text.split('&').filter(|part| !part.is_empty()).map(pair).collect();
    let (Ok(query), Some(pairs)) = (&query, &model) else {
        assert_eq!(query.is_ok(), model.is_some(), "one of two readings refuses it");
        return;
    };
    for (at, (name, value)) in pairs.iter().enumerate() {
        let Ok(name) = str::from_utf8(name) else {
            continue;
        };
        if pairs[..at].iter().any(|(earlier, _)| earlier == name.as_bytes()) {
            continue;
        }
        assert_eq!(query.get(name), Some(value.as_slice()));
        assert_eq!(query.non_empty(name).is_some(), !value.is_empty());
        assert_eq!(query.boolean(name), Some(!matches!(value.as_slice(), b"0" | b"false")));
    }
});

fn pair(part: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    if part.contains(';') {
        return None;
    }
    let at = part.find('=').unwrap_or(part.len());
    Some((
        unescaped(&part[..at])?,
        unescaped(part.get(at + 1..).unwrap_or_default())?,
    ))
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut out) = (text.bytes(), Vec::new());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            other => other,
        });
    }
    Some(out)
}
