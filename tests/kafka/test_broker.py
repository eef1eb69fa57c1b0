"""The broker that goes away and comes back, and the log that no longer has what is next."""

import time

import dialect
from broker import until
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


def test_a_topic_with_more_partitions_later(world, servers):
    """Partitions that are added are read from their beginning."""
    from confluent_kafka.admin import NewPartitions

    server = servers(world.warehouse)
    world.create(server, **{dialect.PASSED + "topic.metadata.refresh.interval.ms": "500"})
    world.topic.produce(Flow(34).take(100))
    world.caught_up(server)
    world.topic.broker.admin.create_partitions([NewPartitions(world.topic.name, 3)])[world.topic.name].result(30)
    wider = type(world.topic)(world.topic.broker, world.topic.name, 3)
    try:
        until(lambda: len(wider.broker.admin.list_topics(wider.name, timeout=5).topics[wider.name].partitions) == 3, "the partitions")
        wider.sent.extend(world.topic.sent)
        world.topic, world.oracle = (
            wider,
            type(world.oracle)(world.oracle.columns, world.oracle.time, world.oracle.key, disorder_us=world.oracle.disorder_us),
        )
        wider.produce(Flow(35, partitions=3).take(300))
        world.caught_up(server)
        world.check(server)
    finally:
        wider.close()
