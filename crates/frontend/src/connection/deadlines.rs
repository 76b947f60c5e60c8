//! When a connection must act although nothing arrives: nsqd's heartbeats and deadlines.
//!
//! The read deadline runs only while the connection waits for its client: not while the client waits for an answer, and not while
//! back-pressure keeps the connection from reading. Otherwise a slow disk would look like a dead client.

use std::time::Duration;

use nsquorum_environment::Monotonic;

/// Heartbeat, read deadline and write deadline of one connection.
#[derive(Debug)]
pub(crate) struct Deadlines {
    /// The interval of deadlines: the latest IDENTIFY's. `None`: no deadlines.
    interval: Option<Duration>,
    /// The interval of heartbeats: the first IDENTIFY's (nsqd re-arms its ticker once).
    heartbeat_interval: Option<Duration>,
    next_heartbeat: Option<Monotonic>,
    waiting_since: Monotonic,
    /// The output has waited for the socket since.
    stalled_since: Option<Monotonic>,
}

/// What is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) heartbeat: bool,
    pub(crate) client_silent: bool,
    pub(crate) client_stuck: bool,
}

impl Deadlines {
    pub(crate) fn new(interval: Option<Duration>, now: Monotonic) -> Self {
        let next_heartbeat = interval.map(|interval| now + interval);
        Self {
            interval,
            heartbeat_interval: interval,
            next_heartbeat,
            waiting_since: now,
            stalled_since: None,
        }
    }

    /// IDENTIFY. Only the first changes the heartbeats.
    pub(crate) fn identified(&mut self, interval: Option<Duration>, first: bool, now: Monotonic) {
        self.interval = interval;
        if first {
            self.heartbeat_interval = interval;
            self.next_heartbeat = interval.map(|interval| now + interval);
        }
    }

    /// A command arrived, or an answer went out: the client has its full time again.
    pub(crate) fn waiting_begins(&mut self, now: Monotonic) {
        self.waiting_since = now;
    }

    /// The socket takes no more.
    pub(crate) fn write_stalled(&mut self, now: Monotonic) {
        self.stalled_since.get_or_insert(now);
    }

    /// The socket took something.
    pub(crate) fn write_progressed(&mut self) {
        self.stalled_since = None;
    }

    /// The first of all deadlines. `waits_for_client`: whether the read deadline counts now.
    pub(crate) fn next(&self, waits_for_client: bool) -> Option<Monotonic> {
        let read = self.read_deadline().filter(|_| waits_for_client);
        [self.next_heartbeat, read, self.write_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// What is due now; a due heartbeat is taken and the next one set.
    pub(crate) fn take_due(&mut self, waits_for_client: bool, now: Monotonic) -> Due {
        let heartbeat = self.next_heartbeat.is_some_and(|at| at <= now);
        if heartbeat {
            self.next_heartbeat = self.heartbeat_interval.map(|interval| now + interval);
        }
        Due {
            heartbeat,
            client_silent: waits_for_client && self.read_deadline().is_some_and(|at| at <= now),
            client_stuck: self.write_deadline().is_some_and(|at| at <= now),
        }
    }

    fn read_deadline(&self) -> Option<Monotonic> {
        Some(self.waiting_since + self.interval? * 2)
    }

    fn write_deadline(&self) -> Option<Monotonic> {
        Some(self.stalled_since? + self.interval?)
    }
}
