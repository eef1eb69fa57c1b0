"""The broker that goes away and comes back, and the log that no longer has what is next."""

import time

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewPartitions

import dialect
from broker import SECONDS, until
from world import Flow, World


def test_restart_and_crash_of_the_broker(own_broker, topics, servers, tmp_path):
    """Mid-flow: the server goes on by itself, answers while the broker is away, and misses nothing."""
    world = World(topics(own_broker, 2), tmp_path / "warehouse")
    server = servers(world.warehouse)
    world.create(server)
    flow = Flow(31, partitions=2)
    for end in (own_broker.restart, own_broker.kill):
        world.topic.produce(flow.take(300))
        world.caught_up(server)
        world.topic.send(flow.take(300))
        end()
        assert server.rows(f"SELECT count_ever FROM {world.view} FOR ENTITY 'nobody'") == [(0,)]
        own_broker.up()
        world.topic.flush()
        world.caught_up(server)
        world.check(server)


def test_a_broker_that_is_not_there_yet(own_broker, topics, servers, tmp_path):
    """The stream is created, says what is missing, and begins when the broker is up."""
    world = World(topics(own_broker), tmp_path / "warehouse")
    world.topic.produce(Flow(32).take(100))
    own_broker.down()
    server = servers(world.warehouse)
    world.create(server)
    own_broker.up()
    world.caught_up(server)
    world.check(server)


def test_retention_passed_the_offset(world, servers):
    """Records that were never read are gone: the stream stops and says so, and goes on past the gap when told to."""
    with servers(world.warehouse) as server:
        world.create(server)
        flow = Flow(33)
        world.topic.produce(flow.take(200))
        world.caught_up(server)
    # What is deleted unread is unknown to the oracle too.
    world.topic.produce(flow.take(100))
    world.topic.delete_before({0: 250})
    server = servers(world.warehouse)
    stopped = until(
        lambda: [r for r in server.status(world.name).values() if r["state"] == dialect.STOPPED],
        lambda: f"the stream to stop: {server.status(world.name)}",
    )
    assert "200" in stopped[0]["message"] and "250" in stopped[0]["message"], stopped
    # It stays stopped: no commit comes.
    version = world.tables[dialect.HISTORY].refresh().version
    world.topic.produce(flow.take(50))
    end = time.monotonic() + 2
    until(lambda: time.monotonic() > end, "two seconds", 10)
    assert world.tables[dialect.HISTORY].refresh().version == version
    # What was taken in is served all the same.
    world.check_served(server)
    server.run(dialect.resume_past_the_gap(world.name))
    world.caught_up(server)
    assert world.oracle.next[0] == 350 and len(world.oracle.verdicts) == 300
    world.check_stored()
    world.check_table(server)
    world.check_served(server)
    world.check_trained(server)
    # The gap is on record.
    noted = [dialect.notes_of(c) for c in world.tables[dialect.HISTORY].actions("commitInfo")]
    assert any("200" in note and "250" in note for note in noted), noted


def test_a_topic_made_anew(world, servers):
    """Its offsets are those of other records: nothing of it is read, and going on is refused."""
    with servers(world.warehouse) as server:
        world.create(server)
        world.topic.produce(Flow(36).take(200))
        world.caught_up(server)
        world.check(server)
    broker, name = world.topic.broker, world.topic.name
    broker.admin.delete_topics([name])[name].result(30)
    until(lambda: name not in broker.admin.list_topics(timeout=5).topics, "the topic to be gone")
    anew = broker.create(name)
    try:
        anew.produce(Flow(37).take(20))
        server = servers(world.warehouse)
        until(
            lambda: [r for r in server.status(world.name).values() if r["state"] == dialect.STOPPED and "create another stream" in r["message"]],
            lambda: f"the stream to stop: {server.status(world.name)}",
        )
        assert "create another stream" in server.refused(dialect.resume_past_the_gap(world.name))
        world.check_stored()
        world.check_counts()
        world.check_served(server)
    finally:
        anew.close()


def wide(world, wider):
    """The world over its topic with more partitions; the oracle reads all of it anew."""
    wider.sent.extend(world.topic.sent)
    world.topic, of = wider, world.oracle
    world.oracle = type(of)(of.columns, of.time, of.key, disorder_us=of.disorder_us)


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_a_partition_that_came_while_nobody_read(world, servers, start):
    """It is read from its first record, also where the stream began at the end of the topic."""
    with servers(world.warehouse) as server:
        world.create(server, **{dialect.START: start})
        until(lambda: world.offsets() == {0: 0}, "the first offset")
        world.topic.produce(Flow(38).take(100))
        world.caught_up(server)
    world.topic.broker.admin.create_partitions([NewPartitions(world.topic.name, 2)])[world.topic.name].result(30)
    wider = type(world.topic)(world.topic.broker, world.topic.name, 2)
    try:
        until(lambda: len(wider.broker.admin.list_topics(wider.name, timeout=5).topics[wider.name].partitions) == 2, "the partition")
        wide(world, wider)
        wider.produce([s for s in Flow(39, partitions=2).take(200) if s.partition == 1])
        server = servers(world.warehouse)
        world.caught_up(server)
        world.check(server)
    finally:
        wider.close()


def test_transactions(world, servers):
    """Of transactions what was committed is read, once, and nothing of what was given up, also over a crash."""
    server = servers(world.warehouse, *dialect.OFTEN)
    world.create(server)
    producer = Producer({"bootstrap.servers": world.topic.broker.address, "transactional.id": world.topic.name, "log_level": 0})
    producer.init_transactions(SECONDS)
    flow, kept = Flow(40, wrong=False), set()
    for number in range(9):
        rows = [s for s in flow.take(25)]
        producer.begin_transaction()
        for sent in rows:
            producer.produce(world.topic.name, sent.value)
        if number % 3 == 1:
            producer.flush()
            producer.abort_transaction(SECONDS)
        else:
            producer.commit_transaction(SECONDS)
            kept |= {(s.row[0], s.row[1]) for s in rows}
        if number == 4:
            server.kill()
            server = servers(world.warehouse, *dialect.OFTEN)
    found = lambda: server.rows(f"SELECT user_id, payment_id FROM {world.name}")  # noqa: E731
    until(lambda: len(found()) >= len(kept), lambda: f"{len(kept)} rows: {len(found())}")
    assert sorted(found()) == sorted(kept)
    [status] = server.status(world.name).values()
    # The mark of the last transaction has an offset, and is no record.
    assert status["state"] == dialect.RUNNING and status["lag"] in (0, 1), status


def test_state_at_its_bound(world, servers):
    """The stream waits and says so, and loses nothing; with more room it goes on."""
    with servers(world.warehouse, "--state-limit-bytes", 100_000) as server:
        world.create(server)
        world.topic.produce(Flow(41, users=3000, wrong=False).take(3000))
        until(
            lambda: [r for r in server.status(world.name).values() if r["state"] == dialect.PAUSED and "state_limit_bytes" in r["message"]],
            lambda: f"the stream to wait: {server.status(world.name)}",
        )
        assert server.rows(f"SELECT count_ever FROM {world.view} FOR ENTITY 'nobody'") == [(0,)]
    server = servers(world.warehouse)
    world.caught_up(server)
    world.check_stored()
    world.check_counts()
    world.check_served(server, users=world.entities()[:20])


def test_a_topic_with_more_partitions_later(world, servers):
    """Partitions that are added are read from their beginning."""
    server = servers(world.warehouse)
    world.create(server, **{dialect.PASSED + "topic.metadata.refresh.interval.ms": "500"})
    world.topic.produce(Flow(34).take(100))
    world.caught_up(server)
    world.topic.broker.admin.create_partitions([NewPartitions(world.topic.name, 3)])[world.topic.name].result(30)
    wider = type(world.topic)(world.topic.broker, world.topic.name, 3)
    try:
        until(lambda: len(wider.broker.admin.list_topics(wider.name, timeout=5).topics[wider.name].partitions) == 3, "the partitions")
        wide(world, wider)
        wider.produce(Flow(35, partitions=3).take(300))
        world.caught_up(server)
        world.check(server)
    finally:
        wider.close()
