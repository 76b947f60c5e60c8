//! One client connection.
//!
//! [`machine`] decides, [`shell`] does. The machine is made of a decoder (crate `nsquorum-protocol`), the queue of answers ([`replies`]), the
//! output ([`output`]), the layers under it ([`upgrade`]), the client's permissions ([`authority`]), the consuming half ([`consumer`]) and the deadlines
//! ([`deadlines`]).

mod answers;
mod authority;
mod consumer;
mod deadlines;
mod input;
mod machine;
mod output;
mod replies;
mod shell;
#[cfg(test)]
mod tests;
mod upgrade;

pub(crate) use shell::{ConnectionParts, run};
