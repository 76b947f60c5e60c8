//! How many consumers of one channel may be connected to this node (`max-channel-consumers`).

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use nsquorum_protocol::{ChannelName, TopicName};
use parking_lot::Mutex;

/// The seats of all channels; clones share them. Without a limit nothing is counted.
#[derive(Clone, Debug)]
pub(crate) struct Seats(Option<Arc<Limited>>);

type Key = (TopicName, ChannelName);

#[derive(Debug)]
struct Limited {
    max: NonZeroUsize,
    taken: Mutex<BTreeMap<Key, usize>>,
}

/// A consumer's place in a channel; free again on drop.
#[derive(Debug)]
pub(crate) struct Seat(Option<(Arc<Limited>, Key)>);

/// No seat is free. nsqd's wording.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("consumers for {topic}:{channel} exceeds limit of {max}")]
pub(crate) struct NoSeat {
    topic: TopicName,
    channel: ChannelName,
    max: NonZeroUsize,
}

impl Seats {
    pub(crate) fn new(max: Option<NonZeroUsize>) -> Self {
        let taken = Mutex::default();
        Self(max.map(|max| Arc::new(Limited { max, taken })))
    }

    /// Takes a seat.
    pub(crate) fn take(&self, topic: &TopicName, channel: &ChannelName) -> Result<Seat, NoSeat> {
        let Some(limited) = &self.0 else { return Ok(Seat(None)) };
        let key = (topic.clone(), channel.clone());
        let mut taken = limited.taken.lock();
        let count = taken.entry(key.clone()).or_default();
        if *count >= limited.max.get() {
            let (topic, channel) = key;
            let max = limited.max;
            return Err(NoSeat { topic, channel, max });
        }
        *count += 1;
        Ok(Seat(Some((Arc::clone(limited), key))))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some((limited, key)) = self.0.take() else { return };
        let mut taken = limited.taken.lock();
        if let Some(count) = taken.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted_per_channel_and_come_back() {
        let topic = TopicName::try_from("t").unwrap();
        let [c, d] = ["c", "d"].map(|name| ChannelName::try_from(name).unwrap());
        let seats = Seats::new(NonZeroUsize::new(2));
        let first = seats.take(&topic, &c).unwrap();
        let _second = seats.take(&topic, &c).unwrap();
        let refused = seats.take(&topic, &c).unwrap_err();
        assert_eq!(refused.to_string(), "consumers for t:c exceeds limit of 2");
        let _other = seats.take(&topic, &d).unwrap();
        drop(first);
        let third = seats.take(&topic, &c).unwrap();
        assert!(seats.take(&topic, &c).is_err());
        drop(third);

        let unlimited = Seats::new(None);
        let _many: Vec<Seat> = (0..1000).map(|_| unlimited.take(&topic, &c).unwrap()).collect();
    }
}
