"""adbc_ingest: spines as temporary tables of one connection, and events into streams."""

import adbc_driver_manager
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import world
from world import EARLY, EXACT, INSTANTS, LATE, MIDDLE


def spine(users=world.KEYS["user_id"], instants=INSTANTS, kind=pa.string(), time=pa.timestamp("us", "UTC")):
    rows = [(u, at) for at in instants for u in users]
    return pa.table(
        {
            "id": pa.array(range(len(rows)), pa.int64()),
            "user_id": pa.array([u for u, _ in rows], pa.string()).cast(kind),
            "ts": pa.array([at for _, at in rows], pa.timestamp("us", "UTC")).cast(time),
        }
    ), rows


def train(db, table="labels", strict=False):
    with db.cursor() as cursor:
        cursor.execute(
            f"SELECT l.id, {', '.join('v.' + f for f in world.SPEND)} FROM {table} l "
            f"ASOF JOIN user_spend v MATCH_CONDITION (l.ts {'>' if strict else '>='} v.ts) ON l.user_id = v.user_id"
        )
        return cursor.fetch_arrow_table().sort_by("id")


def check_training(found, rows, expected, strict=False):
    assert found.column("id").to_pylist() == list(range(len(rows)))
    for (user, at), row in zip(rows, world.rows(found), strict=True):
        assert row[1:] == expected.row("user_spend", [user], at, strict), (user, at)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
@pytest.mark.parametrize("strict", [False, True])
def test_spine_then_training(db, expected, kind, strict):
    table, rows = spine(kind=kind)
    with db.cursor() as cursor:
        assert cursor.adbc_ingest("labels", table, mode="create", temporary=True) == len(rows)
    check_training(train(db, strict=strict), rows, expected, strict)


@pytest.mark.parametrize("time", [pa.timestamp("us"), pa.timestamp("ns", "UTC"), pa.timestamp("ms"), pa.timestamp("us", "Europe/Berlin")])
def test_spine_of_every_kind_of_time(db, expected, time):
    table, rows = spine(instants=[LATE, MIDDLE, EARLY] if time.unit == "ms" else INSTANTS, time=time)
    with db.cursor() as cursor:
        cursor.adbc_ingest("labels", table, mode="create", temporary=True)
    check_training(train(db), rows, expected)


def test_spine_of_several_batches(db, expected):
    table, rows = spine()
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=7))
    with db.cursor() as cursor:
        cursor.adbc_ingest("labels", reader, mode="create", temporary=True)
    check_training(train(db), rows, expected)


def test_modes(db):
    table, rows = spine(instants=[EXACT])
    count = "SELECT count(*) AS n FROM modes"
    with db.cursor() as cursor:
        cursor.adbc_ingest("modes", table, mode="create", temporary=True)
        with pytest.raises(adbc_driver_manager.Error, match="modes"):
            cursor.adbc_ingest("modes", table, mode="create", temporary=True)
        cursor.adbc_ingest("modes", table, mode="append", temporary=True)
        cursor.execute(count)
        assert cursor.fetchone() == (2 * len(rows),)
        cursor.adbc_ingest("modes", table, mode="replace", temporary=True)
        cursor.execute(count)
        assert cursor.fetchone() == (len(rows),)
        cursor.adbc_ingest("modes", table, mode="create_append", temporary=True)
        cursor.execute(count)
        assert cursor.fetchone() == (2 * len(rows),)
        other = table.drop_columns("user_id")
        with pytest.raises(adbc_driver_manager.Error, match="columns of temporary table .modes"):
            cursor.adbc_ingest("modes", other, mode="append", temporary=True)


def test_temporary_tables_belong_to_their_connection(server):
    with server.adbc() as one, server.adbc() as two:
        for db, n in ((one, 3), (two, 5)):
            with db.cursor() as cursor:
                cursor.adbc_ingest("mine", pa.table({"x": range(n)}), mode="create", temporary=True)
        for db, n in ((one, 3), (two, 5)):
            with db.cursor() as cursor:
                cursor.execute("SELECT count(*) AS n FROM mine")
                assert cursor.fetchone() == (n,)
        with one.cursor() as cursor:
            cursor.adbc_ingest("only_mine", pa.table({"x": [1]}), mode="create", temporary=True)
        with two.cursor() as cursor, pytest.raises(adbc_driver_manager.Error, match="only_mine"):
            cursor.execute("SELECT * FROM only_mine")
            cursor.fetchall()
    with server.adbc() as three, three.cursor() as cursor, pytest.raises(adbc_driver_manager.Error, match="mine"):
        cursor.execute("SELECT * FROM mine")
        cursor.fetchall()


def test_a_table_that_would_stay_is_refused(db):
    """Only temporary tables and streams take rows: a stream needs a watermark, which no upload declares."""
    with db.cursor() as cursor, pytest.raises(adbc_driver_manager.Error, match="temporary"):
        cursor.adbc_ingest("lasting", pa.table({"x": [1]}), mode="create")


def test_a_temporary_table_hides_no_stream(db):
    with db.cursor() as cursor, pytest.raises(adbc_driver_manager.Error, match="transactions"):
        cursor.adbc_ingest("transactions", pa.table({"x": [1]}), mode="create", temporary=True)


NEW = pa.table(
    {
        "txn_id": ["n1", "n2", "n3"],
        "user_id": ["fresh", "fresh", "u1"],
        "merchant_id": ["m1", "m2", "m1"],
        "amount": [1.5, 2.25, None],
        "status": ["ok", "declined", None],
        "ts": [LATE, LATE, LATE],
    },
    schema=world.TRANSACTIONS,
)


def test_append_to_a_stream(own, expected):
    with own.adbc() as db, db.cursor() as cursor:
        assert cursor.adbc_ingest("transactions", NEW, mode="append") == 3
        cursor.execute("SELECT * FROM transactions WHERE ts = " + world.sql_time(LATE) + " ORDER BY txn_id")
        world.same(cursor.fetch_arrow_table(), NEW)
        cursor.execute("SELECT count_ever, spend_ever FROM user_spend FOR ENTITY 'fresh'")
        assert cursor.fetchone() == (2, 3.75)
        # Copies count once.
        assert cursor.adbc_ingest("transactions", NEW, mode="append") == 3
        cursor.execute("SELECT count(*) AS n FROM transactions WHERE user_id = 'fresh'")
        assert cursor.fetchone() == (2,)


def test_rejected_rows_are_kept_with_their_reason(own):
    bad = NEW.set_column(1, "user_id", pa.array(["good", None, "good"]))
    with own.adbc() as db, db.cursor() as cursor:
        cursor.adbc_ingest("transactions", bad, mode="append")
        cursor.execute("SELECT count(*) AS n FROM transactions WHERE user_id = 'good'")
        assert cursor.fetchone() == (2,)
        cursor.execute('SELECT * FROM "transactions$rejected"')
        rejected = cursor.fetch_arrow_table().to_pylist()
    assert len(rejected) == 1 and "user_id" in str(rejected[0]), rejected


def test_append_to_an_unknown_stream(db):
    with db.cursor() as cursor, pytest.raises(adbc_driver_manager.Error) as refused:
        cursor.adbc_ingest("transaction", NEW, mode="append")
    assert '"transaction"' in str(refused.value) and '"transactions"' in str(refused.value)


def test_replacing_a_stream_is_refused(own):
    with own.adbc() as db, db.cursor() as cursor:
        with pytest.raises(adbc_driver_manager.Error, match="transactions"):
            cursor.adbc_ingest("transactions", NEW, mode="replace")
        cursor.execute("SELECT count(*) AS n FROM transactions")
        assert cursor.fetchone() == (world.EVENTS,)


def test_frames_append_to_a_stream(own):
    """Polars and pandas write through the same call."""
    with own.adbc() as db:
        frame = pl.from_arrow(NEW.set_column(0, "txn_id", pa.array(["p1", "p2", "p3"])))
        assert frame.write_database("transactions", db, engine="adbc", if_table_exists="append") == 3
        other = NEW.set_column(0, "txn_id", pa.array(["d1", "d2", "d3"])).to_pandas()
        other.to_sql("transactions", db, if_exists="append", index=False)
        found = pd.read_sql("SELECT txn_id FROM transactions WHERE ts = " + world.sql_time(LATE) + " ORDER BY txn_id", db)
        assert list(found["txn_id"]) == ["d1", "d2", "d3", "p1", "p2", "p3"]
