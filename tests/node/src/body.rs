//! Bodies that say which publish they belong to, and of which every byte is known.
//!
//! The history would otherwise have to keep every body to notice a damaged one.

use std::fmt;

/// Names one published body; unique in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BodyId {
    /// Which publisher; a publisher is one connection.
    pub publisher: u32,
    /// Which of its bodies, from 0 in the order of sending.
    pub serial: u64,
}

impl fmt::Display for BodyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "body {} of publisher {}", self.serial, self.publisher)
    }
}

impl BodyId {
    /// The shortest body in bytes: the name, and enough behind it that a damaged name is noticed too.
    pub const LENGTH_MIN: usize = 20;

    /// The body of this length in bytes; shorter than [`LENGTH_MIN`](Self::LENGTH_MIN) becomes that.
    #[must_use]
    pub fn body(self, length: usize) -> Vec<u8> {
        let length = length.max(Self::LENGTH_MIN);
        let mut body = Vec::with_capacity(length + 8);
        body.extend(self.publisher.to_le_bytes());
        body.extend(self.serial.to_le_bytes());
        let publisher = u64::from(self.publisher).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        let mut state = self.serial ^ publisher ^ length as u64;
        while body.len() < length {
            // An odd multiplier and a shift: enough that no two bodies look alike.
            state = state.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x2545_f491);
            body.extend((state ^ (state >> 29)).to_le_bytes());
        }
        body.truncate(length);
        body
    }

    /// Whose body this is; `None` if a single byte is not as it was made.
    #[must_use]
    pub fn of(body: &[u8]) -> Option<Self> {
        let publisher = u32::from_le_bytes(body.get(..4)?.try_into().ok()?);
        let serial = u64::from_le_bytes(body.get(4..12)?.try_into().ok()?);
        let id = Self { publisher, serial };
        (id.body(body.len()) == body).then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_names_itself_and_no_flipped_bit_goes_unnoticed() {
        let id = BodyId {
            publisher: 7,
            serial: 1 << 33,
        };
        for length in [0, 20, 21, 100] {
            let body = id.body(length);
            assert_eq!(body.len(), length.max(BodyId::LENGTH_MIN));
            assert_eq!(BodyId::of(&body), Some(id));
            for bit in 0..body.len() * 8 {
                let mut damaged = body.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(BodyId::of(&damaged), None, "bit {bit} of {length} bytes");
            }
        }
        assert_eq!(BodyId::of(&id.body(100)[..99]), None);
    }
}
