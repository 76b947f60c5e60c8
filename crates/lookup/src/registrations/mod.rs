//! What has registered here: nsqlookupd's database as a step machine. Time is told to it; nothing waits and nothing is written to a disk.
//!
//! A topic, or a channel of a topic, is a *key*. Producers come to a key by REGISTER and leave it by UNREGISTER or with their connection; the
//! key itself stays until it is deleted, because consumers of a producer that is away for a moment must go on finding the channels. Keys of
//! `#ephemeral` names go with the UNREGISTER of their last producer.

mod producer;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use nsquorum_environment::{Monotonic, WallTime};
use nsquorum_protocol::{ChannelName, TopicName};

use crate::ProducerDescription;
use producer::{Peer, Presence};
pub(crate) use producer::{PeerId, Place};

/// Keys, and producers at keys, together. Far beyond any fleet, and small enough for memory: nobody else bounds what peers register.
const PLACES_MAX: usize = 1 << 20;

/// Both clocks at one moment: one to decide by, one to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) monotonic: Monotonic,
    pub(crate) wall: WallTime,
}

/// For how long things count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// How long after its last PING a producer is listed.
    pub inactive_producer_timeout: Duration,
    /// How long a tombstone hides a producer.
    pub tombstone_lifetime: Duration,
}

impl Default for Lifetimes {
    /// nsqlookupd's.
    fn default() -> Self {
        Self {
            inactive_producer_timeout: Duration::from_secs(300),
            tombstone_lifetime: Duration::from_secs(45),
        }
    }
}

/// There is no room for another registration; see [`PLACES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are too many registrations")]
pub(crate) struct Full;

/// A producer in the lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegisteredNode {
    pub(crate) producer: ProducerDescription,
    /// Its topics, and whether it is tombstoned for each.
    pub(crate) topics: Vec<(TopicName, bool)>,
}

/// Everything that is registered.
#[derive(Debug)]
pub(crate) struct Registrations {
    lifetimes: Lifetimes,
    next_peer: u64,
    peers: BTreeMap<PeerId, Peer>,
    topics: BTreeMap<TopicName, BTreeMap<PeerId, Presence>>,
    channels: BTreeMap<TopicName, BTreeMap<ChannelName, BTreeMap<PeerId, Presence>>>,
    /// Keys, and producers at them.
    places: usize,
}

impl Registrations {
    pub(crate) fn new(lifetimes: Lifetimes) -> Self {
        Self {
            lifetimes,
            next_peer: 1,
            peers: BTreeMap::new(),
            topics: BTreeMap::new(),
            channels: BTreeMap::new(),
            places: 0,
        }
    }

    // === what producers do ===

    /// IDENTIFY.
    pub(crate) fn add_peer(&mut self, producer: ProducerDescription, now: Moment) -> PeerId {
        let id = PeerId(self.next_peer);
        self.next_peer += 1;
        self.peers.insert(
            id,
            Peer {
                producer,
                last_update: now,
            },
        );
        id
    }

    /// PING.
    pub(crate) fn ping(&mut self, peer: PeerId, now: Moment) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.last_update = now;
        }
    }

    /// REGISTER. A tombstone that the producer has for the topic stays.
    pub(crate) fn register(
        &mut self,
        peer: PeerId,
        topic: &TopicName,
        channel: Option<&ChannelName>,
    ) -> Result<(), Full> {
        // A topic and a channel, and the producer at both.
        if self.places + 4 > PLACES_MAX {
            return Err(Full);
        }
        if let Some(channel) = channel {
            let producers = channel_key(&mut self.channels, &mut self.places, topic, channel);
            add_producer(producers, &mut self.places, peer);
        }
        let producers = topic_key(&mut self.topics, &mut self.places, topic);
        add_producer(producers, &mut self.places, peer);
        Ok(())
    }

    /// UNREGISTER of a channel, or of a topic with all its channels.
    pub(crate) fn unregister(&mut self, peer: PeerId, topic: &TopicName, channel: Option<&ChannelName>) {
        match channel {
            Some(channel) => {
                let Some(producers) = self.channels.get_mut(topic).and_then(|of| of.get_mut(channel)) else {
                    return;
                };
                remove_producer(producers, &mut self.places, peer);
                if producers.is_empty() && channel.is_ephemeral() {
                    self.delete_channel(topic, channel);
                }
            }
            None => {
                for producers in self.channels.get_mut(topic).into_iter().flat_map(BTreeMap::values_mut) {
                    remove_producer(producers, &mut self.places, peer);
                }
                let Some(producers) = self.topics.get_mut(topic) else {
                    return;
                };
                remove_producer(producers, &mut self.places, peer);
                if producers.is_empty() && topic.is_ephemeral() {
                    self.topics.remove(topic);
                    self.places -= 1;
                }
            }
        }
    }

    /// The connection has ended. Every key stays, those of ephemeral names too.
    pub(crate) fn remove_peer(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
        let channels = self.channels.values_mut().flat_map(BTreeMap::values_mut);
        for producers in self.topics.values_mut().chain(channels) {
            remove_producer(producers, &mut self.places, peer);
        }
    }

    // === what administrators do ===

    /// Adds the key of a topic, or of a channel and its topic.
    pub(crate) fn create(&mut self, topic: &TopicName, channel: Option<&ChannelName>) -> Result<(), Full> {
        if self.places + 2 > PLACES_MAX {
            return Err(Full);
        }
        if let Some(channel) = channel {
            channel_key(&mut self.channels, &mut self.places, topic, channel);
        }
        topic_key(&mut self.topics, &mut self.places, topic);
        Ok(())
    }

    /// Removes a topic's key and those of its channels, with the producers at them.
    pub(crate) fn delete_topic(&mut self, topic: &TopicName) {
        for producers in self.channels.remove(topic).into_iter().flat_map(BTreeMap::into_values) {
            self.places -= 1 + producers.len();
        }
        if let Some(producers) = self.topics.remove(topic) {
            self.places -= 1 + producers.len();
        }
    }

    /// Removes a channel's key. Whether there was one.
    pub(crate) fn delete_channel(&mut self, topic: &TopicName, channel: &ChannelName) -> bool {
        let Some(channels) = self.channels.get_mut(topic) else {
            return false;
        };
        let removed = channels.remove(channel);
        if channels.is_empty() {
            self.channels.remove(topic);
        }
        let was_there = removed.is_some();
        self.places -= removed.map_or(0, |producers| 1 + producers.len());
        was_there
    }

    /// Hides the producers at `node` (`broadcast_address:http_port`) from those who look the topic up, for a while.
    pub(crate) fn tombstone(&mut self, topic: &TopicName, node: &[u8], now: Moment) {
        for (peer, presence) in self.topics.get_mut(topic).into_iter().flatten() {
            if self.peers.get(peer).is_some_and(|peer| peer.producer.is_at(node)) {
                presence.tombstoned_at = Some(now);
            }
        }
    }

    // === what is asked ===

    /// Whether the topic has a key.
    pub(crate) fn has_topic(&self, topic: &TopicName) -> bool {
        self.topics.contains_key(topic)
    }

    /// The topics that have a key.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &TopicName> {
        self.topics.keys()
    }

    /// The channels of a topic that have a key.
    pub(crate) fn channels(&self, topic: &TopicName) -> impl Iterator<Item = &ChannelName> {
        self.channels.get(topic).into_iter().flat_map(BTreeMap::keys)
    }

    /// The producers of a topic that are active and not tombstoned for it.
    pub(crate) fn producers(&self, topic: &TopicName, now: Moment) -> impl Iterator<Item = &ProducerDescription> {
        let at_topic = self.topics.get(topic).into_iter().flatten();
        at_topic.filter_map(move |(peer, presence)| {
            let peer = self.peers.get(peer)?;
            let is_listed = self.is_active(peer, now) && !self.is_tombstoned(presence, now);
            is_listed.then_some(&peer.producer)
        })
    }

    /// All active producers with their topics.
    pub(crate) fn nodes(&self, now: Moment) -> Vec<RegisteredNode> {
        let mut topics_of: BTreeMap<PeerId, Vec<(TopicName, bool)>> = BTreeMap::new();
        for (topic, producers) in &self.topics {
            for (peer, presence) in producers {
                let topics = topics_of.entry(*peer).or_default();
                topics.push((topic.clone(), self.is_tombstoned(presence, now)));
            }
        }
        let active = self.peers.iter().filter(|(_, peer)| self.is_active(peer, now));
        let node = |(id, peer): (&PeerId, &Peer)| RegisteredNode {
            producer: peer.producer.clone(),
            topics: topics_of.remove(id).unwrap_or_default(),
        };
        active.map(node).collect()
    }

    /// Every producer at every key, by nsqlookupd's name of the key.
    pub(crate) fn places(&self) -> BTreeMap<String, Vec<Place>> {
        let mut places = BTreeMap::new();
        let clients: Vec<Place> = self
            .peers
            .values()
            .map(|peer| Place::new(peer, Presence::default()))
            .collect();
        show(&mut places, "client::".to_owned(), clients);
        for (topic, producers) in &self.topics {
            show(&mut places, format!("topic:{topic}:"), self.at(producers));
        }
        for (topic, channels) in &self.channels {
            for (channel, producers) in channels {
                show(&mut places, format!("channel:{topic}:{channel}"), self.at(producers));
            }
        }
        places
    }

    fn at(&self, producers: &BTreeMap<PeerId, Presence>) -> Vec<Place> {
        let known = producers
            .iter()
            .filter_map(|(peer, presence)| Some((self.peers.get(peer)?, presence)));
        known.map(|(peer, presence)| Place::new(peer, *presence)).collect()
    }

    fn is_active(&self, peer: &Peer, now: Moment) -> bool {
        now.monotonic.since(peer.last_update.monotonic) <= self.lifetimes.inactive_producer_timeout
    }

    fn is_tombstoned(&self, presence: &Presence, now: Moment) -> bool {
        presence
            .tombstoned_at
            .is_some_and(|at| now.monotonic.since(at.monotonic) < self.lifetimes.tombstone_lifetime)
    }
}

/// Keys without producers are not shown.
fn show(places: &mut BTreeMap<String, Vec<Place>>, key: String, producers: Vec<Place>) {
    if !producers.is_empty() {
        places.insert(key, producers);
    }
}

fn topic_key<'a>(
    topics: &'a mut BTreeMap<TopicName, BTreeMap<PeerId, Presence>>,
    places: &mut usize,
    topic: &TopicName,
) -> &'a mut BTreeMap<PeerId, Presence> {
    topics.entry(topic.clone()).or_insert_with(|| {
        *places += 1;
        BTreeMap::new()
    })
}

fn channel_key<'a>(
    channels: &'a mut BTreeMap<TopicName, BTreeMap<ChannelName, BTreeMap<PeerId, Presence>>>,
    places: &mut usize,
    topic: &TopicName,
    channel: &ChannelName,
) -> &'a mut BTreeMap<PeerId, Presence> {
    let channels = channels.entry(topic.clone()).or_default();
    channels.entry(channel.clone()).or_insert_with(|| {
        *places += 1;
        BTreeMap::new()
    })
}

fn add_producer(producers: &mut BTreeMap<PeerId, Presence>, places: &mut usize, peer: PeerId) {
    producers.entry(peer).or_insert_with(|| {
        *places += 1;
        Presence::default()
    });
}

fn remove_producer(producers: &mut BTreeMap<PeerId, Presence>, places: &mut usize, peer: PeerId) {
    if producers.remove(&peer).is_some() {
        *places -= 1;
    }
}
