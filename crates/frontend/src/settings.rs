//! The settings that a node runs with, as `/config` shows and changes them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

/// How much is logged. nsqd's levels; what is below the level is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Starts, stops, and what changes.
    Info,
    /// What may need attention.
    Warn,
    /// What needs it.
    Error,
    /// What ends the process.
    Fatal,
}

impl LogLevel {
    /// A level by its name; capitals do not matter.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let names = [
            ("debug", Self::Debug),
            ("info", Self::Info),
            ("warn", Self::Warn),
            ("error", Self::Error),
            ("fatal", Self::Fatal),
        ];
        let found = names.iter().find(|(of, _)| name.eq_ignore_ascii_case(of.as_bytes()));
        found.map(|(_, level)| *level)
    }

    /// nsqd's number for it, as `/config/log_level` shows it.
    const fn number(self) -> i64 {
        match self {
            Self::Debug => 1,
            Self::Info => 2,
            Self::Warn => 3,
            Self::Error => 4,
            Self::Fatal => 5,
        }
    }
}

/// The value of one setting.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// Shown without quotes.
    Text(String),
    /// A number, a size in bytes, or the number of a choice.
    Integer(i64),
    /// A switch.
    Boolean(bool),
    /// Shown in nanoseconds.
    Duration(Duration),
    /// A flag that may be repeated.
    Texts(Vec<String>),
    /// The same with numbers.
    Numbers(Vec<f64>),
}

/// The settings of a node under nsqd's names of its configuration file. Two can be changed while the node runs, as in nsqd: `log_level`
/// and `nsqlookupd_tcp_addresses`. Clones show and change the same.
#[derive(Clone)]
pub struct EffectiveSettings(Arc<Shared>);

struct Shared {
    fixed: BTreeMap<&'static str, Setting>,
    log_level: Mutex<LogLevel>,
    set_log_level: Box<dyn Fn(LogLevel) + Send + Sync>,
    lookupd_addresses: watch::Sender<Vec<String>>,
}

/// Why a setting was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// There is no such setting, or it cannot be changed while the node runs.
    #[error("INVALID_OPTION")]
    InvalidOption,
    /// The setting cannot have this value.
    #[error("INVALID_VALUE")]
    InvalidValue,
}

impl EffectiveSettings {
    /// `fixed` are the settings that cannot be changed. `set_log_level` is called for every new level before the change is answered; whoever
    /// registers the node with nsqlookupds watches `lookupd_addresses`.
    pub fn new(
        fixed: impl IntoIterator<Item = (&'static str, Setting)>,
        log_level: LogLevel,
        set_log_level: impl Fn(LogLevel) + Send + Sync + 'static,
        lookupd_addresses: watch::Sender<Vec<String>>,
    ) -> Self {
        Self(Arc::new(Shared {
            fixed: fixed.into_iter().collect(),
            log_level: Mutex::new(log_level),
            set_log_level: Box::new(set_log_level),
            lookupd_addresses,
        }))
    }

    /// The value of a setting.
    pub fn get(&self, name: &str) -> Option<Setting> {
        match name {
            "log_level" => Some(Setting::Integer(self.0.log_level.lock().number())),
            "nsqlookupd_tcp_addresses" => Some(Setting::Texts(self.0.lookupd_addresses.borrow().clone())),
            fixed => self.0.fixed.get(fixed).cloned(),
        }
    }

    /// Changes a setting.
    pub fn set(&self, name: &str, value: &[u8]) -> Result<(), SettingError> {
        match name {
            "log_level" => {
                let level = LogLevel::parse(value).ok_or(SettingError::InvalidValue)?;
                let mut current = self.0.log_level.lock();
                (self.0.set_log_level)(level);
                *current = level;
            }
            "nsqlookupd_tcp_addresses" => {
                // Go takes null for no list, and for an empty text in one.
                let addresses: Option<Vec<Option<String>>> =
                    serde_json::from_slice(value).map_err(|_| SettingError::InvalidValue)?;
                let addresses = addresses.unwrap_or_default().into_iter().map(Option::unwrap_or_default);
                self.0.lookupd_addresses.send_replace(addresses.collect());
            }
            _ => return Err(SettingError::InvalidOption),
        }
        Ok(())
    }
}

impl fmt::Debug for EffectiveSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EffectiveSettings")
            .field("fixed", &self.0.fixed)
            .finish_non_exhaustive()
    }
}

impl Setting {
    /// JSON as Go writes it; a text is the text itself.
    pub(crate) fn shown(&self) -> Shown {
        Shown::Json(match self {
            Self::Text(text) => return Shown::Text(text.clone()),
            Self::Integer(number) => Value::from(*number),
            Self::Boolean(switch) => Value::from(*switch),
            Self::Duration(duration) => Value::from(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
            Self::Texts(texts) => Value::from(texts.clone()),
            Self::Numbers(numbers) => Value::from(numbers.clone()),
        })
    }
}

/// How a setting is answered.
pub(crate) enum Shown {
    Text(String),
    Json(Value),
}

#[cfg(test)]
mod tests {
    use super::*;

    type Levels = Arc<Mutex<Vec<LogLevel>>>;

    fn settings() -> (EffectiveSettings, Levels, watch::Receiver<Vec<String>>) {
        let (addresses, watching) = watch::channel(vec!["a:1".to_owned()]);
        let levels = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&levels);
        let fixed = [("mem_queue_size", Setting::Integer(10_000))];
        let settings = EffectiveSettings::new(fixed, LogLevel::Info, move |level| seen.lock().push(level), addresses);
        (settings, levels, watching)
    }

    #[test]
    fn a_level_is_set_before_it_is_shown() {
        let (settings, levels, _) = settings();
        assert_eq!(settings.get("log_level"), Some(Setting::Integer(2)));
        assert_eq!(settings.set("log_level", b"Fatal"), Ok(()));
        assert_eq!(*levels.lock(), [LogLevel::Fatal]);
        assert_eq!(settings.get("log_level"), Some(Setting::Integer(5)));
        for value in ["", "warning", "1", "info\n"] {
            let refused = settings.set("log_level", value.as_bytes());
            assert_eq!(refused, Err(SettingError::InvalidValue), "{value:?}");
        }
        assert_eq!(settings.get("log_level"), Some(Setting::Integer(5)));
    }

    #[test]
    fn whoever_registers_the_node_learns_of_new_addresses() {
        let (settings, _, watching) = settings();
        let set = |value: &str| settings.set("nsqlookupd_tcp_addresses", value.as_bytes());
        assert_eq!(set(r#" ["b:1", "c:2"] "#), Ok(()));
        assert!(watching.has_changed().expect("the settings are alive"));
        assert_eq!(*watching.borrow(), ["b:1", "c:2"]);
        for value in ["b:1", "[1]", r#"["b:1",]"#, r#"["b:1"] x"#, "{}"] {
            assert_eq!(set(value), Err(SettingError::InvalidValue), "{value}");
        }
        assert_eq!(*watching.borrow(), ["b:1", "c:2"]);
        assert_eq!(set("null"), Ok(()));
        assert_eq!(
            settings.get("nsqlookupd_tcp_addresses"),
            Some(Setting::Texts(Vec::new()))
        );
    }

    #[test]
    fn other_settings_cannot_be_changed() {
        let (settings, ..) = settings();
        assert_eq!(settings.set("mem_queue_size", b"1"), Err(SettingError::InvalidOption));
        assert_eq!(settings.get("mem_queue_size"), Some(Setting::Integer(10_000)));
        assert_eq!(settings.get("nothing"), None);
    }
}
