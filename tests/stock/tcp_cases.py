"""What stock nsqd and nsquorum are both sent over TCP: each case on a connection of its own."""

import json
import struct
from dataclasses import dataclass

from http_cases import MAX_BODY_SIZE, MAX_MSG_SIZE, NAMES, mpub

V2 = b"  V2"
ID = b"0123456789abcdef"


@dataclass
class Case:
    name: str
    # Everything the client sends. Behind it come the probe, which every state refuses in its own words, and the end of the stream.
    data: bytes
    # The probe would be taken for the rest of something.
    probe: bool = True


def body(data, length=None):
    return struct.pack(">i", len(data) if length is None else length) + data


def line(text, *parts):
    return (text if isinstance(text, bytes) else text.encode()) + b"\n" + b"".join(parts)


def identify(**fields):
    return line("IDENTIFY", body(json.dumps(fields).encode()))


def case(name, *parts, probe=True):
    return Case(name, V2 + b"".join(parts), probe)


def short(data):
    text = repr(data)
    return text if len(text) < 70 else f"{text[:70]}… ({len(data)} bytes)"


def preambles():
    for magic in [b"  V1", b"    ", b"V2  ", b"GET ", b"\0\0\0\0", b"  v2", b" V2 "]:
        yield Case(f"magic {magic!r}", magic)
    for magic in [b"", b" ", b"  V"]:
        yield Case(f"magic {magic!r}, then the end", magic, probe=False)
    yield case("nothing behind the magic", probe=False)


SUBSCRIBED = line("SUB states ch")
STATES = {"init": b"", "subscribed": SUBSCRIBED, "closing": SUBSCRIBED + line("CLS"), "published": line("PUB states.p", body(b"x"))}
COMMANDS = {
    "IDENTIFY": identify(feature_negotiation=True), "AUTH": line("AUTH", body(b"secret")), "SUB": line("SUB states ch"), "RDY": line("RDY 1"), "FIN": line(b"FIN " + ID),
    "REQ": line(b"REQ " + ID + b" 0"), "TOUCH": line(b"TOUCH " + ID), "CLS": line("CLS"), "NOP": line("NOP"), "PUB": line("PUB states.p", body(b"x")),
    "MPUB": line("MPUB states.p", body(mpub(b"x"))), "DPUB": line("DPUB states.p 0", body(b"x")), "unknown": line("WHATEVER"),
}


def states():
    for state, before in STATES.items():
        for name, command in COMMANDS.items():
            yield case(f"{name} when {state}", before, command)
            yield case(f"{name} twice when {state}", before, command, command)


def lines():
    for text in [b"", b" ", b"\r", b"nop", b"Nop", b" NOP", b"NOP ", b"NOP x y", b"NOP\r", b"NOP\r\r", b"NOP\t", b"PUB", b"PUB ", b"PUB\r", b"\0", b"\xff\xfe", b"%d%s", b"PUBx t", b"SUB  t c", b"SUB t  c", b"X" * 1000,
                 b"VERY UNKNOWN COMMAND", b'qu"ote', b"SUB t c extra", b"SUB t c\r", b"CLS extra", b"RDY", b"RDY ", b"RDY\r", b"TOUCH", b"FIN", b"REQ", b"DPUB", b"MPUB", b"SUB", b"SUB t"]:
        yield case(f"line {short(text)}", line(text))
        yield case(f"line {short(text)} when subscribed", SUBSCRIBED, line(text))
    yield case("PUB with an extra parameter", line("PUB lines extra", body(b"x")))
    yield case("MPUB with an extra parameter", line("MPUB lines extra", body(mpub(b"x"))))
    yield case("DPUB with an extra parameter", line("DPUB lines 0 extra", body(b"x")))
    yield case("PUB with CRLF", line(b"PUB lines\r", body(b"x")))
    yield case("AUTH with a parameter", line("AUTH x", body(b"x")))
    yield case("IDENTIFY with a parameter", line("IDENTIFY x", body(b"{}")))
    yield case("a line without its end", b"NOP", probe=False)
    yield case("RDY with an extra parameter", SUBSCRIBED, line("RDY 1 2"))
    for length in [10_000, 16_000]:
        yield case(f"a line of {length} bytes", line(b"A" * length))


def names():
    for name, what in NAMES:
        name = name.encode()
        if b"\n" in name or b" " in name:
            continue
        yield case(f"PUB, topic: {what}", line(b"PUB " + name, body(b"x")))
        yield case(f"MPUB, topic: {what}", line(b"MPUB " + name, body(mpub(b"x"))))
        yield case(f"DPUB, topic: {what}", line(b"DPUB " + name + b" 0", body(b"x")))
        yield case(f"SUB, topic: {what}", line(b"SUB " + name + b" ch"))
        yield case(f"SUB, channel: {what}", line(b"SUB names " + name))
    yield case("SUB, both bad", line("SUB h$ c$"))
    yield case("PUB, topic: not UTF-8", line(b"PUB \xff\xfe", body(b"x")))
    yield case("SUB, channel: control characters", line(b"SUB names \x01\x7f\t"))
    yield case("DPUB, bad topic and bad delay", line("DPUB h$ x", body(b"x")))


def publishing():
    for length in [1, MAX_MSG_SIZE - 1, MAX_MSG_SIZE, MAX_MSG_SIZE + 1, MAX_BODY_SIZE, 300_000]:
        for command in ["PUB sizes", "DPUB sizes 0"]:
            yield case(f"{command}, {length} bytes", line(command, body(b"b" * length)), probe=length <= MAX_MSG_SIZE)
    for announced in [0, -1, -(1 << 31), (1 << 31) - 1]:
        for command in ["PUB sizes", "DPUB sizes 0", "MPUB sizes", "IDENTIFY", "AUTH"]:
            yield case(f"{command}, length {announced}", line(command, struct.pack(">i", announced)), probe=announced <= 0)
    for command in ["PUB sizes", "DPUB sizes 0", "MPUB sizes", "IDENTIFY", "AUTH"]:
        yield case(f"{command}, no length", line(command), probe=False)
        yield case(f"{command}, half a length", line(command, b"\0\0"), probe=False)
        yield case(f"{command}, half a body", line(command, body(b"\0\0\0", 10)), probe=False)
    for delay in ["0", "1", "-1", "3600000", "3600001", "x", "", "1.5", "0x1", "+1", "00001", "1e3", "18446744073709551616", "99999999999999999999999"]:
        yield case(f"DPUB, delay {delay!r}", line(f"DPUB delays {delay}", body(b"x")))
    count_max = (MAX_BODY_SIZE - 4) // 5
    for what, data in [
        ("one", mpub(b"x")), ("three", mpub(b"x", b"yy", b"zzz")), ("none", mpub()), ("count -1", mpub(count=-1)), ("an empty message", mpub(b"x", b"")), ("size -1", struct.pack(">ii", 1, -1)),
        ("longest message", mpub(b"x" * MAX_MSG_SIZE)), ("greatest count", mpub(*[b"z"] * count_max)),
    ]:
        yield case(f"MPUB: {what}", line("MPUB many", body(data)))
    for what, data in [
        ("message too long", mpub(b"x" * (MAX_MSG_SIZE + 1))), ("count over the limit", mpub(*[b"z"] * count_max, count=count_max + 1)), ("body too long", mpub(*[b"x" * 1000] * 10)),
        ("a message missing", mpub(b"x", count=2)), ("a message cut short", mpub(b"xyz")[:-1]), ("only a count", mpub(count=1)), ("3 bytes", b"\0\0\0"),
    ]:
        yield case(f"MPUB: {what}", line("MPUB many", body(data)), probe=False)
    yield case("MPUB: length and contents differ", line("MPUB many", body(mpub(b"x", b"y"), 5)))
    yield case("many publishes at once", *[line("PUB many", body(b"%d" % number)) for number in range(50)])
    yield case("an error behind publishes", *[line("PUB many", body(b"x"))] * 5, line("PUB h$", body(b"x")), line("PUB many", body(b"x")))


def identifying():
    for data in [b"{}", b"null", b"[]", b"1", b'""', b"true", b"{", b"", b"x", b"{}{}", b"{} ", b" {}", b'{"a":}', b'{"client_id":1}', b'{"client_id":null}', b'{"client_id":"\\ud800"}', b'{"CLIENT_ID":"x"}', b'{"unknown":[1,{"a":null}]}',
                 b'{"feature_negotiation":1}', b'{"feature_negotiation":"true"}', b'{"feature_negotiation":null}', b'{"Feature_Negotiation":true}', b'{"feature_negotiation":true,"feature_negotiation":false}', b'{"heartbeat_interval":"1"}', b"\xef\xbb\xbf{}"]:
        yield case(f"IDENTIFY {data!r}", line("IDENTIFY", body(data)), probe=bool(data))
    values = {
        "heartbeat_interval": [0, -1, -2, 999, 1000, 60000, 60001, 30000.0, 1.5, 1 << 31, 1 << 63, "x", None, True],
        "output_buffer_size": [0, -1, -2, 63, 64, 65536, 65537],
        "output_buffer_timeout": [0, -1, -2, 24, 25, 30000, 30001],
        "sample_rate": [0, 1, 99, 100, -1, 1 << 31],
        "msg_timeout": [0, 999, 1000, 900000, 900001, -1],
        "deflate_level": [0, -1, 1, 6, 9, 99],
        "tls_v1": [True, False, 1], "short_id": ["x"], "long_id": ["x"], "user_agent": ["x", 1], "hostname": ["", "h"],
    }
    for field, options in values.items():
        for value in options:
            yield case(f"IDENTIFY {field} {value!r}", identify(feature_negotiation=True, **{field: value}))
            yield case(f"IDENTIFY {field} {value!r} without negotiation", identify(**{field: value}))
    yield case("IDENTIFY with everything wrong", identify(heartbeat_interval=1, output_buffer_size=1, output_buffer_timeout=1, sample_rate=100, msg_timeout=1))
    yield case("IDENTIFY with all but the first wrong", identify(output_buffer_size=1, output_buffer_timeout=1, sample_rate=100, msg_timeout=1))
    yield case("IDENTIFY with both compressions", identify(feature_negotiation=True, snappy=True, deflate=True))
    yield case("IDENTIFY with both compressions without negotiation", identify(snappy=True, deflate=True))
    yield case("IDENTIFY that is too long", line("IDENTIFY", body(b" " * (MAX_BODY_SIZE + 1))), probe=False)
    yield case("IDENTIFY as long as may be", line("IDENTIFY", body(b"{}" + b" " * (MAX_BODY_SIZE - 2))))
    yield case("SUB without heartbeats", identify(heartbeat_interval=-1), line("SUB identify ch"))
    yield case("IDENTIFY thrice", identify(feature_negotiation=True), identify(feature_negotiation=True, msg_timeout=5000), identify())


def consuming():
    for count in ["0", "1", "2500", "2501", "-1", "x", "1.5", "", "00001", "+1", "18446744073709551616", "9999999999999999999999"]:
        yield case(f"RDY {count!r}", line("SUB rdy ch"), line(f"RDY {count}"))
    for command in ["FIN", "TOUCH", "REQ"]:
        for id in [ID, b"short", b"0123456789abcdefg", b"", b"\xff" * 16, b"ABCDEF0123456789", b"zzzzzzzzzzzzzzzz"]:
            suffix = b" 0" if command == "REQ" else b""
            yield case(f"{command} {id!r}", line("SUB held ch"), line(command.encode() + b" " + id + suffix))
    for delay in ["0", "-1", "x", "", "1.5", "3600001", "99999999999999999999999"]:
        yield case(f"REQ with delay {delay!r}", line("SUB held ch"), line(ID.join([b"REQ ", b" " + delay.encode()])))
    yield case("REQ without delay", line("SUB held ch"), line(b"REQ " + ID))
    yield case("several failures that are not fatal", line("SUB held ch"), *[line(command + b" " + ID) for command in (b"FIN", b"TOUCH")] * 3)


def all_cases():
    for part in [preambles, states, lines, names, publishing, identifying, consuming]:
        yield from part()
