//! Starting tasks.

use std::future::Future;
use std::pin::Pin;

/// A task.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts tasks.
pub trait Spawn: Send + Sync {
    /// Runs the task until it ends.
    fn spawn(&self, task: Task);

    /// Runs work that may touch the disk on a thread that is allowed to wait for it.
    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>);
}

/// Tokio's tasks; must be used inside a tokio runtime.
#[derive(Debug, Default)]
pub struct TokioSpawn;

impl Spawn for TokioSpawn {
    fn spawn(&self, task: Task) {
        drop(tokio::spawn(task));
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        drop(tokio::task::spawn_blocking(work));
    }
}
