//! The table of endpoints.

use nsquorum_http::{Method, Router};

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Ping,
    Info,
    Debug,
    Lookup,
    Topics,
    Channels,
    Nodes,
    CreateTopic,
    DeleteTopic,
    TombstoneTopic,
    CreateChannel,
    DeleteChannel,
}

pub(crate) const ROUTER: Router<Endpoint> = Router::new(&[
    (Method::GET, "/ping", Endpoint::Ping),
    (Method::GET, "/info", Endpoint::Info),
    (Method::GET, "/debug", Endpoint::Debug),
    (Method::GET, "/lookup", Endpoint::Lookup),
    (Method::GET, "/topics", Endpoint::Topics),
    (Method::GET, "/channels", Endpoint::Channels),
    (Method::GET, "/nodes", Endpoint::Nodes),
    (Method::POST, "/topic/create", Endpoint::CreateTopic),
    (Method::POST, "/topic/delete", Endpoint::DeleteTopic),
    (Method::POST, "/topic/tombstone", Endpoint::TombstoneTopic),
    (Method::POST, "/channel/create", Endpoint::CreateChannel),
    (Method::POST, "/channel/delete", Endpoint::DeleteChannel),
]);
