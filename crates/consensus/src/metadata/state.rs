//! What the metadata group knows.

use std::collections::{BTreeMap, BTreeSet};

use nsquorum_protocol::TopicName;
use nsquorum_topic::{GroupId, Seq};
use serde::{Deserialize, Serialize};

use super::command::MetadataCommand;

/// A topic that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicRecord {
    /// Its Raft group; never used for another topic.
    pub group: GroupId,
    /// The last message number that earlier lives of the name have used.
    pub seq_base: Seq,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredTopic {
    group: u64,
    seq_base: u64,
}

/// The state of the metadata group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataState {
    version: u32,
    next_group: u64,
    topics: BTreeMap<String, StoredTopic>,
    /// Names that were deleted, with the last number used: ids of one name never repeat.
    retired: BTreeMap<String, u64>,
    /// Deleted groups whose data may still be on some replica. Only a tombstone deletes data, never absence.
    tombstones: BTreeSet<u64>,
}

impl Default for MetadataState {
    fn default() -> Self {
        Self {
            version: Self::VERSION,
            next_group: GroupId::METADATA.get() + 1,
            topics: BTreeMap::new(),
            retired: BTreeMap::new(),
            tombstones: BTreeSet::new(),
        }
    }
}

impl MetadataState {
    const VERSION: u32 = 1;

    /// The topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = (TopicName, TopicRecord)> + '_ {
        self.topics.iter().map(|(name, stored)| {
            let name = TopicName::try_from(name.as_str()).expect("names are checked before they are stored");
            (name, stored.record())
        })
    }

    /// One topic.
    pub fn topic(&self, name: &TopicName) -> Option<TopicRecord> {
        self.topics.get(name.as_str()).map(StoredTopic::record)
    }

    /// Deleted groups whose data is to be deleted.
    pub fn tombstones(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.tombstones.iter().map(|group| GroupId::new(*group))
    }

    /// Folds one command into the state.
    pub(crate) fn apply(&mut self, command: &MetadataCommand) -> Result<(), String> {
        match command {
            MetadataCommand::Barrier => {}
            MetadataCommand::CreateTopic { name } => {
                TopicName::try_from(name.as_str()).map_err(|error| format!("topic name {name:?}: {error}"))?;
                if !self.topics.contains_key(name) {
                    let seq_base = self.retired.get(name).copied().unwrap_or(0);
                    self.topics.insert(
                        name.clone(),
                        StoredTopic {
                            group: self.next_group,
                            seq_base,
                        },
                    );
                    self.next_group += 1;
                }
            }
            MetadataCommand::DeleteTopic { name, group, last_seq } => {
                if self.topics.get(name).is_some_and(|topic| topic.group == *group) {
                    self.topics.remove(name);
                    self.retired.insert(name.clone(), *last_seq);
                    self.tombstones.insert(*group);
                }
            }
            MetadataCommand::ForgetGroup { group } => {
                self.tombstones.remove(group);
            }
        }
        Ok(())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data always serializes")
    }

    /// Reads an encoded state (a checkpoint of the metadata group). Offline tools use it to name groups.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let state: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if state.version != Self::VERSION {
            return Err(format!("metadata version {} is not known here", state.version));
        }
        if let Some(name) = state
            .topics
            .keys()
            .find(|name| TopicName::try_from(name.as_str()).is_err())
        {
            return Err(format!("topic name {name:?} is not valid"));
        }
        Ok(state)
    }
}

impl StoredTopic {
    fn record(&self) -> TopicRecord {
        TopicRecord {
            group: GroupId::new(self.group),
            seq_base: Seq::new(self.seq_base),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(state: &mut MetadataState, name: &str) -> TopicRecord {
        state
            .apply(&MetadataCommand::CreateTopic { name: name.into() })
            .expect("valid");
        state
            .topic(&TopicName::try_from(name).expect("valid"))
            .expect("created")
    }

    #[test]
    fn creating_twice_is_creating_once() {
        let mut state = MetadataState::default();
        let first = create(&mut state, "orders");
        assert_eq!(create(&mut state, "orders"), first);
        assert_ne!(create(&mut state, "invoices").group, first.group);
    }

    #[test]
    fn a_name_goes_on_counting_after_its_deletion_and_a_group_number_is_never_reused() {
        let mut state = MetadataState::default();
        let first = create(&mut state, "orders");
        let delete = MetadataCommand::DeleteTopic {
            name: "orders".into(),
            group: first.group.get(),
            last_seq: 41,
        };
        state.apply(&delete).expect("valid");
        assert_eq!(state.tombstones().collect::<Vec<_>>(), [first.group]);
        let second = create(&mut state, "orders");
        assert_eq!(second.seq_base, Seq::new(41));
        assert_ne!(second.group, first.group);
        state.apply(&delete).expect("a late delete names the old group");
        assert_eq!(
            state.topic(&TopicName::try_from("orders").expect("valid")),
            Some(second)
        );
        state
            .apply(&MetadataCommand::ForgetGroup {
                group: first.group.get(),
            })
            .expect("valid");
        assert_eq!(state.tombstones().count(), 0);
    }

    #[test]
    fn the_encoding_is_canonical_and_refuses_other_versions() {
        let mut state = MetadataState::default();
        create(&mut state, "b");
        create(&mut state, "a");
        let bytes = state.encode();
        assert_eq!(MetadataState::decode(&bytes).as_ref(), Ok(&state));
        let newer = String::from_utf8(bytes)
            .expect("json")
            .replace("\"version\":1", "\"version\":2");
        assert!(MetadataState::decode(newer.as_bytes()).is_err());
    }

    #[test]
    fn a_bad_name_is_impossible() {
        let mut state = MetadataState::default();
        assert!(
            state
                .apply(&MetadataCommand::CreateTopic {
                    name: "no spaces".into()
                })
                .is_err()
        );
    }
}
