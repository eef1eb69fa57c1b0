"""Several processes in one consumer group: they share partitions, state moves with these, and who lost them commits nothing."""

import json
import os
import random
import signal
import time
from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pyarrow.flight as fl
import pytest
from confluent_kafka.admin import NewPartitions

import dialect
from broker import until
from oracle import DAY, HOUR, LATE
from world import Flow, World, now_us, quoted, sql_time

MEMBERS = 3


@pytest.fixture
def shared(broker, topics, servers, tmp_path):
    """A stream with a key over six partitions, and what starts a member of its group."""
    world = World(topics(broker, 6), tmp_path / "warehouse")
    options = {
        dialect.KEY: "user_id",
        dialect.PARTITIONER: dialect.LIBRDKAFKA_PARTITIONER,
        dialect.INSTANCE: None,
        # Long enough for two busy cores, and short enough to wait for.
        dialect.SESSION: "3000",
    }
    first = servers(world.warehouse, *dialect.OFTEN)
    world.create(first, **options)

    def member(**rest):
        return servers(world.warehouse, *dialect.OFTEN, **rest)

    return world, first, member


def owned(members, world):
    """The partitions that each member says it has."""
    found = []
    for member in members:
        rows = member.status(world.name)
        found.append({p for p, r in rows.items() if r["state"] == dialect.RUNNING})
    return found


def told(members, world):
    """What each member has, and what it says, for the message of a failure."""
    logs = "\n".join(f"-- {m.uri}\n" + "".join(m.lines[-40:]) for m in members)
    return f"{owned(members, world)}\n{[list(m.status(world.name).values())[:1] for m in members]}\n{logs}"


def shared_out(members, world):
    found = owned(members, world)
    return all(found) and sorted(p for f in found for p in f) == list(range(world.topic.partitions))


def ask_any(members, world, at):
    """Every member answers for every entity, by itself or by naming who does: the driver follows the location."""
    users = world.entities()
    expected = world.expected(users, at)
    for member in members:
        done(lambda member=member: world.settled(member))
        for user, wanted in zip(users, expected, strict=True):
            asked = f"SELECT * FROM {world.view} FOR ENTITY {quoted(user)} AS OF {sql_time(at)}"
            found = done(lambda member=member, asked=asked: member.rows(asked))
            world.same_values(found, [wanted], f"{user} from {member.uri}")


def test_members_share_and_leave(shared):
    world, first, member = shared
    flow = Flow(41, partitions=6, users=30, keyed=True)
    world.topic.produce(flow.take(600))
    world.caught_up(first)
    members = [first, member(), member()]
    until(lambda: shared_out(members, world), lambda: f"six partitions over three: {told(members, world)}")
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
        until(lambda: shared_out(members, world), lambda: f"six partitions over {len(members)}: {told(members, world)}")
        world.caught_up()
        world.check_stored()
        world.check_counts()
        ask_any(members, world, world.instants()[1])
    done(lambda: world.check(members[0]))


def test_a_member_stopped_past_its_session_is_fenced(shared):
    """It wakes with records in hand that another has committed since: nothing of it may come twice."""
    world, first, member = shared
    flow = Flow(42, partitions=6, users=30, keyed=True)
    members = [first, member(), member()]
    others = [members[0], members[2]]
    until(lambda: shared_out(members, world), lambda: f"six partitions over three: {told(members, world)}")
    for _ in range(2):
        world.topic.send(flow.take(500))
        members[1].stop()
        world.topic.send(flow.take(500))
        world.topic.flush()
        until(lambda: shared_out(others, world), lambda: f"six partitions over two: {owned(others, world)}")
        world.caught_up()
        members[1].resume()
        until(lambda: shared_out(members, world), lambda: f"six partitions over three again: {told(members, world)}")
        world.topic.produce(flow.take(300))
        world.caught_up()
        world.check_stored()
        world.check_counts()
    ask_any(members, world, world.instants()[1])


def test_where_an_entity_is(shared):
    """Endpoints name the process that has the entity, and it answers there."""
    world, first, member = shared
    flow = Flow(43, partitions=6, users=30, keyed=True)
    members = [first, member(), member()]
    until(lambda: shared_out(members, world), lambda: f"six partitions over three: {told(members, world)}")
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


def test_a_session_at_the_wrong_process(shared):
    """Keys of all processes in one session and in one ticket; one that wants to know where they are is told."""
    world, first, member = shared
    flow = Flow(47, partitions=6, users=30, keyed=True)
    members = [first, member(), member()]
    until(lambda: shared_out(members, world), lambda: f"six partitions over three: {told(members, world)}")
    world.topic.produce(flow.take(300))
    world.caught_up()
    users, at = world.entities(), world.instants()[1]
    expected = world.expected(users, at)
    wanted = {"v": 1, "views": [world.view], "as_of": stamp(at)}
    for one in members:
        done(lambda one=one: world.settled(one))
        with fl.FlightClient(one.uri) as client:
            ticket = json.dumps({**wanted, "keys": {"user_id": users}}).encode()
            world.same_values(rows(client.do_get(fl.Ticket(ticket)).read_all()), expected, "a ticket")
            keys = pa.table({"user_id": pa.array(users)})
            writer, reader = client.do_exchange(fl.FlightDescriptor.for_command(json.dumps({**wanted, "with_keys": True}).encode()))
            with writer:
                writer.begin(keys.schema)
                writer.write_table(keys)
                got = pa.Table.from_batches([reader.read_chunk().data])
                writer.done_writing()
            world.same_values(rows(got), expected, "a session")
            uris, said = {m.uri for m in members if m is not one}, set()
            for user in users:
                ticket = json.dumps({**wanted, "keys": {"user_id": [user]}, "here": True}).encode()
                try:
                    client.do_get(fl.Ticket(ticket)).read_all()
                except fl.FlightUnavailableError as e:
                    said |= {uri for uri in uris if f'"{uri}"' in str(e)}
                found = client.get_flight_info(fl.FlightDescriptor.for_command(ticket))
                named = {location.uri.decode() for e in found.endpoints for location in e.locations}
                # Where another process has it, that one comes first, and this connection answers as well.
                assert named <= uris | {"arrow-flight-reuse-connection://?"}, named
            assert said == uris, f"{said} of {uris}"


def test_what_is_not_read_from_the_topic(shared):
    """One member brings late events into what all of them serve, and rows of its own, while records flow."""
    world, first, member = shared
    flow = Flow(48, partitions=6, users=30, keyed=True)
    members = [first, member()]
    until(lambda: shared_out(members, world), "six partitions over two")
    for round_ in range(3):
        world.topic.produce(flow.take(400))
        world.caught_up()
        assert world.oracle.having(LATE)
        one = members[round_ % 2]
        done(lambda one=one: one.run(f"REPROCESS LATE EVENTS FOR {world.name}"))
        world.oracle.reprocess()
        # Records flow on while the other one has not seen it.
        world.topic.produce(flow.take(100))
        world.caught_up()
        world.check_stored()
        ask_any(members, world, world.instants()[1])


def done(statement, seconds=60):
    """What others may come before, or asks for a partition that is moving, is tried again, as its error says."""
    end = time.monotonic() + seconds
    while True:
        try:
            return statement()
        except Exception as e:
            if time.monotonic() > end or "try again" not in str(e):
                raise
            time.sleep(0.2)


def test_a_restart_of_a_known_member_moves_nothing(broker, topics, servers, tmp_path):
    """Static membership: who comes back under its name in time has what it had, and nobody else is disturbed."""
    world = World(topics(broker, 6), tmp_path / "warehouse")

    def member(name):
        return servers(world.warehouse, *dialect.OFTEN, env={"ASOF_TEST_INSTANCE": name})

    first = member("a")
    session = {dialect.INSTANCE: "env:ASOF_TEST_INSTANCE", dialect.SESSION: "30000"}
    world.create(first, **{dialect.KEY: "user_id", dialect.PARTITIONER: dialect.LIBRDKAFKA_PARTITIONER}, **session)
    members = [first, member("b")]
    until(lambda: shared_out(members, world), lambda: f"six partitions over two: {told(members, world)}")
    had, shared_out_before = owned(members, world), first.log.count("these partitions are read here")
    flow = Flow(50, partitions=6, users=30, keyed=True)
    for how in (signal.SIGTERM, signal.SIGKILL):
        world.topic.produce(flow.take(200))
        members[1].end(how)
        world.topic.produce(flow.take(200))
        members[1] = member("b")
        # The session would last longer.
        until(lambda: owned(members, world) == had, lambda: f"{had}: {told(members, world)}", 20)
        world.caught_up()
        world.check_stored()
    assert first.log.count("these partitions are read here") == shared_out_before
    ask_any(members, world, world.instants()[1])


def test_each_member_holds_its_own_entities(broker, topics, servers, tmp_path):
    """And none of the others', also where it makes its state of history: who had them left no checkpoint."""
    world = World(topics(broker, 6), tmp_path / "warehouse")

    def member():
        return servers(world.warehouse, "--checkpoint-seconds", 3600, "--http", "127.0.0.1:0")

    first = member()
    world.create(first, **{dialect.KEY: "user_id", dialect.PARTITIONER: dialect.LIBRDKAFKA_PARTITIONER, dialect.INSTANCE: None})
    flow = Flow(50, partitions=6, users=30, keyed=True)
    world.topic.produce(flow.take(300))
    world.caught_up(first)
    first.kill()
    members = [member() for _ in range(MEMBERS)]
    until(lambda: shared_out(members, world), lambda: f"six partitions over three: {told(members, world)}")
    world.topic.produce(flow.take(300))
    world.caught_up()
    ask_any(members, world, world.instants()[1])
    users = [user for user in world.entities() if user != "nobody"]

    def held():
        return [member.metric("asof_view_entities", view=world.view) for member in members]

    until(lambda: all(held()) and sum(held()) == len(users), lambda: f"{held()} for {len(users)} entities")


KILLS = max(3, int(os.environ.get("ASOF_KILLS", 200)) // 20)


def test_members_are_killed(shared):
    """kill -9 of any of three at random moments, while records flow: its partitions go to the others, and to it again."""
    world, first, member = shared
    seeded = random.Random(49)
    # Some hours of event time pass each round, and the broker takes no record of the future.
    flow = Flow(49, partitions=6, users=30, keyed=True, start_us=now_us() - 2 * DAY - KILLS * 3 * HOUR)
    members = [first, member(), member()]
    until(lambda: shared_out(members, world), lambda: f"six partitions over three: {told(members, world)}")
    for round_ in range(KILLS):
        moment = time.monotonic() + seeded.uniform(0, 1.5)
        while time.monotonic() < moment:
            world.topic.send(flow.take(seeded.randint(1, 20)))
            time.sleep(seeded.uniform(0, 0.02))
        at = seeded.randrange(3)
        members[at].kill()
        members[at] = member()
        world.topic.send(flow.take(seeded.randint(10, 50)))
        world.topic.flush()
        if seeded.random() < 0.5:
            # Before all is shared out again, or after.
            world.caught_up()
            world.check_stored()
        until(lambda: shared_out(members, world), lambda: f"six partitions over three: {told(members, world)}")
        world.caught_up()
        world.check_stored()
        ask_any(seeded.sample(members, 1), world, seeded.choice(world.instants()))
    world.check_counts()
    done(lambda: world.check(members[0]))


def rows(table):
    return [tuple(row.values()) for row in table.to_pylist()]


def stamp(us):
    return (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=us)).isoformat()


def statement(sql):
    """Flight SQL's CommandStatementQuery in protobuf's Any."""

    def field(number, data):
        size, out = len(data), bytearray([number << 3 | 2])
        while size > 0x7F:
            out.append(size & 0x7F | 0x80)
            size >>= 7
        return bytes(out) + bytes([size]) + data

    return field(1, b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery") + field(2, field(1, sql.encode()))


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


def test_a_topic_that_gets_more_partitions_stops(broker, topics, servers, tmp_path):
    """Its keys lie elsewhere from then on: nothing of it is taken in by the old places, and what was read is served."""
    world = World(topics(broker, 2), tmp_path / "warehouse")
    options = {dialect.KEY: "user_id", dialect.PARTITIONER: dialect.LIBRDKAFKA_PARTITIONER, dialect.INSTANCE: None}
    server = servers(world.warehouse)
    world.create(server, **options, **{dialect.PASSED + "topic.metadata.refresh.interval.ms": "500"})
    flow = Flow(51, partitions=2, users=30, keyed=True)
    world.topic.produce(flow.take(200))
    world.caught_up(server)
    broker.admin.create_partitions([NewPartitions(world.topic.name, 3)])[world.topic.name].result(30)

    def says():
        return {(r["state"], "3 partitions and had 2" in (r["message"] or "")) for r in server.status(world.name).values()}

    until(lambda: says() == {(dialect.STOPPED, True)}, lambda: f"the stream to stop: {server.status(world.name)}", 90)
    world.check_stored()
    world.check_counts()


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
