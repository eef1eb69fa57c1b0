"""Fills a topic for the measurement, and writes what must come out.

    fill.py BROKERS TOPIC EVENTS KEYS PARTITIONS STEP_MS SEED EXPECTED
    fill.py --check EXPECTED OUTPUT

JSON events {"user_id", "amount", "ts"} of skewed keys, keyed by the user; one each STEP_MS of event time, with a disorder of at most 20 s.
Amounts are quarters, so that sums are exact in any order and the answer can be compared as it is. EXPECTED gets the number of events, the
sum of all counts of the last hour at each event, and for each key the count and the sum at its last event, with its time.
"""

import json
import random
import sys
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from itertools import accumulate

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

HOUR_MS = 3_600_000


def main(brokers, topic, events, keys, partitions, step_ms, seed, expected):
    events, keys, step_ms, seeded = int(events), int(keys), int(step_ms), random.Random(int(seed))
    admin = AdminClient({"bootstrap.servers": brokers})
    # What an interrupted run left is begun anew.
    if topic in admin.list_topics(timeout=30).topics:
        admin.delete_topics([topic])[topic].result(60)
        while topic in admin.list_topics(timeout=30).topics:
            time.sleep(0.05)
    admin.create_topics([NewTopic(topic, int(partitions), 1)])[topic].result(60)
    producer = Producer(
        {"bootstrap.servers": brokers, "linger.ms": 50, "batch.size": 1 << 20, "queue.buffering.max.messages": 200_000, "acks": 1}
    )
    base = datetime(2024, 5, 1, tzinfo=timezone.utc)
    by_key = defaultdict(list)
    for i in range(events):
        key = f"user-{int(keys * seeded.random() ** 2)}"
        amount, at_ms = seeded.randrange(4_000) / 4, i * step_ms - seeded.randrange(20_000)
        by_key[key].append((at_ms, amount))
        text = (base + timedelta(milliseconds=at_ms)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        value = json.dumps({"user_id": key, "amount": amount, "ts": text})
        while True:
            try:
                producer.produce(topic, value=value, key=key)
                break
            except BufferError:
                producer.poll(0.05)
        if i % 1000 == 0:
            producer.poll(0)
    assert producer.flush(120) == 0
    total, newest = 0, {}
    for key, rows in by_key.items():
        rows.sort()
        times, sums = [t for t, _ in rows], [0, *accumulate(a for _, a in rows)]
        for at in times:
            # Both ends are inside, and so are the events of the same instant.
            low, high = bisect_left(times, at - HOUR_MS), bisect_right(times, at)
            total += high - low
        newest[key] = [high - low, sums[high] - sums[low], int(base.timestamp() * 1000) + at]
    with open(expected, "w") as file:
        json.dump({"rows": events, "counts": total, "newest": newest}, file)


def check(expected, output):
    """Compares what Flink.java printed."""
    with open(expected) as file:
        wanted = json.load(file)
    newest = {}
    for line in open(output):
        parts = line.split()
        if line.startswith("rows "):
            assert (int(parts[1]), int(parts[3])) == (wanted["rows"], wanted["counts"]), (line, wanted["rows"], wanted["counts"])
            wanted["seen"] = True
        elif line.startswith("key "):
            newest[parts[1]] = [int(parts[2]), float(parts[3])]
    assert wanted.get("seen") and newest == {key: values[:2] for key, values in wanted["newest"].items()}, "the last values differ"
    print(f"answer: {wanted['rows']} rows and the last values of {len(newest)} keys are right")


if __name__ == "__main__":
    if sys.argv[1] == "--check":
        check(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
