//! Bounds, in bytes.

use crate::Class;

/// What each frame is charged beyond its bytes, so that many empty frames cannot fill the memory either. Part of the protocol: both
/// ends compute with it.
pub(crate) const FRAME_CHARGE_BYTES: u64 = 64;

/// The charge of a frame against credit and room.
pub(crate) const fn charge(frame_bytes: usize) -> u64 {
    frame_bytes as u64 + FRAME_CHARGE_BYTES
}

/// Bounds of one class of one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassLimits {
    /// Bytes of one lane that may be on their way: queued here, in the network, or held by the receiver. One frame always passes when
    /// the lane is empty.
    pub lane_credit_bytes: u64,
    /// Bytes of all lanes that may be queued here for one peer. One frame always passes when nothing is queued.
    pub queued_bytes_max: u64,
}

/// Bounds of links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Control frames.
    pub control: ClassLimits,
    /// Bulk frames.
    pub bulk: ClassLimits,
    /// The longest frame, on both sides.
    pub frame_bytes_max: usize,
    /// A longer frame travels in chunks of this size, so that other lanes get their turn.
    pub chunk_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            control: ClassLimits {
                lane_credit_bytes: 4 << 20,
                queued_bytes_max: 16 << 20,
            },
            bulk: ClassLimits {
                lane_credit_bytes: 16 << 20,
                queued_bytes_max: 64 << 20,
            },
            frame_bytes_max: (64 << 20) + (64 << 10),
            chunk_bytes: 256 << 10,
        }
    }
}

impl Limits {
    /// The bounds of a class.
    pub const fn class(&self, class: Class) -> &ClassLimits {
        match class {
            Class::Control => &self.control,
            Class::Bulk => &self.bulk,
        }
    }
}
