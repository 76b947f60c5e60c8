//! What frames of both directions consist of.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use nsquorum_environment::WallTime;
use nsquorum_links::Frame;
use nsquorum_protocol::{ChannelName, TopicName};
use nsquorum_topic::{Attempts, ChannelIncarnation, Seq, Term};

use super::read::Reader;
use super::{Header, WireError};
use crate::latency::{LatencyPercentile, LatencySummary, Quantile};
use crate::leases::{DeliveryToken, LeaseEvent, LeaseOutcome};
use crate::nearness::{DeliveriesByNearness, Nearness};
use crate::node::AdminError;
use crate::publish::PublishError;
use crate::stats::{ChannelStats, ClientDescription, SubscriptionStats, TopicStats};
use crate::subscription::{SubscribeError, SubscriptionId, SubscriptionOptions};

pub(super) const VERSION: u8 = 1;
/// Bodies up to this many bytes are gathered into one piece; larger ones stay where they are.
const GATHERED_BODY_BYTES_MAX: usize = 4096;

pub(super) fn put_header(out: &mut Vec<u8>, kind: u8, header: Header) {
    out.put_u8(VERSION);
    out.put_u8(kind);
    out.put_u16_le(0);
    out.put_u64_le(header.term.get());
    out.put_u64_le(header.sync);
    out.put_u64_le(header.counter);
}

pub(super) fn header(reader: &mut Reader) -> Result<(u8, Header), WireError> {
    if reader.u8("version")? != VERSION {
        return Err(WireError::Value("version"));
    }
    let kind = reader.u8("kind")?;
    if reader.u16("reserve")? != 0 {
        return Err(WireError::Value("reserve"));
    }
    let header = Header {
        term: Term::new(reader.u64("term")?),
        sync: reader.u64("sync")?,
        counter: reader.u64("counter")?,
    };
    Ok((kind, header))
}

/// The frame of a head and the bodies behind it.
pub(super) fn frame<'a>(head: Vec<u8>, bodies: impl Iterator<Item = &'a Bytes>) -> Frame {
    let mut pieces = Vec::new();
    let mut gathered = head;
    append(&mut pieces, &mut gathered, bodies);
    pieces.push(Bytes::from(gathered));
    Frame::from(pieces)
}

/// Appends bytes to those that are gathered; long ones become pieces of their own.
pub(super) fn append<'a>(pieces: &mut Vec<Bytes>, gathered: &mut Vec<u8>, bodies: impl Iterator<Item = &'a Bytes>) {
    for body in bodies {
        if body.len() <= GATHERED_BODY_BYTES_MAX {
            gathered.extend_from_slice(body);
        } else {
            pieces.push(Bytes::from(std::mem::take(gathered)));
            pieces.push(body.clone());
        }
    }
}

pub(super) fn put_count(out: &mut Vec<u8>, count: usize) {
    out.put_u32_le(u32::try_from(count).expect("what one node holds of a topic is counted in millions"));
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_count(out, text.len());
    out.put_slice(text.as_bytes());
}

fn text(reader: &mut Reader) -> Result<String, WireError> {
    let len = reader.u32("text")? as usize;
    String::from_utf8(reader.take(len, "text")?.to_vec()).map_err(|_| WireError::Value("text"))
}

pub(super) fn put_channel_name(out: &mut Vec<u8>, name: &ChannelName) {
    out.put_u8(u8::try_from(name.as_str().len()).expect("names have at most 64 bytes"));
    out.put_slice(name.as_str().as_bytes());
}

pub(super) fn channel_name(reader: &mut Reader) -> Result<ChannelName, WireError> {
    let len = usize::from(reader.u8("channel name")?);
    ChannelName::try_from(&*reader.take(len, "channel name")?).map_err(|_| WireError::Value("channel name"))
}

pub(super) fn subscription(reader: &mut Reader) -> Result<SubscriptionId, WireError> {
    Ok(SubscriptionId(reader.u64("subscription")?))
}

pub(super) fn put_token(out: &mut Vec<u8>, token: &DeliveryToken) {
    out.put_u64_le(token.channel.get());
    out.put_u64_le(token.seq.get());
    out.put_u16_le(token.attempts.get());
    out.put_u64_le(token.term.get());
    out.put_u64_le(token.delivery);
}

pub(super) fn token(reader: &mut Reader) -> Result<DeliveryToken, WireError> {
    Ok(DeliveryToken {
        channel: ChannelIncarnation::new(reader.u64("token")?),
        seq: Seq::new(reader.u64("token")?),
        attempts: Attempts::new(reader.u16("token")?),
        term: Term::new(reader.u64("token")?),
        delivery: reader.u64("token")?,
    })
}

pub(super) fn put_event(out: &mut Vec<u8>, event: &LeaseEvent) {
    put_token(out, &event.token);
    let (outcome, delay_ms) = match event.outcome {
        LeaseOutcome::Finished => (0, 0),
        LeaseOutcome::Requeued { delay_ms } => (1, delay_ms),
        LeaseOutcome::TimedOut => (2, 0),
        LeaseOutcome::Disconnected => (3, 0),
        LeaseOutcome::Returned => (4, 0),
    };
    out.put_u8(outcome);
    out.put_u32_le(delay_ms);
}

pub(super) fn event(reader: &mut Reader) -> Result<LeaseEvent, WireError> {
    let token = token(reader)?;
    let outcome = reader.u8("outcome")?;
    let delay_ms = reader.u32("delay")?;
    let outcome = match (outcome, delay_ms) {
        (1, delay_ms) => LeaseOutcome::Requeued { delay_ms },
        (0, 0) => LeaseOutcome::Finished,
        (2, 0) => LeaseOutcome::TimedOut,
        (3, 0) => LeaseOutcome::Disconnected,
        (4, 0) => LeaseOutcome::Returned,
        _ => return Err(WireError::Value("outcome")),
    };
    Ok(LeaseEvent { token, outcome })
}

pub(super) fn put_options(out: &mut Vec<u8>, options: &SubscriptionOptions) {
    out.put_u64_le(u64::try_from(options.msg_timeout.as_nanos()).unwrap_or(u64::MAX));
    put_client(out, &options.client);
    put_nearness(out, options.nearness);
}

fn put_nearness(out: &mut Vec<u8>, nearness: Option<Nearness>) {
    out.put_u8(match nearness {
        None => 0,
        Some(Nearness::Zone) => 1,
        Some(Nearness::Region) => 2,
        Some(Nearness::Global) => 3,
    });
}

fn nearness(reader: &mut Reader) -> Result<Option<Nearness>, WireError> {
    Ok(match reader.u8("nearness")? {
        0 => None,
        1 => Some(Nearness::Zone),
        2 => Some(Nearness::Region),
        3 => Some(Nearness::Global),
        _ => return Err(WireError::Value("nearness")),
    })
}

pub(super) fn options(reader: &mut Reader) -> Result<SubscriptionOptions, WireError> {
    let msg_timeout = Duration::from_nanos(reader.u64("msg_timeout")?);
    let client = Arc::new(client(reader)?);
    let nearness = nearness(reader)?;
    Ok(SubscriptionOptions {
        client,
        msg_timeout,
        nearness,
    })
}

fn put_client(out: &mut Vec<u8>, client: &ClientDescription) {
    put_text(out, &client.client_id);
    put_text(out, &client.hostname);
    put_text(out, &client.user_agent);
    put_text(out, &client.remote_address);
    out.put_u64_le(client.connected_at.as_nanos());
    out.put_u8(client.sample_rate);
    put_text(out, &client.topology_zone);
    put_text(out, &client.topology_region);
}

fn client(reader: &mut Reader) -> Result<ClientDescription, WireError> {
    Ok(ClientDescription {
        client_id: text(reader)?,
        hostname: text(reader)?,
        user_agent: text(reader)?,
        remote_address: text(reader)?,
        connected_at: WallTime::from_nanos(reader.u64("connected at")?),
        sample_rate: reader.u8("sample rate")?,
        topology_zone: text(reader)?,
        topology_region: text(reader)?,
    })
}

pub(super) fn put_publish_result(out: &mut Vec<u8>, result: Result<(), PublishError>) {
    out.put_u8(match result {
        Ok(()) => 0,
        Err(PublishError::Exiting) => 1,
        Err(PublishError::DiskFull) => 2,
        Err(PublishError::TooManyDeferred) => 3,
        Err(PublishError::TimedOut) => 4,
        Err(PublishError::Quarantined) => 5,
        Err(PublishError::Stopping) => 6,
        Err(PublishError::ChannelNotFound) => 7,
        Err(PublishError::TopicPaused) => 8,
    });
}

pub(super) fn publish_result(reader: &mut Reader) -> Result<Result<(), PublishError>, WireError> {
    Ok(Err(match reader.u8("publish result")? {
        0 => return Ok(Ok(())),
        1 => PublishError::Exiting,
        2 => PublishError::DiskFull,
        3 => PublishError::TooManyDeferred,
        4 => PublishError::TimedOut,
        5 => PublishError::Quarantined,
        6 => PublishError::Stopping,
        7 => PublishError::ChannelNotFound,
        8 => PublishError::TopicPaused,
        _ => return Err(WireError::Value("publish result")),
    }))
}

pub(super) fn put_subscribe_result(out: &mut Vec<u8>, result: &Result<ChannelIncarnation, SubscribeError>) {
    match result {
        Ok(channel) => {
            out.put_u8(0);
            out.put_u64_le(channel.get());
        }
        Err(SubscribeError::Deleted) => out.put_u8(1),
        Err(SubscribeError::Unavailable(why)) => {
            out.put_u8(2);
            put_text(out, why);
        }
    }
}

pub(super) fn subscribe_result(reader: &mut Reader) -> Result<Result<ChannelIncarnation, SubscribeError>, WireError> {
    Ok(match reader.u8("subscribe result")? {
        0 => Ok(ChannelIncarnation::new(reader.u64("channel")?)),
        1 => Err(SubscribeError::Deleted),
        2 => Err(SubscribeError::Unavailable(text(reader)?)),
        _ => return Err(WireError::Value("subscribe result")),
    })
}

pub(super) fn put_admin_result(out: &mut Vec<u8>, result: &Result<(), AdminError>) {
    match result {
        Ok(()) => out.put_u8(0),
        Err(AdminError::TopicNotFound) => out.put_u8(1),
        Err(AdminError::ChannelNotFound) => out.put_u8(2),
        Err(AdminError::Unavailable(why)) => {
            out.put_u8(3);
            put_text(out, why);
        }
    }
}

pub(super) fn admin_result(reader: &mut Reader) -> Result<Result<(), AdminError>, WireError> {
    Ok(match reader.u8("admin result")? {
        0 => Ok(()),
        1 => Err(AdminError::TopicNotFound),
        2 => Err(AdminError::ChannelNotFound),
        3 => Err(AdminError::Unavailable(text(reader)?)),
        _ => return Err(WireError::Value("admin result")),
    })
}

pub(super) fn put_stats(out: &mut Vec<u8>, stats: &TopicStats) {
    put_text(out, stats.name.as_str());
    out.put_u64_le(stats.depth);
    out.put_u64_le(stats.message_count);
    out.put_u64_le(stats.message_bytes);
    out.put_u8(u8::from(stats.paused));
    put_count(out, stats.channels.len());
    for channel in &stats.channels {
        put_channel_name(out, &channel.name);
        out.put_u64_le(channel.depth);
        out.put_u64_le(channel.in_flight_count);
        out.put_u64_le(channel.deferred_count);
        out.put_u64_le(channel.message_count);
        out.put_u64_le(channel.requeue_count);
        out.put_u64_le(channel.timeout_count);
        out.put_u64_le(channel.deliveries.zone);
        out.put_u64_le(channel.deliveries.region);
        out.put_u64_le(channel.deliveries.global);
        out.put_u8(u8::from(channel.paused));
        out.put_u64_le(channel.consumer_count);
        put_count(out, channel.clients.len());
        for client in &channel.clients {
            out.put_u64_le(client.id.0);
            put_client(out, &client.client);
            out.put_u32_le(client.ready_count);
            out.put_u64_le(client.in_flight_count);
            out.put_u64_le(client.message_count);
            out.put_u64_le(client.finish_count);
            out.put_u64_le(client.requeue_count);
            put_nearness(out, client.nearness);
        }
        put_latency(out, channel.latency.as_ref());
    }
    put_latency(out, stats.latency.as_ref());
}

fn put_latency(out: &mut Vec<u8>, latency: Option<&LatencySummary>) {
    out.put_u8(u8::from(latency.is_some()));
    if let Some(latency) = latency {
        out.put_u64_le(latency.count);
        put_count(out, latency.percentiles.len());
        for percentile in &latency.percentiles {
            out.put_u64_le(percentile.quantile.get().to_bits());
            out.put_u64_le(percentile.nanos.to_bits());
        }
    }
}

fn latency(reader: &mut Reader) -> Result<Option<LatencySummary>, WireError> {
    if !reader.flag("latency")? {
        return Ok(None);
    }
    Ok(Some(LatencySummary {
        count: reader.u64("latencies")?,
        percentiles: reader.list("percentiles", |reader| {
            let quantile = f64::from_bits(reader.u64("quantile")?);
            Ok(LatencyPercentile {
                quantile: Quantile::new(quantile).ok_or(WireError::Value("quantile"))?,
                nanos: f64::from_bits(reader.u64("latency")?),
            })
        })?,
    }))
}

pub(super) fn stats(reader: &mut Reader) -> Result<TopicStats, WireError> {
    Ok(TopicStats {
        name: TopicName::try_from(text(reader)?.as_str()).map_err(|_| WireError::Value("topic name"))?,
        // Whoever gets it over a link is not the leader.
        is_leader: false,
        depth: reader.u64("depth")?,
        message_count: reader.u64("messages")?,
        message_bytes: reader.u64("bytes")?,
        paused: reader.flag("paused")?,
        channels: reader.list("channels", |reader| {
            Ok(ChannelStats {
                name: channel_name(reader)?,
                depth: reader.u64("depth")?,
                in_flight_count: reader.u64("in flight")?,
                deferred_count: reader.u64("deferred")?,
                message_count: reader.u64("messages")?,
                requeue_count: reader.u64("requeued")?,
                timeout_count: reader.u64("timed out")?,
                deliveries: DeliveriesByNearness {
                    zone: reader.u64("in zone")?,
                    region: reader.u64("in region")?,
                    global: reader.u64("farther")?,
                },
                paused: reader.flag("paused")?,
                consumer_count: reader.u64("consumers")?,
                clients: reader.list("clients", |reader| {
                    Ok(SubscriptionStats {
                        id: subscription(reader)?,
                        client: Arc::new(client(reader)?),
                        ready_count: reader.u32("ready")?,
                        in_flight_count: reader.u64("in flight")?,
                        message_count: reader.u64("messages")?,
                        finish_count: reader.u64("finished")?,
                        requeue_count: reader.u64("requeued")?,
                        nearness: nearness(reader)?,
                    })
                })?,
                latency: latency(reader)?,
            })
        })?,
        latency: latency(reader)?,
    })
}
