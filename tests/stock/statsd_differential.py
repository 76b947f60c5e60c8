#!/usr/bin/env python3
"""The same traffic at stock nsqd and at nsquorum, and what a statsd server hears of both: the same names, sums and last values.

    statsd_differential.py --stock-programs DIR --binary FILE [--nodes N]

With `--nodes 3` every node of a cluster pushes, and what they push together has to be what the one nsqd pushes. The percentiles of latency are
compared, too: as names, and by whether they can be true.
"""

import argparse
import json
import pathlib
import socket
import sys
import tempfile
import threading
import time

import nsq_tcp
import servers
from exchange import ask
from http_cases import mpub, request

PERCENTILES = [0.99, 0.5]
# How long the held message is held: the longest latency is at least that.
HELD_S = 1.2


class Statsd:
    """Sums of counters and last values of gauges, by name without prefix; the prefixes that each name came with."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.lock = threading.Lock()
        self.counters, self.gauges, self.prefixes, self.longest = {}, {}, {}, 0
        threading.Thread(target=self.listen, daemon=True).start()

    def address(self):
        return "127.0.0.1:%d" % self.socket.getsockname()[1]

    def listen(self):
        while True:
            packet = self.socket.recv(65536)
            with self.lock:
                self.longest = max(self.longest, len(packet))
                assert packet.endswith(b"\n"), packet
                for line in packet.decode().splitlines():
                    self.take(line)

    def take(self, line):
        name, value = line.rsplit(":", 1)
        # nsq.<host>_<port>.<name>
        prefix, name = ".".join(name.split(".")[:2]), ".".join(name.split(".")[2:])
        value, kind = value.split("|")
        self.prefixes.setdefault(name, set()).add(prefix)
        if kind == "c":
            self.counters[name] = self.counters.get(name, 0) + int(value)
        else:
            self.gauges[name] = int(value)

    def seen(self):
        with self.lock:
            return dict(self.counters), dict(self.gauges), {name: set(of) for name, of in self.prefixes.items()}, self.longest


def flags(statsd):
    share = ",".join(str(percentile) for percentile in PERCENTILES)
    return [
        f"--statsd-address={statsd.address()}",
        # Stock nsqd spreads its packets over the interval but one second, and cannot divide less.
        "--statsd-interval=1100ms",
        "--statsd-exclude-ephemeral",
        f"--e2e-processing-latency-percentile={share}",
        "--e2e-processing-latency-window-time=60s",
    ]


def traffic(server):
    """Returns the client whose messages are in flight."""
    for target in ["/topic/create?topic=t", "/channel/create?topic=t&channel=c", "/channel/create?topic=t&channel=x%23ephemeral", "/topic/create?topic=e%23ephemeral", "/topic/create?topic=idle"]:
        answer = ask(server.http_port, request("POST", target, b""), "POST")
        assert answer.status == 200, (server.name, target, answer)
    publisher = nsq_tcp.Client(server.tcp_port)
    publisher.ok(b"MPUB t", mpub(*[b"message"] * 10))
    publisher.ok(b"DPUB t 3600000", b"later")
    publisher.ok(b"PUB e#ephemeral", b"x")
    consumer = nsq_tcp.Client(server.tcp_port)
    consumer.identify(client_id="c", msg_timeout=600_000)
    consumer.ok(b"SUB t c")
    consumer.command(b"RDY 4")
    ids = [consumer.message()[0] for _ in range(4)]
    consumer.command(b"RDY 0")
    time.sleep(HELD_S)
    consumer.command(b"FIN " + ids[0])
    consumer.command(b"FIN " + ids[1])
    consumer.command(b"REQ " + ids[2] + b" 3600000")
    return [publisher, consumer]


COUNTERS = {
    "topic.t.message_count": 11,
    "topic.t.message_bytes": 75,
    "topic.idle.message_count": 0,
    "topic.t.channel.c.message_count": 11,
    "topic.t.channel.c.requeue_count": 1,
    "topic.t.channel.c.timeout_count": 0,
}
GAUGES = {
    "topic.t.depth": 0,
    "topic.idle.depth": 0,
    "topic.t.channel.c.depth": 6,
    "topic.t.channel.c.in_flight_count": 1,
    "topic.t.channel.c.deferred_count": 2,
    "topic.t.channel.c.clients": 1,
}
LATENCIES = [f"topic.t.{of}e2e_processing_latency_{percentile * 100:.0f}" for of in ("", "channel.c.") for percentile in PERCENTILES]


def settled(statsd):
    def read():
        counters, gauges, *_ = statsd.seen()
        is_there = all(counters.get(name) == count for name, count in COUNTERS.items()) and all(gauges.get(name) == value for name, value in GAUGES.items())
        return True if is_there and all(gauges.get(name) for name in LATENCIES) and "mem.gc_runs" in counters else None

    return read


def check(name, statsd, nodes):
    problems = []
    try:
        servers.until(settled(statsd), name)
    except SystemExit as error:
        problems.append(f"{error}; it has {statsd.seen()[:2]}")
    # Another push or two must change nothing.
    time.sleep(2.5)
    counters, gauges, prefixes, longest = statsd.seen()
    for of, seen in ((COUNTERS, counters), (GAUGES, gauges)):
        problems += [f"{key} is {seen.get(key)}, not {value}" for key, value in of.items() if seen.get(key) != value]
    for key in LATENCIES:
        if not HELD_S * 1e9 <= gauges.get(key, 0) <= 60e9:
            problems.append(f"{key} is {gauges.get(key)}, although messages were held for {HELD_S} s")
    if longest > 508:
        problems.append(f"a packet of {longest} bytes")
    memory = {len(of) for key, of in prefixes.items() if key.startswith("mem.")}
    topics = {len(of) for key, of in prefixes.items() if key.startswith("topic.")}
    if memory != {nodes} or topics != {1}:
        problems.append(f"memory came from {memory} nodes, topics from {topics}")
    return problems


NO_LATENCY = {"count": 0, "percentiles": None}


def latency_in_stats(server):
    answer = ask(server.http_port, request("GET", "/stats?format=json&topic=t&channel=c"), "GET")
    topic = json.loads(answer.body)["topics"][0]
    return [topic["e2e_processing_latency"], topic["channels"][0]["e2e_processing_latency"]]


def check_stats(stock, nodes):
    """The latencies of stock nsqd, and of one of the nodes: the one that leads the topic (decision 0016)."""
    problems = []
    for name, servers_asked in (("nsqd", [stock]), ("nsquorum", nodes)):
        shown = [latency_in_stats(server) for server in servers_asked]
        leading = [latencies for latencies in shown if latencies != [NO_LATENCY, NO_LATENCY]]
        if len(leading) != 1:
            problems.append(f"{name}: {len(leading)} nodes show latencies, not one: {shown}")
        for latency in (latency for latencies in leading for latency in latencies):
            quantiles = [percentile["quantile"] for percentile in latency["percentiles"] or []]
            values = [percentile["value"] for percentile in latency["percentiles"] or []]
            if latency["count"] != 2 or quantiles != PERCENTILES or not all(HELD_S * 1e9 <= value <= 60e9 for value in values):
                problems.append(f"{name}: /stats shows {latency}")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stock-programs", required=True, type=pathlib.Path)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--nodes", type=int, default=1)
    options = parser.parse_args()
    started, problems = [], []
    with tempfile.TemporaryDirectory(prefix="nsquorum-statsd.") as directory:
        directory = pathlib.Path(directory)
        try:
            ours, theirs = Statsd(), Statsd()
            started.append(servers.start_stock(options.stock_programs, directory, flags(theirs)))
            started += servers.start_nodes(options.binary, directory, flags(ours), options.nodes)
            stock, *nodes = started
            clients = traffic(stock) + traffic(nodes[-1])
            problems += [f"nsqd: {problem}" for problem in check("nsqd's figures", theirs, 1)]
            problems += [f"nsquorum: {problem}" for problem in check("nsquorum's figures", ours, options.nodes)]
            problems += check_stats(stock, nodes)
            names = [set(statsd.seen()[0]) | set(statsd.seen()[1]) for statsd in (theirs, ours)]
            if names[0] != names[1]:
                problems.append(f"names: only nsqd {sorted(names[0] - names[1])}, only nsquorum {sorted(names[1] - names[0])}")
            for client in clients:
                client.close()
        finally:
            exits = [server.stop() for server in started]
    if any(exits):
        problems.append(f"exit codes {exits}")
    for problem in problems:
        print(f"FAILED {problem}")
    print(f"statsd of stock nsqd and of {options.nodes} node(s): {len(names[0])} names, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
