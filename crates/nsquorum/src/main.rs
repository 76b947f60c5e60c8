//! `nsquorum`: a durable, replicated message queue that NSQ clients use unchanged.
//!
//! One binary: the server (`serve`), small clients (`pub`, `tail`), `import` of a stock nsqd's data, the benchmark (`bench`), and tools for the directory of a stopped
//! node (`verify`, `repair`). Here everything is put together; what it does is in the libraries.

mod bench;
mod cli;
mod cluster;
mod compose;
mod descriptors;
mod exit;
mod http_request;
mod import;
mod serve;
mod status;
mod up;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run().into()
}
