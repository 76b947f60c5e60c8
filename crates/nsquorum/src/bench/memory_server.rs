//! A server for the benchmark's own tests: keeps messages in memory, one channel per topic, no timeouts. It can be made
//! to lose a message, which the benchmark must notice.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use nsquorum_protocol::{
    Command, ConnectionState, DecodeContext, Decoder, Limits, MessageId, TopicName, frame, take_magic,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::LocalSet;

/// Runs on a thread of its own until it is dropped.
pub(super) struct MemoryServer {
    address: String,
    dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Topic {
    queue: VecDeque<(u64, Bytes)>,
    published: u64,
    arrival: Rc<Notify>,
}

type Topics = Rc<RefCell<BTreeMap<TopicName, Topic>>>;

impl MemoryServer {
    pub(super) fn start() -> Self {
        Self::start_losing(0)
    }

    /// Acknowledges the message with number `lost` (from 1) of every topic and forgets it.
    pub(super) fn start_losing(lost: u64) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (started, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            LocalSet::new().block_on(&runtime, async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                started.send(listener.local_addr().unwrap().to_string()).unwrap();
                let topics = Topics::default();
                let accept = async {
                    loop {
                        let (stream, _) = listener.accept().await.unwrap();
                        // A client that goes away is no failure of the server.
                        tokio::task::spawn_local(serve(stream, Rc::clone(&topics), lost));
                    }
                };
                tokio::select! { () = accept => {}, _ = stopped => {} }
            });
        });
        let dir = tempfile::tempdir().unwrap();
        Self {
            address: address.recv().unwrap(),
            dir,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// A directory for the raw loop and reports.
    pub(super) fn dir(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }
}

impl Drop for MemoryServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A consumer's side of a connection.
struct Subscription {
    topic: TopicName,
    arrival: Rc<Notify>,
    ready: u32,
    in_flight: u32,
}

async fn serve(mut stream: TcpStream, topics: Topics, lost: u64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let limits = Limits::default();
    let (mut decoder, mut incoming, mut outgoing) = (Decoder::default(), BytesMut::new(), BytesMut::new());
    let mut subscription: Option<Subscription> = None;
    while !take_magic(&mut incoming).unwrap() {
        if stream.read_buf(&mut incoming).await? == 0 {
            return Ok(());
        }
    }
    loop {
        loop {
            let state = if subscription.is_some() {
                ConnectionState::Subscribed
            } else {
                ConnectionState::Init
            };
            let context = DecodeContext::new(state, &limits);
            let Some(command) = decoder.decode(&mut incoming, &context).unwrap() else {
                break;
            };
            execute(command, &mut subscription, &topics, lost, &mut outgoing);
        }
        if let Some(subscription) = &mut subscription {
            deliver(subscription, &topics, &mut outgoing);
        }
        stream.write_all_buf(&mut outgoing).await?;
        let arrival = async {
            match &subscription {
                Some(subscription) if subscription.in_flight < subscription.ready => {
                    subscription.arrival.notified().await;
                }
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            read = stream.read_buf(&mut incoming) => if read? == 0 { return Ok(()) },
            () = arrival => {}
        }
    }
}

fn execute(
    command: Command,
    subscription: &mut Option<Subscription>,
    topics: &Topics,
    lost: u64,
    outgoing: &mut BytesMut,
) {
    let mut publish = |name: TopicName, bodies: Vec<Bytes>| {
        let mut topics = topics.borrow_mut();
        let topic = topics.entry(name).or_default();
        for body in bodies {
            topic.published += 1;
            if topic.published != lost {
                topic.queue.push_back((topic.published, body));
            }
        }
        topic.arrival.notify_one();
        frame::response(outgoing, b"OK");
    };
    match command {
        Command::Identify(_) => frame::response(outgoing, br#"{"version":"memory","max_rdy_count":100}"#),
        Command::Pub { topic, body } => publish(topic, vec![body]),
        Command::Mpub { topic, bodies } => publish(topic, bodies),
        Command::Sub { topic, .. } => {
            let arrival = Rc::clone(&topics.borrow_mut().entry(topic.clone()).or_default().arrival);
            *subscription = Some(Subscription {
                topic,
                arrival,
                ready: 0,
                in_flight: 0,
            });
            frame::response(outgoing, b"OK");
        }
        Command::Rdy(ready) => subscription.as_mut().unwrap().ready = ready,
        Command::Fin(_) => subscription.as_mut().unwrap().in_flight -= 1,
        Command::Nop => {}
        other => panic!("the benchmark does not send {other:?}"),
    }
}

fn deliver(subscription: &mut Subscription, topics: &Topics, outgoing: &mut BytesMut) {
    let mut topics = topics.borrow_mut();
    let queue = &mut topics.get_mut(&subscription.topic).unwrap().queue;
    while subscription.in_flight < subscription.ready
        && let Some((number, body)) = queue.pop_front()
    {
        frame::message(outgoing, 0, 1, MessageId::from_seq(number), &body);
        subscription.in_flight += 1;
    }
}
