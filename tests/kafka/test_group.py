"""Several processes in one consumer group: they share partitions, state moves with these, and who lost them commits nothing."""

import signal

import pyarrow.flight as fl
import pytest

import dialect
from broker import until
from world import Flow, World, quoted, sql_time

MEMBERS = 3


@pytest.fixture
def shared(broker, topics, servers, tmp_path):
    """A stream with a key over six partitions, and what starts a member of its group."""
    world = World(topics(broker, 6), tmp_path / "warehouse")
    options = {dialect.KEY: "user_id", dialect.PARTITIONER: dialect.LIBRDKAFKA_PARTITIONER, dialect.INSTANCE: None}
    first = servers(world.warehouse)
    world.create(first, **options)

    def member():
        return servers(world.warehouse)

    return world, first, member


def owned(members, world):
    """The partitions that each member says it has."""
    found = []
    for member in members:
        rows = member.status(world.name)
        found.append({p for p, r in rows.items() if r["state"] == dialect.RUNNING})
    return found


def shared_out(members, world):
    found = owned(members, world)
    return all(found) and sorted(p for f in found for p in f) == list(range(world.topic.partitions))


def ask_any(members, world, at):
    """Every member answers for every entity, by itself or by naming who does: the driver follows the location."""
    users = world.entities()
    expected = world.expected(users, at)
    for member in members:
        world.settled(member)
        for user, wanted in zip(users, expected, strict=True):
            found = member.rows(f"SELECT * FROM {world.view} FOR ENTITY {quoted(user)} AS OF {sql_time(at)}")
            world.same_values(found, [wanted], f"{user} from {member.uri}")


@pytest.mark.waits("streams that several processes share")
def test_members_share_and_leave(shared):
    world, first, member = shared
    flow = Flow(41, partitions=6, users=30, keyed=True)
    world.topic.produce(flow.take(600))
    world.caught_up(first)
    members = [first, member(), member()]
    until(lambda: shared_out(members, world), lambda: f"six partitions over three: {owned(members, world)}")
    world.topic.produce(flow.take(600))
    world.caught_up()
    world.check_stored()
    world.check_counts()
    ask_any(members, world, world.instants()[1])
    # One leaves well, one by force: what they had is taken over.
    for how in (signal.SIGTERM, signal.SIGKILL):
        world.topic.send(flow.take(200))
        members.pop().end(how)
        world.topic.flush()
        until(lambda: shared_out(members, world), lambda: f"six partitions over {len(members)}: {owned(members, world)}")
        world.caught_up()
        world.check_stored()
        world.check_counts()
        ask_any(members, world, world.instants()[1])
    world.check(members[0])


@pytest.mark.waits("streams that several processes share")
def test_a_member_stopped_past_its_session_is_fenced(shared):
    """It wakes with records in hand that another has committed since: nothing of it may come twice."""
    world, first, member = shared
    flow = Flow(42, partitions=6, users=30, keyed=True)
    members = [first, member(), member()]
    others = [members[0], members[2]]
    until(lambda: shared_out(members, world), "six partitions over three")
    for _ in range(2):
        world.topic.send(flow.take(500))
        members[1].stop()
        world.topic.send(flow.take(500))
        world.topic.flush()
        until(lambda: shared_out(others, world), lambda: f"six partitions over two: {owned(others, world)}")
        world.caught_up()
        members[1].resume()
        until(lambda: shared_out(members, world), lambda: f"six partitions over three again: {owned(members, world)}")
        world.topic.produce(flow.take(300))
        world.caught_up()
        world.check_stored()
        world.check_counts()
    ask_any(members, world, world.instants()[1])


@pytest.mark.waits("streams that several processes share")
def test_where_an_entity_is(shared):
    """Endpoints name the process that has the entity, and it answers there."""
    world, first, member = shared
    flow = Flow(43, partitions=6, users=30, keyed=True)
    members = [first, member(), member()]
    until(lambda: shared_out(members, world), "six partitions over three")
    world.topic.produce(flow.take(300))
    world.caught_up()
    uris = {m.uri.replace("grpc://", "") for m in members}
    named = set()
    with fl.FlightClient(first.uri) as client:
        for user in world.entities():
            sql = f"SELECT * FROM {world.view} FOR ENTITY {quoted(user)}"
            found = client.get_flight_info(fl.FlightDescriptor.for_command(statement(sql)))
            named |= {str(location.uri.decode()).split("://")[1].rstrip("/") for e in found.endpoints for location in e.locations} & uris
    assert len(named) >= 2, f"all entities are said to be at {named}"


def statement(sql):
    """Flight SQL's CommandStatementQuery in protobuf's Any."""

    def field(number, data):
        size, out = len(data), bytearray([number << 3 | 2])
        while size > 0x7F:
            out.append(size & 0x7F | 0x80)
            size >>= 7
        return bytes(out) + bytes([size]) + data

    return field(1, b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery") + field(2, field(1, sql.encode()))


@pytest.mark.waits("streams that several processes share")
def test_a_record_in_the_wrong_partition_is_rejected(shared):
    world, first, _ = shared
    flow = Flow(44, partitions=6, users=30, keyed=True, wrong=False)
    world.topic.produce(flow.take(100))
    world.pull()
    right = {world.oracle.records[at].row[0]: at[0] for at in world.oracle.verdicts}
    strays = []
    for sent in flow.take(50):
        if sent.row[0] in right:
            # Not a row of this partition, so none at all.
            strays.append(type(sent)(sent.value, None, (right[sent.row[0]] + 1) % 6, sent.key))
    assert strays
    world.topic.produce(strays)
    world.caught_up(first)
    world.check(first)


def test_without_a_key_one_process(world, servers):
    """A second process is told so and stays out; it takes over when the first one is gone."""
    first = servers(world.warehouse)
    world.create(first)
    flow = Flow(45)
    world.topic.produce(flow.take(100))
    world.caught_up(first)
    second = servers(world.warehouse)
    world.topic.produce(flow.take(100))
    world.caught_up(first)

    def stays_out():
        return {r["state"] for r in second.status(world.name).values()} == {dialect.ELSEWHERE}

    until(stays_out, lambda: f"the second to say so: {second.status(world.name)}")
    world.check(first)
    first.end(signal.SIGTERM)
    world.topic.produce(flow.take(100))
    world.caught_up(second)
    world.check(second)
