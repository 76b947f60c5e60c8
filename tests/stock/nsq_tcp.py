"""The TCP protocol as bytes: commands are sent as they are written, frames are returned as they come."""

import json
import socket
import struct
import time

TIMEOUT_S = 30
RESPONSE, ERROR, MESSAGE = 0, 1, 2


class Closed(Exception):
    """The server closed the connection."""


class Client:
    def __init__(self, port, magic=b"  V2"):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.send(magic)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def exactly(self, length, deadline=None):
        while len(self.buffer) < length:
            if deadline is not None:
                self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                part = self.socket.recv(65536)
            except (ConnectionResetError, BrokenPipeError):
                part = b""
            finally:
                self.socket.settimeout(TIMEOUT_S)
            if not part:
                raise Closed
            self.buffer += part
        data, self.buffer = self.buffer[:length], self.buffer[length:]
        return data

    def frame(self):
        """(type, data) of the next frame that is no heartbeat."""
        while True:
            (size,) = struct.unpack(">i", self.exactly(4))
            (kind,) = struct.unpack(">i", self.exactly(4))
            data = self.exactly(size - 4)
            if (kind, data) != (RESPONSE, b"_heartbeat_"):
                return kind, data
            self.send(b"NOP\n")

    def command(self, line, body=None):
        self.send(line + b"\n" + (struct.pack(">I", len(body)) + body if body is not None else b""))

    def ok(self, line, body=None):
        self.command(line, body)
        answer = self.frame()
        assert answer == (RESPONSE, b"OK"), (line, answer)

    def identify(self, **fields):
        self.command(b"IDENTIFY", json.dumps(fields).encode())
        return self.frame()

    def message(self):
        """(id, attempts, body) of the next frame, which is a message."""
        kind, data = self.frame()
        assert kind == MESSAGE, (kind, data)
        return data[10:26], struct.unpack(">H", data[8:10])[0], data[26:]
