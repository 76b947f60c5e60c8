"""What of two HTTP answers has to be equal, and where they are not."""

import json
import re
from dataclasses import dataclass

HEADERS = ["content-type", "x-nsq-content-type", "allow", "location", "connection", "retry-after", "content-encoding"]

# What differs from run to run and from machine to machine: only its kind is compared. Paths as in `differences`.
VOLATILE = [
    r"\.start_time",
    r"\.memory\..*",
    r".*\.connect_ts",
    r".*\.remote_address",
    r"\.(http|tcp)_port",
]

# The same in text: what is replaced before the comparison.
VOLATILE_TEXT = [
    (r"(?m)^start_time \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)$", "start_time <time>"),
    (r"(?m)^uptime (\d+h)?(\d+m)?\d+(\.\d+)?(ms|µs|s)$", "uptime <duration>"),
    (r"connected: (\d+m)?\d+s", "connected: <duration>"),
    (r"(?m)^(   (?:heap|gc|next)_\w+ +\t)\d+$", r"\1<number>"),
    (r":\d{4,5} ", ":<port> "),
    # Deliberate, see `backend_depth` in http_differential.py.
    (r"be-depth: \d+ +", "be-depth: <number> "),
]


@dataclass(frozen=True)
class Difference:
    """One place where answers differ: `status`, a header, `body`, or a path into JSON such as `.topics[].depth`."""

    where: str
    stock: str
    ours: str

    def __str__(self):
        return f"{self.where}: {self.stock} (stock), {self.ours} (ours)"


def short(value):
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 160 else f"{text[:160]}… ({len(text)})"


class Keys(list):
    """The pairs of a JSON object in their order."""


def parse(body):
    try:
        return json.loads(body, object_pairs_hook=Keys)
    except ValueError:
        return None


def kind(value):
    return "object" if isinstance(value, Keys) else type(value).__name__.replace("int", "number").replace("float", "number")


def differences(stock, ours):
    """All differences of two answers; `None` is a connection that was closed without one."""
    if stock is None or ours is None:
        if (stock is None) != (ours is None):
            yield Difference("answer", "none" if stock is None else f"status {stock.status}", "none" if ours is None else f"status {ours.status}")
        return
    if stock.status != ours.status:
        yield Difference("status", str(stock.status), str(ours.status))
    for name in HEADERS:
        if stock.headers.get(name) != ours.headers.get(name):
            yield Difference(f"header {name}", short(stock.headers.get(name)), short(ours.headers.get(name)))
    for name in ours.twice:
        yield Difference(f"header {name}", "once", "twice")
    for what in ("continued", "alive"):
        if getattr(stock, what) != getattr(ours, what):
            yield Difference(what, str(getattr(stock, what)), str(getattr(ours, what)))
    if stock.body == ours.body:
        return
    left, right = parse(stock.body), parse(ours.body)
    if isinstance(left, Keys) and isinstance(right, Keys):
        yield from in_json(left, right, "")
    else:
        left, right = text(stock.body), text(ours.body)
        if left != right:
            yield from in_text(left, right)


def in_json(left, right, path):
    if any(re.fullmatch(volatile, path) for volatile in VOLATILE) and kind(left) == kind(right):
        return
    if kind(left) != kind(right):
        yield Difference(path, short(left), short(right))
    elif isinstance(left, Keys):
        ours, names = dict(right), [name for name, _ in left]
        for name, value in right:
            if name not in names:
                yield Difference(f"{path}.{name}", "absent", short(value))
        for name, value in left:
            if name not in ours:
                yield Difference(f"{path}.{name}", short(value), "absent")
            else:
                yield from in_json(value, ours[name], f"{path}.{name}")
        order = [name for name, _ in right if name in names]
        if order != [name for name in names if name in ours]:
            yield Difference(f"{path} order of keys", short(names), short(order))
    elif isinstance(left, list):
        if path == ".producers":
            # Stock nsqd lists them in the order of a hash table.
            left, right = (sorted(side, key=lambda client: dict(client)["client_id"]) for side in (left, right))
        if len(left) != len(right):
            yield Difference(f"{path}[] length", str(len(left)), str(len(right)))
        for one, other in zip(left, right):
            yield from in_json(one, other, f"{path}[]")
    elif left != right:
        yield Difference(path, short(left), short(right))


def text(body):
    body = body.decode("utf-8", "replace")
    for pattern, replacement in VOLATILE_TEXT:
        body = re.sub(pattern, replacement, body)
    head, producers, list_of = body.partition("\nProducers:\n")
    return head + producers + "\n".join(sorted(list_of.split("\n")))


def in_text(left, right):
    left, right = left.split("\n"), right.split("\n")
    if len(left) != len(right):
        yield Difference("text, number of lines", str(len(left)), str(len(right)))
    for number, (one, other) in enumerate(zip(left, right)):
        if one != other:
            yield Difference("text, first line" if number == 0 else "text", short(repr(one)), short(repr(other)))
