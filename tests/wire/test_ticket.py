"""Tickets that the client builds itself: one round trip, both forms, every key type; and what is wrong with one is said."""

import decimal
import json
from concurrent.futures import ThreadPoolExecutor

import grpc
import pyarrow as pa
import pyarrow.flight as fl
import pytest

import world
from server import field, json_ticket, query
from world import EXACT, INSTANTS, LATE, MIDDLE, SHAPES, as_of, literal, sql_time


def view_ticket(view, keys, at=None, **parts):
    columns = {name: [literal(k[i]) for k in keys] for i, name in enumerate(SHAPES[view][0])}
    return json_ticket(views=[view], keys=columns, **({"as_of": as_of(at)} if at else {}), **parts)


@pytest.mark.parametrize("at", INSTANTS)
@pytest.mark.parametrize("strict", [False, True])
def test_every_view_equals_training(flight, expected, at, strict):
    for view, (entity, _) in SHAPES.items():
        keys = [tuple(k) for k in expected.combinations(entity)][:300]
        expected.check(flight.do_get(view_ticket(view, keys, at, strict=strict)).read_all(), view, keys, at, strict)


def test_order_and_duplicates(flight, expected):
    keys = [(u,) for u in ("u9", "u0", "u9", None, "nobody", "u0")]
    expected.check(flight.do_get(view_ticket("user_spend", keys, MIDDLE)).read_all(), "user_spend", keys, MIDDLE)


def test_no_keys(flight):
    table = flight.do_get(view_ticket("user_spend", [], MIDDLE)).read_all()
    assert table.num_rows == 0 and table.schema.names == ["user_id", *world.SPEND]


def test_bigint_as_a_string(flight, expected):
    keys = [(2**53 + 1,), (2**63 - 1,), (-(2**63),)]
    table = flight.do_get(json_ticket(views=["by_n"], keys={"n": [str(k) for (k,) in keys]}, as_of=as_of(LATE))).read_all()
    expected.check(table, "by_n", keys, LATE)


@pytest.mark.parametrize("features", [None, []])
def test_all_features_of_two_views(flight, expected, features):
    keys = [("u1", "m1"), ("u2", None), ("u1", "m1")]
    more = {} if features is None else {"features": features}
    table = flight.do_get(
        json_ticket(
            views=["user_spend", "merchant_risk"],
            keys={"merchant_id": [m for _, m in keys], "user_id": [u for u, _ in keys]},
            as_of=as_of(MIDDLE),
            **more,
        )
    ).read_all()
    assert table.schema.names == ["user_id", "merchant_id", *world.SPEND, "sales", "declined", "rate"]
    assert world.rows(table) == [(u, m, *expected.row("user_spend", [u], MIDDLE), *expected.row("merchant_risk", [m], MIDDLE)) for u, m in keys]


def test_features_in_the_order_asked(flight, expected):
    table = flight.do_get(
        json_ticket(
            views=["user_spend", "merchant_risk"],
            features=["merchant_risk.rate", "spend_1h", "txn_count_1h"],
            keys={"user_id": ["u1", "u7"], "merchant_id": ["m1", "m2"]},
            as_of=as_of(EXACT),
            strict=True,
        )
    ).read_all()
    assert [n.rsplit(".", 1)[-1] for n in table.schema.names] == ["user_id", "merchant_id", "rate", "spend_1h", "txn_count_1h"]
    assert [r[2:] for r in world.rows(table)] == [
        (*expected.row("merchant_risk", [m], EXACT, True, ["rate"]), *expected.row("user_spend", [u], EXACT, True, ["spend_1h", "txn_count_1h"]))
        for u, m in (("u1", "m1"), ("u7", "m2"))
    ]


def test_now(flight, expected):
    """Without an instant: now, when the unbounded windows hold everything and the others nothing."""
    row = flight.do_get(view_ticket("user_spend", [("u1",)])).read_all().to_pylist()[0]
    assert (row["count_ever"],) == expected.row("user_spend", ["u1"], LATE, features=["count_ever"])
    assert row["txn_count_1h"] == 0 and row["last_merchant"] is None


def test_sql(flight, expected):
    for params, key in ((["u1"], "$1"), ([], "'u1'"), (None, "'u1'")):
        parts = {} if params is None else {"params": params}
        table = flight.do_get(json_ticket(sql=f"SELECT * FROM user_spend FOR ENTITY user_id = {key} AS OF {sql_time(MIDDLE)}", **parts)).read_all()
        expected.check(table, "user_spend", [("u1",)], MIDDLE)


def test_sql_parameters_of_every_type(flight, expected):
    for name in world.TYPED:
        for key in world.KEYS[name]:
            # In SQL a string is no number, so a decimal is a JSON number here.
            value = float(key) if isinstance(key, decimal.Decimal) else literal(key)
            table = flight.do_get(
                json_ticket(sql=f"SELECT * FROM by_{name} FOR ENTITY {name} = $1 AS OF {sql_time(LATE)}", params=[value])
            ).read_all()
            expected.check(table, f"by_{name}", [(key,)], LATE)


def test_training_by_ticket(flight, expected):
    sql = (
        f"WITH l (id, user_id, ts) AS (VALUES (1, 'u1', {sql_time(MIDDLE)}), (2, 'u2', {sql_time(EXACT)})) "
        "SELECT l.id, v.spend_ever, v.txn_count_1h FROM l "
        "ASOF JOIN user_spend v MATCH_CONDITION (l.ts >= v.ts) ON l.user_id = v.user_id ORDER BY l.id"
    )
    features = ["spend_ever", "txn_count_1h"]
    assert world.rows(flight.do_get(json_ticket(sql=sql)).read_all()) == [
        (1, *expected.row("user_spend", ["u1"], MIDDLE, features=features)),
        (2, *expected.row("user_spend", ["u2"], EXACT, features=features)),
    ]


# What is wrong is said, with the right code.

BAD, UNKNOWN, BIG = (
    {grpc.StatusCode.INVALID_ARGUMENT},
    {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT},
    {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE},
)
GOOD = {"v": 1, "views": ["user_spend"], "keys": {"user_id": ["u1"]}}


def changed(**parts):
    made = {**GOOD, **parts}
    return json.dumps({k: v for k, v in made.items() if v is not ...}).encode()


@pytest.mark.parametrize(
    "ticket, codes, parts",
    [
        (b"", BAD, ["request"]),
        (b"{", BAD, ["ticket"]),
        (b"no ticket at all", BAD, ["neither JSON nor"]),
        (b"\xff\xfe\x00", BAD, ["neither JSON nor"]),
        (b'{"v":1,"sql":"SELECT \'\xff\'"}', BAD, ["UTF-8"]),
        (changed()[:-9], BAD, ["ticket"]),
        (changed() + b"}", BAD, ["ticket"]),
        (b"{}", BAD, ["v"]),
        (changed(v=2), BAD, ["version", "2"]),
        (changed(v="1"), BAD, ["v"]),
        (changed(v=...), BAD, ["v"]),
        (changed(extra=1), BAD, ["extra"]),
        (changed(sql="SELECT 1"), BAD, ["sql"]),
        (changed(views=...), BAD, ["views"]),
        (changed(views=[]), BAD, ["view"]),
        (changed(views="user_spend"), BAD, ["views"]),
        (
            changed(views=["user_spen"]),
            UNKNOWN,
            ['error[E0201]: unknown feature view "user_spen"', 'The nearest known feature view is "user_spend".', "^"],
        ),
        (changed(views=["transactions"]), UNKNOWN, ["transactions"]),
        (changed(features=["spend_2h"]), UNKNOWN, ['"spend_2h"', "spend_1h"]),
        (changed(features=["merchant_risk.rate"]), UNKNOWN, ["merchant_risk"]),
        (changed(features="spend_1h"), BAD, ["features"]),
        (changed(keys=...), BAD, ["keys"]),
        (changed(keys={}), BAD, ["user_id"]),
        (changed(keys={"user": ["u1"]}), BAD, ['"user"', "user_id"]),
        (changed(keys={"user_id": ["u1"], "merchant_id": ["m1"]}), BAD, ["merchant_id"]),
        (changed(keys={"user_id": "u1"}), BAD, ["user_id"]),
        (changed(keys={"user_id": [42]}), BAD, ["user_id", "string", "number"]),
        (changed(keys={"user_id": [True]}), BAD, ["user_id", "string"]),
        (changed(keys={"user_id": [["u1"]]}), BAD, ["user_id"]),
        (changed(keys={"user_id": [{}]}), BAD, ["user_id"]),
        (changed(views=["by_n"], keys={"n": ["seven"]}), BAD, ["n", "seven"]),
        (changed(views=["by_n"], keys={"n": [True]}), BAD, ["n", "number"]),
        (changed(views=["by_day"], keys={"day": ["2024-02-30"]}), BAD, ["day", "2024-02-30"]),
        (changed(views=["by_day"], keys={"day": [7]}), BAD, ["day"]),
        (changed(views=["by_at"], keys={"at": ["noon"]}), BAD, ["at", "noon"]),
        (changed(views=["by_flag"], keys={"flag": ["yes"]}), BAD, ["flag", "yes"]),
        (
            changed(views=["user_spend", "merchant_risk"], keys={"user_id": ["u1", "u2"], "merchant_id": ["m1"]}),
            BAD,
            ["merchant_id", "another has 2"],
        ),
        (changed(views=["user_spend", "user_spend"]), BAD, ["user_spend"]),
        (changed(as_of="yesterday"), BAD, ["as_of", "yesterday"]),
        (changed(as_of=12), BAD, ["as_of"]),
        (changed(as_of="2024-05-01T00:00:00Z", strict="yes"), BAD, ["strict"]),
        (changed(params=["x"]), BAD, ["params"]),
        (b'{"v":1,"sql":7}', BAD, ["sql"]),
        (b'{"v":1,"sql":"SELECT * FROM user_spend FOR ENTITY $1"}', BAD, ["parameter"]),
        (b'{"v":1,"sql":"SELECT * FROM user_spend FOR ENTITY $1","params":["a","b"]}', BAD, ["parameter"]),
        (b'{"v":1,"sql":"SELECT * FROM user_spend FOR ENTITY $1","params":[{}]}', BAD, ["param"]),
        (b'{"v":1,"sql":"SELECT * FROM user_spend FOR ENTITY $1","params":"u1"}', BAD, ["params"]),
        (b'{"v":1,"sql":"SELECT * FROM user_spend FOR ENTITY $1","params":[7]}', BAD, ["user_id", "string", "^"]),
        (b'{"v":1,"sql":"SELECT *\\nFROM user_spen FOR ENTITY 1"}', UNKNOWN, ["error[E0201]", ":2:6", "^^^^^^^^^", '"user_spend"']),
        (b"[" * 60_000, BAD, ["neither JSON nor"]),
        (b'{"v":1,"views":' + b"[" * 60_000, BAD, ["ticket"]),
        (changed(keys={"user_id": ["u" * 70_000]}), BIG, ["65536"]),
        (b"{" + b" " * 70_000 + b"}", BIG, ["65536"]),
    ],
)
def test_bad_ticket(rpc, ticket, codes, parts):
    code, text = rpc.refused("stream", "DoGet", field(1, ticket))
    assert code in codes, f"{code}: {text}"
    missing = [p for p in parts if p not in text]
    assert not missing, f"{missing} not in: {text}"
    assert len(text) < 10_000, "the request is not echoed whole"


def test_largest_ticket(flight, expected):
    """64 KiB exactly are taken, one byte more is not."""
    for room, fits in ((65_536, True), (65_537, False)):
        ticket = changed(as_of=as_of(LATE))
        padded = ticket[:-1] + b" " * (room - len(ticket)) + b"}"
        assert len(padded) == room
        if fits:
            expected.check(flight.do_get(fl.Ticket(padded)).read_all(), "user_spend", [("u1",)], LATE)
        else:
            with pytest.raises((pa.ArrowException, fl.FlightError), match="65536"):
                flight.do_get(fl.Ticket(padded)).read_all()


def test_forged_flight_sql_tickets(server, flight, rpc):
    """A ticket of GetFlightInfo with any byte changed or cut is answered or refused, never a defect of the server."""
    ticket = flight.get_flight_info(fl.FlightDescriptor.for_command(query("SELECT 1 AS one"))).endpoints[0].ticket.ticket
    refused = 0
    for at in range(len(ticket)):
        for forged in (ticket[:at], ticket[:at] + bytes([ticket[at] ^ 0x55]) + ticket[at + 1 :]):
            try:
                rpc.stream("DoGet", field(1, forged))
            except grpc.RpcError as error:
                refused += 1
                assert error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED), (
                    error.code(),
                    error.details(),
                )
                assert error.details()
    assert refused > len(ticket)


def test_many_at_once(server, expected):
    """The same client answers many tickets, one after the other and several at once."""
    with server.flight() as client:

        def one(i):
            keys = [(f"u{i % 40}",)]
            expected.check(client.do_get(view_ticket("user_spend", keys, MIDDLE)).read_all(), "user_spend", keys, MIDDLE)
            return True

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(one, range(400)))
