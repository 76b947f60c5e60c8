//! Counts and seeds from the environment.

/// The number in this environment variable, or the default.
///
/// # Panics
/// If the variable holds something else than a number: a full run with a mistyped count must not pass as a small one.
#[must_use]
pub fn count(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Err(_) => default,
        Ok(text) => match text.parse() {
            Ok(number) => number,
            Err(_) => panic!("{variable} is {text:?}, which is not a number"),
        },
    }
}

/// The seed of this run: `NSQUORUM_SEED`, or a fresh one. Print it: it repeats the choices, though not the timing.
#[must_use]
pub fn seed() -> u64 {
    // Short enough to be typed.
    count("NSQUORUM_SEED", u64::from(rand::random::<u32>()))
}
