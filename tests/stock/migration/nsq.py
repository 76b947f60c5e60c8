"""A small NSQ client and the processes that the migration test runs; nothing but the standard library."""

import json
import pathlib
import re
import signal
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.request

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


class Node(Process):
    """A stock nsqd, or ours."""

    def __init__(self, name, command, folder, tcp, http):
        super().__init__(name, command, folder)
        self.tcp, self.http = self.said(tcp), self.said(http)

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


def stock_nsqd(binary, folder, data_path, *flags):
    command = [binary, "--data-path", data_path, "--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0", *flags]
    name = f"nsqd-{pathlib.Path(data_path).name}"
    return Node(name, command, folder, r"TCP: listening on (\S+)", r"HTTP: listening on (\S+)")


def our_node(binary, folder, data_path, *flags):
    addresses = [f"--{what}-address=127.0.0.1:0" for what in ("tcp", "http", "lookup-http", "https")]
    command = [binary, "serve", "--data-path", data_path, *addresses, *flags]
    node = Node(f"nsquorum-{pathlib.Path(data_path).name}", command, folder, r"listening tcp=(\S+)", r"listening tcp=\S+ http=(\S+)")

    def is_ready():
        try:
            return urllib.request.urlopen(f"http://{node.http}/ping", timeout=PATIENCE_S).status == 200
        except urllib.error.HTTPError:
            return False

    wait_for("/ping", is_ready)
    return node


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
