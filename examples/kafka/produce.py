"""Produces payments of the last half hour into the topic `payments`, as services do: copies, disorder, one too late, one that is none.

    produce.py BROKERS

The payments of `ann` are fixed, so that her features are known: four, of 40.0 in all, the largest of 20.0.
"""

import json
import random
import sys
from datetime import datetime, timedelta, timezone

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

brokers = sys.argv[1]
admin = AdminClient({"bootstrap.servers": brokers})
admin.create_topics([NewTopic("payments", 1, 1)])["payments"].result(60)
producer = Producer({"bootstrap.servers": brokers, "enable.idempotence": True})
now = datetime.now(timezone.utc)
seeded = random.Random(1)


def payment(user, number, amount, minutes):
    return {"user_id": user, "payment_id": f"{user}-{number}", "amount": amount, "ts": (now - timedelta(minutes=minutes)).isoformat()}


def send(event):
    value = event if isinstance(event, bytes) else json.dumps(event).encode()
    producer.produce("payments", key=None if isinstance(event, bytes) else event["user_id"], value=value)


send(payment("ann", 1, 5.0, 30))
for i in range(1000):
    event = payment(f"user-{seeded.randrange(50)}", i, round(seeded.uniform(1, 100), 2), 30 - i * 0.029)
    send(event)
    if i % 100 == 50:
        # The producer tries again: the same payment twice.
        send(event)
# Within the disorder of a minute, the later one first.
send(payment("ann", 3, 12.0, 0.5))
send(payment("ann", 2, 3.0, 1.0))
send(payment("ann", 4, 20.0, 0.1))
# Too late, and no payment at all: both are kept apart, with the reason, and the stream goes on.
send(payment("ann", 5, 1000.0, 20))
send(b'{"user_id": "ann", "amount": "much"}')
assert producer.flush(60) == 0
print("produced 1016 records: 1004 payments, 10 of them twice, 1 too late, 1 malformed")
