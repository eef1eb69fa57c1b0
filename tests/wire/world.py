"""What the tests serve: streams, views, events from one seed, and the values that the views must have.

The expected values are those of training, computed by `asof sql` in a process of its own before the server starts, so that nothing of the
wire is in them; `check_by_hand` computes some of them once more from the events themselves.
"""

import datetime
import decimal
import json
import math
import random
import struct
from fractions import Fraction

import pyarrow as pa
import pyarrow.parquet as pq

import server

UTC = datetime.timezone.utc
START = datetime.datetime(2024, 5, 1, tzinfo=UTC)
HOUR = datetime.timedelta(hours=1)
EVENTS, USERS, MERCHANTS = 3000, 40, 15
STEP = datetime.timedelta(microseconds=172_800_000_000 // EVENTS)  # two days in all
# After the last event; between events, answered from the online state; exactly at an event; before what the online state holds.
LATE, MIDDLE, EXACT, EARLY = (START + 49 * HOUR, START + 40 * HOUR, START + 1800 * STEP, START + 3 * HOUR)
INSTANTS = [LATE, MIDDLE, EXACT, EARLY]

STREAMS = """
CREATE STREAM transactions (
  txn_id VARCHAR, user_id VARCHAR NOT NULL, merchant_id VARCHAR NOT NULL, amount DOUBLE, status VARCHAR, ts TIMESTAMP NOT NULL,
  PRIMARY KEY (txn_id), WATERMARK FOR ts AS ts - INTERVAL '30 seconds'
);
CREATE STREAM things (
  n BIGINT, small SMALLINT, day DATE, at TIMESTAMP, price DECIMAL(10, 2), flag BOOLEAN, word VARCHAR, x DOUBLE, r REAL, ts TIMESTAMP NOT NULL,
  WATERMARK FOR ts AS ts - INTERVAL '30 seconds'
);
"""

SPEND = [
    "txn_count_1h",
    "spend_1h",
    "ticket_24h",
    "ticket_stddev_24h",
    "largest_24h",
    "merchants_24h",
    "last_merchant",
    "last_three",
    "spend_ever",
    "count_ever",
]
VIEWS = """
CREATE FEATURE VIEW user_spend ENTITY (user_id) WITH (look_back = '1 day') AS
SELECT count(*) OVER hour AS txn_count_1h, sum(amount) OVER hour AS spend_1h, avg(amount) OVER day AS ticket_24h,
       stddev_samp(amount) OVER day AS ticket_stddev_24h, max(amount) OVER day AS largest_24h, count(DISTINCT merchant_id) OVER day AS merchants_24h,
       last_value(merchant_id) OVER day AS last_merchant, last_n(amount, 3) OVER day AS last_three,
       sum(amount) OVER ever AS spend_ever, count(*) OVER ever AS count_ever
FROM transactions
WINDOW hour AS (RANGE INTERVAL '1 hour' PRECEDING), day AS (RANGE INTERVAL '24 hours' PRECEDING), ever AS (RANGE UNBOUNDED PRECEDING);

CREATE FEATURE VIEW merchant_risk ENTITY (merchant_id) WITH (look_back = '1 day') AS
SELECT count(*) OVER day AS sales, count(*) FILTER (WHERE status = 'declined') OVER day AS declined,
       coalesce(CAST(count(*) FILTER (WHERE status = 'declined') OVER day AS DOUBLE) / nullif(count(*) OVER day, 0), 0) AS rate
FROM transactions WINDOW day AS (RANGE INTERVAL '24 hours' PRECEDING);

CREATE FEATURE VIEW user_at_merchant ENTITY (user_id, merchant_id) WITH (look_back = '1 day') AS
SELECT count(*) OVER ever AS visits, sum(amount) OVER ever AS spent, max(ts) OVER ever AS last_visit
FROM transactions WINDOW ever AS (RANGE UNBOUNDED PRECEDING);
"""
# One view for each type that an entity may have.
TYPED = {
    "n": pa.int64(),
    "small": pa.int16(),
    "day": pa.date32(),
    "at": pa.timestamp("us", "UTC"),
    "price": pa.decimal128(10, 2),
    "flag": pa.bool_(),
    "word": pa.string(),
}
VIEWS += "".join(
    f"CREATE FEATURE VIEW by_{key} ENTITY ({key}) WITH (look_back = '1 day') AS "
    "SELECT count(*) OVER w AS seen, sum(x) OVER w AS x_sum, min(r) OVER w AS r_least, max(price) OVER w AS price_most, "
    "last_value(word) OVER w AS word_last, max(day) OVER w AS day_last FROM things WINDOW w AS (RANGE UNBOUNDED PRECEDING);\n"
    for key in TYPED
)
TYPED_FEATURES = ["seen", "x_sum", "r_least", "price_most", "word_last", "day_last"]
# view: (entity columns, features)
SHAPES = {
    "user_spend": (["user_id"], SPEND),
    "merchant_risk": (["merchant_id"], ["sales", "declined", "rate"]),
    "user_at_merchant": (["user_id", "merchant_id"], ["visits", "spent", "last_visit"]),
    **{f"by_{key}": ([key], TYPED_FEATURES) for key in TYPED},
}


def awkward(rng):
    """A DOUBLE whose sums depend on the order unless they are exact."""
    return rng.choice([rng.uniform(0, 1000), rng.uniform(-1, 1) * 10.0 ** rng.randint(-12, 12), 0.1, -0.0, 1e16, 5e-324])


def transactions():
    rng = random.Random(7)
    rows = {name: [] for name in ("txn_id", "user_id", "merchant_id", "amount", "status", "ts")}
    for i in range(EVENTS):
        # The first user is the hottest; the last never comes.
        user = min(int(rng.expovariate(0.12)), USERS - 2)
        values = (
            f"t{i}",
            f"u{user}",
            f"m{rng.randrange(MERCHANTS - 1)}",
            None if rng.random() < 0.02 else awkward(rng),
            rng.choice(["ok", "ok", "declined"]),
            START + i * STEP,
        )
        for name, value in zip(rows, values, strict=True):
            rows[name].append(value)
    rows["amount"][100], rows["amount"][200] = math.nan, math.inf
    return pa.table(rows, schema=TRANSACTIONS)


TRANSACTIONS = pa.schema(
    [
        ("txn_id", pa.string()),
        ("user_id", pa.string()),
        ("merchant_id", pa.string()),
        ("amount", pa.float64()),
        ("status", pa.string()),
        ("ts", pa.timestamp("us", "UTC")),
    ]
)

KEYS = {
    "user_id": [f"u{i}" for i in range(USERS)] + ["nobody", "", "ü\u0000'", None],
    "merchant_id": [f"m{i}" for i in range(MERCHANTS)] + [None],
    "n": [0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1, 77, None],
    "small": [0, 1, -32768, 32767, 9, None],
    "day": [datetime.date(1970, 1, 1), datetime.date(1969, 12, 31), datetime.date(2024, 2, 29), datetime.date(2030, 1, 1), None],
    "at": [
        datetime.datetime(1970, 1, 1, tzinfo=UTC),
        datetime.datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC),
        datetime.datetime(1960, 1, 1, microsecond=1, tzinfo=UTC),
        None,
    ],
    "price": [decimal.Decimal("0.00"), decimal.Decimal("-12.34"), decimal.Decimal("99999999.99"), decimal.Decimal("5.00"), None],
    "flag": [True, False, None],
    "word": ["", "a", "ü", "line\nbreak", "quote'\"", "absent", None],
}


def things():
    rng = random.Random(8)
    columns = {name: [] for name in (*TYPED, "x", "r", "ts")}
    for i in range(600):
        for name, keys in KEYS.items():
            if name in TYPED:
                # The key before NULL is never seen, but of two booleans both are.
                columns[name].append(rng.choice(keys[: -1 if name == "flag" else -2] + [None]))
        columns["x"].append(awkward(rng))
        columns["r"].append(struct.unpack("<f", struct.pack("<f", rng.uniform(-5, 5)))[0])
        columns["ts"].append(START + i * 4 * HOUR / 60)
    return pa.table(columns, schema=pa.schema([*TYPED.items(), ("x", pa.float64()), ("r", pa.float32()), ("ts", pa.timestamp("us", "UTC"))]))


def create(warehouse, folder):
    """Makes the warehouse with all its events, by `asof sql`."""
    pq.write_table(transactions(), folder / "transactions.parquet")
    pq.write_table(things(), folder / "things.parquet")
    load = "".join(f"COPY {name} FROM '{folder}/{name}.parquet' (FORMAT parquet);\n" for name in ("transactions", "things"))
    server.cli(warehouse, STREAMS + VIEWS + load)


def bits(value):
    """A value such that two are equal only if all their bits are."""
    if isinstance(value, float):
        return ("float", struct.pack("<d", value))
    if isinstance(value, (list, tuple)):
        return tuple(bits(v) for v in value)
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, datetime.datetime):
        return ("time", value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC))
    return value


def plain(kind):
    """A type as far as clients can tell: one kind of string, of bytes and of list."""
    if pa.types.is_string_view(kind) or pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_binary_view(kind) or pa.types.is_large_binary(kind):
        return pa.binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(plain(kind.value_type))
    return kind


def rows(table):
    """A table's rows as tuples of bits."""
    columns = [[bits(v) for v in column.to_pylist()] for column in table.columns]
    return list(zip(*columns, strict=True)) if columns else [()] * table.num_rows


def types(table):
    return {f.name: plain(f.type) for f in table.schema}


def same(found, expected):
    """Asserts that two tables are equal: names, types, rows, order and every bit."""
    assert found.schema.names == expected.schema.names
    assert types(found) == types(expected)
    assert found.num_rows == expected.num_rows
    for at, (a, b) in enumerate(zip(rows(found), rows(expected), strict=True)):
        assert a == b, f"row {at}: {a} is not {b}"


class Expected:
    """The value of every view for every key at every instant, `>=` and `>`: training's."""

    def __init__(self, warehouse, folder):
        self.values, self.types = {}, {}
        for view, (entity, features) in SHAPES.items():
            keys = [tuple(k) for k in self.combinations(entity)]
            spine = [(key, at) for at in INSTANTS for key in keys]
            arrays = {name: [key[i] for key, _ in spine] for i, name in enumerate(entity)}
            schema = pa.schema([("id", pa.int64()), *((name, TYPED.get(name, pa.string())) for name in entity), ("ts", pa.timestamp("us", "UTC"))])
            path = folder / f"spine_{view}.parquet"
            pq.write_table(pa.table({"id": range(len(spine)), **arrays, "ts": [at for _, at in spine]}, schema=schema), path)
            for strict in (False, True):
                # NULL = NULL holds nowhere in SQL, so a NULL key's row joins nothing and has the value of the empty set.
                on = " AND ".join(f"l.{name} = v.{name}" for name in entity)
                table = server.cli_table(
                    warehouse,
                    (
                        f"CREATE EXTERNAL TABLE IF NOT EXISTS spine_{view} STORED AS PARQUET LOCATION '{path}';"
                        f"SELECT l.id, {', '.join('v.' + f for f in features)} FROM spine_{view} l "
                        f"ASOF JOIN {view} v MATCH_CONDITION (l.ts {'>' if strict else '>='} v.ts) ON {on} ORDER BY l.id"
                    ),
                )
                assert table.num_rows == len(spine)
                self.types[view] = types(table.drop_columns("id"))
                for row, (key, at) in zip(rows(table), spine, strict=True):
                    self.values[view, key, at, strict] = row[1:]

    @staticmethod
    def combinations(entity):
        if len(entity) == 1:
            return [[k] for k in KEYS[entity[0]]]
        return [[a, b] for a in KEYS[entity[0]] for b in KEYS[entity[1]]]

    def row(self, view, key, at, strict=False, features=None):
        """The features of one key, as bits."""
        found = self.values[view, tuple(key), at, strict]
        if features is None:
            return found
        names = SHAPES[view][1]
        return tuple(found[names.index(f)] for f in features)

    def check(self, table, view, keys, at, strict=False, with_keys=True):
        """Asserts that a table is exactly what a view answers for the keys, in their order, with their entity columns first."""
        entity, features = SHAPES[view]
        named = entity + features if with_keys else features
        assert table.schema.names == named
        kinds = {**{name: TYPED.get(name, pa.string()) for name in entity if with_keys}, **self.types[view]}
        assert types(table) == kinds
        assert table.num_rows == len(keys)
        for key, row in zip(keys, rows(table), strict=True):
            expected = (tuple(bits(k) for k in key) if with_keys else ()) + self.row(view, key, at, strict)
            assert row == expected, f"{view} of {key} at {at}{' (strict)' if strict else ''}: {row} is not {expected}"


def check_by_hand(expected):
    """Some features once more, by their definition: exact sums over the events themselves, rounded once."""
    events = transactions().to_pylist()
    looked = 0
    for at in INSTANTS:
        for strict in (False, True):
            for user in KEYS["user_id"][:USERS]:
                mine = [e for e in events if e["user_id"] == user and (e["ts"] < at or (e["ts"] == at and not strict))]
                hour = [e for e in mine if e["ts"] >= at - HOUR]
                assert expected.row("user_spend", [user], at, strict, ["txn_count_1h", "count_ever"]) == (len(hour), len(mine))
                amounts = [e["amount"] for e in mine if e["amount"] is not None]
                if amounts and all(map(math.isfinite, amounts)):
                    exact = float(sum(map(Fraction, amounts)))
                    assert expected.row("user_spend", [user], at, strict, ["spend_ever"]) == (bits(exact),), (user, at)
                    looked += 1
    assert looked > 100, looked


def literal(value):
    """A value as the ticket's JSON has it: dates, timestamps and decimals as strings."""
    if isinstance(value, datetime.datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, (datetime.date, decimal.Decimal)):
        return str(value)
    return value


def as_of(at):
    return at.isoformat().replace("+00:00", "Z")


def sql_time(at):
    return f"TIMESTAMP '{at.replace(tzinfo=None).isoformat(sep=' ')}'"


def key_batch(view, keys):
    entity = SHAPES[view][0]
    return pa.record_batch([pa.array([k[i] for k in keys], TYPED.get(name, pa.string())) for i, name in enumerate(entity)], names=entity)


def refusal(text):
    """What every refusal of SQL must look like: its code, the line and a caret under it."""
    assert "error[E" in text and " --> " in text and "^" in text, text
    return text


def result(buffer):
    return json.loads(buffer.to_pybytes() if hasattr(buffer, "to_pybytes") else bytes(buffer))
