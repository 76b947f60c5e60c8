//! What the decoder accepts: round trips, any cut of the stream, any bytes at all.

use bytes::{Bytes, BytesMut};
use nsquorum_protocol::ConnectionState::{Closing, Init, Subscribed};
use nsquorum_protocol::{ChannelName, Command, DecodeContext, Decoder, Limits, MessageId, ProtocolError, TopicName};
use nsquorum_protocol::{ConnectionState, encode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn topic() -> TopicName {
    TopicName::try_from("orders.eu#ephemeral").expect("a valid name")
}

fn channel() -> ChannelName {
    ChannelName::try_from("ledger").expect("a valid name")
}

const ID: MessageId = MessageId::from_seq(0xdead_beef);

fn publishes() -> Vec<Command> {
    let body = Bytes::from_static(b"a\nbody\0\xff");
    let bodies = vec![body.clone(), Bytes::from_static(b"x"), body.clone()];
    vec![
        Command::Nop,
        Command::Pub {
            topic: topic(),
            body: body.clone(),
        },
        Command::Mpub { topic: topic(), bodies },
        Command::Dpub {
            topic: topic(),
            defer_ms: 3_600_000,
            body,
        },
        Command::Mpub {
            topic: topic(),
            bodies: vec![Bytes::from_static(b"alone")],
        },
        Command::Nop,
    ]
}

fn of_state(state: ConnectionState) -> Vec<Command> {
    let own = match state {
        Init => vec![
            Command::Identify(Bytes::from_static(b"{}")),
            Command::Auth(Bytes::from_static(b"secret")),
            Command::Sub {
                topic: topic(),
                channel: channel(),
            },
        ],
        Subscribed => vec![
            Command::Rdy(0),
            Command::Rdy(2500),
            Command::Fin(ID),
            Command::Req { id: ID, timeout_ms: 90 },
            Command::Touch(ID),
            Command::Cls,
        ],
        Closing => vec![
            Command::Fin(ID),
            Command::Req { id: ID, timeout_ms: 0 },
            Command::Touch(ID),
        ],
    };
    [own, publishes()].concat()
}

fn encode(dst: &mut BytesMut, command: &Command) {
    match command {
        Command::Identify(json) => encode::identify(dst, json),
        Command::Auth(secret) => encode::auth(dst, secret),
        Command::Sub { topic, channel } => encode::sub(dst, topic, channel),
        Command::Rdy(count) => encode::rdy(dst, *count),
        Command::Fin(id) => encode::fin(dst, *id),
        Command::Req { id, timeout_ms } => encode::req(dst, *id, *timeout_ms),
        Command::Touch(id) => encode::touch(dst, *id),
        Command::Cls => encode::cls(dst),
        Command::Nop => encode::nop(dst),
        Command::Pub { topic, body } => encode::publish(dst, topic, body),
        Command::Mpub { topic, bodies } => encode::mpub(dst, topic, bodies),
        Command::Dpub { topic, defer_ms, body } => encode::dpub(dst, topic, *defer_ms, body),
    }
}

fn one(state: ConnectionState, input: &[u8]) -> Command {
    let limits = Limits::default();
    let mut buf = BytesMut::from(input);
    let decoded = Decoder::new().decode(&mut buf, &DecodeContext::new(state, &limits));
    let shown = input.escape_ascii();
    assert!(buf.is_empty(), "{shown} was not consumed");
    match decoded {
        Ok(Some(command)) => command,
        other => panic!("{shown} is {other:?}"),
    }
}

#[test]
fn commands_have_nsqs_bytes() {
    let mut wire = BytesMut::new();
    for state in [Init, Subscribed] {
        of_state(state)
            .iter()
            .take(6)
            .for_each(|command| encode(&mut wire, command));
    }
    let id = "00000000deadbeef";
    let expected = [
        b"IDENTIFY\n\0\0\0\x02{}AUTH\n\0\0\0\x06secretSUB orders.eu#ephemeral ledger\nNOP\n".as_slice(),
        b"PUB orders.eu#ephemeral\n\0\0\0\x08a\nbody\0\xff",
        b"MPUB orders.eu#ephemeral\n\0\0\0\x21\0\0\0\x03\0\0\0\x08a\nbody\0\xff\0\0\0\x01x\0\0\0\x08a\nbody\0\xff",
        format!("RDY 0\nRDY 2500\nFIN {id}\nREQ {id} 90\nTOUCH {id}\nCLS\n").as_bytes(),
    ]
    .concat();
    assert_eq!(wire.escape_ascii().to_string(), expected.escape_ascii().to_string());
}

/// Whatever pieces the network makes, the commands are the same, and no step takes a byte of the next command.
#[test]
fn any_cut_gives_the_same_commands() {
    let limits = Limits::default();
    for state in [Init, Subscribed, Closing] {
        let context = DecodeContext::new(state, &limits);
        let commands = of_state(state);
        let mut wire = BytesMut::new();
        let ends: Vec<usize> = commands
            .iter()
            .map(|command| {
                encode(&mut wire, command);
                wire.len()
            })
            .collect();

        for piece in 1..=wire.len() {
            let mut decoder = Decoder::new();
            let mut buf = BytesMut::new();
            let mut received = 0;
            let mut decoded = Vec::new();
            for part in wire.chunks(piece) {
                buf.extend_from_slice(part);
                received += part.len();
                while let Some(command) = decoder.decode(&mut buf, &context).unwrap() {
                    assert_eq!(received - buf.len(), ends[decoded.len()], "taken after {command:?}");
                    decoded.push(command);
                }
            }
            assert_eq!(decoded, commands, "pieces of {piece}");
        }
    }
}

/// A two-part cut at every position, for the errors too.
#[test]
fn any_cut_gives_the_same_error() {
    let inputs: &[&[u8]] = &[
        b"MPUB t\n\0\0\0\x10\0\0\0\x02\0\0\0\x01x\0\0\0\0",
        b"PUB t\n\x00\x10\x00\x01",
        b"SUB t c$\n",
        b"BOGUS\r\n",
        b"IDENTIFY\n\xff\xff\xff\xff",
    ];
    let limits = Limits::default();
    let context = DecodeContext::new(Init, &limits);
    for input in inputs {
        let whole = Decoder::new()
            .decode(&mut BytesMut::from(*input), &context)
            .unwrap_err();
        for cut in 0..input.len() {
            let mut decoder = Decoder::new();
            let mut buf = BytesMut::from(&input[..cut]);
            assert_eq!(
                decoder.decode(&mut buf, &context),
                Ok(None),
                "{}",
                input[..cut].escape_ascii()
            );
            buf.extend_from_slice(&input[cut..]);
            assert_eq!(decoder.decode(&mut buf, &context), Err(whole.clone()));
        }
    }
}

#[test]
fn bodies_are_parts_of_the_read_buffer() {
    let limits = Limits::default();
    let context = DecodeContext::new(Init, &limits);
    let mut buf = BytesMut::new();
    encode::publish(&mut buf, &topic(), &[1; 1000]);
    encode::mpub(&mut buf, &topic(), &[vec![2; 1000], vec![3; 1000]]);
    let memory = buf.as_ptr() as usize..buf.as_ptr() as usize + buf.len();
    let mut decoder = Decoder::new();
    let mut seen = 0;
    while let Some(command) = decoder.decode(&mut buf, &context).unwrap() {
        let bodies = match command {
            Command::Pub { body, .. } => vec![body],
            Command::Mpub { bodies, .. } => bodies,
            other => panic!("{other:?}"),
        };
        for body in bodies {
            assert!(memory.contains(&(body.as_ptr() as usize)), "a body was copied");
            seen += 1;
        }
    }
    assert_eq!(seen, 3);
}

#[test]
fn tells_what_is_missing() {
    let limits = Limits::default();
    let context = DecodeContext::new(Init, &limits);
    let table: &[(&[u8], usize)] = &[
        (b"", 1),
        (b"PUB ", 1),
        (b"PUB t\n\0", 3),
        (b"PUB t\n\0\0\x10\0xyz", 4093),
        (b"MPUB t\n", 4),
        // As long as the client says, or as long as the message in progress says, whichever is more.
        (b"MPUB t\n\0\0\x10\0\0\0\0\x02", 4092),
        (b"MPUB t\n\0\0\0\x01\0\0\0\x02\0\0\0\x0axy", 8),
        (b"MPUB t\n\0\0\0\x01\0\0\0\x02\0\0\0\x01x\0", 3),
    ];
    for (input, wanted) in table {
        let mut decoder = Decoder::new();
        assert_eq!(decoder.decode(&mut BytesMut::from(*input), &context), Ok(None));
        assert_eq!(decoder.wanted(), *wanted, "{}", input.escape_ascii());
    }
}

#[test]
fn what_nsqd_tolerates_is_tolerated() {
    let body = Bytes::from_static(b"x");
    let publish = |topic: &str| Command::Pub {
        topic: topic.parse().unwrap(),
        body: body.clone(),
    };
    let req = |timeout_ms| Command::Req {
        id: MessageId::from_seq(10),
        timeout_ms,
    };
    let table = [
        (Init, "NOP\r\n".to_owned(), Command::Nop),
        (Init, "NOP with surplus\n".to_owned(), Command::Nop),
        (Init, "PUB t  surplus \r\n\0\0\0\x01x".to_owned(), publish("t")),
        (Closing, "PUB t\n\0\0\0\x01x".to_owned(), publish("t")),
        (Subscribed, "CLS surplus\n".to_owned(), Command::Cls),
        (Subscribed, "RDY\n".to_owned(), Command::Rdy(1)),
        (Subscribed, "RDY \n".to_owned(), Command::Rdy(0)),
        (Subscribed, "RDY 0002500 x\n".to_owned(), Command::Rdy(2500)),
        (Closing, "RDY nonsense\n".to_owned(), Command::Nop),
        (Subscribed, "REQ 000000000000000a 3600000\n".to_owned(), req(3_600_000)),
        (Subscribed, "REQ 000000000000000a 3600001\n".to_owned(), req(3_600_000)),
        (Subscribed, "REQ 000000000000000a \n".to_owned(), req(0)),
        // The first delay that nsqd's nanoseconds cannot hold becomes negative there, and so none.
        (
            Subscribed,
            "REQ 000000000000000a 9223372036854\n".to_owned(),
            req(3_600_000),
        ),
        (Subscribed, "REQ 000000000000000a 9223372036855\n".to_owned(), req(0)),
        (
            Subscribed,
            "REQ 000000000000000a 99999999999999999999999\n".to_owned(),
            req(0),
        ),
        (
            Init,
            "DPUB t \n\0\0\0\x01x".to_owned(),
            Command::Dpub {
                topic: "t".parse().unwrap(),
                defer_ms: 0,
                body: body.clone(),
            },
        ),
        // The length of an MPUB says 1 byte, and 100 bytes.
        (
            Init,
            "MPUB t\n\0\0\0\x01\0\0\0\x01\0\0\0\x01x".to_owned(),
            Command::Mpub {
                topic: "t".parse().unwrap(),
                bodies: vec![body.clone()],
            },
        ),
        (
            Init,
            "MPUB t\n\0\0\0\x64\0\0\0\x01\0\0\0\x01x".to_owned(),
            Command::Mpub {
                topic: "t".parse().unwrap(),
                bodies: vec![body.clone()],
            },
        ),
    ];
    for (state, input, command) in table {
        assert_eq!(one(state, input.as_bytes()), command, "{input:?}");
    }
}

#[test]
fn the_longest_message_and_the_largest_body_are_accepted() {
    let limits = Limits {
        max_msg_size: 100,
        max_body_size: 108,
        ..Limits::default()
    };
    let context = DecodeContext::new(Init, &limits);
    let mut buf = BytesMut::new();
    encode::publish(&mut buf, &topic(), &[b'x'; 100]);
    encode::mpub(&mut buf, &topic(), &[[b'x'; 100]]);
    encode::identify(&mut buf, &[b' '; 108]);
    let mut decoder = Decoder::new();
    for _ in 0..3 {
        assert!(decoder.decode(&mut buf, &context).unwrap().is_some());
    }
    assert!(buf.is_empty());
}

/// Two decoders that get random bytes in different pieces agree about every command and error, and neither panics.
#[test]
fn random_bytes_never_panic_and_never_depend_on_the_pieces() {
    let words: &[&[u8]] = &[
        b"IDENTIFY",
        b"AUTH",
        b"SUB",
        b"RDY",
        b"FIN",
        b"REQ",
        b"TOUCH",
        b"CLS",
        b"NOP",
        b"PUB",
        b"MPUB",
        b"DPUB",
        b" ",
        b" ",
        b" t",
        b" 1",
        b"\n",
        b"\n",
        b"\n",
        b"\r",
        b"\0\0\0",
        b"\0\0\0\x01",
        b"\0\0\0\x02",
        b"\xff",
        b"\0\0\0\x09",
        b" 000000000000000a",
        b"\0",
    ];
    let limits = Limits {
        max_msg_size: 300,
        max_body_size: 1000,
        ..Limits::default()
    };
    for seed in 0..3_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut input = Vec::new();
        while input.len() < 200 {
            match rng.random_range(0..4) {
                0 => input.push(rng.random()),
                _ => input.extend_from_slice(words[rng.random_range(0..words.len())]),
            }
        }
        let state = [Init, Subscribed, Closing][rng.random_range(0..3)];
        let context = DecodeContext::new(state, &limits);
        let mut outcomes: Vec<Outcome> = Vec::new();
        for most in [1, 7, input.len()] {
            let mut rest = &input[..];
            let mut decoder = Decoder::new();
            let mut buf = BytesMut::new();
            let mut commands = Vec::new();
            let mut error = None;
            while error.is_none() && !rest.is_empty() {
                let (part, after) = rest.split_at(rng.random_range(1..=most.min(rest.len())));
                buf.extend_from_slice(part);
                rest = after;
                error = loop {
                    match decoder.decode(&mut buf, &context) {
                        Ok(Some(command)) => commands.push(command),
                        Ok(None) => break None,
                        Err(error) => break Some(error),
                    }
                };
                assert!((1..=1004).contains(&decoder.wanted()), "seed {seed}");
            }
            outcomes.push((commands, error, decoder.at_eof()));
        }
        assert!(
            outcomes.windows(2).all(|pair| pair[0] == pair[1]),
            "seed {seed}: {outcomes:?}"
        );
    }
}

/// The commands, the error that ended them, and the error that an end of the stream would make.
type Outcome = (Vec<Command>, Option<ProtocolError>, Option<ProtocolError>);

#[test]
fn nsqds_numbers_of_the_states() {
    assert_eq!([Init, Subscribed, Closing].map(ConnectionState::number), [0, 3, 4]);
}
