//! Every error of the decoder, byte for byte, with the order of checks: where an input has several faults, the text
//! is that of the first one nsqd finds.

use bytes::BytesMut;
use nsquorum_protocol::ConnectionState::{self, Closing, Init, Subscribed};
use nsquorum_protocol::{DecodeContext, Decoder, Fatality, Limits, MAX_LINE_LENGTH, ProtocolError};

const ID: &str = "000000000000000a";

fn decode(context: &DecodeContext<'_>, input: &[u8]) -> Result<(), ProtocolError> {
    let mut buf = BytesMut::from(input);
    let decoded = Decoder::new().decode(&mut buf, context);
    assert_ne!(
        decoded,
        Ok(None),
        "{:?} is incomplete",
        input.escape_ascii().to_string()
    );
    decoded.map(|_| ())
}

fn assert_error(context: &DecodeContext<'_>, input: &[u8], expected: &[u8]) {
    let shown = input.escape_ascii();
    let error = decode(context, input).expect_err(&shown.to_string());
    let payload = error.payload().expect("an error with a text");
    assert_eq!(
        payload.escape_ascii().to_string(),
        expected.escape_ascii().to_string(),
        "{shown}"
    );
    assert_eq!(error.fatality(), Fatality::Close, "{shown}");
}

type Case = (ConnectionState, &'static [u8], &'static [u8]);

/// Inputs are cut where nsqd stops reading: what would follow cannot matter.
const CASES: &[Case] = &[
    // The line.
    (Init, b"\n", b"E_INVALID invalid command "),
    (Init, b"\r\n", b"E_INVALID invalid command "),
    (Init, b"BOGUS a b\n", b"E_INVALID invalid command BOGUS"),
    (Init, b"pub t\n", b"E_INVALID invalid command pub"),
    (Init, b" NOP\n", b"E_INVALID invalid command "),
    (Init, b"NOP\r\r\n", b"E_INVALID invalid command NOP\r"),
    (Init, b"\xff\xfe\n", b"E_INVALID invalid command \xff\xfe"),
    // States.
    (Subscribed, b"IDENTIFY\n", b"E_INVALID cannot IDENTIFY in current state"),
    (Closing, b"IDENTIFY\n", b"E_INVALID cannot IDENTIFY in current state"),
    (Subscribed, b"AUTH surplus\n", b"E_INVALID cannot AUTH in current state"),
    (Subscribed, b"SUB\n", b"E_INVALID cannot SUB in current state"),
    (Closing, b"SUB t c\n", b"E_INVALID cannot SUB in current state"),
    (Init, b"RDY x\n", b"E_INVALID cannot RDY in current state"),
    (Init, b"FIN\n", b"E_INVALID cannot FIN in current state"),
    (Init, b"REQ\n", b"E_INVALID cannot REQ in current state"),
    (Init, b"TOUCH\n", b"E_INVALID cannot TOUCH in current state"),
    (Init, b"CLS\n", b"E_INVALID cannot CLS in current state"),
    (Closing, b"CLS\n", b"E_INVALID cannot CLS in current state"),
    // IDENTIFY and AUTH.
    (
        Init,
        b"IDENTIFY\n\x00\x50\x00\x01",
        b"E_BAD_BODY IDENTIFY body too big 5242881 > 5242880",
    ),
    (Init, b"IDENTIFY\n\0\0\0\0", b"E_BAD_BODY IDENTIFY invalid body size 0"),
    (
        Init,
        b"IDENTIFY\n\xff\xff\xff\xff",
        b"E_BAD_BODY IDENTIFY invalid body size -1",
    ),
    (Init, b"AUTH secret\n", b"E_INVALID AUTH invalid number of parameters"),
    (Init, b"AUTH \n", b"E_INVALID AUTH invalid number of parameters"),
    (
        Init,
        b"AUTH\n\x7f\xff\xff\xff",
        b"E_BAD_BODY AUTH body too big 2147483647 > 5242880",
    ),
    (Init, b"AUTH\n\0\0\0\0", b"E_BAD_BODY AUTH invalid body size 0"),
    (
        Init,
        b"AUTH\n\x80\0\0\0",
        b"E_BAD_BODY AUTH invalid body size -2147483648",
    ),
    // SUB.
    (Init, b"SUB\n", b"E_INVALID SUB insufficient number of parameters"),
    (Init, b"SUB t\n", b"E_INVALID SUB insufficient number of parameters"),
    (Init, b"SUB t$ c$\n", b"E_BAD_TOPIC SUB topic name \"t$\" is not valid"),
    (Init, b"SUB t \n", b"E_BAD_CHANNEL SUB channel name \"\" is not valid"),
    (Init, b"SUB  c\n", b"E_BAD_TOPIC SUB topic name \"\" is not valid"),
    (
        Init,
        b"SUB t c\"\xff\\\n",
        b"E_BAD_CHANNEL SUB channel name \"c\\\"\\xff\\\\\" is not valid",
    ),
    // RDY.
    (Subscribed, b"RDY -1\n", b"E_INVALID RDY could not parse count -1"),
    (Subscribed, b"RDY 1.5\n", b"E_INVALID RDY could not parse count 1.5"),
    (
        Subscribed,
        b"RDY abc\xff\n",
        b"E_INVALID RDY could not parse count abc\xff",
    ),
    (Subscribed, b"RDY +1\n", b"E_INVALID RDY could not parse count +1"),
    (
        Subscribed,
        b"RDY 2501\n",
        b"E_INVALID RDY count 2501 out of range 0-2500",
    ),
    (
        Subscribed,
        b"RDY 4294967296\n",
        b"E_INVALID RDY count 4294967296 out of range 0-2500",
    ),
    (
        Subscribed,
        b"RDY 9223372036854775808\n",
        b"E_INVALID RDY count -9223372036854775808 out of range 0-2500",
    ),
    // FIN, REQ, TOUCH.
    (Subscribed, b"FIN\n", b"E_INVALID FIN insufficient number of params"),
    (Subscribed, b"FIN \n", b"E_INVALID invalid message ID"),
    (Subscribed, b"FIN 000000000000000\n", b"E_INVALID invalid message ID"),
    (Closing, b"FIN 00000000000000000\n", b"E_INVALID invalid message ID"),
    (Subscribed, b"TOUCH\n", b"E_INVALID TOUCH insufficient number of params"),
    (Closing, b"TOUCH x\n", b"E_INVALID invalid message ID"),
    (Subscribed, b"REQ\n", b"E_INVALID REQ insufficient number of params"),
    (Subscribed, b"REQ x\n", b"E_INVALID REQ insufficient number of params"),
    (Subscribed, b"REQ x y\n", b"E_INVALID invalid message ID"),
    (
        Subscribed,
        b"REQ 000000000000000a -5\n",
        b"E_INVALID REQ could not parse timeout -5",
    ),
    (
        Closing,
        b"REQ 000000000000000a 1s\n",
        b"E_INVALID REQ could not parse timeout 1s",
    ),
    // PUB.
    (Init, b"PUB\n", b"E_INVALID PUB insufficient number of parameters"),
    (Init, b"PUB \n", b"E_BAD_TOPIC PUB topic name \"\" is not valid"),
    (
        Init,
        b"PUB t$ surplus\n",
        b"E_BAD_TOPIC PUB topic name \"t$\" is not valid",
    ),
    (
        Subscribed,
        b"PUB a\xffb\n",
        b"E_BAD_TOPIC PUB topic name \"a\\xffb\" is not valid",
    ),
    (
        Init,
        b"PUB t\n\0\0\0\0",
        b"E_BAD_MESSAGE PUB invalid message body size 0",
    ),
    (
        Init,
        b"PUB t\n\xff\xff\xff\xfe",
        b"E_BAD_MESSAGE PUB invalid message body size -2",
    ),
    (
        Closing,
        b"PUB t\n\x00\x10\x00\x01",
        b"E_BAD_MESSAGE PUB message too big 1048577 > 1048576",
    ),
    // DPUB.
    (Init, b"DPUB\n", b"E_INVALID DPUB insufficient number of parameters"),
    (Init, b"DPUB t$\n", b"E_INVALID DPUB insufficient number of parameters"),
    (Init, b"DPUB t$ x\n", b"E_BAD_TOPIC DPUB topic name \"t$\" is not valid"),
    (Init, b"DPUB t x\n", b"E_INVALID DPUB could not parse timeout x"),
    (Init, b"DPUB t -1\n", b"E_INVALID DPUB could not parse timeout -1"),
    (
        Init,
        b"DPUB t 3600001\n",
        b"E_INVALID DPUB timeout 3600001 out of range 0-3600000",
    ),
    (
        Init,
        b"DPUB t 1\n\0\0\0\0",
        b"E_BAD_MESSAGE DPUB invalid message body size 0",
    ),
    (
        Init,
        b"DPUB t 1\n\x00\x10\x00\x01",
        b"E_BAD_MESSAGE DPUB message too big 1048577 > 1048576",
    ),
    // MPUB.
    (Init, b"MPUB\n", b"E_INVALID MPUB insufficient number of parameters"),
    (
        Init,
        b"MPUB t$\n",
        b"E_BAD_TOPIC E_BAD_TOPIC MPUB topic name \"t$\" is not valid",
    ),
    (Init, b"MPUB t\n\0\0\0\0", b"E_BAD_BODY MPUB invalid body size 0"),
    (
        Init,
        b"MPUB t\n\xff\xff\xff\xff",
        b"E_BAD_BODY MPUB invalid body size -1",
    ),
    (
        Init,
        b"MPUB t\n\x00\x50\x00\x01",
        b"E_BAD_BODY MPUB body too big 5242881 > 5242880",
    ),
    (
        Init,
        b"MPUB t\n\0\0\0\x08\0\0\0\0",
        b"E_BAD_BODY MPUB invalid message count 0",
    ),
    (
        Init,
        b"MPUB t\n\0\0\0\x08\xff\xff\xff\xff",
        b"E_BAD_BODY MPUB invalid message count -1",
    ),
    (
        Init,
        b"MPUB t\n\0\0\0\x08\x00\x10\x00\x00",
        b"E_BAD_BODY MPUB invalid message count 1048576",
    ),
    (
        Init,
        b"MPUB t\n\0\0\0\x08\0\0\0\x01\0\0\0\0",
        b"E_BAD_MESSAGE MPUB invalid message(0) body size 0",
    ),
    (
        Init,
        b"MPUB t\n\0\0\0\x10\0\0\0\x02\0\0\0\x01x\xff\xff\xff\xff",
        b"E_BAD_MESSAGE MPUB invalid message(1) body size -1",
    ),
    (
        Init,
        b"MPUB t\n\0\0\0\x08\0\0\0\x01\x00\x10\x00\x01",
        b"E_BAD_MESSAGE MPUB message too big 1048577 > 1048576",
    ),
];

#[test]
fn every_error_has_nsqds_text() {
    let limits = Limits::default();
    for (state, input, expected) in CASES {
        assert_error(&DecodeContext::new(*state, &limits), input, expected);
    }
}

/// nsqd wraps a count around at 64 bits and takes the rest for meant; here it is refused.
#[test]
fn numbers_beyond_64_bits_are_refused() {
    let limits = Limits::default();
    let subscribed = DecodeContext::new(Subscribed, &limits);
    let number = "18446744073709551617";
    let input = format!("RDY {number}\n");
    assert_error(
        &subscribed,
        input.as_bytes(),
        format!("E_INVALID RDY could not parse count {number}").as_bytes(),
    );
    let input = format!("DPUB t {number}\n");
    assert_error(
        &subscribed,
        input.as_bytes(),
        format!("E_INVALID DPUB could not parse timeout {number}").as_bytes(),
    );
    let largest = u64::MAX;
    let expected = format!("E_INVALID DPUB timeout {largest} out of range 0-3600000");
    assert_error(
        &subscribed,
        format!("DPUB t {largest}\n").as_bytes(),
        expected.as_bytes(),
    );
}

/// nsqd would hold a million messages of a megabyte before it stores the first.
#[test]
fn an_mpub_may_not_outgrow_the_body_limit_by_lying_about_its_length() {
    let limits = Limits {
        max_msg_size: 100,
        max_body_size: 208,
        ..Limits::default()
    };
    let context = DecodeContext::new(Init, &limits);
    let message = |size: u8| [&[0, 0, 0, size][..], &vec![b'x'; size.into()]].concat();
    let mpub = |sizes: [u8; 2]| {
        let start = b"MPUB t\n\0\0\0\x01\0\0\0\x02".to_vec();
        [start, message(sizes[0]), message(sizes[1])].concat()
    };
    assert_eq!(decode(&context, &mpub([98, 98])), Ok(()));
    assert_error(&context, &mpub([98, 99]), b"E_BAD_BODY MPUB body too big 209 > 208");
    assert_error(
        &context,
        &mpub([98, 101]),
        b"E_BAD_MESSAGE MPUB message too big 101 > 100",
    );
}

#[test]
fn subscribing_needs_heartbeats_before_it_needs_parameters() {
    let limits = Limits::default();
    let silent = DecodeContext {
        heartbeats_enabled: false,
        ..DecodeContext::new(Init, &limits)
    };
    for input in [&b"SUB\n"[..], b"SUB t c\n", b"SUB t$ c\n"] {
        assert_error(&silent, input, b"E_INVALID cannot SUB with heartbeats disabled");
    }
    assert_eq!(decode(&silent, b"PUB t\n\0\0\0\x01x"), Ok(()));
    let subscribed = DecodeContext {
        state: Subscribed,
        ..silent
    };
    assert_error(&subscribed, b"SUB t c\n", b"E_INVALID cannot SUB in current state");
}

#[test]
fn without_required_tls_only_identify_is_legal() {
    let limits = Limits::default();
    let plain = DecodeContext {
        tls_missing: true,
        ..DecodeContext::new(Init, &limits)
    };
    for verb in ["PUB", "NOP", "RDY", "BOGUS", ""] {
        let expected = format!("E_INVALID cannot {verb} in current state (TLS required)");
        assert_error(&plain, format!("{verb} x\n").as_bytes(), expected.as_bytes());
    }
    assert_eq!(decode(&plain, b"IDENTIFY\n\0\0\0\x02{}"), Ok(()));
}

#[test]
fn a_line_that_fits_nsqds_buffer_is_read_and_a_longer_one_closes_in_silence() {
    let limits = Limits::default();
    let context = DecodeContext::new(Init, &limits);
    let mut longest = b"NOP ".to_vec();
    longest.resize(MAX_LINE_LENGTH - 1, b'x');
    longest.push(b'\n');
    assert_eq!(decode(&context, &longest), Ok(()));

    longest.insert(4, b'x');
    assert_eq!(decode(&context, &longest), Err(ProtocolError::LineTooLong));
    let mut growing = BytesMut::from(&longest[..MAX_LINE_LENGTH - 1]);
    let mut decoder = Decoder::new();
    assert_eq!(decoder.decode(&mut growing, &context), Ok(None));
    growing.extend_from_slice(b"x");
    assert_eq!(decoder.decode(&mut growing, &context), Err(ProtocolError::LineTooLong));
}

#[test]
fn a_refused_connection_stays_refused() {
    let limits = Limits::default();
    let context = DecodeContext::new(Init, &limits);
    let mut decoder = Decoder::new();
    let mut buf = BytesMut::from(&b"PUB t\n\0\0\0\0NOP\n"[..]);
    let error = decoder.decode(&mut buf, &context).unwrap_err();
    assert_eq!(decoder.at_eof(), None);
    buf.extend_from_slice(b"NOP\n");
    assert_eq!(decoder.decode(&mut buf, &context), Err(error));
}

#[test]
fn an_end_within_a_command_has_nsqds_text() {
    let table: &[(&[u8], Option<&str>)] = &[
        (b"", None),
        (b"PUB t", None),
        (b"NOP\n", None),
        (
            b"IDENTIFY\n\0\0\0",
            Some("E_BAD_BODY IDENTIFY failed to read body size"),
        ),
        (
            b"IDENTIFY\n\0\0\0\x02{",
            Some("E_BAD_BODY IDENTIFY failed to read body"),
        ),
        (b"AUTH\n", Some("E_BAD_BODY AUTH failed to read body size")),
        (b"AUTH\n\0\0\0\x02{", Some("E_BAD_BODY AUTH failed to read body")),
        (b"PUB t\n", Some("E_BAD_MESSAGE PUB failed to read message body size")),
        (
            b"PUB t\n\0\0\0\x05abcd",
            Some("E_BAD_MESSAGE PUB failed to read message body"),
        ),
        (
            b"DPUB t 1\n\0",
            Some("E_BAD_MESSAGE DPUB failed to read message body size"),
        ),
        (
            b"DPUB t 1\n\0\0\0\x01",
            Some("E_BAD_MESSAGE DPUB failed to read message body"),
        ),
        (b"MPUB t\n\0\0", Some("E_BAD_BODY MPUB failed to read body size")),
        (
            b"MPUB t\n\0\0\0\x50\0\0\0",
            Some("E_BAD_BODY MPUB failed to read message count"),
        ),
        (
            b"MPUB t\n\0\0\0\x50\0\0\0\x02",
            Some("E_BAD_MESSAGE MPUB failed to read message(0) body size"),
        ),
        (
            b"MPUB t\n\0\0\0\x50\0\0\0\x02\0\0\0\x02a",
            Some("E_BAD_MESSAGE MPUB failed to read message body"),
        ),
        (
            b"MPUB t\n\0\0\0\x50\0\0\0\x02\0\0\0\x02ab\0",
            Some("E_BAD_MESSAGE MPUB failed to read message(1) body size"),
        ),
    ];
    let limits = Limits::default();
    let context = DecodeContext::new(Init, &limits);
    for (input, expected) in table {
        let mut decoder = Decoder::new();
        let mut buf = BytesMut::from(*input);
        while decoder.decode(&mut buf, &context).unwrap().is_some() {}
        let error = decoder.at_eof().map(|error| error.to_string());
        assert_eq!(error.as_deref(), *expected, "{}", input.escape_ascii());
    }
}

/// The echo of an id is in the frame, so the parser must let every 16 bytes through.
#[test]
fn any_sixteen_bytes_are_an_id() {
    let limits = Limits::default();
    let context = DecodeContext::new(Subscribed, &limits);
    for id in [ID, "not-hex-at-all!!", "ABCDEFABCDEFABCD"] {
        assert_eq!(decode(&context, format!("FIN {id}\n").as_bytes()), Ok(()));
    }
}
