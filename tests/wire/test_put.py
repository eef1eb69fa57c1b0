"""DoPut into a stream: counts, tokens, durability, and rows that come late or wrong."""

import datetime
import json
import signal
from fractions import Fraction

import grpc
import pyarrow as pa
import pyarrow.flight as fl
import pytest

import world
from server import Server, descriptor, flight_data, ipc, sql_table
from world import LATE, TRANSACTIONS

SECOND = datetime.timedelta(seconds=1)
COUNTS = ["read", "accepted", "duplicate", "late", "rejected", "conflicts"]


def events(names, user="put", at=LATE, **columns):
    n = len(names)
    made = {"txn_id": names, "user_id": [user] * n, "merchant_id": ["m1"] * n, "amount": [1.0] * n, "status": ["ok"] * n, "ts": [at] * n, **columns}
    return pa.table(made, schema=TRANSACTIONS)


def put(client, table, path=None, batches=None, **parts):
    """Writes a table and gives the sum of the counts acknowledged."""
    if parts or path is None:
        about = fl.FlightDescriptor.for_command(json.dumps({"v": 1, "stream": path or "transactions", **parts}).encode())
    else:
        about = fl.FlightDescriptor.for_path(path)
    writer, reader = client.do_put(about, table.schema)
    for batch in batches or table.to_batches():
        writer.write_batch(batch)
    writer.done_writing()
    total = dict.fromkeys(COUNTS, 0)
    while (answer := reader.read()) is not None:
        found = world.result(answer)
        assert found.pop("v") == 1 and set(found) == set(COUNTS), found
        for name in COUNTS:
            total[name] += found[name]
    writer.close()
    return tuple(total[name] for name in COUNTS)


def ids(client, where="user_id = 'put'"):
    return sorted(sql_table(client, f"SELECT txn_id FROM transactions WHERE {where}").column("txn_id").to_pylist())


def test_by_path_and_by_command(own):
    with own.flight() as client:
        assert put(client, events(["a", "b"]), path="transactions") == (2, 2, 0, 0, 0, 0)
        assert put(client, events(["c"])) == (1, 1, 0, 0, 0, 0)
        assert ids(client) == ["a", "b", "c"]
        served = sql_table(client, "SELECT count_ever, spend_ever FROM user_spend FOR ENTITY 'put'").to_pylist()
        assert served == [{"count_ever": 3, "spend_ever": 3.0}]


def test_counts(own):
    """A copy, a conflict, a late row and a wrong one, each counted as what it is, and kept."""
    with own.flight() as client:
        assert put(client, events(["a", "b"])) == (2, 2, 0, 0, 0, 0)
        assert put(client, events(["a", "c"])) == (2, 1, 1, 0, 0, 0)
        assert put(client, events(["a"], amount=[7.0])) == (1, 1, 0, 0, 0, 1)
        # The greatest event time is LATE; what is more than 30 s older is late, at exactly 30 s it is not.
        assert put(client, events(["late", "just"], ts=[LATE - 31 * SECOND, LATE - 30 * SECOND])) == (2, 1, 0, 1, 0, 0)
        assert put(client, events(["x", "y", "z"], user_id=["put", None, "put"], ts=[LATE, LATE, None])) == (3, 1, 0, 0, 2, 0)
        assert ids(client) == ["a", "b", "c", "just", "x"]
        assert sql_table(client, 'SELECT txn_id FROM "transactions$late"').column("txn_id").to_pylist() == ["late"]
        reasons = [str(r) for r in sql_table(client, 'SELECT * FROM "transactions$rejected"').to_pylist()]
        assert len(reasons) == 2 and any("user_id" in r for r in reasons) and any("ts" in r for r in reasons), reasons


def test_too_far_in_the_future(own):
    with own.flight() as client:
        at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
        assert put(client, events(["future"], at=at)) == (1, 0, 0, 0, 1, 0)
        assert ids(client) == []


def test_rows_of_one_put_are_not_late_against_each_other(own):
    with own.flight() as client:
        rows = events(["new", "old"], ts=[LATE + 3600 * SECOND, LATE])
        assert put(client, rows, batches=[b for i in range(2) for b in rows.slice(i, 1).to_batches()], token="one commit") == (2, 2, 0, 0, 0, 0)


def test_token_makes_a_retry_harmless(own):
    with own.flight() as client:
        assert put(client, events(["a", "b"]), token="t1") == (2, 2, 0, 0, 0, 0)
        read, accepted, *_ = put(client, events(["c"]), token="t1")
        assert accepted == 0
        assert ids(client) == ["a", "b"]
        assert put(client, events(["c"]), token="t2") == (1, 1, 0, 0, 0, 0)
        assert ids(client) == ["a", "b", "c"]


def test_a_token_is_one_commit(own):
    """A put with a token that is cut short leaves nothing; the retry writes all of it."""
    table = events([f"p{i}" for i in range(3000)])
    with own.rpc() as rpc, own.flight() as client:
        about = descriptor(json.dumps({"v": 1, "stream": "transactions", "token": "cut"}).encode())
        messages = [
            flight_data(*m, about=about if i == 0 else None) for i, m in enumerate(ipc(pa.Table.from_batches(table.to_batches(max_chunksize=500))))
        ]
        cut = flight_data(b"\xff" * 16)
        code, text = rpc.refused("both", "DoPut", messages[:-2] + [cut])
        assert code == grpc.StatusCode.INVALID_ARGUMENT and text
        assert ids(client) == []
        assert put(client, table, token="cut") == (3000, 3000, 0, 0, 0, 0)
        assert len(ids(client)) == 3000


def test_acknowledged_means_durable(copy, tmp_path):
    """Killed at once after the acknowledgement, the next process has every row: in history, in $late and in $rejected."""
    warehouse = copy()
    with Server(warehouse, tmp_path) as first:
        with first.flight() as client:
            assert put(client, events(["a", "b"])) == (2, 2, 0, 0, 0, 0)
            assert put(client, events(["late", "bad"], ts=[LATE - 60 * SECOND, None]), token="t") == (2, 0, 0, 1, 1, 0)
        assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    with Server(warehouse, tmp_path) as second, second.flight() as client:
        assert ids(client) == ["a", "b"]
        assert sql_table(client, 'SELECT txn_id FROM "transactions$late"').column("txn_id").to_pylist() == ["late"]
        assert sql_table(client, 'SELECT * FROM "transactions$rejected"').num_rows == 1
        assert put(client, events(["late again"], at=LATE - 60 * SECOND)) == (1, 0, 0, 1, 0, 0)
        assert put(client, events(["c"]), token="t")[1] == 0
        served = sql_table(client, "SELECT count_ever FROM user_spend FOR ENTITY 'put'").to_pylist()
        assert served == [{"count_ever": 2}]


def test_large(own, expected):
    """Two hundred thousand rows in many batches, all counted and all there."""
    n, size = 200_000, 5_000
    table = events([f"big{i}" for i in range(n)], user="big", amount=[0.1] * n, ts=[LATE + i * datetime.timedelta(milliseconds=1) for i in range(n)])
    with own.flight() as client:
        assert put(client, table, batches=table.to_batches(max_chunksize=size)) == (n, n, 0, 0, 0, 0)
        found = sql_table(client, "SELECT count_ever, spend_ever FROM user_spend FOR ENTITY 'big'").to_pylist()
        assert found == [{"count_ever": n, "spend_ever": float(n * Fraction(0.1))}]


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.cast(pa.schema([f.with_type(pa.large_string()) if pa.types.is_string(f.type) else f for f in t.schema])),
        lambda t: t.cast(pa.schema([f.with_type(pa.string_view()) if pa.types.is_string(f.type) else f for f in t.schema])),
        lambda t: t.set_column(5, "ts", t.column("ts").cast(pa.timestamp("ns", "UTC"))),
        lambda t: t.set_column(5, "ts", t.column("ts").cast(pa.timestamp("us"))),
        lambda t: t.set_column(4, "status", t.column("status").dictionary_encode()),
        lambda t: t.select(t.schema.names[::-1]),
        lambda t: t.drop_columns("status"),
    ],
)
def test_what_clients_make_of_the_types(own, change):
    with own.flight() as client:
        assert put(client, change(events(["a", "b"]))) == (2, 2, 0, 0, 0, 0)
        assert ids(client) == ["a", "b"]


def test_a_column_of_another_type_is_rejected_row_by_row(own):
    """A value that is none of the column's type is kept with its reason; one that is taken."""
    with own.flight() as client:
        table = events(["a", "b"]).set_column(3, "amount", pa.array(["much", "2.5"]))
        read, accepted, duplicate, late, rejected, conflicts = put(client, table)
        assert (read, accepted + rejected, duplicate, late, conflicts) == (2, 2, 0, 0, 0) and rejected >= 1
        kept = sql_table(client, 'SELECT * FROM "transactions$rejected"').to_pylist()
        assert len(kept) == rejected and all("amount" in str(r) for r in kept)
        assert ids(client) == ["b"][:accepted]


# What is wrong is said, with the right code, and stores nothing.

BAD, UNKNOWN = {grpc.StatusCode.INVALID_ARGUMENT}, {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT}


@pytest.mark.parametrize(
    "about, codes, parts",
    [
        (descriptor(path=["transaction"]), UNKNOWN, ['"transaction"', '"transactions"']),
        (descriptor(path=["user_spend"]), UNKNOWN, ["user_spend"]),
        (descriptor(path=["transactions", "more"]), BAD, ["path"]),
        (descriptor(path=[]), BAD, ["descriptor"]),
        (descriptor(b'{"v":1,"stream":"transaction"}'), UNKNOWN, ['"transaction"', '"transactions"']),
        (descriptor(b'{"v":1}'), BAD, ["stream"]),
        (descriptor(b'{"v":2,"stream":"transactions"}'), BAD, ["version", "2"]),
        (descriptor(b'{"v":1,"stream":"transactions","tokn":"x"}'), BAD, ["tokn"]),
        (descriptor(b'{"v":1,"stream":"transactions","token":7}'), BAD, ["token"]),
        (descriptor(b'{"v":1,"stream":"transactions","token":""}'), BAD, ["token"]),
        (descriptor(b"transactions"), BAD, ["neither JSON nor"]),
        (b"", BAD | {grpc.StatusCode.UNIMPLEMENTED}, ["put"]),
    ],
)
def test_bad_descriptor(rpc, about, codes, parts):
    messages = ipc(events(["never"]))
    code, text = rpc.refused("both", "DoPut", [flight_data(*messages[0], about=about), flight_data(*messages[1])])
    assert code in codes, f"{code}: {text}"
    missing = [p for p in parts if p not in text]
    assert not missing, f"{missing} not in: {text}"


@pytest.mark.parametrize(
    "table, parts",
    [
        (events(["never"], user="schema").append_column("more", pa.array([1])), ['"more"']),
        (events(["never"], user="schema").drop_columns("ts"), ["ts"]),
        (events(["never"], user="schema").drop_columns("user_id"), ["user_id"]),
        (events(["never"], user="schema").set_column(5, "ts", pa.array([12])), ["ts"]),
    ],
)
def test_bad_schema(rpc, flight, table, parts):
    messages = ipc(table)
    about = descriptor(b'{"v":1,"stream":"transactions"}')
    code, text = rpc.refused("both", "DoPut", [flight_data(*messages[0], about=about), flight_data(*messages[1])])
    assert code in BAD, f"{code}: {text}"
    missing = [p for p in parts if p not in text]
    assert not missing, f"{missing} not in: {text}"
    assert ids(flight, "txn_id = 'never' AND user_id = 'schema'") == []


def test_broken_ipc(rpc, flight):
    """Every message of a put cut short or changed: refused with a text or taken, and nothing of what was refused with a token is stored."""
    about = descriptor(b'{"v":1,"stream":"transactions","token":"broken"}')
    header, body = ipc(events(["broken"] * 3))[1]
    schema = flight_data(*ipc(events(["broken"]))[0], about=about)
    forms = [
        [flight_data(b"", b"", about=about)],
        [flight_data(b"no flatbuffer", b"", about=about)],
        [schema, flight_data(header[: len(header) // 2], body)],
        [schema, flight_data(header, body[: len(body) // 2])],
        [schema, flight_data(header, b"")],
        [schema, flight_data(b"\xff" * len(header), body)],
        [schema, schema],
        [flight_data(header, body, about=about)],
        [schema, flight_data(bytes(b ^ 0xFF if i == len(header) // 3 else b for i, b in enumerate(header)), body[:64])],
    ]
    # Offsets that point out of the strings, and lengths that are negative.
    for word in (b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff"):
        forms.append([schema, flight_data(header, word * (len(body) // 4))])
    for i, requests in enumerate(forms):
        code, text = rpc.refused("both", "DoPut", requests)
        assert code == grpc.StatusCode.INVALID_ARGUMENT, f"form {i}: {code}: {text}"
        assert text
    assert ids(flight, "txn_id = 'broken'") == []


def test_put_of_nothing(rpc):
    code, text = rpc.refused("both", "DoPut", [])
    assert code == grpc.StatusCode.INVALID_ARGUMENT and text
