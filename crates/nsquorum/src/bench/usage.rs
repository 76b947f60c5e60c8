//! What a case costs: the server's and this process's CPU time and memory from `/proc`, and the server's own counts of
//! syncs and written bytes from `/metrics`. Everything here is optional: a server without the metric, or on another
//! machine, is measured without it.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

use crate::http_request::request;

/// The metric with the number of syncs.
const FSYNCS_METRIC: &str = "nsquorum_storage_fsyncs_total";

/// The metric with the bytes that were written to storage.
const WRITTEN_METRIC: &str = "nsquorum_storage_written_bytes_total";

/// The metric with the topics' batches: its count, and its sum of messages.
const BATCHES_METRIC: &str = "nsquorum_batch_messages_count";
const BATCH_MESSAGES_METRIC: &str = "nsquorum_batch_messages_sum";

/// The metric with the entries that were deleted from logs.
const PURGED_METRIC: &str = "nsquorum_storage_purged_entries_total";

/// The metric with the frames between nodes.
const FRAMES_METRIC: &str = "nsquorum_link_sent_frames_total";

/// The unit of CPU times in `/proc`: USER_HZ, 100 per second on every Linux ABI that this builds for.
const TICK: Duration = Duration::from_millis(10);

/// Where to look.
#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    /// `host:port` of the HTTP interface of each of its nodes.
    pub(super) http_addresses: Vec<String>,
    /// Its processes on this machine.
    pub(super) pids: Vec<u32>,
}

/// Running totals at one moment.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub(super) struct Usage {
    pub(super) server_cpu: Option<Duration>,
    pub(super) client_cpu: Option<Duration>,
    pub(super) fsyncs: Option<f64>,
    pub(super) written_bytes: Option<f64>,
    pub(super) batches: Option<f64>,
    pub(super) batch_messages: Option<f64>,
    pub(super) purged_entries: Option<f64>,
    pub(super) frames: Option<f64>,
    /// Of threads that live: a thread that has ended takes its count along.
    pub(super) wake_ups: Option<f64>,
}

impl Server {
    /// The totals now.
    pub(super) async fn usage(&self) -> Usage {
        // The server's metrics before the client's CPU: reading them is not to count as the load's cost twice.
        let mut metrics = Vec::with_capacity(self.http_addresses.len());
        for address in &self.http_addresses {
            metrics.push(request(address, "GET", "/metrics").await.ok());
        }
        let metric_of_all = |name| {
            sum(metrics
                .iter()
                .map(|text| text.as_deref().and_then(|text| metric(text, name))))
        };
        // A node shows these only once it has led a topic, or sent something.
        let metric_or_zero = |name| {
            sum(metrics
                .iter()
                .map(|text| Some(metric(text.as_deref()?, name).unwrap_or(0.0))))
        };
        Usage {
            server_cpu: sum(self.pids.iter().map(|pid| cpu_time(&pid.to_string()))),
            client_cpu: cpu_time("self"),
            fsyncs: metric_of_all(FSYNCS_METRIC),
            written_bytes: metric_of_all(WRITTEN_METRIC),
            batches: metric_or_zero(BATCHES_METRIC),
            batch_messages: metric_or_zero(BATCH_MESSAGES_METRIC),
            purged_entries: metric_or_zero(PURGED_METRIC),
            frames: metric_or_zero(FRAMES_METRIC),
            wake_ups: sum(self.pids.iter().map(|pid| wake_ups(*pid))),
        }
    }

    /// Makes the kernel count the server's peak memory from now on, where it lets us.
    pub(super) fn reset_peak_memory(&self) {
        for pid in &self.pids {
            // Refused for another user's process: then the peak is that since its start.
            drop(fs::write(format!("/proc/{pid}/clear_refs"), "5"));
        }
    }

    /// The peak resident memory in bytes of the process that had most.
    pub(super) fn peak_memory_bytes(&self) -> Option<u64> {
        let status = |pid| fs::read_to_string(format!("/proc/{pid}/status")).ok();
        let peak = |pid| status_bytes(&status(pid)?, "VmHWM:");
        self.pids.iter().filter_map(peak).max()
    }

    /// Removes a topic of the benchmark with its messages, where the HTTP address is known.
    pub(super) async fn delete_topic(&self, topic: &str) -> anyhow::Result<()> {
        if let Some(address) = self.http_addresses.first() {
            request(address, "POST", &format!("/topic/delete?topic={topic}"))
                .await
                .with_context(|| format!("cannot delete the topic {topic}"))?;
        }
        Ok(())
    }
}

impl Usage {
    /// What happened since `earlier`; `None` where either is unknown.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let time = |now: Option<Duration>, then: Option<Duration>| Some(now?.saturating_sub(then?));
        let count = |now: Option<f64>, then: Option<f64>| Some(now? - then?);
        Self {
            server_cpu: time(self.server_cpu, earlier.server_cpu),
            client_cpu: time(self.client_cpu, earlier.client_cpu),
            fsyncs: count(self.fsyncs, earlier.fsyncs),
            written_bytes: count(self.written_bytes, earlier.written_bytes),
            batches: count(self.batches, earlier.batches),
            batch_messages: count(self.batch_messages, earlier.batch_messages),
            purged_entries: count(self.purged_entries, earlier.purged_entries),
            frames: count(self.frames, earlier.frames),
            wake_ups: count(self.wake_ups, earlier.wake_ups),
        }
    }
}

/// `None` of nothing, and where one is unknown.
fn sum<T: std::iter::Sum>(values: impl ExactSizeIterator<Item = Option<T>>) -> Option<T> {
    (values.len() > 0).then_some(())?;
    values.sum()
}

/// User and system time of a process, all threads, ended ones included.
fn cpu_time(process: &str) -> Option<Duration> {
    parse_cpu_time(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// `utime` and `stime` are fields 14 and 15; the name in field 2 may hold spaces and parentheses.
fn parse_cpu_time(stat: &str) -> Option<Duration> {
    let mut after_name = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u32 = after_name.next()?.parse().ok()?;
    let system: u32 = after_name.next()?.parse().ok()?;
    TICK.checked_mul(user.checked_add(system)?)
}

/// How often the threads of a process slept: each time, something had to wake them.
fn wake_ups(pid: u32) -> Option<f64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let slept = |path: std::path::PathBuf| {
        let status = fs::read_to_string(path.join("status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<f64>().ok()
    };
    Some(threads.flatten().filter_map(|thread| slept(thread.path())).sum())
}

/// A line such as `VmHWM:     5120 kB` of `/proc/PID/status`.
fn status_bytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The sum of a metric over its labels, from Prometheus' text format.
fn metric(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labelled) => labelled.rsplit_once('}')?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.split_ascii_whitespace().next()?.parse::<f64>().ok()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_past_a_hostile_process_name() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 1234 66 0 0 20 0 9 0 100 200 300";
        assert_eq!(parse_cpu_time(stat), Some(Duration::from_secs(13)));
        assert_eq!(parse_cpu_time("nonsense"), None);
        assert!(cpu_time("self").is_some());
    }

    #[test]
    fn peak_memory_is_in_bytes() {
        assert_eq!(
            status_bytes("Name:\tx\nVmHWM:\t    5120 kB\nVmRSS:\t 1 kB\n", "VmHWM:"),
            Some(5120 * 1024)
        );
        assert_eq!(status_bytes("Name:\tx\n", "VmHWM:"), None);
    }

    #[test]
    fn a_metric_is_summed_over_labels_and_not_mixed_up_with_its_neighbours() {
        let text = "# TYPE nsquorum_storage_fsyncs_total counter\n\
                    nsquorum_storage_fsyncs_total{class=\"a}b\"} 5 1700000000\n\
                    nsquorum_storage_fsyncs_total{class=\"c\"} 7.5\n\
                    nsquorum_storage_fsyncs_total_other 100\n\
                    plain 3\n";
        assert_eq!(metric(text, FSYNCS_METRIC), Some(12.5));
        assert_eq!(metric(text, "plain"), Some(3.0));
        assert_eq!(metric(text, WRITTEN_METRIC), None);
    }

    #[test]
    fn a_difference_needs_both_ends() {
        let then = Usage {
            fsyncs: Some(10.0),
            ..Usage::default()
        };
        let now = Usage {
            fsyncs: Some(25.0),
            written_bytes: Some(1.0),
            ..Usage::default()
        };
        assert_eq!(
            now.since(&then),
            Usage {
                fsyncs: Some(15.0),
                ..Usage::default()
            }
        );
    }
}
