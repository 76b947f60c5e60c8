//! What the metadata group tells `verify`: which topic is which group.
//!
//! Storage lies below the crate that knows the metadata's format, so that crate lends its state machine.

use nsquorum_topic::{Digest, GroupId, Seq};

use super::replay::{Findings, Machine};
use crate::entry::Entry;

/// A topic as the metadata group knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTopic {
    /// Its group.
    pub group: GroupId,
    /// Its name.
    pub name: String,
    /// The number below its first message.
    pub seq_base: Seq,
}

/// The metadata group's state machine, as far as `verify` needs it. Errors are words for an operator.
pub trait MetadataReplay {
    /// Replaces the state by a checkpoint's.
    ///
    /// # Errors
    /// If the state cannot be read; it is unchanged then.
    fn restore(&mut self, state: &[u8]) -> Result<(), String>;

    /// Folds an entry of any kind into the state.
    ///
    /// # Errors
    /// If no correct leader can have written the entry.
    fn apply(&mut self, entry: &Entry) -> Result<(), String>;

    /// The state as a checkpoint would hold it.
    fn encode(&self) -> Vec<u8>;

    /// The topics that exist.
    fn topics(&self) -> Vec<NamedTopic>;
}

pub(crate) struct MetadataMachine<'a>(pub(crate) &'a mut dyn MetadataReplay);

impl Machine for MetadataMachine<'_> {
    fn begin(&mut self) -> bool {
        // It is handed over as new.
        true
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        self.0.restore(state)
    }

    fn see(&mut self, _entry: &Entry, _findings: &mut Findings) {}

    fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        self.0.apply(entry)
    }

    fn encode(&self) -> Vec<u8> {
        self.0.encode()
    }

    fn digest(&self) -> Option<Digest> {
        None
    }
}

/// Checks entries and nothing more: for a metadata group that nobody lent a state machine for.
pub(crate) struct NoMachine;

impl Machine for NoMachine {
    fn has_state(&self) -> bool {
        false
    }

    fn begin(&mut self) -> bool {
        false
    }

    fn restore(&mut self, _state: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn see(&mut self, _entry: &Entry, _findings: &mut Findings) {}

    fn apply(&mut self, _entry: &Entry) -> Result<(), String> {
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    fn digest(&self) -> Option<Digest> {
        None
    }
}
