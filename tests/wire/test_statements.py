"""Flight SQL through ADBC: statements, DDL, parameters, transactions, cancellation, and the text of errors."""

import threading

import adbc_driver_manager
import grpc
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.flight as fl
import pytest

import world
from server import command, descriptor, field, fields, flight_data, query, sql_table, until
from world import EARLY, EXACT, LATE, MIDDLE, sql_time


def fetch(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetch_arrow_table()


USERS = [("u3",), ("u0",), ("nobody",), ("u3",)]
IN_USERS = "user_id IN ('u3', 'u0', 'nobody', 'u3')"


@pytest.mark.parametrize("at", [LATE, MIDDLE, EXACT, EARLY])
@pytest.mark.parametrize("strict", [False, True])
def test_serving_equals_training(db, expected, at, strict):
    word = "BEFORE" if strict else "AS OF"
    expected.check(fetch(db, f"SELECT * FROM user_spend FOR ENTITY {IN_USERS} {word} {sql_time(at)}"), "user_spend", USERS, at, strict)


def test_strict_differs(expected):
    # The instant EXACT is an event's: were the two forms one, the tests above would not see it.
    differ = [u for u in world.KEYS["user_id"][:40] if expected.row("user_spend", [u], EXACT) != expected.row("user_spend", [u], EXACT, True)]
    assert differ


def test_two_views(db, expected):
    table = fetch(
        db,
        "SELECT spend_1h, rate, user_id FROM user_spend, merchant_risk FOR ENTITY (user_id, merchant_id) "
        f"IN (('u1', 'm1'), ('u2', 'm9')) AS OF {sql_time(MIDDLE)}",
    )
    assert table.schema.names == ["spend_1h", "rate", "user_id"]
    keys = [("u1", "m1"), ("u2", "m9")]
    assert world.rows(table) == [
        (*expected.row("user_spend", [u], MIDDLE, features=["spend_1h"]), *expected.row("merchant_risk", [m], MIDDLE, features=["rate"]), u)
        for u, m in keys
    ]


def test_values_may_be_computed_on(db, expected):
    table = fetch(db, f"SELECT count_ever * 2 AS twice FROM user_spend FOR ENTITY 'u1' AS OF {sql_time(LATE)}")
    assert table.to_pydict() == {"twice": [2 * expected.row("user_spend", ["u1"], LATE, features=["count_ever"])[0]]}


def test_now_is_now(own):
    """Without an instant the answer is as of now: an event of a moment ago counts in the last hour."""
    with own.adbc() as db:
        with db.cursor() as cursor:
            cursor.execute("SELECT now() AS t")
            now = cursor.fetchone()[0]
            before = fetch(db, "SELECT txn_count_1h, count_ever FROM user_spend FOR ENTITY 'u0'").to_pylist()[0]
            assert before["txn_count_1h"] == 0 and before["count_ever"] > 0
            cursor.execute("INSERT INTO transactions VALUES (?, 'u0', 'm1', 2.5, 'ok', ?)", ("fresh", now))
        after = fetch(db, "SELECT txn_count_1h, spend_1h, count_ever FROM user_spend FOR ENTITY 'u0'").to_pylist()[0]
    assert after == {"txn_count_1h": 1, "spend_1h": 2.5, "count_ever": before["count_ever"] + 1}


def test_plain_sql(db):
    table = fetch(db, "SELECT status, count(*) AS n FROM transactions GROUP BY status ORDER BY status")
    found = world.transactions().group_by("status").aggregate([("status", "count")]).sort_by("status").to_pydict()
    assert table.to_pydict() == {"status": found["status"], "n": found["status_count"]}


def test_no_rows_still_has_a_schema(db):
    table = fetch(db, "SELECT user_id, amount FROM transactions WHERE user_id = 'no such user'")
    assert table.num_rows == 0 and world.types(table) == {"user_id": pa.string(), "amount": pa.float64()}


def test_pyarrow_alone(flight, expected):
    expected.check(sql_table(flight, f"SELECT * FROM user_spend FOR ENTITY {IN_USERS} AS OF {sql_time(MIDDLE)}"), "user_spend", USERS, MIDDLE)


def test_schema_before_rows(server, flight):
    """The schema in FlightInfo is that of the rows."""
    sql = f"SELECT * FROM by_n FOR ENTITY 1 AS OF {sql_time(LATE)}"
    found = flight.get_flight_info(fl.FlightDescriptor.for_command(query(sql)))
    assert found.schema == sql_table(flight, sql).schema
    with server.adbc() as db, db.cursor() as cursor:
        assert cursor.adbc_execute_schema(sql).equals(found.schema)


# DDL and INSERT, each run once whichever call carries it.


def test_ddl_and_insert_through_execute(empty):
    with empty.adbc() as db, db.cursor() as cursor:
        cursor.execute("CREATE STREAM s (k VARCHAR, x DOUBLE, ts TIMESTAMP NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '1 second')")
        cursor.execute(
            "CREATE FEATURE VIEW v ENTITY (k) AS SELECT count(*) OVER w AS n, sum(x) OVER w AS total FROM s WINDOW w AS (RANGE UNBOUNDED PRECEDING)"
        )
        # A stream without a primary key keeps every copy, so a statement that ran twice would show.
        cursor.execute("INSERT INTO s VALUES ('a', 1.5, TIMESTAMP '2024-05-01 00:00:00')")
        assert fetch(db, "SELECT count(*) AS n FROM s").to_pydict() == {"n": [1]}
        cursor.executescript("INSERT INTO s VALUES ('a', 2.5, TIMESTAMP '2024-05-01 00:00:01')")
        assert fetch(db, "SELECT count(*) AS n FROM s").to_pydict() == {"n": [2]}
        assert fetch(db, "SELECT * FROM v FOR ENTITY 'a'").to_pylist() == [{"k": "a", "n": 2, "total": 4.0}]
        cursor.execute("DROP FEATURE VIEW v")
        with pytest.raises(adbc_driver_manager.Error, match="unknown feature view"):
            cursor.execute("SELECT * FROM v FOR ENTITY 'a'")


def test_statement_update_counts(empty):
    """A statement through DoPut gives the number of rows that it stored."""
    with empty.adbc() as db, db.cursor() as cursor:
        cursor.executescript("CREATE STREAM s (k VARCHAR, ts TIMESTAMP NOT NULL, PRIMARY KEY (k), WATERMARK FOR ts AS ts - INTERVAL '1 second')")
    two = "INSERT INTO s VALUES ('a', TIMESTAMP '2024-05-01 00:00:00'), ('b', TIMESTAMP '2024-05-01 00:00:01')"
    with empty.rpc() as rpc:
        for stored in (2, 0):
            results = rpc.both("DoPut", [flight_data(about=descriptor(command("CommandStatementUpdate", field(1, two))))])
            assert len(results) == 1
            metadata = dict(fields(results[0])).get(1, b"")
            assert dict(fields(metadata)).get(1, 0) == stored


def test_insert_with_a_batch_of_parameters(empty):
    with empty.adbc() as db, db.cursor() as cursor:
        cursor.executescript("CREATE STREAM s (k BIGINT, word VARCHAR, ts TIMESTAMP NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '1 second')")
        batch = pa.record_batch({"k": pa.array([1, 2, None]), "word": ["a", None, "c"], "ts": pa.array([world.START] * 3, pa.timestamp("us", "UTC"))})
        cursor.executemany("INSERT INTO s VALUES (?, ?, ?)", batch)
        assert fetch(db, "SELECT k, word FROM s ORDER BY k NULLS LAST").to_pydict() == {"k": [1, 2, None], "word": ["a", None, "c"]}


# Prepared statements.


@pytest.mark.parametrize("mark", ["$1", "?"])
def test_parameter(db, expected, mark):
    with db.cursor() as cursor:
        for user in ("u3", "nobody", "u3"):
            cursor.execute(f"SELECT * FROM user_spend FOR ENTITY user_id = {mark} AS OF {sql_time(MIDDLE)}", (user,))
            expected.check(cursor.fetch_arrow_table(), "user_spend", [(user,)], MIDDLE)


@pytest.mark.parametrize("mark", ["$1", "?"])
@pytest.mark.parametrize("rows", [1, 2, 57, 5000])
def test_batch_of_parameters(db, expected, mark, rows):
    keys = [(world.KEYS["user_id"][(i * 7) % 44],) for i in range(rows)]
    table = fetch(db, f"SELECT * FROM user_spend FOR ENTITY user_id = {mark} AS OF {sql_time(MIDDLE)}", world.key_batch("user_spend", keys))
    expected.check(table, "user_spend", keys, MIDDLE)


def test_batch_of_two_parameters(db, expected):
    keys = [("u1", "m1"), ("u2", None), ("nobody", "m3"), ("u1", "m1")]
    for marks in ("?, ?", "$1, $2"):
        user, merchant = marks.split(", ")
        table = fetch(
            db,
            f"SELECT * FROM user_at_merchant FOR ENTITY (user_id = {user}, merchant_id = {merchant}) AS OF {sql_time(MIDDLE)}",
            world.key_batch("user_at_merchant", keys),
        )
        expected.check(table, "user_at_merchant", keys, MIDDLE)


@pytest.mark.parametrize("key", list(world.TYPED))
def test_parameter_of_every_type(db, expected, key):
    keys = [(k,) for k in world.KEYS[key]]
    table = fetch(db, f"SELECT * FROM by_{key} FOR ENTITY {key} = ? AS OF {sql_time(LATE)}", world.key_batch(f"by_{key}", keys))
    expected.check(table, f"by_{key}", keys, LATE)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_parameter_of_every_kind_of_string(db, expected, kind):
    keys = [("u1",), ("u2",), (None,)]
    batch = pa.record_batch({"user_id": pa.array([k for (k,) in keys], pa.string()).cast(kind)})
    expected.check(fetch(db, f"SELECT * FROM user_spend FOR ENTITY user_id = ? AS OF {sql_time(LATE)}", batch), "user_spend", keys, LATE)


def test_parameter_in_plain_sql(db):
    table = fetch(db, "SELECT count(*) AS n FROM transactions WHERE user_id = $1 AND ts < $2", ("u1", world.START + 10 * world.HOUR))
    events = world.transactions().to_pylist()
    assert table.to_pydict() == {"n": [sum(e["user_id"] == "u1" and e["ts"] < world.START + 10 * world.HOUR for e in events)]}


def prepare(rpc, sql):
    answer = rpc.stream("DoAction", field(1, "CreatePreparedStatement") + field(2, command("ActionCreatePreparedStatementRequest", field(1, sql))))
    body = dict(fields(answer[0]))[1]
    return dict(fields(dict(fields(body))[2]))


def read_schema(data):
    return pa.ipc.read_schema(pa.py_buffer(data))


def test_prepared_schemas(rpc):
    """CreatePreparedStatement says what comes out and what must be bound."""
    made = prepare(rpc, "SELECT * FROM by_n FOR ENTITY n = $1")
    assert read_schema(made[2]).names == ["n", *world.TYPED_FEATURES]
    assert [f.type for f in read_schema(made[3])] == [pa.int64()]


@pytest.mark.parametrize("values", [(), ("u1", "u2")])
def test_parameter_count(db, values):
    with db.cursor() as cursor, pytest.raises(adbc_driver_manager.Error, match="parameter"):
        cursor.execute(f"SELECT * FROM user_spend FOR ENTITY user_id = ? AS OF {sql_time(LATE)}", values)
        cursor.fetch_arrow_table()


def test_parameter_type(db):
    with db.cursor() as cursor, pytest.raises(adbc_driver_manager.Error) as refused:
        cursor.execute("SELECT * FROM user_spend FOR ENTITY user_id = ?", (42,))
        cursor.fetch_arrow_table()
    assert "user_id" in str(refused.value) and "string" in str(refused.value)


def test_parameter_in_the_select_list(db):
    with db.cursor() as cursor, pytest.raises(adbc_driver_manager.Error) as refused:
        cursor.execute("SELECT spend_ever + ? FROM user_spend FOR ENTITY 'u1'", (42.0,))
        cursor.fetch_arrow_table()
    assert "error[E0503]" in str(refused.value) and "SELECT list" in str(refused.value) and "^" in str(refused.value)


def test_a_text_means_what_is_defined_now(empty):
    """The plan of a text is kept, and made anew when a definition changes."""
    with empty.adbc() as db, db.cursor() as cursor:
        cursor.execute("CREATE STREAM s (k VARCHAR, x DOUBLE, ts TIMESTAMP NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '1 second')")
        cursor.execute("INSERT INTO s VALUES ('a', 1.5, TIMESTAMP '2024-05-01 00:00:00')")
        define = "CREATE FEATURE VIEW v ENTITY (k) AS SELECT {} OVER (RANGE UNBOUNDED PRECEDING) AS f FROM s"
        text = "SELECT *, f IS NULL AS missing FROM v FOR ENTITY 'a'"
        for feature, value in [("count(*)", 1), ("sum(x)", 1.5), ("min(x)", 1.5), ("count(*)", 1)]:
            cursor.execute(define.format(feature))
            for _ in range(2):
                assert fetch(db, text).to_pylist() == [{"k": "a", "f": value, "missing": False}]
            cursor.execute("DROP FEATURE VIEW v")
        with pytest.raises(adbc_driver_manager.Error, match="unknown feature view"):
            fetch(db, text)


def test_closed_handle(rpc):
    handle = prepare(rpc, "SELECT 1 AS one")[1]
    asked = descriptor(command("CommandPreparedStatementQuery", field(1, handle)))
    assert rpc.unary("GetFlightInfo", asked)
    rpc.stream("DoAction", field(1, "ClosePreparedStatement") + field(2, command("ActionClosePreparedStatementRequest", field(1, handle))))
    code, text = rpc.refused("unary", "GetFlightInfo", asked)
    assert code == grpc.StatusCode.NOT_FOUND and "prepared statement" in text


def test_handle_of_another_connection(server, rpc):
    """A handle belongs to the connection that prepared it."""
    handle = prepare(rpc, "SELECT 1 AS one")[1]
    with server.rpc() as other:
        code, text = other.refused("unary", "GetFlightInfo", descriptor(command("CommandPreparedStatementQuery", field(1, handle))))
    assert code == grpc.StatusCode.NOT_FOUND and "prepared statement" in text


# Transactions.


def test_transactions_are_refused(server, rpc):
    code, text = rpc.refused("stream", "DoAction", field(1, "BeginTransaction") + field(2, command("ActionBeginTransactionRequest")))
    assert code == grpc.StatusCode.UNIMPLEMENTED and "transaction" in text
    with server.adbc() as db:
        with pytest.raises(adbc_driver_manager.Error):
            db.adbc_connection.set_autocommit(False)
        with db.cursor() as cursor, pytest.raises(adbc_driver_manager.Error) as refused:
            cursor.execute("BEGIN")
        assert "BEGIN is not supported" in world.refusal(str(refused.value))


def test_transactions_of_a_statement_are_refused(rpc):
    code, text = rpc.refused("unary", "GetFlightInfo", descriptor(command("CommandStatementQuery", field(1, "SELECT 1"), field(2, b"transaction 1"))))
    assert code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND) and "transaction" in text


# Cancellation: the work stops, which the process' use of the processor shows.

ENDLESS = (
    "SELECT sum(a.amount * b.amount * c.amount) AS x FROM transactions a, transactions b, transactions c "
    "WHERE a.txn_id <> b.txn_id AND b.txn_id <> c.txn_id"
)


def test_cancel(own):
    until(own.idle, "an idle server")
    with own.adbc() as db, db.cursor() as cursor:
        found = []

        def run():
            try:
                cursor.execute(ENDLESS)
                found.append(cursor.fetch_arrow_table())
            except adbc_driver_manager.Error as error:
                found.append(error)

        thread = threading.Thread(target=run)
        before = own.cpu_s()
        thread.start()
        until(lambda: own.cpu_s() - before > 1, "the query to run")
        cursor.adbc_cancel()
        thread.join(20)
        assert not thread.is_alive() and isinstance(found[0], adbc_driver_manager.Error), found
        until(own.idle, "the query to stop")
        # The connection goes on.
        assert fetch(db, "SELECT 1 AS one").to_pydict() == {"one": [1]}


def test_dropped_client_stops_the_work(own):
    until(own.idle, "an idle server")
    with own.rpc() as rpc:
        call = rpc.channel.unary_unary(rpc.SERVICE + "GetFlightInfo").future(descriptor(query(ENDLESS)), timeout=60)
        info = fields(call.result())
        ticket = dict(fields(next(v for n, v in info if n == 3)))[1]
        before = own.cpu_s()
        stream = rpc.channel.unary_stream(rpc.SERVICE + "DoGet")(ticket, timeout=300)
        until(lambda: own.cpu_s() - before > 1, "the query to run")
        stream.cancel()
        until(own.idle, "the query to stop")


# Errors keep their text.


@pytest.mark.parametrize(
    "sql, parts",
    [
        (
            "SELECT * FROM user_spen FOR ENTITY 'u1'",
            ['error[E0201]: unknown feature view "user_spen"', ":1:15", "^^^^^^^^^", 'The nearest known feature view is "user_spend".'],
        ),
        ("SELECT\n  nosuch\nFROM user_spend FOR ENTITY 'u1'", ['error[E0201]: unknown feature "nosuch"', ":2:3", "^^^^^^"]),
        ("SELECT * FROM user_spend", ["error[E0502]", "FOR ENTITY", "ASOF JOIN"]),
        ("SELEC 1", ["error[E", ":1:1", "^^^^^"]),
        (
            "CREATE FEATURE VIEW b ENTITY (user_id) AS SELECT sum(nothing) OVER (RANGE UNBOUNDED PRECEDING) AS x FROM transactions",
            ["error[E", '"nothing"', "^^^^^^^"],
        ),
        ("INSERT INTO transaction VALUES ('x')", ["error[E", '"transaction"', '"transactions"']),
    ],
)
def test_error_text(server, db, flight, sql, parts):
    texts = {}
    with db.cursor() as cursor, pytest.raises(adbc_driver_manager.Error) as refused:
        cursor.execute(sql)
    texts["ADBC execute"] = str(refused.value)
    if not sql.startswith("CREATE"):  # which takes no parameter, and says that
        with db.cursor() as cursor, pytest.raises(adbc_driver_manager.Error) as refused:
            cursor.execute(sql, ("a parameter",))
        texts["ADBC prepared"] = str(refused.value)
    with pytest.raises((pa.ArrowException, fl.FlightError)) as refused:
        sql_table(flight, sql)
    texts["pyarrow"] = str(refused.value)
    for client, text in texts.items():
        missing = [p for p in parts if p not in text]
        assert not missing, f"{client} lacks {missing}:\n{text}"


def test_error_codes(rpc):
    for sql, code in [
        ("SELECT * FROM user_spen FOR ENTITY 'u1'", {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT}),
        ("SELEC 1", {grpc.StatusCode.INVALID_ARGUMENT}),
        ("SELECT * FROM user_spend FOR ENTITY 42", {grpc.StatusCode.INVALID_ARGUMENT}),
    ]:
        found, text = rpc.refused("unary", "GetFlightInfo", descriptor(query(sql)))
        assert found in code, text
        world.refusal(text)


def test_error_while_rows_come(db):
    """What fails only at a row fails the read, with its text."""
    with db.cursor() as cursor, pytest.raises(adbc_driver_manager.Error, match="(?i)divi|zero|cast|parse"):
        cursor.execute("SELECT CAST(txn_id AS BIGINT) AS x FROM transactions")
        cursor.fetch_arrow_table()


# Data frames.


def test_polars(db, expected):
    frame = pl.read_database(f"SELECT * FROM user_spend FOR ENTITY {IN_USERS} AS OF {sql_time(MIDDLE)}", db)
    expected.check(frame.to_arrow(), "user_spend", USERS, MIDDLE)
    bound = pl.read_database(
        f"SELECT user_id, count_ever FROM user_spend FOR ENTITY user_id = ? AS OF {sql_time(MIDDLE)}", db, execute_options={"parameters": ["u5"]}
    )
    assert bound.rows() == [("u5", *expected.row("user_spend", ["u5"], MIDDLE, features=["count_ever"]))]


def test_pandas(db, expected):
    sql = f"SELECT user_id, count_ever, spend_1h, ticket_24h FROM user_spend FOR ENTITY {IN_USERS} AS OF {sql_time(MIDDLE)}"
    wanted = [expected.row("user_spend", u, MIDDLE, features=["count_ever", "spend_1h", "ticket_24h"]) for u in USERS]
    with db.cursor() as cursor:
        cursor.execute(sql)
        for frame in (cursor.fetch_df(), pd.read_sql(sql, db, dtype_backend="pyarrow")):
            assert list(frame["user_id"]) == [u for (u,) in USERS]
            found = [
                tuple(world.bits(None if pd.isna(v) else v) for v in row)
                for row in zip(frame["count_ever"].tolist(), frame["spend_1h"].tolist(), frame["ticket_24h"].tolist(), strict=True)
            ]
            # A frame says NULL and NaN alike, so the users' sums must have no NaN for this to see every bit.
            assert found == wanted
