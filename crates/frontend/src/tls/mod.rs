//! TLS: certificates from files, and what a handshake has agreed on.

mod client_auth;
mod session;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio_rustls::TlsAcceptor;

use client_auth::AnyClientCertificate;
pub use session::TlsSession;

/// What clients must show (`tls-client-auth-policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked for a certificate.
    #[default]
    NotAsked,
    /// Any certificate whose key they have (`require`).
    Any,
    /// One that the roots have signed (`require-verify`).
    Verified,
}

/// The oldest version that is spoken (`tls-min-version`). Versions before 1.2 are broken and do not exist here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// The files and rules of a TLS server.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// The certificate, and those that lead to its root, as PEM.
    pub certificate: PathBuf,
    /// Its key as PEM.
    pub key: PathBuf,
    /// The roots of clients' certificates as PEM.
    pub root_ca: Option<PathBuf>,
    /// What clients must show.
    pub client_auth: ClientAuth,
    /// The oldest version.
    pub min_version: MinVersion,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or has nothing of what it should have.
    #[error("cannot read {}: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: rustls::pki_types::pem::Error,
    },
    /// A file has no certificates.
    #[error("there is no certificate in {}", .0.display())]
    NoCertificate(PathBuf),
    /// Certificate and key do not fit each other, or cannot be used.
    #[error("the certificate and the key cannot be used: {0}")]
    Key(rustls::Error),
    /// A root cannot be used.
    #[error("a root certificate cannot be used: {0}")]
    Root(String),
    /// Certificates are to be verified, but not by what.
    #[error("the policy require-verify needs a file of root certificates")]
    NoRoots,
}

/// A TLS server; clones share it.
#[derive(Clone)]
pub struct ServerTls(Arc<ServerConfig>);

/// A TLS client; clones share it.
#[derive(Clone)]
pub struct ClientTls(Arc<ClientConfig>);

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// A file is missing, has not what it should have, or contradicts another.
    pub fn load(settings: &TlsSettings) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates(&settings.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&settings.key).map_err(|cause| TlsError::File {
            path: settings.key.clone(),
            cause,
        })?;
        let key = provider.key_provider.load_private_key(key).map_err(TlsError::Key)?;
        let certified = CertifiedKey::new(chain, key);
        // Of a certificate that cannot be taken apart (version 1, as old tools make them) nobody can say whether it fits; clients
        // take it all the same.
        if let Err(error @ rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) = certified.keys_match() {
            return Err(TlsError::Key(error));
        }
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions(settings.min_version))
            .map_err(TlsError::Key)?;
        let builder = match settings.client_auth {
            ClientAuth::NotAsked => builder.with_no_client_auth(),
            ClientAuth::Any => builder.with_client_cert_verifier(Arc::new(AnyClientCertificate::new(&provider))),
            ClientAuth::Verified => {
                let path = settings.root_ca.as_deref().ok_or(TlsError::NoRoots)?;
                let roots = Arc::new(roots(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|error| TlsError::Root(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        // NSQ's connections are few and long: tickets would only be more bytes to write and to keep.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self(Arc::new(config)))
    }

    /// What performs handshakes.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0))
    }
}

impl ClientTls {
    /// Trusts the roots in a file, or, without one, those of the system.
    ///
    /// # Errors
    /// The file is missing or has no roots.
    pub fn load(root_ca: Option<&Path>, min_version: MinVersion) -> Result<Self, TlsError> {
        let roots = match root_ca {
            Some(path) => roots(path)?,
            None => {
                let mut roots = RootCertStore::empty();
                // What is missing here is missed when a server's certificate is checked.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                roots
            }
        };
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&versions(min_version))
            .map_err(TlsError::Key)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    pub(crate) fn connector(&self) -> tokio_rustls::TlsConnector {
        tokio_rustls::TlsConnector::from(Arc::clone(&self.0))
    }
}

fn versions(min: MinVersion) -> Vec<&'static SupportedProtocolVersion> {
    match min {
        MinVersion::Tls12 => vec![&rustls::version::TLS13, &rustls::version::TLS12],
        MinVersion::Tls13 => vec![&rustls::version::TLS13],
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |cause| TlsError::File {
        path: path.to_owned(),
        cause,
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate(path.to_owned()));
    }
    Ok(certificates)
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Root(error.to_string()))?;
    }
    Ok(roots)
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerTls")
    }
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientTls")
    }
}
