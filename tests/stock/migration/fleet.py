"""A fleet under traffic moves: docs/migrate.md, step by step, with each step's check."""

import collections
import pathlib
import threading
import time

from nsq import Failed, Node, Ours, Process, stock_nsqd, wait_for

TOPIC = "orders"
# What consumes; nothing consumes "archive", so its backlog can only be imported.
CONSUMED = ("ledger", "mail")
CHANNELS = (*CONSUMED, "archive")
# A topic that is paused all the time, while it is published to; its channel has a backlog from before.
PAUSED = "halted"
LATER = "later"


class Producer(threading.Thread):
    """Publishes numbered messages, one after the other, to a node that can be changed."""

    def __init__(self, name, node, topic=TOPIC):
        super().__init__(daemon=True)
        self.prefix, self.node, self.topic, self.sent, self.failure = name, node, topic, [], None
        self.is_over = threading.Event()

    def run(self):
        try:
            while not self.is_over.wait(0.002):
                body = f"{self.prefix}-{len(self.sent)}"
                self.node.post(f"/pub?topic={self.topic}", body.encode())
                self.sent.append(body)
        except (OSError, Failed) as failure:
            self.failure = failure

    def move(self, node):
        """Returns when the next message has gone to the new node."""
        self.node = node
        count = len(self.sent) + 2
        wait_for(f"{self.prefix} at its new node", lambda: self.failure or len(self.sent) >= count)


class Archiver(Process):
    """nsq_to_file: a stock consumer whose files say what it has got."""

    def __init__(self, options, folder, channel, lookups, topic=TOPIC):
        self.files = pathlib.Path(folder) / f"files-{channel}"
        self.files.mkdir(exist_ok=True)
        command = [
            options.nsqd.with_name("nsq_to_file"),
            f"--topic={topic}",
            f"--channel={channel}",
            f"--output-dir={self.files}",
            "--sync-interval=200ms",
            "--max-in-flight=400",
            "--consumer-opt=lookupd_poll_interval,500ms",
            *(f"--lookupd-http-address={lookup}" for lookup in lookups),
        ]
        super().__init__(f"nsq_to_file-{channel}", command, folder)

    def seen(self):
        lines = [line for path in self.files.rglob("*.log") for line in path.read_text().splitlines()]
        return collections.Counter(lines)


def held(node, topic=TOPIC):
    """Messages of each channel, and of the topic itself."""
    counts = {name: found["depth"] + found["in_flight_count"] + found["deferred_count"] for name, found in node.channels(topic).items()}
    counts[""] = sum(found["depth"] for found in node.stats()["topics"] if found["topic_name"] == topic)
    return counts


def clients(node):
    return {name: len(found["clients"] or []) for name, found in node.channels(TOPIC).items()}


def run(options, folder, imports):
    listening = (r"TCP: listening on (\S+)", r"HTTP: listening on (\S+)")
    addresses = ("--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0")
    lookupd = Node("nsqlookupd", [options.nsqd.with_name("nsqlookupd"), *addresses], folder, *listening)
    flags = (f"--lookupd-tcp-address={lookupd.tcp}", "--broadcast-address=127.0.0.1")
    paths = [imports.make(folder / f"old-{number}") for number in (1, 2)]
    old = [stock_nsqd(options.nsqd, folder, path, *flags) for path in paths]
    for node in old:
        node.post(f"/topic/create?topic={TOPIC}")
        for channel in CHANNELS:
            node.post(f"/channel/create?topic={TOPIC}&channel={channel}")
    before = [f"before-{number}" for number in range(20)]
    for node, part in zip(old, (before[:10], before[10:])):
        node.post(f"/topic/create?topic={PAUSED}")
        node.post(f"/channel/create?topic={PAUSED}&channel={LATER}")
        imports.mpub(node, PAUSED, [body.encode() for body in part])
        imports.settled(node, PAUSED, {LATER: len(part)})
        node.post(f"/topic/pause?topic={PAUSED}")
    consumers = {channel: Archiver(options, folder, channel, [lookupd.http]) for channel in CONSUMED}
    wait_for("consumers at the old nodes", lambda: all(clients(node)[channel] == 1 for node in old for channel in CONSUMED))
    producers = [Producer(f"p{number}", node) for number, node in enumerate(old)]
    halted = [Producer(f"h{number}", node, PAUSED) for number, node in enumerate(old)]
    for producer in (*producers, *halted):
        producer.start()
    traffic(options, producers, 1)

    # 1. Nodes of nsquorum, with all topics and channels before anybody publishes there.
    new = Ours(options, folder, "new")
    new.post(f"/topic/create?topic={TOPIC}")
    for channel in CHANNELS:
        new.post(f"/channel/create?topic={TOPIC}&channel={channel}")
    if set(new.channels(TOPIC)) != set(CHANNELS):
        raise Failed(f"channels: {new.channels(TOPIC)}")
    new.post(f"/topic/create?topic={PAUSED}")
    new.post(f"/channel/create?topic={PAUSED}&channel={LATER}")
    new.post(f"/channel/pause?topic={PAUSED}&channel={LATER}")

    # 2. Consumers learn of both lookup services, one after the other.
    for channel in CONSUMED:
        consumers[channel].stop()
        consumers[channel] = Archiver(options, folder, channel, [lookupd.http, *new.lookups])
        wait_for(f"{channel} at all nodes", lambda channel=channel: all(clients(node)[channel] == 1 for node in (*old, *new.nodes)))
    # It finds only nsquorum: what the paused topic's channel has at the old nodes is for the import.
    waiting = Archiver(options, folder, LATER, new.lookups, PAUSED)
    wait_for(f"{LATER} at the new nodes", lambda: all(len(node.channels(PAUSED)[LATER]["clients"] or []) == 1 for node in new.nodes))
    traffic(options, producers, 1)

    # 3. Producers move, one after the other. The step's check must tell who has not.
    for number, producer in enumerate(producers):
        producer.move(new)
        growing = [node is new or node in old[number + 1 :] for node in (*old, new)]
        if (found := grows(options, producers, (*old, new))) != growing:
            raise Failed(f"after {producer.prefix} has moved, message_count grows at {found} of the old nodes and nsquorum")
    for producer in halted:
        producer.move(new)

    # 4. The old nodes drain where there are consumers.
    wait_for("the old nodes to drain", lambda: all(held(node)[of] == 0 for node in old for of in ("", *CONSUMED)))

    # 5. They stop, and what is left is imported.
    left = [held(node)["archive"] + sum(held(node, PAUSED).values()) for node in old]
    if not all(min(held(node, PAUSED).values()) for node in old):
        raise Failed("the paused topic holds nothing, or its channel does")
    for node in old:
        node.stop()
    for path, count in zip(paths, left):
        # An import before this one has paused the topic; its channel at nsquorum is paused, so nothing is delivered.
        new.post(f"/topic/unpause?topic={PAUSED}")
        said = imports.run_import(options, new, path)
        if f"imported: {count} messages" not in said:
            raise Failed(f"{count} were left, and the import says {said}")
    lookupd.stop()
    traffic(options, producers, 1)

    for producer in (*producers, *halted):
        producer.is_over.set()
        producer.join()
        if producer.failure:
            raise Failed(f"{producer.prefix}: {producer.failure}")
    sent = collections.Counter(body for producer in producers for body in producer.sent)
    wait_for("the new node to drain", lambda: all(held(new)[channel] == 0 for channel in CONSUMED))
    if waiting.seen() or not held(new, PAUSED)[""]:
        raise Failed(f"the paused topic has delivered {sum(waiting.seen().values())} messages, or holds none: {held(new, PAUSED)}")
    new.post(f"/topic/unpause?topic={PAUSED}")
    new.post(f"/channel/unpause?topic={PAUSED}&channel={LATER}")
    wait_for(f"{PAUSED} to drain", lambda: not any(held(new, PAUSED).values()))
    got = {(consumers[channel], channel): sent for channel in CONSUMED}
    got[waiting, LATER] = collections.Counter(before + [body for producer in halted for body in producer.sent])
    again = {}
    for (consumer, channel), sent_there in got.items():
        consumer.stop()
        seen = consumer.seen()
        if set(seen) != set(sent_there):
            raise Failed(f"{channel}: lost {sorted(set(sent_there) - set(seen))[:5]}, unknown {sorted(set(seen) - set(sent_there))[:5]}")
        again[channel] = sum((seen - sent_there).values())
    archived = imports.take_all(new, TOPIC, "archive")
    imports.compare(TOPIC, "archive", archived, collections.Counter({body.encode(): 1 for body in sent}))
    new.stop()
    print(f"fleet to {options.nodes}: {sum(sent.values())} messages to {len(CHANNELS)} channels, {sum(got[waiting, LATER].values())} to a paused topic, {sum(left)} of them imported, again: {again}", flush=True)


def grows(options, producers, nodes):
    """Of each node, whether it got some of what was published meanwhile."""

    def counts():
        return [sum(found["message_count"] for found in node.stats()["topics"] if found["topic_name"] == TOPIC) for node in nodes]

    before = counts()
    traffic(options, producers, 1)
    return [count > was for count, was in zip(counts(), before)]


def traffic(options, producers, share):
    """Lets a share of the messages be published."""
    count = share * options.count // 20
    before = [len(producer.sent) for producer in producers]

    def look():
        for producer in producers:
            if producer.failure:
                raise Failed(f"{producer.prefix}: {producer.failure}")
        return all(len(producer.sent) >= was + count for producer, was in zip(producers, before))

    deadline = time.monotonic() + 1200
    while not look():
        if time.monotonic() > deadline:
            raise Failed("the producers are too slow")
        time.sleep(0.02)
