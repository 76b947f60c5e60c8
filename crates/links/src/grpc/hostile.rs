//! What holds for any bytes that a peer may send; asked by tests, and by the fuzzer (`fuzz/`), for which alone it is public.

use std::collections::BTreeMap;

use prost::Message as _;

use super::answer::take;
use super::assembler::Assembler;
use super::wire::{
    Answered, Chunk, Dialled, Write, answered, dialled, identity_from_wire, lane_from_wire, rejection_from_wire,
};
use crate::Lane;
use crate::limits::charge;

const FRAME_BYTES_MAX: usize = 1000;
const PENDING_BYTES_MAX: u64 = 3000;

/// Messages of a connection in both directions, each behind its length in two bytes (little-endian). Frames are what the chunks of
/// their lane add up to, and no more is gathered at once than was agreed.
pub fn messages(mut bytes: &[u8]) {
    let mut assembler = Assembler::new(FRAME_BYTES_MAX, PENDING_BYTES_MAX);
    let mut lanes = Lanes::default();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let Some((message, rest)) = rest.split_at_checked(u16::from_le_bytes(*length).into()) else {
            return;
        };
        bytes = rest;
        answered_by_dialled_node(message);
        let Ok(message) = Dialled::decode(message) else {
            continue;
        };
        match message.say {
            Some(dialled::Say::Hello(hello)) => {
                let _ = identity_from_wire(hello.identity.as_ref());
            }
            Some(dialled::Say::Write(write)) => {
                let expected = lanes.frames(&write);
                let mut arrived = Vec::new();
                let taken = take(&mut assembler, write, |lane, frame| {
                    arrived.push((lane, frame.to_vec()))
                });
                assert!(expected.starts_with(&arrived), "frames that nobody sent");
                if taken.is_err() {
                    return;
                }
                assert_eq!(arrived, expected, "frames are missing");
                assert!(
                    lanes.0.len() <= 1 || lanes.pending() <= PENDING_BYTES_MAX,
                    "more is gathered than agreed"
                );
            }
            Some(dialled::Say::Proof(_)) | None => {}
        }
    }
}

fn answered_by_dialled_node(message: &[u8]) {
    let Ok(Answered { say: Some(say) }) = Answered::decode(message) else {
        return;
    };
    match say {
        answered::Say::Challenge(challenge) => {
            let _ = identity_from_wire(challenge.identity.as_ref());
        }
        answered::Say::Verdict(verdict) => {
            let _ = rejection_from_wire(verdict.rejection);
        }
        answered::Say::Credits(credits) => {
            for credit in credits.credits {
                let _ = lane_from_wire(credit.service, credit.group);
            }
        }
    }
}

/// The frames that have begun, with their announced lengths: the simplest account of what chunks mean.
#[derive(Default)]
struct Lanes(BTreeMap<Lane, (usize, Vec<u8>)>);

impl Lanes {
    /// The frames that end in a message, as far as it is in order.
    fn frames(&mut self, write: &Write) -> Vec<(Lane, Vec<u8>)> {
        write
            .chunks
            .iter()
            .map_while(|chunk| self.chunk(chunk))
            .flatten()
            .collect()
    }

    fn chunk(&mut self, chunk: &Chunk) -> Option<Option<(Lane, Vec<u8>)>> {
        let lane = lane_from_wire(chunk.service, chunk.group).ok()?;
        if chunk.begins > 0 {
            let announced = usize::try_from(chunk.begins - 1).ok()?;
            self.0.insert(lane, (announced, Vec::new()));
        }
        let (announced, gathered) = self.0.get_mut(&lane)?;
        gathered.extend_from_slice(&chunk.data);
        let complete = gathered.len() == *announced;
        Some(
            complete
                .then(|| self.0.remove(&lane))
                .flatten()
                .map(|(_, frame)| (lane, frame)),
        )
    }

    fn pending(&self) -> u64 {
        self.0.values().map(|(announced, _)| charge(*announced)).sum()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_fuzzer_found_is_read_or_refused() {
        let found = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/link_messages")).unwrap();
        let inputs: Vec<_> = found.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
        assert!(inputs.len() > 20, "the corpus is missing");
        inputs.iter().for_each(|bytes| super::messages(bytes));
    }
}
