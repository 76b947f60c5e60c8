//! What a node's `/metrics` says.

/// The value of a metric, named as its line begins: with its labels, if it has any.
pub(crate) fn metric(metrics: &str, name: &str) -> Option<u64> {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}
