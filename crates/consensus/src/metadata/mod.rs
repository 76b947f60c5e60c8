//! The metadata group: which topics exist, in which group, and which numbers their names have used up.
//!
//! Commands and state are JSON: they are few and small, an operator can read them in a damaged directory, and serde's field rules let a
//! later version add fields. Maps are ordered, so equal states have equal bytes on all replicas.

mod command;
mod machine;
mod nodes;
mod replay;
mod state;
mod submit;

pub(crate) use command::{MetadataBatch, MetadataCommand};
pub(crate) use machine::MetadataMachine;
pub use nodes::NodeDescription;
pub use replay::OfflineMetadata;
pub use state::{MetadataState, TopicRecord};
pub(crate) use submit::{Asking, Commands, Elsewhere};
