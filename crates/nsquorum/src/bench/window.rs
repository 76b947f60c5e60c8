//! The measured stretch of a case: the load runs through the warm-up and on to the end, and only what completes inside
//! the window counts, in latencies and in costs alike.

use std::time::{Duration, Instant};

use super::latency::Latencies;
use super::usage::{Server, Usage};

/// From when to when results count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    open: Instant,
    close: Instant,
}

impl Window {
    /// Opens after `warm_up` from now, for `length`.
    pub(super) fn after(warm_up: Duration, length: Duration) -> Self {
        let open = Instant::now() + warm_up;
        Self {
            open,
            close: open + length,
        }
    }

    pub(super) fn contains(&self, at: Instant) -> bool {
        self.open <= at && at < self.close
    }

    pub(super) fn is_over(&self, at: Instant) -> bool {
        at >= self.close
    }

    pub(super) fn length(&self) -> Duration {
        self.close - self.open
    }

    /// What the window costs. Returns after its end.
    pub(super) async fn observe(&self, server: &Server) -> Cost {
        tokio::time::sleep_until(self.open.into()).await;
        let meter = Meter::start(server).await;
        tokio::time::sleep_until(self.close.into()).await;
        meter.stop().await
    }
}

/// Measures the cost of a stretch.
pub(super) struct Meter<'a> {
    server: &'a Server,
    before: Usage,
}

impl<'a> Meter<'a> {
    pub(super) async fn start(server: &'a Server) -> Self {
        server.reset_peak_memory();
        Self {
            server,
            before: server.usage().await,
        }
    }

    pub(super) async fn stop(self) -> Cost {
        let usage = self.server.usage().await.since(&self.before);
        Cost {
            usage,
            server_peak_memory_bytes: self.server.peak_memory_bytes(),
        }
    }
}

/// What a stretch cost.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Cost {
    pub(super) usage: Usage,
    pub(super) server_peak_memory_bytes: Option<u64>,
}

/// The result of one case in one run.
#[derive(Debug)]
pub(super) struct Measured {
    /// Messages that were published, or delivered, inside the measured stretch.
    pub(super) messages: u64,
    /// The length of the stretch.
    pub(super) elapsed: Duration,
    /// The times that the case is about.
    pub(super) latencies: Latencies,
    /// Publish to answer, where `latencies` is something else.
    pub(super) publish_latencies: Option<Latencies>,
    /// Messages that were delivered and finished inside the stretch, where `messages` are those that were published.
    pub(super) consumed: Option<u64>,
    /// Deliveries after the first of the same message.
    pub(super) redeliveries: u64,
    pub(super) cost: Cost,
}
