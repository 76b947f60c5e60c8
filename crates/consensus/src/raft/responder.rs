//! The outcome of a proposal as a callback.

use openraft::raft::responder::Responder;

use super::types::RaftTypes;

/// Called once with the outcome: straight from openraft's task, so that no task of ours has to wait for it.
pub(crate) struct Callback<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Callback<T> {
    pub(crate) fn new(callback: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(callback))
    }
}

impl<T: Send + 'static> Responder<RaftTypes, T> for Callback<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}
