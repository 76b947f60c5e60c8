//! Writing JSON text piece by piece.
//!
//! A report may list millions of messages; a tree of values would need a hundred times their size.

use std::fmt::Write;

/// An object being written.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    out: &'a mut String,
    is_empty: bool,
}

/// Writes one object.
pub(crate) fn object(out: &mut String, fill: impl FnOnce(&mut Object<'_>)) {
    out.push('{');
    fill(&mut Object { out, is_empty: true });
    out.push('}');
}

impl Object<'_> {
    fn key(&mut self, key: &str) {
        if !self.is_empty {
            self.out.push(',');
        }
        self.is_empty = false;
        push_text(self.out, key);
        self.out.push(':');
    }

    pub(crate) fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        let _ = write!(self.out, "{value}");
    }

    pub(crate) fn flag(&mut self, key: &str, value: bool) {
        self.key(key);
        self.out.push_str(if value { "true" } else { "false" });
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        push_text(self.out, value);
    }

    pub(crate) fn null(&mut self, key: &str) {
        self.key(key);
        self.out.push_str("null");
    }

    pub(crate) fn object(&mut self, key: &str, fill: impl FnOnce(&mut Object<'_>)) {
        self.key(key);
        object(self.out, fill);
    }

    /// A list of objects.
    pub(crate) fn objects<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        mut fill: impl FnMut(&mut Object<'_>, T),
    ) {
        self.list(key, items, |out, item| object(out, |o| fill(o, item)));
    }

    /// A list of lists of numbers.
    pub(crate) fn tuples<const N: usize>(&mut self, key: &str, items: impl IntoIterator<Item = [u64; N]>) {
        self.list(key, items, |out, item| {
            out.push('[');
            for (at, number) in item.iter().enumerate() {
                let _ = write!(out, "{}{number}", if at == 0 { "" } else { "," });
            }
            out.push(']');
        });
    }

    fn list<T>(&mut self, key: &str, items: impl IntoIterator<Item = T>, mut one: impl FnMut(&mut String, T)) {
        self.key(key);
        self.out.push('[');
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            one(self.out, item);
        }
        self.out.push(']');
    }
}

fn push_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut out = String::new();
        object(&mut out, |o| {
            o.number("number", u64::MAX);
            o.text("te\"xt", "a\\b\n\u{1}é");
            o.null("nothing");
            o.flag("yes", true);
            o.objects("objects", [1, 2], |o, n| o.number("n", n));
            o.tuples("tuples", [[1, 2], [3, 4]]);
            o.object("empty", |_| {});
        });
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            value,
            serde_json::json!({
                "number": u64::MAX, "te\"xt": "a\\b\n\u{1}é", "nothing": null, "yes": true,
                "objects": [{"n": 1}, {"n": 2}], "tuples": [[1, 2], [3, 4]], "empty": {}
            })
        );
    }
}
