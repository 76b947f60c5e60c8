//! The report as JSON: the field names are part of the command's interface.

use super::json::{self, Object};
use super::report::{Finding, GroupReport, Outcome, Place, Report, TopicReport, slot_name};
use crate::log::LogId;

impl Report {
    /// The report as one JSON object.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        json::object(&mut out, |o| {
            o.text("directory", &self.directory);
            o.text(
                "outcome",
                match self.outcome() {
                    Outcome::Clean => "clean",
                    Outcome::Damaged => "damaged",
                },
            );
            match &self.identity {
                None => o.null("identity"),
                Some(identity) => o.object("identity", |o| {
                    o.text("cluster", &identity.cluster);
                    o.number("node", identity.node.get());
                    o.number("incarnation", identity.incarnation.get());
                }),
            }
            o.objects("findings", &self.findings, write_finding);
            o.objects("notes", &self.notes, write_finding);
            o.object("files", |o| {
                o.number("logs", self.files.logs);
                o.number("log_records", self.files.log_records);
                o.number("tables", self.files.tables);
                o.number("blobs", self.files.blobs);
                o.number("bytes", self.files.bytes);
            });
            o.objects("groups", &self.groups, write_group);
        });
        out
    }
}

fn write_finding(o: &mut Object<'_>, finding: &Finding) {
    match &finding.place {
        Place::File { file, offset } => {
            o.text("file", file);
            o.number("offset", *offset);
        }
        Place::Group(group) => o.number("group", group.get()),
        Place::Entry { group, index } => {
            o.number("group", group.get());
            o.number("index", index.get());
        }
        Place::Checkpoint { group, slot } => {
            o.number("group", group.get());
            o.text("checkpoint", slot_name(*slot));
        }
        Place::Database => {}
    }
    o.text("what", &finding.what);
}

fn write_log_id(o: &mut Object<'_>, key: &str, log_id: Option<LogId>) {
    match log_id {
        None => o.null(key),
        Some(LogId { term, index }) => o.object(key, |o| {
            o.number("term", term.get());
            o.number("index", index.get());
        }),
    }
}

fn write_text_or_null(o: &mut Object<'_>, key: &str, text: Option<String>) {
    match text {
        None => o.null(key),
        Some(text) => o.text(key, &text),
    }
}

fn write_group(o: &mut Object<'_>, group: &GroupReport) {
    o.number("group", group.group.get());
    write_text_or_null(o, "name", group.name.clone());
    match group.vote {
        None => o.null("vote"),
        Some(vote) => o.object("vote", |o| {
            o.number("term", vote.term.get());
            o.number("node", vote.node.get());
            o.flag("committed", vote.committed);
        }),
    }
    write_log_id(o, "purged", group.purged);
    write_log_id(o, "last", group.last);
    write_log_id(o, "committed", group.committed);
    o.number("entries", group.entries);
    o.number("entry_bytes", group.entry_bytes);
    o.objects("checkpoints", &group.checkpoints, |o, (slot, log_id, digest)| {
        o.text("slot", slot_name(*slot));
        write_log_id(o, "applied", *log_id);
        write_text_or_null(o, "digest", digest.map(|digest| digest.to_string()));
    });
    match &group.topic {
        None => o.null("topic"),
        Some(topic) => o.object("topic", |o| write_topic(o, topic)),
    }
}

fn write_topic(o: &mut Object<'_>, topic: &TopicReport) {
    o.number("next_seq", topic.next_seq.get());
    o.number("message_count", topic.message_count);
    o.number("void_batches", topic.void_batches);
    o.number("replayed_accepted", topic.replayed_accepted);
    o.number("replayed_void", topic.replayed_void);
    o.flag("deleted", topic.is_deleted);
    o.text("digest", &topic.digest.to_string());
    write_text_or_null(
        o,
        "committed_digest",
        topic.committed_digest.map(|digest| digest.to_string()),
    );
    o.number("purge_floor", topic.purge_floor.get());
    o.number("index_points", topic.index_points);
    match topic.paused_at {
        None => o.null("paused_at"),
        Some(seq) => o.number("paused_at", seq.get()),
    }
    o.objects("deferred", &topic.deferred, |o, (due, seq)| {
        o.number("seq", seq.get());
        o.number("due", due.get());
    });
    o.objects("unreleased", &topic.unreleased, |o, (seq, delay_ms)| {
        o.number("seq", seq.get());
        o.number("delay_ms", u64::from(*delay_ms));
    });
    o.objects("channels", &topic.channels, |o, channel| {
        o.number("incarnation", channel.incarnation.get());
        o.text("name", &channel.name);
        o.flag("paused", channel.is_paused);
        o.number("floor", channel.floor.get());
        o.tuples(
            "finished",
            channel
                .finished
                .iter()
                .map(|range| [range.first().get(), range.last().get()]),
        );
        o.objects("exceptions", &channel.exceptions, |o, (seq, attempts, not_before)| {
            o.number("seq", seq.get());
            o.number("attempts", u64::from(attempts.get()));
            match not_before {
                None => o.null("not_before"),
                Some(time) => o.number("not_before", time.get()),
            }
        });
    });
    if let Some(messages) = &topic.messages {
        o.objects("messages", messages, |o, message| {
            o.number("seq", message.seq.get());
            o.number("length", u64::from(message.length));
            o.number("crc32c", u64::from(message.crc32c));
            o.number("defer_ms", u64::from(message.defer_ms));
        });
    }
}
