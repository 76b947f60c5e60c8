//! When an end of a stream has to say something because it has said nothing for a while.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use nsquorum_environment::{Clock, Monotonic};
use tokio::time::Sleep;

/// Falls due when nothing was said for a while. Saying something costs no timer: the timer runs on, and looks when it ends.
pub(super) struct KeepAlive {
    clock: Arc<dyn Clock>,
    timer: Pin<Box<Sleep>>,
    said: Monotonic,
    every: Duration,
}

impl KeepAlive {
    pub(super) fn new(clock: Arc<dyn Clock>, every: Duration) -> Self {
        Self {
            timer: Box::pin(tokio::time::sleep(every)),
            said: clock.now(),
            clock,
            every,
        }
    }

    /// Something is being said.
    pub(super) fn said(&mut self) {
        self.said = self.clock.now();
    }

    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            std::task::ready!(self.timer.as_mut().poll(cx));
            let silent = self.clock.now().since(self.said);
            if silent >= self.every {
                return Poll::Ready(());
            }
            self.timer.set(tokio::time::sleep(self.every - silent));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use nsquorum_environment::Environment;

    use super::KeepAlive;

    #[tokio::test]
    async fn it_is_due_so_long_after_the_last_word() {
        const EVERY: Duration = Duration::from_millis(60);
        let clock = Environment::system().clock;
        let mut keep_alive = KeepAlive::new(clock.clone(), EVERY);
        for _ in 0..3 {
            tokio::time::sleep(EVERY / 2).await;
            keep_alive.said();
            let said = clock.now();
            if said.since(keep_alive.said) < EVERY {
                assert!(futures_util::poll!(poll_fn(|cx| keep_alive.poll_due(cx))).is_pending());
            }
        }
        let said = keep_alive.said;
        poll_fn(|cx| keep_alive.poll_due(cx)).await;
        assert!(clock.now().since(said) >= EVERY);
        poll_fn(|cx| keep_alive.poll_due(cx)).await;
        keep_alive.said();
        assert!(futures_util::poll!(poll_fn(|cx| keep_alive.poll_due(cx))).is_pending());
    }
}
