"""Judges a run of many producers and consumers against a cluster whose nodes were killed (README.md lists the rules).

Times are wall clock ns of one machine. A node that is killed takes with it what nobody else knows: the answers that it owed, the FINs that it had
read and not passed on, and the messages that its consumers held. Everything else has to be as if nothing had happened.
"""

import itertools
from dataclasses import dataclass, field

from checker import CLOCK_TOLERANCE_NS, Verdict, as_sent, dense, same_messages

SECOND = 1_000_000_000
# A FIN that was sent so long before its node was killed may not have been in the log yet: it may wait in buffers of the client, the kernel and the node.
FIN_UNDER_WAY_NS = 2 * SECOND
# What a client gave back so long before a death may have reached the leader after its counters were read for the last time.
COUNTED_WITHIN_NS = SECOND // 2


@dataclass
class Death:
    node: str  # host:port for clients
    killed_ns: int
    back_ns: int  # it takes connections again
    scraped_ns: int  # its counters were read for the last time


@dataclass
class ClusterRun:
    sent: list  # records of all producers, each with its "node"
    received: dict  # channel -> records of all its consumers
    deaths: list
    redeliveries: dict = field(default_factory=dict)  # cause -> sum over the lives of all nodes, as far as it was read
    msg_timeout_ms: int = 5000
    first_id: int = 1
    count: int = 0  # set by check


def check(run):
    verdict = Verdict()
    sent = published(run, verdict)
    causes = Causes()
    channels = {
        channel: deliveries(run, channel, records, sent, verdict, causes)
        for channel, records in sorted(run.received.items())
    }
    same_messages(channels, verdict)
    run.count = max((len(by_id) for by_id in channels.values()), default=0)
    if run.count:
        dense(run, channels, verdict)
    unknown(sent, channels, verdict)
    account(run, causes, verdict)
    return verdict


@dataclass
class Causes:
    """Why messages came again."""

    # When a client gave back what it held at a node that lived on: "requeue" and "timeout".
    given_back: dict = field(default_factory=lambda: {"requeue": [], "timeout": []})
    # The node that it was held at died, or had a FIN or REQ that it told nobody.
    death: int = 0
    # How many of these had been given back, which the leader may have counted before it died.
    given_back_before_death: dict = field(default_factory=lambda: {"requeue": 0, "timeout": 0})


def published(run, verdict):
    """Producers at nodes that live see no error."""
    sent = {}
    for record in run.sent:
        if record["body"] in sent:
            verdict.fail("producer", f"message {record['body']} recorded twice")
        sent[record["body"]] = record
        if record["outcome"] == "OK":
            continue
        answered = record["sent"] + record["answer_mono"] - record["sent_mono"]
        if not died_within(run, record["node"], record["sent"], answered):
            verdict.fail("survivors", f"{record['way']} of message {record['body']} at {record['node']}: {record['outcome']}")
    return sent


def died_within(run, node, from_ns, to_ns):
    """Whether the node was dead at some time between these two."""
    return any(
        death.node == node
        and from_ns <= death.back_ns + CLOCK_TOLERANCE_NS
        and to_ns >= death.killed_ns - CLOCK_TOLERANCE_NS
        for death in run.deaths
    )


def deliveries(run, channel, records, sent, verdict, causes):
    """Nothing arrives that was not sent, and nothing again without a reason; returns id -> deliveries."""
    by_id, body_of, id_of = {}, {}, {}
    for record in records:
        if "error" in record:
            if "E_" in record["error"]:
                verdict.fail("client", f"channel {channel}: {record['error'].strip()}")
            continue
        message = f"channel {channel}: message {record['body']} ({record['id']})"
        as_sent(message, record, sent, body_of, id_of, verdict)
        # A client may have read it before the node died, and looked at it afterwards.
        record["came"] = min(
            [death.killed_ns for death in run.deaths if is_down(death, record["node"], record["at"])], default=record["at"]
        )
        by_id.setdefault(record["id"], []).append(record)
    for one in by_id.values():
        again(run, channel, one, verdict, causes)
    return by_id


def is_down(death, node, at_ns):
    return death.node == node and death.killed_ns <= at_ns <= death.back_ns


def again(run, channel, one, verdict, causes):
    """Each delivery of a message but the first has a cause; attempts count deliveries, and never too many."""
    one.sort(key=lambda record: (record["came"], record["attempts"]))
    message = f"channel {channel}: message {one[0]['body']} ({one[0]['id']})"
    story = ", ".join(f"attempt {r['attempts']} at {r['node']} {r['do']}" for r in one)
    if len({record["timestamp"] for record in one}) != 1:
        verdict.fail("timestamps", f"{message} has changed its timestamp between deliveries")
    for number, record in enumerate(one, 1):
        if not 1 <= record["attempts"] <= number:
            verdict.fail("attempts", f"{message} says {record['attempts']} at delivery {number}: {story}")
    for before, after in itertools.pairwise(one):
        passed_ms = (after["at"] - before["at"]) / 1e6
        # Its node died while it was held, or before it was known that it was not.
        since = before["at"] + (FIN_UNDER_WAY_NS if before["do"] != "hold" else run.msg_timeout_ms * 1_000_000)
        died = any(
            death.node == before["node"]
            and before["came"] <= death.killed_ns + CLOCK_TOLERANCE_NS
            and death.killed_ns <= min(since, after["at"] + CLOCK_TOLERANCE_NS)
            for death in run.deaths
        )
        if died:
            causes.death += 1
            if before["do"] != "fin":
                causes.given_back_before_death["requeue" if before["do"] == "req" else "timeout"] += 1
        elif before["do"] == "req":
            causes.given_back["requeue"].append(before["at"])
            if passed_ms < before["delay_ms"] - CLOCK_TOLERANCE_NS / 1e6:
                verdict.fail("never early", f"{message} was requeued for {before['delay_ms']} ms, came after {passed_ms:.0f}")
        elif before["do"] == "hold":
            causes.given_back["timeout"].append(after["at"])
            # The timeout runs from the sending, which the client sees late: half of it is what a client can tell.
            if passed_ms < run.msg_timeout_ms / 2:
                verdict.fail("held", f"{message} came again after {passed_ms:.0f} of {run.msg_timeout_ms} ms: {story}")
        else:
            verdict.fail("finished", f"{message} came again {passed_ms:.0f} ms after it was finished at {before['node']}: {story}")
    if one[-1]["do"] != "fin":
        verdict.fail("once", f"{message} was given back and never came again: {story}")


def unknown(sent, channels, verdict):
    """Every OK arrives on every channel; what was not answered OK arrives at most once, which the ids show."""
    arrived = {channel: {one[0]["body"] for one in by_id.values()} for channel, by_id in channels.items()}
    for body, record in sorted(sent.items()):
        if record["outcome"] != "OK":
            continue
        for channel, bodies in arrived.items():
            if body not in bodies:
                verdict.fail("once", f"channel {channel}: message {body} ({record['way']}) was answered OK and never came")
    verdict.counts["answered OK"] = sum(record["outcome"] == "OK" for record in sent.values())
    verdict.counts["unknown"] = len(sent) - verdict.counts["answered OK"]
    stored = set().union(*arrived.values()) if arrived else set()
    verdict.counts["unknown and stored"] = sum(
        record["outcome"] != "OK" and body in stored for body, record in sent.items()
    )


def account(run, causes, verdict):
    """The nodes have counted the redeliveries that the clients saw a cause for.

    A counter dies with its node: what was counted after it was read for the last time is gone. And what a dead leader may have counted
    without having stored it is told to the next, which counts it again. So requeues and timeouts around a death may be counted or
    not, or twice; all others exactly once. What only a dead node held comes again without a count: who knew of it died with it.
    """
    verdict.counts["came again after a death"] = causes.death
    for cause, moments in causes.given_back.items():
        counted = run.redeliveries.get(cause, 0)
        around = sum(
            any(death.scraped_ns - COUNTED_WITHIN_NS <= at <= death.killed_ns + CLOCK_TOLERANCE_NS for death in run.deaths)
            for at in moments
        )
        lost = causes.given_back_before_death[cause]
        verdict.counts[f"came again after a {cause}"] = len(moments)
        verdict.counts[f"counted by cause {cause}"] = counted
        verdict.counts[f"{cause}s around a death"] = around + lost
        if not len(moments) - around <= counted <= len(moments) + around + lost:
            verdict.fail(
                "accounts",
                f"{cause}: the nodes have counted {counted}; clients have seen {len(moments)}, {around} of them around "
                f"deaths, and {lost} at nodes that died",
            )
    for cause, counted in sorted(run.redeliveries.items()):
        if cause in causes.given_back:
            continue
        verdict.counts[f"counted by cause {cause}"] = counted
        # No consumer leaves a node that lives, and none is cut off from a leader that lives.
        if cause in ("disconnect", "link_lost") and counted:
            verdict.fail("accounts", f"{counted} redeliveries by {cause}, and nothing of that kind has happened")
