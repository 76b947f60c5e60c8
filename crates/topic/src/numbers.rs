//! One type for every number that could be mistaken for another.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($inner);

        impl $name {
            #[doc = concat!("Wraps a number as a `", stringify!($name), "`.")]
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The number itself.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A node of the cluster. Never reused: an emptied directory gets a new one.
    NodeId(u64)
);
number!(
    /// The how-manieth start of a node's directory; raised and synced at every start.
    NodeIncarnation(u64)
);
number!(
    /// A Raft group. 0 is the metadata group; topics count from 1 and are never reused.
    GroupId(u64)
);
number!(
    /// A Raft term.
    Term(u64)
);
number!(
    /// A position in a group's Raft log. The genesis membership is at 0.
    LogIndex(u64)
);
number!(
    /// A message's number in its topic: dense, from `seq_base + 1`. Its 16 hex digits are the NSQ message id.
    Seq(u64)
);
number!(
    /// One life of a channel name within its topic, minted by the batch that creates the channel; from 1.
    ChannelIncarnation(u64)
);
number!(
    /// How often a message was handed to a consumer of one channel. Saturates at `u16::MAX`.
    Attempts(u16)
);
number!(
    /// Log clock of a topic: nanoseconds since 1970 that never go back from entry to entry.
    LogTime(u64)
);
number!(
    /// The meaning of apply: entries made for a higher level than a replica knows quarantine the group there.
    FeatureLevel(u16)
);

impl GroupId {
    /// The group that holds nodes, topics and tombstones.
    pub const METADATA: Self = Self(0);
}

impl LogIndex {
    /// The position after this one. Saturates: no log gets there, but bytes that were made up may say so.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Seq {
    /// The number after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The number `count` further on.
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl Attempts {
    /// One attempt more, saturating.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl LogTime {
    /// This time plus a delay in milliseconds, saturating.
    pub const fn plus_ms(self, delay_ms: u32) -> Self {
        Self(self.0.saturating_add(delay_ms as u64 * 1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::Attempts;

    #[test]
    fn attempts_are_counted_up_to_what_two_bytes_hold() {
        assert_eq!(Attempts::new(1).next(), Attempts::new(2));
        assert_eq!(Attempts::new(u16::MAX - 1).next(), Attempts::new(u16::MAX));
        // nsqd begins again at 0 here, and a consumer that gives up after so many would try for ever.
        assert_eq!(Attempts::new(u16::MAX).next(), Attempts::new(u16::MAX));
    }
}
