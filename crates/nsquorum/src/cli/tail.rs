//! `nsquorum tail`.

use std::io::Write as _;

use anyhow::Context as _;
use clap::Args;
use nsquorum_client::{Connection, Event, IdentifyOptions};
use nsquorum_environment::Environment;
use nsquorum_protocol::{ChannelName, TopicName};

const READY: u32 = 100;

/// Flags of `tail`.
#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// The topic; created if absent.
    topic: TopicName,
    /// The channel. Without it an own one that goes away with the command: it gets the messages published from now on.
    #[arg(long)]
    channel: Option<ChannelName>,
    /// End after so many messages.
    #[arg(long, short = 'n', value_name = "COUNT")]
    count: Option<u64>,
    /// The node's TCP address.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:4150")]
    nsqd_tcp_address: String,
}

/// Prints each message as one line (its bytes and a newline) and finishes it; ends after the count or by SIGINT.
pub(crate) async fn run(args: TailArgs) -> anyhow::Result<()> {
    let channel = match args.channel {
        Some(channel) => channel,
        None => {
            let number = Environment::system().random.below(1_000_000);
            format!("tail{number:06}#ephemeral")
                .parse()
                .context("the channel's name is not valid")?
        }
    };
    let mut left = args.count.unwrap_or(u64::MAX);
    let ready = u32::try_from(left).unwrap_or(READY).min(READY);
    let connection = Connection::connect(&args.nsqd_tcp_address, IdentifyOptions::default()).await;
    let connection = connection.with_context(|| format!("cannot connect to {}", args.nsqd_tcp_address))?;
    let mut consumer = connection.subscribe(&args.topic, &channel, ready).await?;
    while left > 0 {
        let event = tokio::select! {
            event = consumer.next() => event.context("the connection was lost")?,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("cannot wait for SIGINT")?;
                None
            }
        };
        match event {
            Some(Event::Message(message)) => {
                let mut out = std::io::stdout().lock();
                out.write_all(&message.body)
                    .and_then(|()| out.write_all(b"\n"))
                    .and_then(|()| out.flush())?;
                consumer.fin(message.id)?;
                left -= 1;
            }
            // It took longer than the message timeout and will come again.
            Some(Event::Refused(_)) => {}
            None => break,
        }
    }
    consumer.close().await.context("the connection did not end cleanly")
}
