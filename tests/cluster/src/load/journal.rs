//! Everything that happened to the clients, in order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nsquorum_protocol::ChannelName;

/// What became of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `OK`.
    Ok,
    /// An error frame.
    Refused(String),
    /// The connection ended before an answer came.
    Lost(String),
}

/// A publish and its answer.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The node of the producer, from 0.
    pub place: usize,
    /// Which message; the bodies of one producer are numbered as they were sent.
    pub body: String,
    /// When it was given to the connection.
    pub sent: Instant,
    /// When the answer was there.
    pub answered: Instant,
    /// The answer.
    pub answer: Answer,
}

/// One connection of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId {
    /// The node, from 0.
    pub place: usize,
    /// No other connection has it.
    pub number: u64,
}

/// A time in which a node's process lived and did nothing.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// The node, from 0.
    pub place: usize,
    /// When it stopped.
    pub from: Instant,
    /// When it was as well as the others again.
    pub to: Instant,
}

/// Something that happened to a consumer.
#[derive(Clone, Debug)]
pub enum Record {
    /// A message came.
    Delivered {
        /// To which connection.
        connection: ConnectionId,
        /// Of which channel.
        channel: ChannelName,
        /// Its number.
        seq: u64,
        /// As the message says.
        attempts: u16,
        /// Its body.
        body: String,
        /// When.
        at: Instant,
    },
    /// It was finished: FIN is given to the connection.
    Finished {
        /// Over which connection.
        connection: ConnectionId,
        /// Of which channel.
        channel: ChannelName,
        /// Its number.
        seq: u64,
        /// When.
        at: Instant,
    },
    /// The node refused a FIN.
    Refused {
        /// Over which connection.
        connection: ConnectionId,
        /// The error frame.
        text: String,
    },
    /// The connection has ended, not by the consumer's will.
    Ended {
        /// Which.
        connection: ConnectionId,
        /// When it was noticed.
        at: Instant,
    },
}

/// What happened.
#[derive(Debug, Default)]
pub struct Journal {
    publishes: Mutex<Vec<Publish>>,
    records: Mutex<Vec<Record>>,
    connections: AtomicU64,
}

impl Journal {
    /// Another connection of a consumer.
    pub(super) fn connection(&self, place: usize) -> ConnectionId {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        ConnectionId { place, number }
    }

    pub(super) fn published(&self, publish: Publish) {
        lock(&self.publishes).push(publish);
    }

    pub(super) fn record(&self, record: Record) {
        lock(&self.records).push(record);
    }

    /// Takes in a publish that somebody else made.
    pub fn add(&self, publish: Publish) {
        self.published(publish);
    }

    /// All publishes that are answered, in the order of their answers.
    #[must_use]
    pub fn publishes(&self) -> Vec<Publish> {
        lock(&self.publishes).clone()
    }

    /// What happened to consumers.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        lock(&self.records).clone()
    }

    /// When the first publish was answered `OK` that the producer at this node sent at `from` or later.
    #[must_use]
    pub fn first_ok(&self, place: usize, from: Instant) -> Option<Instant> {
        let publishes = lock(&self.publishes);
        let later = publishes.iter().rev().take_while(|publish| publish.answered >= from);
        let oks =
            later.filter(|publish| (publish.place, &publish.answer) == (place, &Answer::Ok) && publish.sent >= from);
        oks.map(|publish| publish.answered).min()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
