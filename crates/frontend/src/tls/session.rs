//! What a handshake agreed on, in nsqd's words.

use rustls::ServerConnection;
use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, asn1::PrintableStringRef, asn1::TeletexStringRef, asn1::Utf8StringRef};

/// X.520's commonName.
const COMMON_NAME: &str = "2.5.4.3";

/// The TLS of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSession {
    /// `TLS1.2` or `TLS1.3`.
    pub version: String,
    /// IANA's name of the cipher suite.
    pub cipher_suite: String,
    /// The common name in the client's certificate; empty without one.
    pub common_name: String,
}

impl TlsSession {
    pub(crate) fn of(connection: &ServerConnection) -> Self {
        let version = connection
            .protocol_version()
            .and_then(|version| Some(version.as_str()?.replace("TLSv1_", "TLS1.")));
        let cipher_suite = connection
            .negotiated_cipher_suite()
            .and_then(|suite| Some(suite.suite().as_str()?.replace("TLS13_", "TLS_")));
        Self {
            version: version.unwrap_or_default(),
            cipher_suite: cipher_suite.unwrap_or_default(),
            common_name: connection
                .peer_certificates()
                .and_then(|chain| common_name(chain.first()?))
                .unwrap_or_default(),
        }
    }
}

/// The last common name of the subject, as in Go.
fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let names = certificate.tbs_certificate.subject.0;
    let mut attributes = names.iter().flat_map(|set| set.0.iter());
    let name = attributes.rfind(|attribute| attribute.oid.to_string() == COMMON_NAME)?;
    let value = &name.value;
    let utf8 = value
        .decode_as::<Utf8StringRef<'_>>()
        .map(|text| text.as_str().to_owned());
    let printable = || {
        value
            .decode_as::<PrintableStringRef<'_>>()
            .map(|text| text.as_str().to_owned())
    };
    let teletex = || {
        value
            .decode_as::<TeletexStringRef<'_>>()
            .map(|text| text.as_str().to_owned())
    };
    utf8.or_else(|_| printable()).or_else(|_| teletex()).ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair};

    use super::*;

    #[test]
    fn the_common_name_is_read_in_every_spelling_of_texts() {
        let key = KeyPair::generate().expect("a key");
        for value in [
            DnValue::Utf8String("client".to_owned()),
            DnValue::PrintableString("client".try_into().expect("printable")),
            DnValue::TeletexString("client".try_into().expect("teletex")),
        ] {
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, "somebody");
            params.distinguished_name.push(DnType::CommonName, value);
            let certificate = params.self_signed(&key).expect("signed");
            assert_eq!(common_name(certificate.der()).as_deref(), Some("client"));
        }
        assert_eq!(common_name(&CertificateDer::from(&b"no certificate"[..])), None);
    }
}
