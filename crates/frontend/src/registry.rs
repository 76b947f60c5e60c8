//! The node's TCP connections, for `/stats`.
//!
//! The topic leaders know the consumers; nobody but the connections themselves knows the producers. nsqd lists every connection that has
//! published, with its topics and counts, and shows the protocol state of each consumer, which is here too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nsquorum_broker::ClientDescription;
use nsquorum_protocol::{Compression, ConnectionState, TopicName};
use parking_lot::Mutex;

use crate::tls::TlsSession;

/// All connections of a node; clones refer to the same.
#[derive(Clone, Debug, Default)]
pub struct ConnectionRegistry(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    next: AtomicU64,
    connections: Mutex<BTreeMap<u64, Arc<ConnectionRecord>>>,
}

/// What is known about one connection.
#[derive(Debug)]
pub struct ConnectionRecord {
    changing: Mutex<Changing>,
}

#[derive(Debug)]
struct Changing {
    client: Arc<ClientDescription>,
    state: ConnectionState,
    tls: Option<Arc<TlsSession>>,
    compression: Option<Compression>,
    identity: Option<Arc<Identity>>,
    published: BTreeMap<TopicName, u64>,
}

/// Who an auth server says a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// A name for it.
    pub name: String,
    /// Where more is to be found about it.
    pub url: String,
}

/// A connection as `/stats` shows it.
#[derive(Clone, Debug)]
pub struct ConnectionView {
    /// Who it is.
    pub client: Arc<ClientDescription>,
    /// Its protocol state.
    pub state: ConnectionState,
    /// Its TLS, if it has one.
    pub tls: Option<Arc<TlsSession>>,
    /// Its compression, if it has one.
    pub compression: Option<Compression>,
    /// Who an auth server says it is, if one was asked.
    pub identity: Option<Arc<Identity>>,
    /// Messages published by it and answered with `OK`, by topic.
    pub published: BTreeMap<TopicName, u64>,
}

/// Keeps a connection in the registry while it lives.
#[derive(Debug)]
pub(crate) struct Registration {
    registry: ConnectionRegistry,
    id: u64,
    record: Arc<ConnectionRecord>,
}

impl ConnectionRegistry {
    /// A connection appears.
    pub(crate) fn register(&self, client: ClientDescription) -> Registration {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let record = Arc::new(ConnectionRecord::new(client));
        self.0.connections.lock().insert(id, Arc::clone(&record));
        Registration {
            registry: self.clone(),
            id,
            record,
        }
    }

    /// All connections, the oldest first.
    pub fn views(&self) -> Vec<ConnectionView> {
        let records: Vec<_> = self.0.connections.lock().values().cloned().collect();
        records.iter().map(|record| record.view()).collect()
    }

    /// How many connections there are.
    pub fn count(&self) -> usize {
        self.0.connections.lock().len()
    }
}

impl ConnectionRecord {
    pub(crate) fn new(client: ClientDescription) -> Self {
        let published = BTreeMap::new();
        let changing = Changing {
            client: Arc::new(client),
            state: ConnectionState::Init,
            tls: None,
            compression: None,
            identity: None,
            published,
        };
        Self {
            changing: Mutex::new(changing),
        }
    }

    /// Who it is.
    pub(crate) fn client(&self) -> Arc<ClientDescription> {
        Arc::clone(&self.changing.lock().client)
    }

    /// IDENTIFY changes who it is.
    pub(crate) fn update_client(&self, update: impl FnOnce(&mut ClientDescription)) {
        update(Arc::make_mut(&mut self.changing.lock().client));
    }

    pub(crate) fn set_state(&self, state: ConnectionState) {
        self.changing.lock().state = state;
    }

    pub(crate) fn set_tls(&self, session: TlsSession) {
        self.changing.lock().tls = Some(Arc::new(session));
    }

    pub(crate) fn set_compression(&self, compression: Compression) {
        self.changing.lock().compression = Some(compression);
    }

    pub(crate) fn set_identity(&self, name: &str, url: &str) {
        let (name, url) = (name.to_owned(), url.to_owned());
        self.changing.lock().identity = Some(Arc::new(Identity { name, url }));
    }

    /// `count` messages for `topic` were answered with `OK`.
    pub(crate) fn count_published(&self, topic: &TopicName, count: u64) {
        let mut changing = self.changing.lock();
        match changing.published.get_mut(topic) {
            Some(published) => *published += count,
            None => drop(changing.published.insert(topic.clone(), count)),
        }
    }

    /// What it is at this moment.
    pub(crate) fn view(&self) -> ConnectionView {
        let changing = self.changing.lock();
        ConnectionView {
            client: Arc::clone(&changing.client),
            state: changing.state,
            tls: changing.tls.clone(),
            compression: changing.compression,
            identity: changing.identity.clone(),
            published: changing.published.clone(),
        }
    }
}

impl Registration {
    /// The record that the connection updates.
    pub(crate) fn record(&self) -> Arc<ConnectionRecord> {
        Arc::clone(&self.record)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.0.connections.lock().remove(&self.id);
    }
}
