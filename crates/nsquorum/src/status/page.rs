//! The answer for people: what is wrong first, then nodes, then topics, in 80 columns.

use std::fmt::Write as _;

use super::report::{Group, Node, Report, State};

/// Topics without problems that are listed unless all are asked for.
const TOPICS_MAX: usize = 20;
const WIDTH: usize = 80;

/// The whole page.
pub(super) fn text(report: &Report, all: bool) -> String {
    let mut text = String::new();
    let (nodes, factor) = (report.nodes.len(), report.replication_factor);
    let says = match report.state {
        State::Ok => "OK",
        State::Degraded => "DEGRADED: everything works, but something is missing",
        State::Unavailable => "UNAVAILABLE: something does not work",
    };
    // Writing to a String does not fail; so below.
    _ = writeln!(text, "{says}");
    for problem in &report.problems {
        wrap(&mut text, problem);
    }
    _ = writeln!(
        text,
        "\n{nodes} {}, {} {}, {factor} {} of each",
        plural(nodes, "node", "nodes"),
        report.topics.len(),
        plural(report.topics.len(), "topic", "topics"),
        plural(factor, "replica", "replicas"),
    );
    _ = writeln!(
        text,
        "\nNODE        HTTP                           STATE        START  LEADS  VERSION"
    );
    for node in &report.nodes {
        text.push_str(&line_of(node));
    }
    _ = writeln!(
        text,
        "\nTOPIC                        LEADER      IN SYNC  FARTHEST BEHIND"
    );
    text.push_str(&line("(metadata)", &report.metadata));
    let mut listed = 0;
    let mut left_out = 0;
    for topic in &report.topics {
        let has_problem = topic.group.under_replicated || topic.group.leader.is_none();
        if all || has_problem || listed < TOPICS_MAX {
            listed += usize::from(!has_problem);
            text.push_str(&line(&topic.name, &topic.group));
        } else {
            left_out += 1;
        }
    }
    if left_out > 0 {
        _ = writeln!(text, "… and {left_out} more without problems; --all lists them");
    }
    text
}

fn plural<'a>(count: usize, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

/// A problem, indented, on as many lines as it needs.
fn wrap(text: &mut String, problem: &str) {
    let mut line = "  -".to_owned();
    for word in problem.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > WIDTH && line.len() > 3 {
            _ = writeln!(text, "{line}");
            line = "   ".to_owned();
        }
        line.push(' ');
        line.push_str(word);
    }
    _ = writeln!(text, "{line}");
}

/// At most so many characters, and a sign that there were more.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width - 1).collect();
    format!("{kept}…")
}

fn line_of(node: &Node) -> String {
    let address = match (&node.address, node.http_port) {
        (Some(address), Some(port)) => format!("{address}:{port}"),
        _ => "-".to_owned(),
    };
    let state = match node.state.as_str() {
        "here" => "up, asked".to_owned(),
        "not_reached" => "not reached".to_owned(),
        other => other.to_owned(),
    };
    let start = node
        .incarnation
        .map_or_else(|| "-".to_owned(), |number| number.to_string());
    format!(
        "{:<10}  {:<29}  {:<11}  {start:>5}  {:>5}  {}\n",
        node.id,
        cut(&address, 29),
        cut(&state, 11),
        node.leads,
        cut(node.version.as_deref().unwrap_or("-"), 7),
    )
}

fn line(name: &str, group: &Group) -> String {
    let leader = group
        .leader
        .map_or_else(|| "none".to_owned(), |leader| leader.to_string());
    let in_sync = match group.leader {
        Some(_) => format!("{}/{}", group.in_sync, group.replication_factor),
        None => format!("?/{}", group.replication_factor),
    };
    format!(
        "{:<27}  {leader:<10}  {in_sync:<7}  {}\n",
        cut(name, 27),
        farthest_behind(group)
    )
}

/// The replica that lacks most, those first of which the leader knows nothing.
fn farthest_behind(group: &Group) -> String {
    if group.leader.is_none() {
        return "unknown".to_owned();
    }
    let lag = |replica: &&super::report::Replica| replica.lag_entries.unwrap_or(u64::MAX);
    match group.replicas.iter().max_by_key(lag) {
        Some(worst) if worst.lag_entries.is_none() => format!("{}: unknown", worst.node),
        Some(worst) if lag(&worst) > 0 || worst.in_sync == Some(false) => {
            format!("{}: {}", worst.node, entries(lag(&worst)))
        }
        _ => "-".to_owned(),
    }
}

fn entries(count: u64) -> String {
    match count {
        1 => "1 entry".to_owned(),
        100_000.. => format!("{}k entries", count / 1000),
        _ => format!("{count} entries"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{Replica, Topic};
    use super::*;

    fn group(leader: Option<u64>, lag: Option<u64>) -> Group {
        let replica = |node, lag_entries: Option<u64>| Replica {
            node,
            in_sync: leader.map(|_| lag_entries == Some(0)),
            lag_entries,
        };
        let replicas = vec![
            replica(1_234_567_890, Some(0)),
            replica(9_876_543_210, Some(0)),
            replica(1_111_111_111, lag),
        ];
        Group {
            leader,
            replication_factor: 3,
            in_sync: if lag == Some(0) { 3 } else { 2 },
            under_replicated: lag != Some(0) || leader.is_none(),
            replicas,
        }
    }

    fn report(topics: Vec<(String, Group)>) -> Report {
        let node = |id, state: &str| Node {
            id,
            state: state.to_owned(),
            incarnation: Some(12),
            version: Some("10.10.10-rc1".to_owned()),
            address: Some("a-rather-long-host-name.queues.example.com".to_owned()),
            http_port: Some(41_510),
            leads: 12_345,
        };
        Report {
            state: State::Degraded,
            problems: vec![format!("{} is in a bad way", "a topic with words ".repeat(9))],
            replication_factor: 3,
            nodes: vec![
                node(1_234_567_890, "here"),
                node(9_876_543_210, "not_reached"),
                node(1_111_111_111, "down"),
            ],
            metadata: group(Some(1_234_567_890), Some(0)),
            topics: topics.into_iter().map(|(name, group)| Topic { name, group }).collect(),
        }
    }

    #[test]
    fn every_line_fits_a_terminal() {
        let topics = vec![
            ("x".repeat(64), group(Some(1_234_567_890), Some(123_456_789_012))),
            ("orders".to_owned(), group(None, None)),
            ("bills".to_owned(), group(Some(1_234_567_890), None)),
        ];
        let text = text(&report(topics), false);
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{} in {line:?}", line.chars().count());
        }
        assert!(text.contains("orders                       none        ?/3      unknown"));
        assert!(text.contains("1111111111: 123456789k entries"));
        assert!(text.contains("1111111111: unknown"));
    }

    #[test]
    fn topics_with_problems_are_listed_however_many_there_are() {
        let name = |number| format!("topic-{number:03}");
        let well = group(Some(1_234_567_890), Some(0));
        let topics = (0..100).map(|number| {
            let group = if number == 77 {
                group(Some(1_234_567_890), Some(5))
            } else {
                well.clone()
            };
            (name(number), group)
        });
        let report = report(topics.collect());
        let some = text(&report, false);
        assert!(some.contains("topic-019") && !some.contains("topic-020") && some.contains("topic-077"));
        assert!(some.contains("and 79 more without problems"));
        let all = text(&report, true);
        assert!((0..100).all(|number| all.contains(&name(number))));
    }
}
