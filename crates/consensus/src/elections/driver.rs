//! The loop that watches leaders: heartbeats to all peers, candidacies of all groups, and this node's own leaderships.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nsquorum_environment::{Environment, Monotonic};
use nsquorum_links::{Class, Evidence, Lane, LinkEpoch, Links, PeerState, Peers};
use nsquorum_topic::{GroupId, NodeId, Term};
use tokio::sync::{mpsc, watch};

use super::candidacy::{Candidacy, Move, Sight};
use super::own_disk::OwnDisk;
use super::{HEARTBEAT_INTERVAL, LEASE, QuorumClock, STAGGER};
use crate::hand_over::heirs;
use crate::peers::{Led, NodeFrame, Port, Ports, RaftReceiver};
use crate::raft::{Calls, Leadership};
use crate::reports::replicas_of;

/// A leader's core that has not answered for this long is not named in heartbeats any more: its group elects another.
const CORE_SILENCE_MAX: Duration = Duration::from_secs(1);
/// Between two questions to the core of a group that this node leads.
const PROBE_INTERVAL: Duration = Duration::from_millis(400);
/// A group into which something was proposed lately keeps openraft's own lease alive, so that the next proposal need not ask first.
const ACTIVE_FOR: Duration = Duration::from_secs(3);
const LEASE_RENEWAL: Duration = Duration::from_millis(300);
/// Between two attempts to hand a leadership over.
const HAND_OVER_RETRY: Duration = Duration::from_millis(500);
/// Between two leaderships that this node gives up because of its disk: each costs an election, and they all come at once.
const GIVE_WAY_INTERVAL: Duration = Duration::from_millis(100);
/// The loop looks at most this often, whatever is due.
const PAUSE_MIN: Duration = Duration::from_millis(4);

/// This node has been elected, or serves: everybody is to know at once, not with the next heartbeat.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elected {
    pub(crate) led: Led,
}

/// A leadership of this node.
#[derive(Clone, Copy)]
struct Leading {
    term: Term,
    since: Monotonic,
    /// The majority was silent, or this node's disk is slower than theirs: the leadership was given up, and is handed over to one that
    /// answers.
    given_up: bool,
    /// When it was last tried to hand it over, and how often.
    handed_over: Option<(Monotonic, usize)>,
    probed: Monotonic,
    renewed: Monotonic,
}

/// Whether this node has just given up a leadership because of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GaveWay {
    No,
    Now,
}

struct Watched {
    port: Arc<Port>,
    candidacy: Candidacy,
    leading: Option<Leading>,
    own_disk: OwnDisk,
}

/// The state of the loop.
pub(crate) struct Elections {
    links: Arc<dyn Links>,
    environment: Environment,
    ports: Ports,
    calls: Arc<Calls>,
    quorum: Arc<QuorumClock>,
    me: NodeId,
    elected: mpsc::UnboundedReceiver<Elected>,
    watched: BTreeMap<GroupId, Watched>,
    version: u64,
    epochs: BTreeMap<NodeId, LinkEpoch>,
    next_heartbeat: Monotonic,
    may_give_way: Monotonic,
}

impl Elections {
    pub(crate) fn new(
        links: Arc<dyn Links>,
        environment: Environment,
        ports: Ports,
        calls: Arc<Calls>,
        quorum: Arc<QuorumClock>,
        elected: mpsc::UnboundedReceiver<Elected>,
    ) -> Self {
        Self {
            me: links.local().node,
            next_heartbeat: environment.clock.now(),
            may_give_way: environment.clock.now(),
            links,
            environment,
            ports,
            calls,
            quorum,
            elected,
            watched: BTreeMap::new(),
            version: 0,
            epochs: BTreeMap::new(),
        }
    }

    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut peers = self.links.peers();
        loop {
            let known = Arc::clone(&peers.borrow_and_update());
            self.follow_links(&known);
            let next = self.look(&known);
            let pause = next.since(self.environment.clock.now()).max(PAUSE_MIN);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = peers.changed() => if changed.is_err() { return },
                Some(elected) = self.elected.recv() => self.announce(elected.led),
                () = self.ports.first_opened() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    fn announce(&self, led: Led) {
        let frame = NodeFrame::Leads(led).encode();
        for peer in self.epochs.keys() {
            // A peer that does not hear it now hears the next heartbeat.
            _ = self.links.try_send(*peer, Lane::NODE, Class::Control, frame.clone());
        }
    }

    /// Fails what went down with a connection, and wakes what waits for one.
    fn follow_links(&mut self, peers: &Peers) {
        for (peer, state) in peers {
            let now = state.epoch();
            let before = self.epochs.get(peer).copied();
            if now == before {
                continue;
            }
            self.calls.requests_lost(*peer, now);
            match now {
                Some(epoch) => {
                    self.epochs.insert(*peer, epoch);
                    // What this node leads is news to a peer that has just come.
                    self.next_heartbeat = self.environment.clock.now();
                    for watched in self.watched.values().filter(|watched| watched.leading.is_some()) {
                        self.environment.spawn.spawn(watched.port.replica.peer_is_back(*peer));
                    }
                }
                None => drop(self.epochs.remove(peer)),
            }
        }
    }

    /// Looks at every group once. Returns when to look again.
    fn look(&mut self, peers: &Peers) -> Monotonic {
        let now = self.environment.clock.now();
        self.follow_ports(now);
        for (group, asked) in self.ports.expired(now) {
            RaftReceiver::refuse(&self.links, &self.environment, group, asked);
        }
        let mut next = now + HEARTBEAT_INTERVAL;
        let mut watched = std::mem::take(&mut self.watched);
        for group in watched.values_mut() {
            let leadership = group.port.replica.leadership();
            if leadership.leading {
                if self.lead(group, leadership.term, now) == GaveWay::Now {
                    self.may_give_way = now + GIVE_WAY_INTERVAL;
                }
            } else {
                group.leading = None;
                group.port.pulse.set_silent(false);
                next = next.min(self.follow(group, leadership, peers, now));
            }
        }
        self.watched = watched;
        if now >= self.next_heartbeat {
            self.next_heartbeat = now + HEARTBEAT_INTERVAL;
            self.send_heartbeats(now);
        }
        next.min(self.next_heartbeat)
    }

    fn follow_ports(&mut self, now: Monotonic) {
        let Some((version, ports)) = self.ports.changed(self.version) else {
            return;
        };
        self.version = version;
        let mut before = std::mem::take(&mut self.watched);
        for port in ports {
            let watched = before.remove(&port.group).unwrap_or_else(|| Watched {
                candidacy: if port.first {
                    Candidacy::first(now)
                } else {
                    Candidacy::waiting(now)
                },
                leading: None,
                own_disk: OwnDisk::default(),
                port: Arc::clone(&port),
            });
            self.watched.insert(port.group, watched);
        }
    }

    /// Looks after a leadership of this node.
    fn lead(&self, watched: &mut Watched, term: Term, now: Monotonic) -> GaveWay {
        let port = &watched.port;
        watched.candidacy.lead(now);
        if watched.leading.is_none_or(|leading| leading.term != term) {
            port.followers.look(now, term, &port.replica.progress());
            port.pulse.core_answered();
            port.pulse.elected();
            watched.leading = Some(Leading {
                term,
                since: now,
                given_up: false,
                handed_over: None,
                probed: now,
                renewed: now,
            });
        }
        let Some(leading) = &mut watched.leading else {
            return GaveWay::No;
        };
        if port.replicas.len() == 1 {
            return GaveWay::No;
        }
        let spawn = &self.environment.spawn;
        let mut heir = None;
        if now.since(leading.probed) >= PROBE_INTERVAL {
            leading.probed = now;
            let progress = port.replica.progress();
            port.followers.look(now, term, &progress);
            heir = watched.own_disk.look(now, term, self.me, &progress);
            let pulse = Arc::clone(&port.pulse);
            spawn.spawn(port.replica.probe(Box::new(move || pulse.core_answered())));
        }
        let holds = self.quorum.holds(&port.replicas, leading.since);
        port.pulse.set_silent(!holds);
        if !holds {
            if !leading.given_up {
                give_up(port, leading, term, "silence");
            }
            return GaveWay::No;
        }
        let gives_way =
            !leading.given_up && now >= self.may_give_way && heir.is_some_and(|heir| self.quorum.is_live(heir));
        if gives_way {
            watched.own_disk.gives_way(now);
            give_up(port, leading, term, "slow_disk");
        }
        if leading.given_up {
            // A term that was given up is never served again: another replica, and another term, take over.
            let tries = match leading.handed_over {
                None => Some(0),
                Some((at, tries)) => (now.since(at) >= HAND_OVER_RETRY).then_some(tries),
            };
            if let Some(tries) = tries
                && let Some(to) = heirs(port, &self.quorum, self.me).into_iter().cycle().nth(tries)
            {
                leading.handed_over = Some((now, tries + 1));
                spawn.spawn(port.replica.hand_over(to));
            }
        } else if port.pulse.idle_for(now) < ACTIVE_FOR && now.since(leading.renewed) >= LEASE_RENEWAL {
            leading.renewed = now;
            spawn.spawn(port.replica.renew_lease());
        }
        if gives_way { GaveWay::Now } else { GaveWay::No }
    }

    /// Looks after a group that another node leads, or nobody.
    fn follow(&self, watched: &mut Watched, leadership: Leadership, peers: &Peers, now: Monotonic) -> Monotonic {
        let port = &watched.port;
        if port.replicas.len() == 1 {
            return now + LEASE;
        }
        let heard = port.pulse.heard();
        let leader = leadership.leader.filter(|leader| *leader != self.me);
        let gone = leader.filter(|leader| match peers.get(leader) {
            Some(PeerState::Down {
                evidence: Evidence::Refused,
                ..
            }) => true,
            Some(PeerState::Up { identity, .. }) => heard
                .is_some_and(|heard| heard.leader.node == *leader && heard.leader.incarnation < identity.incarnation),
            _ => false,
        });
        let sight = Sight {
            now,
            heard: heard.map(|heard| heard.at),
            leader_gone: gone.map(|_| leadership.term),
            rank: self.rank(port, leader, peers),
            campaigning: leadership.campaigning,
            jitter: Duration::from_nanos(self.environment.random.below(STAGGER.as_nanos() as u64)),
        };
        match watched.candidacy.look(sight) {
            Move::Wait(until) => until,
            Move::Release { campaign } => {
                let Some(leader) = gone else { return now };
                tracing::info!(
                    group = port.group.get(),
                    leader = leader.get(),
                    "the leader's process is gone"
                );
                port.pulse.forget(leader);
                let released = port.replica.release_lease();
                let campaign = campaign.then(|| port.replica.campaign());
                if campaign.is_some() {
                    metrics::counter!("nsquorum_campaigns_total", "why" => "gone").increment(1);
                }
                self.environment.spawn.spawn(Box::pin(async move {
                    released.await;
                    if let Some(campaign) = campaign {
                        campaign.await;
                    }
                }));
                now
            }
            Move::Campaign => {
                metrics::counter!("nsquorum_campaigns_total", "why" => "silent").increment(1);
                self.environment.spawn.spawn(port.replica.campaign());
                now
            }
        }
    }

    /// This node's place among those that may campaign. All nodes that see the same links compute the same order; it differs between
    /// groups, so that one dead node's leaderships are spread over the others.
    fn rank(&self, port: &Port, leader: Option<NodeId>, peers: &Peers) -> u32 {
        let count = port.replicas.len();
        let start = usize::try_from(port.group.get() % count as u64).unwrap_or(0);
        let in_turn = port.replicas.iter().cycle().skip(start).take(count);
        let before_me = in_turn
            .take_while(|node| **node != self.me)
            .filter(|node| Some(**node) != leader && matches!(peers.get(node), Some(PeerState::Up { .. })));
        u32::try_from(before_me.count()).unwrap_or(u32::MAX)
    }

    fn send_heartbeats(&self, now: Monotonic) {
        let led: Vec<Led> = self
            .watched
            .values()
            .filter_map(|watched| {
                let leading = watched.leading.as_ref().filter(|leading| !leading.given_up)?;
                let pulse = &watched.port.pulse;
                (pulse.core_silent_for(now) < CORE_SILENCE_MAX).then(|| Led {
                    group: watched.port.group,
                    term: leading.term,
                    serves: pulse.serving() == Some(leading.term),
                })
            })
            .collect();
        metrics::gauge!("nsquorum_groups_led").set(led.len() as f64);
        let is_short = |led: &&Led| {
            let replicas = self
                .ports
                .get(led.group)
                .map(|port| replicas_of(&port, led.term, &self.quorum, now));
            replicas.is_some_and(|replicas| replicas.iter().any(|replica| !replica.in_sync))
        };
        let short = led.iter().filter(is_short).count();
        metrics::gauge!("nsquorum_groups_under_replicated").set(short as f64);
        let frame = NodeFrame::Heartbeat { sent: now, led }.encode();
        for peer in self.epochs.keys() {
            _ = self.links.try_send(*peer, Lane::NODE, Class::Control, frame.clone());
        }
    }
}

fn give_up(port: &Port, leading: &mut Leading, term: Term, why: &'static str) {
    leading.given_up = true;
    tracing::warn!(group = port.group.get(), term = term.get(), why, "leadership given up");
    metrics::counter!("nsquorum_leaderships_lost_total", "why" => why).increment(1);
    (port.depose)(term);
}
