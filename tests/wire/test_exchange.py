"""DoExchange: a session that takes batches of keys and gives one batch of features for each, in the same order."""

import json
import random
import threading

import grpc
import pyarrow as pa
import pyarrow.flight as fl
import pytest

import world
from server import descriptor, flight_data, ipc
from test_ticket import view_ticket
from world import EXACT, INSTANTS, LATE, MIDDLE, SHAPES, as_of, key_batch


def opened(client, schema, at=None, **parts):
    about = fl.FlightDescriptor.for_command(json.dumps({"v": 1, **({"as_of": as_of(at)} if at else {}), **parts}).encode())
    writer, reader = client.do_exchange(about)
    writer.begin(schema)
    return writer, reader


def answers(reader):
    """All answers, as (table, metadata)."""
    out = []
    while True:
        try:
            chunk = reader.read_chunk()
        except StopIteration:
            return out
        out.append((pa.Table.from_batches([chunk.data]), chunk.app_metadata and chunk.app_metadata.to_pybytes()))


def exchange(client, view, batches, at, **parts):
    writer, reader = opened(client, batches[0].schema, at, views=[view], **parts)
    for batch in batches:
        writer.write_batch(batch)
    writer.done_writing()
    found = [table for table, _ in answers(reader)]
    writer.close()
    return found


@pytest.mark.parametrize("at", INSTANTS)
@pytest.mark.parametrize("strict", [False, True])
def test_every_view_equals_training(flight, expected, at, strict):
    for view, (entity, _) in SHAPES.items():
        keys = [tuple(k) for k in expected.combinations(entity)]
        parts = [keys[:1], keys[1:], [], keys[:3] * 2]
        found = exchange(flight, view, [key_batch(view, p) for p in parts], at, strict=strict)
        assert len(found) == len(parts)
        for part, table in zip(parts, found, strict=True):
            expected.check(table, view, part, at, strict, with_keys=False)


def test_with_keys(flight, expected):
    keys = [("u1", "m1"), (None, "m2"), ("u1", "m1")]
    for wanted in (True, False):
        table = exchange(flight, "user_at_merchant", [key_batch("user_at_merchant", keys)], MIDDLE, with_keys=wanted)[0]
        expected.check(table, "user_at_merchant", keys, MIDDLE, with_keys=wanted)


def test_entity_columns_in_any_order(flight, expected):
    keys = [("u1", "m1"), ("u2", "m3")]
    batch = key_batch("user_at_merchant", keys).select(["merchant_id", "user_id"])
    table = exchange(flight, "user_at_merchant", [batch], MIDDLE, with_keys=True)[0]
    expected.check(table, "user_at_merchant", keys, MIDDLE)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_every_kind_of_string(flight, expected, kind):
    keys = [("u1",), (None,), ("a name longer than twelve bytes",)]
    batch = pa.record_batch({"user_id": pa.array([k for (k,) in keys], pa.string()).cast(kind)})
    table = exchange(flight, "user_spend", [batch], LATE)[0]
    assert world.rows(table)[:2] == [expected.row("user_spend", k, LATE) for k in keys[:2]]
    assert table.column("count_ever").to_pylist()[2] == 0


@pytest.mark.parametrize("kind", [pa.int8(), pa.int32(), pa.uint16()])
def test_narrower_numbers(flight, expected, kind):
    batch = pa.record_batch({"n": pa.array([0, 1, None], kind)})
    expected.check(exchange(flight, "by_n", [batch], LATE)[0], "by_n", [(0,), (1,), (None,)], LATE, with_keys=False)


def test_numbers_that_no_key_can_be(flight, expected):
    """They come back as NULL, beside the values of no entity: never as the key that they would be cut to."""
    batch = pa.record_batch({"n": pa.array([1.0, 1.5, None, 1e300], pa.float64())})
    table = exchange(flight, "by_n", [batch], LATE, with_keys=True)[0]
    expected.check(table, "by_n", [(1,), (None,), (None,), (None,)], LATE)


def test_list_of_features(flight, expected):
    schema = pa.schema([("user_id", pa.string()), ("merchant_id", pa.string())])
    writer, reader = opened(flight, schema, EXACT, views=["user_spend", "merchant_risk"], features=["rate", "user_spend.spend_1h"], strict=True)
    writer.write_batch(pa.record_batch([["u1", "u2"], ["m1", "m2"]], schema=schema))
    writer.done_writing()
    ((table, _),) = answers(reader)
    assert world.rows(table) == [
        (*expected.row("merchant_risk", [m], EXACT, True, ["rate"]), *expected.row("user_spend", [u], EXACT, True, ["spend_1h"]))
        for u, m in (("u1", "m1"), ("u2", "m2"))
    ]
    writer.close()


def test_by_path(flight, expected):
    writer, reader = flight.do_exchange(fl.FlightDescriptor.for_path("user_spend"))
    batch = key_batch("user_spend", [("u1",), ("u2",)])
    writer.begin(batch.schema)
    writer.write_batch(batch)
    writer.done_writing()
    ((table, _),) = answers(reader)
    assert table.schema.names == world.SPEND
    assert table.column("count_ever").to_pylist() == [expected.row("user_spend", [u], LATE, features=["count_ever"])[0] for u in ("u1", "u2")]
    writer.close()


def test_schema_comes_before_any_key(flight):
    schema = key_batch("user_spend", []).schema
    writer, reader = opened(flight, schema, MIDDLE, views=["user_spend"])
    found = {}
    thread = threading.Thread(target=lambda: found.update(schema=reader.schema), daemon=True)
    thread.start()
    thread.join(20)
    assert found and found["schema"].names == world.SPEND
    writer.done_writing()
    assert answers(reader) == []
    writer.close()


def test_each_answer_before_the_next_request(flight, expected):
    """A session is a conversation: an answer comes without a further request, and bears its request's metadata."""
    writer, reader = opened(flight, key_batch("user_spend", []).schema, MIDDLE, views=["user_spend"])
    for i in range(50):
        key = (f"u{i % 40}",)
        writer.write_with_metadata(key_batch("user_spend", [key]), f"request {i}".encode())
        chunk = reader.read_chunk()
        assert chunk.app_metadata.to_pybytes() == f"request {i}".encode()
        expected.check(pa.Table.from_batches([chunk.data]), "user_spend", [key], MIDDLE, with_keys=False)
    writer.done_writing()
    assert answers(reader) == []
    writer.close()


@pytest.mark.parametrize("sessions", [1, 4])
def test_pipelined(server, expected, sessions):
    """Thousands of requests on their way at once: every answer in its place, with its request's metadata."""
    failures = []

    def session(seed):
        try:
            rng = random.Random(seed)
            batches = [[(rng.choice(world.KEYS["user_id"]),) for _ in range(rng.choice([1, 1, 1, 0, 17, 100]))] for _ in range(1500)]
            with server.flight() as client:
                writer, reader = opened(client, key_batch("user_spend", []).schema, MIDDLE, views=["user_spend"])

                def write():
                    for i, keys in enumerate(batches):
                        writer.write_with_metadata(key_batch("user_spend", keys), f"{seed} {i}".encode())
                    writer.done_writing()

                thread = threading.Thread(target=write, daemon=True)
                thread.start()
                found = answers(reader)
                thread.join(60)
                writer.close()
            assert [m for _, m in found] == [f"{seed} {i}".encode() for i in range(len(batches))]
            for keys, (table, _) in list(zip(batches, found, strict=True)):
                assert [(v,) for v in table.column("count_ever").to_pylist()] == [
                    expected.row("user_spend", k, MIDDLE, features=["count_ever"]) for k in keys
                ]
            for keys, (table, _) in rng.sample(list(zip(batches, found, strict=True)), 60):
                expected.check(table, "user_spend", keys, MIDDLE, with_keys=False)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=session, args=(seed,), daemon=True) for seed in range(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


def test_a_reader_that_lags_holds_the_writer_back(own):
    """Back-pressure both ways: who sends keys and reads no answer is stopped, and the server's memory stays."""
    batches, room = 300, 100
    # A megabyte of keys each, that come back with the answer.
    batch = pa.record_batch({"merchant_id": [f"{i:01000}" for i in range(1000)]})
    with own.flight() as client:
        writer, reader = opened(client, batch.schema, MIDDLE, views=["merchant_risk"], features=["sales"], with_keys=True)
        writer.write_batch(batch)
        reader.read_chunk()
        before, sent = own.memory_mb(), []

        def write():
            for _ in range(batches):
                writer.write_batch(batch)
                sent.append(1)
            writer.done_writing()

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        # Held back, the writer stands still and so does the server.
        while not (own.idle(window=1.0) and len(sent) > 0):
            assert own.memory_mb() - before < room, "answers that nobody reads are kept"
        assert thread.is_alive() and len(sent) < batches, "the writer was never held back"
        assert own.memory_mb() - before < room
        with own.flight() as other:
            assert other.do_get(view_ticket("user_spend", [("u1",)])).read_all().num_rows == 1
        found = answers(reader)
        thread.join(60)
        assert len(found) == batches and all(
            table.column("merchant_id").to_pylist() == batch.column(0).to_pylist() for table, _ in found[:: batches // 10]
        )
        writer.close()


def test_a_write_is_seen_by_the_next_request(own):
    with own.flight() as client, own.adbc() as db, db.cursor() as cursor:
        writer, reader = opened(client, key_batch("user_spend", []).schema, views=["user_spend"], features=["count_ever"])
        for i in range(1, 6):
            cursor.execute("INSERT INTO transactions VALUES (?, 'newcomer', 'm1', 1.0, 'ok', ?)", (f"w{i}", LATE))
            writer.write_batch(key_batch("user_spend", [("newcomer",)]))
            assert reader.read_chunk().data.to_pydict() == {"count_ever": [i]}
        writer.done_writing()
        writer.close()


# What is wrong is said, with the right code.

BAD, UNKNOWN = {grpc.StatusCode.INVALID_ARGUMENT}, {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT}


def refused(rpc, cmd=None, path=None, table=None):
    messages = ipc(table if table is not None else pa.table({"user_id": ["u1"]}))
    about = descriptor(cmd=json.dumps(cmd).encode() if isinstance(cmd, dict) else cmd, path=path)
    requests = [flight_data(*messages[0], about=about), *(flight_data(*m) for m in messages[1:])]
    return rpc.refused("both", "DoExchange", requests)


@pytest.mark.parametrize(
    "cmd, codes, parts",
    [
        (b"", BAD, ["descriptor"]),
        (b"user_spend", BAD, ["descriptor"]),
        (b'{"v":1,"views":["user_spend"', BAD, ["descriptor"]),
        ({"v": 3, "views": ["user_spend"]}, BAD, ["version", "3"]),
        ({"v": 1, "views": ["user_spend"], "keys": {"user_id": []}}, BAD, ["keys"]),
        ({"v": 1, "views": ["user_spend"], "sql": "SELECT 1"}, BAD, ["sql"]),
        ({"v": 1}, BAD, ["views"]),
        ({"v": 1, "views": []}, BAD, ["view"]),
        (
            {"v": 1, "views": ["user_spen"]},
            UNKNOWN,
            ['unknown feature view "user_spen"', 'The nearest known feature view is "user_spend".', "error[E0201]", "^"],
        ),
        ({"v": 1, "views": ["user_spend"], "features": ["spend_1hh"]}, UNKNOWN, ['"spend_1hh"', "spend_1h"]),
        ({"v": 1, "views": ["user_spend"], "as_of": "never"}, BAD, ["as_of", "never"]),
        ({"v": 1, "views": ["user_spend"], "with_keys": 1}, BAD, ["with_keys"]),
        ({"v": 1, "views": ["user_spend"], "strict": None, "as_of": []}, BAD, ["as_of"]),
    ],
)
def test_bad_descriptor(rpc, cmd, codes, parts):
    code, text = refused(rpc, cmd)
    assert code in codes, f"{code}: {text}"
    missing = [p for p in parts if p not in text]
    assert not missing, f"{missing} not in: {text}"


def test_unknown_view_by_path(rpc):
    code, text = refused(rpc, path=["user_spen"])
    assert code in UNKNOWN and '"user_spend"' in text
    code, text = refused(rpc, path=["user_spend", "more"])
    assert code in BAD and text
    code, text = refused(rpc, path=[])
    assert code in BAD and text


def test_oversized_descriptor(rpc):
    code, text = refused(rpc, {"v": 1, "views": ["u" * 70_000]})
    assert code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE} and "65536" in text


@pytest.mark.parametrize(
    "table, parts",
    [
        (pa.table({"user": ["u1"]}), ["user_id"]),
        (pa.table({"user_id": ["u1"], "more": [1]}), ["more"]),
        (pa.table({"user_id": [1]}), ["user_id", "string"]),
        (pa.table({"user_id": [b"u1"]}), ["user_id"]),
        (pa.table({"user_id": [["u1"]]}), ["user_id"]),
        (pa.table({"user_id": [1.5]}), ["user_id"]),
        (pa.table([pa.array(["u1"]), pa.array(["u1"])], names=["user_id", "user_id"]), ["user_id"]),
    ],
)
def test_bad_key_schema(rpc, table, parts):
    code, text = refused(rpc, {"v": 1, "views": ["user_spend"]}, table=table)
    assert code == grpc.StatusCode.INVALID_ARGUMENT, f"{code}: {text}"
    missing = [p for p in parts if p not in text]
    assert not missing, f"{missing} not in: {text}"


def test_number_against_a_number_key_that_is_wrong(rpc):
    for table in (pa.table({"n": ["seven"]}), pa.table({"n": [True]})):
        code, text = refused(rpc, {"v": 1, "views": ["by_n"]}, table=table)
        assert code == grpc.StatusCode.INVALID_ARGUMENT and '"n"' in text
