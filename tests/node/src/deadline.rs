//! Waiting for conditions.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(10);

/// Looks until `condition` holds. Deadlines are for hanging, not for slowness: choose them generously.
///
/// # Errors
/// After `deadline`, with `what`; or at once what the condition fails with.
pub async fn until(what: &str, deadline: Duration, mut condition: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + deadline;
    loop {
        if condition().await? {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("still not so after {deadline:?}: {what}");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
