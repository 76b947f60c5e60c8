#!/usr/bin/env python3
"""Stock nsqlookupd beside nsquorum's lookup service: the same TCP lines and HTTP requests, and the same answers.

The lookup service is asked in both its forms: on a node, whose own entry is taken out of the answers, and alone, under the name nsqlookupd.
Lists come in any order from stock nsqlookupd and are compared sorted; times and ports are masked.
"""

import argparse
import http.client
import json
import os
import pathlib
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time

PATIENCE_S = 60
HEADERS = ["Content-Type", "X-Nsq-Content-Type", "Allow", "Location"]
NEVER = -6795364578871345152

# What differs on purpose. Requests are named as they are sent, TCP scripts by their name.
DELIBERATE = {
    "GET /lookup?topic=*": "a topic named * stands for all topics in stock nsqlookupd, by accident",
    "GET /channels?topic=*": "the same",
    "GET /debug/pprof/cmdline": "profiles of the Go runtime",
    "tcp: a body of negative size": "stock nsqlookupd crashes",
    "tcp: a body above the limit": "stock nsqlookupd waits for any size that it is told",
    "tcp: a line above the limit": "stock nsqlookupd buffers a line of any length",
}
# Beyond nsqlookupd 1.3.0: later versions send them, and old clients ignore them.
ADDED_KEYS = {"topology_zone", "topology_region"}


class Subject:
    """A running lookup service."""

    def __init__(self, name, process, tcp, http_port, own=None):
        self.name, self.process, self.tcp, self.http, self.own = name, process, tcp, http_port, own
        self.peers = {}

    def request(self, method, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=PATIENCE_S)
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        headers = {name: answer.headers.get(name) for name in HEADERS}
        return answer.status, headers, self.masked(path, body)

    def masked(self, path, body):
        try:
            value = json.loads(body)
        except ValueError:
            return body
        return normal(self.without_own(value), self.names())

    def names(self):
        names = {f"127.0.0.1:{socket.getsockname()[1]}": f"<{name}>" for name, socket in self.peers.items() if socket.fileno() >= 0}
        return names

    def without_own(self, value):
        """The node that answers is no registration."""
        if self.own is None or not isinstance(value, dict):
            return value
        def is_own(entry):
            return isinstance(entry, dict) and entry.get("tcp_port") == self.own
        cleaned = {}
        for key, entries in value.items():
            if isinstance(entries, list):
                left = [entry for entry in entries if not is_own(entry)]
                if ":" in key and not left:
                    continue  # /debug shows no key without producers
                entries = left
            cleaned[key] = entries
        return cleaned

    def connect(self, name):
        self.peers[name] = socket.create_connection(("127.0.0.1", self.tcp), PATIENCE_S)
        self.peers[name].sendall(b"  V1")

    def ask(self, name, data):
        self.peers[name].sendall(data)
        return [self.greeting(read_frame(self.peers[name]))]

    def all_answers(self, data):
        """What comes for `data` until the connection ends."""
        with socket.create_connection(("127.0.0.1", self.tcp), PATIENCE_S) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answers = []
            try:
                while (frame := read_frame(connection)) is not None:
                    answers.append(self.greeting(frame))
            except ConnectionResetError:
                pass  # it may not have read everything before it closed
            return answers

    def greeting(self, frame):
        if frame is None:
            return "<closed>"
        text = frame.decode("latin1")
        if text.startswith("{"):
            value = json.loads(text)
            ports = (value.pop("tcp_port") == self.tcp, value.pop("http_port") == self.http)
            value.pop("broadcast_address")
            return f"greeting {json.dumps(value, sort_keys=True)} ports {ports}"
        return text

    def stop(self):
        for peer in self.peers.values():
            peer.close()
        self.process.terminate()
        return self.process.wait(PATIENCE_S)


def read_frame(connection):
    size = read_exactly(connection, 4)
    return None if size is None else read_exactly(connection, struct.unpack(">i", size)[0])


def read_exactly(connection, size):
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            return None
        data += part
    return data


def normal(value, names):
    if isinstance(value, dict):
        out = {}
        for key, inner in value.items():
            if key in ADDED_KEYS:
                continue
            if key == "last_update" or (key == "tombstoned_at" and inner != NEVER):
                inner = "<time>"
            out[key] = normal(inner, names)
        if set(out) >= {"topics", "tombstones"} and len(out["topics"]) == len(value["tombstones"]):
            # The two belong together; neither may be sorted alone.
            pairs = sorted(zip(value["topics"], value["tombstones"]))
            out["topics"], out["tombstones"] = [topic for topic, _ in pairs], [mark for _, mark in pairs]
        return out
    if isinstance(value, list):
        return sorted((normal(inner, names) for inner in value), key=lambda inner: json.dumps(inner, sort_keys=True))
    if isinstance(value, str):
        return names.get(value, value)
    return value


def keys_of(body):
    """The order of keys, outermost first."""
    found = []
    json.loads(body, object_pairs_hook=lambda pairs: found.append([key for key, _ in pairs if key not in ADDED_KEYS]) or dict(pairs))
    return sorted(map(tuple, found))


def identify(**fields):
    body = {"broadcast_address": "n1", "hostname": "h1", "tcp_port": 4150, "http_port": 4151, "version": "1.3.0"} | fields
    return with_body(json.dumps({key: value for key, value in body.items() if value is not None}).encode())


def with_body(body):
    return b"IDENTIFY\n" + struct.pack(">i", len(body)) + body


def tcp_scripts():
    """Whole connections: (name, bytes)."""
    hello = b"  V1"
    ok = hello + identify()
    yield "a ping", hello + b"PING\n"
    yield "pings before and after IDENTIFY", hello + b"PING\nPING\n" + identify() + b"PING\n"
    yield "a wrong magic", b"  V2PING\n"
    yield "half a magic", b"  "
    yield "an empty connection", b""
    yield "half a line", hello + b"PING"
    yield "carriage returns and blanks", hello + b"PING\r\n \tPING \r\n"
    yield "white space beyond ASCII", hello + "\u00a0PING\u2003\n".encode()
    yield "an empty line", hello + b"\n"
    yield "a blank line", hello + b"   \n"
    yield "an unknown command", hello + b"FOO bar\n"
    yield "lower case", hello + b"ping\n"
    yield "bytes that are no text", hello + b"\xff\xfe x\n"
    yield "REGISTER before IDENTIFY", hello + b"REGISTER t$\n"
    yield "UNREGISTER before IDENTIFY", hello + b"UNREGISTER\n"
    yield "IDENTIFY with parameters", hello + b"IDENTIFY a b\n" + identify()[9:]
    yield "IDENTIFY twice", ok + identify()
    yield "IDENTIFY twice without a body", ok + b"IDENTIFY\n"
    yield "no size", hello + b"IDENTIFY\n"
    yield "half a size", hello + b"IDENTIFY\n\0\0"
    yield "half a body", hello + b"IDENTIFY\n" + struct.pack(">i", 100) + b"{}"
    yield "an empty body", hello + with_body(b"")
    for body in ["{", "[]", "null", "{}", "1", '"x"', "{} {}", '{"tcp_port":"1"}', '{"tcp_port":1.5}', '{"broadcast_address":1}']:
        yield f"body {body}", hello + with_body(body.encode())
    for field in ["broadcast_address", "hostname", "tcp_port", "http_port", "version"]:
        yield f"without {field}", hello + identify(**{field: None})
    for field, value in [("tcp_port", 0), ("tcp_port", -1), ("http_port", 99999), ("version", ""), ("broadcast_address", ""), ("hostname", 7)]:
        yield f"{field} {value!r}", hello + identify(**{field: value})
    yield "keys in other cases", hello + with_body(b'{"BROADCAST_address":"n","Tcp_Port":1,"HTTP_PORT":2,"Version":"v"}')
    yield "a key twice", hello + with_body(b'{"broadcast_address":"n","tcp_port":1,"tcp_port":0,"http_port":2,"version":"v"}')
    yield "more keys", hello + identify(remote_address="x", extra={"a": [1]}, topology_zone="z")
    for verb in [b"REGISTER", b"UNREGISTER"]:
        names = [b"", b" ", b" t", b"  t", b" t c", b" t  c", b" t c d", b" t ", b" t$", b" t c$", b" " + b"x" * 64, b" " + b"x" * 65]
        names += [b" t#ephemeral c#ephemeral", b" #ephemeral", b" t#eph", b" t c#x", b" \xff", b" t \xff", b" t\tc", b" t c\t"]
        for name in names:
            text = (verb + name).decode("latin1")
            yield f"{text[:40]!r} ({len(text)})", ok + verb + name + b"\nPING\n"
    yield "a body of negative size", hello + b"IDENTIFY\n" + struct.pack(">i", -1)
    yield "a body above the limit", hello + b"IDENTIFY\n" + struct.pack(">i", 1 << 20)
    yield "a line above the limit", hello + b"x" * 10_000


READS = ["/topics", "/nodes", "/debug"] + [f"/{what}?topic={t}" for what in ["lookup", "channels"] for t in ["t", "u", "v", "e%23ephemeral", "never"]]


def http_requests():
    yield from (("GET", path) for path in ["/ping", "/info", "/topics", "/nodes", "/debug", "/lookup", "/channels"])
    for path in ["/lookup", "/channels"]:
        for topic in ["", "t", "t$", "%ff", "a%20b", "t&topic=u", "%zz", "a;b", "*", "x" * 65]:
            yield "GET", f"{path}?topic={topic}"
    for path in ["/ping/", "//ping", "/PING", "/", "/nothing", "/put", "/topic", "/lookup/", "/debug/", "/debug/pprof/cmdline"]:
        yield "GET", path
    for method in ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"]:
        for path in ["/ping", "/lookup?topic=t", "/topic/create?topic=t", "/nothing"]:
            if method != "POST" or "create" not in path:
                yield method, path
    for path in ["/topic/create", "/topic/delete", "/topic/tombstone", "/channel/create", "/channel/delete"]:
        yield "GET", path
        for query in ["", "?topic=", "?topic=t$", "?topic=%zz", "?channel=c", "?topic=never&channel=", "?topic=never&channel=c$"]:
            yield "POST", path + query
    yield "POST", "/channel/delete?topic=never&channel=never"
    yield "POST", "/topic/delete?topic=never"
    yield "POST", "/topic/tombstone?topic=never&node="
    yield "POST", "/topic/tombstone?topic=never&node=n1:4151"
    yield "POST", "/topic/tombstone?topic=t$&node=n1:4151"


def story():
    """What happens to all of them, step by step; after each the same is read."""
    a = {"broadcast_address": "n1", "hostname": "h1"}
    b = {"broadcast_address": "n2", "hostname": "h2", "http_port": 5151}
    yield "connect", "a"
    yield "ask", "a", identify(**a)
    yield "connect", "b"
    yield "ask", "b", identify(**b)
    yield "ask", "a", b"REGISTER t\n"
    yield "ask", "a", b"REGISTER t c1\n"
    yield "ask", "a", b"REGISTER t c1\n"
    yield "ask", "b", b"REGISTER t c2#ephemeral\n"
    yield "ask", "b", b"REGISTER e#ephemeral c\n"
    yield "post", "/topic/tombstone?topic=t&node=n1:4150"
    yield "post", "/topic/tombstone?topic=t&node=n1:4151"
    yield "ask", "a", b"REGISTER t c3\n"
    yield "ask", "a", b"PING\n"
    yield "ask", "a", b"UNREGISTER t c3\n"
    yield "ask", "b", b"UNREGISTER t c2#ephemeral\n"
    yield "ask", "b", b"UNREGISTER e#ephemeral\n"
    yield "ask", "a", b"UNREGISTER t\n"
    yield "ask", "a", b"REGISTER t c1\n"
    yield "post", "/topic/create?topic=u"
    yield "post", "/channel/create?topic=v&channel=c"
    yield "post", "/channel/create?topic=v&channel=d%23ephemeral"
    yield "ask", "a", b"REGISTER v d#ephemeral\n"
    yield "post", "/channel/delete?topic=v&channel=c"
    yield "post", "/topic/delete?topic=u"
    yield "close", "b"
    yield "post", "/topic/delete?topic=t"
    yield "ask", "a", b"UNREGISTER t c1\n"
    yield "ask", "a", b"REGISTER t\n"
    yield "close", "a"
    yield "post", "/topic/delete?topic=v"
    yield "post", "/topic/delete?topic=t"
    yield "post", "/topic/delete?topic=e%23ephemeral"


class Comparison:
    def __init__(self, stock, ours):
        self.stock, self.ours, self.different, self.count, self.deliberate = stock, ours, [], 0, set()

    def compare(self, name, stock, ours):
        self.count += 1
        if name in DELIBERATE:
            self.deliberate.add(name)
        elif stock != ours:
            self.different.append(f"{name}\n   stock: {stock}\n   ours:  {ours}")

    def tcp(self):
        for name, data in tcp_scripts():
            name = f"tcp: {name}"
            if name in DELIBERATE:
                self.deliberate.add(name)
                answers = self.ours.all_answers(data)
                if not answers[0].startswith("E_"):
                    self.different.append(f"{name}: {answers}")
                continue
            self.compare(name, self.stock.all_answers(data), self.ours.all_answers(data))

    def http(self):
        for method, path in http_requests():
            self.compare(f"{method} {path}", self.stock.request(method, path), self.ours.request(method, path))

    def story(self):
        for step in story():
            answers = []
            for subject in [self.stock, self.ours]:
                answers.append(self.take(subject, step))
            name = f"story: {step}"
            self.compare(name, *answers)
            if step[0] == "close":
                self.until_alike(name)
            for path in READS:
                self.compare(f"{name}: {path}", self.stock.request("GET", path), self.ours.request("GET", path))

    def take(self, subject, step):
        match step:
            case ("connect", peer):
                return subject.connect(peer)
            case ("ask", peer, data):
                return subject.ask(peer, data)
            case ("close", peer):
                return subject.peers.pop(peer).close()
            case ("post", path):
                answer = subject.request("POST", path)
                if subject.own and path.split("?")[0].endswith("/delete"):
                    subject.delete_at_node(path)
                return answer

    def until_alike(self, what):
        """A server hears of a closed connection in its own time."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if all(self.stock.request("GET", path) == self.ours.request("GET", path) for path in READS):
                return
            time.sleep(0.05)

    def orders(self):
        """Keys come in nsqlookupd's order."""
        for subject in [self.stock, self.ours]:
            subject.connect("k")
            subject.ask("k", identify())
            subject.ask("k", b"REGISTER k c\n")
        for path in ["/lookup?topic=k", "/nodes", "/debug", "/info", "/topics", "/channels?topic=k"]:
            orders = []
            for subject in [self.stock, self.ours]:
                connection = http.client.HTTPConnection("127.0.0.1", subject.http, timeout=PATIENCE_S)
                connection.request("GET", path)
                body = connection.getresponse().read().decode()
                connection.close()
                orders.append(sorted(set(keys_of(body))))
            self.compare(f"keys of {path}", *orders)


class Node(Subject):
    """The lookup service of a node. Deleting is up to the producers, of which the node is one, so it is told as tools tell it."""

    def __init__(self, *args, nsqd_http, **named):
        super().__init__(*args, **named)
        self.nsqd_http = nsqd_http

    def delete_at_node(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.nsqd_http, timeout=PATIENCE_S)
        connection.request("POST", path)
        connection.getresponse().read()
        connection.close()


def started(name, argv, log, is_ready):
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT, cwd=log.parent)
    deadline = time.monotonic() + PATIENCE_S
    while (found := is_ready()) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"error: {name} did not start:\n{log.read_text()}")
        time.sleep(0.02)
    return process, found


def listening(log):
    def ports():
        found = dict(re.findall(r"(TCP|HTTP): listening on \S+:(\d+)", log.read_text()))
        return (int(found["TCP"]), int(found["HTTP"])) if len(found) == 2 else None

    return ports


def start_stock(programs, directory):
    log = directory / "stock.log"
    argv = [f"{programs}/nsqlookupd", "--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0", "--broadcast-address=lookup"]
    process, (tcp, http_port) = started("stock nsqlookupd", argv, log, listening(log))
    return Subject("nsqlookupd", process, tcp, http_port)


def start_node(binary, directory):
    (directory / "data").mkdir()
    ports_file = directory / "ports.json"
    argv = [binary, "serve", f"--data-path={directory / 'data'}", f"--ports-file={ports_file}", "--broadcast-address=127.0.0.1"]
    argv += [f"--{kind}-address=127.0.0.1:0" for kind in ["tcp", "http", "lookup-tcp", "lookup-http"]]

    def ports():
        return json.loads(ports_file.read_text()) if ports_file.exists() else None

    process, found = started("the node", argv, directory / "node.log", ports)
    port = {kind: int(found[kind].rsplit(":", 1)[1]) for kind in ["tcp", "http", "lookup_tcp", "lookup_http"]}
    return Node("a node", process, port["lookup_tcp"], port["lookup_http"], own=port["tcp"], nsqd_http=port["http"])


def start_alone(binary, directory):
    """The binary under the name nsqlookupd; None if it does not know that name."""
    link = directory / "nsqlookupd"
    os.symlink(binary, link)
    version = subprocess.run([link, "--version"], capture_output=True, text=True, check=False).stdout
    if not version.startswith("nsqlookupd v"):
        return None
    log = directory / "alone.log"
    argv = [str(link), "--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0", "--broadcast-address=lookup"]
    process, (tcp, http_port) = started("nsqlookupd", argv, log, listening(log))
    return Subject("alone", process, tcp, http_port)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--programs", required=True, help="a folder with the stock programs")
    arguments.add_argument("--binary", required=True, help="nsquorum")
    options = arguments.parse_args()
    failed = False
    for start in [start_node, start_alone]:
        with tempfile.TemporaryDirectory() as directory:
            directory = pathlib.Path(directory)
            ours = start(os.path.abspath(options.binary), directory)
            if ours is None:
                print("NOT RUN: the lookup service alone; this binary does not know the name nsqlookupd")
                continue
            stock = start_stock(options.programs, directory)
            comparison = Comparison(stock, ours)
            try:
                comparison.tcp()
                comparison.until_alike("the end of the scripts")
                comparison.http()
                # Keys of the scripts and requests before are out of the way.
                for topic in ["t", "never", "x" * 64, "t%23ephemeral"]:
                    for subject in [stock, ours]:
                        comparison.take(subject, ("post", f"/topic/delete?topic={topic}"))
                comparison.story()
                comparison.orders()
            finally:
                stock.stop()
                ours.stop()
            for difference in comparison.different:
                print(f"DIFFERENT: {difference}")
            failed = failed or bool(comparison.different)
            print(f"{ours.name}: {comparison.count} comparisons, {len(comparison.different)} differences; {len(comparison.deliberate)} on purpose")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
