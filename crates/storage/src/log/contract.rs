//! The checks that every implementation makes on its callers.

use nsquorum_topic::GroupId;

use super::{CHECKPOINT_STATE_BYTES_MAX, Checkpoint, CheckpointSlot, LogState, MEMBERSHIP_BYTES_MAX};
use crate::entry::Entry;

/// Panics if the entries would leave a hole or belong to another group; `state` is the log before them.
pub(crate) fn assert_appendable(group: GroupId, state: &LogState, entries: &[Entry]) {
    let Some(first) = entries.first() else { return };
    let first = first.header().index;
    if state.last == state.last_purged {
        assert!(
            state.last_purged.is_none_or(|purged| purged.index < first),
            "group {group}: append at {first}, purged up to {:?}",
            state.last_purged
        );
    } else {
        let last = state.last.expect("a log that has entries has a last one").index;
        assert!(last.next() == first, "group {group}: append at {first} after {last}");
    }
    let mut expected = first;
    for entry in entries {
        let header = entry.header();
        assert!(
            header.group == group,
            "group {group}: append of an entry of group {}",
            header.group
        );
        assert!(
            header.index == expected,
            "group {group}: append at {} after {expected}",
            header.index
        );
        expected = expected.next();
    }
}

/// Panics if the checkpoint has no place or is too large.
pub(crate) fn assert_checkpoint(group: GroupId, slots: &[CheckpointSlot], checkpoint: &Checkpoint) {
    assert!(!slots.is_empty(), "group {group}: a checkpoint for no place");
    let (state, membership) = (checkpoint.state.len(), checkpoint.membership.len());
    assert!(
        state <= CHECKPOINT_STATE_BYTES_MAX,
        "group {group}: a checkpoint of {state} bytes"
    );
    assert!(
        membership <= MEMBERSHIP_BYTES_MAX,
        "group {group}: a membership of {membership} bytes"
    );
}
