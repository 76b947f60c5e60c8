//! Randomness for jitter and sampling. Not for secrets.

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

/// A source of random numbers.
pub trait Random: Send + Sync {
    /// A random number over all of `u64`.
    fn next(&self) -> u64;

    /// A random number below `bound`; zero for a bound of zero.
    fn below(&self, bound: u64) -> u64 {
        // The bias for bounds far below 2^64 is immaterial for jitter and sampling.
        if bound == 0 { 0 } else { self.next() % bound }
    }
}

/// The system's generator.
#[derive(Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn next(&self) -> u64 {
        rand::rng().next_u64()
    }
}

/// A generator that repeats from its seed.
#[derive(Debug)]
pub struct SeededRandom(Mutex<StdRng>);

impl SeededRandom {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Random for SeededRandom {
    fn next(&self) -> u64 {
        self.0.lock().next_u64()
    }
}
