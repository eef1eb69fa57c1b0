"""Exactness: whatever comes over the topic, in whatever order, history and every value are those of the oracle."""

import threading

import pytest

import dialect
import world as worlds
from broker import until
from oracle import HOUR, LATE
from world import Flow, World, quoted


@pytest.mark.parametrize("seed, partitions, spread", [(1, 1, 0.0), (2, 3, 0.3)])
def test_disorder_copies_late_and_malformed(broker, topics, servers, tmp_path, seed, partitions, spread):
    world = World(topics(broker, partitions), tmp_path / "warehouse")
    server = servers(world.warehouse)
    world.create(server)
    flow = Flow(seed, partitions, spread=spread)
    for count in (1000, 1, 300):
        world.topic.produce(flow.take(count))
        world.caught_up(server)
        world.check_stored()
        world.check_counts()
    assert min(world.oracle.counts().values()) > 10
    world.check(server)


def test_what_was_there_before_the_stream(world, servers):
    """`start = 'earliest'` reads the log from its beginning; a stop in between leaves no trace."""
    flow = Flow(3)
    world.topic.produce(flow.take(500))
    server = servers(world.warehouse)
    world.create(server)
    world.caught_up(server)
    server.end(15)
    world.topic.produce(flow.take(200))
    server = servers(world.warehouse)
    world.caught_up(server)
    world.check(server)


def test_start_at_the_latest(world, servers):
    world.topic.produce(Flow(4).take(50))
    world.pull()
    before = set(world.oracle.verdicts)
    server = servers(world.warehouse)
    world.create(server, **{dialect.START: "latest"})
    until(lambda: [r for r in server.status(world.name).values() if r["offset"] == 50], "the stream to be at the log's end")
    world.oracle = type(world.oracle)(worlds.COLUMNS, worlds.TIME, key=[worlds.USER, worlds.PAYMENT], disorder_us=worlds.DISORDER_US)
    world.topic.produce(Flow(5).take(300))
    world.caught_up(server)
    assert not before & set(world.oracle.verdicts)
    world.check(server)


def test_late_events_are_reprocessed(world, servers):
    server = servers(world.warehouse)
    world.create(server)
    world.topic.produce(Flow(6).take(600))
    world.caught_up(server)
    world.check(server)
    assert world.oracle.having(LATE)
    for _ in range(2):
        server.run(f"REPROCESS LATE EVENTS FOR {world.name}")
        world.oracle.reprocess()
        world.check_stored()
        world.check_table(server)
        world.check_served(server, instants=[*world.instants(), min(world.oracle.greatest.values()) - 2 * HOUR])
        world.check_trained(server)


def test_a_view_that_comes_later(world, servers):
    """It takes in history and goes on with the log at the exact offsets, while the first view serves."""
    server = servers(world.warehouse)
    world.create(server)
    flow = Flow(7)
    world.topic.produce(flow.take(800))
    world.caught_up(server)
    world.topic.send(flow.take(400))
    first, world.view = world.view, "later"
    # What is sent from here on is on time, so it comes behind that.
    user, at = world.entities()[0], world.instants()[0] - 1
    [wanted] = world.expected([user], at)
    created, during = threading.Event(), []

    def ask():
        with server.adbc() as connection, connection.cursor() as cursor:
            while not created.is_set():
                cursor.execute(f"SELECT * FROM {first} FOR ENTITY {quoted(user)} AS OF {worlds.sql_time(at)}")
                [row] = cursor.fetchall()
                during.append(tuple(map(worlds.bits, row)))

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: during, "an answer before")
    before = len(during)
    for name in ("another", "third", "fourth", world.view):
        server.run(worlds.view_sql(name, world.name))
    after = len(during)
    created.set()
    asking.join()
    assert after > before and set(during) == {tuple(wanted)}, (before, after, set(during), wanted)
    world.topic.flush()
    world.caught_up(server)
    world.check_served(server)
    world.check_trained(server)
    world.view = first
    world.check(server)


def test_queryable_before_it_is_committed(world, servers):
    """State follows arrival, not the commit."""
    server = servers(world.warehouse)
    world.create(server, **{dialect.COMMIT_INTERVAL: "1 hour", dialect.COMMIT_ROWS: "1000000"})
    world.topic.produce(Flow(8, wrong=False).take(50))
    world.pull()
    users = world.entities()
    at = world.instants()[1]
    asked = f"SELECT * FROM {world.view} FOR ENTITY user_id IN ({', '.join(map(quoted, users))}) AS OF {worlds.sql_time(at)}"
    expected = world.expected(users, at)
    until(lambda: [tuple(map(worlds.bits, r)) for r in server.rows(asked)] == expected, "the records in the view")
    assert not world.tables[dialect.HISTORY].refresh().rows()
    # A stop commits what was read, or leaves it to the log; either way nothing is lost.
    server.end(15)
    server = servers(world.warehouse)
    until(lambda: [tuple(map(worlds.bits, r)) for r in server.rows(asked)] == expected, "the records in the view of the next process")


def test_two_streams_over_one_topic(world, servers):
    """Two streams with groups of their own each have all of it."""
    server = servers(world.warehouse)
    world.create(server)
    other = World(world.topic, world.warehouse, name="others")
    other.create(server, **{dialect.GROUP: "others", dialect.INSTANCE: "others-1"})
    world.topic.produce(Flow(9).take(300))
    world.caught_up(server)
    # The log is read once for both oracles.
    other.oracle = world.oracle
    until(lambda: other.offsets() == world.offsets(), "the other stream")
    world.check(server)
    other.check(server)


def test_status(broker, topics, servers, tmp_path):
    world = World(topics(broker, 2), tmp_path / "warehouse")
    server = servers(world.warehouse)
    world.create(server)
    world.topic.produce(Flow(10, partitions=2).take(400))
    world.caught_up(server)
    ends = {p: o for p, o in world.oracle.next.items()}
    until(lambda: {p: r["offset"] for p, r in server.status(world.name).items()} == ends, "the status to follow")
    assert server.table(dialect.STATUS).column_names == dialect.STATUS_COLUMNS
    for partition, row in server.status(world.name).items():
        verdicts = [v for (p, _), v in world.oracle.verdicts.items() if p == partition]
        assert (row["end_offset"], row["lag"]) == (ends[partition], 0)
        assert row["watermark"] == world.oracle.greatest[partition] - worlds.DISORDER_US
        assert {k: row[k] for k in ("accepted", "late", "rejected", "duplicate")} == {
            k: verdicts.count(k) for k in ("accepted", "late", "rejected", "duplicate")
        }
        assert row["last_commit"] is not None and row["state"] == dialect.RUNNING, row
    # The broker's own offsets are advice for those who watch it, and follow.
    until(lambda: world.topic.broker.committed(f"{world.topic.name}-asof", world.topic.name, 2) == ends, "the broker's offsets")
