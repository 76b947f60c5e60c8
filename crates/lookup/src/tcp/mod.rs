//! nsqlookupd's TCP protocol: what nsqds register with.
//!
//! [`Decoder`] turns bytes into commands, [`Session`] carries them out, `server` is the shell around both. Answers have a length and no
//! frame type. Every error ends the connection.

mod decoder;
mod error;
mod server;
mod session;

pub use decoder::{Command, Decoder};
pub use error::LookupError;
pub use server::LookupServer;
