"""Publishes invoices with pynsq: most alone (PUB), some in bundles (MPUB), some for later (DPUB).

What was answered OK is recorded in a file, one JSON object a line. A publish that fails is sent again: its outcome
is unknown, so an invoice may then be stored twice, and consumers post and file it once, by its number.
"""

import argparse
import asyncio
import hashlib
import json
import random
import sys
import time

import invoice
import nsq

PATIENCE_S = 60


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--nsqd-tcp-address", required=True)
    arguments.add_argument("--topic", required=True)
    arguments.add_argument("--count", type=int, required=True)
    arguments.add_argument("--seed", type=int, required=True)
    arguments.add_argument("--published", required=True, help="file to record the published invoices in")
    options = arguments.parse_args()

    writer = nsq.Writer([options.nsqd_tcp_address], reconnect_interval=0.5)
    chance = random.Random(options.seed)
    total = invoice.Amounts()
    with open(options.published, "w", encoding="utf-8") as published:
        index = 1
        while index <= options.count:
            way = chance.choices(("pub", "mpub", "dpub"), (70, 20, 10))[0]
            size = min(chance.randint(2, 12), options.count + 1 - index) if way == "mpub" else 1
            bundle = [invoice.make(options.seed, i) for i in range(index, index + size)]
            delay_ms = chance.randint(200, 2000) if way == "dpub" else 0
            bodies = [one.xml for one in bundle]
            if way == "pub":
                sent_ns, tries = await send(writer, writer.pub, options.topic, bodies[0])
            elif way == "mpub":
                sent_ns, tries = await send(writer, writer.mpub, options.topic, bodies)
            else:
                sent_ns, tries = await send(writer, writer.dpub, options.topic, delay_ms, bodies[0])
            for one in bundle:
                total += one.amounts
                record = {
                    "number": one.number,
                    "sha256": hashlib.sha256(one.xml).hexdigest(),
                    **one.amounts.to_json(),
                    "way": way,
                    "delay_ms": delay_ms,
                    "sent_ns": sent_ns,
                    "tries": tries,
                }
                published.write(json.dumps(record) + "\n")
            index += size
    print(f"published {options.count} invoices: {total}")


async def send(writer, publish, *arguments):
    """Publishes until it is answered OK. Returns the wall clock before the publish that was, in ns, and the tries."""
    deadline = time.monotonic() + PATIENCE_S
    tries = 0
    answer = "none"
    while time.monotonic() < deadline:
        # pynsq refuses at once while there is no connection: nothing was sent, and it counts as no try.
        if not any(connection.connected() for connection in writer.conns.values()):
            await asyncio.sleep(0.02)
            continue
        answered = asyncio.get_running_loop().create_future()

        def on_answer(_connection, data, answered=answered):
            if not answered.done():
                answered.set_result(data)

        tries += 1
        sent_ns = time.time_ns()
        publish(*arguments, callback=on_answer)
        answer = await asyncio.wait_for(answered, PATIENCE_S)
        if answer == b"OK":
            return sent_ns, tries
        await asyncio.sleep(0.1)
    sys.exit(f"error: no OK within {PATIENCE_S} s, the last answer is {answer!r}")


if __name__ == "__main__":
    asyncio.run(main())
