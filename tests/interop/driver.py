"""Runs every producer with every consumer against one node and judges each run. Started by `run`."""

import argparse
import concurrent.futures
import dataclasses
import itertools
import json
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
import clusters
import totals
from libraries import HERE, LIBRARIES, OTHERS, TRANSPORTS, pairs_of

# One pair for both its ends: a certificate that signs itself, as users make them.
CERTIFICATE = HERE / "certificate" / "cert.pem"
KEY = HERE / "certificate" / "key.pem"
START_S = 30
# So long may nothing at all change in the node's counts before a run is given up.
STALL_S = 60
STOP_S = 30
# One connection has a channel to itself; two share the other. (ansq refuses names of one letter.)
CHANNELS = {"alone": ("alone",), "shared": ("shared-1", "shared-2")}
# The message timeout of the nodes that are started here, for consumers that cannot ask for one; other than what is asked for.
NODE_MSG_TIMEOUT_MS = 6000


# Set by a signal: runs under way end their processes, and the rest is not begun.
interrupted = threading.Event()


class Failed(Exception):
    """A run that could not be brought to its end."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a node is."""

    tcp: str
    http: str


def main():
    arguments = argparse.ArgumentParser(prog="run", description="Stock clients against a node.")
    arguments.add_argument("--count", type=int, default=3000, help="messages of each run (default %(default)s)")
    arguments.add_argument(
        "--client",
        choices=(*LIBRARIES, "all"),
        action="append",
        help="only with this one, as producer and consumer; repeat for each of several with each",
    )
    arguments.add_argument(
        "--transport",
        choices=(*TRANSPORTS, "all"),
        action="append",
        help="plain: pairs of producer and consumer (default); each other: every client once as producer and once as consumer; repeat for several",
    )
    arguments.add_argument(
        "--pairs",
        choices=("few", "all"),
        default="few",
        help="few: go, python and node as always, each of the others once as producer and consumer, plain and over one other transport",
    )
    arguments.add_argument("--nodes", type=int, choices=(1, 3), default=1, help="3: each of the other clients at every node of a cluster")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--nsqd-tcp-address", help="without it a node is started from the built binary")
    arguments.add_argument("--http-address", help="its HTTP address")
    arguments.add_argument("--lookupd-http-address", help="consumers of the shared channel find the node there")
    arguments.add_argument("--msg-timeout-ms", type=int, default=5000)
    arguments.add_argument("--node-msg-timeout-ms", type=int, default=NODE_MSG_TIMEOUT_MS, help="what that node has (default %(default)s)")
    arguments.add_argument("--parallel", type=int, help="runs at once (default: 3 up to 10,000 messages, else 1)")
    arguments.add_argument("--stock", action="store_true", help="against nsqd: skip what only nsquorum promises")
    arguments.add_argument("--folder", help="keep records and logs there; it must not exist")
    arguments.add_argument("--binary", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if bool(options.nsqd_tcp_address) != bool(options.http_address):
        arguments.error("--nsqd-tcp-address and --http-address go together")
    if options.count < 1 or options.seed < 0:
        arguments.error("--count must be 1 or more, --seed 0 or more")
    named = () if not options.client or "all" in options.client else tuple(dict.fromkeys(options.client))
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
    if options.nodes > 1:
        node = start_cluster(options, folder)
        # Every one of its runs is at all nodes.
        runs = [("plain", client, client, False) for client in named or OTHERS]
    else:
        if not options.nsqd_tcp_address:
            node = start_node(options, folder, transports)
        options.places = [Place(options.nsqd_tcp_address, options.http_address)]
        selected, every = named or tuple(LIBRARIES), bool(named) or options.pairs == "all"
        runs = [(transport, *pair) for transport in transports for pair in pairs_of(selected, transport, every)]
        if len(named) == 1:
            runs = [(transport, *named, *named, late) for transport, *_ in runs for late in (False, True)]
    if not runs:
        sys.exit("error: there is nothing to run: these clients cannot do that")
    passed = failed = 0
    try:
        if node is not None and options.nodes == 1 and not named:
            # First: what is wrong there makes the runs fail in ways that say less.
            failures = http_smoke(options)
            print(f"HTTP: {'FAILED' if failures else 'ok'}", *failures, sep="\n    ")
            passed, failed = (0, 1) if failures else (1, 0)
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
            for producer in self.start_producers():
                self.wait_for(producer, producer.part)
            consumers = self.start_consumers()
        else:
            consumers = self.start_consumers()
            self.wait_subscribed()
            self.start_producers()
        stats = self.wait_drained(consumers)
        self.end_consumers(consumers)
        return checker.check(
            checker.Run(
                count=self.options.count,
                sent=[record for name in self.producers() for record in checker.read(self.folder / f"{name}.jsonl")],
                received={
                    channel: [record for name in names for record in checker.read(self.folder / f"{name}.jsonl")]
                    for channel, names in CHANNELS.items()
                },
                stats=stats,
                stock=self.options.stock,
                msg_timeout_ms=self.msg_timeout_ms(),
                began_ns=began_ns - checker.CLOCK_TOLERANCE_NS,
                ended_ns=time.time_ns() + checker.CLOCK_TOLERANCE_NS,
            )
        )

    def producers(self):
        return [f"producer-{index}" for index in range(len(self.options.places))]

    def msg_timeout_ms(self):
        asks = LIBRARIES[self.consumer].asks_msg_timeout
        return self.options.msg_timeout_ms if asks else self.options.node_msg_timeout_ms

    def start_producers(self):
        """One at every node, with a part of the messages each."""
        each = -(-self.options.count // len(self.options.places))
        started = []
        for index, (name, place) in enumerate(zip(self.producers(), self.options.places, strict=True)):
            first = 1 + index * each
            count = min(each, self.options.count - first + 1)
            part = ("--first", first, "--count", count, "--deferred-per-mille", 10, "--mpub-per-mille", 20)
            started.append(self.start(name, self.producer, "producer", "--nsqd-tcp-address", place.tcp, *part))
        return started

    def start_consumers(self):
        """They take the nodes in turn."""
        # About forty messages are left to their timeout: more would only keep slots of max-in-flight.
        hold_per_million = min(5000, 40_000_000 // self.options.count)
        discovers = self.transport == "plain" or LIBRARIES[self.consumer].identifies_discovered
        places = itertools.cycle(self.options.places)
        consumers = []
        for channel, names in CHANNELS.items():
            for name in names:
                where = ("--nsqd-tcp-address", next(places).tcp)
                if channel == "shared" and self.options.lookupd_http_address and discovers:
                    where = ("--lookupd-http-address", self.options.lookupd_http_address)
                fate = ("--requeue-per-mille", 20, "--hold-per-million", hold_per_million)
                common = ("--channel", channel, "--name", name, *fate, "--msg-timeout-ms", self.options.msg_timeout_ms)
                consumers.append(self.start(name, self.consumer, "consumer", *where, *common))
        return consumers

    def start(self, name, client, mode, *arguments):
        command = [
            *LIBRARIES[client].command,
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
            producing = any(process.part in self.producers() and process.poll() is None for process in self.started)
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
        """Of the topic, added up over the nodes."""
        if interrupted.is_set():
            raise Failed("interrupted")
        names = {"format": "json", "topic": self.topic, "include_clients": "false", "include_mem": "false"}
        answers = [json.loads(get(place.http, "/stats", **names)) for place in self.options.places]
        others = {topic["topic_name"] for answer in answers for topic in answer["topics"] or []} - {self.topic}
        topic = totals.of_topic(self.topic, answers)
        if others or topic is None:
            raise Failed(f"/stats for topic {self.topic} has {answers}")
        return topic

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


def start_cluster(options, folder):
    try:
        up = clusters.start(options.binary, folder / "cluster", folder / "up.log", "--msg-timeout", f"{options.node_msg_timeout_ms}ms")
    except clusters.NotStarted as error:
        sys.exit(f"error: {error}")
    options.places = [Place(node["tcp"], node["http"]) for node in clusters.nodes(folder / "cluster")]
    options.http_address = options.places[0].http
    return up


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
        "--msg-timeout",
        f"{options.node_msg_timeout_ms}ms",
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
