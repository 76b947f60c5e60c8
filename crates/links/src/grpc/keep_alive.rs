//! When an end of a stream has to say something because it has said nothing for a while.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Falls due when nothing was said for a while. Saying something costs no timer: the timer runs on, and looks when it ends.
pub(super) struct KeepAlive {
    timer: Pin<Box<Sleep>>,
    said: Instant,
    every: Duration,
}

impl KeepAlive {
    pub(super) fn new(every: Duration) -> Self {
        Self {
            timer: Box::pin(tokio::time::sleep(every)),
            said: Instant::now(),
            every,
        }
    }

    /// Something is being said.
    pub(super) fn said(&mut self) {
        self.said = Instant::now();
    }

    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            std::task::ready!(self.timer.as_mut().poll(cx));
            let due = self.said + self.every;
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::KeepAlive;

    #[tokio::test(start_paused = true)]
    async fn it_is_due_so_long_after_the_last_word() {
        const EVERY: Duration = Duration::from_millis(100);
        let begun = Instant::now();
        let mut keep_alive = KeepAlive::new(EVERY);
        for _ in 0..5 {
            tokio::time::advance(Duration::from_millis(70)).await;
            keep_alive.said();
        }
        poll_fn(|cx| keep_alive.poll_due(cx)).await;
        assert_eq!(begun.elapsed(), Duration::from_millis(450));
        keep_alive.said();
        poll_fn(|cx| keep_alive.poll_due(cx)).await;
        assert_eq!(begun.elapsed(), Duration::from_millis(550));
    }
}
