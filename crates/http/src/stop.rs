//! Telling servers to stop.

use tokio::sync::watch;

/// The one who says stop. Dropping it says it too.
#[derive(Debug)]
pub struct StopSource(watch::Sender<bool>);

/// Hears the stop; clones hear the same one.
#[derive(Clone, Debug)]
pub struct StopSignal(watch::Receiver<bool>);

impl StopSource {
    /// A pair that belongs together.
    pub fn new() -> (Self, StopSignal) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), StopSignal(receiver))
    }

    /// Says stop, once and for all.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl StopSignal {
    /// Returns when stop has been said.
    pub async fn stopped(&mut self) {
        // An error is a source that is gone, which means the same.
        drop(self.0.wait_for(|stopped| *stopped).await);
    }
}
