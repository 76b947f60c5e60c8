//! How much memory a parser takes.

use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Runs `parse`, which must not hold more than `bytes_max` bytes of the heap at any moment beyond what was held before.
pub fn bounded<T>(bytes_max: usize, parse: impl FnOnce() -> T) -> T {
    HEAP.reset_peak_usage();
    let before = HEAP.current_usage();
    let parsed = parse();
    let taken = HEAP.peak_usage() - before;
    assert!(
        taken <= bytes_max,
        "{taken} bytes of memory were taken where {bytes_max} are enough"
    );
    parsed
}
