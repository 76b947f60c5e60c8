//! The task around a topic leader: gathers inputs, lets the machine step, carries out what it decided.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nsquorum_consensus::{Cluster, LeaderLocation, TopicEvent, TopicGroup, TopicLog};
use nsquorum_environment::{Environment, Monotonic};
use nsquorum_protocol::{ChannelName, TopicName};
use nsquorum_storage::{EntryKind, SpaceState};
use nsquorum_topic::{GroupId, Seq, Term};
use tokio::sync::{mpsc, watch};

use super::inbox::TopicInbox;
use super::input::TopicInput;
use super::machine::{LeaderLimits, Output, TopicLeader, refuse};
use super::machines::Machines;
use super::reader::{ReaderDone, ReaderJob};
use crate::known_channels::ChannelSource;
use crate::latency::LatencySettings;
use crate::peers::Peers;
use crate::publish::PublishError;
use crate::router::{RouterOutput, TopicRouter};
use crate::wire::{Bundles, Parcel};

/// Inputs taken before the machine steps: one entry's worth.
const INPUTS_PER_STEP_MAX: usize = 4096;
/// Recent entries that one topic may keep for channels that lag, when the node has room.
const WINDOW_BYTES_MAX: usize = 4 << 20;
/// The same when the node has none.
const WINDOW_BYTES_MIN: usize = 256 << 10;

/// The node's bound on bytes of recent entries kept in memory by all topics.
#[derive(Clone, Debug)]
pub(crate) struct TailBudget {
    used: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl TailBudget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            used: Arc::new(AtomicUsize::new(0)),
            bytes_max,
        }
    }

    /// Replaces what one topic has reported; tells how much it may hold from now on.
    fn report(&self, before: usize, now: usize) -> usize {
        self.used.fetch_add(now, Ordering::Relaxed);
        let used = self.used.fetch_sub(before, Ordering::Relaxed) - before;
        if used < self.bytes_max {
            WINDOW_BYTES_MAX
        } else {
            WINDOW_BYTES_MIN
        }
    }
}

/// Stands in for a leader that cannot be: answers every input with the same refusal.
pub(crate) async fn refuse_all(mut inbox: TopicInbox, why: PublishError) {
    let mut inputs = Vec::new();
    while inbox.recv_many(&mut inputs, INPUTS_PER_STEP_MAX).await > 0 {
        for input in inputs.drain(..) {
            if let TopicInput::Client(input) = input {
                refuse(input, why);
            }
        }
    }
}

/// The next place where the topic's leader is known to be. Once the topic is deleted there is none.
async fn located(leader: &mut Option<watch::Receiver<Option<LeaderLocation>>>) -> LeaderLocation {
    while let Some(watched) = leader {
        if watched.changed().await.is_err() {
            *leader = None;
        } else if let Some(found) = *watched.borrow_and_update() {
            return found;
        }
    }
    std::future::pending().await
}

/// One topic's leader task.
pub(crate) struct LeaderShell {
    pub(crate) name: TopicName,
    pub(crate) group: GroupId,
    pub(crate) limits: LeaderLimits,
    pub(crate) latency: Option<LatencySettings>,
    pub(crate) environment: Environment,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) tail: TailBudget,
    pub(crate) space: Arc<dyn Fn() -> SpaceState + Send + Sync>,
    /// The other nodes; `None` on a node that is alone.
    pub(crate) peers: Option<Arc<Peers>>,
    /// Who knows the channels of a topic that nobody has used yet.
    pub(crate) known_channels: Option<Arc<dyn ChannelSource>>,
}

impl LeaderShell {
    /// Runs until the topic is over and nobody refers to it any more.
    pub(crate) async fn run(self, topic: TopicGroup, mut inbox: TopicInbox) {
        let mut leader = TopicLeader::new(self.name.clone(), self.limits);
        leader.set_latency(self.latency.clone());
        leader.set_asks_for_channels(self.known_channels.is_some());
        let mut machines = match &self.peers {
            None => Machines::new(leader, None),
            Some(peers) => {
                let router = TopicRouter::new(peers.publish_timeout());
                Machines::new(leader.among_nodes(peers.me()), Some(router))
            }
        };
        let TopicGroup { log, mut events, .. } = topic;
        let (reads, mut reads_done) = mpsc::unbounded_channel();
        let (known, mut channels_known) = mpsc::unbounded_channel();
        let mut inputs = Vec::new();
        let mut bundles = Bundles::default();
        let mut window_bytes = 0;
        let mut events_open = true;
        // A node that is alone has nobody to look for.
        let mut leader = self.peers.as_ref().map(|_| self.cluster.leader(self.group));
        if let Some(leader) = &mut leader {
            leader.mark_changed();
        }
        loop {
            if !machines.leader.has_more() {
                let wake_at = machines.wake_at();
                tokio::select! {
                    biased;
                    event = events.recv(), if events_open => match event {
                        Some(event) => {
                            let moment = self.moment_of(&event);
                            machines.event(event, moment);
                        }
                        None => {
                            events_open = false;
                            if let Some(router) = &mut machines.router {
                                router.over(PublishError::Stopping);
                            }
                        }
                    },
                    received = inbox.recv_many(&mut inputs, INPUTS_PER_STEP_MAX) => if received == 0 {
                        break;
                    },
                    Some(done) = reads_done.recv() => machines.leader.reader_done(done),
                    Some((term, channels)) = channels_known.recv() => machines.leader.channels_known(term, channels),
                    found = located(&mut leader) => machines.located(found, self.now()),
                    () = self.sleep_until(wake_at), if wake_at.is_some() => {}
                }
            }
            // Everything that is there by now belongs to the same step, and so to the same entry.
            while let Ok(event) = events.try_recv() {
                let moment = self.moment_of(&event);
                machines.event(event, moment);
            }
            while inputs.len() < INPUTS_PER_STEP_MAX
                && let Some(input) = inbox.try_recv()
            {
                inputs.push(input);
            }
            while let Ok(done) = reads_done.try_recv() {
                machines.leader.reader_done(done);
            }
            let now = self.now();
            machines.leader.set_space((self.space)());
            machines
                .leader
                .set_confirmed(machines.leader.leads().is_none_or(|term| log.leads(term)));
            machines.settle(now);
            for input in inputs.drain(..) {
                machines.input(input, now);
            }
            for output in machines.leader.step(now) {
                self.carry_out(output, &log, &reads, &known, &mut bundles).await;
            }
            if let Some(router) = &mut machines.router {
                for output in router.step(now) {
                    match output {
                        RouterOutput::Send { to, frame } => bundles.push(to, frame.content.class(), frame.encode()),
                        RouterOutput::Closed { subscriptions, cut_off } => self.report_closed(subscriptions, cut_off),
                    }
                }
            }
            self.transmit(&mut bundles);
            machines.tell_flushed(now);
            let bytes = machines.leader.window_bytes();
            machines
                .leader
                .set_window_bytes_max(self.tail.report(window_bytes, bytes));
            window_bytes = bytes;
        }
        self.tail.report(window_bytes, 0);
    }

    async fn carry_out(
        &self,
        output: Output,
        log: &Arc<dyn TopicLog>,
        reads: &mpsc::UnboundedSender<ReaderDone>,
        known: &mpsc::UnboundedSender<(Term, Vec<ChannelName>)>,
        bundles: &mut Bundles,
    ) {
        match output {
            Output::Propose { term, buffer, ticket } => log.propose(term, EntryKind::TopicBatch, buffer, ticket).await,
            Output::Read(job) => self.read(job, log, reads),
            Output::TopicDeleted { last_seq } => self.report_deletion(last_seq),
            Output::AskForChannels { term } => self.ask_for_channels(term, known.clone()),
            Output::Send { to, frame } => bundles.push(to, frame.content.class(), frame.encode()),
        }
    }

    fn transmit(&self, bundles: &mut Bundles) {
        let Some(peers) = &self.peers else { return };
        for Parcel { to, class, frame } in bundles.take() {
            if let Some(sending) = peers.send(to, self.group, class, frame) {
                self.environment.spawn.spawn(sending);
            }
        }
    }

    fn read(&self, job: ReaderJob, log: &Arc<dyn TopicLog>, reads: &mpsc::UnboundedSender<ReaderDone>) {
        // The receiver is gone only when the task ends.
        if let Some(done) = job.run_from_memory(&**log) {
            drop(reads.send(done));
            return;
        }
        let (log, reads) = (Arc::clone(log), reads.clone());
        self.environment
            .spawn
            .spawn_blocking(Box::new(move || drop(reads.send(job.run_from_disk(&*log)))));
    }

    fn ask_for_channels(&self, term: Term, known: mpsc::UnboundedSender<(Term, Vec<ChannelName>)>) {
        let Some(source) = &self.known_channels else { return };
        let channels = source.channels_of(&self.name);
        // The receiver is gone only when the task ends.
        self.environment
            .spawn
            .spawn(Box::pin(async move { drop(known.send((term, channels.await))) }));
    }

    fn report_closed(&self, subscriptions: usize, cut_off: Duration) {
        let (topic, seconds) = (&self.name, cut_off.as_secs());
        tracing::info!(%topic, seconds, subscriptions, "cut off from the topic's leader: its consumers here are closed, to go elsewhere");
        metrics::counter!("nsquorum_subscriptions_closed_total", "why" => "cut_off").increment(subscriptions as u64);
    }

    fn report_deletion(&self, last_seq: Seq) {
        let deletion = self.cluster.delete_topic(self.name.clone(), self.group, last_seq);
        let name = self.name.clone();
        self.environment.spawn.spawn(Box::pin(async move {
            if let Err(error) = deletion.await {
                tracing::warn!(topic = %name, %error, "a deleted topic is still listed; deleting it again helps");
            }
        }));
    }

    /// When an event counts as having happened. A leadership begins at the wall time that its LeaderStart carries, not when that is
    /// applied: a log clock that began at the apply would lag by what the disk took, and the next leader's, which lags by less,
    /// would release deferrals early.
    fn moment_of(&self, event: &TopicEvent) -> Monotonic {
        let now = self.now();
        match event {
            TopicEvent::LeaderStarted { state, .. } => {
                let wall = self.environment.clock.wall().as_nanos();
                now - Duration::from_nanos(wall.saturating_sub(state.time().get()))
            }
            _ => now,
        }
    }

    fn now(&self) -> Monotonic {
        self.environment.clock.now()
    }

    async fn sleep_until(&self, wake_at: Option<Monotonic>) {
        match wake_at {
            Some(wake_at) => tokio::time::sleep(wake_at.since(self.now())).await,
            None => std::future::pending().await,
        }
    }
}
