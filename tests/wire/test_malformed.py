"""What no well-made client sends. The server refuses it with a code and a text, keeps nothing of it, and other clients do not notice."""

import json
import os
import random
import socket
import threading

import adbc_driver_manager
import grpc
import pyarrow as pa
import pytest

import world
from server import command, descriptor, field, flight_data, ipc, query, silent, until
from test_exchange import answers, opened
from test_ticket import view_ticket
from world import LATE

BAD, BIG = grpc.StatusCode.INVALID_ARGUMENT, {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE}


def served(client, expected):
    """Asserts that a client is served as if nothing were the matter."""
    expected.check(client.do_get(view_ticket("user_spend", [("u1",)], LATE)).read_all(), "user_spend", [("u1",)], LATE)


@pytest.mark.parametrize("handle", [b"", b"no such handle", b"\xff" * 16, b"0"])
def test_unknown_prepared_handle(rpc, handle):
    for name in ("CommandPreparedStatementQuery", "CommandPreparedStatementUpdate"):
        about = descriptor(command(name, field(1, handle)))
        if name.endswith("Query"):
            code, text = rpc.refused("unary", "GetFlightInfo", about)
            assert code == grpc.StatusCode.NOT_FOUND and "prepared statement" in text
        messages = ipc(pa.table({"1": ["u1"]}))
        code, text = rpc.refused("both", "DoPut", [flight_data(*messages[0], about=about), flight_data(*messages[1])])
        assert code == grpc.StatusCode.NOT_FOUND and "prepared statement" in text


def test_unknown_commands(rpc):
    for about in (
        descriptor(b""),
        descriptor(b"\x00"),
        descriptor(b"\xff\xff\xff"),
        descriptor(command("CommandNoSuch")),
        descriptor(field(1, "type.example/what") + field(2, b"x")),
        descriptor(command("CommandStatementQuery", b"\xff\xff")),
        descriptor(command("CommandStatementSubstraitPlan", field(1, b"plan"))),
        descriptor(path=["nowhere"]),
        b"",
        b"\xff",
    ):
        for method in ("GetFlightInfo", "GetSchema"):
            code, text = rpc.refused("unary", method, about)
            assert code in (BAD, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL if about == b"\xff" else BAD), (
                about,
                code,
                text,
            )
            assert text
    for action in ("NoSuchAction", "", "CreatePreparedStatement", "ClosePreparedStatement"):
        code, text = rpc.refused("stream", "DoAction", field(1, action) + field(2, b"\xff\xff"))
        assert code in (BAD, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND), (action, code, text)
        assert text


def test_sql_that_is_not_utf8(rpc):
    code, text = rpc.refused("unary", "GetFlightInfo", descriptor(query(b"SELECT '\xff\xfe'")))
    assert code in (BAD, grpc.StatusCode.INTERNAL) and text


def test_deep_and_long_sql(rpc):
    """Nesting and length have bounds, and what is beyond them is said rather than overflowing a stack."""
    for sql in (
        "SELECT " + "(" * 20_000 + "1" + ")" * 20_000,
        "SELECT " + "-" * 1 + "- 1" * 30_000,
        "SELECT " + "NOT " * 50_000 + "true",
        "SELECT 1" + " + 1" * 50_000,
    ):
        code, text = rpc.refused("unary", "GetFlightInfo", descriptor(query(sql)))
        assert code in BIG, (code, text[:200])
        assert text


def test_parameters_that_do_not_match(server):
    """A batch with too few or too many columns, or of another type; the handle is good for the next batch."""
    with server.adbc() as db, db.cursor() as cursor:
        sql = "SELECT count_ever FROM user_spend FOR ENTITY user_id = ? AS OF " + world.sql_time(LATE)
        for batch, part in (
            (pa.record_batch({"a": ["u1"], "b": ["u2"]}), "parameter"),
            (pa.record_batch([pa.array([1])], names=["a"]), "string"),
            (pa.record_batch([pa.array([[1]])], names=["a"]), "user_id"),
        ):
            with pytest.raises(adbc_driver_manager.Error, match=part):
                cursor.execute(sql, batch)
                cursor.fetch_arrow_table()
        cursor.execute(sql, pa.record_batch({"a": ["u1"]}))
        assert cursor.fetch_arrow_table().num_rows == 1


def many(n):
    return [(world.KEYS["user_id"][i % 44],) for i in range(n)]


def test_a_million_keys_in_one_exchange(own, expected):
    """One batch of a million keys is answered whole or refused by name of the bound; meanwhile and afterwards others are served."""
    batch = pa.record_batch({"user_id": pa.array([f"u{i % 40}" for i in range(1_000_000)])})
    with own.rpc() as rpc, own.flight() as other:
        schema, keys = ipc(pa.Table.from_batches([batch]))
        about = descriptor(json.dumps({"v": 1, "views": ["user_spend"], "features": ["count_ever"], "as_of": world.as_of(LATE)}).encode())
        before = own.memory_mb()
        code, text = rpc.refused("both", "DoExchange", [flight_data(*schema, about=about), flight_data(*keys)])
        assert code in BIG and "limit" in text, (code, text)
        served(other, expected)
        assert own.memory_mb() - before < 400


def test_a_million_keys_in_one_prepared_batch(own, expected):
    keys = [f"u{i % 40}" for i in range(1_000_000)]
    with own.adbc() as db, db.cursor() as cursor, own.flight() as other:
        try:
            cursor.execute("SELECT count_ever FROM user_spend FOR ENTITY user_id = ? AS OF " + world.sql_time(LATE), pa.record_batch({"k": keys}))
            counts = cursor.fetch_arrow_table().column(0).to_pylist()
        except adbc_driver_manager.Error as error:
            assert "1000000" in str(error) and "limit" in str(error), error
        else:
            wanted = [expected.row("user_spend", [f"u{i}"], LATE, features=["count_ever"])[0] for i in range(40)]
            assert counts == wanted * 25_000
        served(other, expected)


def test_a_million_keys_in_sql(own, expected):
    """A text of some megabytes is refused by its size, or by the number of its keys."""
    with own.rpc() as rpc, own.flight() as other:
        sql = "SELECT count_ever FROM user_spend FOR ENTITY user_id IN (" + ",".join(f"'u{i % 40}'" for i in range(1_000_000)) + ")"
        code, text = rpc.refused("unary", "GetFlightInfo", descriptor(query(sql)))
        assert code in BIG and text, (code, text)
        served(other, expected)


def test_silent_clients(own, expected):
    """Connections that say nothing, or begin and say no more: others are served meanwhile, and nothing of them stays when they go."""
    with own.flight() as client:
        served(client, expected)
        base = own.sockets()
        mute = [silent(own.address) for _ in range(150)]
        for connection in mute[:50]:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        for connection in mute[50:60]:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for connection in mute[60:70]:
            connection.sendall(os.urandom(4096))
        started = []
        for _ in range(20):
            rpc = own.rpc()
            for method in ("DoExchange", "DoPut", "Handshake"):
                # The iterator never gives a message and never ends, until the channel is closed.
                waits = Waiting()
                started.append((rpc, waits, rpc.channel.stream_stream(rpc.SERVICE + method)(waits)))
        for _ in range(20):
            served(client, expected)
        for connection in mute:
            connection.close()
        for rpc, waits, call in started:
            call.cancel()
            waits.end()
            rpc.channel.close()
        until(lambda: own.sockets() <= base + 2, "the connections to be given up")
        served(client, expected)


class Waiting:
    """An iterator of requests that has none until it is ended."""

    def __init__(self):
        self.over = threading.Event()

    def __iter__(self):
        return self

    def __next__(self):
        self.over.wait()
        raise StopIteration

    def end(self):
        self.over.set()


def test_sessions_that_break_off(own, expected):
    """Exchanges, puts and reads that their clients drop in the middle leave nothing behind."""
    with own.flight() as client:
        served(client, expected)
        base = own.sockets()
        for _ in range(30):
            with own.rpc() as rpc:
                about = descriptor(json.dumps({"v": 1, "views": ["user_spend"]}).encode())
                schema, keys = ipc(pa.Table.from_batches([world.key_batch("user_spend", many(100))]))
                waits = Waiting()

                def requests():
                    yield flight_data(*schema, about=about)
                    for _ in range(10):
                        yield flight_data(*keys)
                    yield from waits

                call = rpc.channel.stream_stream(rpc.SERVICE + "DoExchange")(requests())
                next(call)
                call.cancel()
                waits.end()
        until(lambda: own.sockets() <= base + 2, "the connections to be given up")
        served(client, expected)


def test_an_exchange_that_errs_in_the_middle(server, expected):
    """Answers given before a broken batch stand; the session ends with the reason; the next one works."""
    with server.rpc() as rpc:
        about = descriptor(json.dumps({"v": 1, "views": ["user_spend"], "as_of": world.as_of(LATE)}).encode())
        schema, keys = ipc(pa.Table.from_batches([world.key_batch("user_spend", many(3))]))
        call = rpc.channel.stream_stream(rpc.SERVICE + "DoExchange")(
            iter([flight_data(*schema, about=about), flight_data(*keys), flight_data(keys[0], keys[1][:5])]), timeout=60
        )
        found = []
        with pytest.raises(grpc.RpcError) as refused:
            for message in call:
                found.append(message)
        assert refused.value.code() == BAD and refused.value.details()
        assert len(found) == 2, "the schema and one answer"
    with server.flight() as client:
        served(client, expected)


def test_random_bytes(own, expected):
    """Two thousand requests of garbage and of almost-right bytes, from one seed: each is answered or refused; nothing stays."""
    rng = random.Random(11)
    good = {
        "DoGet": [field(1, view_ticket("user_spend", [("u1",)]).ticket)],
        "GetFlightInfo": [descriptor(query("SELECT 1"))],
        "DoAction": [field(1, "CreatePreparedStatement") + field(2, command("ActionCreatePreparedStatementRequest", field(1, "SELECT 1")))],
        "DoExchange": [
            flight_data(*m, about=descriptor(b'{"v":1,"views":["user_spend"]}') if i == 0 else None)
            for i, m in enumerate(ipc(pa.table({"user_id": ["u1", None]})))
        ],
        "DoPut": [
            flight_data(*m, about=descriptor(b'{"v":1,"stream":"things","token":"never"}') if i == 0 else None)
            for i, m in enumerate(ipc(pa.table({"n": [1], "ts": [LATE]})))
        ],
    }
    calls = {"DoGet": "stream", "GetFlightInfo": "unary", "DoAction": "stream", "DoExchange": "both", "DoPut": "both"}

    def spoiled(message):
        message = bytearray(message)
        for _ in range(rng.randint(1, 4)):
            how = rng.random()
            at = rng.randrange(len(message)) if message else 0
            if how < 0.5 and message:
                message[at] = rng.randrange(256)
            elif how < 0.7:
                del message[at:]
            elif how < 0.9:
                message[at:at] = rng.randbytes(rng.randint(1, 9))
            else:
                message = bytearray(rng.randbytes(rng.randint(0, 200)))
        return bytes(message)

    outcomes, grown = {}, []
    with own.flight() as other, own.rpc() as rpc:
        for _ in range(2):
            for _ in range(200):
                for method, messages in good.items():
                    sent = [spoiled(m) if rng.random() < 0.7 else m for m in messages]
                    try:
                        getattr(rpc, calls[method])(method, sent if calls[method] == "both" else sent[0], timeout=30)
                        outcome = "answered"
                    except grpc.RpcError as error:
                        outcome = error.code()
                        assert outcome in (BAD, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL, *BIG), (
                            method,
                            sent,
                            error.code(),
                            error.details(),
                        )
                        # INTERNAL is tonic's word for bytes that are no protobuf, and ours for a defect.
                        if outcome == grpc.StatusCode.INTERNAL:
                            assert "decode" in error.details() or "protobuf" in error.details().lower(), (method, sent, error.details())
                    outcomes[method, outcome] = outcomes.get((method, outcome), 0) + 1
            served(other, expected)
            grown.append(own.memory_mb())
    assert all((method, BAD) in outcomes for method in good), outcomes
    assert grown[1] - grown[0] < 50, f"memory went from {grown[0]:.0f} to {grown[1]:.0f} MB"


def test_no_leak(own, expected):
    """Sessions opened and closed leave no socket, and no memory that grows with their number."""

    def session():
        with own.adbc() as db, db.cursor() as cursor:
            cursor.adbc_ingest("spine", pa.table({"x": range(20_000)}), mode="create", temporary=True)
            cursor.execute("SELECT count_ever FROM user_spend FOR ENTITY user_id = ?", ("u1",))
            cursor.fetchall()
        with own.flight() as client:
            writer, reader = opened(client, world.key_batch("user_spend", []).schema, views=["user_spend"])
            writer.write_batch(world.key_batch("user_spend", [("u1",)]))
            writer.done_writing()
            answers(reader)
            writer.close()

    for _ in range(20):
        session()
    base, sockets = own.memory_mb(), own.sockets()
    for _ in range(60):
        session()
    until(lambda: own.sockets() <= sockets + 2, "the connections to be given up")
    # Sixty spines of 20,000 numbers are 10 MB; prepared statements and sessions that stayed would be as much again.
    assert own.memory_mb() - base < 40, f"{own.memory_mb() - base:.0f} MB more after 60 sessions"


def test_half_a_request(own, expected):
    """A connection cut in the middle of a message."""
    with own.flight() as client:
        for _ in range(20):
            connection = silent(own.address)
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\x00\x40\x00\x00")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            connection.close()
        served(client, expected)
