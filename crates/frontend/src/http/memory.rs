//! The memory block of /stats.

use serde::Serialize;

/// nsqd's keys. What belongs to Go's runtime is zero; the memory in use is the process's resident set.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Memory {
    pub(super) heap_objects: u64,
    pub(super) heap_idle_bytes: u64,
    pub(super) heap_in_use_bytes: u64,
    pub(super) heap_released_bytes: u64,
    pub(super) gc_pause_usec_100: u64,
    pub(super) gc_pause_usec_99: u64,
    pub(super) gc_pause_usec_95: u64,
    pub(super) next_gc_bytes: u64,
    pub(super) gc_total_runs: u32,
}

impl Memory {
    /// The figures of this process now; zeros where the system does not tell.
    pub(super) fn of_process() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        Self {
            heap_in_use_bytes: kib.unwrap_or(0) * 1024,
            ..Self::default()
        }
    }
}
