//! A host that writes one message at a time into every topic that its node leads: what a broker does, without consumers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use nsquorum_consensus::{Refusal, TopicEvent, TopicGroup, TopicHost};
use nsquorum_protocol::{ChannelName, TopicName};
use nsquorum_storage::{ENTRY_HEADER_BYTES, EntryKind};
use nsquorum_topic::{Applied, BatchBuilder, Event, GroupId, LogTime, NewMessage, Seq, SeqRange, Term, TopicState};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It has this number.
    Ok(Seq),
    /// It is not in the log, and never will be.
    NotHere,
    /// It may be.
    Unknown,
}

pub(crate) struct Write {
    pub(crate) body: Option<Bytes>,
    pub(crate) events: Vec<Event>,
    pub(crate) written: oneshot::Sender<Written>,
}

/// What a topic's task shows.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    /// LeaderStarted without Deposed.
    pub(crate) leading: Option<Term>,
    pub(crate) started: Vec<Term>,
    pub(crate) deposed: usize,
    pub(crate) quarantined: bool,
}

#[derive(Clone)]
pub(crate) struct Topic {
    pub(crate) writes: mpsc::UnboundedSender<Write>,
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) log: Arc<dyn nsquorum_consensus::TopicLog>,
}

/// The topics of one node's life.
#[derive(Clone, Default)]
pub(crate) struct Host {
    topics: Arc<Mutex<BTreeMap<GroupId, Topic>>>,
    pub(crate) stopped: Arc<Mutex<Vec<GroupId>>>,
    pub(crate) failed: Arc<Mutex<Vec<GroupId>>>,
}

impl Host {
    pub(crate) fn topic(&self, group: GroupId) -> Option<Topic> {
        self.topics.lock().get(&group).cloned()
    }
}

impl TopicHost for Host {
    fn topic_started(&self, topic: TopicGroup) {
        let (writes, inbox) = mpsc::unbounded_channel();
        let shown = Topic {
            writes,
            seen: Arc::default(),
            log: Arc::clone(&topic.log),
        };
        let seen = Arc::clone(&shown.seen);
        self.topics.lock().insert(topic.group, shown);
        tokio::spawn(run(topic, inbox, seen));
    }

    fn topic_failed(&self, _name: &TopicName, group: GroupId) {
        self.failed.lock().push(group);
    }

    fn topic_stopped(&self, _name: &TopicName, group: GroupId) {
        self.stopped.lock().push(group);
        self.topics.lock().remove(&group);
    }
}

struct Leading {
    term: Term,
    state: Box<TopicState>,
}

struct UnderWay {
    ticket: u64,
    first_seq: Seq,
    term: Term,
    write: Write,
}

async fn run(mut topic: TopicGroup, mut inbox: mpsc::UnboundedReceiver<Write>, seen: Arc<Mutex<Seen>>) {
    let mut leading: Option<Leading> = None;
    let mut waiting: VecDeque<Write> = VecDeque::new();
    let mut under_way: Option<UnderWay> = None;
    let mut tickets = 0;
    loop {
        if under_way.is_none()
            && let Some(led) = &leading
            && let Some(write) = waiting.pop_front()
        {
            tickets += 1;
            let mut batch = BatchBuilder::with_header_room(ENTRY_HEADER_BYTES);
            write.events.iter().for_each(|event| batch.push_event(event));
            if let Some(body) = &write.body {
                batch.push_message(&NewMessage::new(body.clone(), LogTime::new(1)));
            }
            let first_seq = led.state.next_seq();
            let buffer = batch.finish(led.term, first_seq, led.state.time(), TopicState::FEATURE_LEVEL);
            topic
                .log
                .propose(led.term, EntryKind::TopicBatch, buffer, tickets)
                .await;
            under_way = Some(UnderWay {
                ticket: tickets,
                first_seq,
                term: led.term,
                write,
            });
        }
        tokio::select! {
            biased;
            event = topic.events.recv() => {
                let Some(event) = event else { return };
                match event {
                    TopicEvent::LeaderStarted { term, state } => {
                        let mut seen = seen.lock();
                        assert!(seen.leading.is_none(), "LeaderStarted without Deposed in between");
                        assert!(!seen.started.contains(&term), "a term began twice");
                        seen.leading = Some(term);
                        seen.started.push(term);
                        leading = Some(Leading { term, state });
                    }
                    TopicEvent::Deposed => {
                        let mut seen = seen.lock();
                        assert!(seen.leading.take().is_some(), "Deposed without LeaderStarted");
                        seen.deposed += 1;
                        leading = None;
                        if let Some(lost) = under_way.take() {
                            _ = lost.write.written.send(Written::Unknown);
                        }
                    }
                    TopicEvent::Applied { entry, batch, applied } => {
                        let led = leading.as_mut().expect("Applied only while leading");
                        let header = entry.header();
                        let at = nsquorum_topic::EntryPosition {
                            index: header.index,
                            term: header.term,
                            encoded_bytes: entry.encoded_len() as u32,
                        };
                        let own = led.state.apply_batch(at, &batch).expect("possible");
                        assert_eq!(own, applied, "the leader's own state decides alike");
                        let mine = under_way.as_ref().is_some_and(|mine| {
                            (mine.term, mine.first_seq) == (header.term, batch.header().first_seq)
                        });
                        if mine {
                            let mine = under_way.take().unwrap();
                            let Applied::Accepted(accepted) = applied else { panic!("one batch at a time is never void") };
                            _ = mine.write.written.send(Written::Ok(accepted.first_seq));
                        }
                    }
                    TopicEvent::Refused { ticket, refusal } => {
                        if under_way.as_ref().is_some_and(|mine| mine.ticket == ticket) {
                            let mine = under_way.take().unwrap();
                            match refusal {
                                Refusal::LeaseExpired => {
                                    waiting.push_front(mine.write);
                                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                                }
                                Refusal::NotLeader => _ = mine.write.written.send(Written::NotHere),
                                Refusal::Stopped => _ = mine.write.written.send(Written::Unknown),
                            }
                        }
                    }
                    TopicEvent::Quarantined => {
                        seen.lock().quarantined = true;
                        leading = None;
                    }
                }
            }
            write = inbox.recv() => {
                let Some(write) = write else { return };
                match &leading {
                    Some(_) => waiting.push_back(write),
                    None => _ = write.written.send(Written::NotHere),
                }
            }
        }
        if leading.is_none() {
            for write in waiting.drain(..) {
                _ = write.written.send(Written::NotHere);
            }
        }
    }
}

pub(crate) fn create_channel(name: &str) -> Event {
    Event::CreateChannel {
        name: ChannelName::try_from(name).unwrap(),
    }
}

/// The first channel of a topic is done with everything up to `last`.
pub(crate) fn finish_up_to(last: Seq) -> Event {
    Event::Finish {
        channel: nsquorum_topic::ChannelIncarnation::new(1),
        ranges: vec![SeqRange::new(Seq::new(1), last).unwrap()],
    }
}
