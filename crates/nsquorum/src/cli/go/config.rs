//! The configuration file.

use toml::Table;

use super::values::plain;
use super::{End, Flag, Given};

/// Takes from the file what the command line has not given. Keys that nobody knows are ignored.
pub(super) fn apply(path: &str, flags: &mut [Flag<'_>], given: &mut Given) -> Result<(), End> {
    let failed = |reason: &str| End::Fatal(format!("failed to load config file {path} - {reason}"));
    let text = std::fs::read_to_string(path).map_err(|error| failed(&format!("open {path}: {error}")))?;
    let table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| failed(error.to_string().trim_end()))?;
    for flag in flags {
        let Some((key, value)) = flag.key.as_ref().and_then(|key| table.get_key_value(key)) else {
            continue;
        };
        if !flag.value.is_sound(value) {
            return Err(End::Fatal(format!("failed parsing {key} {}", plain(value))));
        }
        if given.has(flag.name) {
            continue;
        }
        let configured = flag.value.configure(value);
        configured.map_err(|reason| failed(&format!("{key} = {value}: {reason}")))?;
        given.add(flag.name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::duration::GoDuration;
    use crate::cli::go::Percentiles;
    use crate::cli::logging::LogLevel;

    #[derive(Debug, PartialEq)]
    struct Values {
        on: bool,
        count: i64,
        wait: GoDuration,
        name: String,
        hosts: Vec<String>,
        shares: Percentiles,
        level: LogLevel,
    }

    fn defaults() -> Values {
        Values {
            on: true,
            count: 3,
            wait: GoDuration::from_millis(1),
            name: "n".to_owned(),
            hosts: Vec::new(),
            shares: Percentiles::default(),
            level: LogLevel::Warn,
        }
    }

    /// What the values are with this in the file and these on the command line.
    fn read(text: &str, given: &[&'static str]) -> Result<(Values, Given), End> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        std::fs::write(&path, text).unwrap();
        let mut values = defaults();
        let mut flags = [
            Flag::new("on", &mut values.on, ""),
            Flag::new("count", &mut values.count, ""),
            Flag::new("how-long", &mut values.wait, ""),
            Flag::new("name", &mut values.name, "").key("id"),
            Flag::new("host", &mut values.hosts, "").key("hosts"),
            Flag::new("share", &mut values.shares, "").key("shares"),
            Flag::new("level", &mut values.level, ""),
        ];
        let mut all = Given::default();
        given.iter().for_each(|name| all.add(name));
        apply(path.to_str().unwrap(), &mut flags, &mut all)?;
        Ok((values, all))
    }

    fn values(text: &str) -> Values {
        read(text, &[]).expect(text).0
    }

    #[test]
    fn every_kind_is_taken_as_stock_programs_take_it() {
        let text = "on = false\ncount = 7\nhow_long = \"2s\"\nid = \"me\"\nhosts = [\"a\", \"b\"]\nshares = [1.0, 0.5]\nlevel = \"Debug\"\nunknown = 1\n[table]\non = 3";
        let expected = Values {
            on: false,
            count: 7,
            wait: GoDuration::from_millis(2_000),
            name: "me".to_owned(),
            hosts: vec!["a".to_owned(), "b".to_owned()],
            shares: Percentiles(vec![1.0, 0.5]),
            level: LogLevel::Debug,
        };
        assert_eq!(values(text), expected);
        assert_eq!(values("hosts = \"a,b\"").hosts, ["a", "b"]);
        assert_eq!(values("shares = \"0.5, 1\"").shares.0, [0.5, 1.0]);
        assert_eq!(values("count = \"12\"").count, 12);
        assert!(!values("on = \"F\"").on);
        // Numbers are milliseconds here, and 0 is true.
        assert_eq!(values("how_long = 60").wait, GoDuration::from_millis(60));
        assert!(!values("on = 1").on && values("on = 0").on);
        assert_eq!(
            values("name = \"by flag\"\nhow-long = 1"),
            defaults(),
            "keys are not flags"
        );
    }

    #[test]
    fn the_command_line_goes_before_it() {
        let (values, given) = read("count = 7\nid = \"me\"", &["count"]).unwrap();
        assert_eq!((values.count, values.name.as_str()), (3, "me"));
        assert!(given.has("count") && given.has("name") && !given.has("on"));
    }

    #[test]
    fn what_cannot_be_is_fatal() {
        for text in [
            "count =",
            "count = \"x\"",
            "count = 2.5",
            "on = \"maybe\"",
            "on = 2.5",
            "how_long = \"60\"",
            "how_long = 1.5",
            "how_long = true",
            "id = 5",
            "hosts = [1]",
            "shares = \"0.5, x\"",
            "level = \"loud\"",
        ] {
            assert!(matches!(read(text, &[]), Err(End::Fatal(_))), "{text}");
        }
        let loud = read("level = \"loud\"", &["level"]);
        assert_eq!(loud, Err(End::Fatal("failed parsing level loud".to_owned())));
        assert!(read("count = \"x\"", &["count"]).is_ok(), "nobody looks");
    }
}
