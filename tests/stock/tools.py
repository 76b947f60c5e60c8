#!/usr/bin/env python3
"""Stock nsqadmin and the stock command-line tools at work on nsquorum, one node and three.

nsqadmin is driven by the HTTP API behind its pages and buttons, once with the lookup service's address and once with the nodes' own. It adds
up what all nodes show and posts every action to each of them, so what is checked is that totals are right, and that a click takes
nothing that was published after it. The tools have to bring every message to where it belongs.
"""

import argparse
import collections
import contextlib
import glob
import gzip
import http.client
import http.server
import json
import os
import pathlib
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

PATIENCE_S = 60
CERTIFICATE = pathlib.Path(__file__).parent.parent / "interop" / "certificate"
# nsqadmin's time for a node that does not answer.
REQUEST_MAX_S = 5


class Failed(Exception):
    """A check that does not hold."""


def check(holds, what):
    if not holds:
        raise Failed(what)


def until(holds, what):
    """Waits until `holds()` is true; says what it was last if it never is."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = holds()
        if found is True:
            return
        if time.monotonic() > deadline:
            raise Failed(f"{what}: still {found}")
        time.sleep(0.05)


def call(address, method, path, body=None):
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def get_json(address, path):
    status, body = call(address, "GET", path)
    check(status == 200, f"GET {address}{path}: {status} {body}")
    return json.loads(body)


def free_base(nodes):
    """A base port with free ports for all nodes at this moment, below the range that the kernel gives to clients."""
    for _ in range(200):
        base = random.randrange(12_000, 30_000)
        if all(is_free(base + 10 * node + offset) for node in range(nodes) for offset in range(6)):
            return base
    raise Failed("no free ports in a row")


def is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """So many nodes under `nsquorum up`."""

    def __init__(self, binary, folder, nodes, flags=()):
        self.count = nodes
        self.log = folder / "up.log"
        argv = [binary, "up", "--dir", folder / "cluster", "--nodes", nodes, "--base-port", free_base(nodes), "--", *flags]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([str(part) for part in argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        file = folder / "cluster" / "cluster.json"

        def served():
            check(self.process.poll() is None, f"`nsquorum up` ended: {self.log.read_text()}")
            return file.exists()

        until(served, "the nodes serve")
        self.nodes = json.loads(file.read_text())["nodes"]

    def every(self, kind):
        return [node[kind] for node in self.nodes]

    def pids(self):
        return [node["pid"] for node in self.nodes]

    def leader(self, topic):
        """The position of the node that leads the topic."""

        def led():
            leads = [bool(self.stats(address, topic)["message_count"]) for address in self.every("http")]
            return True if sum(leads) == 1 else leads

        until(led, f"one node leads {topic}")
        return next(at for at, address in enumerate(self.every("http")) if self.stats(address, topic)["message_count"])

    def stats(self, address, topic):
        topics = get_json(address, f"/stats?format=json&topic={topic}")["topics"]
        return topics[0] if topics else {"message_count": 0, "channels": []}

    def channel(self, topic, channel):
        """The channel's figures, added up over the nodes."""
        total = collections.Counter()
        for address in self.every("http"):
            for found in self.stats(address, topic)["channels"]:
                if found["channel_name"] == channel:
                    total.update({name: value for name, value in found.items() if type(value) is int})
        return total

    def publish(self, topic, body, node=0):
        status, answer = call(self.every("http")[node], "POST", f"/pub?topic={topic}", body)
        check(status == 200, f"/pub: {status} {answer}")

    def publish_many(self, topic, bodies):
        status, answer = call(self.every("http")[-1], "POST", f"/mpub?topic={topic}", "\n".join(bodies))
        check(status == 200, f"/mpub: {status} {answer}")

    def until_empty(self, topic, channel):
        def is_empty():
            found = self.channel(topic, channel)
            return True if found["message_count"] and found["depth"] + found["in_flight_count"] == 0 else dict(found)

        until(is_empty, f"everything of {topic}/{channel} is finished")

    def create(self, topic, channel):
        for path in [f"/topic/create?topic={topic}", f"/channel/create?topic={topic}&channel={channel}"]:
            status, answer = call(self.every("http")[0], "POST", path)
            check(status == 200, f"{path}: {status} {answer}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        check(self.process.wait(PATIENCE_S) == 0, f"`nsquorum up` did not end well: {self.log.read_text()}")


class Traffic:
    """A publisher that asks the nodes in turn and remembers when each message was sent and answered."""

    def __init__(self, cluster, topic):
        self.cluster, self.topic = cluster, topic
        self.sent = []  # (body, sent at, answered at)
        self.exiting = []  # (sent at, answered at): refused because the topic was being deleted, as by nsqd
        self.failed = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.paused_node = None

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.end()

    def run(self):
        number = 0
        while not self.stopping.is_set():
            nodes = [node for node in range(self.cluster.count) if node != self.paused_node]
            body = f"{self.topic} {number:06}"
            before = time.monotonic()
            try:
                status, answer = call(self.cluster.every("http")[nodes[number % len(nodes)]], "POST", f"/pub?topic={self.topic}", body)
            except OSError as error:
                status, answer = 0, str(error)
            if status == 200:
                self.sent.append((body, before, time.monotonic()))
            elif answer == b'{"message":"EXITING"}':
                self.exiting.append((before, time.monotonic()))
            else:
                self.failed.append((status, answer))
            number += 1

    def until_more(self, count=20):
        goal = len(self.sent) + count
        until(lambda: len(self.sent) >= goal or len(self.sent), f"{count} more messages of {self.topic}")

    def end(self):
        self.stopping.set()
        self.thread.join(PATIENCE_S)
        check(not self.failed, f"publishes failed: {self.failed[:3]}")

    def before(self, moment):
        return {body for body, _, answered in self.sent if answered < moment}

    def after(self, moment):
        return {body for body, sent, _ in self.sent if sent > moment}


class Admin:
    """Stock nsqadmin, and its HTTP API."""

    def __init__(self, programs, folder, flags):
        self.address = f"127.0.0.1:{free_port()}"
        self.log = folder / f"nsqadmin-{self.address}.log"
        argv = [f"{programs}/nsqadmin", f"--http-address={self.address}", *flags]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)

        def serves():
            check(self.process.poll() is None, f"nsqadmin ended: {self.log.read_text()}")
            with contextlib.suppress(OSError):
                return call(self.address, "GET", "/ping")[0] == 200
            return False

        until(serves, "nsqadmin serves")

    def page(self, path):
        page = get_json(self.address, f"/api{path}")
        check(page["message"] == "", f"{path}: {page['message']}")
        return page

    def click(self, method, path, body=None, warns=False):
        """When it was clicked, and when it was done."""
        before = time.monotonic()
        status, answer = call(self.address, method, f"/api{path}", json.dumps(body) if body else None)
        check(status == 200, f"{method} {path} {body}: {status} {answer}")
        message = json.loads(answer)["message"]
        check(bool(message) == warns, f"{method} {path} {body}: {message!r}")
        return before, time.monotonic()

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE_S)


class Run:
    """One cluster, and everything that is tried on it."""

    def __init__(self, options, nodes, folder):
        self.options, self.folder = options, folder
        self.started = []
        # A stock nsqlookupd that the nodes register with.
        tcp, http_port = free_port(), free_port()
        self.nsqlookupd = f"127.0.0.1:{http_port}"
        self.tool("nsqlookupd", f"--tcp-address=127.0.0.1:{tcp}", f"--http-address={self.nsqlookupd}", "--broadcast-address=127.0.0.1")
        self.cluster = Cluster(options.binary, folder, nodes, [f"--lookupd-tcp-address=127.0.0.1:{tcp}"])

    def tool(self, name, *arguments, out=None, stdin=subprocess.DEVNULL):
        log = (self.folder / f"{name}.log").open("ab")
        argv = [f"{self.options.programs}/{name}", *map(str, arguments)]
        process = subprocess.Popen(argv, stdin=stdin, stdout=out or log, stderr=log, cwd=self.folder)
        self.started.append(process)
        return process

    def lookups(self, nodes=None):
        return [f"--lookupd-http-address={address}" for address in self.cluster.every("lookup_http")[:nodes]]

    def drained(self, topic, channel, count):
        """What `count` messages of a channel are, once they are there."""
        out = self.folder / f"{topic}-{channel}.txt"
        with out.open("wb") as file:
            tail = self.tool("nsq_tail", f"--topic={topic}", f"--channel={channel}", *self.lookups(), out=file)
        until(lambda: len(out.read_bytes().splitlines()) >= count or len(out.read_bytes().splitlines()), f"{count} messages of {topic}/{channel}")

        def is_empty():
            found = self.cluster.channel(topic, channel)
            left = found["depth"] + found["in_flight_count"]
            return True if left == 0 and found["message_count"] else dict(found)

        until(is_empty, f"{topic}/{channel} is empty")
        end(tail)
        return out.read_text().splitlines()

    def stop(self):
        for process in self.started:
            end(process)
        self.cluster.stop()


def end(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise Failed("a tool does not end") from None


# === nsqadmin ===


def pages(run, admin, by_lookup):
    """Every page, with consumers, and its totals."""
    topic, count, cluster = "pages", 30, run.cluster
    cluster.create(topic, "c")
    for number in range(count):
        cluster.publish(topic, f"{number}", number % cluster.count)
    check(topic in admin.page("/topics")["topics"], "the topic is listed")
    page = admin.page(f"/topics/{topic}")
    check(page["message_count"] == count, f"topic page: {page['message_count']} messages, not {count}")
    check(len(page["nodes"]) == cluster.count, f"topic page: {len(page['nodes'])} nodes")
    [channel] = page["channels"]
    check((channel["channel_name"], channel["depth"]) == ("c", count), f"topic page: {channel['depth']} in the channel")
    page = admin.page(f"/topics/{topic}/c")
    check(page["depth"] == count and len(page["nodes"]) == cluster.count, f"channel page: {page['depth']} in {len(page['nodes'])} nodes")

    nodes = admin.page("/nodes")["nodes"]
    check(len(nodes) == cluster.count and not any(node["out_of_date"] for node in nodes), f"nodes page: {nodes}")
    total = 0
    for node in nodes:
        check(topic in [found["topic"] for found in node["topics"]], f"nodes page: {node}")
        page = admin.page(f"/nodes/{node['broadcast_address']}:{node['http_port']}")
        total += sum(found["message_count"] for found in page["topics"] if found["topic_name"] == topic)
    check(total == count, f"node pages: {total} messages, not {count}")
    counters = admin.page("/counter")["stats"].values()
    counted = sum(found["message_count"] for found in counters if found["topic_name"] == topic)
    check(counted == count, f"counter: {counted} messages, not {count}")

    # Consumers connect to every node; each is one client.
    tail = run.tool("nsq_tail", f"--topic={topic}", "--channel=c", *run.lookups())

    def consumed():
        page = admin.page(f"/topics/{topic}/c")
        clients = page["clients"] or []
        is_so = (page["depth"], page["in_flight_count"], page["client_count"], len(clients)) == (0, 0, cluster.count, cluster.count)
        return True if is_so else page

    until(consumed, "the consumer has everything, and is one client at each node")
    page = admin.page(f"/topics/{topic}/c")
    check(len({client["node"] for client in page["clients"]}) == cluster.count, "each client is at its own node")
    check(sum(client["finish_count"] for client in page["clients"]) == count, f"finished: {page['clients']}")
    clients = sum(admin.page(f"/nodes/{node['broadcast_address']}:{node['http_port']}")["total_clients"] for node in nodes)
    check(clients == cluster.count, f"node pages: {clients} clients")
    end(tail)
    if by_lookup:
        inactive = admin.page("/topics?inactive=true")["topics"]
        check(topic not in inactive, f"inactive: {inactive}")


def pause(run, admin, by_lookup):
    topic, cluster = "pausing", run.cluster
    cluster.create(topic, "c")
    for path, at in [(f"/topics/{topic}", lambda page: page["paused"]), (f"/topics/{topic}/c", lambda page: page["paused"])]:
        for action, expected in [("pause", True), ("unpause", False), ("pause", True), ("unpause", False)]:
            admin.click("POST", path, {"action": action})
            found = at(admin.page(path))
            check(found is expected, f"{path} after {action}: {found}")


def create(run, admin, by_lookup):
    if not by_lookup:
        return  # stock nsqadmin creates at nsqlookupds only
    admin.click("POST", "/topics", {"topic": "created", "channel": "c"})
    admin.click("POST", "/topics", {"topic": "created-alone"})
    topics = admin.page("/topics")["topics"]
    check({"created", "created-alone"} <= set(topics), f"topics: {topics}")
    channels = [channel["channel_name"] for channel in admin.page("/topics/created")["channels"]]
    check(channels == ["c"], f"channels: {channels}")


def register(address, commands):
    """An nsqd that comes, says this to a lookup service, and goes."""
    body = json.dumps({"broadcast_address": "gone.example", "hostname": "gone", "tcp_port": 1, "http_port": 2, "version": "1.3.0"}).encode()
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), PATIENCE_S) as nsqd:
        answers = nsqd.makefile("rb")
        nsqd.sendall(b"  V1")
        for command in [b"IDENTIFY\n" + len(body).to_bytes(4, "big") + body, *commands]:
            nsqd.sendall(command)
            answer = answers.read(int.from_bytes(answers.read(4), "big"))
            check(answer == b"OK" or answer.startswith(b"{"), f"{command}: {answer}")


def inactive(run, admin, by_lookup):
    """What an nsqd has left behind at the lookup services: the page that lists it deletes it, a channel or all."""
    if not by_lookup:
        return  # only lookup services know of such topics
    for address in run.cluster.every("lookup_tcp"):
        register(address, [b"REGISTER unused c\n", b"REGISTER unused d\n"])

    def listed():
        return admin.page("/topics?inactive=true")["topics"]

    until(lambda: sorted(listed().get("unused", [])) == ["c", "d"] or listed(), "the topic is inactive, with its channels")
    admin.click("DELETE", "/topics/unused/c")
    check(listed().get("unused") == ["d"], f"inactive without the channel: {listed()}")
    admin.click("DELETE", "/topics/unused")
    check("unused" not in listed(), f"inactive without the topic: {listed()}")


def emptied(run, topic, path, method, body, admin, dig):
    """Clicks under traffic and compares what is left with what was sent before and after."""
    with Traffic(run.cluster, topic) as traffic:
        traffic.until_more()
        clicked, done = admin.click(method, path, body)
        traffic.until_more()
    before, after = traffic.before(clicked), traffic.after(done)
    late = [sent - done for sent, answered in traffic.exiting if sent > done or answered < clicked]
    check(not late and (not traffic.exiting or method == "DELETE"), f"{method} {path}: refused outside of the deletion: {late}")
    left = dig(len(after))
    check(not before & set(left), f"{method} {path}: {len(before & set(left))} of {len(before)} from before the click are left")
    check(after <= set(left), f"{method} {path}: {len(after - set(left))} of {len(after)} from after the click are gone")
    check(len(left) == len(set(left)), f"{method} {path}: some came twice")
    # One publisher, one after the other: one cut, and no hole behind it.
    order = [body for body, _, _ in traffic.sent]
    check(sorted(left) == order[len(order) - len(left) :], f"{method} {path}: there are holes")


def empty_channel(run, admin, by_lookup):
    topic = f"emptying-{by_lookup}"
    run.cluster.create(topic, "c")
    emptied(run, topic, f"/topics/{topic}/c", "POST", {"action": "empty"}, admin, lambda count: run.drained(topic, "c", count))


def empty_topic(run, admin, by_lookup):
    """A topic without channels keeps its messages itself."""
    topic = f"emptying-topic-{by_lookup}"
    run.cluster.publish(topic, f"{topic} first")
    emptied(run, topic, f"/topics/{topic}", "POST", {"action": "empty"}, admin, lambda count: run.drained(topic, "c", count))


def delete_topic(run, admin, by_lookup):
    """The publisher goes on, so the topic is there again at once, with the channels that the stock nsqlookupd still knows of it."""
    topic = f"deleting-{by_lookup}"
    run.cluster.create(topic, "c")
    emptied(run, topic, f"/topics/{topic}", "DELETE", None, admin, lambda count: run.drained(topic, "c", count))
    admin.click("DELETE", f"/topics/{topic}")

    def is_gone():
        """Lookup services hear of it from their own nodes, which may be some milliseconds behind."""
        topics = admin.page("/topics")["topics"] or []
        return topic not in topics or topics

    until(is_gone, f"{topic} is gone")


def delete_channel(run, admin, by_lookup):
    topic = f"deleting-channel-{by_lookup}"
    run.cluster.create(topic, "c")
    emptied(run, topic, f"/topics/{topic}/c", "DELETE", None, admin, lambda count: run.drained(topic, "d", count))


def tombstone(run, admin, by_lookup):
    """Nothing goes, neither messages nor channels, whichever node is tombstoned; it is hidden and comes back."""
    if not by_lookup:
        return  # without a lookup service there are no tombstones: nsqadmin just deletes
    topic, cluster = "tombstoned", run.cluster
    cluster.create(topic, "c")
    with Traffic(cluster, topic) as traffic:
        for node in cluster.every("http"):
            traffic.until_more()
            admin.click("DELETE", f"/nodes/{node}", {"topic": topic})
            for address in cluster.every("lookup_http"):
                listed = [f"{found['broadcast_address']}:{found['http_port']}" for found in get_json(address, f"/lookup?topic={topic}")["producers"]]
                check(node not in listed, f"/lookup at {address}: {listed}")
            marks = {f"{found['broadcast_address']}:{found['http_port']}": found["topics"] for found in admin.page("/nodes")["nodes"]}
            check({"topic": topic, "tombstoned": True} in marks[node], f"nodes page: {marks}")
    total = cluster.channel(topic, "c")
    sent = len(traffic.sent)
    check(total["depth"] == total["message_count"] == sent, f"{dict(total)}, and {sent} were sent")


def empty_while_a_node_hangs(run):
    """The node gets its request and carries it out too late: nsqadmin has gone on, and the messages since the click must stay."""
    cluster, topic = run.cluster, "hanging"
    if cluster.count < 3:
        return
    cluster.create(topic, "c")
    cluster.publish(topic, "the first has no number")
    leader = cluster.leader(topic)
    hanging = (leader + 1) % cluster.count
    # Its lookup service names itself first, so the click takes effect at once.
    admin = Admin(run.options.programs, run.folder, [f"--lookupd-http-address={cluster.every('lookup_http')[leader]}"])
    run.started.append(admin.process)
    with Traffic(cluster, topic) as traffic:
        traffic.until_more()
        traffic.paused_node = hanging
        traffic.until_more()
        os.kill(cluster.pids()[hanging], signal.SIGSTOP)
        try:
            clicked, done = admin.click("POST", f"/topics/{topic}/c", {"action": "empty"}, warns=True)
        finally:
            os.kill(cluster.pids()[hanging], signal.SIGCONT)
        traffic.paused_node = None
        check(done - clicked >= REQUEST_MAX_S - 0.5, "nsqadmin has waited for the node")
        traffic.until_more(100)
    after = traffic.after(done)
    left = set(run.drained(topic, "c", len(after)))
    check(after <= left, f"{len(after - left)} of {len(after)} messages from after the click are gone")
    early = traffic.after(clicked + 1) & traffic.before(done - 1)
    check(early and early <= left, f"{len(early - left)} of {len(early)} from while the node hung are gone")


ADMIN = [pages, pause, create, inactive, empty_channel, empty_topic, delete_topic, delete_channel, tombstone]


# === tools ===


def lines(count):
    return [f'{{"number":{number},"text":"line {number}"}}' for number in range(count)]


def published(run, topic):
    """By to_nsq, through the last node."""
    expected = lines(run.options.count)
    tool = run.tool("to_nsq", f"--topic={topic}", f"--nsqd-tcp-address={run.cluster.every('tcp')[-1]}", stdin=subprocess.PIPE)
    tool.stdin.write(("\n".join(expected) + "\n").encode())
    tool.stdin.close()
    # It waits for every single answer.
    check(tool.wait(PATIENCE_S + run.options.count / 20) == 0, "to_nsq has failed")
    return expected


def same(found, expected, what):
    found = collections.Counter(found)
    missing, more = set(expected) - set(found), {line: count for line, count in found.items() if count != 1 or line not in set(expected)}
    check(not missing and not more, f"{what}: {len(missing)} missing, {len(more)} too often or unknown: {list(more.items())[:3]}")


def to_file(run):
    run.cluster.create("filed", "nsq_to_file")
    expected = published(run, "filed")
    folder = run.folder / "files"
    arguments = ["--topic=filed", f"--output-dir={folder}", "--sync-interval=500ms", "--max-in-flight=100", *run.lookups()]
    tool = run.tool("nsq_to_file", *arguments)

    def read():
        return [line for name in glob.glob(f"{folder}/*") for line in pathlib.Path(name).read_text().splitlines()]

    until(lambda: len(read()) >= len(expected) or len(read()), "nsq_to_file")
    end(tool)
    same(read(), expected, "nsq_to_file")
    left = run.cluster.channel("filed", "nsq_to_file")
    until(lambda: (left := run.cluster.channel("filed", "nsq_to_file"))["depth"] + left["in_flight_count"] == 0 or dict(left), "everything is finished")


def to_file_by_pattern(run):
    """Every topic that matches, found when it comes, compressed and in files of limited size."""
    cluster, expected, folder = run.cluster, lines(run.options.count), run.folder / "compressed"
    size = sum(map(len, expected)) // 4
    cluster.create("unmatched", "nsq_to_file")
    cluster.publish("unmatched", "not to be filed")
    arguments = ["--topic-pattern=^matched-", "--topic-refresh=100ms", "--gzip", "--gzip-level=1", f"--rotate-size={size // 10}"]
    tool = None
    for topic in ["matched-first", "matched-later"]:
        cluster.create(topic, "nsq_to_file")
        half = len(expected) // 2
        cluster.publish_many(topic, expected[:half])
        tool = tool or run.tool("nsq_to_file", *arguments, f"--output-dir={folder}", "--sync-interval=100ms", "--max-in-flight=50", *run.lookups())
        cluster.until_empty(topic, "nsq_to_file")
        cluster.publish_many(topic, expected[half:])
        cluster.until_empty(topic, "nsq_to_file")
    end(tool)
    for topic in ["matched-first", "matched-later"]:
        names = glob.glob(f"{folder}/{topic}.*.gz")
        check(len(names) > 1, f"{topic} was filed into {names}")
        same([line for name in names for line in gzip.open(name, "rt").read().splitlines()], expected, f"nsq_to_file of {topic}")
    check(not glob.glob(f"{folder}/unmatched*"), "another topic was filed")
    check(cluster.channel("unmatched", "nsq_to_file")["depth"] == 1, "another topic was consumed")


@contextlib.contextmanager
def receiver():
    """An HTTP server: its URL, and the bodies and query strings that it has got."""
    bodies = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.took(self.rfile.read(int(self.headers["Content-Length"])).decode())

        def do_GET(self):
            self.took(urllib.parse.unquote_plus(self.path.partition("?")[2]))

        def took(self, body):
            bodies.append(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", bodies
    server.shutdown()


def to_http(run):
    run.cluster.create("posted", "nsq_to_http")
    expected = published(run, "posted")
    with receiver() as (url, bodies):
        tool = run.tool("nsq_to_http", "--topic=posted", "--channel=nsq_to_http", f"--post={url}", "--n=4", *run.lookups())
        until(lambda: len(bodies) >= len(expected) or len(bodies), "nsq_to_http")
        end(tool)
    same(bodies, expected, "nsq_to_http")


def to_http_by_get(run):
    """GET, and a pool of hosts that share the work."""
    expected = lines(run.options.count)
    run.cluster.create("got", "nsq_to_http")
    run.cluster.publish_many("got", expected)
    with receiver() as (one, ones), receiver() as (other, others):
        arguments = ["--topic=got", "--channel=nsq_to_http", f"--get={one}?%s", f"--get={other}?%s", "--mode=hostpool", "--n=4", *run.lookups()]
        tool = run.tool("nsq_to_http", *arguments)
        until(lambda: len(ones) + len(others) >= len(expected) or (len(ones), len(others)), "nsq_to_http by GET")
        run.cluster.until_empty("got", "nsq_to_http")
        end(tool)
    same(ones + others, expected, "nsq_to_http by GET")
    check(ones and others, f"one host has all: {len(ones)} and {len(others)}")


def to_nsq_to_nsq(run):
    run.cluster.create("from", "nsq_to_nsq")
    run.cluster.create("onto", "c")
    expected = published(run, "from")
    destinations = [f"--destination-nsqd-tcp-address={address}" for address in run.cluster.every("tcp")]
    tool = run.tool("nsq_to_nsq", "--topic=from", "--channel=nsq_to_nsq", "--destination-topic=onto", *destinations, *run.lookups())
    same(run.drained("onto", "c", len(expected)), expected, "nsq_to_nsq")
    end(tool)


def tail(run):
    """It waits for messages with an ephemeral channel of its own, by the nodes' addresses, and ends after so many."""
    count = run.options.count
    out = run.folder / "tail.txt"
    addresses = [f"--nsqd-tcp-address={address}" for address in run.cluster.every("tcp")]
    with out.open("wb") as file:
        tool = run.tool("nsq_tail", "--topic=tailed", f"-n={count}", *addresses, out=file)

    def attached():
        # It connects to one node after the other; each connection is a client of the one channel.
        names = {channel["channel_name"] for address in run.cluster.every("http") for channel in run.cluster.stats(address, "tailed")["channels"]}
        clients = sum(run.cluster.channel("tailed", name)["client_count"] for name in names)
        return True if len(names) == 1 and clients == run.cluster.count else (names, clients)

    until(attached, "nsq_tail is attached")
    expected = published(run, "tailed")
    check(tool.wait(PATIENCE_S) == 0, "nsq_tail has failed")
    same(out.read_text().splitlines(), expected, "nsq_tail")

    def gone():
        channels = [channel for address in run.cluster.every("http") for channel in run.cluster.stats(address, "tailed")["channels"]]
        return True if not channels else channels

    until(gone, "the ephemeral channel goes with its consumer")


def stat(run):
    run.cluster.create("counted", "c")
    expected = published(run, "counted")
    by_node = [f"--nsqd-http-address={address}" for address in run.cluster.every("http")]
    for where in [run.lookups(), run.lookups(1), by_node]:
        out = run.folder / "stat.txt"
        with out.open("wb") as file:
            tool = run.tool("nsq_stat", "--topic=counted", "--channel=c", "--interval=100ms", "--count=2", *where, out=file)
        check(tool.wait(PATIENCE_S) == 0, "nsq_stat has failed")
        figures = [int(figure) for figure in re.findall(r"\d+", out.read_text().splitlines()[-1])]
        check(figures[2] == figures[9] == len(expected), f"nsq_stat {where[0]}: {figures}, not {len(expected)}")


def bench(run):
    """The programs with which NSQ is measured; they speak the protocol on their own, and know OK as IDENTIFY's only answer."""
    cluster = run.cluster
    first, last = cluster.every("tcp")[0], cluster.every("tcp")[-1]
    cluster.create("benched", "ch")
    for name, address in [("bench_writer", first), ("bench_reader", last)]:
        size = ["--size=100", "--batch-size=10"] if name == "bench_writer" else ["--rdy=100"]
        tool = run.tool(name, f"--nsqd-tcp-address={address}", "--topic=benched", "--runfor=500ms", *size)
        check(tool.wait(PATIENCE_S) == 0, f"{name} has failed: {(run.folder / f'{name}.log').read_text()}")
        figures = re.search(r"mb/s - ([\d.]+)ops/s", (run.folder / f"{name}.log").read_text())
        check(figures and float(figures[1]) > 0, f"{name} has done nothing")
    found = cluster.channel("benched", "ch")
    check(found["message_count"] > 0 and found["message_count"] % 10 == 0, f"bench_writer: {dict(found)}")
    check(found["depth"] + found["in_flight_count"] < found["message_count"], f"bench_reader: {dict(found)}")

    count = 10
    tool = run.tool("bench_channels", f"--nsqd-tcp-address={last}", f"--num={count}")

    def subscribed():
        clients = [cluster.channel(f"t{number}", "ch")["client_count"] for number in range(count)]
        return True if clients == [1] * count else clients

    until(subscribed, "bench_channels has one client in each channel")
    for number in range(count):
        cluster.publish_many(f"t{number}", lines(3))
    for number in range(count):
        cluster.until_empty(f"t{number}", "ch")
    check(tool.poll() is None, "bench_channels has ended")
    end(tool)


def https_after_403(run):
    """A node that wants TLS answers nsqadmin with 403 and the port where it has it; the page and the click come over that."""
    if run.cluster.count > 1:
        return
    link, data = run.folder / "as" / "nsqd", run.folder / "with-tls"
    link.parent.mkdir()
    data.mkdir()
    link.symlink_to(run.options.binary)
    http_address, https_address = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    flags = [f"--tls-cert={CERTIFICATE}/cert.pem", f"--tls-key={CERTIFICATE}/key.pem", "--tls-required=true"]
    ports = ["--tcp-address=127.0.0.1:0", f"--http-address={http_address}", f"--https-address={https_address}"]
    with (run.folder / "with-tls.log").open("wb") as log:
        node = subprocess.Popen([link, f"--data-path={data}", "--broadcast-address=127.0.0.1", *ports, *flags], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    run.started.append(node)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def over_tls(method, path):
        connection = http.client.HTTPSConnection(https_address, timeout=PATIENCE_S, context=context)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError as error:
            return 0, str(error)
        finally:
            connection.close()

    until(lambda: (answer := over_tls("GET", "/ping")) == (200, b"OK") or answer, "the node serves over TLS")
    check(over_tls("POST", "/topic/create?topic=secret")[0] == 200, "/topic/create")
    status, answer = call(http_address, "GET", "/ping")
    check(status == 403 and json.loads(answer)["https_port"] == int(https_address.rsplit(":", 1)[1]), f"in plain: {status} {answer}")
    admin = Admin(run.options.programs, run.folder, [f"--nsqd-http-address={http_address}", "--http-client-tls-insecure-skip-verify"])
    run.started.append(admin.process)
    check(admin.page("/topics")["topics"] == ["secret"], "the topic is listed")
    admin.click("POST", "/topics/secret", {"action": "pause"})
    check(admin.page("/topics/secret")["paused"] is True, "the topic is paused")
    end(admin.process)
    end(node)


# === discovery beside stock programs ===


def at_stock_nsqlookupd(run):
    """The nodes register with a stock nsqlookupd, and consumers that know only that one find them."""
    cluster = run.cluster
    cluster.create("elsewhere", "c")

    def registered():
        status, answer = call(run.nsqlookupd, "GET", "/lookup?topic=elsewhere")
        found = json.loads(answer)
        is_so = status == 200 and len(found["producers"]) == cluster.count and found["channels"] == ["c"]
        return True if is_so else found

    until(registered, "every node and the channel are registered")
    ports = {found["tcp_port"] for found in get_json(run.nsqlookupd, "/nodes")["producers"]}
    check(ports == {int(address.rsplit(":", 1)[1]) for address in cluster.every("tcp")}, f"registered: {ports}")
    expected = published(run, "elsewhere")
    out = run.folder / "elsewhere.txt"
    with out.open("wb") as file:
        tail = run.tool("nsq_tail", "--topic=elsewhere", "--channel=c", f"--lookupd-http-address={run.nsqlookupd}", out=file)
    until(lambda: len(out.read_bytes().splitlines()) >= len(expected) or len(out.read_bytes().splitlines()), "all messages")
    end(tail)
    same(out.read_text().splitlines(), expected, "by a stock nsqlookupd")
    call(cluster.every("http")[0], "POST", "/topic/delete?topic=elsewhere")
    until(lambda: get_json(run.nsqlookupd, "/lookup?topic=elsewhere")["producers"] == [] or "listed", "a deleted topic leaves")

    # A channel of a topic that is new here: it gets the first message, although another channel is there first.
    call(run.nsqlookupd, "POST", "/channel/create?topic=consumed&channel=c")
    status, answer = call(cluster.every("http")[0], "POST", "/pub?topic=consumed", b"first")
    check(status == 200, f"/pub: {status} {answer}")
    stats = [get_json(node, "/stats?format=json&topic=consumed")["topics"] for node in cluster.every("http")]
    depths = [(channel["channel_name"], channel["depth"]) for topics in stats for topic in topics for channel in topic["channels"]]
    check(sorted(depths)[-1:] == [("c", 1)], f"the channels of a new topic: {depths}")


def stock_nsqds(run):
    """A stock nsqd registers with our nodes: its topic is found beside ours, one topic of both too, and nsqadmin adds it up."""
    cluster, count = run.cluster, run.options.count
    data = run.folder / "nsqd"
    data.mkdir(exist_ok=True)
    address, tcp = f"127.0.0.1:{free_port()}", free_port()
    lookups = [f"--lookupd-tcp-address={found}" for found in cluster.every("lookup_tcp")]
    ports = [f"--tcp-address=127.0.0.1:{tcp}", f"--http-address={address}", "--broadcast-address=127.0.0.1"]
    nsqd = run.tool("nsqd", f"--data-path={data}", *ports, *lookups)
    admin = Admin(run.options.programs, run.folder, run.lookups())
    run.started.append(admin.process)
    cluster.create("both", "c")

    def listed(lookup):
        return [found["tcp_port"] for found in get_json(lookup, "/nodes")["producers"]]

    for lookup in cluster.every("lookup_http"):
        until(lambda lookup=lookup: tcp in listed(lookup) or listed(lookup), f"{lookup} lists the stock nsqd")
    for path in ["/topic/create?topic=both", "/channel/create?topic=both&channel=c", "/topic/create?topic=theirs"]:
        check(call(address, "POST", path)[0] == 200, path)
    ours, theirs = lines(2 * count)[:count], lines(2 * count)[count:]
    for topic, bodies, where in [("both", ours, cluster.every("http")[0]), ("both", theirs, address)]:
        check(call(where, "POST", f"/mpub?topic={topic}", "\n".join(bodies))[0] == 200, f"/mpub to {where}")
    for lookup in cluster.every("lookup_http"):
        until(lambda lookup=lookup: len(get_json(lookup, "/lookup?topic=both")["producers"]) == cluster.count + 1 or "fewer", "all producers of the topic")
        until(lambda lookup=lookup: "theirs" in get_json(lookup, "/topics")["topics"] or "not listed", "a topic of the stock nsqd")
    page = admin.page("/topics/both")
    check(page["message_count"] == 2 * count and len(page["nodes"]) == cluster.count + 1, f"{page['message_count']} in {len(page['nodes'])} nodes")
    found = run.folder / "both.txt"
    with found.open("wb") as file:
        tail = run.tool("nsq_tail", "--topic=both", "--channel=c", *run.lookups(), out=file)
    until(lambda: len(found.read_bytes().splitlines()) >= 2 * count or len(found.read_bytes().splitlines()), "all messages of both")
    end(tail)
    same(found.read_text().splitlines(), ours + theirs, "from ours and theirs")
    # Its tombstone is nsqlookupd's own: the topic is deleted at that nsqd, and ours stays.
    admin.click("DELETE", f"/nodes/{address}", {"topic": "both"})
    for lookup in cluster.every("lookup_http"):
        until(lambda lookup=lookup: len(get_json(lookup, "/lookup?topic=both")["producers"]) == cluster.count or "listed", "the tombstoned nsqd is hidden")
    check(run.cluster.channel("both", "c")["message_count"] == count, "ours stays")
    end(nsqd)
    for lookup in cluster.every("lookup_http"):
        until(lambda lookup=lookup: tcp not in listed(lookup) or listed(lookup), "a stopped nsqd leaves")
    end(admin.process)


TOOLS = [
    at_stock_nsqlookupd, stock_nsqds, to_file, to_file_by_pattern, to_http, to_http_by_get, to_nsq_to_nsq, tail, stat, bench, https_after_403
]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--programs", required=True, help="a folder with the stock programs")
    arguments.add_argument("--binary", required=True, help="nsquorum")
    arguments.add_argument("--count", type=int, default=500, help="messages per tool")
    arguments.add_argument("--rounds", type=int, default=1, help="how often every button is tried")
    arguments.add_argument("--nodes", type=int, nargs="*", default=[1, 3], help="sizes of clusters")
    arguments.add_argument("--only", nargs="*", help="names of parts")
    options = arguments.parse_args()
    options.binary = os.path.abspath(options.binary)
    failures = 0
    for nodes in options.nodes:
        for number in range(options.rounds):
            with tempfile.TemporaryDirectory() as folder:
                failures += whole(options, nodes, pathlib.Path(folder), number)
    print("FAILED" if failures else "all parts pass")
    return 1 if failures else 0


def whole(options, nodes, folder, number):
    def is_wanted(part):
        return not options.only or part.__name__ in options.only

    failures = 0
    run = Run(options, nodes, folder)
    flags = {
        "lookup": run.lookups(),
        "one lookup": run.lookups(1),
        "nsqd": [f"--nsqd-http-address={address}" for address in run.cluster.every("http")],
    }
    try:
        for way in ["lookup", "nsqd"]:
            admin = Admin(options.programs, folder, flags[way])
            for part in filter(is_wanted, ADMIN):
                failures += tried(f"{nodes} nodes, nsqadmin by {way}", part, run, admin, way == "lookup")
            admin.stop()
            for topic in get_json(run.cluster.every("lookup_http")[0], "/topics")["topics"]:
                call(run.cluster.every("http")[0], "POST", f"/topic/delete?topic={topic}")
        for part in filter(is_wanted, [empty_while_a_node_hangs, *TOOLS]):
            failures += tried(f"{nodes} nodes", part, run)
    finally:
        run.stop()
    return failures


def tried(where, part, *arguments):
    began = time.monotonic()
    try:
        part(*arguments)
    except (Failed, OSError, subprocess.TimeoutExpired) as error:
        print(f"FAILED: {where}: {part.__name__}: {error}", flush=True)
        return 1
    print(f"ok: {where}: {part.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
