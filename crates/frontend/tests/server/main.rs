//! The servers over real sockets, a real broker and real groups; only the disk is in memory, and runs when a test says so.

mod auth;
mod consuming;
mod http;
mod node;
mod publishing;
mod sockets;
mod statsd;
mod transports;
mod zones;
