//! The task that keeps the link to one address.

use std::sync::Arc;
use std::time::Duration;

use nsquorum_environment::Monotonic;
use nsquorum_topic::NodeId;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{debug, error, info, warn};

use super::answer::silence;
use super::core::{Core, Pipes};
use super::dial::{Established, dial};
use super::pipe::Step;
use super::wire::{Answered, answered, lane_from_wire};
use crate::{Class, Evidence, Rejection};

/// A link that lasted this long worked: the next loss is met with an immediate attempt.
const WORKED: Duration = Duration::from_secs(1);

/// Keeps the link to one address until it is told to stop.
pub(super) struct Dialler {
    core: Arc<Core>,
    address: String,
    /// Who must answer.
    expected: Option<NodeId>,
    /// Who answered last, or must.
    known: Option<NodeId>,
    stop: CancellationToken,
    failures: u32,
    /// When the last link broke.
    lost_at: Option<Monotonic>,
    told: Option<Evidence>,
}

impl Dialler {
    pub(super) const fn new(
        core: Arc<Core>,
        address: String,
        expected: Option<NodeId>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            core,
            address,
            expected,
            known: expected,
            stop,
            failures: 0,
            lost_at: None,
            told: None,
        }
    }

    pub(super) async fn run(mut self) {
        if let Some(node) = self.expected {
            self.core.show_connecting(node);
        }
        let stop = self.stop.clone();
        loop {
            let dialled = tokio::select! {
                dialled = dial(&self.core, &self.address, self.expected) => dialled,
                () = stop.cancelled() => break,
            };
            let delay = match dialled {
                Ok(link) => self.linked(link).await,
                Err(Evidence::Rejected(Rejection::Myself)) => {
                    debug!(address = self.address, "this is the own address");
                    break;
                }
                Err(evidence) => self.failed(evidence),
            };
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = stop.cancelled() => break,
            }
        }
        if let Some(node) = self.known {
            self.core.forget(node);
        }
    }

    /// Lives through a link; returns how long to wait before the next attempt.
    async fn linked(&mut self, link: Established) -> Duration {
        let peer = link.peer;
        let epoch = link.epoch;
        if let Some(before) = self.known.replace(peer.node)
            && before != peer.node
        {
            self.core
                .show_down(before, None, Evidence::Rejected(Rejection::OtherNode));
        }
        let pipes = match self.core.open(peer.node, epoch) {
            Ok(pipes) => pipes,
            Err(rejection) => return self.failed(Evidence::Rejected(rejection)),
        };
        let began = self.core.environment.clock.now();
        self.told = None;
        info!(%peer, address = self.address, %epoch, "linked");
        self.core.show_up(peer, epoch);
        let evidence = carry(&self.core, &pipes, link, &self.stop).await;
        info!(%peer, address = self.address, %epoch, "link ended: {evidence}");

        let now = self.core.environment.clock.now();
        self.lost_at = Some(now);
        if now.since(began) >= WORKED {
            self.failures = 0;
            return Duration::ZERO;
        }
        self.failures += 1;
        // The first loss is followed up at once, a link that keeps breaking is not.
        if self.failures == 1 {
            Duration::ZERO
        } else {
            self.backoff()
        }
    }

    fn failed(&mut self, evidence: Evidence) -> Duration {
        if let Some(node) = self.known {
            self.core.show_down(node, None, evidence);
        }
        if self.told != Some(evidence) {
            self.told = Some(evidence);
            match evidence {
                Evidence::Rejected(Rejection::Stale | Rejection::SecondAddress) => {
                    debug!(address = self.address, "no link: {evidence}");
                }
                Evidence::Rejected(_) => error!(address = self.address, "no link: {evidence}"),
                _ => warn!(address = self.address, "no link: {evidence}"),
            }
        }
        let options = &self.core.options;
        let breaking = matches!(evidence, Evidence::Reset | Evidence::Closed);
        let now = self.core.environment.clock.now();
        if breaking && self.lost_at.is_some_and(|lost| now.since(lost) < options.probe_for) {
            return options.probe_every;
        }
        self.failures = self.failures.saturating_add(1);
        if matches!(evidence, Evidence::Rejected(_)) {
            return options.backoff_max;
        }
        self.backoff()
    }

    fn backoff(&self) -> Duration {
        let options = &self.core.options;
        let doublings = self.failures.saturating_sub(1).min(16);
        let whole = (options.backoff_min * (1 << doublings)).min(options.backoff_max);
        let half = whole / 2;
        let jitter = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(self.core.environment.random.below(jitter))
    }
}

/// Closes the pipes however the task ends.
struct Opened<'a>(&'a Pipes);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Lets frames pass until the link ends, and tells how it ended.
async fn carry(core: &Core, pipes: &Pipes, link: Established, stop: &CancellationToken) -> Evidence {
    let opened = Opened(pipes);
    let Established {
        peer,
        epoch,
        mut control,
        mut bulk,
        name,
        claim: _claim,
        sever,
    } = link;
    for (class, stream) in [(Class::Control, &control), (Class::Bulk, &bulk)] {
        let carry = Step::Carry(Arc::clone(pipes.class(class)), epoch);
        if stream.steps.send(carry).await.is_err() {
            core.show_down(peer.node, Some(epoch), Evidence::Reset);
            return Evidence::Reset;
        }
    }
    let clock = &core.environment.clock;
    let mut heard = [clock.now(); 2];
    let mut look = interval(core.options.keep_alive());
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let evidence = loop {
        let (class, message) = tokio::select! {
            message = control.answers.message() => (Class::Control, message),
            message = bulk.answers.message() => (Class::Bulk, message),
            _ = look.tick() => {
                let now = clock.now();
                let silent = Class::ALL.into_iter().zip(heard).any(|(class, heard)| now.since(heard) > silence(core, class));
                if silent {
                    break Evidence::TimedOut;
                }
                continue;
            }
            () = stop.cancelled() => break Evidence::Closed,
            () = name.valid.cancelled() => break Evidence::Closed,
        };
        heard[usize::from(class == Class::Bulk)] = clock.now();
        if let Err(evidence) = credit(pipes, class, message) {
            break evidence;
        }
    };
    // Shown before senders hear of it: who hears `Down` and then waits for the peer to be up must not find the old link.
    core.show_down(peer.node, Some(epoch), evidence);
    drop(opened);
    let goodbye = async move {
        tokio::time::sleep(super::GOODBYE).await;
        drop((sever, control, bulk));
    };
    core.environment.spawn.spawn(Box::pin(goodbye));
    evidence
}

fn credit(pipes: &Pipes, class: Class, message: Result<Option<Answered>, Status>) -> Result<(), Evidence> {
    let said = match message {
        Ok(Some(answered)) => answered.say,
        Ok(None) => return Err(Evidence::Closed),
        Err(_) => return Err(Evidence::Reset),
    };
    let Some(answered::Say::Credits(credits)) = said else {
        return Err(Evidence::Garbled);
    };
    for credit in credits.credits {
        let lane = lane_from_wire(credit.service, credit.group).map_err(|_| Evidence::Garbled)?;
        let credited = pipes.class(class).credit(lane, credit.bytes);
        credited.map_err(|_| {
            error!("a peer returned more credit than it had");
            Evidence::Garbled
        })?;
    }
    Ok(())
}
