"""Runs every producer with every consumer against one node and judges each run. Started by `run`."""

import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import checker

HERE = pathlib.Path(__file__).parent
CLIENTS = ("go", "python", "node")
TRANSPORTS = ("plain", "tls", "snappy", "deflate", "tls-snappy", "tls-deflate")
# One pair for both its ends: a certificate that signs itself, as users make them.
CERTIFICATE = HERE / "certificate" / "cert.pem"
KEY = HERE / "certificate" / "key.pem"
START_S = 30
# So long may nothing at all change in the node's counts before a run is given up.
STALL_S = 60
STOP_S = 30
# One connection has channel a to itself; two share channel b.
CHANNELS = {"a": ("a1",), "b": ("b1", "b2")}


# Set by a signal: runs under way end their processes, and the rest is not begun.
interrupted = threading.Event()


class Failed(Exception):
    """A run that could not be brought to its end."""


def main():
    arguments = argparse.ArgumentParser(prog="run", description="Stock clients against a node.")
    arguments.add_argument("--count", type=int, default=3000, help="messages of each run (default %(default)s)")
    arguments.add_argument(
        "--client",
        choices=(*CLIENTS, "all"),
        action="append",
        help="only with this one, as producer or consumer; repeat for the runs among several",
    )
    arguments.add_argument(
        "--transport",
        choices=(*TRANSPORTS, "all"),
        action="append",
        help="plain: every pair (default); each other: every client once as producer and once as consumer; repeat for several",
    )
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--nsqd-tcp-address", help="without it a node is started from the built binary")
    arguments.add_argument("--http-address", help="its HTTP address")
    arguments.add_argument("--lookupd-http-address", help="channel b's consumers find the node there")
    arguments.add_argument("--msg-timeout-ms", type=int, default=5000)
    arguments.add_argument("--parallel", type=int, help="runs at once (default: 3 up to 10,000 messages, else 1)")
    arguments.add_argument("--stock", action="store_true", help="against nsqd: skip what only nsquorum promises")
    arguments.add_argument("--folder", help="keep records and logs there; it must not exist")
    arguments.add_argument("--binary", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if bool(options.nsqd_tcp_address) != bool(options.http_address):
        arguments.error("--nsqd-tcp-address and --http-address go together")
    if options.count < 1 or options.seed < 0:
        arguments.error("--count must be 1 or more, --seed 0 or more")
    selected = CLIENTS if not options.client or "all" in options.client else tuple(dict.fromkeys(options.client))
    transports = options.transport or ["plain"]
    transports = TRANSPORTS if "all" in transports else tuple(dict.fromkeys(transports))
    parallel = options.parallel or (3 if options.count <= 10_000 else 1)

    if options.folder:
        folder = pathlib.Path(options.folder).absolute()
        folder.mkdir(parents=True)
    else:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="interop-"))
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: interrupted.set())
    node = None
    if not options.nsqd_tcp_address:
        node = start_node(options, folder, transports)
    passed = failed = 0
    try:
        if node is not None and not options.client:
            # First: what is wrong there makes the runs fail in ways that say less.
            failures = http_smoke(options)
            print(f"HTTP: {'FAILED' if failures else 'ok'}", *failures, sep="\n    ")
            passed, failed = (0, 1) if failures else (1, 0)
        single = len(options.client or ()) == 1
        runs = [(transport, *run) for transport in transports for run in plan_runs(selected, single, transport)]
        with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
            outcomes = [pool.submit(one_run, options, folder, index, *run) for index, run in enumerate(runs)]
            for outcome in concurrent.futures.as_completed(outcomes):
                title, failures, counts = outcome.result()
                passed, failed = (passed, failed + 1) if failures else (passed + 1, failed)
                print(f"{title}: {'FAILED' if failures else 'ok'} ({counts})" if counts else f"{title}: FAILED")
                for failure in failures:
                    print(f"    {failure}")
    finally:
        if node is not None:
            stop(node)
    if failed:
        print(f"records and logs are in {folder}")
    elif not options.folder:
        shutil.rmtree(folder)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def http_smoke(options):
    command = [sys.executable, HERE / "http_smoke.py", "--http-address", options.http_address]
    command += ["--lookupd-http-address", options.lookupd_http_address]
    outcome = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if outcome.returncode == 0:
        return []
    return outcome.stdout.splitlines()[:-1] + outcome.stderr.splitlines()[-5:] or [f"exit code {outcome.returncode}"]


def plan_runs(selected, single, transport):
    """Producer, consumer, and whether the consumers come only when all is published.

    Every producer and every consumer takes part in both kinds: messages of a running consumer come from memory, those
    of a late one from the log.
    """
    pairs = [(p, c) for p in CLIENTS for c in CLIENTS]
    runs = [(p, c, (CLIENTS.index(p) + CLIENTS.index(c)) % 2 == 1) for p, c in pairs]
    if single and len(selected) == 1:
        return [(*selected, *selected, late) for late in (False, True)]
    if transport != "plain":
        # What a transport does to the bytes does not depend on who is at the other end.
        runs = [run for run in runs if (CLIENTS.index(run[0]) + 1) % len(CLIENTS) == CLIENTS.index(run[1])]
    return [run for run in runs if run[0] in selected and run[1] in selected]


def one_run(options, folder, index, transport, producer, consumer, late):
    title = f"{transport}: {producer} -> {consumer}, {'backlog' if late else 'live'}"
    folder = folder / f"{index}-{transport}-{producer}-{consumer}"
    if interrupted.is_set():
        return title, ["interrupted"], None
    folder.mkdir()
    run = Pair(options, folder, index, transport, producer, consumer, late)
    try:
        verdict = run.carry_out()
    except Failed as failed:
        return title, [str(failed)], None
    except Exception as error:  # the report must name every run, whatever went wrong in this one
        return title, [f"{type(error).__name__}: {error}"], None
    finally:
        run.stop()
    for name, count in verdict.counts.items():
        # A run without a requeue, say, would pass without having tried one.
        if count == 0 and options.count >= 3000:
            verdict.fail("coverage", f"{name} is 0")
    counts = ", ".join(f"{name} {count}" for name, count in {"messages": options.count, **verdict.counts}.items())
    return title, list(verdict.lines()), counts


class Pair:
    def __init__(self, options, folder, index, transport, producer, consumer, late):
        self.options = options
        self.folder = folder
        self.transport = transport
        self.producer = producer
        self.consumer = consumer
        self.late = late
        self.seed = options.seed * 100 + index
        self.topic = f"interop.{index}.{producer}.{consumer}.{time.time_ns():x}"
        self.started = []

    def carry_out(self):
        began_ns = time.time_ns()
        post(self.options.http_address, "/topic/create", topic=self.topic)
        for channel in CHANNELS:
            post(self.options.http_address, "/channel/create", topic=self.topic, channel=channel)
        if self.late:
            self.wait_for(self.start_producer(), "the producer")
            consumers = self.start_consumers()
        else:
            consumers = self.start_consumers()
            self.wait_subscribed()
            self.start_producer()
        stats = self.wait_drained(consumers)
        self.end_consumers(consumers)
        return checker.check(
            checker.Run(
                count=self.options.count,
                sent=checker.read(self.folder / "producer.jsonl"),
                received={
                    channel: [record for name in names for record in checker.read(self.folder / f"{name}.jsonl")]
                    for channel, names in CHANNELS.items()
                },
                stats=stats,
                stock=self.options.stock,
                msg_timeout_ms=self.options.msg_timeout_ms,
                began_ns=began_ns - checker.CLOCK_TOLERANCE_NS,
                ended_ns=time.time_ns() + checker.CLOCK_TOLERANCE_NS,
            )
        )

    def start_producer(self):
        return self.start(
            "producer",
            self.producer,
            "producer",
            "--nsqd-tcp-address",
            self.options.nsqd_tcp_address,
            "--count",
            self.options.count,
            "--deferred-per-mille",
            10,
            "--mpub-per-mille",
            20,
        )

    def start_consumers(self):
        # About forty messages are left to their timeout: more would only keep slots of max-in-flight.
        hold_per_million = min(5000, 40_000_000 // self.options.count)
        consumers = []
        for channel, names in CHANNELS.items():
            where = ("--nsqd-tcp-address", self.options.nsqd_tcp_address)
            if channel == "b" and self.options.lookupd_http_address:
                where = ("--lookupd-http-address", self.options.lookupd_http_address)
            for name in names:
                consumers.append(
                    self.start(
                        name,
                        self.consumer,
                        "consumer",
                        *where,
                        "--channel",
                        channel,
                        "--name",
                        name,
                        "--requeue-per-mille",
                        20,
                        "--hold-per-million",
                        hold_per_million,
                        "--msg-timeout-ms",
                        self.options.msg_timeout_ms,
                    )
                )
        return consumers

    def start(self, name, client, mode, *arguments):
        command = [
            *program(client),
            mode,
            "--topic",
            self.topic,
            "--seed",
            self.seed,
            "--out",
            self.folder / f"{name}.jsonl",
            "--transport",
            self.transport,
            "--tls-root-ca-file",
            CERTIFICATE,
            *arguments,
        ]
        process = launch(name, command, self.folder)
        self.started.append(process)
        return process

    def wait_for(self, process, what):
        last, seen = time.monotonic(), None
        while process.poll() is None:
            now = json.dumps(self.stats())
            if now != seen:
                last, seen = time.monotonic(), now
            if time.monotonic() - last > STALL_S:
                raise Failed(f"{what} has made no progress for {STALL_S} s: {now}")
            time.sleep(0.1)
        self.check_alive()

    def wait_subscribed(self):
        deadline = time.monotonic() + START_S
        while True:
            counts = {channel["channel_name"]: channel["client_count"] for channel in self.stats()["channels"]}
            if counts == {channel: len(names) for channel, names in CHANNELS.items()}:
                return
            self.check_alive()
            if time.monotonic() > deadline:
                raise Failed(f"after {START_S} s the channels have {counts} consumers")
            time.sleep(0.05)

    def wait_drained(self, consumers):
        """Until the node has every message and each is finished on both channels; returns the topic's statistics."""
        last, seen = time.monotonic(), None
        while True:
            self.check_alive(consumers)
            producing = any(process.part == "producer" and process.poll() is None for process in self.started)
            stats = self.stats()
            if (
                not producing
                and stats["depth"] == 0
                and all(
                    channel["message_count"] >= self.options.count
                    and channel["depth"] == channel["in_flight_count"] == channel["deferred_count"] == 0
                    for channel in stats["channels"]
                )
            ):
                return stats
            now = json.dumps(stats)
            if now != seen:
                last, seen = time.monotonic(), now
            if time.monotonic() - last > STALL_S:
                raise Failed(f"nothing has changed for {STALL_S} s: {now}")
            time.sleep(0.2)

    def check_alive(self, must_run=()):
        for process in self.started:
            if process.poll() is None or (process.returncode == 0 and process not in must_run):
                continue
            text = (self.folder / f"{process.part}.log").read_text(encoding="utf-8", errors="replace").strip()
            raise Failed(
                f"{process.part} ended with exit code {process.returncode}: "
                f"{' | '.join(text.splitlines()[-5:]) or '(no output)'}"
            )

    def end_consumers(self, consumers):
        for process in consumers:
            process.send_signal(signal.SIGTERM)
        for process in consumers:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired as expired:
                raise Failed(f"{process.part} does not end") from expired
        self.check_alive()

    def stats(self):
        if interrupted.is_set():
            raise Failed("interrupted")
        answer = get(
            self.options.http_address,
            "/stats",
            format="json",
            topic=self.topic,
            include_clients="false",
            include_mem="false",
        )
        topics = json.loads(answer)["topics"] or []
        if [topic["topic_name"] for topic in topics] != [self.topic]:
            raise Failed(f"/stats for topic {self.topic} has {topics}")
        return topics[0]

    def stop(self):
        for process in self.started:
            stop(process)


def stop(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def start_node(options, folder, transports):
    (folder / "node").mkdir()
    ports_file = folder / "ports.json"
    command = [
        options.binary,
        "serve",
        "--data-path",
        folder / "node",
        "--ports-file",
        ports_file,
        "--broadcast-address",
        "127.0.0.1",
    ]
    if any("tls" in transport for transport in transports):
        command += ["--tls-cert", CERTIFICATE, "--tls-key", KEY]
    for address in ("tcp", "http", "https", "lookup-tcp", "lookup-http"):
        command += [f"--{address}-address", "127.0.0.1:0"]
    with open(folder / "nsquorum.log", "wb") as log:
        node = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + START_S
    while node.poll() is None and time.monotonic() < deadline:
        try:
            ports = json.loads(ports_file.read_text())
            break
        except (FileNotFoundError, ValueError):
            time.sleep(0.05)
    else:
        stop(node)
        sys.exit(f"error: the node did not start; its log is {folder / 'nsquorum.log'}")
    options.nsqd_tcp_address, options.http_address = ports["tcp"], ports["http"]
    options.lookupd_http_address = ports["lookup_http"]
    return node


def program(client):
    """The command that runs a client library's program."""
    return {
        "go": [os.environ.get("INTEROP_GO", "go client is not built")],
        "python": [sys.executable, HERE / "python" / "client.py"],
        "node": ["node", HERE / "node" / "client.js"],
    }[client]


def launch(name, command, folder):
    """Starts one part of a run; what it prints goes to its log."""
    with open(folder / f"{name}.log", "wb") as log:
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    process.part = name
    return process


def get(address, path, **parameters):
    return request(address, path, None, parameters)


def post(address, path, **parameters):
    return request(address, path, b"", parameters)


def request(address, path, body, parameters, timeout_s=30):
    url = f"http://{address}{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=timeout_s) as answer:
        return answer.read()


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    sys.exit(main())
