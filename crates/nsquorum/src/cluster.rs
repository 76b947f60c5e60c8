//! How a node gets from its flags to its place in a cluster.
//!
//! A directory that has no cluster yet looks for one over links of its own, before the store is opened; what it finds is written into the
//! directory first. Then, as on every later start, the links are made anew under the identity that the directory has.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context as _;
use nsquorum_consensus::{Founded, FoundingWitness, find_cluster};
use nsquorum_environment::Environment;
use nsquorum_links::{ClusterSecret, GrpcLinks, GrpcOptions, Links, PeerAddress, PeerIdentity};
use nsquorum_storage::{Identity, Member, NodeDirectory, StoreOptions};
use nsquorum_topic::NodeId;
use tokio::net::TcpListener;

use crate::cli::ServeArgs;
use crate::compose::storage;
use crate::exit::Exit;
use crate::serve::Stopped;

/// What a node of several was told on its command line.
pub(crate) struct Joining {
    /// This node's own, as peers reach it.
    address: String,
    seeds: BTreeSet<String>,
    secret: Option<ClusterSecret>,
    listener: std::net::TcpListener,
    environment: Environment,
}

fn usage(complaint: String) -> Stopped {
    Stopped {
        exit: Exit::Usage,
        cause: anyhow::Error::msg(complaint),
    }
}

impl Joining {
    /// Checks the flags. `listener` is the peer address, open.
    pub(crate) fn new(args: &ServeArgs, listener: TcpListener, environment: Environment) -> Result<Self, Stopped> {
        let address = args
            .peer_broadcast_address
            .as_ref()
            .unwrap_or(&args.peer_address)
            .clone();
        let seeds: BTreeSet<String> = args.cluster_seeds.iter().cloned().collect();
        if !seeds.contains(&address) {
            let seeds = args.cluster_seeds.join(",");
            return Err(usage(format!(
                "this node's own address {address} is not one of --cluster-seeds {seeds}; name it with --peer-broadcast-address"
            )));
        }
        if let Some(expect) = args.cluster_expect
            && expect != seeds.len()
        {
            let found = seeds.len();
            return Err(usage(format!(
                "--cluster-expect {expect}, but --cluster-seeds names {found} nodes"
            )));
        }
        let secret = args.cluster_secret_file.as_ref().map(|path| {
            let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            ClusterSecret::new(text.trim_ascii()).with_context(|| path.display().to_string())
        });
        let listener = listener.into_std().context("cannot use the peer listener")?;
        Ok(Self {
            address,
            seeds,
            secret: secret.transpose()?,
            listener,
            environment,
        })
    }

    fn links(&self, identity: PeerIdentity) -> Arc<GrpcLinks> {
        let options = GrpcOptions {
            secret: self.secret.clone(),
            ..GrpcOptions::default()
        };
        GrpcLinks::new(identity, options, self.environment.clone())
    }

    /// The same socket again: whoever dials meanwhile waits in its queue.
    fn listener(&self) -> anyhow::Result<TcpListener> {
        let listener = self.listener.try_clone().context("cannot share the peer listener")?;
        TcpListener::from_std(listener).context("cannot use the peer listener")
    }

    /// Returns when the directory has a cluster.
    pub(crate) async fn find_cluster(&self, options: &StoreOptions) -> Result<(), Stopped> {
        let options = options.clone();
        // Opening is a start of the node, with a write and a sync: not for a directory that has a cluster and is about to be opened for good.
        let opened = tokio::task::spawn_blocking(move || match Identity::read(&options.directory) {
            Ok(identity) if identity.cluster.is_some() => Ok(None),
            _ => NodeDirectory::open(&options).map(Some),
        });
        let opened = opened.await.context("opening the directory failed")?.map_err(storage)?;
        let Some(mut directory) = opened else {
            return Ok(());
        };
        let identity = directory.identity().clone();
        let links = self.links(identity_of(&identity));
        links.set_peers(self.others().map(PeerAddress::seed).collect());
        let listener = self.listener()?;
        let found = find_cluster(
            Arc::clone(&links) as Arc<dyn Links>,
            || links.start(listener),
            self.address.clone(),
            self.seeds.clone(),
            &self.environment,
        );
        let founded = found.await;
        tracing::info!(cluster = %founded.cluster, node = identity.node.get(), "found the cluster");
        let written = tokio::task::spawn_blocking(move || directory.found(founded.cluster, founded.members)).await;
        written
            .context("writing the directory's identity failed")?
            .map_err(storage)?;
        links.stop();
        Ok(())
    }

    fn others(&self) -> impl Iterator<Item = &String> {
        self.seeds.iter().filter(|seed| **seed != self.address)
    }

    /// The node's place in the cluster that its directory names.
    pub(crate) fn peering(&self, identity: &Identity) -> Result<Peering, Stopped> {
        let cluster = identity
            .cluster
            .context("a node that is given its peers has found its cluster")?;
        if identity.members.is_empty() {
            return Err(usage(
                "the data directory is a cluster of one; start it without --cluster-seeds, or give this node an empty directory".into(),
            ));
        }
        let addresses: BTreeSet<String> = identity.members.iter().map(|member| member.address.clone()).collect();
        if addresses != self.seeds {
            let known: Vec<_> = addresses.into_iter().collect();
            return Err(usage(format!(
                "the data directory belongs to a cluster of {}; --cluster-seeds must name the same",
                known.join(",")
            )));
        }
        let own = identity
            .members
            .iter()
            .find(|member| member.node == identity.node.get());
        if own.is_none_or(|own| own.address != self.address) {
            return Err(usage(format!(
                "the data directory is not that of the node at {}",
                self.address
            )));
        }
        let links = self.links(identity_of(identity));
        let others = identity
            .members
            .iter()
            .filter(|member| member.node != identity.node.get());
        links.set_peers(
            others
                .map(|member| PeerAddress::of(NodeId::new(member.node), member.address.clone()))
                .collect(),
        );
        let founded = Founded {
            cluster,
            members: identity.members.clone(),
        };
        FoundingWitness::register(&(Arc::clone(&links) as Arc<dyn Links>), founded);
        Ok(Peering {
            links,
            members: identity.members.clone(),
            listener: parking_lot::Mutex::new(Some(self.listener()?)),
        })
    }
}

fn identity_of(identity: &Identity) -> PeerIdentity {
    PeerIdentity {
        cluster: identity.cluster,
        node: identity.node,
        incarnation: identity.incarnation,
    }
}

/// A node's place in its cluster.
pub(crate) struct Peering {
    links: Arc<GrpcLinks>,
    members: Vec<Member>,
    listener: parking_lot::Mutex<Option<TcpListener>>,
}

impl Peering {
    /// The links to the other nodes.
    pub(crate) fn links(&self) -> Arc<dyn Links> {
        Arc::clone(&self.links) as Arc<dyn Links>
    }

    /// All storage nodes.
    pub(crate) fn members(&self) -> BTreeSet<NodeId> {
        self.members.iter().map(|member| NodeId::new(member.node)).collect()
    }

    /// Starts the links, once every receiver is registered.
    pub(crate) fn start(&self) {
        if let Some(listener) = self.listener.lock().take() {
            self.links.start(listener);
        }
    }

    /// Ends the links in good order.
    pub(crate) fn stop(&self) {
        self.links.stop();
    }
}
