//! Frames from the leader to a router.

use bytes::{BufMut, Bytes};
use nsquorum_links::Frame;
use nsquorum_topic::LogTime;

use super::parts::{
    admin_result, channel_name, frame, header, publish_result, put_admin_result, put_channel_name, put_count,
    put_header, put_publish_result, put_stats, put_subscribe_result, put_token, stats, subscribe_result, subscription,
    token,
};
use super::read::Reader;
use super::{Framed, FromLeader, Reply, WireError};
use crate::leases::Delivery;

mod kind {
    pub(super) const LEAD: u8 = 128;
    pub(super) const ANSWER: u8 = 129;
    pub(super) const EVENTS_STORED: u8 = 130;
    pub(super) const SUBSCRIBED: u8 = 131;
    pub(super) const DELIVER: u8 = 132;
    pub(super) const EMPTIED: u8 = 133;
    pub(super) const ENDED: u8 = 134;
    pub(super) const REPLY: u8 = 135;
}

/// Whether a frame comes from a leader; the others go to one.
pub(crate) fn is_from_leader(frame: &[u8]) -> bool {
    frame.get(1).is_some_and(|kind| *kind >= kind::LEAD)
}

impl Framed<FromLeader> {
    /// The frame as it travels.
    pub(crate) fn encode(&self) -> Frame {
        let mut out = Vec::new();
        let kind = match &self.content {
            FromLeader::Lead => kind::LEAD,
            FromLeader::Answer { .. } => kind::ANSWER,
            FromLeader::EventsStored { .. } => kind::EVENTS_STORED,
            FromLeader::Subscribed { .. } => kind::SUBSCRIBED,
            FromLeader::Deliver { .. } => kind::DELIVER,
            FromLeader::Emptied { .. } => kind::EMPTIED,
            FromLeader::Ended { .. } => kind::ENDED,
            FromLeader::Reply { .. } => kind::REPLY,
        };
        put_header(&mut out, kind, self.header);
        match &self.content {
            FromLeader::Lead => {}
            FromLeader::Answer { number, result } => {
                out.put_u64_le(*number);
                put_publish_result(&mut out, *result);
            }
            FromLeader::EventsStored { last } => out.put_u64_le(*last),
            FromLeader::Subscribed { subscription, result } => {
                out.put_u64_le(subscription.0);
                put_subscribe_result(&mut out, result);
            }
            FromLeader::Deliver { subscription, delivery } => {
                out.put_u64_le(subscription.0);
                put_token(&mut out, &delivery.token);
                out.put_u64_le(delivery.published_at.get());
                out.put_u32_le(delivery.crc32c);
                put_count(&mut out, delivery.body.len());
                return frame(out, std::iter::once(&delivery.body));
            }
            FromLeader::Emptied { subscription } | FromLeader::Ended { subscription } => {
                out.put_u64_le(subscription.0);
            }
            FromLeader::Reply { number, reply } => {
                out.put_u64_le(*number);
                put_reply(&mut out, reply);
            }
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
            kind::LEAD => FromLeader::Lead,
            kind::ANSWER => FromLeader::Answer {
                number: reader.u64("answer")?,
                result: publish_result(&mut reader)?,
            },
            kind::EVENTS_STORED => FromLeader::EventsStored {
                last: reader.u64("events")?,
            },
            kind::SUBSCRIBED => FromLeader::Subscribed {
                subscription: subscription(&mut reader)?,
                result: subscribe_result(&mut reader)?,
            },
            kind::DELIVER => FromLeader::Deliver {
                subscription: subscription(&mut reader)?,
                delivery: delivery(&mut reader)?,
            },
            kind::EMPTIED => FromLeader::Emptied {
                subscription: subscription(&mut reader)?,
            },
            kind::ENDED => FromLeader::Ended {
                subscription: subscription(&mut reader)?,
            },
            kind::REPLY => FromLeader::Reply {
                number: reader.u64("reply")?,
                reply: reply(&mut reader)?,
            },
            _ => return Err(WireError::Value("kind")),
        };
        reader.end("frame")?;
        Ok(Self { header, content })
    }
}

fn delivery(reader: &mut Reader) -> Result<Delivery, WireError> {
    let token = token(reader)?;
    let published_at = LogTime::new(reader.u64("published at")?);
    let crc32c = reader.u32("crc")?;
    let len = reader.u32("body")? as usize;
    Ok(Delivery {
        token,
        published_at,
        body: reader.take(len, "body")?,
        crc32c,
    })
}

fn put_reply(out: &mut Vec<u8>, reply: &Reply) {
    match reply {
        Reply::Command(result) => {
            out.put_u8(0);
            put_admin_result(out, result);
        }
        Reply::Channels(names) => {
            out.put_u8(1);
            put_count(out, names.len());
            names.iter().for_each(|name| put_channel_name(out, name));
        }
        Reply::Stats(stats) => {
            out.put_u8(2);
            put_stats(out, stats);
        }
        Reply::IsInFlight(is_in_flight) => {
            out.put_u8(3);
            out.put_u8(u8::from(*is_in_flight));
        }
    }
}

fn reply(reader: &mut Reader) -> Result<Reply, WireError> {
    Ok(match reader.u8("reply")? {
        0 => Reply::Command(admin_result(reader)?),
        1 => Reply::Channels(reader.list("channels", channel_name)?),
        2 => Reply::Stats(stats(reader)?),
        3 => Reply::IsInFlight(reader.flag("in flight")?),
        _ => return Err(WireError::Value("reply")),
    })
}
