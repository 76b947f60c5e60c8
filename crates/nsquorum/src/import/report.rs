//! What an import says at its end.

use std::fmt::Write as _;
use std::io::Write as _;

use nsquorum_diskqueue::{DataPath, Finding, Queue, QueueReader};

use crate::exit::Exit;

/// Counts and findings.
#[derive(Debug)]
pub(super) struct Report {
    text: String,
    queues: u64,
    messages: u64,
    uncertain: u64,
    is_damaged: bool,
}

impl Report {
    pub(super) fn new(data_path: &DataPath, queues: &[Queue]) -> Self {
        let mut report = Self {
            text: String::new(),
            queues: queues.len() as u64,
            messages: 0,
            uncertain: 0,
            is_damaged: false,
        };
        for leftover in data_path.leftovers() {
            report.line(&format!(
                "{leftover}: left out: its topic or channel is not in nsqd.dat, so nsqd does not read it either"
            ));
        }
        report
    }

    fn line(&mut self, line: &str) {
        // A string takes everything.
        _ = writeln!(self.text, "{line}");
    }

    /// A queue was read to its end. `before`: of its messages, those that an earlier import had stored.
    pub(super) fn read(&mut self, queue: &Queue, before: u64, count: u64, reader: &QueueReader) {
        self.messages += count;
        match (before, count) {
            (0, 0) => {}
            (0, _) => self.line(&format!("{}: {count} messages", queue.name())),
            (_, _) => self.line(&format!(
                "{}: {count} more messages, {before} were stored before",
                queue.name()
            )),
        }
        let found = before + count;
        let depth = queue.depth().filter(|depth| *depth != found);
        let depth = depth.map(|said| Finding::Depth { said, found });
        for finding in queue.findings().iter().chain(reader.findings()).chain(&depth) {
            self.is_damaged |= finding.is_damage();
            self.line(&format!("{}: {finding}", queue.name()));
        }
    }

    /// So often a message was sent again without knowing whether it had been stored.
    pub(super) fn uncertain(&mut self, messages: u64) {
        self.uncertain = messages;
    }

    pub(super) fn print(&self, is_dry: bool) {
        let done = if is_dry { "to import" } else { "imported" };
        let mut out = std::io::stdout().lock();
        // Without standard output there is nobody to tell; the exit code says the rest.
        _ = write!(out, "{}", self.text);
        _ = writeln!(out, "{done}: {} messages of {} queues", self.messages, self.queues);
        if self.uncertain > 0 {
            _ = writeln!(
                out,
                "at most {} copies too many were stored: answers were lost",
                self.uncertain
            );
        }
        if self.is_damaged {
            _ = writeln!(out, "not everything could be read: see above");
        }
    }

    pub(super) fn exit(&self) -> Exit {
        if self.is_damaged {
            Exit::ImpossibleData
        } else {
            Exit::Ok
        }
    }
}
