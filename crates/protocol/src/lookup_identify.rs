//! The body of the IDENTIFY that nsqd sends to nsqlookupd.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::go_text::{as_go_reads, fold_key};
use crate::identify::set;

/// How others reach an nsqd, as it tells nsqlookupd. Read with the leniency of Go's JSON decoder, as [`IdentifyRequest`](crate::IdentifyRequest)
/// is; what is not given is empty or 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LookupIdentify {
    /// The machine's name.
    pub hostname: String,
    /// The address that consumers connect to.
    pub broadcast_address: String,
    /// The port for TCP, as it was given: any number.
    pub tcp_port: i64,
    /// The port for HTTP, as it was given: any number.
    pub http_port: i64,
    /// The version of the program.
    pub version: String,
    /// The zone, or nothing.
    pub topology_zone: String,
    /// The region, or nothing.
    pub topology_region: String,
}

/// The body is not the JSON object that it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is no JSON object with fields of the right types")]
pub struct InvalidLookupIdentify;

impl LookupIdentify {
    /// Reads a body. It may lack fields; see [`LookupIdentify::is_complete`].
    ///
    /// # Errors
    /// If it is not JSON, not an object or null, or a field has another type.
    pub fn parse(body: &[u8]) -> Result<Self, InvalidLookupIdentify> {
        serde_json::from_str(&as_go_reads(body)).map_err(|_| InvalidLookupIdentify)
    }

    /// Whether it has what nsqlookupd demands: an address, both ports and a version.
    pub fn is_complete(&self) -> bool {
        !self.broadcast_address.is_empty() && self.tcp_port != 0 && self.http_port != 0 && !self.version.is_empty()
    }
}

impl<'de> Deserialize<'de> for LookupIdentify {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BodyVisitor)
    }
}

struct BodyVisitor;

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = LookupIdentify;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or null")
    }

    fn visit_unit<E>(self) -> Result<LookupIdentify, E> {
        Ok(LookupIdentify::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LookupIdentify, A::Error> {
        let mut body = LookupIdentify::default();
        // It is told by the connection, but must be a text where it is given.
        let mut remote_address = String::new();
        while let Some(key) = map.next_key::<String>()? {
            match fold_key(&key).as_str() {
                "remote_address" => set(&mut map, &mut remote_address)?,
                "hostname" => set(&mut map, &mut body.hostname)?,
                "broadcast_address" => set(&mut map, &mut body.broadcast_address)?,
                "tcp_port" => set(&mut map, &mut body.tcp_port)?,
                "http_port" => set(&mut map, &mut body.http_port)?,
                "version" => set(&mut map, &mut body.version)?,
                "topology_zone" => set(&mut map, &mut body.topology_zone)?,
                "topology_region" => set(&mut map, &mut body.topology_region)?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_reads_is_read() {
        let body = br#"{"TCP_port":4150,"http_port":1,"http_port":4151,"broadcast_address":"n1","hostname":null,"version":"1.3.0","x":[{}]}"#;
        let read = LookupIdentify::parse(body).expect("an object");
        let expected = LookupIdentify {
            broadcast_address: "n1".into(),
            tcp_port: 4150,
            http_port: 4151,
            version: "1.3.0".into(),
            ..LookupIdentify::default()
        };
        assert_eq!(read, expected);
        assert!(read.is_complete());
        assert!(!LookupIdentify::parse(b"null").expect("as Go").is_complete());
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for body in [
            "",
            "[]",
            "{",
            r#"{"tcp_port":"4150"}"#,
            r#"{"tcp_port":4150.0}"#,
            r#"{"remote_address":1}"#,
            "{} {}",
        ] {
            assert_eq!(
                LookupIdentify::parse(body.as_bytes()),
                Err(InvalidLookupIdentify),
                "{body}"
            );
        }
    }
}
