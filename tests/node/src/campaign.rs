//! Lives of one node in one directory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nsquorum_client::ClientError;
use nsquorum_faults::Fault;
use nsquorum_protocol::{ChannelName, TopicName};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use crate::checker::{Evidence, Violation, check};
use crate::consumers::{Habits, consume, drain};
use crate::deadline::until;
use crate::disk::Disk;
use crate::history::{History, Life};
use crate::node::{ExitReason, Node, NodeFlags, StartFailure};
use crate::publishers::{Manner, publish};
use crate::verify::{VerifyReport, verify};

const TOPIC: &str = "orders";
const CHANNELS: [&str; 2] = ["ledger", "archive"];
/// Load must come this far.
const LOAD_DEADLINE: Duration = Duration::from_secs(120);
/// Clients must notice the end of their node.
const CLIENTS_DEADLINE: Duration = Duration::from_secs(60);
/// A power-off that waits for a certain call comes by itself within this time, or else by SIGKILL.
const POWER_OFF_DEADLINE: Duration = Duration::from_secs(10);
/// Both channels must become empty.
const DRAIN_DEADLINE: Duration = Duration::from_secs(300);

/// How a life ends.
#[derive(Clone, Debug)]
pub enum Ending {
    /// SIGKILL, then everything unsynced is lost.
    Kill,
    /// The power goes just before this changing call (counted from 1), if that comes soon, and else as for `Kill`.
    PowerOff {
        /// Which call.
        call: u64,
    },
    /// SIGTERM under load, then everything unsynced is lost.
    Terminate,
    /// Under load only so much space is left; the node is expected to end by itself.
    FullDisk {
        /// Bytes that can still be written.
        free: u64,
    },
    /// A call fails; the node is expected to end by itself. If it does not, it is killed.
    Fault {
        /// The rule.
        fault: Fault,
        /// Before the node starts, instead of under load.
        from_the_start: bool,
        /// How long the call may take to come.
        patience: Duration,
        /// How long the node then has to end.
        grace: Duration,
    },
}

/// What clients do in a life.
#[derive(Clone, Debug)]
pub struct Load {
    /// A connection each.
    pub publishers: Vec<Manner>,
    /// A connection each, on each channel.
    pub consumers: Vec<Habits>,
    /// The life goes on until this many further messages were answered OK.
    pub oks: u64,
}

impl Load {
    /// A bit of everything.
    #[must_use]
    pub fn mixed(oks: u64) -> Self {
        Self {
            publishers: vec![Manner::lone(), Manner::lone(), Manner::pipelined(), Manner::large()],
            consumers: vec![Habits::careful(), Habits::forgetful()],
            oks,
        }
    }

    /// Little comes and everything is finished, so that floors rise and the log before them may go.
    #[must_use]
    pub fn catching_up(oks: u64) -> Self {
        Self {
            publishers: vec![Manner::lone()],
            consumers: vec![Habits::diligent(), Habits::diligent()],
            oks,
        }
    }
}

/// How a life ended.
#[derive(Debug)]
pub struct LifeEnd {
    /// How the process ended.
    pub exit: ExitReason,
    /// How many calls the fault touched.
    pub fired: u64,
    /// Messages that were answered OK so far.
    pub oks: u64,
    /// What it wrote to standard error, the end of it.
    pub log: String,
    /// The directory afterwards.
    pub report: VerifyReport,
}

/// See the module.
#[derive(Debug)]
pub struct Campaign {
    disk: Disk,
    flags: NodeFlags,
    history: Arc<History>,
    random: StdRng,
    life: Life,
    connections: u32,
    evidence: Evidence,
}

impl Campaign {
    /// A new directory on this disk, with a topic and two channels: a first life that ends cleanly.
    ///
    /// # Errors
    /// If the node does not start or stop.
    pub async fn begin(disk: Disk, flags: NodeFlags, seed: u64) -> Result<Self> {
        let node = Node::start(&disk.data(), &flags).await?;
        node.create(TOPIC, &CHANNELS).await?;
        node.stop_cleanly().await?;
        Ok(Self {
            disk,
            flags,
            history: Arc::default(),
            random: StdRng::seed_from_u64(seed),
            life: Life::default(),
            connections: 0,
            evidence: Evidence {
                channels: CHANNELS.map(str::to_owned).to_vec(),
                ..Evidence::default()
            },
        })
    }

    /// The disk.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// A random number below `bound`, from the seed.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.random_range(0..bound)
    }

    /// One life: start, load, ending, power cut, and a look at what is left.
    ///
    /// # Errors
    /// If the node ends before it should or does not end, the load comes nowhere, or `verify` fails.
    pub async fn live(&mut self, load: &Load, ending: &Ending) -> Result<LifeEnd> {
        let armed = match ending {
            Ending::Fault {
                fault,
                from_the_start: true,
                ..
            } => Some(self.disk.faults().fail(fault.clone())?),
            _ => None,
        };
        let what = |life: Life| format!("in life {}, which ends by {ending:?}", life.0);
        let (exit, log) = match Node::start(&self.disk.data(), &self.flags).await {
            Ok(mut node) => {
                let exit = self.run(&mut node, load, ending, armed.is_some()).await;
                let log = node.log();
                (exit.with_context(|| format!("{}:\n{log}", what(self.life)))?, log)
            }
            Err(error) => match (error.downcast::<StartFailure>(), &armed) {
                (Ok(failure), Some(_)) => (failure.exit, failure.log),
                (Ok(failure), None) => return Err(failure).with_context(|| what(self.life)),
                (Err(error), _) => return Err(error).with_context(|| what(self.life)),
            },
        };
        let fired = self.fired()?;
        self.disk.power_cut()?;
        let report = verify(&self.disk.data())?;
        // Damage is the caller's to judge; an intact directory has at least what the first life made.
        match report.topic(TOPIC)? {
            Some(topic) => self.evidence.cuts.push((self.life, topic)),
            None if report.is_clean() => bail!("the topic was lost {}", what(self.life)),
            None => {}
        }
        self.life.0 += 1;
        Ok(LifeEnd {
            exit,
            fired,
            oks: self.history.oks(),
            log,
            report,
        })
    }

    /// How many calls the armed faults have touched.
    fn fired(&self) -> Result<u64> {
        Ok(match &self.disk {
            Disk::Faulty { mount, .. } => mount.stats()?.fired.values().sum(),
            Disk::Plain { .. } => 0,
        })
    }

    async fn run(&mut self, node: &mut Node, load: &Load, ending: &Ending, armed: bool) -> Result<ExitReason> {
        let mut clients = JoinSet::new();
        self.start_publishers(&mut clients, node, &load.publishers);
        for habits in &load.consumers {
            self.start_consumers(&mut clients, node, Some(*habits));
        }
        let target = self.history.oks() + load.oks;
        let mut ended = None;
        until(
            &format!("{target} messages are answered OK"),
            LOAD_DEADLINE,
            async || {
                ended = node.ended()?;
                Ok(ended.is_some() || self.history.oks() >= target)
            },
        )
        .await?;
        let exit = match (ended, armed) {
            (Some(exit), true) => exit,
            (Some(exit), false) => bail!("the node ended by itself with {exit:?}"),
            (None, _) => self.end(node, ending).await?,
        };
        join(clients).await?;
        Ok(exit)
    }

    async fn end(&mut self, node: &mut Node, ending: &Ending) -> Result<ExitReason> {
        let ended = match ending {
            Ending::Kill => None,
            Ending::Terminate => Some(node.stop().await?.0),
            Ending::PowerOff { call } => {
                self.disk.faults().fail(Fault::power_off_at(*call))?;
                // Its own end, because every call fails, is as good as any; the power decides what is left.
                node.until_ended(POWER_OFF_DEADLINE).await?
            }
            Ending::FullDisk { free } => {
                self.disk.faults().space(Some(*free))?;
                node.until_ended(LOAD_DEADLINE).await?
            }
            Ending::Fault {
                fault,
                from_the_start,
                patience,
                grace,
            } => {
                if !from_the_start {
                    self.disk.faults().fail(fault.clone())?;
                }
                let come = Instant::now() + *patience;
                loop {
                    let ended = node.until_ended(Duration::from_millis(20)).await?;
                    if ended.is_some() || Instant::now() > come {
                        break ended;
                    }
                    if self.fired()? > 0 {
                        break node.until_ended(*grace).await?;
                    }
                }
            }
        };
        match ended {
            Some(exit) => Ok(exit),
            None => {
                node.kill()?;
                Ok(ExitReason::Signal(9))
            }
        }
    }

    fn start_publishers(&mut self, clients: &mut JoinSet<ClientError>, node: &Node, manners: &[Manner]) {
        for manner in manners {
            self.connections += 1;
            let random = StdRng::from_rng(&mut self.random);
            let history = Arc::clone(&self.history);
            clients.spawn(publish(
                node.tcp().to_owned(),
                topic(),
                history,
                self.connections,
                *manner,
                random,
            ));
        }
    }

    fn start_consumers(&mut self, clients: &mut JoinSet<ClientError>, node: &Node, habits: Option<Habits>) {
        for place in 0..CHANNELS.len() {
            self.connections += 1;
            let random = StdRng::from_rng(&mut self.random);
            let (address, names) = (node.tcp().to_owned(), (topic(), channel(place)));
            let (history, place) = (Arc::clone(&self.history), (self.life, place, self.connections));
            match habits {
                Some(habits) => clients.spawn(consume(address, names, history, place, habits, random)),
                None => clients.spawn(drain(address, names, history, place, random)),
            };
        }
    }

    /// The last life: everything is consumed and finished, the node stops cleanly. Returns every broken promise.
    ///
    /// # Errors
    /// If the node does not start, empty its channels or stop, or its directory is damaged at the end.
    pub async fn verdict(mut self) -> Result<Vec<Violation>> {
        let node = Node::start(&self.disk.data(), &self.flags).await?;
        let mut clients = JoinSet::new();
        self.start_consumers(&mut clients, &node, None);
        until("both channels are empty", DRAIN_DEADLINE, async || {
            for channel in CHANNELS {
                // Until a consumer has subscribed there may be no such channel, if it was lost.
                if !node.depth(TOPIC, channel).await.is_ok_and(|depth| depth.is_empty()) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
        .with_context(|| node.log())?;
        node.stop_cleanly().await?;
        join(clients).await?;
        let report = verify(&self.disk.data())?;
        if !report.is_clean() {
            bail!("verify finds damage after a clean stop: {:?}", report.findings);
        }
        if let Some(topic) = report.topic(TOPIC)? {
            self.evidence.cuts.push((self.life, topic));
        }
        self.evidence.records = self.history.snapshot();
        Ok(check(&self.evidence))
    }
}

fn topic() -> TopicName {
    TOPIC.parse().expect("the name is valid")
}

fn channel(place: usize) -> ChannelName {
    CHANNELS[place].parse().expect("the name is valid")
}

async fn join(mut clients: JoinSet<ClientError>) -> Result<()> {
    let all = async {
        while let Some(client) = clients.join_next().await {
            client.context("a client panicked")?;
        }
        Ok(())
    };
    match tokio::time::timeout(CLIENTS_DEADLINE, all).await {
        Ok(joined) => joined,
        Err(_) => bail!("clients still hang {CLIENTS_DEADLINE:?} after their node ended"),
    }
}
