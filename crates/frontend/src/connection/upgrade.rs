//! What IDENTIFY has granted and the connection does not have yet.
//!
//! nsqd's order: the answer in the old form, then TLS, an `OK` in it, then the compression, and an `OK` in that. Between the answer and the
//! last `OK` nothing else is written, because a client reads these frames one by one while it changes its side, and nothing is
//! read as a command.

use bytes::Bytes;
use nsquorum_environment::Monotonic;
use nsquorum_protocol::{Compression, ProtocolError, ServerFeatures, frame};

use super::machine::{Machine, Phase};
use super::replies::Reply;

/// A layer to be put under the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    Tls,
    Compress(Compression),
}

/// Where one kind of layer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer<T> {
    Absent,
    Granted(T),
    Present,
}

/// The layers of a connection.
#[derive(Debug)]
pub(super) struct Layers {
    tls: Layer<()>,
    compression: Layer<Compression>,
}

impl Layers {
    pub(super) fn none() -> Self {
        Self {
            tls: Layer::Absent,
            compression: Layer::Absent,
        }
    }

    /// What of the node's features this connection can still be given: a layer comes once, and TLS under a compression.
    pub(super) fn offer(&self, features: ServerFeatures) -> ServerFeatures {
        let uncompressed = self.compression == Layer::Absent;
        ServerFeatures {
            tls_v1: features.tls_v1 && uncompressed && self.tls == Layer::Absent,
            deflate: features.deflate && uncompressed,
            snappy: features.snappy && uncompressed,
            ..features
        }
    }

    pub(super) fn grant(&mut self, tls: bool, compression: Option<Compression>) {
        if tls {
            self.tls = Layer::Granted(());
        }
        if let Some(compression) = compression {
            self.compression = Layer::Granted(compression);
        }
    }

    pub(super) fn has_tls(&self) -> bool {
        self.tls == Layer::Present
    }

    /// The next layer to put on.
    pub(super) fn next(&self) -> Option<Upgrade> {
        match (self.tls, self.compression) {
            (Layer::Granted(()), _) => Some(Upgrade::Tls),
            (_, Layer::Granted(compression)) => Some(Upgrade::Compress(compression)),
            _ => None,
        }
    }

    fn put_on(&mut self, upgrade: Upgrade) {
        match upgrade {
            Upgrade::Tls => self.tls = Layer::Present,
            Upgrade::Compress(_) => self.compression = Layer::Present,
        }
    }
}

impl Machine {
    /// The layer that is to be put on now: everything before it is written. Reported by [`upgraded`](Self::upgraded).
    pub(crate) fn upgrade_due(&self) -> Option<Upgrade> {
        let due = self.phase == Phase::Open && self.replies.is_empty() && self.output.is_empty();
        self.layers.next().filter(|_| due)
    }

    /// The layer of the last [`upgrade_due`](Self::upgrade_due) is there, or could not be had.
    pub(crate) fn upgraded(&mut self, upgrade: Upgrade, result: Result<(), impl std::fmt::Display>, now: Monotonic) {
        match result {
            Ok(()) => {
                self.layers.put_on(upgrade);
                self.reply(Reply::Response(Bytes::from_static(frame::OK)), now);
            }
            Err(cause) => {
                self.layers = Layers::none();
                self.refuse(ProtocolError::identify_failed(cause), now);
            }
        }
        self.deadlines.waiting_begins(now);
    }
}
