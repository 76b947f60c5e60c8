//! A node registers with nsqlookupds elsewhere, as nsqd does: consumers that ask those find it too.
//!
//! Per nsqlookupd one task keeps a connection, on which it says what the node holds (`peer`) and what has changed since (`difference`). One
//! that cannot be reached is tried again; it takes nothing from the others. For a topic that is new all of them are asked which channels
//! they know of it (`channels`).

mod channels;
mod difference;
mod peer;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use nsquorum_broker::{ChannelSource, HeldTopics};
use nsquorum_http::StopSignal;
use nsquorum_protocol::{ChannelName, TopicName};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::ProducerDescription;
pub use channels::QuestionTimeouts;
use channels::Questions;
use peer::Peer;

/// What a node holds: its topics with their channels.
type Held = BTreeMap<TopicName, BTreeSet<ChannelName>>;

/// Where a node registers. A clone is a handle to the same.
#[derive(Clone, Debug)]
pub struct Announcer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    addresses: watch::Receiver<Vec<String>>,
    /// `host:port` for HTTP, as the nsqlookupds that answer have said.
    http_addresses: Mutex<BTreeMap<String, String>>,
    /// The addresses that have been tried once.
    tried: watch::Sender<BTreeSet<String>>,
}

impl Announcer {
    /// For nsqlookupds at these addresses, `host:port` for TCP. Connections to those that are not among them any more end, and with them the
    /// registrations there.
    pub fn new(addresses: watch::Receiver<Vec<String>>) -> Self {
        Self(Arc::new(Inner {
            addresses,
            http_addresses: Mutex::default(),
            tried: watch::Sender::default(),
        }))
    }

    /// `host:port` for HTTP of those nsqlookupds that it is registered with at the moment.
    pub fn http_addresses(&self) -> Vec<String> {
        self.0.http_addresses.lock().values().cloned().collect()
    }

    /// Asks those that it is registered with for the channels of a new topic. One at whose address nothing has been tried yet is waited for.
    pub fn channel_source(&self, timeouts: QuestionTimeouts) -> Arc<dyn ChannelSource> {
        Arc::new(Questions {
            announcer: self.clone(),
            timeouts,
        })
    }

    /// Keeps the node registered until `stop`. `description` says how consumers reach it.
    pub fn run(
        &self,
        mut held: HeldTopics,
        description: ProducerDescription,
        mut stop: StopSignal,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (announcer, mut addresses) = (self.clone(), self.0.addresses.clone());
        async move {
            let description = Arc::new(description);
            let (sender, receiver) = watch::channel(Arc::new(held.now()));
            let mut tasks = Tasks::default();
            loop {
                tasks.follow(&addresses.borrow_and_update(), |address| {
                    Peer::new(address, announcer.clone(), Arc::clone(&description), receiver.clone())
                });
                tokio::select! {
                    () = stop.stopped() => return,
                    changed = addresses.changed() => if changed.is_err() { return },
                    () = held.changed() => drop(sender.send_if_modified(|known| {
                        let now = held.now();
                        let is_new = now != **known;
                        *known = Arc::new(now);
                        is_new
                    })),
                    // A task ends with its abortion only.
                    Some(_) = tasks.running.join_next() => {}
                }
            }
        }
    }

    fn registered(&self, address: &str, http_address: String) {
        self.0.http_addresses.lock().insert(address.to_owned(), http_address);
    }

    fn has_addresses(&self) -> bool {
        !self.0.addresses.borrow().is_empty()
    }

    fn tried(&self, address: &str) {
        self.0.tried.send_if_modified(|tried| tried.insert(address.to_owned()));
    }

    fn forgotten(&self, address: &str) {
        self.0.tried.send_if_modified(|tried| tried.remove(address));
    }

    /// Resolves when each of its nsqlookupds has been tried once.
    async fn all_tried(&self) {
        let mut tried = self.0.tried.subscribe();
        let addresses = &self.0.addresses;
        let all = tried.wait_for(|tried| addresses.borrow().iter().all(|address| tried.contains(address)));
        // The sender is in this announcer.
        drop(all.await);
    }

    fn lost(&self, address: &str) {
        self.0.http_addresses.lock().remove(address);
    }
}

/// One task per address; all end with this.
#[derive(Default)]
struct Tasks {
    running: JoinSet<()>,
    by_address: BTreeMap<String, tokio::task::AbortHandle>,
}

impl Tasks {
    fn follow(&mut self, addresses: &[String], peer: impl Fn(&str) -> Peer) {
        self.by_address.retain(|address, task| {
            let stays = addresses.contains(address);
            if !stays {
                tracing::info!(address, "an nsqlookupd is not used any more");
                task.abort();
            }
            stays
        });
        for address in addresses {
            if !self.by_address.contains_key(address) {
                let task = self.running.spawn(peer(address).run());
                self.by_address.insert(address.clone(), task);
            }
        }
    }
}
