//! How many files and sockets the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit on open files to the hard one, as the Go runtime does for nsqd: a shell's usual soft limit of 1,024 would end at as
/// many connections. The hard limit is the operator's word.
pub(crate) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(from = ?current, to = ?maximum, "raised the limit on open files"),
        Err(error) => tracing::warn!(%error, limit = ?current, "cannot raise the limit on open files"),
    }
}
