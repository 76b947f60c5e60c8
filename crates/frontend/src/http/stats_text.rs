//! /stats for people: nsqd's text layout.

use std::fmt::Write as _;

use nsquorum_broker::SubscriptionStats;
use nsquorum_http::Reply;
use nsquorum_protocol::ConnectionState;

use super::stats::Snapshot;

impl Snapshot {
    pub(super) fn to_text(&self) -> Reply {
        let mut text = String::new();
        self.write_text(&mut text).expect("writing to a string cannot fail");
        Reply::Text(text)
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "nsqd v{} (nsquorum)", self.version)?;
        writeln!(out, "start_time {}", rfc3339(self.started_at_secs))?;
        writeln!(
            out,
            "uptime {}",
            duration(self.now_secs.saturating_sub(self.started_at_secs))
        )?;
        writeln!(out, "\nHealth: {}", self.health)?;
        if let Some(memory) = self.memory {
            writeln!(out, "\nMemory:")?;
            writeln!(out, "   {:<25}\t{}", "heap_in_use_bytes", memory.heap_in_use_bytes)?;
        }
        let topics = self.topics.as_deref().unwrap_or_default();
        writeln!(out, "\nTopics:{}", if topics.is_empty() { " None" } else { "" })?;
        for topic in topics {
            let mark = if topic.paused { "*P " } else { "   " };
            let (depth, count) = (topic.depth, topic.message_count);
            let name = topic.name.as_str();
            writeln!(
                out,
                "\n{mark}[{name:<15}] depth: {depth:<5} be-depth: {depth:<5} msgs: {count:<8} e2e%: "
            )?;
            for channel in &topic.channels {
                let mark = if channel.paused { "   *P " } else { "      " };
                writeln!(
                    out,
                    "{mark}[{:<25}] depth: {:<5} be-depth: {:<5} inflt: {:<4} def: {:<4} re-q: {:<5} timeout: {:<5} msgs: {:<8} e2e%: ",
                    channel.name.as_str(),
                    channel.depth,
                    channel.depth,
                    channel.in_flight_count,
                    channel.deferred_count,
                    channel.requeue_count,
                    channel.timeout_count,
                    channel.message_count,
                )?;
                for client in channel.clients.iter().filter(|_| self.include_clients) {
                    self.write_client(out, client)?;
                }
            }
        }
        self.write_producers(out)
    }

    fn write_client(&self, out: &mut String, stats: &SubscriptionStats) -> std::fmt::Result {
        let client = &stats.client;
        let view = self.connections.get(&client.remote_address);
        let state = view.map_or(ConnectionState::Subscribed, |view| view.state).number();
        writeln!(
            out,
            "        [V2 {} {}] state: {state} inflt: {:<4} rdy: {:<4} fin: {:<8} re-q: {:<8} msgs: {:<8} connected: {}",
            client.remote_address,
            client.user_agent,
            stats.in_flight_count,
            stats.ready_count,
            stats.finish_count,
            stats.requeue_count,
            stats.message_count,
            duration(self.now_secs.saturating_sub(client.connected_at.as_secs())),
        )
    }

    fn write_producers(&self, out: &mut String) -> std::fmt::Result {
        let producers = self
            .connections
            .values()
            .filter(|view| self.include_clients && !view.published.is_empty());
        let producers: Vec<_> = producers.collect();
        writeln!(out, "\nProducers:{}", if producers.is_empty() { " None" } else { "" })?;
        for view in producers {
            let total: u64 = view.published.values().sum();
            let topics: Vec<String> = view
                .published
                .iter()
                .map(|(topic, count)| format!("{topic}={count}"))
                .collect();
            let connected = duration(self.now_secs.saturating_sub(view.client.connected_at.as_secs()));
            let (address, agent, topics) = (&view.client.remote_address, &view.client.user_agent, topics.join(","));
            writeln!(
                out,
                "   [V2 {address} {agent}] msgs: {total:<8} topics: {topics} connected: {connected}"
            )?;
        }
        Ok(())
    }
}

/// Whole seconds as Go writes them: `1h2m3s`.
fn duration(secs: u64) -> String {
    let (hours, minutes, seconds) = (secs / 3600, secs / 60 % 60, secs % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// Seconds since 1970 as a UTC date (proleptic Gregorian calendar, counted in 400-year cycles that begin in March).
fn rfc3339(secs: u64) -> String {
    let (days, rest) = (secs / 86_400, secs % 86_400);
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_durations() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_330_965), "2026-11-22T07:02:45Z");
        assert_eq!([duration(5), duration(65), duration(3_600)], ["5s", "1m5s", "1h0m0s"]);
    }
}
