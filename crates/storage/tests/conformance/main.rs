//! The contract of `nsquorum_storage::log`, run against every implementation.

#![allow(clippy::unwrap_used)]

mod checkpoints;
mod entries;
mod groups;
mod ordering;
#[path = "../support/mod.rs"]
mod support;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use nsquorum_storage::{Checkpoint, CheckpointSlot, GroupLog, LogState, NodeStore, SpaceState, StorageError, Vote};
use nsquorum_topic::{GroupId, NodeId, Term};
use support::{Memory, Rocks, Subject, at, completion, done, entries, entry, id, ids, ignore, open, wait};

macro_rules! conformance {
    ($($module:ident::$name:ident)*) => {
        mod memory {
            $(#[test] fn $name() { super::$module::$name(<super::Memory as super::Subject>::new()); })*
        }
        mod rocks {
            $(#[test] fn $name() { super::$module::$name(<super::Rocks as super::Subject>::new()); })*
        }
    };
}

conformance! {
    entries::a_new_group_is_empty
    entries::appends_are_readable_on_return_and_there_after_a_restart
    entries::reads_are_clipped_to_what_exists_and_bounded_in_bytes
    entries::truncation_and_new_entries_replace_old_ones_at_once
    entries::truncating_nothing_changes_nothing
    entries::a_log_may_begin_anywhere_above_the_purge_mark
    entries::purging_may_pass_the_end
    entries::purging_back_changes_nothing
    entries::long_and_short_prefixes_are_purged_alike
    ordering::completions_come_in_the_order_of_the_calls
    ordering::completions_may_call_the_log
    ordering::votes_and_commit_marks_survive
    ordering::a_commit_mark_never_lies_beyond_the_log_after_a_restart
    checkpoints::checkpoints_are_put_moved_and_cleared
    checkpoints::a_checkpoint_of_many_parts_survives
    groups::groups_do_not_see_each_other
    groups::a_deleted_group_is_gone_and_its_number_usable
    groups::a_closed_store_refuses_everything
    entries::a_hole_in_a_log_is_refused
    ordering::pending_bytes_return_to_zero
    ordering::readers_and_a_writer_at_once
}
