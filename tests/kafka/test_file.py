"""What the JSON of a flow means, without the connector: as lines of a file it is accepted, late, duplicate and rejected as the oracle says.

A file is one partition, so that what is judged otherwise over Kafka is the connector's. An empty line is no record, and a line has no
broker timestamp: those are left out.
"""

import dialect
import oracle
from oracle import ACCEPTED, LATE, REJECTED
from server import cli
from test_push import NoTopic
from world import COLUMNS, DDL, Flow, World, bits, now_us, view_sql


def test_a_file_agrees_with_the_oracle(servers, tmp_path):
    world = World(NoTopic, tmp_path / "warehouse")
    sent = [s for s in Flow(17).take(3000) if s.value and s.taken_us is None]
    (tmp_path / "payments.jsonl").write_bytes(b"".join(s.value + b"\n" for s in sent))
    for offset, record in enumerate(sent):
        world.oracle.feed(oracle.Record(0, offset, now_us(), record.row, record.value))
    assert min(world.oracle.counts().values()) > 20
    options = f"connector = 'file', path = '{tmp_path}/payments.jsonl', format = 'json', mode = 'once'"
    cli(world.warehouse, f"CREATE STREAM {world.name} ({DDL}) WITH ({options}); {view_sql(world.view, world.name)}")
    stored = {kind: table.refresh().rows() for kind, table in world.tables.items()}
    rejected = sorted(row[dialect.RAW] for row in stored[dialect.REJECTED])
    expected = sorted(world.oracle.records[at].raw for at in world.oracle.having(REJECTED))
    assert rejected == expected, {"missing": set(expected) - set(rejected), "too much": set(rejected) - set(expected)}
    for kind, verdict in ((dialect.HISTORY, ACCEPTED), (dialect.LATE, LATE)):
        found = sorted((tuple(map(bits, (r[c] for c in COLUMNS))) for r in stored[kind]), key=repr)
        assert found == sorted((tuple(map(bits, world.oracle.records[at].row)) for at in world.oracle.having(verdict)), key=repr)
    world.check_counts()
    server = servers(world.warehouse)
    world.settled(server)
    world.check_table(server)
    world.check_served(server)
    world.check_trained(server)
