"""How long after a record was produced a client can ask for it, while others are produced at a rate: a probe each 20 ms, of a key of its
own, is asked for in an exchange session until its view counts it. Broker, producer, server and prober share the machine.

    ASOF_BIN=BINARY freshness.py BROKERS FOLDER RATE SECONDS
"""

import multiprocessing
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests" / "kafka"))

import dialect  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.flight as fl  # noqa: E402
from confluent_kafka import Producer  # noqa: E402
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402
from server import Server  # noqa: E402

KEYS, PARTITIONS, SLICE_S, SLICES, PROBE_S, LOST_S = 10_000, 2, 0.01, 200, 0.02, 30
VIEW = """
CREATE FEATURE VIEW spend ENTITY (user_id) AS SELECT count(*) OVER hour AS n, sum(amount) OVER hour AS total
FROM payments WINDOW hour AS (RANGE INTERVAL '1 hour' PRECEDING)
"""


def record(key, amount, ago_us=0):
    return b'{"user_id":"%s","amount":%d.25,"ts":%d}' % (key.encode(), amount, time.time_ns() // 1000 - ago_us)


def load(brokers, topic, rate, seconds, ready, sent):
    """Produces at the rate, in slices of 10 ms; what a slice could not do is not made up for.

    The slices are written before, and repeat every two seconds: event times are of the ten seconds before the first one.
    """
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 5, "queue.buffering.max.messages": 1_000_000})
    keys = [f"user-{i}" for i in range(KEYS)]
    each = int(rate * SLICE_S / PARTITIONS)
    slices = [[{"value": record(random.choice(keys), i, random.randrange(10_000_000))} for i in range(each)] for _ in range(SLICES * PARTITIONS)]
    ready.set()
    begun = time.monotonic()
    number = 0
    while (now := time.monotonic()) - begun < seconds:
        for partition in range(PARTITIONS):
            sent.value += producer.produce_batch(topic, slices[number % len(slices)], partition=partition)
            number += 1
        producer.poll(0)
        time.sleep(max(0.0, now + SLICE_S - time.monotonic()))
    producer.flush()


def probe(client, brokers, topic, seconds):
    """The milliseconds of each probe."""
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 0})
    schema = pa.schema([("user_id", pa.string())])
    writer, reader = client.do_exchange(fl.FlightDescriptor.for_path("spend"))
    writer.begin(schema)
    took = []
    begun = time.monotonic()
    while (sent := time.monotonic()) - begun < seconds:
        key = f"probe-{len(took)}"
        producer.produce(topic, record(key, 1), partition=len(took) % PARTITIONS)
        producer.poll(0)
        while True:
            writer.write_batch(pa.record_batch([[key]], schema=schema))
            if reader.read_chunk().data.column("n")[0].as_py() == 1:
                break
            if time.monotonic() - sent > LOST_S:
                sys.exit(f"{key} is not there {LOST_S} s after it was produced")
        took.append(1000 * (time.monotonic() - sent))
        time.sleep(max(0.0, sent + PROBE_S - time.monotonic()))
    writer.done_writing()
    producer.flush()
    return took


def main(brokers, folder, rate, seconds):
    topic, rate, seconds = f"fresh-{time.monotonic_ns()}", int(rate), float(seconds)
    # Kept by a name until the answer is there.
    admin = AdminClient({"bootstrap.servers": brokers})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result()
    options = {dialect.CONNECTOR: "kafka", dialect.BROKERS: brokers, dialect.TOPIC: topic, dialect.FORMAT: "json", dialect.TIME_UNIT: "us"}
    given = ", ".join(f"\"{k}\" = '{v}'" for k, v in options.items())
    columns = "user_id VARCHAR NOT NULL, amount DOUBLE, ts TIMESTAMP NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '2 minutes'"
    with Server(Path(folder) / "warehouse", folder) as server:
        server.run(f"CREATE STREAM payments ({columns}) WITH ({given})")
        server.run(VIEW)
        ready, sent = multiprocessing.Event(), multiprocessing.Value("q", 0)
        loading = multiprocessing.Process(target=load, args=(brokers, topic, rate, seconds + 2, ready, sent))
        loading.start()
        ready.wait()
        time.sleep(2)
        before, begun = sent.value, time.monotonic()
        with fl.FlightClient(server.uri) as client:
            took = sorted(probe(client, brokers, topic, seconds))
        reached = (sent.value - before) / (time.monotonic() - begun)
        loading.join()
    at = lambda p: took[min(len(took) - 1, int(p * len(took)))]  # noqa: E731
    print(
        f"asof: {reached:.0f} events/s produced meanwhile, {len(took)} probes: p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms, greatest {took[-1]:.1f} ms"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
