//! What the clients saw.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::body::BodyId;

/// Which life of the node, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life(pub u32);

/// What a publisher was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing yet. At the end the same as [`Answer::Unknown`].
    Waiting,
    /// `OK`: it is stored.
    Ok,
    /// It may be stored.
    Unknown,
    /// It was not sent, or refused before anything was stored.
    Refused,
}

/// One PUB, MPUB or DPUB.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The first of its bodies; the others follow.
    pub first: BodyId,
    /// How many bodies.
    pub count: u64,
    /// DPUB's delay; zero for the others.
    pub delay: Duration,
    /// When it was sent, in the order of everything in this history.
    pub sent: u64,
    /// The same on the clock.
    pub sent_at: Instant,
    /// What came back.
    pub answer: Answer,
    /// When that came.
    pub answered: Option<u64>,
}

/// One message at a consumer.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// In which life of the node.
    pub life: Life,
    /// Which channel, by its place in the campaign's list.
    pub channel: usize,
    /// Which connection.
    pub consumer: u32,
    /// The message's number: its NSQ id.
    pub number: u64,
    /// As the frame says.
    pub attempts: u16,
    /// Whose body it is; `None` if it is not as it was published.
    pub body: Option<BodyId>,
    /// When it arrived.
    pub at: Instant,
}

/// A REQ that the node certainly took, because the message was in flight for much longer than the REQ needs.
#[derive(Clone, Debug)]
pub struct Requeue {
    /// In which life of the node.
    pub life: Life,
    /// Which channel.
    pub channel: usize,
    /// Which message.
    pub number: u64,
    /// Not to be delivered before, in the same life.
    pub until: Instant,
    /// How many deliveries the history had when it was sent.
    pub after_delivery: usize,
}

/// Everything, in the order in which it happened.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// By [`PublishId`].
    pub publishes: Vec<Publish>,
    /// As they arrived.
    pub deliveries: Vec<Delivery>,
    /// FINs that were sent, before they were: channel and number.
    pub finishes: Vec<(usize, u64)>,
    /// REQs with a delay.
    pub requeues: Vec<Requeue>,
    pub(crate) order: u64,
    pub(crate) oks: u64,
}

/// Names a publish in its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishId(usize);

/// [`Records`] that many tasks write.
#[derive(Debug, Default)]
pub struct History(Mutex<Records>);

impl History {
    fn records(&self) -> std::sync::MutexGuard<'_, Records> {
        self.0.lock().expect("no task panics while it holds the history")
    }

    /// To be called before a publish is sent.
    pub fn sending(&self, first: BodyId, count: u64, delay: Duration) -> PublishId {
        let mut records = self.records();
        records.order += 1;
        let publish = Publish {
            first,
            count,
            delay,
            sent: records.order,
            sent_at: Instant::now(),
            answer: Answer::Waiting,
            answered: None,
        };
        records.publishes.push(publish);
        PublishId(records.publishes.len() - 1)
    }

    /// To be called after a publish was answered.
    pub fn answered(&self, publish: PublishId, answer: Answer) {
        let mut records = self.records();
        records.order += 1;
        let order = records.order;
        let publish = &mut records.publishes[publish.0];
        assert_eq!(publish.answer, Answer::Waiting, "a publish was answered twice");
        publish.answer = answer;
        publish.answered = Some(order);
        if answer == Answer::Ok {
            let count = publish.count;
            records.oks += count;
        }
    }

    /// To be called when a message has arrived.
    pub fn delivered(&self, delivery: Delivery) {
        self.records().deliveries.push(delivery);
    }

    /// To be called before a FIN is sent.
    pub fn finishing(&self, channel: usize, number: u64) {
        self.records().finishes.push((channel, number));
    }

    /// To be called before a REQ is sent: its delay begins later.
    pub fn requeueing(&self, life: Life, channel: usize, number: u64, delay: Duration) {
        let mut records = self.records();
        let (until, after_delivery) = (Instant::now() + delay, records.deliveries.len());
        records.requeues.push(Requeue {
            life,
            channel,
            number,
            until,
            after_delivery,
        });
    }

    /// This moment, in the order of [`Publish::sent`] and [`Publish::answered`].
    #[must_use]
    pub fn moment(&self) -> u64 {
        self.records().order
    }

    /// Messages that were answered OK so far.
    #[must_use]
    pub fn oks(&self) -> u64 {
        self.records().oks
    }

    /// Deliveries so far.
    #[must_use]
    pub fn deliveries(&self) -> usize {
        self.records().deliveries.len()
    }

    /// A copy of everything.
    #[must_use]
    pub fn snapshot(&self) -> Records {
        self.records().clone()
    }
}
