"""Starts a cluster of three with `nsquorum up`."""

import json
import os
import socket
import subprocess
import time

NODES = 3
START_S = 30


class NotStarted(Exception):
    """What is wrong, and where the log is."""


def start(binary, folder, log, *serve_flags):
    """Returns the process of `up`; folder/cluster.json has the nodes then."""
    command = [binary, "up", "--dir", folder, "--nodes", NODES, "--base-port", free_base(), "--", *serve_flags]
    with open(log, "wb") as file:
        up = subprocess.Popen([str(part) for part in command], stdout=file, stderr=file, stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + START_S
    while not (folder / "cluster.json").exists():
        if up.poll() is not None or time.monotonic() > deadline:
            up.terminate()
            raise NotStarted(f"the cluster did not start; see {log}")
        time.sleep(0.05)
    return up


def nodes(folder):
    # It is replaced by a rename: there is always one.
    return json.loads((folder / "cluster.json").read_text())["nodes"]


def free_base():
    """A base port with free ports for all nodes at this moment, below the range that the kernel gives to clients."""
    places = range(11_000, 31_000, 10 * NODES)
    start = os.getpid() % len(places)
    for turn in range(len(places)):
        base = places[(start + turn) % len(places)]
        if all(is_free(base + 10 * node + offset) for node in range(NODES) for offset in range(5)):
            return base
    raise NotStarted("no free ports in a row")


def is_free(port):
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
