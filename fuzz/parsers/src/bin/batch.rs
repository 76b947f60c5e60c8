//! The payloads of a topic's log: batches and leader starts.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nsquorum_fuzz_parsers::bounded;
use nsquorum_topic::{BatchBuilder, BatchView, LeaderStart, NewMessage};

fuzz_target!(|data: &[u8]| {
    let payload = Bytes::copy_from_slice(data);
    bounded(64 * data.len() + 4096, || {
        if let Ok(batch) = BatchView::parse(payload) {
            let written = rewritten(&batch);
            let again = BatchView::parse(written.clone()).expect("an own encoding");
            assert_eq!(rewritten(&again), written, "the second writing is not the first");
            same(&batch, &again);
        }
    });
    if let Ok(start) = LeaderStart::decode(data) {
        let again = LeaderStart::decode(&start.encode(0));
        assert_eq!(again, Ok(start));
    }
});

/// As a leader of this version would have written it; what it does not know (extensions) is left out.
fn rewritten(batch: &BatchView) -> Bytes {
    let mut builder = BatchBuilder::with_header_room(0);
    for event in batch.events() {
        builder.push_event(&event);
    }
    for message in batch.messages() {
        let _ = message.is_intact();
        builder.push_message(&NewMessage {
            body: message.body,
            crc32c: message.crc32c,
            defer_ms: message.defer_ms,
            published_at: message.published_at,
            origin: message.origin,
        });
    }
    let header = batch.header();
    let finished = builder.finish(header.term, header.first_seq, header.time, header.feature_level);
    finished.freeze()
}

fn same(batch: &BatchView, again: &BatchView) {
    assert_eq!(batch.header(), again.header());
    assert!(batch.events().eq(again.events()));
    assert!(batch.messages().eq(again.messages()));
    // Neighbours with one origin are one publish; blocks of the same content in two places are read as two.
    let publishes = |batch: &BatchView| {
        let mut origins: Vec<_> = batch.origins().collect();
        origins.dedup();
        origins
    };
    assert_eq!(publishes(batch), publishes(again));
}
