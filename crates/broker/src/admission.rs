//! How many bytes of unanswered publishes the node holds.
//!
//! Every body between a socket and the disk is counted here. When the bound is reached connections stop reading, TCP pushes back, and
//! a producer that is faster than the disk is slowed down instead of filling the memory. The bound is soft by one command: a
//! command that has been read completely is always admitted when nothing else is, or a body larger than the bound could never pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

#[derive(Debug)]
struct Shared {
    used_bytes: AtomicUsize,
    bytes_max: usize,
    freed: Notify,
}

/// The node's bound on bytes of unanswered publishes; clones share it.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Shared>);

impl Admission {
    /// A bound of `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Shared {
            used_bytes: AtomicUsize::new(0),
            bytes_max,
            freed: Notify::new(),
        }))
    }

    /// Takes `bytes` if the bound allows it (or if nothing is taken yet).
    pub fn try_admit(&self, bytes: usize) -> Option<Admitted> {
        let fits = |used: usize| (used == 0 || used.saturating_add(bytes) <= self.0.bytes_max).then_some(used + bytes);
        match self
            .0
            .used_bytes
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, fits)
        {
            Ok(_) => Some(Admitted {
                shared: Arc::clone(&self.0),
                bytes,
            }),
            Err(_) => None,
        }
    }

    /// Takes `bytes`, waiting until the bound allows it.
    pub async fn admit(&self, bytes: usize) -> Admitted {
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            // Registered before the check: a release between check and wait is not missed.
            freed.as_mut().enable();
            if let Some(admitted) = self.try_admit(bytes) {
                return admitted;
            }
            freed.await;
        }
    }

    /// Bytes of unanswered publishes now.
    pub fn used_bytes(&self) -> usize {
        self.0.used_bytes.load(Ordering::Acquire)
    }
}

/// Bytes taken from an [`Admission`]; dropping gives them back.
#[derive(Debug)]
pub struct Admitted {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.shared.used_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.shared.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_kept_and_released() {
        let admission = Admission::new(100);
        let first = admission.try_admit(60).expect("room");
        assert!(admission.try_admit(41).is_none());
        let second = admission.try_admit(40).expect("exactly full");
        drop(first);
        assert!(admission.try_admit(60).is_some());
        drop(second);
        assert_eq!(admission.used_bytes(), 0);
    }

    #[test]
    fn one_command_larger_than_the_bound_passes_alone() {
        let admission = Admission::new(100);
        let big = admission.try_admit(1000).expect("nothing else is held");
        assert!(admission.try_admit(1).is_none());
        drop(big);
    }

    #[tokio::test]
    async fn a_waiter_wakes_when_room_returns() {
        let admission = Admission::new(10);
        let held = admission.try_admit(10).expect("room");
        let waiter = tokio::spawn({
            let admission = admission.clone();
            async move { admission.admit(5).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(held);
        waiter.await.expect("admitted");
    }
}
