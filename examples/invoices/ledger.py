"""Posts invoices to a ledger, with pynsq.

A posting is a line of the ledger file, written and synced before the message is finished: whatever happens to this
process or its machine, an invoice that the queue no longer has is in the ledger. The other way round a redelivery
finds its number posted and only finishes. Some invoices are put off once on purpose (requeued), as a ledger
whose period is closed for a moment would do.
"""

import argparse
import asyncio
import json
import os
import signal
import time
import zlib

import invoice
import nsq

CHANNEL = "ledger"
# Of the invoices, so many per thousand are requeued on their first delivery.
PUT_OFF_PER_MILLE = 80


class Ledger(nsq.Reader):
    def __init__(self, path, ready, **options):
        super().__init__(
            message_handler=self.post,
            channel=CHANNEL,
            max_in_flight=50,
            max_tries=0,  # without it the sixth delivery would be finished unseen
            **options,
        )
        self.file = open(path, "a", encoding="utf-8")
        self.ready = ready
        self.posted = set()
        self.put_off = set()

    def connect_to_nsqd(self, host, port):
        connection = super().connect_to_nsqd(host, port)
        if connection is not None:
            connection.on("response", self.subscribed)
        return connection

    def subscribed(self, data, **_):
        # IDENTIFY is answered with JSON: the only OK of a consumer's connection answers SUB.
        if data == b"OK":
            open(self.ready, "w").close()

    def post(self, message):
        message_id = message.id.decode()
        try:
            number, amounts = invoice.read(message.body)
        except invoice.Refused as refused:
            self.write({"refused": str(refused), "id": message_id})
            return True
        if number in self.posted:
            self.write({"again": number, "id": message_id, "attempts": message.attempts})
            return True
        if zlib.crc32(number.encode()) % 1000 < PUT_OFF_PER_MILLE and number not in self.put_off:
            self.put_off.add(number)
            self.write({"put_off": number, "id": message_id, "attempts": message.attempts})
            message.requeue(backoff=False, delay=zlib.crc32(number.encode()) // 1000 % 2)
            return None
        self.write(
            {
                "number": number,
                **amounts.to_json(),
                "id": message_id,
                "attempts": message.attempts,
                "received_ns": time.time_ns(),
            }
        )
        self.posted.add(number)
        return True

    def write(self, record):
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--nsqd-tcp-address", required=True)
    arguments.add_argument("--topic", required=True)
    arguments.add_argument("--ledger", required=True, help="file to post to")
    arguments.add_argument("--ready", required=True, help="file to make when the subscription stands")
    options = arguments.parse_args()

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    ledger = Ledger(
        options.ledger,
        options.ready,
        topic=options.topic,
        nsqd_tcp_addresses=[options.nsqd_tcp_address],
    )
    await stop.wait()
    ledger.close()


if __name__ == "__main__":
    asyncio.run(main())
