//! Go's `flag` package: how a command line is read, and the usage.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;

use super::{BadValue, End, GoValue};

/// An option: its names, its meaning and where its value goes.
pub(crate) struct Flag<'a> {
    /// On the command line, without dashes.
    pub(super) name: &'static str,
    /// In the file; `None` for one that cannot stand there.
    pub(super) key: Option<String>,
    pub(super) value: &'a mut dyn GoValue,
    usage: &'static str,
    default: Option<String>,
}

impl<'a> Flag<'a> {
    /// One whose value is the default now.
    pub(crate) fn new(name: &'static str, value: &'a mut dyn GoValue, usage: &'static str) -> Self {
        Self {
            name,
            key: Some(name.replace('-', "_")),
            default: value.default_text(),
            value,
            usage,
        }
    }

    /// With a key of its own in the file.
    pub(crate) fn key(self, key: &str) -> Self {
        Self {
            key: Some(key.to_owned()),
            ..self
        }
    }

    /// Without a key in the file.
    pub(crate) fn on_the_command_line_only(self) -> Self {
        Self { key: None, ..self }
    }
}

/// Names of the options that were given, on the command line or in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given(BTreeSet<&'static str>);

impl Given {
    /// Whether this one was.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    pub(super) fn add(&mut self, name: &'static str) {
        self.0.insert(name);
    }
}

/// Reads a command line. `-x` is `--x`; the first argument that is no flag ends it, and what stands behind is ignored.
pub(super) fn parse(
    program: &str,
    flags: &mut [Flag<'_>],
    arguments: impl Iterator<Item = OsString>,
) -> Result<Given, End> {
    let usage = usage(program, flags);
    let wrong = |complaint: String| End::Usage(format!("{complaint}\n{usage}"));
    let mut arguments = arguments.map(|argument| {
        let not_text = |argument: OsString| wrong(format!("argument {argument:?} is not UTF-8"));
        argument.into_string().map_err(not_text)
    });
    let mut given = Given::default();
    while let Some(argument) = arguments.next() {
        let argument = argument?;
        let name = match argument.strip_prefix('-') {
            None | Some("" | "-") => break,
            Some(name) => name.strip_prefix('-').unwrap_or(name),
        };
        if name.starts_with(['-', '=']) {
            return Err(wrong(format!("bad flag syntax: {argument}")));
        }
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let Some(flag) = flags.iter_mut().find(|flag| flag.name == name) else {
            return Err(match name {
                "help" | "h" => End::Help(usage.clone()),
                name => wrong(format!("flag provided but not defined: -{name}")),
            });
        };
        let is_bool = flag.value.placeholder().is_none();
        let value = match value {
            Some(value) => value,
            None if is_bool => "true".to_owned(),
            None => match arguments.next() {
                Some(value) => value?,
                None => return Err(wrong(format!("flag needs an argument: -{name}"))),
            },
        };
        flag.value.set(&value).map_err(|bad| match bad {
            BadValue::Usage(reason) if is_bool => {
                wrong(format!("invalid boolean value {value:?} for -{name}: {reason}"))
            }
            BadValue::Usage(reason) => wrong(format!("invalid value {value:?} for flag -{name}: {reason}")),
            BadValue::Fatal(text) => End::Fatal(text),
        })?;
        given.add(flag.name);
    }
    Ok(given)
}

fn usage(program: &str, flags: &[Flag<'_>]) -> String {
    let mut sorted: Vec<_> = flags.iter().collect();
    sorted.sort_by_key(|flag| flag.name);
    let mut text = format!("Usage of {program}:\n");
    for flag in sorted {
        let placeholder = flag
            .value
            .placeholder()
            .map_or(String::new(), |name| format!(" {name}"));
        let default = flag
            .default
            .as_ref()
            .map_or(String::new(), |text| format!(" (default {text})"));
        // Writing to a string cannot fail.
        _ = writeln!(text, "  -{}{placeholder}\n    \t{}{default}", flag.name, flag.usage);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::duration::GoDuration;

    struct Values {
        on: bool,
        count: i64,
        name: String,
        hosts: Vec<String>,
        wait: GoDuration,
    }

    impl Values {
        fn new() -> Self {
            Self {
                on: false,
                count: 3,
                name: String::new(),
                hosts: Vec::new(),
                wait: GoDuration::from_millis(90_000),
            }
        }

        fn flags(&mut self) -> Vec<Flag<'_>> {
            vec![
                Flag::new("wait", &mut self.wait, "how long"),
                Flag::new("on", &mut self.on, "whether"),
                Flag::new("count", &mut self.count, "how many"),
                Flag::new("name", &mut self.name, "whose"),
                Flag::new("host", &mut self.hosts, "where"),
            ]
        }

        fn parse(&mut self, line: &[&str]) -> Result<Given, End> {
            parse("x", &mut self.flags(), line.iter().map(OsString::from))
        }
    }

    fn complaint(line: &[&str]) -> String {
        match Values::new().parse(line) {
            Err(End::Usage(text)) => text.lines().next().unwrap().to_owned(),
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn every_form_is_read() {
        for line in [
            ["-count=7", "-on", "-name", "n", "-wait=2s"],
            ["--count=7", "--on=T", "--name", "n", "--wait=2s"],
            ["--count=0x7", "-on=1", "-name=n", "", "--wait=2s"],
        ] {
            let line: Vec<_> = line.into_iter().filter(|argument| !argument.is_empty()).collect();
            let mut values = Values::new();
            values.parse(&line).unwrap();
            let wait = values.wait == GoDuration::from_millis(2_000);
            assert_eq!(
                (values.on, values.count, values.name.as_str(), wait),
                (true, 7, "n", true),
                "{line:?}"
            );
        }
    }

    #[test]
    fn a_boolean_takes_no_argument_and_the_first_that_is_no_flag_ends_the_line() {
        for end in ["false", "-", "--", "x"] {
            let mut values = Values::new();
            let given = values.parse(&["--on", end, "--count=9", "--nonsense"]).unwrap();
            assert_eq!((values.on, values.count), (true, 3), "{end}");
            assert!(given.has("on") && !given.has("count"));
        }
    }

    #[test]
    fn lists_grow_and_single_values_are_replaced() {
        let mut values = Values::new();
        let line = [
            "--host=a,b",
            "--host",
            "c",
            "--count=1",
            "--count=2",
            "--name",
            "-dash",
            "--name=k=v",
        ];
        values.parse(&line).unwrap();
        assert_eq!(values.hosts, ["a,b", "c"]);
        assert_eq!((values.count, values.name.as_str()), (2, "k=v"));
    }

    #[test]
    fn complaints_are_gos() {
        for (line, text) in [
            (&["--nope=3"][..], "flag provided but not defined: -nope"),
            (&["---on"], "bad flag syntax: ---on"),
            (&["-=x"], "bad flag syntax: -=x"),
            (&["--count"], "flag needs an argument: -count"),
            (&["--count=x"], r#"invalid value "x" for flag -count: parse error"#),
            (
                &["--count", "99999999999999999999"],
                r#"invalid value "99999999999999999999" for flag -count: value out of range"#,
            ),
            (&["--wait=60"], r#"invalid value "60" for flag -wait: parse error"#),
            (&["--on=yes"], r#"invalid boolean value "yes" for -on: parse error"#),
            (&["--on="], r#"invalid boolean value "" for -on: parse error"#),
        ] {
            assert_eq!(complaint(line), text);
        }
    }

    #[test]
    fn help_is_the_usage_with_the_defaults_and_not_what_was_given() {
        let Err(End::Help(text)) = Values::new().parse(&["--count=9", "--help"]) else {
            panic!("no help")
        };
        let expected = "Usage of x:\n  -count int\n    \thow many (default 3)\n  -host value\n    \twhere\n  -name string\n    \twhose\n  \
                        -on\n    \twhether\n  -wait duration\n    \thow long (default 1m30s)\n";
        assert_eq!(text, expected);
    }
}
