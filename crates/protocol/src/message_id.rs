//! The 16-byte message id.

use std::fmt;

/// The length of a message id on the wire, in bytes.
pub const MESSAGE_ID_LENGTH: usize = 16;

/// A message id as NSQ carries it: 16 opaque bytes.
///
/// The ids that this system makes are a message's number in its topic in 16 lower-case hex digits, so they sort as
/// the numbers do. A client may send any 16 bytes, which is why the bytes are kept and [`MessageId::to_seq`] may find
/// none: such an id is answered with "not in flight", as nsqd does, and not refused by the parser.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId([u8; MESSAGE_ID_LENGTH]);

impl MessageId {
    /// The id of the message with this number in its topic.
    pub const fn from_seq(seq: u64) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut bytes = [0; MESSAGE_ID_LENGTH];
        let mut at = 0;
        while at < MESSAGE_ID_LENGTH {
            bytes[at] = DIGITS[(seq >> (60 - 4 * at)) as usize & 0xf];
            at += 1;
        }
        Self(bytes)
    }

    /// The number that [`MessageId::from_seq`] turns into this id. `None` if there is none: upper-case digits are not
    /// another spelling of an id, because ids are compared as bytes everywhere else.
    pub const fn to_seq(self) -> Option<u64> {
        let mut seq = 0;
        let mut at = 0;
        while at < MESSAGE_ID_LENGTH {
            let digit = match self.0[at] {
                byte @ b'0'..=b'9' => byte - b'0',
                byte @ b'a'..=b'f' => byte - b'a' + 10,
                _ => return None,
            };
            seq = seq << 4 | digit as u64;
            at += 1;
        }
        Some(seq)
    }

    /// The id with these bytes, whatever they are.
    pub const fn from_bytes(bytes: [u8; MESSAGE_ID_LENGTH]) -> Self {
        Self(bytes)
    }

    /// The bytes as they stand on the wire.
    pub const fn as_bytes(&self) -> &[u8; MESSAGE_ID_LENGTH] {
        &self.0
    }
}

impl fmt::Display for MessageId {
    /// The bytes as text; bytes that are not printable ASCII are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_sixteen_lower_case_digits() {
        assert_eq!(MessageId::from_seq(0).as_bytes(), b"0000000000000000");
        assert_eq!(MessageId::from_seq(0x1f).to_string(), "000000000000001f");
        assert_eq!(MessageId::from_seq(u64::MAX).as_bytes(), b"ffffffffffffffff");
        assert_eq!(
            MessageId::from_seq(0x0123_4567_89ab_cdef).as_bytes(),
            b"0123456789abcdef"
        );
    }

    #[test]
    fn ids_return_their_number_and_sort_like_it() {
        let numbers = [0, 1, 9, 10, 15, 16, 255, 1 << 32, u64::MAX - 1, u64::MAX];
        for number in numbers {
            assert_eq!(MessageId::from_seq(number).to_seq(), Some(number));
        }
        assert!(
            numbers
                .windows(2)
                .all(|pair| MessageId::from_seq(pair[0]) < MessageId::from_seq(pair[1]))
        );
    }

    #[test]
    fn foreign_ids_have_no_number() {
        for bytes in [
            b"000000000000000F",
            b"000000000000000g",
            b"\xff000000000000000",
            b" 00000000000000f",
        ] {
            assert_eq!(MessageId::from_bytes(*bytes).to_seq(), None);
        }
        assert_eq!(
            MessageId::from_bytes(*b"\xff000000000000000").to_string(),
            "\\xff000000000000000"
        );
    }
}
