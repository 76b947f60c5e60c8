//! What is pushed: gauges as they are, counters as what has come since the last push.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use nsquorum_broker::{ChannelStats, LatencySummary, TopicStats};
use nsquorum_protocol::{ChannelName, TopicName};

use crate::http::memory::Memory;

/// One look at all topics.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// The topics that there are.
    pub(super) names: BTreeSet<TopicName>,
    /// Those of them that this node leads.
    pub(super) led: BTreeSet<TopicName>,
    /// Those of them whose leader has answered.
    pub(super) topics: Vec<TopicStats>,
}

/// What was counted when it was last looked at.
#[derive(Debug)]
pub(super) struct Figures {
    /// The topics that there were.
    names: BTreeSet<TopicName>,
    counted: BTreeMap<TopicName, TopicCounts>,
}

#[derive(Clone, Debug, Default)]
struct TopicCounts {
    messages: u64,
    bytes: u64,
    channels: BTreeMap<ChannelName, ChannelCounts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct ChannelCounts {
    messages: u64,
    requeues: u64,
    timeouts: u64,
}

impl TopicCounts {
    fn of(topic: &TopicStats) -> Self {
        let channels = topic.channels.iter();
        Self {
            messages: topic.message_count,
            bytes: topic.message_bytes,
            channels: channels
                .map(|channel| (channel.name.clone(), ChannelCounts::of(channel)))
                .collect(),
        }
    }
}

impl ChannelCounts {
    const fn of(channel: &ChannelStats) -> Self {
        Self {
            messages: channel.message_count,
            requeues: channel.requeue_count,
            timeouts: channel.timeout_count,
        }
    }
}

impl Figures {
    /// Of topics that were there before, counts are not known yet.
    pub(super) fn new(names: impl IntoIterator<Item = TopicName>) -> Self {
        Self {
            names: names.into_iter().collect(),
            counted: BTreeMap::new(),
        }
    }

    /// Takes the counts of the topics that were there before as those that nothing is pushed of.
    pub(super) fn begin(&mut self, collected: &Collected) {
        let before = collected.topics.iter().filter(|topic| self.names.contains(&topic.name));
        self.counted = before
            .map(|topic| (topic.name.clone(), TopicCounts::of(topic)))
            .collect();
    }

    /// The lines to push, without prefix.
    pub(super) fn lines(
        &mut self,
        collected: &Collected,
        memory: Option<Memory>,
        exclude_ephemeral: bool,
    ) -> Vec<String> {
        let mut lines = Lines(Vec::new());
        for topic in &collected.topics {
            let counts = TopicCounts::of(topic);
            let before = match self.counted.get(&topic.name) {
                Some(before) => before.clone(),
                // There was no leader that could have told what it had then.
                None if self.names.contains(&topic.name) => counts.clone(),
                None => TopicCounts::default(),
            };
            let is_shown = !(exclude_ephemeral && topic.name.is_ephemeral());
            if is_shown && collected.led.contains(&topic.name) {
                lines.topic(topic, &before, exclude_ephemeral);
            }
            self.counted.insert(topic.name.clone(), counts);
        }
        self.counted.retain(|name, _| collected.names.contains(name));
        self.names.clone_from(&collected.names);
        if let Some(memory) = memory {
            lines.memory(&memory);
        }
        lines.0
    }
}

struct Lines(Vec<String>);

impl Lines {
    /// A topic or channel that was deleted and made again counts from zero.
    fn counter(&mut self, name: impl Display, now: u64, before: u64) {
        let more = now.checked_sub(before).unwrap_or(now);
        self.0.push(format!("{name}:{more}|c"));
    }

    fn gauge(&mut self, name: impl Display, value: u64) {
        self.0.push(format!("{name}:{value}|g"));
    }

    fn latency(&mut self, of: &str, summary: Option<&LatencySummary>) {
        for percentile in summary.iter().flat_map(|summary| &summary.percentiles) {
            let quantile = percentile.quantile.get() * 100.0;
            // Latencies are not negative, and fit by far.
            self.gauge(
                format_args!("{of}.e2e_processing_latency_{quantile:.0}"),
                percentile.nanos as u64,
            );
        }
    }

    fn topic(&mut self, topic: &TopicStats, before: &TopicCounts, exclude_ephemeral: bool) {
        let of = format!("topic.{}", topic.name);
        self.counter(format_args!("{of}.message_count"), topic.message_count, before.messages);
        self.counter(format_args!("{of}.message_bytes"), topic.message_bytes, before.bytes);
        self.gauge(format_args!("{of}.depth"), topic.depth);
        self.gauge(format_args!("{of}.backend_depth"), topic.depth);
        self.latency(&of, topic.latency.as_ref());
        let channels = topic.channels.iter();
        for channel in channels.filter(|channel| !(exclude_ephemeral && channel.name.is_ephemeral())) {
            let before = before.channels.get(&channel.name).copied().unwrap_or_default();
            self.channel(&format!("{of}.channel.{}", channel.name), channel, before);
        }
    }

    fn channel(&mut self, of: &str, channel: &ChannelStats, before: ChannelCounts) {
        self.counter(
            format_args!("{of}.message_count"),
            channel.message_count,
            before.messages,
        );
        self.gauge(format_args!("{of}.depth"), channel.depth);
        self.gauge(format_args!("{of}.backend_depth"), channel.depth);
        self.gauge(format_args!("{of}.in_flight_count"), channel.in_flight_count);
        self.gauge(format_args!("{of}.deferred_count"), channel.deferred_count);
        self.counter(
            format_args!("{of}.requeue_count"),
            channel.requeue_count,
            before.requeues,
        );
        self.counter(
            format_args!("{of}.timeout_count"),
            channel.timeout_count,
            before.timeouts,
        );
        self.gauge(format_args!("{of}.clients"), channel.consumer_count);
        self.latency(of, channel.latency.as_ref());
    }

    fn memory(&mut self, memory: &Memory) {
        for (name, figure) in memory.figures() {
            match name {
                // A counter under another name; without a collector it never grows.
                "gc_total_runs" => self.counter("mem.gc_runs", figure, figure),
                name => self.gauge(format_args!("mem.{name}"), figure),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nsquorum_broker::{DeliveriesByNearness, LatencyPercentile, Quantile};

    use super::*;

    fn channel(name: &str, messages: u64) -> ChannelStats {
        ChannelStats {
            name: name.parse().expect("a name"),
            depth: 3,
            in_flight_count: 2,
            deferred_count: 1,
            message_count: messages,
            requeue_count: messages / 10,
            timeout_count: messages / 20,
            deliveries: DeliveriesByNearness::default(),
            paused: false,
            consumer_count: 4,
            clients: Vec::new(),
            latency: None,
        }
    }

    fn topic(name: &str, messages: u64, channels: Vec<ChannelStats>) -> TopicStats {
        TopicStats {
            is_leader: true,
            name: name.parse().expect("a name"),
            depth: 7,
            message_count: messages,
            message_bytes: 10 * messages,
            paused: false,
            channels,
            latency: None,
        }
    }

    fn name(name: &str) -> TopicName {
        name.parse().expect("a name")
    }

    /// Everything answers and is led here.
    fn all(topics: Vec<TopicStats>) -> Collected {
        let names: BTreeSet<_> = topics.iter().map(|topic| topic.name.clone()).collect();
        Collected {
            led: names.clone(),
            names,
            topics,
        }
    }

    fn counters(figures: &mut Figures, collected: &Collected) -> Vec<String> {
        let lines = figures.lines(collected, None, false).into_iter();
        lines.filter(|line| line.contains("message_count")).collect()
    }

    #[test]
    fn names_and_order_are_nsqds() {
        let mut figures = Figures::new([]);
        let mut measured = topic("t", 40, vec![channel("c", 40)]);
        measured.latency = Some(LatencySummary {
            count: 1,
            percentiles: vec![LatencyPercentile {
                quantile: Quantile::new(0.99).expect("a share"),
                nanos: 1500.7,
            }],
        });
        measured.channels[0].latency.clone_from(&measured.latency);
        let memory = Memory {
            heap_in_use_bytes: 5,
            ..Memory::default()
        };
        let lines = figures.lines(&all(vec![measured]), Some(memory), false);
        assert_eq!(
            lines,
            [
                "topic.t.message_count:40|c",
                "topic.t.message_bytes:400|c",
                "topic.t.depth:7|g",
                "topic.t.backend_depth:7|g",
                "topic.t.e2e_processing_latency_99:1500|g",
                "topic.t.channel.c.message_count:40|c",
                "topic.t.channel.c.depth:3|g",
                "topic.t.channel.c.backend_depth:3|g",
                "topic.t.channel.c.in_flight_count:2|g",
                "topic.t.channel.c.deferred_count:1|g",
                "topic.t.channel.c.requeue_count:4|c",
                "topic.t.channel.c.timeout_count:2|c",
                "topic.t.channel.c.clients:4|g",
                "topic.t.channel.c.e2e_processing_latency_99:1500|g",
                "mem.heap_objects:0|g",
                "mem.heap_idle_bytes:0|g",
                "mem.heap_in_use_bytes:5|g",
                "mem.heap_released_bytes:0|g",
                "mem.gc_pause_usec_100:0|g",
                "mem.gc_pause_usec_99:0|g",
                "mem.gc_pause_usec_95:0|g",
                "mem.next_gc_bytes:0|g",
                "mem.gc_runs:0|c",
            ]
        );
    }

    #[test]
    fn counters_are_differences() {
        let mut figures = Figures::new([]);
        let first = all(vec![topic("t", 5, vec![channel("c", 4)])]);
        assert_eq!(
            counters(&mut figures, &first),
            ["topic.t.message_count:5|c", "topic.t.channel.c.message_count:4|c"]
        );
        let second = all(vec![topic("t", 8, vec![channel("c", 4), channel("d", 2)])]);
        assert_eq!(
            counters(&mut figures, &second),
            [
                "topic.t.message_count:3|c",
                "topic.t.channel.c.message_count:0|c",
                "topic.t.channel.d.message_count:2|c"
            ]
        );
        // Deleted and made again, seen or unseen.
        assert_eq!(
            counters(&mut figures, &all(vec![topic("t", 2, vec![])])),
            ["topic.t.message_count:2|c"]
        );
        assert!(counters(&mut figures, &all(vec![])).is_empty());
        assert_eq!(
            counters(&mut figures, &all(vec![topic("t", 2, vec![])])),
            ["topic.t.message_count:2|c"]
        );
    }

    #[test]
    fn a_restarted_node_does_not_count_the_past_again() {
        let mut figures = Figures::new([name("old"), name("leaderless")]);
        figures.begin(&all(vec![topic("old", 100, vec![]), topic("new", 1, vec![])]));
        let both = all(vec![
            topic("leaderless", 50, vec![channel("c", 50)]),
            topic("new", 3, vec![]),
            topic("old", 101, vec![]),
        ]);
        assert_eq!(
            counters(&mut figures, &both),
            [
                "topic.leaderless.message_count:0|c",
                "topic.leaderless.channel.c.message_count:0|c",
                "topic.new.message_count:3|c",
                "topic.old.message_count:1|c",
            ]
        );
    }

    #[test]
    fn only_the_leader_pushes_and_the_next_one_goes_on() {
        let mut figures = Figures::new([]);
        let elsewhere = Collected {
            led: BTreeSet::new(),
            ..all(vec![topic("t", 10, vec![])])
        };
        assert!(counters(&mut figures, &elsewhere).is_empty());
        // Nobody leads for a while.
        let nowhere = Collected {
            topics: Vec::new(),
            ..all(vec![topic("t", 0, vec![])])
        };
        assert!(counters(&mut figures, &nowhere).is_empty());
        assert_eq!(
            counters(&mut figures, &all(vec![topic("t", 12, vec![])])),
            ["topic.t.message_count:2|c"]
        );
    }

    #[test]
    fn ephemeral_ones_can_be_left_out() {
        let mut figures = Figures::new([]);
        let channels = vec![channel("c", 1), channel("c#ephemeral", 1)];
        let collected = all(vec![topic("t", 1, channels), topic("t#ephemeral", 1, vec![])]);
        let lines = figures.lines(&collected, None, true);
        assert!(lines.iter().all(|line| !line.contains("#ephemeral")), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("topic.t.channel.c.")));
        assert!(
            figures
                .lines(&collected, None, false)
                .iter()
                .any(|line| line.contains("c#ephemeral"))
        );
    }
}
