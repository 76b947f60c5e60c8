//! Random histories of one topic on three nodes: routers, leaders and claims as step machines.
//!
//! The machines are the real ones and talk in real frames. Below them stands one log that elects, refuses and loses its uncommitted end
//! ([`group`]); between them links that reorder between lanes, repeat, lose and break ([`network`]); above them publishers and consumers that
//! keep account of what they were told ([`clients`]). [`history`] throws the dice, and then lets everything heal: what was answered OK must
//! be in the log once, nothing twice, every connection's publishes in its order; no consumer of a node that lives may be given what somebody
//! else holds or has finished; every message must be finished in the end, and no consumer may ever have been disconnected but by a node that takes itself
//! for cut off.
//!
//! There are 100 of them unless [`crate::histories`] is told otherwise.

mod clients;
mod group;
mod history;
mod network;
mod situations;

use crate::histories;
use history::{Census, History};

#[test]
fn promises_hold_over_leader_changes_deaths_and_bad_links() {
    let mut census = Census::default();
    let kept = include_str!("seeds.txt");
    let (histories, base) = histories::run_all(kept, "cluster_tests/seeds.txt", 100, |seed| {
        census.add(&History::run(seed));
    });
    println!("{histories} histories from seed {base}: {census:?}");
    if histories >= 50 {
        census.assert_rich(histories);
    }
}
