//! What nsqds say to nsqlookupd.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use nsquorum_fuzz_parsers::{bounded, pieces};
use nsquorum_lookup::{Command, Decoder, LookupError};

fuzz_target!(|data: &[u8]| {
    let Some((&cuts, bytes)) = data.split_first() else {
        return;
    };
    bounded(256 * bytes.len() + (16 << 10), || {
        let whole = read(std::iter::once(bytes));
        let cut = read(pieces(bytes, cuts));
        assert_eq!(whole, cut, "cuts change what is read");
        if let Some(refused) = &whole.1 {
            assert!(refused.to_bytes().starts_with(b"E_"), "an error without a code");
        }
        says_the_same(&whole.0);
    });
});

/// All commands, the error that ends them, and the one of an end.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Command>, Option<LookupError>, Option<LookupError>) {
    let (mut decoder, mut buffer, mut commands) = (Decoder::new(), BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(command)) => {
                    if matches!(command, Command::Identify(_)) {
                        decoder.identified();
                    }
                    commands.push(command);
                }
                Ok(None) => break,
                Err(error) => return (commands, Some(error), None),
            }
        }
    }
    let at_end = decoder.end();
    (commands, None, at_end)
}

fn says_the_same(commands: &[Command]) {
    let mut wire = b"  V1".to_vec();
    for command in commands {
        let line = match command {
            Command::Ping => "PING".to_owned(),
            Command::Identify(_) => "IDENTIFY".to_owned(),
            Command::Register(topic, None) => format!("REGISTER {topic}"),
            Command::Register(topic, Some(channel)) => format!("REGISTER {topic} {channel}"),
            Command::Unregister(topic, None) => format!("UNREGISTER {topic}"),
            Command::Unregister(topic, Some(channel)) => format!("UNREGISTER {topic} {channel}"),
        };
        wire.extend(line.into_bytes());
        wire.push(b'\n');
        if let Command::Identify(body) = command {
            wire.extend(u32::try_from(body.len()).expect("inputs are small").to_be_bytes());
            wire.extend(body);
        }
    }
    assert_eq!(
        read(std::iter::once(wire.as_slice())).0,
        commands,
        "another encoding, other commands"
    );
}
