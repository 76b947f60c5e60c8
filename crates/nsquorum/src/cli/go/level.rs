//! The level of the log as a value.

use clap::ValueEnum as _;
use toml::Value;

use super::values::{BadValue, GoValue, configure_as_text, plain};
use crate::cli::logging::LogLevel;

impl GoValue for LogLevel {
    fn placeholder(&self) -> Option<&'static str> {
        Some("value")
    }

    fn default_text(&self) -> Option<String> {
        let name = self.to_possible_value().map(|value| value.get_name().to_uppercase());
        name.map(|name| if name == "WARN" { "WARNING".to_owned() } else { name })
    }

    fn set(&mut self, text: &str) -> Result<(), BadValue> {
        let invalid = |_| BadValue::Usage(format!("invalid log level '{text}' (debug, info, warn, error, fatal)"));
        *self = Self::from_str(text, true).map_err(invalid)?;
        Ok(())
    }

    fn configure(&mut self, value: &Value) -> Result<(), String> {
        configure_as_text(self, value)
    }

    fn is_sound(&self, value: &Value) -> bool {
        Self::Info.set(&plain(value)).is_ok()
    }
}
