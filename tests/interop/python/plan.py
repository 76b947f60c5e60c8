"""The plan of a run: a function of seed and message number alone, the same in all four languages (../README.md)."""

import hashlib

MASK = 0xFFFFFFFF


def mix(a, b, c):
    h = (a ^ (b * 0x9E3779B1) ^ (c * 0x85EBCA77)) & MASK
    h ^= h >> 16
    h = h * 0x85EBCA6B & MASK
    h ^= h >> 13
    h = h * 0xC2B2AE35 & MASK
    return h ^ h >> 16


def salt_of(channel):
    h = 0x811C9DC5
    for byte in channel.encode():
        h = (h ^ byte) * 0x01000193 & MASK
    return h


def body_of(seed, number):
    h = mix(seed, number, 3)
    length = 16 + h % 400
    word = f"{h:08x}"
    return f"{number}:{(word * (length // 8 + 1))[:length]}".encode()


def number_of(body):
    return int(body[: body.index(b":")])


def sum_of(body):
    return hashlib.sha256(body).hexdigest()[:16]


def way_of(options, number):
    """How the command that begins with this message is sent: name, messages in it, delay in ms."""
    h = mix(options.seed, number, 7)
    r = h % 1000
    if r < options.deferred_per_mille:
        return "dpub", 1, 50 + (h >> 10) % 1500
    if r < options.deferred_per_mille + options.mpub_per_mille:
        return "mpub", min(2 + (h >> 10) % 49, options.first + options.count - number), 0
    return "pub", 1, 0


def fate_of(options, salt, number):
    """How often it is requeued, with what delay in ms, and whether its first delivery is left to its timeout."""
    h = mix(options.seed, number, salt)
    if h % 1000 < options.requeue_per_mille:
        return 1 + (h >> 10 & 1), (0, 0, 100, 500)[h >> 12 & 3], False
    return 0, 0, mix(options.seed, number, (salt + 1) & MASK) % 1_000_000 < options.hold_per_million
