"""Runs publisher, ledger and archive against one address and compares the outcome. Started by `run`."""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import check

HERE = pathlib.Path(__file__).parent
START_S = 30
# Without one more invoice for so long, what is missing does not come.
STALL_S = 60
STOP_S = 30


class Failed(Exception):
    """A part of the example did not do its work."""


def main():
    arguments = argparse.ArgumentParser(prog="run", description="Exchanges invoices over NSQ and checks the outcome.")
    arguments.add_argument(
        "address", nargs="?", help="host:port of a node (nsqd's TCP protocol); without it one is started"
    )
    arguments.add_argument("--count", type=int, default=500, help="invoices to publish (default %(default)s)")
    arguments.add_argument(
        "--seed", type=int, default=1, help="another seed gives other invoices (default %(default)s)"
    )
    arguments.add_argument("--folder", help="keep ledger, archive and logs there; it must not exist")
    arguments.add_argument("--binary", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.count < 1:
        arguments.error("--count must be 1 or more")

    if options.folder:
        folder = pathlib.Path(options.folder).absolute()
        folder.mkdir(parents=True)
    else:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="invoices-"))
    started = []
    try:
        differences = exchange(options, folder, started)
    except Failed as failed:
        differences = [str(failed)]
    finally:
        for process in reversed(started):
            stop(process)
    if differences:
        for difference in differences[:50]:
            print(difference)
        if len(differences) > 50:
            print(f"and {len(differences) - 50} more")
        print(f"differences: {len(differences)}; ledger, archive and logs are in {folder}")
        return 1
    if not options.folder:
        shutil.rmtree(folder)
    return 0


def exchange(options, folder, started):
    address = options.address or start_node(options.binary, folder, started)
    topic = f"invoices.{time.time_ns():x}"
    common = ["--nsqd-tcp-address", address, "--topic", topic]
    print(f"node {address}, topic {topic}")

    # Both subscribe before anything is published: a channel begins where it is created.
    ledger = start(
        folder,
        started,
        "ledger",
        [
            sys.executable,
            HERE / "ledger.py",
            *common,
            "--ledger",
            folder / "ledger.jsonl",
            "--ready",
            folder / "ledger.ready",
        ],
    )
    archive = start(
        folder,
        started,
        "archive",
        [
            "node",
            HERE / "archive.js",
            *common,
            "--archive",
            folder / "archive",
            "--index",
            folder / "archive.jsonl",
            "--ready",
            folder / "archive.ready",
        ],
    )
    for name in ("ledger", "archive"):
        try:
            wait((folder / f"{name}.ready").exists, START_S, f"the {name} did not subscribe", started)
        except Failed as failed:
            raise Failed(f"{failed}: {tail(folder, name)}") from None
    publisher = start(
        folder,
        started,
        "publish",
        [
            sys.executable,
            HERE / "publish.py",
            *common,
            "--count",
            str(options.count),
            "--seed",
            str(options.seed),
            "--published",
            folder / "published.jsonl",
        ],
    )

    seen, last = -1, time.monotonic()
    while True:
        # Asked first: what it has published is only complete if it had ended before its file was read.
        has_ended = publisher.poll() is not None
        published, posted, filed = (
            check.numbers(folder / f"{name}.jsonl") for name in ("published", "ledger", "archive")
        )
        if has_ended and published <= posted and published <= filed:
            break
        progress = len(published) + len(posted) + len(filed)
        if progress > seen:
            seen, last = progress, time.monotonic()
        for name, consumer in (("ledger", ledger), ("archive", archive)):
            if consumer.poll() is not None:
                raise Failed(f"the {name} ended with exit code {consumer.returncode}: {tail(folder, name)}")
        if publisher.poll():
            raise Failed(f"the publisher ended with exit code {publisher.returncode}: {tail(folder, 'publish')}")
        if time.monotonic() - last > STALL_S:
            break
        time.sleep(0.2)
    for name, consumer in (("ledger", ledger), ("archive", archive)):
        code = stop(consumer)
        if code != 0:
            raise Failed(f"the {name} was asked to stop and ended with exit code {code}: {tail(folder, name)}")

    differences, count, total = check.compare(folder)
    if count != options.count:
        differences.append(f"{options.count} invoices were to be published, {count} were")
    if not differences:
        ways = check.ways(folder)
        print(
            f"PUB {ways['pub']}, MPUB {ways['mpub']}, DPUB {ways['dpub']}, "
            f"requeued once {ways['put off']}, delivered again {ways['again']}"
        )
        print(f"{count} invoices, ledger and archive agree: {total}")
    return differences


def start_node(binary, folder, started):
    data = folder / "node"
    data.mkdir()
    ports = folder / "ports.json"
    start(
        folder,
        started,
        "nsquorum",
        [
            binary,
            "serve",
            "--tcp-address",
            "127.0.0.1:0",
            "--http-address",
            "127.0.0.1:0",
            "--lookup-tcp-address",
            "127.0.0.1:0",
            "--lookup-http-address",
            "127.0.0.1:0",
            "--data-path",
            data,
            "--ports-file",
            ports,
        ],
    )

    def read_ports():
        try:
            return json.loads(ports.read_text())["tcp"]
        except (FileNotFoundError, ValueError):
            return None

    return wait(read_ports, START_S, "the node did not start", started)


def start(folder, started, name, command):
    with open(folder / f"{name}.log", "wb") as log:
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    process.part = name
    process.folder = folder
    started.append(process)
    return process


def stop(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode


def wait(condition, seconds, complaint, started):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        for process in started:
            if process.poll() is not None:
                raise Failed(
                    f"{complaint}: {process.part} ended with exit code {process.returncode}: "
                    f"{tail(process.folder, process.part)}"
                )
        time.sleep(0.05)
    raise Failed(f"{complaint} within {seconds} s")


def tail(folder, name):
    text = (folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").strip()
    return " | ".join(text.splitlines()[-5:]) or "(no output)"


if __name__ == "__main__":
    # Whoever reads along through a pipe sees each line when it is written.
    sys.stdout.reconfigure(line_buffering=True)
    os.environ["PYTHONUNBUFFERED"] = "1"
    # An exit by exception, so that what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
