//! The database of registrations, shared between both servers.

use std::sync::Arc;

use nsquorum_environment::Environment;
use parking_lot::Mutex;

use crate::registrations::{Lifetimes, Moment, Registrations};

/// What has registered here. In memory only, as with nsqlookupd: producers register again when it is back. A clone refers to the same.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    environment: Environment,
    lifetimes: Lifetimes,
    registrations: Mutex<Registrations>,
}

impl Directory {
    /// Without registrations.
    pub fn new(environment: Environment, lifetimes: Lifetimes) -> Self {
        Self(Arc::new(Inner {
            environment,
            lifetimes,
            registrations: Mutex::new(Registrations::new(lifetimes)),
        }))
    }

    pub(crate) fn lifetimes(&self) -> Lifetimes {
        self.0.lifetimes
    }

    pub(crate) fn now(&self) -> Moment {
        let clock = &self.0.environment.clock;
        Moment {
            monotonic: clock.now(),
            wall: clock.wall(),
        }
    }

    pub(crate) fn with_registrations<T>(&self, act: impl FnOnce(&mut Registrations) -> T) -> T {
        act(&mut self.0.registrations.lock())
    }
}
