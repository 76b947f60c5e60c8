"""Stock clients at a cluster of three whose topic leader is killed again and again. Started by `run --cluster`."""

import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import checker
import cluster_checker
import clusters
import totals
from clusters import NODES
from driver import START_S, STOP_S, Failed, interrupted, launch, request, stop
from libraries import FIRST, LIBRARIES

CHANNELS = ("a", "b")
TOPIC = "interop.cluster"
# So long may nothing at all change before the run is given up.
STALL_S = 90
# Between two kills there is time for the node to come back, and for work.
SECONDS_PER_KILL = 6
SCRAPE_S = 0.1
# A node that is killed may leave a request without an answer for as long as it takes.
ANSWER_S = 10
REDELIVERIES = re.compile(r'^nsquorum_redeliveries_total\{cause="(\w+)"\} (\d+)', re.M)
WRITTEN = re.compile(r"^nsquorum_storage_written_entries_total (\d+)", re.M)
LINKS = re.compile(r"^nsquorum_link_up\{.*\} 1$", re.M)
BATCHES = re.compile(r"^nsquorum_batch_messages_count (\d+)", re.M)


def main():
    arguments = argparse.ArgumentParser(prog="run --cluster", description="Stock clients at a cluster whose leader is killed.")
    arguments.add_argument("--cluster", action="store_true", help=argparse.SUPPRESS)
    arguments.add_argument("--count", type=int, default=9000, help="messages of all producers (default %(default)s)")
    arguments.add_argument("--kills", type=int, default=2, help="SIGKILLs of the topic's leader (default %(default)s)")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--msg-timeout-ms", type=int, default=8000)
    arguments.add_argument("--folder", help="keep records and logs there; it must not exist")
    arguments.add_argument("--binary", required=True, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    folder = pathlib.Path(options.folder or tempfile.mkdtemp(prefix="interop-cluster-")).absolute()
    folder.mkdir(parents=True, exist_ok=not options.folder)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: interrupted.set())
    campaign = Campaign(options, folder)
    try:
        verdict = campaign.carry_out()
        failures = list(verdict.lines())
        for name, count in verdict.counts.items():
            print(f"figure: {name}: {count}")
    except Failed as failed:
        failures = [str(failed)]
    finally:
        campaign.stop()
    for failure in failures:
        print(f"    {failure}")
    title = f"{options.count} messages, 9 producers, 6 consumers, {options.kills} kills of the leader"
    print(f"{title}: {'FAILED' if failures else 'ok'}")
    if failures:
        print(f"records and logs are in {folder}")
    elif not options.folder:
        shutil.rmtree(folder)
    print("0 passed, 1 failed" if failures else "1 passed, 0 failed")
    return 1 if failures else 0


class Counters:
    """Reads what the nodes count, again and again: a counter ends with its node's life."""

    def __init__(self, nodes):
        self.nodes = nodes  # answers cluster.json's list
        self.lives = {}  # (node, pid) -> cause -> count
        self.read_ns = {}  # (node, pid) -> when
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping.wait(SCRAPE_S):
            self.read()

    def read(self):
        """The batches that each node has proposed in this life of it."""
        batches = {}
        for node in self.nodes():
            if node["pid"] is None:
                continue
            before_ns = time.time_ns()
            try:
                text = get(node["http"], "/metrics").decode()
            except OSError:
                continue
            life = (node["id"], node["pid"])
            self.lives[life] = {cause: int(count) for cause, count in REDELIVERIES.findall(text)}
            self.read_ns[life] = before_ns
            found = BATCHES.search(text)
            batches[life] = int(found[1]) if found else 0
        return batches

    def leader(self):
        """Who proposes batches, leads: nobody else does, and there is one topic."""
        deadline = time.monotonic() + START_S
        before = self.read()
        while time.monotonic() < deadline:
            time.sleep(0.02)
            now = self.read()
            rose = [life for life, count in now.items() if life in before and count > before[life]]
            if len(rose) == 1:
                return rose[0]
            before = now
        raise Failed("no node seems to lead")

    def wait_quiet(self):
        """Until every node has its links and none has written anything for a second: then all replicas have everything."""
        deadline = time.monotonic() + START_S
        since, before = time.monotonic(), None
        while time.monotonic() - since < 1:
            if time.monotonic() > deadline:
                raise Failed(f"the nodes do not come to rest: {before}")
            time.sleep(0.05)
            try:
                texts = [get(node["http"], "/metrics").decode() for node in self.nodes()]
            except OSError:
                texts = []
            linked = len(texts) == NODES and all(len(LINKS.findall(text)) == NODES - 1 for text in texts)
            now = [WRITTEN.findall(text) for text in texts] if linked else None
            if now is None or now != before:
                since, before = time.monotonic(), now

    def total(self):
        self.stopping.set()
        self.thread.join()
        self.read()
        total = {}
        for counts in self.lives.values():
            for cause, count in counts.items():
                total[cause] = total.get(cause, 0) + count
        return total


class Campaign:
    def __init__(self, options, folder):
        self.options = options
        self.folder = folder
        self.up = None
        self.started = []
        self.deaths = []
        self.dice = random.Random(options.seed)

    def nodes(self):
        return clusters.nodes(self.folder / "cluster")

    def carry_out(self):
        self.start_cluster()
        nodes = self.nodes()
        for path, names in [("/topic/create", {}), *(("/channel/create", {"channel": name}) for name in CHANNELS)]:
            request(nodes[0]["http"], path, b"", {"topic": TOPIC, **names}, ANSWER_S)
        consumers = self.start_consumers(nodes)
        self.wait_subscribed(nodes)
        producers = self.start_producers(nodes)
        counters = Counters(self.nodes)
        for kill in range(self.options.kills):
            self.wait_published((kill + 1) * self.options.count // (self.options.kills + 1), producers)
            self.kill_leader(counters)
        self.wait_drained(producers)
        self.end(consumers)
        counters.wait_quiet()
        redeliveries = counters.total()
        self.stop_cluster()
        run = self.judged(nodes, redeliveries)
        verdict = cluster_checker.check(run)
        self.verify(run, verdict)
        return verdict

    # === the cluster ===

    def start_cluster(self):
        try:
            self.up = clusters.start(self.options.binary, self.folder / "cluster", self.folder / "up.log")
        except clusters.NotStarted as error:
            raise Failed(str(error)) from error

    def kill_leader(self, counters):
        number, pid = counters.leader()
        node = self.nodes()[number - 1]
        time.sleep(self.dice.random() * 0.05)
        scraped_ns = counters.read_ns[number, pid]
        killed_ns = time.time_ns()
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + START_S
        while True:
            node = self.nodes()[number - 1]
            if node["pid"] not in (None, pid) and is_ready(node["http"]):
                break
            if time.monotonic() > deadline:
                raise Failed(f"node {number} does not come back")
            self.check_alive()
            time.sleep(0.02)
        self.deaths.append(cluster_checker.Death(node["tcp"], killed_ns, time.time_ns(), scraped_ns))
        print(f"killed node {number}, which led; back after {(time.time_ns() - killed_ns) / 1e6:.0f} ms")

    def stop_cluster(self):
        self.up.send_signal(signal.SIGTERM)
        try:
            status = self.up.wait(2 * STOP_S)
        except subprocess.TimeoutExpired as expired:
            raise Failed("the cluster does not stop") from expired
        if status != 0:
            raise Failed(f"`up` ended with exit code {status}; see {self.folder / 'up.log'}")

    def verify(self, run, verdict):
        """Every node's log has every message once, and logs that end alike are alike."""
        digests, floors = {}, {}
        for number in range(1, NODES + 1):
            command = [self.options.binary, "verify", "--json", self.folder / "cluster" / f"node-{number}"]
            outcome = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
            report = json.loads(outcome.stdout)
            if report["outcome"] != "clean":
                verdict.fail("verify", f"node {number}: {report['findings'][:3]}")
            (group,) = (group for group in report["groups"] if group["name"] == TOPIC)
            topic = group["topic"]
            if topic["next_seq"] != run.count + 1:
                verdict.fail("verify", f"node {number} would go on at {topic['next_seq']}, not {run.count + 1}")
            end = json.dumps(group["last"])
            if digests.setdefault(end, topic["digest"]) != topic["digest"]:
                verdict.fail("verify", f"the states at entry {end} differ")
            for channel in topic["channels"]:
                floors.setdefault(channel["name"], []).append(channel["floor"])
        # A node that stopped first may lack the last finished numbers; the last one has them all.
        for name, each in floors.items():
            if max(each) != run.count + 1:
                verdict.fail("verify", f"channel {name}: everything below {each} is finished, and {run.count} were")
        verdict.counts["different ends of logs"] = len(digests)

    # === clients ===

    def start_producers(self, nodes):
        """Each library at each node."""
        each = -(-self.options.count // (len(FIRST) * NODES))
        # Slow enough that the kills happen while there is work.
        rest_ms = int(self.options.kills * SECONDS_PER_KILL * 1000 / each)
        producers = []
        for index, (node, client) in enumerate((node, client) for node in nodes for client in FIRST):
            first = 1 + index * each
            count = min(each, self.options.count - first + 1)
            name = f"producer-{node['id']}-{client}"
            producers.append(
                self.start(
                    name, client, "producer", "--nsqd-tcp-address", node["tcp"], "--first", first, "--count", count,
                    "--deferred-per-mille", 10, "--mpub-per-mille", 20, "--rest-ms", rest_ms,
                )
            )  # fmt: skip
            producers[-1].node = node["tcp"]
        return producers

    def start_consumers(self, nodes):
        """One of each library for each channel; each finds all nodes."""
        lookup = ",".join(node["lookup_http"] for node in nodes)
        return [
            self.start(
                f"{channel}-{client}", client, "consumer", "--lookupd-http-address", lookup, "--channel", channel,
                "--name", f"{channel}-{client}", "--requeue-per-mille", 20,
                # About forty at a time are held over each kill.
                "--hold-per-million", min(20_000, 3000 * max(1, 100_000 // self.options.count)),
                "--msg-timeout-ms", self.options.msg_timeout_ms,
            )
            for channel in CHANNELS
            for client in FIRST
        ]  # fmt: skip

    def start(self, name, client, mode, *arguments):
        out = self.folder / f"{name}.jsonl"
        common = ["--topic", TOPIC, "--seed", self.options.seed, "--out", out, "--restarts"]
        command = [*LIBRARIES[client].command, mode, *common, *arguments]
        process = launch(name, command, self.folder)
        self.started.append(process)
        return process

    def wait_subscribed(self, nodes):
        deadline = time.monotonic() + START_S
        wanted = {channel: len(FIRST) * NODES for channel in CHANNELS}
        while True:
            channels = (self.stats() or {"channels": []})["channels"]
            counts = {channel["channel_name"]: channel["client_count"] for channel in channels}
            if counts == wanted:
                return
            self.check_alive()
            if time.monotonic() > deadline:
                raise Failed(f"after {START_S} s the channels have {counts} consumers, not {wanted}")
            time.sleep(0.1)

    def wait_published(self, count, producers):
        self.wait(lambda stats: stats["message_count"] >= count or all(p.poll() is not None for p in producers))

    def wait_drained(self, producers):
        def is_drained(stats):
            return (
                all(producer.poll() is not None for producer in producers)
                and stats["message_count"] > 0  # somebody leads
                and stats["depth"] == 0
                and all(
                    channel["depth"] == channel["in_flight_count"] == channel["deferred_count"] == 0
                    and channel["message_count"] == stats["message_count"]
                    for channel in stats["channels"]
                )
            )

        self.wait(is_drained)

    def wait(self, condition):
        last, seen = time.monotonic(), None
        while True:
            self.check_alive()
            stats = self.stats()
            if stats is not None and condition(stats):
                return
            now = json.dumps(stats)
            if now != seen:
                last, seen = time.monotonic(), now
            if time.monotonic() - last > STALL_S:
                raise Failed(f"nothing has changed for {STALL_S} s: {now}")
            time.sleep(0.1)

    def stats(self):
        """Of the topic, added up over the nodes that answer."""
        if interrupted.is_set():
            raise Failed("interrupted")
        names = {"format": "json", "topic": TOPIC, "include_clients": "false", "include_mem": "false"}
        answers = []
        for node in self.nodes():
            try:
                answers.append(json.loads(get(node["http"], "/stats", **names)))
            except OSError:
                continue
        return totals.of_topic(TOPIC, answers)

    def check_alive(self):
        for process in self.started:
            if process.poll() is None or (process.returncode == 0 and process.part.startswith("producer")):
                continue
            text = (self.folder / f"{process.part}.log").read_text(encoding="utf-8", errors="replace").strip()
            raise Failed(f"{process.part} ended with exit code {process.returncode}: {' | '.join(text.splitlines()[-5:])}")

    def end(self, consumers):
        for process in consumers:
            process.send_signal(signal.SIGTERM)
        for process in consumers:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired as expired:
                raise Failed(f"{process.part} does not end") from expired
            self.started.remove(process)

    def judged(self, nodes, redeliveries):
        sent = []
        for process in (process for process in self.started if process.part.startswith("producer")):
            for record in checker.read(self.folder / f"{process.part}.jsonl"):
                sent.append({**record, "node": process.node})
        with open(self.folder / "deaths.json", "w", encoding="utf-8") as file:
            json.dump({"deaths": [vars(death) for death in self.deaths], "redeliveries": redeliveries}, file)
        return cluster_checker.ClusterRun(
            sent=sent,
            received={
                channel: [
                    record
                    for client in FIRST
                    for record in checker.read(self.folder / f"{channel}-{client}.jsonl")
                ]
                for channel in CHANNELS
            },
            deaths=self.deaths,
            redeliveries=redeliveries,
            msg_timeout_ms=self.options.msg_timeout_ms,
        )

    def stop(self):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(stop, self.started))
        if self.up is not None:
            # A clean stop ends the nodes with it.
            stop(self.up)


def is_ready(address):
    try:
        get(address, "/ping")
    except OSError:
        return False
    return True


def get(address, path, **parameters):
    return request(address, path, None, parameters, ANSWER_S)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    sys.exit(main())
