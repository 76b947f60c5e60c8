#!/usr/bin/env python3
"""The same bytes over TCP to stock nsqd and to nsquorum: the frames that come back, their texts, and whether the connection goes on.

    tcp_differential.py --stock-programs DIR --binary FILE [--nodes N] [--only WORD] [--verbose]

With `--nodes 3` a cluster is asked through its last node. What differs on purpose is the list below.
"""

import argparse
import pathlib
import sys
import tempfile

import nsq_tcp
import servers
from comparison import Difference, Keys, in_json, parse, short
from differential import Deliberate, report, show_logs, stale, unexpected
from http_cases import FLAGS
from tcp_cases import all_cases

# Every state refuses it, and so it tells that the connection was alive until then.
PROBE = b"PROBE\n"
REFUSED = (nsq_tcp.ERROR, b"E_INVALID invalid command PROBE")

DELIBERATE = [
    Deliberate(r"IDENTIFY .*", r"\.topology_(zone|region)", "of nsqd's releases after 1.3.0", ""),
    Deliberate(r"(RDY|DPUB, delay) '\d{20,}'", ".*", "a number beyond 64 bits is refused; nsqd takes what is left of it"),
]


def frames(server, case):
    """All frames that come back until the server closes, and whether the probe was the last command that was read."""
    with nsq_tcp.Client(server.tcp_port, case.data + (PROBE if case.probe else b"")) as client:
        try:
            client.half_close()
        except OSError:
            pass
        found = []
        try:
            while True:
                kind, data = client.frame()
                found.append((kind, data if kind != nsq_tcp.MESSAGE else data[8:10] + data[26:]))
        except nsq_tcp.Closed:
            pass
    alive = bool(found) and found[-1] == REFUSED
    return (found[:-1] if alive else found), alive


def differences(stock, ours):
    (stock, stock_alive), (ours, alive) = stock, ours
    if stock_alive != alive:
        yield Difference("alive", str(stock_alive), str(alive))
    if len(stock) != len(ours):
        yield Difference("number of frames", short(stock), short(ours))
    for one, other in zip(stock, ours):
        left, right = parse(one[1]), parse(other[1])
        if isinstance(left, Keys) and isinstance(right, Keys):
            yield from in_json(left, right, "")
        elif one != other:
            yield Difference("frame", short(one), short(other))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stock-programs", required=True, type=pathlib.Path)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--only", default="", help="only cases with this in their names")
    parser.add_argument("--verbose", action="store_true", help="print what stock nsqd answers")
    options = parser.parse_args()
    started, count, failed = [], 0, 0
    with tempfile.TemporaryDirectory(prefix="nsquorum-differential.") as directory:
        directory = pathlib.Path(directory)
        try:
            started.append(servers.start_stock(options.stock_programs, directory, FLAGS))
            started += servers.start_nodes(options.binary, directory, FLAGS, options.nodes)
            for case in all_cases():
                if options.only not in case.name:
                    continue
                count += 1
                answers = [frames(server, case) for server in (started[0], started[-1])]
                if options.verbose:
                    print(f"{case.name}\n    {answers[0]}")
                failed += report(case.name, unexpected(case.name, differences(*answers), DELIBERATE))
        finally:
            exits = [server.stop() for server in started]
        if failed or any(exits):
            show_logs(started)
    if any(exits):
        print(f"FAILED: exit codes {exits}")
        failed += 1
    if not options.only:
        failed += stale(DELIBERATE)
    print(f"{count} connections to stock nsqd and {options.nodes} node(s): {failed} different, {len(DELIBERATE)} deliberate differences")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
