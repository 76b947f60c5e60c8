"""What the programs of clients with awaitable calls have in common."""

import asyncio
import json
import logging
import signal

import program

# For a connection and its greetings.
OPEN_S = 30


async def produce(options, file, send):
    """`send` sends one command and returns the answer's bytes."""
    records = []
    room = asyncio.Semaphore(options.window)
    under_way = set()

    async def send_one(publish):
        try:
            publish.answered(await send(publish))
        except Exception as error:  # whatever it is, it is the outcome
            publish.answered(error)
        room.release()

    for publish in program.publishes(options):
        await room.acquire()
        records += publish.records
        publish.begin()
        task = asyncio.create_task(send_one(publish))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        if options.rest_ms:
            await asyncio.sleep(options.rest_ms / 1000)
    if under_way:
        await asyncio.wait(under_way)
    for record in records:
        file.write(json.dumps(record) + "\n")


async def consume(options, file, logger, handle):
    """`handle` subscribes and takes messages until it is cancelled; `logger` is where the library tells of troubles."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    deliveries = program.Deliveries(options, file)
    troubles = program.Troubles(deliveries)
    logging.getLogger(logger).addHandler(troubles)
    handling = asyncio.create_task(handle(deliveries))
    # The driver ends consumers when the node has nothing left to deliver.
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((handling, stopping), return_when=asyncio.FIRST_COMPLETED)
    logging.getLogger(logger).removeHandler(troubles)
    if handling.done():
        handling.result()
        raise SystemExit("error: the reader has no more messages")
    handling.cancel()
