//! The body of IDENTIFY.
//!
//! Read with the leniency of Go's JSON decoder, which every client was tested against: keys match in any case, unknown
//! ones are skipped whatever they hold, `null` leaves the default, the body itself may be `null`, the last of several
//! equal keys counts, and what is no Unicode (bytes that are not UTF-8, escapes of half a surrogate pair) is replaced.
//! As strict as it where it is: a number must be written as an integer, and no value is turned into another type.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::error::{ErrorCode, ProtocolError};
use crate::go_text::{as_go_reads, fold_key};

/// What a client tells about itself and asks for. The numbers are as it sent them, in the protocol's spelling: 0 is
/// "the server's default", -1 "off", and anything may still be out of range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentifyRequest {
    /// Its name for itself; shown in `/stats`.
    pub client_id: String,
    /// Its host; shown in `/stats`.
    pub hostname: String,
    /// Library and version; shown in `/stats`.
    pub user_agent: String,
    /// Whether it understands a JSON answer, and with it TLS and compression.
    pub feature_negotiation: bool,
    /// Milliseconds between heartbeats.
    pub heartbeat_interval: i64,
    /// Bytes of output buffer.
    pub output_buffer_size: i64,
    /// Milliseconds between flushes of the output buffer.
    pub output_buffer_timeout: i64,
    /// Percentage of messages that it wants, 0 for all.
    pub sample_rate: i32,
    /// Milliseconds that a message may stay in flight to it.
    pub msg_timeout: i64,
    /// Whether it wants TLS.
    pub tls_v1: bool,
    /// Whether it wants snappy.
    pub snappy: bool,
    /// Whether it wants deflate.
    pub deflate: bool,
    /// The deflate level it wants, 0 or less for the default.
    pub deflate_level: i64,
    /// Its region.
    pub topology_region: String,
    /// Its zone.
    pub topology_zone: String,
}

impl IdentifyRequest {
    /// Reads the body of an IDENTIFY.
    ///
    /// # Errors
    /// `E_BAD_BODY IDENTIFY failed to decode JSON body`, for everything.
    pub fn parse(body: &[u8]) -> Result<Self, ProtocolError> {
        serde_json::from_str(&as_go_reads(body))
            .map_err(|_| ProtocolError::new(ErrorCode::BadBody, "IDENTIFY failed to decode JSON body"))
    }
}

impl<'de> Deserialize<'de> for IdentifyRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RequestVisitor)
    }
}

/// Not derived: a derived implementation knows one spelling of a key and refuses a key that comes twice.
struct RequestVisitor;

impl<'de> Visitor<'de> for RequestVisitor {
    type Value = IdentifyRequest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or null")
    }

    fn visit_unit<E>(self) -> Result<IdentifyRequest, E> {
        Ok(IdentifyRequest::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<IdentifyRequest, A::Error> {
        let mut request = IdentifyRequest::default();
        while let Some(key) = map.next_key::<String>()? {
            match fold_key(&key).as_str() {
                "client_id" => set(&mut map, &mut request.client_id)?,
                "hostname" => set(&mut map, &mut request.hostname)?,
                "user_agent" => set(&mut map, &mut request.user_agent)?,
                "feature_negotiation" => set(&mut map, &mut request.feature_negotiation)?,
                "heartbeat_interval" => set(&mut map, &mut request.heartbeat_interval)?,
                "output_buffer_size" => set(&mut map, &mut request.output_buffer_size)?,
                "output_buffer_timeout" => set(&mut map, &mut request.output_buffer_timeout)?,
                "sample_rate" => set(&mut map, &mut request.sample_rate)?,
                "msg_timeout" => set(&mut map, &mut request.msg_timeout)?,
                "tls_v1" => set(&mut map, &mut request.tls_v1)?,
                "snappy" => set(&mut map, &mut request.snappy)?,
                "deflate" => set(&mut map, &mut request.deflate)?,
                "deflate_level" => set(&mut map, &mut request.deflate_level)?,
                "topology_region" => set(&mut map, &mut request.topology_region)?,
                "topology_zone" => set(&mut map, &mut request.topology_zone)?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(request)
    }
}

/// Takes a key's value, unless it is null.
pub(crate) fn set<'de, A: MapAccess<'de>, T: Deserialize<'de>>(map: &mut A, field: &mut T) -> Result<(), A::Error> {
    if let Some(value) = map.next_value::<Option<T>>()? {
        *field = value;
    }
    Ok(())
}
