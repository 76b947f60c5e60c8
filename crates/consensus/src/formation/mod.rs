//! How nodes with empty directories become one cluster (design-cluster 7 and 8).
//!
//! Every node is given the same seeds: the peer addresses of all the nodes that shall form the cluster. Each says "here I am" to the others. The
//! node at the first seed, in sorted order, and only that one, founds the cluster, and only once *every* seed has said that its directory is
//! empty. It writes the founding down, durably, before it tells anybody; from then on every node that is a member tells who asks.
//!
//! So the order of starts does not matter, a crash at any point is mended by starting again, and two lost disks beside one slow survivor never
//! become a new, empty cluster: the survivor has a cluster, hence never says that it is empty, hence nobody founds.

mod founding;
mod links;
mod message;

pub use founding::Founded;
pub use links::{FoundingWitness, find_cluster};
