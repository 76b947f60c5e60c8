//! `nsquorum import`: what a stopped stock nsqd left in its data path moves into running nodes.
//!
//! Topics and channels are created first, with the channels' pauses. Then every queue goes to where it belongs: a channel's backlog to
//! that channel alone, the topic's own to all channels; a topic's pause is set in between, because what a paused topic holds belongs to all
//! alike. How far it has come is kept beside the queues, so an import that was interrupted goes on (docs/decisions/0017).

mod progress;
mod report;
mod target;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use nsquorum_diskqueue::{DataPath, DataPathError, Position, Queue, QueueName, QueueReader, TopicEntry};

use crate::cli::{complain, parse_duration};
use crate::exit::Exit;
use progress::Progress;
use report::Report;
use target::{Stored, Target};

/// Bytes of one request's body, if its first message is not longer: well below nsqd's default of --max-body-size.
const BATCH_BYTES_MAX: usize = 512 << 10;
/// Messages of one request: what may come twice if its answer is lost.
const BATCH_MESSAGES_MAX: usize = 1000;

/// Flags of `import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The data path of the stopped nsqd. Nothing in it is changed; a file that says how far the import has come is added.
    directory: PathBuf,
    /// HTTP address of a node that the messages go to; may be repeated, the others are tried when one does not answer.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:4151")]
    nsqd_http_address: Vec<String>,
    /// Only read and check everything, and print what there is.
    #[arg(long)]
    dry_run: bool,
    /// The longest message that the nsqd accepted, its --max-msg-size, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    max_msg_size: u32,
    /// How long to go on trying when no node takes a request.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    retry_for: Duration,
}

/// Returns when everything is safe; `Exit::ImpossibleData` if messages could not be read, after the rest was imported.
pub(crate) async fn run(args: ImportArgs) -> anyhow::Result<Exit> {
    let directory = args.directory.clone();
    let opened = on_disk(move || DataPath::open(&directory)).await?;
    let data_path = match opened {
        Ok(data_path) => data_path,
        Err(error) => {
            complain(&error.to_string());
            return Ok(exit_of(&error));
        }
    };
    let names = data_path.queue_names();
    let queues = names
        .iter()
        .map(|name| data_path.queue(name))
        .collect::<Result<Vec<_>, _>>()?;
    let mut report = Report::new(&data_path, &queues);
    if args.dry_run {
        for queue in &queues {
            let (reader, count) = pass(queue.read(args.max_msg_size), None).await?;
            report.read(queue, 0, count, &reader);
        }
        report.print(true);
        return Ok(report.exit());
    }
    let mut target = Target::new(args.nsqd_http_address.clone(), args.retry_for);
    // Whether it can be noted must be known before anything is sent.
    let mut progress = Progress::open(&args.directory, &queues).await?;
    for topic in data_path.topics() {
        create(&mut target, topic).await?;
    }
    for queue in &queues {
        if let QueueName::Topic(name) = queue.name() {
            let paused = data_path
                .topics()
                .iter()
                .any(|topic| topic.name == *name && topic.paused);
            if paused {
                target.post(&format!("/topic/pause?topic={name}")).await?;
            }
        }
        move_queue(&args, queue, &mut target, &mut progress, &mut report).await?;
    }
    report.uncertain(target.uncertain());
    report.print(false);
    Ok(report.exit())
}

fn exit_of(error: &DataPathError) -> Exit {
    match error {
        DataPathError::InUse(_) => Exit::DirectoryInUse,
        DataPathError::NotADataPath(_) => Exit::ForeignDirectory,
        DataPathError::BadTopics { .. } => Exit::ImpossibleData,
        DataPathError::MessageTooLong { .. } | DataPathError::Io { .. } => Exit::Failed,
    }
}

async fn create(target: &mut Target, topic: &TopicEntry) -> anyhow::Result<()> {
    let name = &topic.name;
    target.post(&format!("/topic/create?topic={name}")).await?;
    for channel in &topic.channels {
        let of_channel = format!("topic={name}&channel={}", channel.name);
        target.post(&format!("/channel/create?{of_channel}")).await?;
        if channel.paused {
            target.post(&format!("/channel/pause?{of_channel}")).await?;
        }
    }
    Ok(())
}

async fn move_queue(
    args: &ImportArgs,
    queue: &Queue,
    target: &mut Target,
    progress: &mut Progress,
    report: &mut Report,
) -> anyhow::Result<()> {
    let path = match queue.name() {
        QueueName::Topic(topic) => format!("/mpub?topic={topic}&binary=true"),
        QueueName::Channel(topic, channel) => format!("/channel/mpub?topic={topic}&channel={channel}"),
    };
    // What an earlier import has stored is read again: what is wrong in it is still to be said, and still decides the exit code.
    let (mut reader, before) = match progress.position(queue) {
        None => (queue.read(args.max_msg_size), 0),
        Some(position) => pass(queue.read(args.max_msg_size), Some(position)).await?,
    };
    let mut count = 0;
    loop {
        let (back, batch) = next_batch(reader).await?;
        reader = back;
        let Some(batch) = batch else { break };
        let stored = target.publish(&path, &batch.body(), batch.count()).await;
        let Stored = stored.with_context(|| {
            format!(
                "{}: stopped at {} after {count} messages; the same command goes on there",
                queue.name(),
                batch.begin
            )
        })?;
        count += batch.count();
        progress.save(queue, reader.position(), batch.count()).await?;
    }
    report.read(queue, before, count, &reader);
    Ok(())
}

/// Reads up to a place, or to the end; returns how many messages there were.
async fn pass(mut reader: QueueReader, to: Option<Position>) -> anyhow::Result<(QueueReader, u64)> {
    on_disk(move || {
        let mut count = 0;
        while to.is_none_or(|to| reader.position() < to) && reader.next_record()?.is_some() {
            count += 1;
        }
        Ok((reader, count))
    })
    .await?
}

/// Messages that go in one request.
#[derive(Debug)]
struct Batch {
    begin: Position,
    bodies: Vec<Vec<u8>>,
}

impl Batch {
    fn count(&self) -> u64 {
        self.bodies.len() as u64
    }

    /// The binary body of an /mpub.
    fn body(&self) -> Vec<u8> {
        let length = |length: usize| {
            u32::try_from(length)
                .expect("a batch is far smaller than 4 GiB")
                .to_be_bytes()
        };
        let mut body = length(self.bodies.len()).to_vec();
        for message in &self.bodies {
            body.extend_from_slice(&length(message.len()));
            body.extend_from_slice(message);
        }
        body
    }
}

/// Reads on; `None` at the end. The bytes are bounded by [`BATCH_BYTES_MAX`] and one message.
async fn next_batch(mut reader: QueueReader) -> anyhow::Result<(QueueReader, Option<Batch>)> {
    on_disk(move || {
        let begin = reader.position();
        let (mut bodies, mut bytes) = (Vec::new(), 0);
        while bodies.len() < BATCH_MESSAGES_MAX && bytes < BATCH_BYTES_MAX {
            let Some(record) = reader.next_record()? else { break };
            bytes += record.body.len() + 4;
            bodies.push(record.body);
        }
        let batch = (!bodies.is_empty()).then_some(Batch { begin, bodies });
        Ok((reader, batch))
    })
    .await?
}

async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("reading has failed")
}
