//! The first four bytes of a connection.

use bytes::{Buf, BytesMut};

use crate::encode::MAGIC_V2;
use crate::error::ProtocolError;

/// Takes the magic of protocol V2 off the front of `buf`. `false` if it is not complete; like nsqd, nothing is said
/// about the first bytes until there are four.
///
/// # Errors
/// `E_BAD_PROTOCOL` for any other four bytes, be they another version's magic or an HTTP request.
pub fn take_magic(buf: &mut BytesMut) -> Result<bool, ProtocolError> {
    match buf.first_chunk::<4>() {
        None => Ok(false),
        Some(MAGIC_V2) => {
            buf.advance(MAGIC_V2.len());
            Ok(true)
        }
        Some(_) => Err(ProtocolError::bad_protocol()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_magic_and_no_more() {
        let mut buf = BytesMut::new();
        for byte in b"  V" {
            buf.extend_from_slice(&[*byte]);
            assert_eq!(take_magic(&mut buf), Ok(false));
        }
        buf.extend_from_slice(b"2NOP\n");
        assert_eq!(take_magic(&mut buf), Ok(true));
        assert_eq!(&buf[..], b"NOP\n");
    }

    #[test]
    fn refuses_everything_else() {
        for bytes in [&b"  V1"[..], b"GET / HTTP/1.1", b"\0\0\0\0", b"  v2"] {
            assert_eq!(
                take_magic(&mut BytesMut::from(bytes)),
                Err(ProtocolError::bad_protocol())
            );
        }
        assert_eq!(take_magic(&mut BytesMut::from(&b"GET"[..])), Ok(false));
    }
}
