//! A topic's checkpoint, and what entries of the log do to it.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nsquorum_fuzz_parsers::bounded;
use nsquorum_topic::{BatchView, EntryPosition, LeaderStart, LogIndex, Term, TopicState};

fuzz_target!(|data: &[u8]| {
    let Some((checkpoint, mut entries)) = length_and_bytes(data) else {
        return;
    };
    // A number set may stand for 64 Ki numbers in 15 bytes.
    let decoded = bounded((2 << 20) + 1024 * checkpoint.len(), || TopicState::decode(checkpoint));
    let Ok(mut state) = decoded else {
        return;
    };
    assert_eq!(state.encode(), checkpoint, "there is one encoding");
    looked_at(&state);
    while let Some((entry, rest)) = length_and_bytes(entries) {
        entries = rest;
        let Some((&term, payload)) = entry.split_first() else {
            continue;
        };
        let Some(at) = next(&state, term, payload) else {
            return;
        };
        let applied = match (
            LeaderStart::decode(payload),
            BatchView::parse(Bytes::copy_from_slice(payload)),
        ) {
            (Ok(start), _) => state.apply_leader_start(at, &start).is_ok(),
            (_, Ok(batch)) => state.apply_batch(at, &batch).is_ok(),
            (Err(_), Err(_)) => state.apply_other(at).is_ok(),
        };
        let again = TopicState::decode(&state.encode());
        assert_eq!(
            again.as_ref(),
            Ok(&state),
            "a checkpoint behind the entry (applied: {applied}) is refused"
        );
        looked_at(&state);
    }
});

/// Where the next entry stands; its term is `ahead` of the last.
fn next(state: &TopicState, ahead: u8, payload: &[u8]) -> Option<EntryPosition> {
    let (index, term) = match state.applied() {
        Some((index, term)) => (index.get().checked_add(1)?, term.get().checked_add(u64::from(ahead))?),
        None => (1, u64::from(ahead)),
    };
    Some(EntryPosition {
        index: LogIndex::new(index),
        term: Term::new(term),
        encoded_bytes: payload.len() as u32,
    })
}

/// What a leader reads of a state all the time.
fn looked_at(state: &TopicState) {
    let _ = (state.usage(), state.purge_index(), state.held_count(), state.digest());
    for channel in state.channels() {
        assert_eq!(
            state.channel_by_name(channel.name()).map(|named| named.incarnation()),
            Some(channel.incarnation())
        );
    }
    for (_, seq) in state.deferred() {
        assert!(state.due_of(seq).is_some());
    }
}

/// `u16 length`, so many bytes, and the rest.
fn length_and_bytes(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk()?;
    rest.split_at_checked(u16::from_le_bytes(*length).into())
}
