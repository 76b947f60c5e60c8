//! The bodies of HTTP /mpub, beside a simple model and beside MPUB over TCP.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use nsquorum_fuzz_parsers::bounded;
use nsquorum_protocol::{
    Command, ConnectionState, DecodeContext, Decoder, Limits, MpubBodyError, mpub_binary, mpub_text,
};

fuzz_target!(|data: &[u8]| {
    let Some((&choice, body)) = data.split_first() else {
        return;
    };
    let body = Bytes::copy_from_slice(body);
    let limits = match choice % 4 {
        0 => Limits::default(),
        small => Limits {
            max_msg_size: usize::from(small) * 7,
            max_body_size: usize::from(small) * 50,
            ..Limits::default()
        },
    };
    let text = bounded(128 * body.len() + 1024, || mpub_text(&body, &limits));
    assert_eq!(text, by_lines(&body, &limits));
    let binary = bounded(64 * body.len() + 1024, || mpub_binary(&body, &limits));
    over_tcp(&body, &limits, binary);
});

fn by_lines(body: &Bytes, limits: &Limits) -> Result<Vec<Bytes>, MpubBodyError> {
    let (mut read, mut messages) = (0, Vec::new());
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        read += line.len();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if read > limits.max_body_size {
            return Err(MpubBodyError::BodyTooBig);
        }
        if line.len() > limits.max_msg_size {
            return Err(MpubBodyError::MessageTooBig);
        }
        if !line.is_empty() {
            messages.push(Bytes::copy_from_slice(line));
        }
    }
    Ok(messages)
}

/// The same messages, or an error on both ways in.
fn over_tcp(body: &Bytes, limits: &Limits, binary: Result<Vec<Bytes>, MpubBodyError>) {
    let mut wire = BytesMut::from(&b"MPUB t\n"[..]);
    wire.extend_from_slice(&i32::try_from(body.len()).expect("inputs are small").to_be_bytes());
    wire.extend_from_slice(body);
    let context = DecodeContext::new(ConnectionState::Init, limits);
    let decoded = Decoder::new().decode(&mut wire, &context);
    match binary {
        Ok(messages) => {
            assert!(!messages.is_empty());
            let Ok(Some(Command::Mpub { bodies, .. })) = decoded else {
                panic!("over TCP it is {decoded:?}");
            };
            assert_eq!(bodies, messages);
        }
        Err(error) => assert!(!matches!(decoded, Ok(Some(_))), "over HTTP it is {error}"),
    }
}
