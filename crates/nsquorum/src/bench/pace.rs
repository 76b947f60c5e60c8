//! An open-loop schedule: the k-th message is due at `start + k * period`, whatever happened to those before it.
//!
//! The latencies of an open loop count from the moment a message was due, not from when it was really sent, so a server
//! (or a generator) that stalls pays for every message that had to wait behind the stall: the correction of
//! "coordinated omission". That needs a timer finer than tokio's millisecond, without burning one of two cores in a
//! spin loop: the kernel's interval timer, read as a file.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// See the module.
#[derive(Debug)]
pub(super) struct Pace {
    timer: AsyncFd<OwnedFd>,
    start: Instant,
    period: Duration,
    due: u64,
}

impl Pace {
    /// A schedule of `rate` messages per second from now on; `rate` must be positive.
    pub(super) fn start(rate: f64) -> anyhow::Result<Self> {
        anyhow::ensure!(
            rate > 0.0 && rate <= 1e6,
            "the rate must be between 0 and 1,000,000 per second"
        );
        let period = Duration::from_secs_f64(1.0 / rate);
        let spec = Timespec {
            tv_sec: i64::try_from(period.as_secs()).context("the rate is too low")?,
            tv_nsec: i64::from(period.subsec_nanos()),
        };
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).context("no kernel timer")?;
        let start = Instant::now();
        let spec = Itimerspec {
            it_interval: spec,
            it_value: spec,
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &spec).context("the kernel timer does not start")?;
        #[allow(
            deprecated,
            reason = "its replacement is unsafe; an OwnedFd stays what it is until it is dropped"
        )]
        let timer = AsyncFd::new(timer).context("the kernel timer cannot be waited for")?;
        Ok(Self {
            timer,
            start,
            period,
            due: 0,
        })
    }

    /// Waits until at least one more message is due, and returns how many are due since the start. Safe to cancel.
    pub(super) async fn due(&mut self) -> anyhow::Result<u64> {
        loop {
            let mut ready = self.timer.readable().await?;
            let mut expirations = [0_u8; 8];
            let read = ready.try_io(|timer| match rustix::io::read(timer, &mut expirations) {
                Err(Errno::AGAIN) => Err(std::io::ErrorKind::WouldBlock.into()),
                other => Ok(other?),
            });
            if let Ok(read) = read {
                read.context("the kernel timer fails")?;
                self.due += u64::from_ne_bytes(expirations);
                return Ok(self.due);
            }
        }
    }

    /// When message `index` (from 0) is due.
    pub(super) fn time_of(&self, index: u64) -> Instant {
        let nanos = self.period.as_nanos() * u128::from(index + 1);
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_are_never_due_early_and_none_is_skipped() {
        let mut pace = Pace::start(2_000.0).unwrap();
        let mut due = 0;
        while due < 50 {
            due = pace.due().await.unwrap();
            assert!(Instant::now() >= pace.time_of(due - 1), "message {due} before its time");
        }
        assert_eq!(pace.time_of(49) - pace.time_of(0), Duration::from_micros(500) * 49);
    }

    #[tokio::test]
    async fn impossible_rates_are_refused() {
        for rate in [0.0, -1.0, f64::NAN, 1e7] {
            assert!(Pace::start(rate).is_err(), "{rate}");
        }
    }
}
