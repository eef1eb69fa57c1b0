"""Training sets: several endpoints, each row exactly once over all of them, in parallel or one after the other."""

import datetime
from concurrent.futures import ThreadPoolExecutor

import adbc_driver_manager
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.flight as fl
import pyarrow.parquet as pq
import pytest

import server as wire
import world
from server import infos, sql_table, until
from test_ticket import view_ticket
from world import INSTANTS

ROWS = 60_000
FEATURES = ["txn_count_1h", "spend_1h", "last_merchant", "last_three", "spend_ever"]


@pytest.fixture(scope="module")
def labels(server, tmp_path_factory):
    """A spine of many rows as files that the server names, and the row that each must become."""
    folder = tmp_path_factory.mktemp("labels")
    users = world.KEYS["user_id"]
    rows = [(i, users[i % len(users)], INSTANTS[i // len(users) % len(INSTANTS)]) for i in range(ROWS)]
    columns = {name: [r[i] for r in rows] for i, name in enumerate(("id", "user_id", "ts"))}
    table = pa.table(columns, schema=pa.schema([("id", pa.int64()), ("user_id", pa.string()), ("ts", pa.timestamp("us", "UTC"))]))
    pq.write_table(table, folder / "labels.parquet", row_group_size=7_000)
    with server.adbc() as db, db.cursor() as cursor:
        cursor.execute(f"CREATE EXTERNAL TABLE IF NOT EXISTS labels_many STORED AS PARQUET LOCATION '{folder / 'labels.parquet'}'")
    return rows


QUERY = (
    f"SELECT l.id, l.user_id, l.ts, {', '.join('v.' + f for f in FEATURES)} FROM labels_many l "
    "ASOF JOIN user_spend v MATCH_CONDITION (l.ts > v.ts) ON l.user_id = v.user_id"
)


def check(table, labels, expected):
    """Every label once, with the values of training by `asof sql`."""
    table = table.sort_by("id")
    assert table.schema.names == ["id", "user_id", "ts", *FEATURES]
    assert table.column("id").to_pylist() == list(range(len(labels)))
    wanted = {(u, at): expected.row("user_spend", [u], at, True, FEATURES) for u in world.KEYS["user_id"] for at in INSTANTS}
    for (i, user, at), row in zip(labels, world.rows(table), strict=True):
        assert row == (i, user, world.bits(at), *wanted[user, at])


def test_several_endpoints_one_after_the_other(flight, labels, expected):
    found = infos(flight, QUERY)
    assert len(found.endpoints) >= 2
    check(pa.concat_tables([flight.do_get(e.ticket).read_all() for e in found.endpoints]), labels, expected)
    assert found.total_records in (-1, ROWS)


def test_last_endpoint_first(flight, labels, expected):
    """No endpoint waits for another to be read."""
    found = infos(flight, QUERY)
    parts = [flight.do_get(e.ticket).read_all() for e in reversed(found.endpoints)]
    check(pa.concat_tables(parts), labels, expected)


def test_several_endpoints_in_parallel(server, flight, labels, expected):
    found = infos(flight, QUERY)

    def read(endpoint):
        # A connection of its own, as a loader's worker has.
        with server.flight() as client:
            return client.do_get(endpoint.ticket).read_all()

    with ThreadPoolExecutor(len(found.endpoints)) as pool:
        check(pa.concat_tables(pool.map(read, found.endpoints)), labels, expected)


def test_endpoints_expire(flight, labels):
    before = datetime.datetime.now(datetime.timezone.utc)
    for endpoint in infos(flight, QUERY).endpoints:
        assert endpoint.expiration_time is not None
        at = endpoint.expiration_time
        at = at.as_py() if hasattr(at, "as_py") else at
        assert before < at < before + datetime.timedelta(days=1)
        assert not endpoint.locations


def test_an_endpoint_is_read_once(flight, labels):
    """A second reader of one endpoint would double its rows: it is refused, and told why."""
    endpoint = infos(flight, QUERY + " ORDER BY l.id LIMIT 5").endpoints[0]
    assert flight.do_get(endpoint.ticket).read_all().num_rows == 5
    with pytest.raises((pa.ArrowException, fl.FlightError)) as refused:
        flight.do_get(endpoint.ticket).read_all()
    assert "result" in str(refused.value) or "endpoint" in str(refused.value)


def test_what_is_not_read_in_time_is_gone(copy, tmp_path):
    with wire.Server(copy(), tmp_path, "--result-seconds", 1) as started, started.flight() as client:
        endpoint = infos(client, "SELECT 1 AS one").endpoints[0]
        at = endpoint.expiration_time
        at = at.as_py() if hasattr(at, "as_py") else at
        until(lambda: datetime.datetime.now(datetime.timezone.utc) > at + datetime.timedelta(milliseconds=100), "the time to pass")
        with pytest.raises((pa.ArrowException, fl.FlightError)) as refused:
            client.do_get(endpoint.ticket).read_all()
        assert "result" in str(refused.value) or "endpoint" in str(refused.value)


def test_order_by_has_one_endpoint(flight, labels, expected):
    found = infos(flight, QUERY + " ORDER BY l.id DESC")
    assert len(found.endpoints) == 1
    table = flight.do_get(found.endpoints[0].ticket).read_all()
    assert table.column("id").to_pylist() == list(range(ROWS))[::-1]
    check(table, labels, expected)


def test_limit(flight, labels):
    assert sql_table(flight, QUERY + " LIMIT 10").num_rows == 10


def test_adbc_reads_all_endpoints(server, labels, expected):
    with server.adbc() as db, db.cursor() as cursor:
        cursor.execute(QUERY)
        check(cursor.fetch_arrow_table(), labels, expected)


def test_adbc_partitions(server, labels, expected):
    """A driver hands partitions to other processes, each with a connection of its own."""
    with server.adbc() as db, db.cursor() as cursor:
        partitions, schema = cursor.adbc_execute_partitions(QUERY)
        assert len(partitions) >= 2
    parts = []
    for partition in partitions:
        with server.adbc() as db, db.cursor() as cursor:
            cursor.adbc_read_partition(partition)
            parts.append(cursor.fetch_arrow_table())
    check(pa.concat_tables(parts), labels, expected)
    if schema is not None:
        assert schema.names == parts[0].schema.names


def test_provenance(flight, labels):
    """A training set says in its schema where it comes from."""
    metadata = infos(flight, QUERY).schema.metadata or {}
    read = sql_table(flight, QUERY + " LIMIT 1").schema.metadata or {}
    for found in (metadata, read):
        text = b" ".join(list(found) + list(found.values()))
        assert b"user_spend" in text and b"transactions" in text, found


def test_frames(server, labels, expected):
    with server.adbc() as db:
        frame = pl.read_database(QUERY, db)
        assert frame.height == ROWS
        check(frame.to_arrow(), labels, expected)
        batches = list(pl.read_database(QUERY, db, iter_batches=True, batch_size=5_000))
        assert sum(b.height for b in batches) == ROWS
        sums = pd.read_sql(QUERY, db)
        assert sorted(sums["id"]) == list(range(ROWS))


def test_bounded_memory(own):
    """A result far larger than what may be held streams: the process grows by a bound, not by the result."""
    with own.rpc() as rpc:
        sql = "SELECT a.txn_id, b.txn_id AS other, a.amount, b.merchant_id FROM transactions a, transactions b"
        info = wire.fields(rpc.unary("GetFlightInfo", wire.descriptor(wire.query(sql))))
        tickets = [dict(wire.fields(v))[1] for n, v in info if n == 3]
        before, size = own.memory_mb(), 0
        for ticket in tickets:
            for message in rpc.channel.unary_stream(rpc.SERVICE + "DoGet")(ticket, timeout=300):
                size += len(message)
                if size > 160 << 20:
                    break
            assert own.memory_mb() - before < 200, f"{own.memory_mb() - before:.0f} MB more after {size >> 20} MB"
            if size > 160 << 20:
                break
        assert size > 100 << 20


def test_a_reader_that_stops_reading_holds_the_work_back(own):
    until(own.idle, "an idle server")
    sql = "SELECT a.txn_id, b.txn_id AS other, a.amount, b.merchant_id FROM transactions a, transactions b"
    with own.flight() as client:
        endpoint = infos(client, sql).endpoints[0]
        reader = client.do_get(endpoint.ticket)
        reader.read_chunk()
        until(own.idle, "the work to wait for its reader")
        before = own.memory_mb()
        reader.read_chunk()
        until(own.idle, "the work to wait for its reader")
        assert own.memory_mb() - before < 100
        reader.cancel()
        with pytest.raises((pa.ArrowException, fl.FlightError, StopIteration)):
            for _ in range(100_000):
                reader.read_chunk()
        until(own.idle, "the work to stop")


def test_serving_goes_on_under_training(server, flight, labels, expected):
    """Serving answers, and rightly, while training reads."""
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(lambda: sql_table(flight, QUERY))
        with server.flight() as client:
            answered = 0
            while not training.done() or answered == 0:
                key = (f"u{answered % 40}",)
                expected.check(client.do_get(view_ticket("user_spend", [key], world.MIDDLE)).read_all(), "user_spend", [key], world.MIDDLE)
                answered += 1
        check(training.result(), labels, expected)
    assert answered > 3


def test_error_text(flight, labels):
    with pytest.raises((pa.ArrowException, fl.FlightError)) as refused:
        infos(flight, QUERY.replace("spend_ever", "spend_evr"))
    assert '"spend_evr"' in world.refusal(str(refused.value)) or "spend_evr" in str(refused.value)


def test_error_text_by_adbc(server, labels):
    with server.adbc() as db, db.cursor() as cursor, pytest.raises(adbc_driver_manager.Error) as refused:
        cursor.execute(QUERY.replace("MATCH_CONDITION (l.ts > v.ts) ", ""))
    assert "MATCH_CONDITION" in world.refusal(str(refused.value))
