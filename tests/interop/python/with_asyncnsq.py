"""Interop client with asyncnsq: a producer and a consumer that write down what they did and saw (../README.md)."""

import asyncio

import asyncnsq
import awaiting
import program


def main():
    options = program.options()
    with open(options.out, "w", encoding="utf-8") as file:
        asyncio.run({"producer": produce, "consumer": consume}[options.mode](options, file))


def layers_of(options):
    return {layer: program.has(options, layer) for layer in ("snappy", "deflate")} | {"tls_v1": program.has(options, "tls")}


async def produce(options, file):
    host, port = options.nsqd_tcp_address.split(":")
    writer = await asyncio.wait_for(asyncnsq.create_writer(host, int(port), **layers_of(options)), awaiting.OPEN_S)

    async def send(publish):
        if publish.way == "pub":
            return await writer.pub(options.topic, publish.bodies[0])
        if publish.way == "mpub":
            return await writer.mpub(options.topic, *publish.bodies)
        return await writer.dpub(options.topic, publish.delay_ms, publish.bodies[0])

    await awaiting.produce(options, file, send)


async def consume(options, file):
    async def handle(deliveries):
        # asyncnsq cannot ask for a message timeout: the node's own holds. To nodes that it has from nsqlookupd it sends no IDENTIFY.
        if options.lookupd_http_address:
            addresses = [tuple(address.split(":")) for address in options.lookupd_http_address.split(",")]
            where = {"lookupd_http_addresses": addresses}
        else:
            where = {"nsqd_tcp_addresses": [options.nsqd_tcp_address], **layers_of(options)}
        # A task of the reader sends RDY as soon as it runs, and may not before SUB: nothing may yield in between, as wait_for would.
        reader = await asyncnsq.create_reader(max_in_flight=options.max_in_flight, **where)
        await reader.subscribe(options.topic, options.channel)
        async for message in reader.messages():
            do, delay_ms = deliveries.take(message.message_id, message.timestamp, message.attempts, message.body)
            if do == "fin":
                await message.fin()
            elif do == "req":
                await message.req(delay_ms)

    await awaiting.consume(options, file, "asyncnsq", handle)


if __name__ == "__main__":
    main()
