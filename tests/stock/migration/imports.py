"""Import of data paths that stock nsqd wrote: every message to the channels that had it, and to no other."""

import collections
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import time

from nsq import PATIENCE_S, Consumer, Failed, Ours, stock_nsqd, wait_for


def mpub(node, topic, bodies):
    for begin in range(0, len(bodies), 500):
        part = bodies[begin : begin + 500]
        packed = b"".join(struct.pack(">I", len(body)) + body for body in part)
        node.post(f"/mpub?topic={topic}&binary=true", struct.pack(">I", len(part)) + packed)


def bodies(prefix, count):
    # Of many lengths, newlines and zeroes included.
    return [f"{prefix}-{number}\n\0".encode() + b"x" * (number * 37 % 700) for number in range(count)]


def settled(node, topic, depths):
    """Waits until nothing is in the topic, and the channels hold this much in any way."""

    def look():
        channels = node.channels(topic)
        held = {name: channel["depth"] + channel["in_flight_count"] + channel["deferred_count"] for name, channel in channels.items()}
        return held == depths

    wait_for(f"{topic} to settle at {depths}", look)


def write_data_path(options, folder, name, *flags):
    """What a busy nsqd leaves: returns what each channel must get, in bodies."""
    data_path = folder / name
    data_path.mkdir()
    node = stock_nsqd(options.nsqd, folder, data_path, "--max-bytes-per-file=100000", "--max-rdy-count=1000000", *flags)
    count = options.count
    for channel in ("ledger", "mail", "paused"):
        if channel == "ledger":
            node.post("/topic/create?topic=orders")
        node.post(f"/channel/create?topic=orders&channel={channel}")
    node.post("/channel/pause?topic=orders&channel=paused")
    both = bodies("both", count)
    mpub(node, "orders", both)
    settled(node, "orders", {"ledger": count, "mail": count, "paused": count})
    expected = {("orders", channel): collections.Counter(both) for channel in ("ledger", "mail", "paused")}
    # mail has consumed a third, holds twenty and has put ten off.
    consumer = Consumer(node.tcp, "orders", "mail", count // 3 + 30)
    taken = [consumer.message() for _ in range(count // 3 + 30)]
    for message_id, body in taken[: count // 3]:
        consumer.command(f"FIN {message_id}")
        expected["orders", "mail"][body] -= 1
    consumer.command("RDY 0")
    for message_id, _ in taken[count // 3 : count // 3 + 10]:
        consumer.command(f"REQ {message_id} 600000")
    wait_for("FIN and REQ", lambda: node.channels("orders")["mail"]["deferred_count"] == 10)
    settled(node, "orders", {"ledger": count, "mail": count - count // 3, "paused": count})
    # Deferred at its publishing.
    node.post("/pub?topic=orders&defer=600000", b"deferred")
    settled(node, "orders", {"ledger": count + 1, "mail": count - count // 3 + 1, "paused": count + 1})
    for channel in ("ledger", "mail", "paused"):
        expected["orders", channel][b"deferred"] += 1
    # A channel that came late, and has its own.
    node.post("/channel/create?topic=orders&channel=late")
    late = bodies("late", 50)
    mpub(node, "orders", late)
    for channel in ("ledger", "mail", "paused"):
        expected["orders", channel].update(late)
    expected["orders", "late"] = collections.Counter(late)
    settled(node, "orders", {"ledger": count + 51, "mail": count - count // 3 + 51, "paused": count + 51, "late": 50})
    # A topic that is paused, and one without channels.
    node.post("/topic/create?topic=held")
    node.post("/channel/create?topic=held&channel=c")
    node.post("/topic/pause?topic=held")
    held = bodies("held", 30)
    mpub(node, "held", held)
    expected["held", "c"] = collections.Counter(held)
    waiting = bodies("waiting", 40)
    mpub(node, "waiting", waiting)
    expected["waiting", "first"] = collections.Counter(waiting)
    return node, data_path, consumer, {key: +counter for key, counter in expected.items()}


def run_import(options, node, data_path, *flags, code="as its files"):
    """Exit code 0, or 72 where nsqd itself has set files aside: it does that too with files that it has read to their ends."""
    if code == "as its files":
        code = 72 if list(data_path.glob("*.bad")) else 0
    done = subprocess.run(import_command(options, node, data_path, *flags), capture_output=True, text=True, timeout=600)
    if code is not None and done.returncode != code:
        raise Failed(f"import ended with {done.returncode} instead of {code}: {done.stdout}{done.stderr}")
    return done.stdout


def import_command(options, node, data_path, *flags):
    addresses = [f"--nsqd-http-address={one.http}" for one in node.nodes]
    return [str(part) for part in (options.binary, "import", data_path, *addresses, *flags)]


def take_all(node, topic, channel):
    """Takes and finishes messages until the channel is empty."""
    consumer = Consumer(node.tcp, topic, channel, 500)
    seen = collections.Counter()

    def is_empty():
        # Most rounds of this do not find it empty: an empty queue is asked about only when nothing comes any more.
        if taken := consumer.message(0.2):
            message_id, body = taken
            seen[body] += 1
            consumer.command(f"FIN {message_id}")
            return False
        found = node.channels(topic)[channel]
        return found["depth"] + found["in_flight_count"] + found["deferred_count"] == 0

    deadline = time.monotonic() + 10 * PATIENCE_S
    while not is_empty():
        if time.monotonic() > deadline:
            raise Failed(f"{topic}:{channel} does not become empty: {node.channels(topic)[channel]}")
    consumer.close()
    return seen


def compare(topic, channel, seen, expected):
    if seen != expected:
        lost, surplus = expected - seen, seen - expected
        raise Failed(
            f"{topic}:{channel}: lost {list(lost)[:3]} ({sum(lost.values())}), surplus {list(surplus)[:3]} ({sum(surplus.values())})"
        )


def check(options, node, expected):
    channels = node.channels("orders")
    if [name for name, channel in channels.items() if channel["paused"]] != ["paused"]:
        raise Failed(f"pauses of channels: {channels}")
    if not next(topic for topic in node.stats()["topics"] if topic["topic_name"] == "held")["paused"]:
        raise Failed("the topic is not paused")
    if any(channel["depth"] for channel in node.channels("held").values()):
        raise Failed("messages have left a paused topic")
    node.post("/topic/unpause?topic=held")
    node.post("/channel/unpause?topic=orders&channel=paused")
    for (topic, channel), counter in expected.items():
        compare(topic, channel, take_all(node, topic, channel), counter)


def clean_exit(options, folder, name, *flags):
    """SIGTERM: everything that was in memory is in the files. A refused import of one in use, a dry run, the import, and one more."""
    source, data_path, consumer, expected = write_data_path(options, folder, name, *flags)
    node = Ours(options, folder, f"ours-{name}")
    run_import(options, node, data_path, code=73)
    source.stop()
    consumer.close()
    total = sum(sum(counter.values()) for counter in expected.values())
    said = run_import(options, node, data_path, "--dry-run")
    if f"to import: {total} messages" not in said or node.stats()["topics"]:
        raise Failed(f"the dry run: {said}")
    said = run_import(options, node, data_path)
    if f"imported: {total} messages" not in said:
        raise Failed(said)
    said = run_import(options, node, data_path)
    if "imported: 0 messages" not in said:
        raise Failed(f"a second import: {said}")
    check(options, node, expected)
    node.stop()
    print(f"{name}: {total} messages of {len(expected)} channels", flush=True)


def crash_and_torn_tail(options, folder):
    """SIGKILL with everything in files, and the last record cut: its message is named, all others come."""
    source, data_path, consumer, expected = write_data_path(options, folder, "crashed", "--mem-queue-size=0")
    source.stop(signal.SIGKILL)
    consumer.close()
    # In flight, deferred and read ahead (one message a queue) are in memory alone: after SIGKILL stock nsqd has lost them, or its stale
    # metadata bring them back. Either way an import must not lose what nsqd itself would still have, so what is on disk is what counts.
    before = records(data_path)
    files = sorted(data_path.glob("orders:ledger.diskqueue.0*.dat"))
    whole = files[-1].read_bytes()
    files[-1].write_bytes(whole[:-5])
    after = records(data_path)
    node = Ours(options, folder, "ours-crashed")
    said = run_import(options, node, data_path, code=None)
    if before["orders:ledger"] != after["orders:ledger"] + 1 or "orders:ledger: torn tail" not in said:
        raise Failed(f"the torn tail is not named: {said}")
    counts = {queue: int(count) for queue, count in re.findall(r"^(\S+): (\d+) messages$", said, re.M)}
    if counts != {queue: count for queue, count in after.items() if count}:
        raise Failed(f"imported {counts}, on disk {after}")
    node.stop()
    print(f"crashed: {sum(counts.values())} messages, a torn tail named", flush=True)


def interrupted(options, folder):
    """The import is killed again and again and goes on: nothing is lost, and at most a batch per kill comes twice."""
    source, data_path, consumer, expected = write_data_path(options, folder, "interrupted")
    source.stop()
    consumer.close()
    node = Ours(options, folder, "ours-interrupted")
    command = import_command(options, node, data_path)
    progress = data_path / "nsquorum-import.json"
    kills = 0
    while True:
        before = progress.read_bytes() if progress.exists() else b""
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        # Killed as soon as one more batch is noted.
        wait_for("progress", lambda: process.poll() is not None or (progress.exists() and progress.read_bytes() != before), 0.001)
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
    code = 72 if list(data_path.glob("*.bad")) else 0
    if process.returncode != code or kills == 0:
        raise Failed(f"ended with {process.returncode} after {kills} kills")
    lines = map(json.loads, progress.read_text().splitlines())
    moved = sum({line["queue"]: line["messages"] for line in lines}.values())
    total = sum(sum(counter.values()) for counter in expected.values())
    if moved != total:
        raise Failed(f"{moved} noted, {total} there")
    surplus = 0
    node.post("/topic/unpause?topic=held")
    node.post("/channel/unpause?topic=orders&channel=paused")
    for (topic, channel), counter in expected.items():
        seen = take_all(node, topic, channel)
        if lost := counter - seen:
            raise Failed(f"{topic}:{channel}: lost {list(lost)[:3]} ({sum(lost.values())})")
        if set(seen) - set(counter):
            raise Failed(f"{topic}:{channel} got what was never its own")
        surplus += sum((seen - counter).values())
    if surplus > kills * 1000:
        raise Failed(f"{surplus} messages came twice in {kills} kills")
    node.stop()
    print(f"interrupted: {kills} kills, {surplus} of {total} messages twice", flush=True)


def leader_dies(options, folder):
    """The node that leads the topic is killed during the import: nothing is lost, and what comes on channels that had not had it is of few requests."""
    source, data_path, consumer, expected = write_data_path(options, folder, "leaderless")
    source.stop()
    consumer.close()
    nodes = Ours(options, folder, "ours-leaderless")
    progress = data_path / "nsquorum-import.json"
    process = subprocess.Popen(import_command(options, nodes, data_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for("progress", lambda: process.poll() is not None or (progress.exists() and "orders" in progress.read_text()), 0.001)
    nodes.kill_leader_of("orders")
    was_running = process.poll() is None
    said, complaints = process.communicate(timeout=600)
    code = 72 if list(data_path.glob("*.bad")) else 0
    total = sum(sum(counter.values()) for counter in expected.values())
    if process.returncode != code or f"imported: {total} messages" not in said:
        raise Failed(f"ended with {process.returncode}: {said}{complaints}")
    nodes.post("/topic/unpause?topic=held")
    nodes.post("/channel/unpause?topic=orders&channel=paused")
    surplus = 0
    for (topic, channel), counter in expected.items():
        seen = take_all(nodes, topic, channel)
        if lost := counter - seen:
            raise Failed(f"{topic}:{channel}: lost {list(lost)[:3]} ({sum(lost.values())})")
        surplus += sum((seen - counter).values())
    # Of one request that was under way each channel may get everything, and its own may come twice.
    if surplus > 5 * 1000:
        raise Failed(f"{surplus} messages too many")
    nodes.stop()
    print(f"leader killed{'' if was_running else ' too late'}: {surplus} of {total} messages too many", flush=True)


def records(data_path):
    """The whole records that nsqd has not read, of each queue in nsqd.dat: found by a few lines that share nothing with the import."""
    counts = {}
    queues = []
    for topic in json.loads((data_path / "nsqd.dat").read_text())["topics"]:
        queues += [topic["name"], *(f"{topic['name']}:{channel['name']}" for channel in topic["channels"] or [])]
    for queue in queues:
        metadata = data_path / f"{queue}.diskqueue.meta.dat"
        # nsqd itself would forget a queue without metadata; the import takes all of it.
        first, offset = map(int, metadata.read_text().split("\n")[1].split(",")) if metadata.exists() else (0, 0)
        count = 0
        for path in sorted(data_path.glob(f"{queue}.diskqueue.0*.dat")):
            number = int(path.name.removesuffix(".dat").rsplit(".", 1)[1])
            if number < first:
                continue
            content = path.read_bytes()
            at = offset if number == first else 0
            while at + 4 <= len(content):
                size = struct.unpack_from(">i", content, at)[0]
                if at + 4 + size > len(content):
                    break
                at += 4 + size
                count += 1
        counts[queue] = count
    return counts


def make(path):
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def run(options, folder):
    clean_exit(options, folder, "in-memory")
    clean_exit(options, folder, "on-disk", "--mem-queue-size=0")
    crash_and_torn_tail(options, folder)
    interrupted(options, folder)
    if options.nodes > 1:
        leader_dies(options, folder)
