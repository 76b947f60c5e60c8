"""Interop client with ansq: a producer and a consumer that write down what they did and saw (../README.md)."""

import asyncio

import ansq
import awaiting
import program
from ansq.tcp.types import ConnectionFeatures, ConnectionOptions


def main():
    options = program.options()
    with open(options.out, "w", encoding="utf-8") as file:
        asyncio.run({"producer": produce, "consumer": consume}[options.mode](options, file))


def connection_of(options, **features):
    layers = {"tls_v1": program.has(options, "tls"), "snappy": program.has(options, "snappy"), "deflate": program.has(options, "deflate")}
    return ConnectionOptions(features=ConnectionFeatures(**layers, **features))


async def produce(options, file):
    writer = await asyncio.wait_for(ansq.create_writer([options.nsqd_tcp_address], connection_of(options)), awaiting.OPEN_S)

    async def send(publish):
        if publish.way == "pub":
            answer = await writer.pub(options.topic, publish.bodies[0])
        elif publish.way == "mpub":
            answer = await writer.mpub(options.topic, *publish.bodies)
        else:
            answer = await writer.dpub(options.topic, publish.bodies[0], publish.delay_ms)
        return answer.body

    await awaiting.produce(options, file, send)


async def consume(options, file):
    async def handle(deliveries):
        where = (
            {"lookupd_http_addresses": options.lookupd_http_address.split(",")}
            if options.lookupd_http_address
            else {"nsqd_tcp_addresses": [options.nsqd_tcp_address]}
        )
        connection = connection_of(options, msg_timeout=options.msg_timeout_ms)
        opening = ansq.create_reader(options.topic, options.channel, connection_options=connection, **where)
        reader = await asyncio.wait_for(opening, awaiting.OPEN_S)
        # It subscribes with RDY 1 and leaves the rest to its user.
        for each in reader.connections:
            await each.rdy(options.max_in_flight)
        async for message in reader.messages():
            do, delay_ms = deliveries.take(message.id, message.timestamp, message.attempts, message.body)
            if do == "fin":
                await message.fin()
            elif do == "req":
                await message.req(delay_ms)

    # Its loggers are named after nodes ("ansq 127.0.0.1:4150.0"): only the root hears them all.
    await awaiting.consume(options, file, None, handle)


if __name__ == "__main__":
    main()
