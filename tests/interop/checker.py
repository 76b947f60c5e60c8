"""Judges one run of a producer and its consumers by what they wrote down (README.md lists the rules).

The rules hold for a run without kills: then nothing is stored twice or delivered again without a reason that the
records show. The checker knows the plan only through the records, so a client that does something
else than planned is judged by what it did.
"""

import itertools
import json
import re
from dataclasses import dataclass, field

ID = re.compile(r"[0-9a-f]{16}\Z")
# Between the client's wall clock and the node's: both run on one machine.
CLOCK_TOLERANCE_NS = 50_000_000
# More than a page of differences of one kind says no more than the first few.
SHOWN_PER_RULE = 5


@dataclass
class Run:
    """What one run left behind."""

    count: int
    sent: list  # records of the producer
    received: dict  # channel -> records of all its consumers
    stats: dict | None = None  # the topic's object of /stats, after the last delivery
    stock: bool = False  # ids need not be dense and nothing is promised about order
    lowers_rdy: bool = False  # of several connections to one channel, none is promised an order then
    first_id: int = 1
    msg_timeout_ms: int = 5000
    began_ns: int = 0
    ended_ns: int = 1 << 63


@dataclass
class Verdict:
    failures: dict = field(default_factory=dict)  # rule -> what broke it
    counts: dict = field(default_factory=dict)

    def fail(self, rule, text):
        self.failures.setdefault(rule, []).append(text)

    def lines(self):
        for rule, texts in self.failures.items():
            for text in texts[:SHOWN_PER_RULE]:
                yield f"{rule}: {text}"
            if len(texts) > SHOWN_PER_RULE:
                yield f"{rule}: and {len(texts) - SHOWN_PER_RULE} more"


def read(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def check(run):
    verdict = Verdict()
    sent = published(run, verdict)
    channels = {
        channel: deliveries(run, channel, records, sent, verdict) for channel, records in sorted(run.received.items())
    }
    same_messages(channels, verdict)
    if not run.stock:
        dense(run, channels, verdict)
        commit_order(sent, channels, verdict)
        for channel, records in run.received.items():
            is_alone = len({record["connection"] for record in records if "error" not in record}) == 1
            if is_alone or not run.lowers_rdy:
                delivery_order(channel, records, sent, verdict)
    if run.stats is not None:
        statistics(run, sent, verdict)
    return verdict


def published(run, verdict):
    """Every message was answered OK, and the producer's records are complete."""
    sent = {}
    for record in run.sent:
        if "error" in record:
            verdict.fail("producer", record["error"])
            continue
        if record["body"] in sent:
            verdict.fail("producer", f"message {record['body']} recorded twice")
        sent[record["body"]] = record
        if record["outcome"] != "OK":
            verdict.fail("answers", f"{record['way']} of message {record['body']}: {record['outcome']}")
    if sorted(sent) != list(range(1, run.count + 1)):
        verdict.fail("producer", f"{len(sent)} messages recorded, {run.count} wanted")
    verdict.counts["deferred"] = sum(record["way"] == "dpub" for record in sent.values())
    verdict.counts["in mpub"] = sum(record["way"] == "mpub" for record in sent.values())
    return sent


def as_sent(message, record, sent, body_of, id_of, verdict):
    """A delivery has an id of its own, and is what was sent. The two dicts of its channel are kept up."""
    if not ID.match(record["id"]):
        verdict.fail("ids", f"{message} has no id of 16 hex digits")
    if record["body"] not in sent:
        verdict.fail("bodies", f"{message} was never published")
    elif sent[record["body"]]["sum"] != record["sum"]:
        verdict.fail("bodies", f"{message} came with another body than it was published with")
    if body_of.setdefault(record["id"], record["body"]) != record["body"]:
        verdict.fail("ids", f"{message}: the id came with message {body_of[record['id']]} before")
    if id_of.setdefault(record["body"], record["id"]) != record["id"]:
        verdict.fail("once", f"{message} came with id {id_of[record['body']]} too: it is stored twice")


def deliveries(run, channel, records, sent, verdict):
    """Each message arrives, unchanged, and again only after a requeue or a timeout; returns id -> deliveries."""
    by_id = {}
    body_of, id_of = {}, {}
    for record in records:
        if "error" in record:
            verdict.fail("client", f"channel {channel}: {record['error'].strip()}")
            continue
        message = f"channel {channel}: message {record['body']} ({record['id']})"
        as_sent(message, record, sent, body_of, id_of, verdict)
        if not run.began_ns <= int(record["timestamp"]) <= run.ended_ns:
            verdict.fail("timestamps", f"{message} has {record['timestamp']}, outside of the run")
        by_id.setdefault(record["id"], []).append(record)
    for body in sorted(sent.keys() - id_of.keys()):
        verdict.fail("once", f"channel {channel}: message {body} ({sent[body]['way']}) never came")
    for one in by_id.values():
        attempts(run, channel, one, sent, verdict)

    done = [record["do"] for one in by_id.values() for record in one]
    for action in ("req", "hold"):
        verdict.counts[f"{action} {channel}"] = done.count(action)
    return by_id


def attempts(run, channel, one, sent, verdict):
    """The deliveries of one message in one channel: attempts 1, 2, 3, …, each but the last given back."""
    one.sort(key=lambda record: (record["attempts"], record["at"]))
    message = f"channel {channel}: message {one[0]['body']} ({one[0]['id']})"
    seen = [record["attempts"] for record in one]
    story = ", ".join(f"attempt {record['attempts']} {record['do']}" for record in one)
    for earlier in one[:-1]:
        if earlier["do"] == "fin":
            verdict.fail("once", f"{message} came again though it was finished: {story}")
    if seen != list(range(1, len(one) + 1)):
        verdict.fail("attempts", f"{message}: {story}")
    if one[-1]["do"] != "fin":
        verdict.fail("once", f"{message} was given back and never came again: {story}")
    if len({record["timestamp"] for record in one}) != 1:
        verdict.fail("timestamps", f"{message} has changed its timestamp between deliveries")

    if one[0]["body"] in sent:
        record = sent[one[0]["body"]]
        due = record["sent"] + record["delay_ms"] * 1_000_000
        if one[0]["at"] < due - CLOCK_TOLERANCE_NS:
            early_ms = (due - one[0]["at"]) // 1_000_000
            verdict.fail("never early", f"{message} was deferred by {record['delay_ms']} ms, came {early_ms} ms early")
    for before, after in itertools.pairwise(one):
        passed_ms = (after["at"] - before["at"]) / 1e6
        if before["do"] == "req" and passed_ms < before["delay_ms"] - CLOCK_TOLERANCE_NS / 1e6:
            verdict.fail(
                "never early", f"{message} was requeued for {before['delay_ms']} ms, came after {passed_ms:.0f}"
            )
        # The timeout runs from the sending, which the client sees late: half of it is what a client can tell.
        if before["do"] == "hold" and passed_ms < run.msg_timeout_ms / 2:
            verdict.fail("never early", f"{message} timed out after {passed_ms:.0f} of {run.msg_timeout_ms} ms")


def same_messages(channels, verdict):
    """An id means the same message, with the same timestamp, on every channel."""
    names = list(channels)
    for name in names[1:]:
        first, other = (
            {id: (one[0]["body"], one[0]["timestamp"]) for id, one in channels[channel].items()}
            for channel in (names[0], name)
        )
        for id in sorted(first.keys() | other.keys()):
            if first.get(id) != other.get(id):
                verdict.fail(
                    "same on channels",
                    f"{id} is {first.get(id)} on channel {names[0]} and {other.get(id)} on channel {name}",
                )


def dense(run, channels, verdict):
    """The ids of a fresh topic are 1, 2, 3, … without a gap."""
    for channel, by_id in channels.items():
        numbers = sorted(int(id, 16) for id in by_id if ID.match(id))
        wanted = range(run.first_id, run.first_id + run.count)
        missing = sorted(set(wanted) - set(numbers))
        surplus = sorted(set(numbers) - set(wanted))
        if missing or surplus:
            verdict.fail(
                "dense ids",
                f"channel {channel}: {len(missing)} of {wanted[0]}..{wanted[-1]} are missing "
                f"({missing[:3]}…), {len(surplus)} lie outside ({surplus[:3]}…)",
            )


def commit_order(sent, channels, verdict):
    """A message that was sent after another was answered has the higher id; those of an MPUB follow each other."""
    by_id = next(iter(channels.values()))  # that ids are the same on the others is a rule of its own
    number_of = {one[0]["body"]: int(id, 16) for id, one in by_id.items() if ID.match(id)}
    known = [record for body, record in sorted(sent.items()) if body in number_of and "answer_mono" in record]
    answers = sorted(known, key=lambda record: record["answer_mono"])
    highest, answered = (0, None), 0
    for record in sorted(known, key=lambda record: record["sent_mono"]):
        while answered < len(answers) and answers[answered]["answer_mono"] < record["sent_mono"]:
            body = answers[answered]["body"]
            highest = max(highest, (number_of[body], body))
            answered += 1
        number = number_of[record["body"]]
        if number < highest[0]:
            verdict.fail(
                "commit order",
                f"message {record['body']} has id {number} and was sent after the OK for "
                f"message {highest[1]}, which has id {highest[0]}",
            )
    for before, after in itertools.pairwise(known):
        together = before["way"] == after["way"] == "mpub" and before["sent_mono"] == after["sent_mono"]
        if together and number_of[after["body"]] != number_of[before["body"]] + 1:
            verdict.fail(
                "commit order",
                f"messages {before['body']} and {after['body']} of one MPUB "
                f"have ids {number_of[before['body']]} and {number_of[after['body']]}",
            )


def delivery_order(channel, records, sent, verdict):
    """On each connection the first deliveries of undeferred messages come in the order of their ids."""
    last = {}
    for record in records:
        if "error" in record or record["attempts"] != 1 or not ID.match(record["id"]):
            continue
        if record["body"] not in sent or sent[record["body"]]["way"] == "dpub":
            continue
        connection, number = record["connection"], int(record["id"], 16)
        if number <= last.get(connection, 0):
            verdict.fail(
                "delivery order",
                f"channel {channel}, connection {connection}: {number} as number "
                f"{record['order']}, after {last[connection]}",
            )
        last[connection] = max(number, last.get(connection, 0))


def statistics(run, sent, verdict):
    """/stats has counted what the clients saw."""

    def expect(where, what, stated, counted):
        if stated != counted:
            verdict.fail("stats", f"{where}: {what} is {stated}, and {counted} was seen")

    expect("topic", "message_count", run.stats["message_count"], run.count)
    expect("topic", "message_bytes", run.stats["message_bytes"], sum(record["bytes"] for record in sent.values()))
    expect("topic", "depth", run.stats["depth"], 0)
    by_name = {channel["channel_name"]: channel for channel in run.stats["channels"]}
    for channel in run.received:
        if channel not in by_name:
            verdict.fail("stats", f"channel {channel} is not there")
            continue
        stated = by_name[channel]
        where = f"channel {channel}"
        expect(where, "message_count", stated["message_count"], run.count)
        expect(where, "requeue_count", stated["requeue_count"], verdict.counts[f"req {channel}"])
        expect(where, "timeout_count", stated["timeout_count"], verdict.counts[f"hold {channel}"])
        for count in ("depth", "in_flight_count", "deferred_count"):
            expect(where, count, stated[count], 0)
