//! Query strings, parsed as Go does it.

use percent_encoding::percent_decode;

/// The query string breaks the rules (a `;`, or a `%` without two hex digits). nsqd answers `INVALID_REQUEST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the query string is malformed")]
pub struct InvalidQuery;

/// The parameters of a request. They come from the query string only, never from a form body; of several values for one name the
/// first counts. Values are bytes, because nothing forces them to be UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(Vec<u8>, Vec<u8>)>);

impl Query {
    /// Parses what stands behind the `?` (`None`: there is no `?`).
    pub fn parse(query: Option<&str>) -> Result<Self, InvalidQuery> {
        let mut pairs = Vec::new();
        for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            if part.contains(';') {
                return Err(InvalidQuery);
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            pairs.push((unescape(name)?, unescape(value)?));
        }
        Ok(Self(pairs))
    }

    /// The first value of a parameter; empty if it was given without one.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0
            .iter()
            .find(|(key, _)| key == name.as_bytes())
            .map(|(_, value)| value.as_slice())
    }

    /// As [`get`](Self::get), where an empty value counts as none: Go's `Get` followed by a check for "".
    pub fn non_empty(&self, name: &str) -> Option<&[u8]> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// nsqd's boolean parameters: `true` and `1`, `false` and `0`; any other value means true. `None` if it is not given.
    pub fn boolean(&self, name: &str) -> Option<bool> {
        self.get(name).map(|value| !matches!(value, b"false" | b"0"))
    }
}

fn unescape(text: &str) -> Result<Vec<u8>, InvalidQuery> {
    let bytes = text.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    if bytes
        .iter()
        .enumerate()
        .any(|(at, byte)| *byte == b'%' && !(is_digit(at + 1) && is_digit(at + 2)))
    {
        return Err(InvalidQuery);
    }
    let spaced: Vec<u8> = bytes
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    Ok(percent_decode(&spaced).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_unescaped_and_the_first_counts() {
        let query = Query::parse(Some("topic=a%23b+c&topic=second&empty&x=%FF&&k=1=2")).unwrap();
        assert_eq!(query.get("topic"), Some(&b"a#b c"[..]));
        assert_eq!(query.get("empty"), Some(&b""[..]));
        assert_eq!(query.non_empty("empty"), None);
        assert_eq!(query.get("x"), Some(&b"\xff"[..]));
        assert_eq!(query.get("k"), Some(&b"1=2"[..]));
        assert_eq!(query.get("absent"), None);
        assert_eq!(Query::parse(None), Ok(Query::default()));
    }

    #[test]
    fn malformed_queries_are_refused() {
        for query in ["a=%", "a=%4", "a=%zz", "a;b", "%=1"] {
            assert_eq!(Query::parse(Some(query)), Err(InvalidQuery), "{query}");
        }
    }

    #[test]
    fn booleans_are_true_unless_they_say_false() {
        let query = Query::parse(Some("a=true&b=1&c=false&d=0&e=maybe&f")).unwrap();
        let values = ["a", "b", "c", "d", "e", "f", "g"].map(|name| query.boolean(name));
        assert_eq!(
            values,
            [
                Some(true),
                Some(true),
                Some(false),
                Some(false),
                Some(true),
                Some(true),
                None
            ]
        );
    }
}
