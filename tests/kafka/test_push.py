"""The comparison itself, without the connector: records that are pushed one by one are judged as from a log of one partition.

What a decoder rejects is left out; the rest (lateness, copies, conflicts, windows) must be as the oracle says, so that a difference that is
found over Kafka is the connector's.
"""

import oracle
import world as worlds
from world import DDL, USER, Flow, World, instant, quoted


class NoTopic:
    name, partitions = "push", 1


def literal(value):
    if value is None:
        return "NULL"
    return quoted(value) if isinstance(value, str) else f"CAST('{value!r}' AS DOUBLE)" if isinstance(value, float) else str(value)


def test_a_push_stream_agrees_with_the_oracle(servers, tmp_path):
    server = servers(tmp_path / "warehouse")
    world = World(NoTopic, tmp_path / "warehouse")
    server.run(f"CREATE STREAM {world.name} ({DDL})")
    server.run(worlds.view_sql(world.view, world.name))
    valid = [s.row for s in Flow(7).take(300) if s.row is not None and s.taken_us is None]
    for offset, row in enumerate(valid):
        values = [literal(v) for v in row[:-1]] + [f"TIMESTAMP '{instant(row[-1])}'"]
        server.run(f"INSERT INTO {world.name} VALUES ({', '.join(values)})")
        world.oracle.feed(oracle.Record(0, offset, worlds.now_us(), row))
    counts = world.oracle.counts()
    assert min(counts[k] for k in ("accepted", "duplicate", "late")) > 5, counts
    # A push stream's one partition is called "push".
    for table in world.tables.values():
        rows = table.refresh().rows()
        table.rows = lambda rows=rows: [{**r, "_partition": "0"} for r in rows]
    world.check(server)
    assert {r[USER] for r in valid} == set(world.entities()) - {"nobody"}
