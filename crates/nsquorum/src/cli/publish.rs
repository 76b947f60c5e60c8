//! `nsquorum pub`.

use std::io::Read as _;

use anyhow::Context as _;
use clap::Args;
use nsquorum_client::{Connection, IdentifyOptions};
use nsquorum_protocol::TopicName;

/// Flags of `pub`.
#[derive(Debug, Args)]
pub(crate) struct PubArgs {
    /// The topic; created if absent.
    topic: TopicName,
    /// The message; `-` or nothing reads all of standard input.
    body: Option<String>,
    /// The node's TCP address.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:4150")]
    nsqd_tcp_address: String,
}

/// Returns when the message is safe.
pub(crate) async fn run(args: PubArgs) -> anyhow::Result<()> {
    let body = match args.body.as_deref() {
        Some(text) if text != "-" => text.as_bytes().to_vec(),
        _ => {
            let mut body = Vec::new();
            std::io::stdin()
                .lock()
                .read_to_end(&mut body)
                .context("cannot read standard input")?;
            body
        }
    };
    let connection = Connection::connect(&args.nsqd_tcp_address, IdentifyOptions::default()).await;
    let producer = connection
        .with_context(|| format!("cannot connect to {}", args.nsqd_tcp_address))?
        .into_producer();
    producer
        .publish(&args.topic, &body)
        .await
        .with_context(|| format!("cannot publish to {}", args.topic))?;
    producer.close().await.context("the connection did not end cleanly")
}
