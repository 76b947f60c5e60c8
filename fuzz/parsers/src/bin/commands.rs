//! What a client sends after the magic.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use nsquorum_fuzz_parsers::{bounded, pieces};
use nsquorum_protocol::{Command, ConnectionState, DecodeContext, Decoder, Limits, ProtocolError, encode, take_magic};

/// What came of a connection's bytes.
#[derive(Debug, PartialEq)]
struct Read {
    commands: Vec<(ConnectionState, Command)>,
    refused: Option<ProtocolError>,
    at_eof: Option<ProtocolError>,
    /// What was not taken; after an error nobody asks.
    rest: Option<Bytes>,
}

fuzz_target!(|data: &[u8]| {
    let Some((&[choice, cuts], bytes)) = data.split_first_chunk::<2>() else {
        return;
    };
    let limits = limits(choice);
    // Bodies are parts of the buffer; what is kept beside them is counted by the command and by the message of an MPUB.
    bounded(256 * bytes.len() + (128 << 10), || {
        let whole = read(std::iter::once(bytes), choice, &limits);
        let cut = read(pieces(bytes, cuts), choice, &limits);
        assert_eq!(whole, cut, "cuts change what is read");
        for (state, command) in &whole.commands {
            says_the_same(*state, command, choice, &limits);
        }
    });
});

fn limits(choice: u8) -> Limits {
    match choice & 1 {
        0 => Limits::default(),
        _ => Limits {
            max_msg_size: 16,
            max_body_size: 64,
            max_rdy_count: 9,
            max_req_timeout_ms: 1000,
            ..Limits::default()
        },
    }
}

fn context(state: ConnectionState, choice: u8, limits: &Limits) -> DecodeContext<'_> {
    DecodeContext {
        heartbeats_enabled: choice & 2 == 0,
        tls_missing: choice & 28 == 28,
        ..DecodeContext::new(state, limits)
    }
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>, choice: u8, limits: &Limits) -> Read {
    let mut state = match choice & 12 {
        4 => ConnectionState::Subscribed,
        8 => ConnectionState::Closing,
        _ => ConnectionState::Init,
    };
    let mut magic_missing = choice & 32 != 0;
    let mut decoder = Decoder::new();
    let (mut buffer, mut commands, mut refused) = (BytesMut::new(), Vec::new(), None);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        if magic_missing && refused.is_none() {
            match take_magic(&mut buffer) {
                Ok(taken) => magic_missing = !taken,
                Err(error) => refused = Some(error),
            }
        }
        while refused.is_none() && !magic_missing {
            match decoder.decode(&mut buffer, &context(state, choice, limits)) {
                Ok(Some(command)) => {
                    let before = state;
                    match command {
                        Command::Sub { .. } => state = ConnectionState::Subscribed,
                        Command::Cls => state = ConnectionState::Closing,
                        _ => {}
                    }
                    commands.push((before, command));
                }
                Ok(None) => {
                    let most = limits.max_msg_size.max(limits.max_body_size);
                    assert!(
                        (1..=most).contains(&decoder.wanted()),
                        "{} are wanted",
                        decoder.wanted()
                    );
                    break;
                }
                Err(error) => {
                    let again = decoder.decode(&mut buffer, &context(state, choice, limits));
                    assert_eq!(again, Err(error.clone()), "an error stays");
                    refused = Some(error);
                }
            }
        }
    }
    let at_eof = decoder.at_eof();
    assert!(refused.is_none() || at_eof.is_none(), "one error is enough");
    let rest = refused.is_none().then(|| buffer.freeze());
    Read {
        commands,
        refused,
        at_eof,
        rest,
    }
}

/// A command as our own client writes it is the same command.
fn says_the_same(state: ConnectionState, command: &Command, choice: u8, limits: &Limits) {
    let mut wire = BytesMut::new();
    match command {
        Command::Identify(json) => encode::identify(&mut wire, json),
        Command::Auth(secret) => encode::auth(&mut wire, secret),
        Command::Sub { topic, channel } => encode::sub(&mut wire, topic, channel),
        Command::Rdy(count) => encode::rdy(&mut wire, *count),
        // No id that was ever given out ends in a carriage return; at the end of a line it would be taken for that of the line.
        Command::Fin(id) | Command::Touch(id) if id.as_bytes().ends_with(b"\r") => return,
        Command::Fin(id) => encode::fin(&mut wire, *id),
        Command::Req { id, timeout_ms } => encode::req(&mut wire, *id, *timeout_ms),
        Command::Touch(id) => encode::touch(&mut wire, *id),
        Command::Cls => encode::cls(&mut wire),
        Command::Nop => encode::nop(&mut wire),
        Command::Pub { topic, body } => encode::publish(&mut wire, topic, body),
        Command::Mpub { topic, bodies } => encode::mpub(&mut wire, topic, bodies),
        Command::Dpub { topic, defer_ms, body } => encode::dpub(&mut wire, topic, *defer_ms, body),
    }
    let again = Decoder::new().decode(&mut wire, &context(state, choice, limits));
    assert_eq!(
        again.as_ref(),
        Ok(&Some(command.clone())),
        "another encoding, another command"
    );
    assert!(wire.is_empty());
}
