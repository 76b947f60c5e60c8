//! Metrics per topic and channel, made for each scrape of /metrics from the leaders on this node.
//!
//! They are no counters of the process: the numbers are those of the replicated state, so they go on over a change of leaders (but for deliveries by
//! nearness, which begin again), and only the node that leads a topic shows it: sums over nodes are right, and nothing stale stays behind. The number of
//! lines is bounded.

use std::fmt::{Display, Write as _};

use nsquorum_broker::{ChannelStats, TopicStats};

/// Topics and channels that are shown, by name; beyond it they are counted.
const SHOWN_MAX: usize = 1000;

/// One metric of a topic or channel.
struct Metric<T> {
    name: &'static str,
    kind: &'static str,
    value: fn(&T) -> u64,
}

const fn gauge<T>(name: &'static str, value: fn(&T) -> u64) -> Metric<T> {
    Metric {
        name,
        kind: "gauge",
        value,
    }
}

const fn counter<T>(name: &'static str, value: fn(&T) -> u64) -> Metric<T> {
    Metric {
        name,
        kind: "counter",
        value,
    }
}

const OF_TOPICS: [Metric<TopicStats>; 3] = [
    counter("nsquorum_topic_messages_total", |topic| topic.message_count),
    counter("nsquorum_topic_message_bytes_total", |topic| topic.message_bytes),
    gauge("nsquorum_topic_depth", |topic| topic.depth),
];

const OF_CHANNELS: [Metric<ChannelStats>; 10] = [
    gauge("nsquorum_channel_depth", |channel| channel.depth),
    gauge("nsquorum_channel_in_flight", |channel| channel.in_flight_count),
    gauge("nsquorum_channel_deferred", |channel| channel.deferred_count),
    gauge("nsquorum_channel_consumers", |channel| channel.consumer_count),
    counter("nsquorum_channel_messages_total", |channel| channel.message_count),
    counter("nsquorum_channel_requeues_total", |channel| channel.requeue_count),
    counter("nsquorum_channel_timeouts_total", |channel| channel.timeout_count),
    counter("nsquorum_channel_zone_deliveries_total", |channel| {
        channel.deliveries.zone
    }),
    counter("nsquorum_channel_region_deliveries_total", |channel| {
        channel.deliveries.region
    }),
    counter("nsquorum_channel_global_deliveries_total", |channel| {
        channel.deliveries.global
    }),
];

/// The lines for these topics, which this node leads.
pub(super) fn text(topics: &[TopicStats]) -> String {
    let mut text = String::new();
    let shown = &topics[..topics.len().min(SHOWN_MAX)];
    // Names have no characters that would have to be escaped.
    write(&mut text, &OF_TOPICS, || {
        shown.iter().map(|topic| (topic, format!("topic=\"{}\"", topic.name)))
    });
    let channels = || {
        let all = topics
            .iter()
            .flat_map(|topic| topic.channels.iter().map(move |channel| (topic, channel)));
        all.map(|(topic, channel)| {
            let labels = format!("topic=\"{}\",channel=\"{}\"", topic.name, channel.name);
            (channel, labels)
        })
    };
    write(&mut text, &OF_CHANNELS, || channels().take(SHOWN_MAX));
    let left_out = topics.len() - shown.len() + channels().count().saturating_sub(SHOWN_MAX);
    line(&mut text, "# TYPE nsquorum_topic_metrics_left_out", "gauge");
    line(&mut text, "nsquorum_topic_metrics_left_out", left_out);
    text
}

fn write<'a, T: 'a, I: Iterator<Item = (&'a T, String)>>(text: &mut String, metrics: &[Metric<T>], of: impl Fn() -> I) {
    for metric in metrics {
        line(text, &format!("# TYPE {}", metric.name), metric.kind);
        for (subject, labels) in of() {
            line(text, &format!("{}{{{labels}}}", metric.name), (metric.value)(subject));
        }
    }
}

fn line(text: &mut String, what: &str, value: impl Display) {
    // Writing to a String does not fail.
    _ = writeln!(text, "{what} {value}");
}

#[cfg(test)]
mod tests {
    use nsquorum_broker::{DeliveriesByNearness, Nearness};

    use super::*;

    fn topic(name: &str, channels: usize) -> TopicStats {
        let channel = |number| ChannelStats {
            name: format!("channel-{number}").parse().expect("a name"),
            depth: 5,
            in_flight_count: 2,
            deferred_count: 1,
            message_count: 40,
            requeue_count: 3,
            timeout_count: 4,
            deliveries: DeliveriesByNearness::all(Some(Nearness::Zone), 30),
            paused: false,
            consumer_count: 6,
            clients: Vec::new(),
            latency: None,
        };
        TopicStats {
            name: name.parse().expect("a name"),
            is_leader: true,
            depth: 7,
            message_count: 50,
            message_bytes: 1000,
            paused: false,
            channels: (0..channels).map(channel).collect(),
            latency: None,
        }
    }

    #[test]
    fn every_topic_and_channel_has_its_lines_under_one_type_each() {
        let text = text(&[topic("orders", 1), topic("bills", 0)]);
        for expected in [
            "# TYPE nsquorum_topic_messages_total counter\nnsquorum_topic_messages_total{topic=\"orders\"} 50\n\
             nsquorum_topic_messages_total{topic=\"bills\"} 50\n",
            "nsquorum_topic_depth{topic=\"orders\"} 7\n",
            "# TYPE nsquorum_channel_depth gauge\nnsquorum_channel_depth{topic=\"orders\",channel=\"channel-0\"} 5\n",
            "nsquorum_channel_consumers{topic=\"orders\",channel=\"channel-0\"} 6\n",
            "nsquorum_channel_requeues_total{topic=\"orders\",channel=\"channel-0\"} 3\n",
            "nsquorum_channel_timeouts_total{topic=\"orders\",channel=\"channel-0\"} 4\n",
            "nsquorum_topic_metrics_left_out 0\n",
        ] {
            assert!(text.contains(expected), "{expected}\nin\n{text}");
        }
    }

    #[test]
    fn the_number_of_lines_is_bounded() {
        let topics: Vec<_> = (0..SHOWN_MAX + 3)
            .map(|number| topic(&format!("topic-{number}"), 2))
            .collect();
        let text = text(&topics);
        let lines = SHOWN_MAX * (OF_TOPICS.len() + OF_CHANNELS.len()) + OF_TOPICS.len() + OF_CHANNELS.len() + 2;
        assert_eq!(text.lines().count(), lines);
        let left_out = 3 + 2 * (SHOWN_MAX + 3) - SHOWN_MAX;
        assert!(text.ends_with(&format!("nsquorum_topic_metrics_left_out {left_out}\n")));
    }
}
