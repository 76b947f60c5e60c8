//! Values of options: as they stand on a command line and in a TOML file.

use toml::Value;

use crate::cli::duration::GoDuration;
use crate::cli::session_args::parse_bool;

/// Why a value on the command line was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BadValue {
    /// It has the wrong form.
    Usage(String),
    /// It ends the program as if it stood in the file.
    Fatal(String),
}

/// What an option can hold.
pub(crate) trait GoValue {
    /// What stands for the value in the usage; `None` for booleans, which need none.
    fn placeholder(&self) -> Option<&'static str>;

    /// The present value in the usage; `None` if it means "nothing".
    fn default_text(&self) -> Option<String>;

    /// Takes what the command line says.
    fn set(&mut self, text: &str) -> Result<(), BadValue>;

    /// Takes what the file says; an error says what would be right.
    fn configure(&mut self, value: &Value) -> Result<(), String>;

    /// Whether the file may say this even if the command line goes before it. Stock programs look only at a few values then.
    fn is_sound(&self, _: &Value) -> bool {
        true
    }
}

/// What the file says, as Go prints it.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Takes the file's value as text for the command line, as stock programs do for the values that they check first.
pub(crate) fn configure_as_text(target: &mut impl GoValue, value: &Value) -> Result<(), String> {
    target.set(&plain(value)).map_err(|bad| match bad {
        BadValue::Usage(reason) | BadValue::Fatal(reason) => reason,
    })
}

fn parse_error() -> BadValue {
    BadValue::Usage("parse error".to_owned())
}

impl GoValue for bool {
    fn placeholder(&self) -> Option<&'static str> {
        None
    }

    fn default_text(&self) -> Option<String> {
        self.then(|| "true".to_owned())
    }

    fn set(&mut self, text: &str) -> Result<(), BadValue> {
        *self = parse_bool(text).map_err(|_| parse_error())?;
        Ok(())
    }

    fn configure(&mut self, value: &Value) -> Result<(), String> {
        *self = match value {
            Value::Boolean(value) => *value,
            Value::String(text) => parse_bool(text)?,
            // The wrong way round, but so it is in stock programs, and files with it work as their owners have seen.
            Value::Integer(number) => *number == 0,
            _ => return Err("not a boolean".to_owned()),
        };
        Ok(())
    }
}

impl GoValue for i64 {
    fn placeholder(&self) -> Option<&'static str> {
        Some("int")
    }

    fn default_text(&self) -> Option<String> {
        (*self != 0).then(|| self.to_string())
    }

    fn set(&mut self, text: &str) -> Result<(), BadValue> {
        *self = parse_int(text)?;
        Ok(())
    }

    fn configure(&mut self, value: &Value) -> Result<(), String> {
        *self = match value {
            Value::Integer(value) => *value,
            Value::String(text) => text.parse().map_err(|_| format!("{text:?} is not a whole number"))?,
            _ => return Err("not a whole number".to_owned()),
        };
        Ok(())
    }
}

/// An integer as Go writes it in a program: with a sign, a base (`0x`, `0o`, `0b`, or `0` for octal) and `_` between digits.
fn parse_int(text: &str) -> Result<i64, BadValue> {
    let (sign, digits) = match text.as_bytes() {
        [b'-', ..] => ("-", &text[1..]),
        [b'+', ..] => ("", &text[1..]),
        _ => ("", text),
    };
    let lower = digits.to_ascii_lowercase();
    let bases = [("0x", 16), ("0o", 8), ("0b", 2), ("0", 8)];
    let based = bases
        .iter()
        .find_map(|(prefix, radix)| lower.strip_prefix(prefix).map(|rest| (rest, *radix)));
    let (digits, radix) = match based {
        // The zero is a digit itself.
        Some(("", 8)) if lower == "0" => ("0", 10),
        Some((rest, radix)) => (rest.strip_prefix('_').unwrap_or(rest), radix),
        None => (lower.as_str(), 10),
    };
    let is_digit = |c: char| c.is_digit(radix);
    let well_formed = digits
        .split('_')
        .all(|group| !group.is_empty() && group.chars().all(is_digit));
    if !well_formed {
        return Err(parse_error());
    }
    let number = format!("{sign}{}", digits.replace('_', ""));
    i64::from_str_radix(&number, radix).map_err(|_| BadValue::Usage("value out of range".to_owned()))
}

impl GoValue for GoDuration {
    fn placeholder(&self) -> Option<&'static str> {
        Some("duration")
    }

    fn default_text(&self) -> Option<String> {
        (*self != Self::from_millis(0)).then(|| self.to_string())
    }

    fn set(&mut self, text: &str) -> Result<(), BadValue> {
        *self = text.parse().map_err(|_| parse_error())?;
        Ok(())
    }

    fn configure(&mut self, value: &Value) -> Result<(), String> {
        *self = match value {
            // A number without a unit is of milliseconds here, and refused on the command line.
            Value::Integer(milliseconds) => Self::from_millis(*milliseconds),
            Value::String(text) => text
                .parse()
                .map_err(|_| format!("{text:?} is not a duration such as \"60s\""))?,
            _ => return Err("not a duration such as \"60s\"".to_owned()),
        };
        Ok(())
    }
}

impl GoValue for String {
    fn placeholder(&self) -> Option<&'static str> {
        Some("string")
    }

    fn default_text(&self) -> Option<String> {
        (!self.is_empty()).then(|| format!("{self:?}"))
    }

    fn set(&mut self, text: &str) -> Result<(), BadValue> {
        text.clone_into(self);
        Ok(())
    }

    fn configure(&mut self, value: &Value) -> Result<(), String> {
        match value {
            Value::String(text) => text.clone_into(self),
            _ => return Err("not a text".to_owned()),
        }
        Ok(())
    }
}

impl GoValue for Vec<String> {
    fn placeholder(&self) -> Option<&'static str> {
        Some("value")
    }

    fn default_text(&self) -> Option<String> {
        None
    }

    fn set(&mut self, text: &str) -> Result<(), BadValue> {
        self.push(text.to_owned());
        Ok(())
    }

    fn configure(&mut self, value: &Value) -> Result<(), String> {
        let texts: Option<Vec<String>> = match value {
            Value::String(text) => Some(text.split(',').map(str::to_owned).collect()),
            Value::Array(values) => values.iter().map(|value| value.as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        *self = texts.ok_or("not a list of texts")?;
        Ok(())
    }
}

/// Shares of messages, each above 0 and at most 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Percentiles(pub(crate) Vec<f64>);

impl GoValue for Percentiles {
    fn placeholder(&self) -> Option<&'static str> {
        Some("value")
    }

    fn default_text(&self) -> Option<String> {
        None
    }

    fn set(&mut self, text: &str) -> Result<(), BadValue> {
        for part in text.split(',') {
            let number = part.parse();
            self.0
                .push(number.map_err(|_| BadValue::Fatal(format!("Could not parse: {part}")))?);
        }
        self.0.sort_by(|one, other| other.total_cmp(one));
        Ok(())
    }

    fn configure(&mut self, value: &Value) -> Result<(), String> {
        let numbers: Option<Vec<f64>> = match value {
            Value::String(text) => text.split(',').map(|part| part.trim().parse().ok()).collect(),
            Value::Array(values) => values
                .iter()
                .map(|value| match value {
                    Value::Float(number) => Some(*number),
                    Value::String(text) => text.trim().parse().ok(),
                    // Stock nsqd fails on a 1 without a point.
                    Value::Integer(1) => Some(1.0),
                    _ => None,
                })
                .collect(),
            _ => None,
        };
        self.0 = numbers.ok_or("not a list of numbers")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_in_go_programs() {
        for (text, number) in [
            ("0", 0),
            ("-0", 0),
            ("+5", 5),
            ("-17", -17),
            ("010", 8),
            ("0o10", 8),
            ("0x1F", 31),
            ("0b101", 5),
            ("1_000", 1000),
            ("0x_ff", 255),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(parse_int(text), Ok(number), "{text}");
        }
        for text in [
            "", "-", "0x", "09", "1__0", "_1", "1_", "1.0", "1e3", "--1", "+-1", " 1",
        ] {
            assert_eq!(parse_int(text), Err(parse_error()), "{text}");
        }
        assert!(matches!(parse_int("9223372036854775808"), Err(BadValue::Usage(text)) if text == "value out of range"));
    }

    #[test]
    fn percentiles_are_sorted_and_a_bad_one_is_fatal() {
        let mut percentiles = Percentiles::default();
        percentiles.set("0.5,1").unwrap();
        percentiles.set("0.99").unwrap();
        assert_eq!(percentiles.0, [1.0, 0.99, 0.5]);
        let bad = percentiles.set("0.9,x").unwrap_err();
        assert_eq!(bad, BadValue::Fatal("Could not parse: x".to_owned()));
    }
}
