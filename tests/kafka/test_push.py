"""The comparison itself, without the connector: records that are pushed one by one are judged as from a log of one partition.

What a decoder rejects is left out; the rest (lateness, copies, conflicts, windows) must be as the oracle says, so that a difference that is
found over Kafka is the connector's. And each part of the comparison fails when what it compares is changed.
"""

import copy
import math
import signal

import pytest

import dialect
import oracle
import world as worlds
from oracle import ACCEPTED, DUPLICATE, LATE
from server import Server
from world import COLUMNS, DDL, USER, Flow, World, instant, quoted


class NoTopic:
    name, partitions = "push", 1


def literal(value):
    if value is None:
        return "NULL"
    return quoted(value) if isinstance(value, str) else f"CAST('{value!r}' AS DOUBLE)" if isinstance(value, float) else str(value)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("push")
    with Server(folder / "warehouse", folder / "server") as server:
        world = World(NoTopic, folder / "warehouse")
        server.run(f"CREATE STREAM {world.name} ({DDL})")
        server.run(worlds.view_sql(world.view, world.name))
        valid = [s.row for s in Flow(7).take(200) if s.row is not None and s.taken_us is None]
        # One that is refused for its time, so that the third table holds something.
        valid.append((*valid[-1][:-1], worlds.now_us() + oracle.DAY))
        for offset, row in enumerate(valid):
            values = [literal(v) for v in row[:-1]] + [f"TIMESTAMP '{instant(row[-1])}'"]
            server.run(f"INSERT INTO {world.name} VALUES ({', '.join(values)})")
            world.oracle.feed(oracle.Record(0, offset, worlds.now_us(), row))
        # A push stream's one partition is called "push", and the bytes of what is refused are the server's own.
        for kind, table in world.tables.items():
            rows = [{**r, dialect.PARTITION: "0"} for r in table.refresh().rows()]
            if kind == dialect.REJECTED:
                rows = [{**r, dialect.RAW: None} for r in rows]
            table.rows = lambda rows=rows: copy.deepcopy(rows)
        yield world, server, valid


def test_a_push_stream_agrees_with_the_oracle(pushed):
    world, server, valid = pushed
    world.settled(server)
    counts = world.oracle.counts()
    assert min(counts[k] for k in (ACCEPTED, DUPLICATE, LATE)) > 5, counts
    world.check(server)
    assert {r[USER] for r in valid} >= set(world.entities()) - {"nobody"}


def next_float(value):
    return math.nextafter(value, math.inf)


def changed_amount(rows):
    row = next(r for r in rows if r["amount"])
    row["amount"] = next_float(row["amount"])


def moved(rows):
    rows[3][dialect.OFFSET] += 1000


def duplicate_stored(world):
    """A row of history at the coordinates of its copy besides."""
    at = min(world.oracle.having(DUPLICATE))

    def change(rows):
        rows.append({**dict(zip(COLUMNS, world.oracle.records[at].row, strict=True)), dialect.PARTITION: "0", dialect.OFFSET: at[1]})

    return change


MISTAKES = {
    "a row of history lost": (dialect.HISTORY, lambda rows: rows.pop(5)),
    "a row of history twice": (dialect.HISTORY, lambda rows: rows.append(rows[5])),
    "a row of history in another bit": (dialect.HISTORY, changed_amount),
    "a row of history from elsewhere": (dialect.HISTORY, moved),
    "a late row lost": (dialect.LATE, lambda rows: rows.pop()),
    "a late row twice": (dialect.LATE, lambda rows: rows.append(rows[0])),
    "a late row in another bit": (dialect.LATE, changed_amount),
    "a rejected row lost": (dialect.REJECTED, lambda rows: rows.pop()),
    "a rejected row without a reason": (dialect.REJECTED, lambda rows: rows[0].update({dialect.REASON: ""})),
}


@pytest.mark.parametrize("mistake", [*MISTAKES, "a copy stored"])
def test_mistakes_in_tables_are_found(pushed, mistake, monkeypatch):
    world, _, _ = pushed
    kind, change = (dialect.HISTORY, duplicate_stored(world)) if mistake == "a copy stored" else MISTAKES[mistake]
    rows = world.tables[kind].rows()
    change(rows)
    monkeypatch.setattr(world.tables[kind], "rows", lambda: rows)
    with pytest.raises(AssertionError):
        world.check_stored()


def test_mistakes_in_counts_are_found(pushed, monkeypatch):
    world, _, _ = pushed
    world.check_counts()
    commits = copy.deepcopy(world.tables[dialect.HISTORY].actions("commitInfo"))
    counted = next(c for c in map(dialect.counts_of, commits) if c)
    for change in ({"late": counted["late"] + 1}, {"late": counted["late"] + 1, "read": counted["read"] + 1}):
        monkeypatch.setattr(
            world.tables[dialect.HISTORY],
            "actions",
            lambda kind, change=change: [{"asof": {"counts": {**counted, **change}}}, *commits[1:]],
        )
        with pytest.raises(AssertionError):
            world.check_counts()


def a_bit_more(rows):
    """The first number that is none of a key's, in its last bit."""
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            if isinstance(value, float) and math.isfinite(value):
                return [*rows[:i], (*row[:j], next_float(value), *row[j + 1 :]), *rows[i + 1 :]]
    raise AssertionError("no number in the answer")


@pytest.mark.parametrize("change", [a_bit_more, lambda rows: rows[:-1], lambda rows: [*rows, rows[0]]], ids=["bit", "fewer", "more"])
@pytest.mark.parametrize("check", ["check_table", "check_served", "check_trained"])
def test_mistakes_in_answers_are_found(pushed, check, change):
    world, server, _ = pushed

    class Lying:
        def rows(self, sql, spine=None):
            return change(server.rows(sql, spine))

    with pytest.raises(AssertionError) as found:
        getattr(world, check)(Lying())
    assert "no number" not in str(found.value)


def test_a_loss_of_the_oracle_is_found(pushed):
    """One accepted record fewer or more in the oracle's hands changes what is served."""
    world, server, _ = pushed
    honest = world.oracle
    world.oracle = copy.deepcopy(honest)
    try:
        last = max(at for at in honest.having(ACCEPTED) if len(honest.copies[honest.identity(honest.records[at].row)]) == 1)
        row = honest.records[last].row
        del world.oracle.copies[honest.identity(row)]
        for check in (world.check_table, world.check_served, world.check_trained):
            with pytest.raises(AssertionError):
                check(server)
    finally:
        world.oracle = honest


def test_servers_that_are_killed_crash_and_stop(tmp_path):
    """What the tests of crashes do to a server, and that one which ends otherwise is told from it."""
    for end in ("kill", "crash", "stop"):
        with Server(tmp_path / "warehouse", tmp_path / end) as server:
            assert server.rows("SELECT 1 AS one") == [(1,)]
            if end == "kill":
                server.kill()
            elif end == "crash":
                server.process.send_signal(signal.SIGABRT)
                server.crashed()
            else:
                server.stop()
                server.resume()
                assert server.rows("SELECT 1 AS one") == [(1,)]
    with pytest.raises(AssertionError, match="ended with -9"), Server(tmp_path / "warehouse", tmp_path / "other") as server:
        server.process.kill()
        server.process.wait()
    with pytest.raises(AssertionError, match="ended with 2"):
        Server(tmp_path / "warehouse", tmp_path / "other", "--no-such-option")
