"""What the nodes of a cluster count together: a topic's counts are shown by its leader's node and are 0 elsewhere (decision 0016)."""

import json
import re

TOPIC_COUNTS = ["depth", "backend_depth", "message_count", "message_bytes"]
CHANNEL_COUNTS = ["depth", "backend_depth", "in_flight_count", "deferred_count", "message_count", "requeue_count", "timeout_count"]


def added_up(stats, others):
    """`/stats` as JSON of one node with the counts of all; whatever else it shows stays as it is."""
    for topic in stats["topics"]:
        same = [of_other for other in others for of_other in other["topics"] if of_other["topic_name"] == topic["topic_name"]]
        add(topic, same, TOPIC_COUNTS)
        for channel in topic["channels"]:
            add(channel, [one for of_other in same for one in of_other["channels"] if one["channel_name"] == channel["channel_name"]], CHANNEL_COUNTS)
    return stats


def add(shown, others, counts):
    for count in counts:
        shown[count] += sum(other[count] for other in others)


def added_up_body(body, bodies):
    """The same of answers' bodies; what is not `/stats` as JSON is returned as it is."""
    try:
        stats = json.loads(body)
    except ValueError:
        return body
    if not isinstance(stats, dict) or not isinstance(stats.get("topics"), list):
        return body
    return json.dumps(added_up(stats, [json.loads(other) for other in bodies])).encode()


def without_counts(body):
    """`/stats` as text without the counts of topics and channels, which cannot be added up there: their places are compared, not they."""
    lines = body.split(b"\n")
    return b"\n".join(re.sub(rb"(depth|msgs|inflt|def|re-q|timeout): \d+ +", rb"\1: <number> ", line) if b"e2e%:" in line else line for line in lines)
