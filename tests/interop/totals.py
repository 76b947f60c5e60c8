"""A topic's statistics of all nodes together, as nsqadmin adds them up: counts are the leader's, clients are shown where they are connected."""

TOPIC_COUNTS = ["depth", "message_count", "message_bytes"]
CHANNEL_COUNTS = ["depth", "in_flight_count", "deferred_count", "message_count", "requeue_count", "timeout_count", "client_count"]


def of_topic(name, answers):
    """The topic in these answers of `/stats`, one of each node; None if no node has a channel of it."""
    topics = [topic for answer in answers for topic in answer["topics"] or [] if topic["topic_name"] == name]
    by_name = {}
    for topic in topics:
        for channel in topic["channels"]:
            by_name.setdefault(channel["channel_name"], []).append(channel)
    channels = [{"channel_name": channel} | added(shown, CHANNEL_COUNTS) for channel, shown in by_name.items()]
    return {"topic_name": name} | added(topics, TOPIC_COUNTS) | {"channels": channels} if channels else None


def added(shown, counts):
    return {count: sum(figures[count] for figures in shown) for count in counts}
