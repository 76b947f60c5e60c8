//! What a client sends.

use bytes::{BufMut, BytesMut};

use crate::message_id::MessageId;
use crate::name::{ChannelName, TopicName};

/// The four bytes that begin a connection of protocol V2.
pub const MAGIC_V2: &[u8; 4] = b"  V2";

/// Appends IDENTIFY with its JSON.
pub fn identify(dst: &mut BytesMut, json: &[u8]) {
    with_body(dst, &[b"IDENTIFY"], json);
}

/// Appends AUTH with its secret.
pub fn auth(dst: &mut BytesMut, secret: &[u8]) {
    with_body(dst, &[b"AUTH"], secret);
}

/// Appends SUB.
pub fn sub(dst: &mut BytesMut, topic: &TopicName, channel: &ChannelName) {
    line(dst, &[b"SUB", topic.as_str().as_bytes(), channel.as_str().as_bytes()]);
}

/// Appends RDY.
pub fn rdy(dst: &mut BytesMut, count: u32) {
    line(dst, &[b"RDY", count.to_string().as_bytes()]);
}

/// Appends FIN.
pub fn fin(dst: &mut BytesMut, id: MessageId) {
    line(dst, &[b"FIN", id.as_bytes()]);
}

/// Appends REQ with a delay in milliseconds.
pub fn req(dst: &mut BytesMut, id: MessageId, timeout_ms: u64) {
    line(dst, &[b"REQ", id.as_bytes(), timeout_ms.to_string().as_bytes()]);
}

/// Appends TOUCH.
pub fn touch(dst: &mut BytesMut, id: MessageId) {
    line(dst, &[b"TOUCH", id.as_bytes()]);
}

/// Appends CLS.
pub fn cls(dst: &mut BytesMut) {
    line(dst, &[b"CLS"]);
}

/// Appends NOP.
pub fn nop(dst: &mut BytesMut) {
    line(dst, &[b"NOP"]);
}

/// Appends PUB.
pub fn publish(dst: &mut BytesMut, topic: &TopicName, body: &[u8]) {
    with_body(dst, &[b"PUB", topic.as_str().as_bytes()], body);
}

/// Appends DPUB with a delay in milliseconds.
pub fn dpub(dst: &mut BytesMut, topic: &TopicName, defer_ms: u64, body: &[u8]) {
    with_body(
        dst,
        &[b"DPUB", topic.as_str().as_bytes(), defer_ms.to_string().as_bytes()],
        body,
    );
}

/// Appends MPUB.
pub fn mpub<B: AsRef<[u8]>>(dst: &mut BytesMut, topic: &TopicName, bodies: &[B]) {
    const FIELD: usize = 4;
    let length = FIELD + bodies.iter().map(|body| FIELD + body.as_ref().len()).sum::<usize>();
    line(dst, &[b"MPUB", topic.as_str().as_bytes()]);
    dst.reserve(FIELD + length);
    put_length(dst, length);
    put_length(dst, bodies.len());
    for body in bodies {
        put_length(dst, body.as_ref().len());
        dst.put_slice(body.as_ref());
    }
}

fn line(dst: &mut BytesMut, words: &[&[u8]]) {
    for (position, word) in words.iter().enumerate() {
        if position > 0 {
            dst.put_u8(b' ');
        }
        dst.put_slice(word);
    }
    dst.put_u8(b'\n');
}

fn with_body(dst: &mut BytesMut, words: &[&[u8]], body: &[u8]) {
    line(dst, words);
    dst.reserve(4 + body.len());
    put_length(dst, body.len());
    dst.put_slice(body);
}

fn put_length(dst: &mut BytesMut, length: usize) {
    dst.put_i32(i32::try_from(length).expect("a command is below 2 GiB"));
}
