//! Frames from a router to the leader.

use bytes::{BufMut, Bytes};
use nsquorum_links::Frame;
use nsquorum_protocol::ChannelName;
use nsquorum_topic::{ChannelIncarnation, Event, LogTime, NewMessage, Seq};

use super::parts::{
    channel_name, event, frame, header, options, put_channel_name, put_count, put_event, put_header, put_options,
    put_token, subscription, token,
};
use super::read::Reader;
use super::{Asked, Claim, Framed, PublishFrame, Question, Subscriber, ToLeader, WireError};
use crate::topic_leader::{ChannelChange, Command};

mod kind {
    pub(super) const ASK: u8 = 0;
    pub(super) const CLAIM: u8 = 1;
    pub(super) const PUBLISH: u8 = 2;
    pub(super) const SUBSCRIBE: u8 = 3;
    pub(super) const READY: u8 = 4;
    pub(super) const UNSUBSCRIBE: u8 = 5;
    pub(super) const EVENTS: u8 = 6;
    pub(super) const QUESTION: u8 = 7;
    pub(super) const PUBLISH_TO_CHANNEL: u8 = 8;
}

/// Bytes of a message's row in a publish.
const ROW_BYTES: usize = 20;

impl Framed<ToLeader> {
    /// The frame as it travels.
    pub(crate) fn encode(&self) -> Frame {
        let mut out = Vec::new();
        let kind = match &self.content {
            ToLeader::Ask => kind::ASK,
            ToLeader::Claim(_) => kind::CLAIM,
            ToLeader::Publish(PublishFrame { only: None, .. }) => kind::PUBLISH,
            ToLeader::Publish(PublishFrame { only: Some(_), .. }) => kind::PUBLISH_TO_CHANNEL,
            ToLeader::Subscribe(_) => kind::SUBSCRIBE,
            ToLeader::Ready { .. } => kind::READY,
            ToLeader::Unsubscribe { .. } => kind::UNSUBSCRIBE,
            ToLeader::Events { .. } => kind::EVENTS,
            ToLeader::Question(_) => kind::QUESTION,
        };
        put_header(&mut out, kind, self.header);
        match &self.content {
            ToLeader::Ask => {}
            ToLeader::Claim(claim) => put_claim(&mut out, claim),
            ToLeader::Publish(publish) => {
                put_publish(&mut out, publish);
                return frame(out, publish.messages.iter().map(|message| &message.body));
            }
            ToLeader::Subscribe(subscriber) => put_subscriber(&mut out, subscriber),
            ToLeader::Ready { subscription, count } => {
                out.put_u64_le(subscription.0);
                out.put_u32_le(*count);
            }
            ToLeader::Unsubscribe { subscription } => out.put_u64_le(subscription.0),
            ToLeader::Events { last, events } => {
                out.put_u64_le(*last);
                put_count(&mut out, events.len());
                events.iter().for_each(|event| put_event(&mut out, event));
            }
            ToLeader::Question(question) => put_question(&mut out, question),
        }
        Frame::from(out)
    }

    /// Reads a frame. Never panics.
    ///
    /// # Errors
    /// If it is not a frame of this protocol.
    pub(crate) fn parse(bytes: Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let (kind, header) = header(&mut reader)?;
        let content = match kind {
            kind::ASK => ToLeader::Ask,
            kind::CLAIM => ToLeader::Claim(claim(&mut reader)?),
            kind::PUBLISH => ToLeader::Publish(publish(&mut reader, None)?),
            kind::PUBLISH_TO_CHANNEL => {
                let only = channel_name(&mut reader)?;
                ToLeader::Publish(publish(&mut reader, Some(only))?)
            }
            kind::SUBSCRIBE => ToLeader::Subscribe(subscriber(&mut reader)?),
            kind::READY => ToLeader::Ready {
                subscription: subscription(&mut reader)?,
                count: reader.u32("ready")?,
            },
            kind::UNSUBSCRIBE => ToLeader::Unsubscribe {
                subscription: subscription(&mut reader)?,
            },
            kind::EVENTS => ToLeader::Events {
                last: reader.u64("events")?,
                events: reader.list("events", event)?,
            },
            kind::QUESTION => ToLeader::Question(question(&mut reader)?),
            _ => return Err(WireError::Value("kind")),
        };
        reader.end("frame")?;
        Ok(Self { header, content })
    }
}

/// The name of the channel if it is for one only; `u64 number, u64 base, u32 messages, per message u32 length, u32 CRC32C, u32 deferral in ms, u64 published at; bodies`.
fn put_publish(out: &mut Vec<u8>, publish: &PublishFrame) {
    out.reserve(ROW_BYTES * publish.messages.len());
    if let Some(only) = &publish.only {
        put_channel_name(out, only);
    }
    out.put_u64_le(publish.number);
    out.put_u64_le(publish.base);
    put_count(out, publish.messages.len());
    for message in &publish.messages {
        put_count(out, message.body.len());
        out.put_u32_le(message.crc32c);
        out.put_u32_le(message.defer_ms);
        out.put_u64_le(message.published_at.get());
    }
}

fn publish(reader: &mut Reader, only: Option<ChannelName>) -> Result<PublishFrame, WireError> {
    let number = reader.u64("publish")?;
    let base = reader.u64("publish")?;
    let rows = reader.list("messages", |reader| {
        Ok((
            reader.u32("message")? as usize,
            NewMessage {
                body: Bytes::new(),
                crc32c: reader.u32("message")?,
                defer_ms: reader.u32("message")?,
                published_at: LogTime::new(reader.u64("message")?),
                origin: None,
            },
        ))
    })?;
    let messages = rows
        .into_iter()
        .map(|(len, message)| {
            Ok(NewMessage {
                body: reader.take(len, "body")?,
                ..message
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(PublishFrame {
        number,
        base,
        only,
        messages,
    })
}

fn put_subscriber(out: &mut Vec<u8>, subscriber: &Subscriber) {
    out.put_u64_le(subscriber.subscription.0);
    put_channel_name(out, &subscriber.channel);
    // Incarnations count from 1.
    out.put_u64_le(subscriber.incarnation.map_or(0, ChannelIncarnation::get));
    out.put_u32_le(subscriber.ready);
    put_options(out, &subscriber.options);
}

fn subscriber(reader: &mut Reader) -> Result<Subscriber, WireError> {
    Ok(Subscriber {
        subscription: subscription(reader)?,
        channel: channel_name(reader)?,
        incarnation: match reader.u64("channel")? {
            0 => None,
            channel => Some(ChannelIncarnation::new(channel)),
        },
        ready: reader.u32("ready")?,
        options: options(reader)?,
    })
}

fn put_claim(out: &mut Vec<u8>, claim: &Claim) {
    put_count(out, claim.subscribers.len());
    claim
        .subscribers
        .iter()
        .for_each(|subscriber| put_subscriber(out, subscriber));
    put_count(out, claim.held.len());
    for (subscription, token) in &claim.held {
        out.put_u64_le(subscription.0);
        put_token(out, token);
    }
    put_count(out, claim.events.len());
    claim.events.iter().for_each(|event| put_event(out, event));
    out.put_u64_le(claim.last_event);
}

fn claim(reader: &mut Reader) -> Result<Claim, WireError> {
    Ok(Claim {
        subscribers: reader.list("subscribers", subscriber)?,
        held: reader.list("held", |reader| Ok((subscription(reader)?, token(reader)?)))?,
        events: reader.list("events", event)?,
        last_event: reader.u64("events")?,
    })
}

fn put_question(out: &mut Vec<u8>, question: &Question) {
    out.put_u64_le(question.number);
    match &question.asked {
        Asked::Channels => out.put_u8(0),
        Asked::Stats(None) => out.put_u8(1),
        Asked::Stats(Some(channel)) => {
            out.put_u8(2);
            put_channel_name(out, channel);
        }
        Asked::IsInFlight { subscription, seq } => {
            out.put_u8(3);
            out.put_u64_le(subscription.0);
            out.put_u64_le(seq.get());
        }
        Asked::Command(Command::CreateChannel(channel)) => {
            out.put_u8(4);
            put_channel_name(out, channel);
        }
        Asked::Command(Command::Channel(channel, change)) => {
            out.put_u8(match change {
                ChannelChange::Delete => 5,
                ChannelChange::Empty => 6,
                ChannelChange::Pause => 7,
                ChannelChange::Unpause => 8,
            });
            put_channel_name(out, channel);
        }
        Asked::Command(Command::Topic(event)) => out.put_u8(match event {
            Event::EmptyTopic => 9,
            Event::PauseTopic => 10,
            Event::UnpauseTopic => 11,
            Event::DeleteTopic => 12,
            other => unreachable!("{other:?} is not a command about a topic"),
        }),
    }
}

fn question(reader: &mut Reader) -> Result<Question, WireError> {
    let number = reader.u64("question")?;
    let change = |reader: &mut Reader, change| Ok(Asked::Command(Command::Channel(channel_name(reader)?, change)));
    let asked = match reader.u8("question")? {
        0 => Asked::Channels,
        1 => Asked::Stats(None),
        2 => Asked::Stats(Some(channel_name(reader)?)),
        3 => Asked::IsInFlight {
            subscription: subscription(reader)?,
            seq: Seq::new(reader.u64("number")?),
        },
        4 => Asked::Command(Command::CreateChannel(channel_name(reader)?)),
        5 => change(reader, ChannelChange::Delete)?,
        6 => change(reader, ChannelChange::Empty)?,
        7 => change(reader, ChannelChange::Pause)?,
        8 => change(reader, ChannelChange::Unpause)?,
        9 => Asked::Command(Command::Topic(Event::EmptyTopic)),
        10 => Asked::Command(Command::Topic(Event::PauseTopic)),
        11 => Asked::Command(Command::Topic(Event::UnpauseTopic)),
        12 => Asked::Command(Command::Topic(Event::DeleteTopic)),
        _ => return Err(WireError::Value("question")),
    };
    Ok(Question { number, asked })
}
