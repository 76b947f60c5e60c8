"""What the programs of all Python clients have in common: their options, what a producer sends, what a consumer does with a delivery, and records of both."""

import argparse
import json
import logging
import time

import plan


def options():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("mode", choices=("producer", "consumer"))
    arguments.add_argument("--nsqd-tcp-address")
    arguments.add_argument("--lookupd-http-address", help="the consumer finds nsqd there")
    arguments.add_argument("--transport", default="plain", help="plain, tls, snappy, deflate, tls-snappy, tls-deflate")
    arguments.add_argument("--tls-root-ca-file")
    arguments.add_argument("--topic", required=True)
    arguments.add_argument("--channel")
    arguments.add_argument("--name", help="of this connection, in the records")
    arguments.add_argument("--out", required=True, help="file for the records")
    arguments.add_argument("--first", type=int, default=1)
    arguments.add_argument("--count", type=int)
    arguments.add_argument("--seed", type=int, required=True)
    arguments.add_argument("--deferred-per-mille", type=int, default=0)
    arguments.add_argument("--mpub-per-mille", type=int, default=0)
    arguments.add_argument("--requeue-per-mille", type=int, default=0)
    arguments.add_argument("--hold-per-million", type=int, default=0)
    arguments.add_argument("--window", type=int, default=64, help="publishes under way at once")
    arguments.add_argument("--max-in-flight", type=int, default=200)
    arguments.add_argument("--msg-timeout-ms", type=int, default=5000)
    arguments.add_argument("--rest-ms", type=int, default=0, help="after each publish")
    arguments.add_argument("--restarts", action="store_true", help="nodes die and come back meanwhile")
    return arguments.parse_args()


def has(options, layer):
    return layer in options.transport.split("-")


class Publish:
    """One command of a producer."""

    def __init__(self, number, way, delay_ms, bodies):
        self.way = way
        self.delay_ms = delay_ms
        self.bodies = bodies
        self.records = [
            {"body": number + index, "sum": plan.sum_of(body), "bytes": len(body), "way": way, "delay_ms": delay_ms}
            for index, body in enumerate(bodies)
        ]

    def begin(self):
        """To be called right before it is sent."""
        sent, sent_mono = time.time_ns(), time.monotonic_ns()
        for record in self.records:
            record["sent"], record["sent_mono"] = sent, sent_mono

    def answered(self, outcome):
        """`outcome` is the bytes of the answer, or what went wrong."""
        for record in self.records:
            record["answer_mono"] = time.monotonic_ns()
            record["outcome"] = outcome.decode() if isinstance(outcome, bytes) else repr(outcome)


def publishes(options):
    """All commands of a producer, in their order."""
    number = options.first
    while number < options.first + options.count:
        way, size, delay_ms = plan.way_of(options, number)
        yield Publish(number, way, delay_ms, [plan.body_of(options.seed, n) for n in range(number, number + size)])
        number += size


class Deliveries:
    """Decides what is done with each delivery and writes it down."""

    def __init__(self, options, file):
        self.options = options
        self.file = file
        self.salt = plan.salt_of(options.channel)
        self.order = 0
        self.before = {}

    def write(self, record):
        self.file.write(json.dumps(record) + "\n")

    def take(self, id, timestamp, attempts, body, node=""):
        """Returns ("fin", 0), ("req", delay in ms) or ("hold", 0): leave it to its timeout."""
        at = time.time_ns()
        number = plan.number_of(body)
        requeues, delay_ms, hold = plan.fate_of(self.options, self.salt, number)
        do = "fin"
        if requeues or hold:
            earlier = self.before.get(number, 0)
            self.before[number] = earlier + 1
            if earlier < requeues:
                do = "req"
            elif hold and earlier == 0:
                do = "hold"
        delay_ms = delay_ms if do == "req" else 0
        self.order += 1
        self.write(
            {
                "order": self.order,
                "connection": self.options.name,
                "node": node,
                "id": id.decode() if isinstance(id, bytes) else id,
                "timestamp": str(timestamp),
                "attempts": attempts,
                "body": number,
                "sum": plan.sum_of(body),
                "at": at,
                "do": do,
                "delay_ms": delay_ms,
            }
        )
        return do, delay_ms


class Troubles(logging.Handler):
    """Takes a library's warnings and errors: none belongs into a run without kills."""

    def __init__(self, deliveries):
        super().__init__(logging.WARNING)
        self.deliveries = deliveries

    def emit(self, record):
        self.trouble(self.format(record))

    def trouble(self, text):
        self.deliveries.write({"error": text, "at": time.time_ns()})
