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


class Producer(threading.Thread):
    """Publishes numbered messages, one after the other, to a node that can be changed."""

    def __init__(self, name, node):
        super().__init__(daemon=True)
        self.prefix, self.node, self.sent, self.failure = name, node, [], None
        self.is_over = threading.Event()

    def run(self):
        try:
            while not self.is_over.wait(0.002):
                body = f"{self.prefix}-{len(self.sent)}"
                self.node.post(f"/pub?topic={TOPIC}", body.encode())
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

    def __init__(self, options, folder, channel, lookups):
        self.files = pathlib.Path(folder) / f"files-{channel}"
        self.files.mkdir(exist_ok=True)
        command = [
            options.nsqd.with_name("nsq_to_file"),
            f"--topic={TOPIC}",
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


def held(node):
    """Messages of each channel, and of the topic itself."""
    counts = {name: found["depth"] + found["in_flight_count"] + found["deferred_count"] for name, found in node.channels(TOPIC).items()}
    counts[""] = sum(found["depth"] for found in node.stats()["topics"] if found["topic_name"] == TOPIC)
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
    consumers = {channel: Archiver(options, folder, channel, [lookupd.http]) for channel in CONSUMED}
    wait_for("consumers at the old nodes", lambda: all(clients(node)[channel] == 1 for node in old for channel in CONSUMED))
    producers = [Producer(f"p{number}", node) for number, node in enumerate(old)]
    for producer in producers:
        producer.start()
    traffic(options, producers, 1)

    # 1. Nodes of nsquorum, with all topics and channels before anybody publishes there.
    new = Ours(options, folder, "new")
    new.post(f"/topic/create?topic={TOPIC}")
    for channel in CHANNELS:
        new.post(f"/channel/create?topic={TOPIC}&channel={channel}")
    if set(new.channels(TOPIC)) != set(CHANNELS):
        raise Failed(f"channels: {new.channels(TOPIC)}")

    # 2. Consumers learn of both lookup services, one after the other.
    for channel in CONSUMED:
        consumers[channel].stop()
        consumers[channel] = Archiver(options, folder, channel, [lookupd.http, *new.lookups])
        wait_for(f"{channel} at all nodes", lambda channel=channel: all(clients(node)[channel] == 1 for node in (*old, *new.nodes)))
    traffic(options, producers, 1)

    # 3. Producers move, one after the other.
    for producer in producers:
        producer.move(new)
        traffic(options, producers, 1)
    counts = [node.channels(TOPIC)["archive"]["message_count"] for node in old]
    traffic(options, producers, 1)
    if counts != [node.channels(TOPIC)["archive"]["message_count"] for node in old]:
        raise Failed("somebody still publishes to an old node")

    # 4. The old nodes drain where there are consumers.
    wait_for("the old nodes to drain", lambda: all(held(node)[of] == 0 for node in old for of in ("", *CONSUMED)))

    # 5. They stop, and what is left is imported.
    left = [held(node)["archive"] for node in old]
    for node in old:
        node.stop()
    for path, count in zip(paths, left):
        said = imports.run_import(options, new, path)
        if f"imported: {count} messages" not in said:
            raise Failed(f"{count} were left, and the import says {said}")
    lookupd.stop()
    traffic(options, producers, 1)

    for producer in producers:
        producer.is_over.set()
        producer.join()
        if producer.failure:
            raise Failed(f"{producer.prefix}: {producer.failure}")
    sent = collections.Counter(body for producer in producers for body in producer.sent)
    wait_for("the new node to drain", lambda: all(held(new)[channel] == 0 for channel in CONSUMED))
    again = {}
    for channel in CONSUMED:
        consumers[channel].stop()
        seen = consumers[channel].seen()
        if set(seen) != set(sent):
            raise Failed(f"{channel}: lost {sorted(set(sent) - set(seen))[:5]}, unknown {sorted(set(seen) - set(sent))[:5]}")
        again[channel] = sum((seen - sent).values())
    archived = imports.take_all(new, TOPIC, "archive")
    imports.compare(TOPIC, "archive", archived, collections.Counter({body.encode(): 1 for body in sent}))
    new.stop()
    print(f"fleet to {options.nodes}: {sum(sent.values())} messages to {len(CHANNELS)} channels, {sum(left)} of them imported, again: {again}", flush=True)


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
