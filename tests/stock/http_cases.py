"""What stock nsqd and nsquorum are both asked, in this order: later requests see what earlier ones have made."""

import json
import re
import struct
import urllib.parse
from dataclasses import dataclass
from typing import Any, Callable

import nsq_tcp
import totals
from exchange import ask

MAX_MSG_SIZE = 2000
MAX_BODY_SIZE = 9000
FLAGS = [f"--max-msg-size={MAX_MSG_SIZE}", f"--max-body-size={MAX_BODY_SIZE}"]


@dataclass
class Case:
    """One request."""

    name: str
    method: str
    request: Any
    # Whether it is compared if the connection goes on, and what the body is. (A request that is cut short would swallow the next one.)
    alive: bool = True
    body: bool = True


@dataclass
class Step:
    """Something that is done to each server, and not compared."""

    name: str
    run: Callable


class World:
    """What steps keep of each server, and the rest of its cluster."""

    def __init__(self, server, tls=False, others=()):
        self.server = server
        self.others = others
        self.tls = tls
        self.clients = []

    def ask(self, request, method, alive=False, server=None):
        server = server or self.server
        return ask(server.https_port if self.tls else server.http_port, request, method, alive, self.tls)

    def answer(self, case):
        """The answer to a case, with the counts of the whole cluster and without what only this server can say."""
        answer = self.ask(case.request, case.method, case.alive)
        if self.others and answer is not None and answer.status == 200 and case.name.startswith("GET /stats"):
            others = [self.ask(case.request, case.method, server=other).body for other in self.others]
            answer.body = totals.added_up_body(answer.body, others)
        if answer is not None and not case.body:
            answer.body = b""
        if answer is not None and len(answer.body) < 100_000:
            for value, name in self.server.own_values():
                answer.body = answer.body.replace(value.encode(), name.encode())
        return answer

    def stats(self):
        """With the counts of the whole cluster."""
        own, *others = [json.loads(self.ask(request("GET", "/stats?format=json"), "GET", server=server).body) for server in (self.server, *self.others)]
        return totals.added_up(own, others)

    def client(self):
        client = nsq_tcp.Client(self.server.tcp_port)
        self.clients.append(client)
        return client

    def close(self):
        for client in self.clients:
            client.close()


def head(method, target, *headers, version="1.1"):
    lines = [f"{method} {target} HTTP/{version}", "Host: localhost", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def request(method, target, body=None, *headers, version="1.1"):
    if body is None:
        return head(method, target, *headers, version=version)
    return head(method, target, *headers, f"Content-Length: {len(body)}", version=version) + body


def case(method, target, body=None, *headers, name=None, version="1.1"):
    label = name or " ".join([method, target, *([f"({len(body)} bytes)"] if body is not None else []), *headers])
    return Case(label, method, request(method, target, body, *headers, version=version))


def chunked(method, target, chunks, *headers, name, trailer=b""):
    data = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return Case(name, method, head(method, target, "Transfer-Encoding: chunked", *headers) + data + b"0\r\n" + trailer + b"\r\n")


def mpub(*messages, count=None):
    data = struct.pack(">i", len(messages) if count is None else count)
    return data + b"".join(struct.pack(">i", len(message)) + message for message in messages)


ENDPOINTS = [
    "/ping", "/info", "/stats", "/pub", "/mpub",
    *(f"/{of}/{action}" for of in ("topic", "channel") for action in ("create", "delete", "empty", "pause", "unpause")),
    "/config/log_level", "/debug/setblockrate", "/debug/freememory", "/debug/pprof/symbol",
]
METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]


def every_method():
    for target in ENDPOINTS:
        for method in METHODS:
            yield case(method, target, b"" if method in ("POST", "PUT") else None)


def paths():
    for target in [
        "/", "//", "/pin", "/ping/x", "/topic", "/topic/", "/channel", "/put", "/mput", "/create_topic", "/lookup", "/config",
        "/config/", "/config/log_level/", "/config//log_level", "/config/log_level/x", "/CONFIG/log_level", "/Config/LOG_LEVEL",
        "/ping/", "//ping", "/ping//", "//ping//", "/PING", "/Ping/", "/./ping", "/x/../ping", "/../ping", "/ping/.", "/ping/..", "/stats/",
        "//stats?format=json&topic=nothing", "/stats/?format=json", "/STATS?a=<b>&c=\"d\"", "/%70ing", "/ping%2f", "/ping%20", "/ping%",
        "/ping?x=%", "/ping?;", "/ping#x", "/info?whatever=1", "/info/", "/topic/create", "/topic//create", "/debug", "/debug/",
        "/debug/pprof", "/debug/nothing", "http://localhost/ping", "http://elsewhere:99/ping?x=1",
    ]:
        yield case("GET", target)
    for target in ["/ping/", "/pub/", "//pub?topic=t", "/PUB?topic=t", "/topic/create/", "//topic/create?topic=paths1", "/topic//create", "/Topic/Create?topic=paths2"]:
        yield case("POST", target, b"x")
    for target in ["/config/log_level/", "//config/log_level", "/Config/log_level"]:
        yield case("PUT", target, b"info")
    for target in ["*", "/", "/nothing", "/ping/", "/config/x", "//ping"]:
        yield case("OPTIONS", target)
    for target in ["/ping/", "/stats/", "/nothing", "/topic/create/"]:
        yield case("HEAD", target)
        yield case("DELETE", target)
    yield case("BREW", "/ping")
    yield case("get", "/ping")


NAMES = [
    ("", "empty"), ("a", "one letter"), ("A.b_c-9", "all kinds"), ("x" * 64, "64 letters"), ("x" * 65, "65 letters"), ("h$", "dollar"), ("a b", "space"), ("ä", "umlaut"),
    ("e#ephemeral", "ephemeral"), ("#ephemeral", "only the suffix"), ("y" * 54 + "#ephemeral", "64 with suffix"), ("y" * 55 + "#ephemeral", "65 with suffix"),
    ("e#EPHEMERAL", "suffix in capitals"), ("e#ephemeral#ephemeral", "suffix twice"), ("a/b", "slash"), ("a\n", "newline"), ("a%00", "percent"), ("..", "dots"),
]


def names():
    for name, what in NAMES:
        quoted = urllib.parse.quote(name, safe="")
        for target in ["/topic/create", "/topic/pause", "/topic/unpause", "/topic/empty"]:
            yield case("POST", f"{target}?topic={quoted}", b"", name=f"POST {target}, topic: {what}")
        yield case("POST", f"/pub?topic={quoted}", b"body", name=f"POST /pub, topic: {what}")
        yield case("POST", f"/mpub?topic={quoted}", b"a\nb", name=f"POST /mpub, topic: {what}")
        for action in ["create", "pause", "unpause", "empty", "delete"]:
            yield case("POST", f"/channel/{action}?topic=A.b_c-9&channel={quoted}", b"", name=f"POST /channel/{action}, channel: {what}")
            yield case("POST", f"/channel/{action}?topic={quoted}&channel=ch", b"", name=f"POST /channel/{action}, topic: {what}")
        yield case("GET", f"/stats?format=json&include_mem=0&topic=A.b_c-9&channel={quoted}", name=f"GET /stats, channel: {what}")
        yield case("POST", f"/topic/delete?topic={quoted}", b"", name=f"POST /topic/delete, topic: {what}")
        yield case("GET", f"/stats?format=json&include_mem=0&topic={quoted}", name=f"GET /stats, topic: {what}")


def parameters():
    yield case("POST", "/topic/create?topic=params", b"")
    for target in ["/pub", "/mpub", "/topic/create", "/topic/delete", "/topic/empty", "/topic/pause", "/topic/unpause"]:
        for query in ["", "?", "?topic", "?topic=", "?Topic=params", "?topic=h$&topic=params", "?x=%zz&topic=params", "?topic=params;x", "?topic=params%", "?&&topic=nowhere+"]:
            yield case("POST", target + query, b"body")
        yield case("POST", target, b"topic=params", "Content-Type: application/x-www-form-urlencoded")
    for action in ["create", "delete", "empty", "pause", "unpause"]:
        for query in ["", "?topic=params", "?channel=c", "?topic=h$", "?topic=h$&channel=h$", "?topic=params&channel=h$", "?topic=params&channel", "?topic=nothere&channel=c",
                      "?topic=params&channel=none", "?topic=params&channel=c%zz", "?topic=;&channel=c", "?topic=params&topic=h$&channel=c&channel=h$", "?topic=params&channel=c"]:
            yield case("POST", f"/channel/{action}{query}", b"")
    yield case("GET", "/stats?format=json&include_mem=false&topic=params")
    yield case("POST", "/topic/delete?topic=params", b"")
    yield case("POST", "/topic/delete?topic=params", b"")


def publishing():
    for defer in ["0", "1", "-1", "3600000", "3600001", "1.5", "1s", "", "+5", "-0", "0x10", "00012", " 1", "1_000", "9223372036854775807", "9223372036854775808", "99999999999999999999", "4294967296"]:
        yield case("POST", f"/pub?topic=pub.defer&defer={urllib.parse.quote(defer)}", b"deferred", name=f"POST /pub, defer {defer!r}")
    yield case("POST", "/pub?topic=pub.defer&defer", b"deferred")
    yield case("POST", "/pub?topic=pub.defer&defer=0&defer=x", b"deferred")
    yield case("POST", "/pub?topic=pub.new.bad.defer&defer=x", b"deferred")
    yield case("GET", "/stats?format=json&include_mem=0&topic=pub.new.bad.defer")
    for length in [0, 1, MAX_MSG_SIZE - 1, MAX_MSG_SIZE, MAX_MSG_SIZE + 1, MAX_BODY_SIZE, 300_000, 3_000_000]:
        yield case("POST", "/pub?topic=pub.size", b"b" * length)
        yield case("POST", "/pub?topic=h$", b"b" * length)
        yield case("POST", "/pub?x=%zz", b"b" * length)
        yield chunked("POST", "/pub?topic=pub.size", [b"b" * length] if length else [], name=f"POST /pub, {length} bytes in a chunk")
    yield chunked("POST", "/pub?topic=pub.size", [b"b" * 100] * 20, name="POST /pub, 2000 bytes in chunks")
    yield chunked("POST", "/pub?topic=pub.size", [b"b" * 100] * 20 + [b"b"], name="POST /pub, 2001 bytes in chunks")
    yield chunked("POST", "/pub?topic=pub.size", [b"b"], "Trailer: X-Sum", name="POST /pub with a trailer", trailer=b"X-Sum: 1\r\n")
    yield Case("POST /pub, chunk with an extension", "POST", head("POST", "/pub?topic=pub.size", "Transfer-Encoding: chunked") + b"1;a=b\r\nx\r\n0\r\n\r\n")
    yield case("POST", "/pub?topic=pub.binary", bytes(range(256)))
    yield case("POST", "/pub?topic=pub.headers", b"x", "Content-Encoding: gzip")
    yield case("POST", "/pub?topic=pub.headers", b"x", "Content-Type: application/json; charset=utf-8", "Accept: application/json", "Accept-Encoding: gzip, deflate, br")


def publishing_many():
    for length in [0, 1, MAX_BODY_SIZE - 1, MAX_BODY_SIZE, MAX_BODY_SIZE + 1, 300_000]:
        lines = (b"l" * 99 + b"\n") * (length // 100 + 1)
        for target in ["/mpub?topic=mpub.size", "/mpub?topic=h$", "/mpub?topic=mpub.new.%d" % length]:
            yield case("POST", target, lines[:length])
            yield chunked("POST", target, [lines[:length]] if length else [], name=f"POST {target}, {length} bytes in a chunk")
    for what, body in [
        ("one line", b"a"), ("a newline", b"\n"), ("newlines", b"\n\n\n"), ("a last newline", b"a\nb\n"), ("blank lines", b"a\n\n\nb"), ("carriage returns", b"a\r\nb\r\n"),
        ("a line at the limit", b"x" * MAX_MSG_SIZE + b"\n"), ("a line over the limit", b"x" * (MAX_MSG_SIZE + 1)), ("a good line, then one over the limit", b"ok\n" + b"x" * (MAX_MSG_SIZE + 1) + b"\n"),
        ("NUL bytes", b"\x00\n\x00"), ("only a carriage return", b"\r"),
    ]:
        yield case("POST", "/mpub?topic=mpub.text", body, name=f"POST /mpub: {what}")
        yield case("POST", "/mpub?topic=mpub.text&binary=false", body, name=f"POST /mpub, binary=false: {what}")
    for value in ["true", "1", "false", "0", "TRUE", "yes", "", "2", "False"]:
        yield case("POST", f"/mpub?topic=mpub.binary&binary={value}", mpub(b"one", b"two"), name=f"POST /mpub, binary={value!r}")
    yield case("POST", "/mpub?topic=mpub.binary&binary", mpub(b"one", b"two"), name="POST /mpub, binary without a value")
    count_max = (MAX_BODY_SIZE - 4) // 5
    for what, body in [
        ("empty", b""), ("3 bytes", b"\0\0\0"), ("no messages", mpub()), ("count -1", mpub(count=-1)), ("one message", mpub(b"x")), ("an empty message", mpub(b"")),
        ("size -1", struct.pack(">ii", 1, -1)), ("too long a message", mpub(b"x" * (MAX_MSG_SIZE + 1))), ("longest message", mpub(b"x" * MAX_MSG_SIZE)), ("size too great, nothing behind", struct.pack(">ii", 1, 1 << 30)),
        ("too few messages", mpub(b"x", count=2)), ("more than announced", mpub(b"x", b"y", count=1)), ("a message cut short", mpub(b"xyz")[:-1]), ("a size cut short", mpub(b"xyz", count=2) + b"\0"),
        ("greatest count", mpub(*[b"z"] * count_max)), ("count over the limit", mpub(*[b"z"] * count_max, count=count_max + 1)), ("bytes behind", mpub(b"x") + b"tail"),
    ]:
        yield case("POST", "/mpub?topic=mpub.binary&binary=true", body, name=f"POST /mpub, binary: {what}")
        yield chunked("POST", "/mpub?topic=mpub.binary&binary=true", [body] if body else [], name=f"POST /mpub, binary in a chunk: {what}")
    yield case("POST", "/mpub?topic=h$&binary=true", mpub(b""))
    yield case("POST", "/mpub?topic=mpub.new.bad&binary=true", mpub(b""))
    yield case("GET", "/stats?format=json&include_mem=0&topic=mpub.new.bad")


def connections():
    """HTTP itself."""

    def hundred(connection):
        line = connection.line()
        rest = connection.line()
        assert line.startswith("HTTP/1.1 100") and rest == "", line
        connection.continued = True

    yield case("GET", "/ping", None, "Connection: close")
    yield case("GET", "/ping", None, "Connection: keep-alive")
    yield case("GET", "/ping", version="1.0", name="HTTP/1.0")
    yield case("GET", "/ping", None, "Connection: keep-alive", version="1.0", name="HTTP/1.0 with keep-alive")
    yield case("GET", "/nothing", version="1.0", name="HTTP/1.0, not found")
    yield Case("HTTP/1.0 without Host", "GET", b"GET /ping HTTP/1.0\r\n\r\n")
    yield Case("HTTP/1.1 without Host", "GET", b"GET /ping HTTP/1.1\r\n\r\n")
    yield Case("HTTP/1.1 with two Hosts", "GET", b"GET /ping HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    yield case("POST", "/pub?topic=http10", b"x", version="1.0", name="POST /pub over HTTP/1.0")
    yield Case("POST without a length", "POST", head("POST", "/pub?topic=nolength"))
    yield Case("POST /topic/create without a length", "POST", head("POST", "/topic/create?topic=nolength"))
    yield case("GET", "/ping", b"body of a GET")
    yield case("GET", "/stats?format=json&include_mem=0&topic=none", b"body of a GET")
    yield case("POST", "/topic/create?topic=withbody", b"b" * 100_000)
    yield case("POST", "/nothing", b"b" * 100_000)
    yield case("POST", "/ping", b"b" * 100_000)
    yield Case("Expect: 100-continue", "POST", [head("POST", "/pub?topic=expect", "Content-Length: 4", "Expect: 100-continue"), hundred, b"body"])
    yield Case("Expect: 100-continue without waiting", "POST", request("POST", "/pub?topic=expect", b"body", "Expect: 100-continue"))
    yield Case("Expect: 100-continue, too long", "POST", head("POST", "/pub?topic=expect", "Content-Length: 100000", "Expect: 100-continue"), alive=False)
    yield Case("Expect: 100-continue, /mpub too long", "POST", head("POST", "/mpub?topic=expect", "Content-Length: 100000", "Expect: 100-continue"), alive=False)
    yield Case("Expect: 100-continue, bad topic for /mpub", "POST", head("POST", "/mpub?topic=h$", "Content-Length: 4", "Expect: 100-continue"), alive=False)
    yield Case("Expect: 100-continue, not found", "POST", head("POST", "/nothing", "Content-Length: 4", "Expect: 100-continue"), alive=False)
    yield Case("Expect: something else", "POST", request("POST", "/pub?topic=expect", b"body", "Expect: miracles"))
    for accept in ["application/vnd.nsq; version=1.0", "text/html", "*/*", "application/json"]:
        for target in ["/ping", "/info", "/stats?format=json&include_mem=0&topic=none", "/nothing"]:
            yield case("GET", target, None, f"Accept: {accept}")
    yield case("GET", "/ping", None, "If-None-Match: *", "Range: bytes=0-0")
    yield case("GET", "/ping", None, "X-Long: " + "x" * 20_000, name="a header of 20,000 bytes")
    yield case("GET", "/ping?" + "x" * 20_000, name="a query of 20,000 bytes")
    yield Case("a bad request line", "GET", b"nonsense\r\n\r\n")
    yield Case("a bad version", "GET", b"GET /ping HTTP/3.7\r\nHost: x\r\n\r\n")
    yield Case("a bad length", "POST", head("POST", "/pub?topic=x", "Content-Length: x"))
    yield Case("two lengths", "POST", head("POST", "/pub?topic=x", "Content-Length: 1", "Content-Length: 2"))
    yield Case("an unknown transfer encoding", "POST", head("POST", "/pub?topic=x", "Transfer-Encoding: foo"))
    yield Case("a broken chunk", "POST", head("POST", "/pub?topic=x", "Transfer-Encoding: chunked") + b"zz\r\n\r\n")
    yield Case("newlines without carriage returns", "GET", b"GET /ping HTTP/1.1\nHost: x\n\n")
    yield Case("empty lines before the request", "GET", b"\r\n\r\n" + head("GET", "/ping"))


CONFIG = """
id log_level log_prefix tcp_address http_address https_address broadcast_address broadcast_tcp_port broadcast_http_port nsqlookupd_tcp_addresses auth_http_addresses
http_client_connect_timeout http_client_request_timeout data_path mem_queue_size max_bytes_per_file sync_every sync_timeout queue_scan_selection_count
queue_scan_worker_pool_max msg_timeout max_msg_timeout max_msg_size max_body_size max_req_timeout max_heartbeat_interval max_rdy_count max_output_buffer_size
max_output_buffer_timeout min_output_buffer_timeout output_buffer_timeout max_channel_consumers statsd_address statsd_prefix statsd_interval statsd_mem_stats
statsd_udp_packet_size statsd_exclude_ephemeral e2e_processing_latency_window_time e2e_processing_latency_percentiles tls_cert tls_key tls_client_auth_policy
tls_root_ca_file tls_required tls_min_version deflate max_deflate_level snappy
""".split()


def config():
    for option in [*CONFIG, "node_id", "lookupd_tcp_address", "auth_http_address", "e2e_processing_latency_percentile", "log-level", "LOG_LEVEL", "version", "config", "verbose",
                   "logger", "client_timeout", "nothing", "%6cog_level", "log_level%20"]:
        yield case("GET", f"/config/{option}")
        if option not in ("log_level", "nsqlookupd_tcp_addresses", "%6cog_level"):
            yield case("PUT", f"/config/{option}", b"value")
    for level in ["debug", "DEBUG", "info", "warn", "error", "fatal", "Fatal", "warning", "1", "", "info\n", "\xff", " info", '"info"', "x" * 3000]:
        yield case("PUT", "/config/log_level", level.encode("latin-1"), name=f"PUT /config/log_level {level[:10]!r}")
    yield case("GET", "/config/log_level")
    yield case("PUT", "/config/log_level", b"info")
    yield Step("the log follows the level", log_follows)
    # Addresses where nobody listens: they must be resolvable, because nsqd waits for names.
    for value in [b'["127.0.0.1:1"]', b'["127.0.0.1:1","127.0.0.1:2"]', b" [ ] ", b"[]", b"null", b"", b"x", b'"127.0.0.1:1"', b"[1]", b'[null]', b'{"a":1}', b'["a"] x', b'["127.0.0.1:1",]', b"x" * 3000]:
        yield case("PUT", "/config/nsqlookupd_tcp_addresses", value, name=f"PUT /config/nsqlookupd_tcp_addresses {value[:40]!r}")
        yield case("GET", "/config/nsqlookupd_tcp_addresses", name=f"GET /config/nsqlookupd_tcp_addresses after {value[:40]!r}")
    yield case("PUT", "/config/nsqlookupd_tcp_addresses", b"[]")
    yield chunked("PUT", "/config/log_level", [b"in", b"fo"], name="PUT /config/log_level in chunks")


def log_follows(world):
    def changes(level):
        """How many changes are in the log after one more."""
        assert world.ask(request("PUT", "/config/log_level", level), "PUT").status == 200
        return len(re.findall("changed over HTTP|PUT /config/log_level", world.server.log.read_text()))

    quiet = changes(b"error")
    assert changes(b"error") == quiet, f"{world.server.name} logs below its level"
    assert changes(b"info") == quiet + 1, f"{world.server.name} does not log at its level"
    yield from ()


def debugging():
    for rate in ["0", "1000", "-1", "x", "", "1.5", "99999999999999999999"]:
        yield case("PUT", f"/debug/setblockrate?rate={rate}", b"")
    yield case("PUT", "/debug/setblockrate", b"rate=5", "Content-Type: application/x-www-form-urlencoded")
    for target in ["/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/goroutine", "/debug/pprof/block", "/debug/pprof/threadcreate", "/debug/pprof/symbol", "/debug/pprof/nothing"]:
        yield Case(f"GET {target}", "GET", head("GET", target), body=False)


def statistics():
    """A topic with everything, and /stats of it in all forms."""

    def depth_is(topic, channel, **wanted):
        def run(world):
            while True:
                stats = world.stats()
                found = [t for t in stats["topics"] if t["topic_name"] == topic]
                if channel is not None:
                    found = [c for t in found for c in t["channels"] if c["channel_name"] == channel]
                if found and all(found[0][key] == value for key, value in wanted.items()):
                    return
                yield

        return Step(f"{topic}/{channel} has {wanted}", run)

    def listen(world):
        """Without it a new leader, which a cluster may get at any time, would delete the channel."""
        client = world.client()
        client.identify(client_id="a listener", heartbeat_interval=60_000)
        client.ok(b"SUB stats.a c#ephemeral")
        yield from ()

    yield case("POST", "/topic/create?topic=stats.a", b"")
    yield case("POST", "/topic/create?topic=stats.b", b"")
    yield case("POST", "/topic/pause?topic=stats.b", b"")
    yield case("POST", "/channel/create?topic=stats.a&channel=z", b"")
    yield case("POST", "/channel/create?topic=stats.a&channel=c%23ephemeral", b"")
    yield Step("a consumer of the ephemeral channel", listen)
    yield case("POST", "/channel/create?topic=stats.a&channel=paused", b"")
    yield case("POST", "/channel/pause?topic=stats.a&channel=paused", b"")
    yield case("POST", "/channel/create?topic=stats.b&channel=c", b"")
    for number in range(5):
        yield case("POST", "/pub?topic=stats.a", b"message %d" % number)
    yield case("POST", "/pub?topic=stats.a&defer=3600000", b"late")
    yield case("POST", "/mpub?topic=stats.b", b"a\nb\nc")
    yield depth_is("stats.a", "z", depth=5, deferred_count=1)
    yield depth_is("stats.a", "paused", depth=5, deferred_count=1)
    yield depth_is("stats.b", "c", depth=0)

    def consume(world):
        client = world.consumer = world.client()
        client.identify(client_id="the client", hostname="the host", user_agent="differential/1", feature_negotiation=True, sample_rate=0, msg_timeout=600_000, heartbeat_interval=60_000)
        client.ok(b"SUB stats.a z")
        client.command(b"RDY 3")
        first = client.message()[0]
        second = client.message()[0]
        client.message()
        client.command(b"FIN " + first)
        # The one in the place of the finished one.
        client.message()
        client.command(b"RDY 0")
        client.command(b"REQ " + second + b" 3600000")
        yield from depth_is("stats.a", "z", depth=1, in_flight_count=2, deferred_count=2, requeue_count=1).run(world)

    def produce(world):
        client = world.producer = world.client()
        client.identify(client_id="a producer", hostname="another host", user_agent="differential/2")
        client.ok(b"PUB stats.p", b"x")
        client.ok(b"MPUB stats.p", mpub(b"x", b"y"))
        plain = world.client()
        plain.ok(b"DPUB stats.p 3600000", b"x")
        yield from depth_is("stats.p", None, message_count=4).run(world)

    def idle(world):
        """Connected, neither consumer nor producer."""
        world.client().identify(client_id="idle")
        yield from ()

    yield Step("a consumer", consume)
    yield Step("producers", produce)
    yield Step("an idle client", idle)
    queries = ["", "topic=stats.a", "topic=stats.a&channel=z", "topic=stats.a&channel=nothing", "topic=nothing", "topic=nothing&channel=z", "channel=z", "channel=nothing", "topic=stats.b", "topic=stats.p",
               "include_clients=false", "include_clients=0", "include_clients=1", "include_clients=no", "include_clients", "include_mem=false", "include_mem=0", "include_mem=x",
               "include_clients=false&include_mem=false&topic=stats.a&channel=z", "topic=&channel=", "topic=h$", "channel=h$", "topic=stats.a&channel=h$", "topic=stats.a&channel=c%23ephemeral"]
    for query in queries:
        yield case("GET", f"/stats?format=json&{query}")
        yield case("GET", f"/stats?{query}")
    for query in ["format=text", "format=xml", "format=JSON", "format", "format=text&format=json", "format=json&format=text", "format=json;", "x=%zz"]:
        yield case("GET", f"/stats?{query}&topic=stats.b&include_mem=0")
    yield case("POST", "/topic/unpause?topic=stats.b", b"")
    yield depth_is("stats.b", "c", depth=3)
    yield case("GET", "/stats?format=json&topic=stats.b&include_mem=0")
    yield case("POST", "/channel/empty?topic=stats.b&channel=c", b"")
    yield depth_is("stats.b", "c", depth=0)
    yield case("GET", "/stats?format=json&topic=stats.b&include_mem=0")
    yield case("POST", "/topic/empty?topic=stats.a", b"")
    yield case("POST", "/channel/empty?topic=stats.a&channel=z", b"")
    yield depth_is("stats.a", "z", depth=0, in_flight_count=0, deferred_count=0)
    yield case("GET", "/stats?format=json&topic=stats.a&channel=z&include_mem=0")
    yield case("POST", "/channel/delete?topic=stats.a&channel=paused", b"")
    yield case("POST", "/channel/delete?topic=stats.a&channel=paused", b"")
    yield case("GET", "/stats?format=json&topic=stats.a&include_mem=0")


def tls_cases():
    """Where TLS is required, or not; the same over both ports."""
    for target in ["/ping", "/stats?format=json&include_mem=0", "/info", "/nothing", "/ping/", "//ping", "/config/tls_required", "/config/tls_client_auth_policy", "/config/tls_min_version"]:
        yield case("GET", target)
    for method in ["HEAD", "OPTIONS", "DELETE"]:
        yield case(method, "/ping")
    yield case("OPTIONS", "*")
    yield case("POST", "/pub?topic=tls", b"x")
    yield case("POST", "/pub?topic=tls", b"b" * (MAX_MSG_SIZE + 1))
    yield case("GET", "/ping", None, "Connection: close")
    yield case("GET", "/stats?format=json&include_mem=0&topic=tls")


def all_cases():
    yield case("GET", "/stats?format=json", name="GET /stats of an empty node")
    yield case("GET", "/stats", name="GET /stats of an empty node as text")
    for part in [every_method, paths, parameters, names, config, debugging, publishing, publishing_many, connections]:
        yield from part()
    # A node with little else, so that the whole of /stats can be compared.
    yield Step("the topics so far are deleted", delete_all)
    yield from statistics()


def delete_all(world):
    for topic in world.stats()["topics"]:
        name = urllib.parse.quote(topic["topic_name"], safe="")
        answer = world.ask(request("POST", f"/topic/delete?topic={name}", b""), "POST")
        assert answer.status == 200, (name, answer)
    while world.stats()["topics"]:
        yield
