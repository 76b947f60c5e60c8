"""A small NSQ client and the processes that the migration test runs; nothing but the standard library."""

import json
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import totals

PATIENCE_S = 60


class Failed(Exception):
    """Something is not as it has to be."""


def wait_for(what, holds, pause_s=0.05):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = holds()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failed(f"waited in vain for {what}")
        time.sleep(pause_s)


class Process:
    """A program whose log says where it listens."""

    started = []

    def __init__(self, name, command, folder):
        self.name = name
        self.log = pathlib.Path(folder) / f"{name}.log"
        self.process = subprocess.Popen(
            [str(part) for part in command], stdout=self.log.open("ab"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
        self.started.append(self.process)

    def text(self):
        return re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text(errors="replace"))

    def said(self, pattern):
        """The last match in the log."""

        def look():
            if self.process.poll() is not None:
                raise Failed(f"{self.name} has ended: {self.text()[-2000:]}")
            found = re.findall(pattern, self.text())
            return found[-1] if found else None

        return wait_for(f"{self.name} to say {pattern}", look)

    @classmethod
    def kill_all(cls):
        """What still runs, after a failure for example."""
        for process in cls.started:
            if process.poll() is None:
                process.kill()
                process.wait()

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(PATIENCE_S)


class Speaks:
    """Whatever answers nsqd's HTTP requests at `http`."""

    def post(self, path, body=b""):
        request = urllib.request.Request(f"http://{self.http}{path}", data=body, method="POST")
        return urllib.request.urlopen(request, timeout=PATIENCE_S).read()

    def stats(self):
        with urllib.request.urlopen(f"http://{self.http}/stats?format=json", timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def channels(self, topic):
        for found in self.stats()["topics"] or []:
            if found["topic_name"] == topic:
                return {channel["channel_name"]: channel for channel in found["channels"]}
        return {}


class Node(Process, Speaks):
    """A stock program whose log says where it listens."""

    def __init__(self, name, command, folder, tcp, http):
        super().__init__(name, command, folder)
        self.tcp, self.http = self.said(tcp), self.said(http)


class OurNode(Process, Speaks):
    """A node of nsquorum, which may wait for others before it serves."""

    def __init__(self, binary, folder, data_path, *flags):
        name = f"nsquorum-{data_path.name}"
        self.ports = pathlib.Path(folder) / f"{name}.ports"
        self.ports.unlink(missing_ok=True)
        addresses = [f"--{what}-address=127.0.0.1:0" for what in ("tcp", "http", "lookup-http")]
        command = [binary, "serve", f"--data-path={data_path}", f"--ports-file={self.ports}", "--lookup-tcp-address="]
        super().__init__(name, [*command, "--broadcast-address=127.0.0.1", *addresses, *flags], folder)

    def serves(self):
        """Returns when it does."""

        def look():
            if self.process.poll() is not None:
                raise Failed(f"{self.name} has ended: {self.text()[-2000:]}")
            return self.ports.exists() and json.loads(self.ports.read_text())

        found = wait_for(f"{self.name} to listen", look)
        self.tcp, self.http, self.lookup = found["tcp"], found["http"], found["lookup_http"]

        def is_ready():
            try:
                return urllib.request.urlopen(f"http://{self.http}/ping", timeout=PATIENCE_S).status == 200
            except urllib.error.HTTPError:
                return False

        wait_for("/ping", is_ready)


class Ours(Speaks):
    """One node of nsquorum, or a cluster: the first node is spoken to, and all are counted."""

    def __init__(self, options, folder, name):
        data_paths = [pathlib.Path(folder) / f"{name}-{number}" for number in range(options.nodes)]
        for data_path in data_paths:
            data_path.mkdir()
        peers = free_addresses(len(data_paths))
        seeds = f"--cluster-seeds={','.join(peers)}"
        cluster = [(seeds, f"--peer-address={peer}") for peer in peers] if len(peers) > 1 else [()]
        self.nodes = [OurNode(options.binary, folder, data_path, *flags) for data_path, flags in zip(data_paths, cluster)]
        for node in self.nodes:
            node.serves()
        self.lookups = [node.lookup for node in self.nodes]

    @property
    def tcp(self):
        return self.nodes[0].tcp

    @property
    def http(self):
        return self.nodes[0].http

    def stats(self):
        first, *others = (node.stats() for node in self.nodes)
        return totals.added_up(first, others)

    def kill_leader_of(self, topic):
        """Only the leader's node shows counts."""

        def leader():
            counts = [found["message_count"] for node in self.nodes for found in node.stats()["topics"] if found["topic_name"] == topic]
            return len(counts) == len(self.nodes) and any(counts) and self.nodes[counts.index(max(counts))]

        node = wait_for(f"a leader of {topic}", leader)
        node.stop(signal.SIGKILL)
        self.nodes.remove(node)

    def stop(self):
        for node in self.nodes:
            node.process.terminate()
        for node in self.nodes:
            node.stop()


def free_addresses(count):
    reserved = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in reserved]
    for one in reserved:
        one.close()
    return addresses


def stock_nsqd(binary, folder, data_path, *flags):
    command = [binary, "--data-path", data_path, "--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0", *flags]
    name = f"nsqd-{pathlib.Path(data_path).name}"
    return Node(name, command, folder, r"TCP: listening on (\S+)", r"HTTP: listening on (\S+)")


class Consumer:
    """Subscribes and takes messages; what is not finished stays in flight until the connection ends."""

    def __init__(self, address, topic, channel, ready, msg_timeout_ms=600_000):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
        self.buffer = b""
        settings = json.dumps({"msg_timeout": msg_timeout_ms, "heartbeat_interval": 60_000, "feature_negotiation": False}).encode()
        self.socket.sendall(b"  V2IDENTIFY\n" + struct.pack(">I", len(settings)) + settings)
        if self.frame() is None:
            raise Failed("no answer to IDENTIFY")
        self.socket.sendall(f"SUB {topic} {channel}\n".encode())
        self.expect_ok()
        self.socket.sendall(f"RDY {ready}\n".encode())

    def frame(self, wait_s=PATIENCE_S):
        """None if nothing has come by then."""
        deadline = time.monotonic() + wait_s
        while len(self.buffer) < 4 or len(self.buffer) < 4 + struct.unpack_from(">I", self.buffer)[0]:
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                received = self.socket.recv(1 << 20)
            except TimeoutError:
                return None
            if not received:
                raise Failed("the connection has ended")
            self.buffer += received
        size, kind = struct.unpack_from(">II", self.buffer)
        content, self.buffer = self.buffer[8 : 4 + size], self.buffer[4 + size :]
        return kind, content

    def expect_ok(self):
        if (frame := self.frame()) != (0, b"OK"):
            raise Failed(f"refused: {frame}")

    def message(self, wait_s=PATIENCE_S):
        """Id and body; None if nothing has come by then."""
        while (frame := self.frame(wait_s)) == (0, b"_heartbeat_"):
            self.command("NOP")
        if frame is None:
            return None
        kind, content = frame
        if kind != 2:
            raise Failed(f"not a message: {kind} {content}")
        return content[10:26].decode(), content[26:]

    def command(self, line):
        self.socket.settimeout(PATIENCE_S)
        self.socket.sendall(line.encode() + b"\n")

    def close(self):
        self.socket.close()
