//! What has to be said so that an nsqlookupd knows what a node holds.

use super::Held;

/// The commands that lead from what was said to what is so, in the order in which nsqd gives them.
pub(super) fn difference(said: &Held, held: &Held) -> Vec<String> {
    let mut commands = Vec::new();
    for (topic, channels) in said {
        let left = held.get(topic);
        let gone = channels
            .iter()
            .filter(|channel| !left.is_some_and(|left| left.contains(*channel)));
        commands.extend(gone.map(|channel| format!("UNREGISTER {topic} {channel}\n")));
        if left.is_none() {
            commands.push(format!("UNREGISTER {topic}\n"));
        }
    }
    for (topic, channels) in held {
        let known = said.get(topic);
        if known.is_none() && channels.is_empty() {
            commands.push(format!("REGISTER {topic}\n"));
        }
        let new = channels
            .iter()
            .filter(|channel| !known.is_some_and(|known| known.contains(*channel)));
        // It registers the topic, too.
        commands.extend(new.map(|channel| format!("REGISTER {topic} {channel}\n")));
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(topics: &[(&str, &[&str])]) -> Held {
        let channels = |names: &[&str]| names.iter().map(|name| name.parse().expect("valid")).collect();
        topics
            .iter()
            .map(|(topic, names)| (topic.parse().expect("valid"), channels(names)))
            .collect()
    }

    #[test]
    fn only_what_has_changed_is_said() {
        let before = held(&[("a", &["x", "y"]), ("b", &[]), ("c", &["z"])]);
        let all = ["REGISTER a x\n", "REGISTER a y\n", "REGISTER b\n", "REGISTER c z\n"];
        assert_eq!(difference(&Held::new(), &before), all);
        assert_eq!(difference(&before, &before), [""; 0]);
        let after = held(&[("a", &["y", "w"]), ("b", &["v"])]);
        let expected = [
            "UNREGISTER a x\n",
            "UNREGISTER c z\n",
            "UNREGISTER c\n",
            "REGISTER a w\n",
            "REGISTER b v\n",
        ];
        assert_eq!(difference(&before, &after), expected);
        assert_eq!(
            difference(&held(&[("a", &["x"])]), &held(&[("a", &[])])),
            ["UNREGISTER a x\n"]
        );
    }
}
