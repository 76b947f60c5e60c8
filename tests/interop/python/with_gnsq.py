"""Interop client with gnsq: a producer and a consumer that write down what they did and saw (../README.md)."""

import json
import logging
import signal
import ssl

import gevent
import gevent.event
import gevent.lock
import gnsq
import program


def main():
    options = program.options()
    with open(options.out, "w", encoding="utf-8") as file:
        {"producer": produce, "consumer": consume}[options.mode](options, file)


def layers_of(options):
    return {
        "tls_v1": program.has(options, "tls"),
        "tls_options": {"ca_certs": options.tls_root_ca_file, "cert_reqs": ssl.CERT_REQUIRED},
        "snappy": program.has(options, "snappy"),
        "deflate": program.has(options, "deflate"),
    }


def produce(options, file):
    producer = gnsq.Producer(options.nsqd_tcp_address, **layers_of(options))
    producer.start()
    records = []
    room = gevent.lock.Semaphore(options.window)
    under_way = set()
    for publish in program.publishes(options):
        room.acquire()
        records += publish.records
        publish.begin()
        under_way.add(publish)

        def on_answer(result, publish=publish):
            publish.answered(result.value if result.successful() else result.exception)
            under_way.discard(publish)
            room.release()

        # Waiting for a connection is bounded: gnsq itself would wait for ever when it cannot have one.
        if publish.way == "mpub":
            result = producer.multipublish(options.topic, publish.bodies, timeout=30, raise_error=False)
        else:
            defer = publish.delay_ms if publish.way == "dpub" else None
            result = producer.publish(options.topic, publish.bodies[0], defer=defer, timeout=30, raise_error=False)
        result.rawlink(on_answer)
        if options.rest_ms:
            gevent.sleep(options.rest_ms / 1000)
    while under_way:
        gevent.sleep(0.01)
    for record in records:
        file.write(json.dumps(record) + "\n")


def consume(options, file):
    stop = gevent.event.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stop.set)
    deliveries = program.Deliveries(options, file)
    troubles = program.Troubles(deliveries)
    logging.getLogger("gnsq").addHandler(troubles)

    def handle(_consumer, message):
        do, delay_ms = deliveries.take(message.id, message.timestamp, message.attempts, message.body)
        if do == "req":
            message.requeue(time_ms=delay_ms, backoff=False)
        elif do == "hold":
            message.enable_async()

    where = (
        {"lookupd_http_addresses": [f"http://{address}" for address in options.lookupd_http_address.split(",")]}
        if options.lookupd_http_address
        else {"nsqd_tcp_addresses": options.nsqd_tcp_address}
    )
    # gnsq cannot ask for a message timeout: the node's own holds.
    consumer = gnsq.Consumer(
        options.topic,
        options.channel,
        name="gnsq.consumer",
        message_handler=handle,
        max_in_flight=options.max_in_flight,
        max_tries=0,  # otherwise the sixth delivery is finished unseen
        **layers_of(options),
        **where,
    )

    # gnsq tells of error frames in no log; a weak reference would be lost at once.
    def on_error(_consumer, error):
        troubles.trouble(repr(error))

    consumer.on_error.connect(on_error, weak=False)
    consumer.start(block=False)
    # The driver ends consumers when the node has nothing left to deliver.
    stop.wait()
    logging.getLogger("gnsq").removeHandler(troubles)


if __name__ == "__main__":
    main()
