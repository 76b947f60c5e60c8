"""Interop client with pynsq: a producer and a consumer that write down what they did and saw (../README.md)."""

import asyncio
import json
import logging
import signal
import sys
import time

import nsq
import program


def main():
    options = program.options()
    with open(options.out, "w", encoding="utf-8") as file:
        asyncio.run({"producer": produce, "consumer": consume}[options.mode](options, file))


def layers_of(options):
    return {
        "tls_v1": program.has(options, "tls"),
        "tls_options": {"ca_certs": options.tls_root_ca_file},
        "snappy": program.has(options, "snappy"),
        "deflate": program.has(options, "deflate"),
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
    for publish in program.publishes(options):
        await room.acquire()
        while options.restarts and not is_connected():
            await asyncio.sleep(0.01)
        records += publish.records
        publish.begin()
        under_way.add(publish)

        def on_answer(_connection, data, publish=publish):
            if publish not in under_way:
                return  # a write that fails is told twice
            publish.answered(data)
            under_way.discard(publish)
            room.release()

        if publish.way == "pub":
            writer.pub(options.topic, publish.bodies[0], on_answer)
        elif publish.way == "mpub":
            writer.mpub(options.topic, publish.bodies, on_answer)
        else:
            writer.dpub(options.topic, publish.delay_ms, publish.bodies[0], on_answer)
        if options.rest_ms:
            await asyncio.sleep(options.rest_ms / 1000)
    while under_way:
        await asyncio.sleep(0.01)
    for record in records:
        file.write(json.dumps(record) + "\n")


class Reader(nsq.Reader):
    """Tells each message which node it came from."""

    def _on_message(self, conn, message, **kwargs):
        message.node = f"{conn.host}:{conn.port}"
        super()._on_message(conn, message, **kwargs)


async def consume(options, file):
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    deliveries = program.Deliveries(options, file)
    troubles = program.Troubles(deliveries)
    logging.getLogger("nsq").addHandler(troubles)

    def handle(message):
        node = getattr(message, "node", "")
        do, delay_ms = deliveries.take(message.id, message.timestamp, message.attempts, message.body, node)
        if do == "fin":
            return True
        if do == "req":
            message.requeue(backoff=False, time_ms=delay_ms)
        else:
            message.enable_async()
        return None

    where = (
        {"lookupd_http_addresses": options.lookupd_http_address.split(",")}
        if options.lookupd_http_address
        else {"nsqd_tcp_addresses": [options.nsqd_tcp_address]}
    )
    if options.restarts:
        where["lookupd_poll_interval"] = 1
    Reader(
        message_handler=handle,
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
