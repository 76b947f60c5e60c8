//! The flags of TLS, with nsqd's names and rules.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use nsquorum_frontend::tls::{ClientAuth, MinVersion, TlsSettings};

use super::session_args::parse_bool;

/// Flags of TLS.
#[derive(Debug, Args)]
pub(crate) struct TlsArgs {
    /// The node's certificate, with those that lead to its root, as PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's key as PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// What clients must show: `require` any certificate, `require-verify` one that the root CA file has signed. Implies --tls-required.
    #[arg(long, value_name = "POLICY", default_value = "", value_parser = parse_policy)]
    pub(super) tls_client_auth_policy: ClientAuth,
    /// Root certificates as PEM: of clients, and of auth servers with https.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_root_ca_file: Option<PathBuf>,
    /// Whether clients must use TLS: `true`, `false`, or `tcp-https` for TCP only.
    #[arg(
        long,
        value_name = "WHO",
        num_args = 0..=1,
        require_equals = false,
        default_value = "false",
        default_missing_value = "true",
        value_parser = parse_requirement
    )]
    pub(super) tls_required: TlsRequirement,
    /// The oldest version of TLS. Versions before 1.2 are accepted as values, and mean 1.2.
    #[arg(
        long,
        value_name = "VERSION",
        value_enum,
        default_value = "tls1.0",
        ignore_case = true
    )]
    pub(super) tls_min_version: TlsVersion,
}

/// Who must use TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsRequirement {
    Nobody,
    TcpClients,
    Everybody,
}

/// The oldest version of TLS, as nsqd has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum TlsVersion {
    #[value(name = "tls1.0")]
    V1_0,
    #[value(name = "tls1.1")]
    V1_1,
    #[value(name = "tls1.2")]
    V1_2,
    #[value(name = "tls1.3")]
    V1_3,
}

impl TlsArgs {
    /// Who must use TLS.
    pub(crate) fn requirement(&self) -> TlsRequirement {
        match (self.tls_required, self.tls_client_auth_policy) {
            (TlsRequirement::Nobody, ClientAuth::Any | ClientAuth::Verified) => TlsRequirement::Everybody,
            (required, _) => required,
        }
    }

    /// The files and rules; `None` without a certificate.
    pub(crate) fn settings(&self) -> Option<TlsSettings> {
        Some(TlsSettings {
            certificate: self.tls_cert.clone()?,
            key: self.tls_key.clone()?,
            root_ca: self.tls_root_ca_file.clone(),
            client_auth: self.tls_client_auth_policy,
            min_version: self.min_version(),
        })
    }

    /// The oldest version.
    pub(crate) fn min_version(&self) -> MinVersion {
        match self.tls_min_version {
            TlsVersion::V1_0 | TlsVersion::V1_1 | TlsVersion::V1_2 => MinVersion::Tls12,
            TlsVersion::V1_3 => MinVersion::Tls13,
        }
    }

    /// What clients must show, as it is written.
    pub(crate) const fn policy(&self) -> &'static str {
        match self.tls_client_auth_policy {
            ClientAuth::NotAsked => "",
            ClientAuth::Any => "require",
            ClientAuth::Verified => "require-verify",
        }
    }

    /// The oldest version as it was given, by its number in TLS.
    pub(crate) const fn version_number(&self) -> u16 {
        match self.tls_min_version {
            TlsVersion::V1_0 => 0x0301,
            TlsVersion::V1_1 => 0x0302,
            TlsVersion::V1_2 => 0x0303,
            TlsVersion::V1_3 => 0x0304,
        }
    }

    /// An error if the flags contradict each other.
    pub(super) fn check(&self) -> Result<(), String> {
        let has_pair = match (&self.tls_cert, &self.tls_key) {
            (Some(_), Some(_)) => true,
            (None, None) => false,
            _ => return Err("--tls-cert and --tls-key go together".to_owned()),
        };
        if !has_pair && self.requirement() != TlsRequirement::Nobody {
            return Err("cannot require TLS client connections without TLS key and cert".to_owned());
        }
        if self.tls_client_auth_policy == ClientAuth::Verified && self.tls_root_ca_file.is_none() {
            return Err("--tls-client-auth-policy require-verify needs --tls-root-ca-file".to_owned());
        }
        Ok(())
    }
}

pub(super) fn parse_policy(text: &str) -> Result<ClientAuth, String> {
    match text {
        "" => Ok(ClientAuth::NotAsked),
        "require" => Ok(ClientAuth::Any),
        "require-verify" => Ok(ClientAuth::Verified),
        other => Err(format!("{other:?} is neither require nor require-verify")),
    }
}

pub(super) fn parse_requirement(text: &str) -> Result<TlsRequirement, String> {
    if text.eq_ignore_ascii_case("tcp-https") {
        return Ok(TlsRequirement::TcpClients);
    }
    match parse_bool(text) {
        Ok(true) => Ok(TlsRequirement::Everybody),
        Ok(false) => Ok(TlsRequirement::Nobody),
        Err(_) => Err(format!("{text:?} is none of true, false, tcp-https")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        tls: TlsArgs,
    }

    fn parse(line: &str) -> TlsArgs {
        let arguments = std::iter::once("x").chain(line.split_whitespace());
        Cli::try_parse_from(arguments).expect(line).tls
    }

    #[test]
    fn a_policy_implies_that_tls_is_required() {
        let table = [
            ("", TlsRequirement::Nobody),
            ("--tls-required", TlsRequirement::Everybody),
            ("--tls-required=false", TlsRequirement::Nobody),
            ("--tls-required=T", TlsRequirement::Everybody),
            ("--tls-required tcp-https", TlsRequirement::TcpClients),
            ("--tls-client-auth-policy=require", TlsRequirement::Everybody),
            (
                "--tls-client-auth-policy=require-verify --tls-required=tcp-https",
                TlsRequirement::TcpClients,
            ),
        ];
        for (line, requirement) in table {
            assert_eq!(parse(line).requirement(), requirement, "{line}");
        }
    }

    #[test]
    fn contradictions_are_named() {
        let table = [
            ("--tls-cert c", Some("--tls-cert and --tls-key go together")),
            ("--tls-key k", Some("--tls-cert and --tls-key go together")),
            (
                "--tls-required",
                Some("cannot require TLS client connections without TLS key and cert"),
            ),
            (
                "--tls-cert c --tls-key k --tls-client-auth-policy require-verify",
                Some("--tls-client-auth-policy require-verify needs --tls-root-ca-file"),
            ),
            ("--tls-cert c --tls-key k --tls-required=tcp-https", None),
            ("--tls-root-ca-file r", None),
        ];
        for (line, complaint) in table {
            assert_eq!(parse(line).check().err().as_deref(), complaint, "{line}");
        }
        assert!(parse("").settings().is_none());
    }

    #[test]
    fn old_versions_mean_the_oldest_that_there_is() {
        for (version, min) in [
            ("tls1.0", MinVersion::Tls12),
            ("TLS1.2", MinVersion::Tls12),
            ("tls1.3", MinVersion::Tls13),
        ] {
            assert_eq!(parse(&format!("--tls-min-version={version}")).min_version(), min);
        }
    }
}
