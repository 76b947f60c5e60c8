//! Machine against model.

use nsquorum_topic::{Acceptance, BatchView, Channel, Cursor, LogTime, MessageView, Seq, TopicState};

use super::history::{Entry, Payload};
use super::naive::{Naive, NaiveChannel};

/// What is cheap enough to look at after every entry.
pub(crate) fn quick(state: &TopicState, naive: &Naive) {
    assert_eq!(state.next_seq().get(), naive.next_seq(), "next number");
    assert_eq!(state.time().get(), naive.time, "time");
    assert_eq!(state.is_deleted(), naive.is_deleted, "deleted");
    assert_eq!(state.void_batches(), naive.voided, "void entries");
    assert_eq!(state.message_count(), naive.stored.len() as u64, "messages");
    assert_eq!(
        state.readable_end().get(),
        naive.readable_end(),
        "end of what the channels read"
    );
    assert_eq!(state.held_count(), naive.queue.len() as u64, "messages in the topic");
    assert_eq!(
        state.paused_at().map(Seq::get),
        naive.is_paused.then(|| naive.readable_end()),
        "paused at"
    );
    assert_eq!(state.purge_floor().get(), naive.lowest_needed(), "purge floor");
    let incarnations: Vec<u64> = state.channels().map(|channel| channel.incarnation().get()).collect();
    assert_eq!(
        incarnations,
        naive.channels.keys().copied().collect::<Vec<_>>(),
        "channels"
    );
}

pub(crate) fn whole(state: &TopicState, naive: &Naive) {
    quick(state, naive);
    assert_eq!(
        state.message_bytes(),
        naive
            .stored
            .iter()
            .map(|message| message.body.len() as u64)
            .sum::<u64>(),
        "bytes of bodies"
    );
    let held: Vec<(u64, u32)> = naive.queue.iter().copied().filter(|(_, delay)| *delay > 0).collect();
    assert_eq!(
        state
            .unreleased()
            .map(|(seq, delay)| (seq.get(), delay))
            .collect::<Vec<_>>(),
        held,
        "unreleased"
    );
    let mut due: Vec<(u64, u64)> = naive.due.iter().map(|(seq, due)| (*due, *seq)).collect();
    due.sort_unstable();
    assert_eq!(
        state
            .deferred()
            .map(|(due, seq)| (due.get(), seq.get()))
            .collect::<Vec<_>>(),
        due,
        "deferred"
    );
    for seq in naive.first_seq()..naive.next_seq() {
        assert_eq!(
            state.due_of(Seq::new(seq)).map(LogTime::get),
            naive.due.get(&seq).copied(),
            "due of {seq}"
        );
    }
    let usage = state.usage();
    assert_eq!(usage.deferred, (due.len() + held.len()) as u64, "usage: deferred");
    assert_eq!(
        usage.exceptions,
        naive
            .channels
            .values()
            .map(|channel| channel.back.len() as u64)
            .sum::<u64>()
    );
    for (machine, model) in state.channels().zip(naive.channels.values()) {
        assert_eq!(state.channel_by_name(&model.name), Some(machine), "lookup by name");
        assert_eq!(
            state.channel(machine.incarnation()),
            Some(machine),
            "lookup by incarnation"
        );
        channel(machine, model, naive);
    }
}

fn channel(machine: &Channel, model: &NaiveChannel, naive: &Naive) {
    let (next_seq, end) = (naive.next_seq(), naive.readable_end());
    assert_eq!(machine.name(), &model.name);
    assert_eq!(machine.begin().get(), model.begin, "begin");
    assert_eq!(machine.is_paused(), model.is_paused, "channel pause");
    assert_eq!(
        machine.floor().get(),
        model.holds.first().copied().unwrap_or(end),
        "floor"
    );
    for seq in naive.first_seq()..next_seq {
        let expected = seq < end && !model.holds.contains(&seq);
        assert_eq!(machine.is_finished(Seq::new(seq)), expected, "is {seq} finished");
    }
    let above: Vec<u64> = (machine.floor().get()..end)
        .filter(|seq| !model.holds.contains(seq))
        .collect();
    assert_eq!(
        machine.finished_above_floor().map(Seq::get).collect::<Vec<_>>(),
        above,
        "finished above the floor"
    );
    assert_eq!(machine.finished_above_floor_count(), above.len() as u64);
    assert_eq!(machine.finished_above_floor_last().map(Seq::get), above.last().copied());
    assert_eq!(
        machine.unfinished_below(Seq::new(end)),
        model.holds.len() as u64,
        "unfinished"
    );
    assert_eq!(machine.exceptions().len(), model.back.len(), "number of exceptions");
    for ((seq, found), (expected_seq, expected)) in machine.exceptions().zip(&model.back) {
        let found = (
            found.attempts.get(),
            found.not_before.map(LogTime::get),
            found.behind.get(),
        );
        assert_eq!((seq.get(), found), (*expected_seq, *expected), "exception");
    }
    assert_eq!(machine.message_count(), model.received, "messages received");
    assert_eq!(machine.finish_count(), model.finished, "messages finished");
    assert_eq!(
        [
            machine.requeue_count(),
            machine.timeout_count(),
            machine.disconnect_count()
        ],
        model.returned,
        "messages returned"
    );
}

/// Reads the log back by the acceptance rule, from its start and from every index point.
pub(crate) fn readers(state: &TopicState, naive: &Naive, seq_base: Seq, log: &[Entry]) {
    let first = seq_base.get() + 1;
    let (cursor, messages) = read(Cursor::at_start(seq_base), log);
    assert_eq!(cursor.next_seq(), state.next_seq());
    assert_eq!(cursor.is_deleted(), state.is_deleted());
    same_messages(&messages, first, naive);

    for point in state.index_points() {
        let (cursor, messages) = read(Cursor::at_point(&point), &log[point.index.get() as usize..]);
        assert_eq!(log[point.index.get() as usize].at.term, point.term, "term of a point");
        assert_eq!(cursor.next_seq(), state.next_seq());
        same_messages(&messages, point.next_seq.get(), naive);
        assert_eq!(
            state.index_point(point.next_seq),
            Some(point),
            "a point is found by its own number"
        );
    }
    for seq in (state.purge_floor().get()..naive.next_seq()).map(Seq::new) {
        let point = state
            .index_point(seq)
            .expect("every message that is needed has a point");
        assert!(
            point.next_seq <= seq && point.index >= state.purge_index(),
            "point of {seq}"
        );
    }
    if naive.lowest_needed() == naive.next_seq() {
        assert_eq!(
            state.purge_index().get(),
            log.len() as u64,
            "nothing is needed of the log"
        );
    }
}

fn read(mut cursor: Cursor, log: &[Entry]) -> (Cursor, Vec<MessageView>) {
    let mut messages = Vec::new();
    for entry in log {
        let Payload::Batch(bytes) = &entry.payload else {
            continue;
        };
        let view = BatchView::parse(bytes.clone()).unwrap();
        if cursor.step(entry.at.term, &view.header()) == Acceptance::Accepted {
            messages.extend(view.messages());
        }
    }
    (cursor, messages)
}

fn same_messages(messages: &[MessageView], first: u64, naive: &Naive) {
    assert_eq!(
        first + messages.len() as u64,
        naive.next_seq(),
        "messages read back from {first} on"
    );
    for (message, seq) in messages.iter().zip(first..) {
        let stored = naive.message(seq);
        assert_eq!(message.seq.get(), seq);
        assert_eq!(message.body, stored.body, "body of {seq}");
        assert_eq!(message.defer_ms, stored.defer_ms, "deferral of {seq}");
        assert_eq!(message.published_at.get(), stored.published_at, "time of {seq}");
        assert!(message.is_intact());
    }
}
