"""Starting stock nsqd and nsquorum with the same flags, on ports that the kernel chooses."""

import json
import pathlib
import re
import signal
import socket
import subprocess
import time
from dataclasses import dataclass

PATIENCE_S = 60


@dataclass
class Server:
    name: str
    process: subprocess.Popen
    log: pathlib.Path
    data: pathlib.Path
    tcp_port: int
    http_port: int
    # Only with a certificate.
    https_port: int | None = None

    def own_values(self):
        """What only this server has, and what it is called in a comparison."""
        return [
            (str(self.data), "<data>"),
            (f"127.0.0.1:{self.tcp_port}", "<tcp address>"),
            (f"127.0.0.1:{self.http_port}", "<http address>"),
            (str(self.tcp_port), "11111"),
            (str(self.http_port), "22222"),
            *([(str(self.https_port), "33333")] if self.https_port else []),
        ]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def until(read, what):
    """What `read` returns once it is not None."""
    deadline = time.monotonic() + PATIENCE_S
    while (value := read()) is None:
        if time.monotonic() > deadline:
            raise SystemExit(f"error: {what} took longer than {PATIENCE_S} s")
        time.sleep(0.02)
    return value


def start_stock(programs, directory, flags):
    """Stock nsqd; its log tells the ports."""
    data = directory / "stock"
    data.mkdir()
    log = directory / "stock.log"
    argv = [f"{programs}/nsqd", f"--data-path={data}", "--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0", "--broadcast-address=127.0.0.1"]
    with log.open("wb") as out:
        process = subprocess.Popen([*argv, *flags], stdout=out, stderr=subprocess.STDOUT, cwd=data)

    def ports():
        if process.poll() is not None:
            raise SystemExit(f"error: stock nsqd ended:\n{log.read_text()}")
        found = dict(re.findall(r"(TCP|HTTP|HTTPS): listening on 127\.0\.0\.1:(\d+)", log.read_text()))
        wanted = ["TCP", "HTTP", *(["HTTPS"] if any(flag.startswith("--tls-cert") for flag in flags) else [])]
        return [int(found[kind]) for kind in wanted] if set(wanted) <= set(found) else None

    return Server("nsqd", process, log, data, *until(ports, "the start of stock nsqd"))


def start_node(binary, directory, flags, name="node", cluster=()):
    """One nsquorum node; returned before it serves, so that the nodes of a cluster find each other (see `ready`)."""
    data = directory / name
    data.mkdir()
    log, ports = directory / f"{name}.log", directory / f"{name}.ports"
    argv = [binary, "serve", f"--data-path={data}", "--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0"]
    argv += ["--lookup-tcp-address=", "--lookup-http-address=", f"--ports-file={ports}", "--broadcast-address=127.0.0.1", *cluster, *flags]
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT, cwd=data)
    return process, log, data, ports


def ready(name, process, log, data, ports):
    def read():
        if process.poll() is not None:
            raise SystemExit(f"error: {name} ended:\n{log.read_text()}")
        return json.loads(ports.read_text()) if ports.exists() else None

    found = until(read, f"the start of {name}")
    kinds = [kind for kind in ("tcp", "http", "https") if found[kind]]
    return Server(name, process, log, data, *(int(found[kind].rsplit(":", 1)[1]) for kind in kinds))


def start_nodes(binary, directory, flags, count):
    """A node alone, or a cluster of `count`."""
    if count == 1:
        return [ready("node", *start_node(binary, directory, flags))]
    reserved = [socket.socket() for _ in range(count)]
    for one in reserved:
        one.bind(("127.0.0.1", 0))
    peers = [f"127.0.0.1:{one.getsockname()[1]}" for one in reserved]
    for one in reserved:
        one.close()
    seeds = ",".join(peers)
    started = []
    for number, peer in enumerate(peers):
        cluster = [f"--cluster-seeds={seeds}", f"--peer-address={peer}"]
        name = f"node{number}"
        started.append((name, *start_node(binary, directory, flags, name, cluster)))
    return [ready(*one) for one in started]
