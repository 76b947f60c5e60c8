//! Which channels the nsqlookupds know of a topic, asked over HTTP as nsqd does.

use std::io;
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::header::{ACCEPT, HOST};
use nsquorum_broker::ChannelSource;
use nsquorum_http::{ExchangeError, StatusCode};
use nsquorum_protocol::{ChannelName, TopicName};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::Announcer;

/// How long it may take to ask.
#[derive(Clone, Copy, Debug)]
pub struct QuestionTimeouts {
    /// Until a TCP connection is made.
    pub connect: Duration,
    /// Until one nsqlookupd has answered, the connection included.
    pub request: Duration,
    /// For all of it. The publishes that begin a topic wait meanwhile, and give up at some time.
    pub total: Duration,
}

/// Asks the nsqlookupds that a node is registered with.
#[derive(Clone, Debug)]
pub(super) struct Questions {
    pub(super) announcer: Announcer,
    pub(super) timeouts: QuestionTimeouts,
}

/// Why one of them is of no help.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    TooSlow(#[from] tokio::time::error::Elapsed),
    #[error("{0}")]
    Exchange(#[from] ExchangeError),
    #[error("the request cannot be made: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("the status is {0}")]
    Status(StatusCode),
    #[error("the answer is not what it should be: {0}")]
    Json(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct Answer {
    channels: Option<Vec<String>>,
}

impl ChannelSource for Questions {
    fn channels_of(
        &self,
        topic: &TopicName,
    ) -> std::pin::Pin<Box<dyn Future<Output = Vec<ChannelName>> + Send + 'static>> {
        let (questions, topic) = (self.clone(), topic.clone());
        Box::pin(async move { questions.ask_all(topic).await })
    }
}

impl Questions {
    /// All names that anybody gives, each once.
    async fn ask_all(self, topic: TopicName) -> Vec<ChannelName> {
        if !self.announcer.has_addresses() {
            return Vec::new();
        }
        let deadline = Instant::now() + self.timeouts.total;
        // A node that has just started has not heard of them yet where they are.
        let all_tried = timeout_at(deadline, self.announcer.all_tried()).await;
        let addresses = self.announcer.http_addresses();
        if all_tried.is_err() || addresses.is_empty() {
            tracing::warn!(%topic, "not every nsqlookupd can be asked for the channels of this new topic");
        }
        let mut asked = JoinSet::new();
        for address in addresses {
            let (timeouts, topic) = (self.timeouts, topic.clone());
            asked.spawn(async move {
                let answer = timeout(timeouts.request, ask(&address, timeouts.connect, &topic)).await;
                (address, answer.unwrap_or_else(|elapsed| Err(elapsed.into())))
            });
        }
        let mut channels: Vec<ChannelName> = Vec::new();
        loop {
            let (address, answer) = match timeout_at(deadline, asked.join_next()).await {
                Ok(None) => break,
                // None is aborted, and a panic ends the process.
                Ok(Some(Err(_))) => continue,
                Ok(Some(Ok(answered))) => answered,
                Err(_) => {
                    tracing::warn!(%topic, silent = asked.len(), "the topic begins without the answers of all nsqlookupds");
                    break;
                }
            };
            let outcome = match answer {
                Ok(names) => {
                    channels.extend(names);
                    "answered"
                }
                Err(cause) => {
                    tracing::warn!(%topic, address, %cause, "this nsqlookupd does not say which channels a new topic has");
                    "failed"
                }
            };
            metrics::counter!("nsquorum_lookupd_questions_total", "outcome" => outcome).increment(1);
        }
        channels.sort();
        channels.dedup();
        channels
    }
}

async fn ask(address: &str, connect_max: Duration, topic: &TopicName) -> Result<Vec<ChannelName>, Unknown> {
    let stream = timeout(connect_max, TcpStream::connect(address)).await??;
    let request = Request::get(format!("/channels?topic={}", topic.as_str().replace('#', "%23")))
        .header(HOST, address)
        .header(ACCEPT, "application/vnd.nsq; version=1.0")
        .body(Full::default())?;
    let answer = nsquorum_http::exchange(stream, request).await?;
    if answer.status != StatusCode::OK {
        return Err(Unknown::Status(answer.status));
    }
    let answer: Answer = serde_json::from_slice(&answer.body)?;
    let names = answer.channels.unwrap_or_default();
    // A name that cannot be a channel's here cannot be consumed here.
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}
