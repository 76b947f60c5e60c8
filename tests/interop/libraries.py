"""The client libraries, how their programs are started, and what each of them can do (README.md has the reasons)."""

import os
import pathlib
import sys
from dataclasses import dataclass

HERE = pathlib.Path(__file__).parent
TRANSPORTS = ("plain", "tls", "snappy", "deflate", "tls-snappy", "tls-deflate")


@dataclass(frozen=True)
class Library:
    command: tuple
    produces: tuple = TRANSPORTS
    consumes: tuple = TRANSPORTS
    # Where not, the node's own timeout holds for its consumers.
    asks_msg_timeout: bool = True
    # Where not, connections to nodes that it has from nsqlookupd are always plain.
    identifies_discovered: bool = True
    # By default it is tried over this one beside plain; the first three libraries are tried over all.
    sample_transport: str | None = None


def python(name):
    return (sys.executable, HERE / "python" / f"with_{name}.py")


def java():
    folder = pathlib.Path(os.environ.get("INTEROP_JAVA", "java client is not built"))
    # Its runs are short: starting quickly matters more than running fast.
    return ("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{folder / 'classes'}:{folder / 'jars'}/*", "Main")


LIBRARIES = {
    "go": Library((os.environ.get("INTEROP_GO", "go client is not built"),)),
    "python": Library(python("pynsq")),
    "node": Library(("node", HERE / "node" / "client.js")),
    "gnsq": Library(python("gnsq"), produces=("plain",), asks_msg_timeout=False, sample_transport="tls"),
    "asyncnsq": Library(
        python("asyncnsq"),
        produces=("plain", "snappy", "deflate"),
        consumes=("plain", "snappy", "deflate"),
        asks_msg_timeout=False,
        identifies_discovered=False,
        sample_transport="deflate",
    ),
    "ansq": Library(python("ansq"), produces=("plain",), consumes=("plain",)),
    "java": Library(java(), sample_transport="tls-snappy"),
}
# Each of these with each, and with producers and consumers at a cluster whose leader is killed.
FIRST = ("go", "python", "node")
OTHERS = tuple(name for name in LIBRARIES if name not in FIRST)


def pairs_of(selected, transport, every):
    """Producer, consumer, and whether the consumers come only when all is published.

    Every consumer takes part in both kinds where it has several runs: messages of a running consumer come from memory, those of a late one from the log.
    """
    names = list(LIBRARIES)

    def square(group):
        return [(p, c, (names.index(p) + names.index(c)) % 2 == 1) for p in group for c in group]

    def ring(group):
        """Each once as producer and once as consumer, where it can be both."""
        producers = [name for name in group if transport in LIBRARIES[name].produces]
        consumers = [name for name in group if transport in LIBRARIES[name].consumes]
        runs = max(len(producers), len(consumers)) if producers and consumers else 0
        pairs = ((producers[turn % len(producers)], consumers[(turn + 1) % len(consumers)]) for turn in range(runs))
        return [(p, c, names.index(c) % 2 == 0) for p, c in pairs]

    if every:
        # What a transport does to the bytes does not depend on who is at the other end.
        return square(selected) if transport == "plain" else ring(selected)
    first, others = tuple(name for name in selected if name in FIRST), tuple(name for name in selected if name in OTHERS)
    if transport == "plain":
        return square(first) + ring(others)
    sampled = [name for name in others if LIBRARIES[name].sample_transport == transport]
    return ring(first) + [(name if transport in LIBRARIES[name].produces else FIRST[0], name, False) for name in sampled]
