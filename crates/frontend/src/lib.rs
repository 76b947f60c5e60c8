//! nsqd's servers: TCP protocol V2 and HTTP.
//!
//! What a client can see of a node is decided here and in `nsquorum-protocol`: answers in the order of commands, heartbeats that never wait
//! for a command, errors that close, deliveries that leave as soon as they are there, and bounds in bytes on everything that waits. Where
//! a message is stored and who gets it is the broker's business.
//!
//! The heart is the connection's step machine (module `connection`); the HTTP side is a table of routes over the same broker.

mod auth;
mod config;
mod connection;
mod http;
mod metrics;
mod registry;
mod seats;
mod settings;
mod statsd;
mod tcp;
pub mod tls;
mod transport;

#[cfg(any(test, fuzzing))]
pub use auth::hostile;
pub use auth::{AuthMethod, AuthSettings};
pub use config::{Corruption, CorruptionHook, FrontendConfig};
pub use http::HttpFrontend;
pub use registry::{ConnectionRecord, ConnectionRegistry, ConnectionView, Identity};
pub use settings::{EffectiveSettings, LogLevel, Setting, SettingError};
pub use statsd::{StatsdPusher, StatsdSettings};
pub use tcp::TcpServer;
