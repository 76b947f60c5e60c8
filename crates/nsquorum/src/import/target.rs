//! The nodes that the messages go to.

use std::time::{Duration, Instant};

use crate::http_request::{Answer, send};

/// How long to wait before the next node is tried.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A request has succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored;

/// Sends requests to one node, and to the next when that does not take them.
#[derive(Debug)]
pub(super) struct Target {
    addresses: Vec<String>,
    current: usize,
    retry_for: Duration,
    uncertain: u64,
}

impl Target {
    pub(super) fn new(addresses: Vec<String>, retry_for: Duration) -> Self {
        Self {
            addresses,
            current: 0,
            retry_for,
            uncertain: 0,
        }
    }

    /// Messages that were sent again without knowing whether the first time had succeeded.
    pub(super) fn uncertain(&self) -> u64 {
        self.uncertain
    }

    /// An administrative request; all of them can be repeated without harm.
    pub(super) async fn post(&mut self, path: &str) -> anyhow::Result<Stored> {
        self.publish(path, &[], 0).await
    }

    /// Publishes so many messages: all or none of a request is stored.
    pub(super) async fn publish(&mut self, path: &str, body: &[u8], messages: u64) -> anyhow::Result<Stored> {
        let begun = Instant::now();
        let uncertain_before = self.uncertain;
        loop {
            let address = &self.addresses[self.current % self.addresses.len()];
            let failure = match send(address, "POST", path, body).await {
                Ok(Answer { status: 200, .. }) => return Ok(Stored),
                Ok(Answer { status, body }) if !may_pass(status, &body) => {
                    let failure = anyhow::anyhow!("POST http://{address}{path}: status {status}: {}", explained(&body));
                    return Err(self.said_of(failure, uncertain_before));
                }
                Ok(Answer { status, body }) => {
                    if !is_refusal(&body) {
                        self.uncertain += messages;
                    }
                    anyhow::anyhow!("POST http://{address}{path}: status {status}: {}", body.trim())
                }
                Err(error) => {
                    if !is_refused(&error) {
                        self.uncertain += messages;
                    }
                    error
                }
            };
            if begun.elapsed() >= self.retry_for {
                return Err(self.said_of(failure, uncertain_before));
            }
            self.current += 1;
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    fn said_of(&self, failure: anyhow::Error, uncertain_before: u64) -> anyhow::Error {
        if self.uncertain == uncertain_before {
            return failure;
        }
        failure
            .context("an answer was lost: the messages of this request may have been stored, and come once more then")
    }
}

/// 503 is said while a node starts, has no majority, or has no space; a pause lasts as long as somebody likes. A node that lags has
/// not heard yet of a topic that the import has created at another.
fn may_pass(status: u16, body: &str) -> bool {
    match status {
        503 => !body.contains("TOPIC_PAUSED"),
        404 => body.contains("TOPIC_NOT_FOUND"),
        _ => false,
    }
}

/// Whether the answer promises that nothing was stored.
fn is_refusal(body: &str) -> bool {
    ["DISK_FULL", "TOO_MANY_DEFERRED", "TOPIC_PAUSED", "TOPIC_NOT_FOUND"]
        .iter()
        .any(|code| body.contains(code))
}

/// Nothing has been sent: nobody listens there.
fn is_refused(error: &anyhow::Error) -> bool {
    let refused = |cause: &(dyn std::error::Error + 'static)| {
        let error = cause.downcast_ref::<std::io::Error>();
        error.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    error.chain().any(refused)
}

fn explained(body: &str) -> String {
    let body = body.trim();
    if body.contains("TOPIC_PAUSED") {
        return format!(
            "{body}: a channel's own messages cannot be moved while the topic is paused; unpause it, with its channels paused, if nothing may be delivered"
        );
    }
    body.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again() {
        assert!(may_pass(503, "{\"message\":\"TIMED_OUT\"}"));
        assert!(!may_pass(503, "{\"message\":\"TOPIC_PAUSED\"}"));
        assert!(!may_pass(413, "{\"message\":\"MSG_TOO_BIG\"}"));
        assert!(!may_pass(404, "{\"message\":\"CHANNEL_NOT_FOUND\"}"));
        assert!(
            !may_pass(404, "{\"message\":\"NOT_FOUND\"}"),
            "an nsqd, which has no such request"
        );
        for code in ["TIMED_OUT", "EXITING", "QUARANTINED", ""] {
            assert!(!is_refusal(&format!("{{\"message\":\"{code}\"}}")), "{code}");
        }
        assert!(is_refusal("{\"message\":\"DISK_FULL\"}"));
    }

    /// Answers one request after the other with these, and then no more.
    async fn answering(answers: &'static [&'static str]) -> (String, tokio::task::JoinHandle<()>) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (address, server)
    }

    #[tokio::test]
    async fn the_next_node_is_tried_and_a_dead_one_makes_nothing_uncertain() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let (open, server) = answering(&["HTTP/1.0 503 x\r\n\r\nTIMED_OUT", "HTTP/1.0 200 OK\r\n\r\nOK"]).await;
        let mut target = Target::new(vec![closed.to_string(), open], Duration::from_secs(60));
        assert_eq!(target.publish("/mpub?topic=t", b"", 7).await.unwrap(), Stored);
        assert_eq!(target.uncertain(), 7, "of the time-out alone");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_node_that_has_not_heard_of_the_topic_yet_is_asked_again() {
        let (address, server) = answering(&[
            "HTTP/1.0 404 x\r\n\r\n{\"message\":\"TOPIC_NOT_FOUND\"}",
            "HTTP/1.0 200 OK\r\n\r\nOK",
        ])
        .await;
        let mut target = Target::new(vec![address], Duration::from_secs(60));
        let stored = target.publish("/channel/mpub?topic=t&channel=c", b"", 7).await;
        assert_eq!(stored.unwrap(), Stored);
        assert_eq!(target.uncertain(), 0, "it has stored nothing");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_topic_that_stays_unknown_ends_the_import() {
        let (address, server) = answering(&["HTTP/1.0 404 x\r\n\r\n{\"message\":\"TOPIC_NOT_FOUND\"}"]).await;
        let mut target = Target::new(vec![address], Duration::ZERO);
        let refused = target.post("/channel/create?topic=t&channel=c").await.unwrap_err();
        assert!(format!("{refused:#}").contains("TOPIC_NOT_FOUND"), "{refused:#}");
        server.await.unwrap();
    }
}
