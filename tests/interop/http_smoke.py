#!/usr/bin/env python3
"""HTTP of a node, request by request: exact statuses, bodies and headers of nsqd and nsqlookupd.

    http_smoke.py --http-address HOST:PORT [--lookupd-http-address HOST:PORT] [--max-msg-size N] [--max-body-size N]

Needs nothing but Python. The topics that it makes begin with `http_smoke.` and are deleted at the end. What nsqd does
at once and a replicated node may do a moment later (a message moving from a topic to its channels) is waited for;
answers are compared byte by byte.
"""

import argparse
import http.client
import json
import re
import socket
import struct
import sys
import time
import urllib.parse

PATIENCE_S = 10
V1 = "nsq; version=1.0"

STATS_KEYS = ["version", "health", "start_time", "topics", "memory", "producers"]
TOPIC_KEYS = [
    "topic_name",
    "channels",
    "depth",
    "backend_depth",
    "message_count",
    "message_bytes",
    "paused",
    "e2e_processing_latency",
]
CHANNEL_KEYS = [
    "channel_name",
    "depth",
    "backend_depth",
    "in_flight_count",
    "deferred_count",
    "message_count",
    "requeue_count",
    "timeout_count",
    "client_count",
    "clients",
    "paused",
    "e2e_processing_latency",
]
INFO_KEYS = [
    "version",
    "broadcast_address",
    "hostname",
    "http_port",
    "tcp_port",
    "start_time",
    "max_heartbeat_interval",
    "max_output_buffer_size",
    "max_output_buffer_timeout",
    "max_deflate_level",
]
PEER_KEYS = ["remote_address", "hostname", "broadcast_address", "tcp_port", "http_port", "version"]
# What nsqd does not have comes behind what it has.
OWN_KEYS = ["replication_factor", "in_sync_replicas"]
# Added to nsqd after its release 1.3.0: allowed, not demanded.
LATER_KEYS = {"topology_zone", "topology_region", "zone_local_msg_count", "region_local_msg_count", "global_msg_count"}


class Server:
    def __init__(self, address, report):
        self.address = address
        self.report = report
        host, port = address.rsplit(":", 1)
        self.host, self.port = host, int(port)
        self.connection = http.client.HTTPConnection(self.host, self.port, timeout=30)

    def ask(self, method, path, body=None, headers=None, **parameters):
        query = "?" + urllib.parse.urlencode(parameters) if parameters else ""
        try:
            try:
                self.connection.request(method, path + query, body, headers or {})
            except OSError:
                # Refused before all of a big body was sent: the answer is what counts, and it is on its way.
                if self.connection.sock is None:
                    raise
            answer = self.connection.getresponse()
            return answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise

    def expect(self, name, method, path, status, text, body=None, headers=None, **parameters):
        """One request, answered with exactly this status and body (None: not compared)."""
        try:
            got = self.ask(method, path, body, headers, **parameters)
        except (OSError, http.client.HTTPException) as error:
            self.report(name, f"{type(error).__name__}: {error}")
            return b""
        trouble = []
        if got[0] != status:
            trouble.append(f"status {got[0]}, not {status}")
        if text is not None and method != "HEAD" and got[2] != text.encode():
            trouble.append(f"body {got[2][:200]!r}, not {text!r}")
        wanted = None if path == "/ping" and status == 200 else V1
        if wanted and got[1].get("x-nsq-content-type") != wanted:
            trouble.append(f"X-NSQ-Content-Type {got[1].get('x-nsq-content-type')!r}, not {wanted!r}")
        if got[2]:
            kind = "application/json" if got[2][:1] == b"{" else "text/plain"
            if got[1].get("content-type") != f"{kind}; charset=utf-8":
                trouble.append(f"Content-Type {got[1].get('content-type')!r}")
        if status == 405 and "allow" not in got[1]:
            trouble.append("no Allow")
        self.report(name, "; ".join(trouble))
        return got[2]

    def refuse(self, name, method, path, status, code, body=None, **parameters):
        self.expect(
            name, method, path, status, json.dumps({"message": code}, separators=(",", ":")), body, **parameters
        )

    def raw(self, data):
        """Bytes as they are; returns what comes back until the server closes."""
        with socket.create_connection((self.host, self.port), timeout=30) as connection:
            connection.sendall(data)
            answer = b""
            while part := connection.recv(65536):
                answer += part
            return answer


class Report:
    def __init__(self):
        self.passed = self.failed = 0

    def __call__(self, name, trouble=""):
        if trouble:
            self.failed += 1
            print(f"FAILED {name}: {trouble}")
        else:
            self.passed += 1

    def equal(self, name, got, wanted):
        self(name, "" if got == wanted else f"{got!r}, not {wanted!r}")

    def keys(self, name, got, wanted):
        known = [key for key in got if key not in LATER_KEYS]
        if set(known) >= set(OWN_KEYS):
            wanted = wanted + OWN_KEYS
        self.equal(f"{name}: keys in their order", known, wanted)

    def until(self, name, read, wanted):
        deadline = time.monotonic() + PATIENCE_S
        while (got := read()) != wanted and time.monotonic() < deadline:
            time.sleep(0.02)
        self.equal(name, got, wanted)


def stats(server, **parameters):
    return json.loads(server.ask("GET", "/stats", format="json", **parameters)[2])


def topic_counts(server, topic, *names):
    topics = stats(server, topic=topic)["topics"]
    return tuple(topics[0][name] for name in names) if topics else None


def channel_counts(server, topic, channel, *names):
    topics = stats(server, topic=topic, channel=channel)["topics"]
    return tuple(topics[0]["channels"][0][name] for name in names) if topics else None


def general(server, report):
    server.expect("ping", "GET", "/ping", 200, "OK")
    server.refuse("ping: other methods", "POST", "/ping", 405, "METHOD_NOT_ALLOWED", b"")
    server.expect("ping: HEAD is another method", "HEAD", "/ping", 405, None)
    server.refuse("unknown path", "GET", "/nothing", 404, "NOT_FOUND")
    server.refuse("removed before 1.0", "POST", "/put", 404, "NOT_FOUND", b"x", topic="t")
    # go-nsq recognizes an HTTP port by the first bytes of this answer.
    report.equal("bytes that are no HTTP", server.raw(b"  V2NOP\n\n").split(b" ")[:2], [b"HTTP/1.1", b"400"])


def information(server, report):
    info = json.loads(server.expect("info", "GET", "/info", 200, None) or b"{}")
    report.keys("info", info, INFO_KEYS)
    report.equal("info: http_port", info.get("http_port"), server.port)
    report.equal("info: durations are nanoseconds", info.get("max_output_buffer_timeout"), 30_000_000_000)
    report(
        "info: version", "" if re.fullmatch(r"\d+\.\d+\.\d+", info.get("version", "")) else repr(info.get("version"))
    )
    strings = [type(info.get(key)) for key in ("hostname", "broadcast_address")]
    report.equal("info: names are strings", strings, [str, str])
    report.equal("stats: version as in info", stats(server)["version"], info.get("version"))


def publishing(server, report, name, limits):
    topic = name("pub")
    server.expect("pub", "POST", "/pub", 200, "OK", b"one", topic=topic)
    report.until(
        "pub: without a channel it stays in the topic",
        lambda: topic_counts(server, topic, "depth", "message_count", "message_bytes"),
        (1, 1, 3),
    )
    server.expect("pub: a length of 64", "POST", "/pub", 200, "OK", b"x", topic=name("l").ljust(64, "x"))
    server.refuse("pub: a length of 65", "POST", "/pub", 400, "INVALID_TOPIC", b"x", topic=name("l").ljust(65, "x"))
    server.refuse("pub: no topic", "POST", "/pub", 400, "MISSING_ARG_TOPIC", b"x")
    server.refuse("pub: topic in the body", "POST", "/pub", 400, "MISSING_ARG_TOPIC", b"topic=" + topic.encode())
    server.refuse("pub: bad topic", "POST", "/pub", 400, "INVALID_TOPIC", b"x", topic="a b")
    server.refuse("pub: bad query", "POST", "/pub?topic=%zz", 400, "INVALID_REQUEST", b"x")
    server.refuse("pub: nothing", "POST", "/pub", 400, "MSG_EMPTY", b"", topic=topic)
    server.refuse("pub: nothing, no topic", "POST", "/pub", 400, "MSG_EMPTY", b"")
    server.refuse("pub: too big", "POST", "/pub", 413, "MSG_TOO_BIG", b"x" * (limits.max_msg_size + 1), topic=topic)
    server.expect("pub: as big as may be", "POST", "/pub", 200, "OK", b"x" * limits.max_msg_size, topic=topic)
    server.refuse("pub: GET", "GET", "/pub", 405, "METHOD_NOT_ALLOWED", topic=topic)
    for defer in ("abc", "-1", "1.5", "3600001"):
        server.refuse(f"pub: defer={defer}", "POST", "/pub", 400, "INVALID_DEFER", b"x", topic=topic, defer=defer)
    server.expect("pub: defer=3600000", "POST", "/pub", 200, "OK", b"x", topic=topic, defer="3600000")
    server.expect("pub: chunked", "POST", "/pub", 200, "OK", iter([b"in ", b"parts"]), topic=topic)
    answer = server.raw(
        f"POST /pub?topic={topic} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n"
        "Connection: close\r\n\r\nx".encode()
    )
    report.equal("pub: 100-continue", (answer[:12], answer[-2:]), (b"HTTP/1.1 100", b"OK"))
    answer = server.raw(f"POST /pub?topic={topic} HTTP/1.0\r\nContent-Length: 1\r\n\r\nx".encode())
    report.equal("pub: HTTP/1.0", (answer[8:12], answer[-2:]), (b" 200", b"OK"))
    report.until("pub: only what was answered OK is there", lambda: topic_counts(server, topic, "message_count"), (6,))

    topic = name("mpub")
    server.expect("mpub", "POST", "/mpub", 200, "OK", b"one\n\ntwo\r\nthree", topic=topic)
    report.until(
        "mpub: blank lines are skipped, \\r is kept",
        lambda: topic_counts(server, topic, "message_count", "message_bytes"),
        (3, 12),
    )
    server.expect("mpub: nothing", "POST", "/mpub", 200, "OK", b"", topic=topic)
    server.refuse("mpub: no topic", "POST", "/mpub", 400, "MISSING_ARG_TOPIC", b"x")
    server.refuse("mpub: bad topic", "POST", "/mpub", 400, "INVALID_TOPIC", b"x", topic="t$")
    server.refuse(
        "mpub: one is too big",
        "POST",
        "/mpub",
        413,
        "MSG_TOO_BIG",
        b"small\n" + b"x" * (limits.max_msg_size + 1),
        topic=topic,
    )
    server.refuse(
        "mpub: all are too big",
        "POST",
        "/mpub",
        413,
        "BODY_TOO_BIG",
        b"x\n" * (limits.max_body_size // 2 + 1),
        topic=topic,
    )
    for flag in ("true", "1", "anything"):
        server.expect(
            f"mpub: binary={flag}", "POST", "/mpub", 200, "OK", binary(b"a\nb", b"c"), topic=topic, binary=flag
        )
    server.expect("mpub: binary=false", "POST", "/mpub", 200, "OK", b"x\ny", topic=topic, binary="false")
    server.refuse("mpub: binary, nothing", "POST", "/mpub", 413, "BAD_BODY", b"", topic=topic, binary="true")
    server.refuse("mpub: binary, no messages", "POST", "/mpub", 413, "BAD_BODY", binary(), topic=topic, binary="true")
    server.refuse(
        "mpub: binary, one is empty", "POST", "/mpub", 413, "BAD_MESSAGE", binary(b"a", b""), topic=topic, binary="true"
    )
    server.refuse(
        "mpub: binary, cut off",
        "POST",
        "/mpub",
        413,
        "BAD_MESSAGE",
        binary(b"a", b"bcd")[:-1],
        topic=topic,
        binary="true",
    )
    report.until(
        "mpub: all or nothing", lambda: topic_counts(server, topic, "message_count", "message_bytes"), (11, 26)
    )


def binary(*messages):
    return struct.pack(">i", len(messages)) + b"".join(struct.pack(">i", len(one)) + one for one in messages)


def statistics(server, report, name):
    topic = name("stats")
    server.expect("stats", "POST", "/topic/create", 200, "", b"", topic=topic)
    server.expect("stats", "POST", "/channel/create", 200, "", b"", topic=topic, channel="c")
    server.expect("stats", "POST", "/pub", 200, "OK", b"12345", topic=topic)
    text = server.expect("stats", "GET", "/stats", 200, None, format="json", topic=topic)
    start = rb'\{"version":"\d+\.\d+\.\d+","health":"OK","start_time":\d+,"topics":\['
    report("stats: how it begins", "" if re.match(start, text) else repr(text[:80]))
    whole = json.loads(text)
    report.keys("stats", whole, STATS_KEYS)
    report.keys("stats: topic", whole["topics"][0], TOPIC_KEYS)
    report.keys("stats: channel", whole["topics"][0]["channels"][0], CHANNEL_KEYS)
    report.equal("stats: clients of a channel without any", whole["topics"][0]["channels"][0]["clients"], [])
    report.equal(
        "stats: latencies that are not measured",
        whole["topics"][0]["e2e_processing_latency"],
        {"count": 0, "percentiles": None},
    )
    report.until(
        "stats: channel",
        lambda: channel_counts(server, topic, "c", "depth", "in_flight_count", "message_count", "paused"),
        (1, 0, 1, False),
    )
    report.equal(
        "stats: topic",
        topic_counts(server, topic, "topic_name", "depth", "message_count", "paused"),
        (topic, 0, 1, False),
    )
    report.equal("stats: unknown topic", stats(server, topic=name("unknown"))["topics"], None)
    report.equal("stats: unknown channel", stats(server, topic=topic, channel="unknown")["topics"], [])
    report.equal("stats: include_mem=false", "memory" in stats(server, include_mem="false"), False)
    bare = stats(server, topic=topic, include_clients="false")
    report.equal(
        "stats: include_clients=false", (bare["topics"][0]["channels"][0]["clients"], bare["producers"]), (None, None)
    )
    names = [one["topic_name"] for one in stats(server)["topics"]]
    report.equal("stats: topics are sorted", names, sorted(names))


def topics(server, report, name):
    topic = name("topic")
    for again in ("", ", again"):
        server.expect(f"topic/create{again}", "POST", "/topic/create", 200, "", b"", topic=topic)
    server.refuse("topic/create: GET", "GET", "/topic/create", 405, "METHOD_NOT_ALLOWED", topic=topic)
    for action in ("create", "delete", "empty", "pause", "unpause"):
        server.refuse(f"topic/{action}: no topic", "POST", f"/topic/{action}", 400, "MISSING_ARG_TOPIC", b"")
        if action != "create":
            server.refuse(
                f"topic/{action}: unknown",
                "POST",
                f"/topic/{action}",
                404,
                "TOPIC_NOT_FOUND",
                b"",
                topic=name("unknown"),
            )
    for action in ("create", "empty"):
        server.refuse(f"topic/{action}: bad name", "POST", f"/topic/{action}", 400, "INVALID_TOPIC", b"", topic="t$")
    server.refuse("topic/delete: bad name", "POST", "/topic/delete", 404, "TOPIC_NOT_FOUND", b"", topic="t$")

    server.expect("topic/empty", "POST", "/mpub", 200, "OK", b"1\n2\n3", topic=topic)
    report.until("topic/empty: before", lambda: topic_counts(server, topic, "depth"), (3,))
    server.expect("topic/empty", "POST", "/topic/empty", 200, "", b"", topic=topic)
    report.until("topic/empty: after", lambda: topic_counts(server, topic, "depth"), (0,))

    server.expect("topic/pause", "POST", "/channel/create", 200, "", b"", topic=topic, channel="c")
    server.expect("topic/pause", "POST", "/mpub", 200, "OK", b"1\n2", topic=topic)
    report.until("topic/pause: before", lambda: channel_counts(server, topic, "c", "depth"), (2,))
    for again in ("", ", again"):
        server.expect(f"topic/pause{again}", "POST", "/topic/pause", 200, "", b"", topic=topic)
    server.expect("topic/pause", "POST", "/mpub", 200, "OK", b"3\n4\n5", topic=topic)
    report.until(
        "topic/pause: messages stay in the topic", lambda: topic_counts(server, topic, "depth", "paused"), (3, True)
    )
    report.equal("topic/pause: the channel has what it had", channel_counts(server, topic, "c", "depth"), (2,))
    for again in ("", ", again"):
        server.expect(f"topic/unpause{again}", "POST", "/topic/unpause", 200, "", b"", topic=topic)
    report.until("topic/unpause: they reach the channel", lambda: channel_counts(server, topic, "c", "depth"), (5,))
    report.equal("topic/unpause", topic_counts(server, topic, "depth", "paused"), (0, False))
    server.expect("topic/empty: channels keep theirs", "POST", "/topic/empty", 200, "", b"", topic=topic)
    report.equal("topic/empty: channels keep theirs", channel_counts(server, topic, "c", "depth"), (5,))

    server.expect("topic/delete", "POST", "/topic/delete", 200, "", b"", topic=topic)
    report.until("topic/delete: gone", lambda: topic_counts(server, topic, "depth"), None)
    server.refuse("topic/delete: again", "POST", "/topic/delete", 404, "TOPIC_NOT_FOUND", b"", topic=topic)
    server.expect("topic/delete: published to again", "POST", "/pub", 200, "OK", b"x", topic=topic)
    report.until("topic/delete: it begins empty", lambda: topic_counts(server, topic, "depth", "channels"), (1, []))


def channels(server, report, name):
    topic = name("channel")
    server.expect("channel/create", "POST", "/topic/create", 200, "", b"", topic=topic)
    for action in ("create", "delete", "empty", "pause", "unpause"):
        path = f"/channel/{action}"
        server.refuse(f"{path}: nothing", "POST", path, 400, "MISSING_ARG_TOPIC", b"")
        server.refuse(f"{path}: bad topic, no channel", "POST", path, 400, "INVALID_ARG_TOPIC", b"", topic="t$")
        server.refuse(f"{path}: no channel", "POST", path, 400, "MISSING_ARG_CHANNEL", b"", topic=topic)
        server.refuse(f"{path}: bad channel", "POST", path, 400, "INVALID_ARG_CHANNEL", b"", topic=topic, channel="c d")
        server.refuse(
            f"{path}: unknown topic", "POST", path, 404, "TOPIC_NOT_FOUND", b"", topic=name("unknown"), channel="c"
        )
        if action != "create":
            server.refuse(
                f"{path}: unknown channel", "POST", path, 404, "CHANNEL_NOT_FOUND", b"", topic=topic, channel="c"
            )
    server.expect("channel: messages before the first", "POST", "/mpub", 200, "OK", b"1\n2", topic=topic)
    for again in ("", ", again"):
        server.expect(f"channel/create{again}", "POST", "/channel/create", 200, "", b"", topic=topic, channel="c")
    report.until(
        "channel/create: the first gets what is there", lambda: channel_counts(server, topic, "c", "depth"), (2,)
    )
    server.expect("channel/create", "POST", "/channel/create", 200, "", b"", topic=topic, channel="d#ephemeral")
    server.expect("channel: a message for both", "POST", "/pub", 200, "OK", b"3", topic=topic)
    report.until(
        "channel/create: a later one gets what comes later",
        lambda: channel_counts(server, topic, "d#ephemeral", "depth", "message_count"),
        (1, 1),
    )
    for again in ("", ", again"):
        server.expect(f"channel/pause{again}", "POST", "/channel/pause", 200, "", b"", topic=topic, channel="c")
    report.until("channel/pause", lambda: channel_counts(server, topic, "c", "depth", "paused"), (3, True))
    for again in ("", ", again"):
        server.expect(f"channel/unpause{again}", "POST", "/channel/unpause", 200, "", b"", topic=topic, channel="c")
    report.until("channel/unpause", lambda: channel_counts(server, topic, "c", "depth", "paused"), (3, False))
    server.expect("channel/empty: a deferred one too", "POST", "/pub", 200, "OK", b"4", topic=topic, defer="3600000")
    report.until(
        "channel/empty: before",
        lambda: channel_counts(server, topic, "c", "depth", "deferred_count", "message_count"),
        (3, 1, 4),
    )
    server.expect("channel/empty", "POST", "/channel/empty", 200, "", b"", topic=topic, channel="c")
    report.until("channel/empty: after", lambda: channel_counts(server, topic, "c", "depth", "deferred_count"), (0, 0))
    report.equal("channel/empty: the other keeps its own", channel_counts(server, topic, "d#ephemeral", "depth"), (1,))
    for channel in ("c", "d#ephemeral"):
        server.expect("channel/delete", "POST", "/channel/delete", 200, "", b"", topic=topic, channel=channel)
        report.until(
            "channel/delete: gone", lambda channel=channel: stats(server, topic=topic, channel=channel)["topics"], []
        )
    server.expect("channel/delete: after the last one", "POST", "/pub", 200, "OK", b"x", topic=topic)
    report.until("channel/delete: the topic keeps messages again", lambda: topic_counts(server, topic, "depth"), (1,))


def lookup(server, node, report, name):
    server.expect("lookupd: ping", "GET", "/ping", 200, "OK")
    info = json.loads(server.expect("lookupd: info", "GET", "/info", 200, None) or b"{}")
    report.keys("lookupd: info", info, ["version"])
    server.refuse("lookupd: unknown path", "GET", "/nothing", 404, "NOT_FOUND")
    server.refuse("lookup: POST", "POST", "/lookup", 405, "METHOD_NOT_ALLOWED", b"", topic="t")
    server.refuse("lookup: no topic", "GET", "/lookup", 400, "MISSING_ARG_TOPIC")
    server.refuse("lookup: unknown topic", "GET", "/lookup", 404, "TOPIC_NOT_FOUND", topic=name("unknown"))
    server.refuse("channels: no topic", "GET", "/channels", 400, "MISSING_ARG_TOPIC")
    server.expect("channels: unknown topic", "GET", "/channels", 200, '{"channels":[]}', topic=name("unknown"))

    topic = name("lookup")
    of_node = json.loads(node.ask("GET", "/info")[2])
    node.expect("lookup", "POST", "/topic/create", 200, "", b"", topic=topic)
    node.expect("lookup", "POST", "/channel/create", 200, "", b"", topic=topic, channel="c")

    def read(path, **parameters):
        return json.loads(server.ask("GET", path, **parameters)[2])

    report.until("lookup: channels", lambda: read("/lookup", topic=topic).get("channels"), ["c"])
    report.until("channels", lambda: read("/channels", topic=topic), {"channels": ["c"]})
    report.until("topics: has it", lambda: topic in read("/topics")["topics"], True)
    answer = json.loads(server.expect("lookup", "GET", "/lookup", 200, None, topic=topic))
    report.keys("lookup", answer, ["channels", "producers"])
    peers = answer.get("producers") or [{}]
    report.keys("lookup: producer", peers[0], PEER_KEYS)
    report.equal(
        "lookup: the node's ports",
        (peers[0].get("tcp_port"), peers[0].get("http_port")),
        (of_node["tcp_port"], of_node["http_port"]),
    )
    report.equal(
        "lookup: the node's broadcast address", peers[0].get("broadcast_address"), of_node["broadcast_address"]
    )

    nodes = json.loads(server.expect("nodes", "GET", "/nodes", 200, None))
    report.keys("nodes", nodes, ["producers"])
    mine = [peer for peer in nodes["producers"] if peer.get("tcp_port") == of_node["tcp_port"]] or [{}]
    report.keys("nodes: producer", mine[0], [*PEER_KEYS, "tombstones", "topics"])
    report.equal("nodes: a topic of it", topic in mine[0].get("topics", []), True)
    report.equal("nodes: parallel lists", len(mine[0].get("tombstones", [])), len(mine[0].get("topics", [])))
    report.equal("nodes: no tombstones", set(mine[0].get("tombstones", [])), {False})

    node.expect("lookup", "POST", "/topic/delete", 200, "", b"", topic=topic)
    # nsqlookupd knows the name longer than it has producers for it.
    report.until("lookup: nobody has a deleted topic", lambda: read("/lookup", topic=topic).get("producers", []), [])


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--http-address", required=True)
    arguments.add_argument("--lookupd-http-address")
    arguments.add_argument("--max-msg-size", type=int, default=1_048_576, help="as the node has it")
    arguments.add_argument("--max-body-size", type=int, default=5_242_880, help="as the node has it")
    options = arguments.parse_args()

    report = Report()
    node = Server(options.http_address, report)
    prefix = f"http_smoke.{time.time_ns():x}."
    parts = [
        lambda: general(node, report),
        lambda: information(node, report),
        lambda: publishing(node, report, prefix.__add__, options),
        lambda: statistics(node, report, prefix.__add__),
        lambda: topics(node, report, prefix.__add__),
        lambda: channels(node, report, prefix.__add__),
    ]
    if options.lookupd_http_address:
        lookupd = Server(options.lookupd_http_address, report)
        parts.append(lambda: lookup(lookupd, node, report, prefix.__add__))
    for number, part in enumerate(parts, 1):
        try:
            part()
        except Exception as error:  # the other parts still say what works
            report(f"part {number} of {len(parts)}", f"broke off with {type(error).__name__}: {error}")
    try:
        for topic in stats(node)["topics"]:
            if topic["topic_name"].startswith(prefix):
                node.ask("POST", "/topic/delete", b"", topic=topic["topic_name"])
    except (OSError, ValueError, http.client.HTTPException) as error:
        report("cleaning up", f"{type(error).__name__}: {error}")
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
