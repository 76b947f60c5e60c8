"""Interop client with pynsq: a producer and a consumer that write down what they did and saw (../README.md)."""

import argparse
import asyncio
import json
import logging
import signal
import sys
import time

import nsq
import plan


class Troubles(logging.Handler):
    """Takes pynsq's warnings and errors: none belongs into a run without kills."""

    def __init__(self, write):
        super().__init__(logging.WARNING)
        self.write = write

    def emit(self, record):
        self.write({"error": self.format(record), "at": time.time_ns()})


def main():
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
    options = arguments.parse_args()
    with open(options.out, "w", encoding="utf-8") as file:
        asyncio.run({"producer": produce, "consumer": consume}[options.mode](options, file))


def layers_of(options):
    names = options.transport.split("-")
    return {
        "tls_v1": "tls" in names,
        "tls_options": {"ca_certs": options.tls_root_ca_file},
        "snappy": "snappy" in names,
        "deflate": "deflate" in names,
    }


async def produce(options, file):
    writer = nsq.Writer([options.nsqd_tcp_address], reconnect_interval=0.05 if options.restarts else 15.0, **layers_of(options))

    def is_connected():
        return any(connection.connected() for connection in writer.conns.values())

    deadline = time.monotonic() + 30
    while not is_connected():
        if time.monotonic() > deadline:
            sys.exit("error: no connection within 30 s")
        await asyncio.sleep(0.01)

    records = []
    room = asyncio.Semaphore(options.window)
    under_way = set()
    number = options.first
    while number < options.first + options.count:
        way, size, delay_ms = plan.way_of(options, number)
        numbers = range(number, number + size)
        bodies = [plan.body_of(options.seed, n) for n in numbers]
        await room.acquire()
        while options.restarts and not is_connected():
            await asyncio.sleep(0.01)
        sent, sent_mono = time.time_ns(), time.monotonic_ns()
        command = [
            {
                "body": n,
                "sum": plan.sum_of(body),
                "bytes": len(body),
                "way": way,
                "delay_ms": delay_ms,
                "sent": sent,
                "sent_mono": sent_mono,
            }
            for n, body in zip(numbers, bodies, strict=True)
        ]
        records += command
        under_way.add(number)

        def on_answer(_connection, data, command=command, number=number):
            if number not in under_way:
                return  # a write that fails is told twice
            for record in command:
                record["answer_mono"] = time.monotonic_ns()
                record["outcome"] = data.decode() if isinstance(data, bytes) else repr(data)
            under_way.discard(number)
            room.release()

        if way == "pub":
            writer.pub(options.topic, bodies[0], on_answer)
        elif way == "mpub":
            writer.mpub(options.topic, bodies, on_answer)
        else:
            writer.dpub(options.topic, delay_ms, bodies[0], on_answer)
        number += size
        if options.rest_ms:
            await asyncio.sleep(options.rest_ms / 1000)
    while under_way:
        await asyncio.sleep(0.01)
    for record in records:
        file.write(json.dumps(record) + "\n")


class Consumer:
    def __init__(self, options, file):
        self.options = options
        self.file = file
        self.salt = plan.salt_of(options.channel)
        self.order = 0
        self.before = {}

    def write(self, record):
        self.file.write(json.dumps(record) + "\n")

    def handle(self, message):
        at = time.time_ns()
        number = plan.number_of(message.body)
        requeues, delay_ms, hold = plan.fate_of(self.options, self.salt, number)
        do = "fin"
        if requeues or hold:
            earlier = self.before.get(number, 0)
            self.before[number] = earlier + 1
            if earlier < requeues:
                do = "req"
            elif hold and earlier == 0:
                do = "hold"
        self.order += 1
        self.write(
            {
                "order": self.order,
                "connection": self.options.name,
                "node": getattr(message, "node", ""),
                "id": message.id.decode(),
                "timestamp": str(message.timestamp),
                "attempts": message.attempts,
                "body": number,
                "sum": plan.sum_of(message.body),
                "at": at,
                "do": do,
                "delay_ms": delay_ms if do == "req" else 0,
            }
        )
        if do == "fin":
            return True
        if do == "req":
            message.requeue(backoff=False, time_ms=delay_ms)
        else:
            message.enable_async()
        return None


class Reader(nsq.Reader):
    """Tells each message which node it came from."""

    def _on_message(self, conn, message, **kwargs):
        message.node = f"{conn.host}:{conn.port}"
        super()._on_message(conn, message, **kwargs)


async def consume(options, file):
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    consumer = Consumer(options, file)
    troubles = Troubles(consumer.write)
    logging.getLogger("nsq").addHandler(troubles)
    where = (
        {"lookupd_http_addresses": options.lookupd_http_address.split(",")}
        if options.lookupd_http_address
        else {"nsqd_tcp_addresses": [options.nsqd_tcp_address]}
    )
    if options.restarts:
        where["lookupd_poll_interval"] = 1
    Reader(
        message_handler=consumer.handle,
        topic=options.topic,
        channel=options.channel,
        max_in_flight=options.max_in_flight,
        max_tries=0,  # otherwise the sixth delivery is finished unseen
        msg_timeout=options.msg_timeout_ms / 1000,
        **layers_of(options),
        **where,
    )
    # The driver ends consumers when the node has nothing left to deliver.
    await stop.wait()
    logging.getLogger("nsq").removeHandler(troubles)


if __name__ == "__main__":
    main()
