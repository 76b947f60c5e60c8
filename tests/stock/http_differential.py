#!/usr/bin/env python3
"""The same HTTP requests to stock nsqd and to nsquorum: every difference is an error, unless it is deliberate.

    http_differential.py --stock-programs DIR --binary FILE [--nodes N] [--only WORD] [--verbose]

With `--nodes 3` a cluster is asked through its last node, and what its nodes count is added up. What is deliberate is the list below, each with its reason; an entry that
fits nothing any more is an error too.
"""

import argparse
import pathlib
import sys
import tempfile
import time

import servers
import totals
from comparison import differences
from differential import Deliberate, report, show_logs, stale, unexpected
from http_cases import FLAGS, Case, World, all_cases, tls_cases


DELIBERATE = [
    Deliberate(r"GET /stats.*", r"\.topics\[\]\.(replication_factor|in_sync_replicas)", "what only a replicated node can say; tools pass over it", r"\d+"),
    Deliberate(r"GET /stats.*", r".*\.backend_depth", "everything is on disk, so this is the depth", r"\d+"),
    Deliberate(r"GET /stats.*", r".*\.topology_(zone|region)", "of nsqd's releases after 1.3.0", ""),
    Deliberate(r"GET /info.*", r"\.topology_(zone|region)", "of nsqd's releases after 1.3.0", ""),
    Deliberate(r"GET /stats.*", "text, first line", "what nsqd was built with", r"'nsqd v1\.3\.0 \(nsquorum\)'"),
    Deliberate(r".* /debug/pprof.*", ".*", "profiles are in Go's own form"),
    Deliberate(r"PUT /debug/setblockrate.*|POST /debug/freememory.*", "status", "nsqd does it and then answers 500 by accident", "200"),
    Deliberate(r"PUT /debug/setblockrate.*|POST /debug/freememory.*", "header .*|text, first line", "the same", "None|''"),
    Deliberate(r"PUT /debug/setblockrate .*form.*", ".*", "parameters come from the query string only, here too"),
    Deliberate(r"POST .*\b(300000|3000000) bytes.*", "header connection|alive", "nsqd closes when more than 256 KiB of a body are left; here it is 4 MiB", "None|True"),
    Deliberate(r"POST /topic/delete, topic: (ephemeral|64 with suffix)", ".*", "an ephemeral topic stays when its last channel goes"),
    Deliberate(r"GET /config/id", ".*", "message ids have no number of a node in them"),
    Deliberate(r"(GET|PUT) /config/nsqlookupd_tcp_addresses.*", "text, first line", "no list is an empty one", r"'\[\]'"),
    Deliberate(r"GET /STATS\?a=<b>.*", ".*", "characters that no request line may have are refused by the HTTP library"),
    Deliberate(r"GET /ping#x", ".*", "a fragment, which no client sends, is cut off by the HTTP library"),
    Deliberate(r"a bad .*|two lengths|an unknown transfer encoding", "status|header content-type|text, first line", "the HTTP library refuses without words", "400|None|''"),
    Deliberate(r"a broken chunk", "header connection", "closed all the same", "None"),
    Deliberate(r"empty lines before the request", ".*", "servers should ignore them (RFC 9112, 2.2)"),
]


def run(step, world):
    deadline = time.monotonic() + servers.PATIENCE_S
    for _ in step.run(world):
        if time.monotonic() > deadline:
            raise SystemExit(f"error: {world.server.name}: {step.name}: not within {servers.PATIENCE_S} s; it has {world.stats()}")
        time.sleep(0.02)


CERTIFICATE = pathlib.Path(__file__).parent.parent / "interop" / "certificate"


def tls_flags(required):
    pair = [f"--tls-cert={CERTIFICATE / 'cert.pem'}", f"--tls-key={CERTIFICATE / 'key.pem'}"]
    return [*FLAGS, *pair, f"--tls-required={required}", "--https-address=127.0.0.1:0"]


def compare(stock, nodes, options, cases, tls=False):
    *others, asked = nodes
    worlds = [World(stock, tls), World(asked, tls, others)]
    count = failed = 0
    for case in cases:
        if not isinstance(case, Case):
            for world in worlds:
                run(case, world)
            continue
        if options.only and options.only not in case.name:
            continue
        count += 1
        answers = [world.answer(case) for world in worlds]
        if others:
            for answer in filter(None, answers):
                answer.body = totals.without_counts(answer.body)
        if options.verbose:
            print(f"{case.name}\n    {answers[0]}")
        failed += report(case.name, unexpected(case.name, differences(*answers), DELIBERATE))
    for world in worlds:
        world.close()
    return count, failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stock-programs", required=True, type=pathlib.Path)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--only", default="", help="only requests with this in their names")
    parser.add_argument("--verbose", action="store_true", help="print every answer of stock nsqd")
    options = parser.parse_args()
    runs = [
        (FLAGS, all_cases(), [False]),
        (tls_flags("true"), list(tls_cases()), [False, True]),
        (tls_flags("tcp-https"), list(tls_cases()), [False, True]),
    ]
    count = failed = 0
    for flags, cases, transports in runs:
        started, failed_here = [], 0
        with tempfile.TemporaryDirectory(prefix="nsquorum-differential.") as directory:
            directory = pathlib.Path(directory)
            try:
                started.append(servers.start_stock(options.stock_programs, directory, flags))
                started += servers.start_nodes(options.binary, directory, flags, options.nodes)
                for tls in transports:
                    asked, different = compare(started[0], started[1:], options, cases, tls)
                    count, failed_here = count + asked, failed_here + different
            finally:
                exits = [server.stop() for server in started]
            if any(exits):
                print(f"FAILED: exit codes {exits}")
                failed_here += 1
            if failed_here:
                show_logs(started)
        failed += failed_here
    if not options.only:
        failed += stale(DELIBERATE)
    print(f"{count} requests to stock nsqd and {options.nodes} node(s): {failed} different, {len(DELIBERATE)} deliberate differences")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
