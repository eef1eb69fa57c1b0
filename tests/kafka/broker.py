"""Kafka as the tests use it: the broker's process, topics, a producer that knows what it sent, and the log as it is."""

import os
import subprocess
import time
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

HERE = Path(__file__).parent
SECONDS = 60


def until(condition, what, seconds=60.0):
    """Waits until `condition()` gives something true, and gives that."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what() if callable(what) else what}: not within {seconds:g} s")
        time.sleep(0.02)


class Broker:
    """tests/kafka/broker over one folder. What a test does to it, it undoes."""

    def __init__(self, folder, address=None, keystore=None):
        self.folder = Path(folder)
        self.environment = {**os.environ, **({"KAFKA_TLS": str(keystore)} if keystore else {})}
        self.address = address or self.call("up")
        self.tls_address = (self.folder / "address.tls").read_text().strip() if keystore else None
        self.admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def call(self, what):
        done = subprocess.run([HERE / "broker", what, self.folder], capture_output=True, text=True, timeout=240, env=self.environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().removeprefix("KAFKA=")

    def up(self):
        assert self.call("up") == self.address

    def restart(self):
        assert self.call("restart") == self.address

    def kill(self):
        self.call("kill")

    def down(self):
        self.call("down")

    def create(self, name, partitions=1, **config):
        config = {k.replace("_", "."): str(v) for k, v in config.items()}
        self.admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(SECONDS)
        until(lambda: len(self.admin.list_topics(name, timeout=5).topics[name].partitions) == partitions, f"topic {name}")
        return Topic(self, name, partitions)

    def groups(self):
        return {g.group_id for g in self.admin.list_consumer_groups().result(SECONDS).valid}

    def committed(self, group, topic, partitions):
        """The offsets that a group committed at the broker: advice, for those who watch it."""
        reader = Consumer({"bootstrap.servers": self.address, "group.id": group, "log_level": 0})
        try:
            return {t.partition: t.offset for t in reader.committed([TopicPartition(topic, p) for p in range(partitions)], timeout=SECONDS)}
        finally:
            reader.close()


class Mock:
    """librdkafka's mock cluster in this process: a topic is there once somebody asks for it, and has the partitions that the library gives it."""

    def __init__(self):
        self.cluster = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock", "log_level": 0})
        [node] = self.cluster.list_topics(timeout=SECONDS).brokers.values()
        self.address = f"{node.host}:{node.port}"

    def create(self, name, partitions=1):
        there = Producer({"bootstrap.servers": self.address, "log_level": 0}).list_topics(name, timeout=SECONDS).topics[name].partitions
        assert len(there) >= partitions, f"the mock cluster's topics have {len(there)} partitions"
        return Topic(self, name, len(there))


class Topic:
    """A topic, the producer of it, and its log.

    A record carries its number among the sent ones in the header `n`, so that the log's record is known again, whatever its bytes are.
    """

    def __init__(self, broker, name, partitions):
        self.broker, self.name, self.partitions = broker, name, partitions
        self.sent = []
        self.failures = []
        self.producer = Producer(
            {
                "bootstrap.servers": broker.address,
                "enable.idempotence": True,
                "linger.ms": 2,
                "message.timeout.ms": 120_000,
                "reconnect.backoff.max.ms": 500,
                # Restarts of the broker are part of the tests.
                "log_level": 0,
            }
        )
        self.reader = None
        self.position = dict.fromkeys(range(partitions), 0)
        # What retention took, by partition: a reader may have had it before.
        self.removed = {}

    def send(self, records):
        """Sends what has `value`, `row`, `partition`, `key`, `taken_us` and `headers`; `flush` waits for the broker's word."""
        for record in records:
            headers = [*record.headers, ("n", str(len(self.sent)).encode())]
            self.sent.append(record)
            options = {} if record.partition is None else {"partition": record.partition}
            if record.taken_us is not None:
                options["timestamp"] = record.taken_us // 1000
            while True:
                try:
                    self.producer.produce(
                        self.name, value=record.value, key=record.key, headers=headers, on_delivery=self._delivered, **options
                    )
                    break
                except BufferError:
                    self.producer.poll(0.1)
            self.producer.poll(0)

    def _delivered(self, error, _):
        if error is not None:
            self.failures.append(error)

    def flush(self):
        assert self.producer.flush(150) == 0 and not self.failures, self.failures

    def produce(self, records):
        self.send(records)
        self.flush()

    def pull(self):
        """The records that the log holds and were not given before: (partition, offset, broker's timestamp in us, what was sent, value)."""
        ends, out, error = self.ends(), [], None
        end = time.monotonic() + SECONDS
        while any(self.position[p] < ends[p] for p in ends):
            assert time.monotonic() < end, f"{self.name}: read up to {self.position} of {ends}: {error}"
            for message in self.reader.consume(10_000, timeout=0.1):
                if message.error():
                    # A broker that was restarted is found again.
                    error = message.error()
                    continue
                self.position[message.partition()] = message.offset() + 1
                if message.offset() < self.removed.get(message.partition(), 0):
                    # Read ahead before it was removed.
                    continue
                number = int(dict(message.headers())["n"])
                out.append((message.partition(), message.offset(), message.timestamp()[1] * 1000, self.sent[number], message.value()))
        return out

    def ends(self):
        """The offset that the next record of each partition gets, by a broker that may just have come back."""
        if self.reader is None:
            self.reader = Consumer(
                {
                    "bootstrap.servers": self.broker.address,
                    "group.id": f"{self.name}-log",
                    "enable.auto.commit": False,
                    "isolation.level": "read_committed",
                    "auto.offset.reset": "earliest",
                    "fetch.wait.max.ms": 20,
                    "reconnect.backoff.max.ms": 500,
                    "log_level": 0,
                }
            )
            self.reader.assign([TopicPartition(self.name, p, 0) for p in self.position])

        def known():
            try:
                return {p: self.reader.get_watermark_offsets(TopicPartition(self.name, p), timeout=5)[1] for p in self.position}
            except KafkaException:
                return None

        return until(known, f"the ends of {self.name}", SECONDS)

    def delete_before(self, offsets):
        """Retention, at once: removes the records before the offset of each partition."""
        self.removed.update(offsets)
        asked = [TopicPartition(self.name, p, o) for p, o in offsets.items()]
        for done in self.broker.admin.delete_records(asked).values():
            done.result(SECONDS)

    def close(self):
        self.producer.flush(5)
        if self.reader is not None:
            self.reader.close()
