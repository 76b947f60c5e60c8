//! Values of nsqd's options that are one of a few words.

use clap::ValueEnum as _;
use nsquorum_frontend::tls::ClientAuth;
use toml::Value;

use crate::cli::go::{BadValue, GoValue, configure_as_text, plain};
use crate::cli::session_args::Method;
use crate::cli::tls_args::{TlsRequirement, TlsVersion, parse_policy, parse_requirement};

impl GoValue for TlsRequirement {
    fn placeholder(&self) -> Option<&'static str> {
        None
    }

    fn default_text(&self) -> Option<String> {
        None
    }

    fn set(&mut self, text: &str) -> Result<(), BadValue> {
        let text = text.to_lowercase();
        let invalid = |_| BadValue::Usage(format!("strconv.ParseBool: parsing {text:?}: invalid syntax"));
        *self = parse_requirement(&text).map_err(invalid)?;
        Ok(())
    }

    fn configure(&mut self, value: &Value) -> Result<(), String> {
        configure_as_text(self, value)
    }

    fn is_sound(&self, value: &Value) -> bool {
        Self::Nobody.set(&plain(value)).is_ok()
    }
}

impl GoValue for TlsVersion {
    fn placeholder(&self) -> Option<&'static str> {
        Some("value")
    }

    fn default_text(&self) -> Option<String> {
        self.to_possible_value().map(|value| value.get_name().to_owned())
    }

    fn set(&mut self, text: &str) -> Result<(), BadValue> {
        let text = text.to_lowercase();
        if !text.is_empty() {
            let unknown = |_| BadValue::Usage(format!("unknown tlsVersionOption {text:?}"));
            *self = Self::from_str(&text, false).map_err(unknown)?;
        }
        Ok(())
    }

    fn configure(&mut self, value: &Value) -> Result<(), String> {
        configure_as_text(self, value)
    }

    fn is_sound(&self, value: &Value) -> bool {
        Self::V1_0.set(&plain(value)).is_ok()
    }
}

/// What clients must show. A word that stock nsqd does not know asks for nothing there; here it is refused, because whoever wrote it
/// wanted clients to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientAuthPolicy(pub(super) ClientAuth);

impl Default for ClientAuthPolicy {
    fn default() -> Self {
        Self(ClientAuth::NotAsked)
    }
}

impl GoValue for ClientAuthPolicy {
    fn placeholder(&self) -> Option<&'static str> {
        Some("string")
    }

    fn default_text(&self) -> Option<String> {
        None
    }

    fn set(&mut self, text: &str) -> Result<(), BadValue> {
        self.0 = parse_policy(text).map_err(BadValue::Usage)?;
        Ok(())
    }

    fn configure(&mut self, value: &Value) -> Result<(), String> {
        configure_as_text(self, value)
    }
}

/// How auth servers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AuthMethod(pub(super) Method);

impl Default for AuthMethod {
    fn default() -> Self {
        Self(Method::Get)
    }
}

impl GoValue for AuthMethod {
    fn placeholder(&self) -> Option<&'static str> {
        Some("string")
    }

    fn default_text(&self) -> Option<String> {
        self.0
            .to_possible_value()
            .map(|value| format!("{:?}", value.get_name()))
    }

    fn set(&mut self, text: &str) -> Result<(), BadValue> {
        let invalid = |_| BadValue::Usage(format!("{text:?} is neither get nor post"));
        self.0 = Method::from_str(text, true).map_err(invalid)?;
        Ok(())
    }

    fn configure(&mut self, value: &Value) -> Result<(), String> {
        configure_as_text(self, value)
    }
}
