//! Who campaigns for which group, and when: decided by the node, once for all of its groups.
//!
//! openraft's own timers are off: with many groups their floor is seconds. Instead every pair of nodes exchanges heartbeats that name the
//! groups that the sender leads and whose core goes on, so the cost of idle groups is a few bytes. A leader that is *silent* for
//! [`LEASE`] is replaced by the best-ranked replica; a leader whose process is known to be *gone* (this node's own redial was refused, or
//! a later incarnation answers) is replaced at once. Nobody gives up a lease on another node's word.
//!
//! All of this is about time, never about safety: a wrong decision costs a pre-vote round or an election. What may not go wrong (two leaders
//! in one term, lost entries) is Raft's, and nothing that is delivered rests on a lease but the number of duplicates.

mod candidacy;
mod cut_off;
mod driver;
mod followers;
mod own_disk;
mod pulse;
mod quorum;

use std::time::Duration;

pub(crate) use cut_off::is_cut_off;
pub(crate) use driver::{Elected, Elections};
pub(crate) use followers::{Followers, Progress};
pub(crate) use pulse::Pulse;
pub(crate) use quorum::QuorumClock;

/// Between two heartbeats to a peer.
pub(crate) const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(150);
/// A leader that was not heard for this long may be replaced, and knows so itself. Six heartbeats: shorter, and a stalled disk or a busy
/// machine costs leaderships.
pub(crate) const LEASE: Duration = Duration::from_millis(900);
/// Each rank waits this much longer than the one before it; an election takes a few milliseconds, so the second is seldom needed.
const STAGGER: Duration = Duration::from_millis(150);
/// Between a campaign without success and the next one, at first; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(15);
const RETRY_MAX: Duration = Duration::from_millis(300);
