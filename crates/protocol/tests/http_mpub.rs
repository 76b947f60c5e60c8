//! The bodies of HTTP `/mpub`.

use bytes::Bytes;
use nsquorum_protocol::{Limits, MpubBodyError, mpub_binary, mpub_text};

fn limits() -> Limits {
    Limits {
        max_msg_size: 5,
        max_body_size: 30,
        ..Limits::default()
    }
}

fn texts(bodies: &[&'static str]) -> Vec<Bytes> {
    bodies.iter().map(|body| Bytes::from_static(body.as_bytes())).collect()
}

#[test]
fn lines_are_messages() {
    let table: &[(&'static str, &[&'static str])] = &[
        ("", &[]),
        ("\n\n", &[]),
        ("a", &["a"]),
        ("a\n", &["a"]),
        ("a\nb", &["a", "b"]),
        ("\n\na\n\nb\n\n", &["a", "b"]),
        ("a\r\nb\r\n", &["a\r", "b\r"]),
        ("\r\n", &["\r"]),
        ("12345\n12345\n12345\n12345\n12345\n", &["12345"; 5]),
    ];
    for (body, messages) in table {
        assert_eq!(
            mpub_text(&Bytes::from_static(body.as_bytes()), &limits()),
            Ok(texts(messages)),
            "{body:?}"
        );
    }
}

#[test]
fn text_limits() {
    let table = [
        ("123456", MpubBodyError::MessageTooBig),
        ("1\n123456\n", MpubBodyError::MessageTooBig),
        ("12345\n12345\n12345\n12345\n12345\n1", MpubBodyError::BodyTooBig),
        (
            "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n",
            MpubBodyError::BodyTooBig,
        ),
        // Both, in the order in which nsqd meets them.
        ("123456\n12345\n12345\n12345\n12345\n1", MpubBodyError::MessageTooBig),
        ("12345\n12345\n12345\n12345\n12345\n123456", MpubBodyError::BodyTooBig),
    ];
    for (body, error) in table {
        assert_eq!(
            mpub_text(&Bytes::from_static(body.as_bytes()), &limits()),
            Err(error),
            "{body:?}"
        );
    }
}

#[test]
fn binary_messages_are_parts_of_the_body() {
    let body = Bytes::from_static(b"\0\0\0\x02\0\0\0\x01a\0\0\0\x05\0\n\xff\r ignored");
    let messages = mpub_binary(&body, &limits()).unwrap();
    assert_eq!(messages, [&b"a"[..], b"\0\n\xff\r "]);
    assert_eq!(messages[1].as_ptr(), body[13..].as_ptr());
}

#[test]
fn binary_errors() {
    let table: &[(&'static [u8], &str)] = &[
        (b"", "BAD_BODY"),
        (b"\0\0\0", "BAD_BODY"),
        (b"\0\0\0\0", "BAD_BODY"),
        (b"\xff\xff\xff\xff", "BAD_BODY"),
        (b"\0\0\0\x06", "BAD_BODY"),
        (b"\0\0\0\x01", "BAD_MESSAGE"),
        (b"\0\0\0\x01\0\0\0\0", "BAD_MESSAGE"),
        (b"\0\0\0\x01\0\0\0\x06abcdef", "BAD_MESSAGE"),
        (b"\0\0\0\x01\0\0\0\x02a", "BAD_MESSAGE"),
        (b"\0\0\0\x02\0\0\0\x01a", "BAD_MESSAGE"),
        (b"\0\0\0\x01\0\0\0\x01a0123456789012345678901234567890", "BODY_TOO_BIG"),
    ];
    for (body, message) in table {
        let error = mpub_binary(&Bytes::from_static(body), &limits()).unwrap_err();
        assert_eq!(error.as_str(), *message, "{}", body.escape_ascii());
        assert_eq!(error.to_string(), *message);
    }
    assert_eq!(MpubBodyError::HTTP_STATUS, 413);
}
