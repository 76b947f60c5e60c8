"""HTTP as bytes: a request is sent exactly as it is written, an answer is taken apart and nothing is repaired."""

import socket
import ssl
from dataclasses import dataclass, field

TIMEOUT_S = 30


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes
    # The answer began with 100 Continue.
    continued: bool = False
    # The connection answers another request.
    alive: bool = False
    # Headers that came twice.
    twice: list = field(default_factory=list)


class Closed(Exception):
    """The server closed instead of answering."""


class Connection:
    def __init__(self, port, tls=False):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.socket = context.wrap_socket(self.socket)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            # Refused before all of it was sent; the answer may still be there.
            pass

    def more(self):
        try:
            part = self.socket.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            part = b""
        if not part:
            raise Closed
        self.buffer += part

    def line(self):
        while b"\r\n" not in self.buffer:
            self.more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line.decode("latin-1")

    def exactly(self, length):
        while len(self.buffer) < length:
            self.more()
        data, self.buffer = self.buffer[:length], self.buffer[length:]
        return data

    def head(self):
        status = int(self.line().split(" ", 2)[1])
        headers, twice = {}, []
        while line := self.line():
            name, value = line.split(":", 1)
            name = name.strip().lower()
            if name in headers:
                twice.append(name)
            headers[name] = value.strip()
        return status, headers, twice

    def answer(self, method):
        status, headers, twice = self.head()
        continued = status == 100
        if continued:
            status, headers, twice = self.head()
        if method == "HEAD" or status in (204, 304):
            body = b""
        elif headers.get("transfer-encoding") == "chunked":
            body = b""
            while length := int(self.line().split(";")[0], 16):
                body += self.exactly(length)
                self.line()
            while self.line():
                pass
        elif "content-length" in headers:
            body = self.exactly(int(headers["content-length"]))
        else:
            body = b""
            try:
                while True:
                    self.more()
            except Closed:
                body, self.buffer = self.buffer, b""
        return Answer(status, headers, body, continued, False, twice)

    def is_alive(self):
        """Whether the connection answers another request: no waiting for a close that may never come."""
        try:
            self.send(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            return self.answer("GET").body == b"OK"
        except (Closed, ValueError, IndexError):
            return False


def ask(port, request, method, alive=False, tls=False):
    """One request on its own connection. `request` is bytes, or a list of bytes and of functions of the connection."""
    with Connection(port, tls) as connection:
        for part in [request] if isinstance(request, bytes) else request:
            if callable(part):
                part(connection)
            else:
                connection.send(part)
        try:
            answer = connection.answer(method)
        except (Closed, ValueError, IndexError):
            return None
        if alive:
            answer.alive = connection.is_alive()
        return answer
