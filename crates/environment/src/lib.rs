//! The world outside the process, as traits: clock, randomness and spawning.
//!
//! `broker`, `consensus` and `storage` never ask the operating system for the time or for randomness themselves (clippy's
//! disallowed list refuses it). They take an [`Environment`], so that a test owns time, and so that a simulation can run the real
//! code from a seed. This cannot be added later: one forgotten `Instant::now` makes a run unrepeatable.
//!
//! Two kinds of time exist and are different types: [`Monotonic`] never goes back and means nothing outside this process;
//! [`WallTime`] is what people read and may jump at any moment. Only the log clock of a topic (crate `nsquorum-topic`) joins them.

mod clock;
mod random;
mod spawn;

use std::sync::Arc;

pub use clock::{Clock, ManualClock, Monotonic, SystemClock, WallTime};
pub use random::{Random, SeededRandom, SystemRandom};
pub use spawn::{Spawn, Task, TokioSpawn};

/// Everything that a component may ask of the outside world. A clone refers to the same world.
#[derive(Clone)]
pub struct Environment {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness: jitter and sampling, never secrets.
    pub random: Arc<dyn Random>,
    /// Starting tasks.
    pub spawn: Arc<dyn Spawn>,
}

impl Environment {
    /// The real world: the system's clocks, the system's randomness, tokio's tasks.
    pub fn system() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SystemRandom),
            spawn: Arc::new(TokioSpawn),
        }
    }

    /// A world for tests: the given clock, randomness from `seed`, tokio's tasks.
    pub fn manual(clock: Arc<ManualClock>, seed: u64) -> Self {
        Self {
            clock,
            random: Arc::new(SeededRandom::new(seed)),
            spawn: Arc::new(TokioSpawn),
        }
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}
