"""Other formats than plain JSON: times as numbers, nested paths, Avro with its schemas in a registry, and Debezium's envelope."""

import io
import json
import urllib.request

import fastavro
import pytest

import dialect
from broker import until
from oracle import MINUTE, SECOND
from registry import CONTENT
from world import AMOUNT, COLUMNS, STATUS, TIME, USER, Flow, Sent, World, as_json, quoted, sql_time


def flowed(world, server, rows, encode, malformed=()):
    """Sends rows as `encode` writes them, with bytes in between that are none."""
    records = [Sent(encode(r), r) for r in rows]
    for place, data in enumerate(malformed):
        records.insert(place * 7, Sent(data, None))
    world.topic.produce(records)
    world.caught_up(server)
    world.check(server)


def rows_of(seed, count):
    return [s.row for s in Flow(seed, wrong=False).take(count)]


@pytest.mark.parametrize("unit, us", [("s", 1_000_000), ("ms", 1_000), ("us", 1)])
def test_times_as_numbers(world, servers, unit, us):
    server = servers(world.warehouse)
    world.create(server, **{dialect.TIME_UNIT: unit})
    rows = [(*r[:TIME], r[TIME] // us * us) for r in rows_of(61, 200)]

    def encode(row):
        return json.dumps({**dict(zip(COLUMNS, row, strict=True)), "ts": row[TIME] // us}).encode()

    # Text is a time as well; a number that is none is not.
    flowed(world, server, rows, encode, [encode(rows[0]).replace(str(rows[0][TIME] // us).encode(), b"1e300"), as_json(rows[0]) + b"!"])


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_topics(broker, topics, servers, tmp_path, codec):
    world = World(topics(broker, compression_type=codec), tmp_path / "warehouse")
    server = servers(world.warehouse)
    world.create(server)
    flowed(world, server, rows_of(60, 100), as_json)


def test_nested_paths(world, servers):
    server = servers(world.warehouse)
    paths = {**dialect.json_path("user_id", "user.id"), **dialect.json_path("amount", "payment.total.value")}
    world.create(server, **paths)

    def encode(row):
        rest = {c: row[i] for i, c in enumerate(COLUMNS) if i not in (USER, AMOUNT)}
        written = json.loads(as_json(row))["ts"]
        return json.dumps({**rest, "user": {"id": row[USER]}, "payment": {"total": {"value": row[AMOUNT]}}, "ts": written}).encode()

    good = rows_of(62, 200)
    flowed(
        world,
        server,
        good,
        encode,
        [encode(good[0]).replace(b'"user": {', b'"person": {'), encode(good[0]).replace(b'"value"', b'"value": {}, "x"')],
    )


FIRST = {
    "type": "record",
    "name": "payment",
    "fields": [
        {"name": "user_id", "type": "string"},
        {"name": "payment_id", "type": "string"},
        {"name": "amount", "type": ["null", "double"]},
        {"name": "quantity", "type": ["null", "long"]},
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    ],
}
# Columns in another order, one more, and the time in milliseconds.
SECOND_SCHEMA = {
    "type": "record",
    "name": "payment",
    "fields": [
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "status", "type": ["null", "string"], "default": None},
        *FIRST["fields"][:4],
        {"name": "unknown", "type": {"type": "array", "items": "int"}},
    ],
}


def register(registry, subject, schema):
    body = json.dumps({"schema": json.dumps(schema)}).encode()
    request = urllib.request.Request(f"{registry.url}/subjects/{subject}/versions", data=body, headers={"Content-Type": CONTENT})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["id"]


def avro(number, schema, fields):
    """Confluent's frame: a zero, the schema's id, the record."""
    out = io.BytesIO()
    out.write(b"\0" + number.to_bytes(4, "big"))
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), fields)
    return out.getvalue()


def test_avro(world, servers, registry):
    """Two schemas in one topic, each fetched once; what names no schema, or is cut, is rejected."""
    subject = f"{world.topic.name}-value"
    first, second = register(registry, subject, FIRST), register(registry, subject, SECOND_SCHEMA)
    server = servers(world.warehouse)
    world.create(server, **{dialect.FORMAT: "avro", dialect.REGISTRY: registry.url})
    rows = rows_of(63, 300)
    early = [(*r[:STATUS], None, r[TIME]) for r in rows[:150]]
    later = [(*r[:TIME], r[TIME] // 1000 * 1000) for r in rows[150:]]

    def encode(row):
        fields = dict(zip(COLUMNS, row, strict=True))
        if row in early_rows:
            return avro(first, FIRST, fields)
        return avro(second, SECOND_SCHEMA, {**fields, "ts": row[TIME] // 1000, "unknown": [1]})

    early_rows = set(early)
    good = encode(early[0])
    flowed(
        world,
        server,
        early + later,
        encode,
        [b"", b"\0\0\0\0\1", good[:-3], b"\1" + good[1:], b"\0" + (99).to_bytes(4, "big") + good[5:], b"{}"],
    )
    asked = [path for method, path in registry.requests if method == "GET" and path.startswith(f"/schemas/ids/{first}")]
    assert len(asked) == 1, asked


def test_a_registry_that_fails_is_asked_again(world, servers, registry):
    """A registry that does not answer rejects nothing: the stream waits for it."""
    number = register(registry, f"{world.topic.name}-value", FIRST)
    server = servers(world.warehouse)
    world.create(server, **{dialect.FORMAT: "avro", dialect.REGISTRY: registry.url})
    registry.failures = [503, 500, 503]
    rows = [(*r[:STATUS], None, r[TIME]) for r in rows_of(64, 50)]
    flowed(world, server, rows, lambda row: avro(number, FIRST, dict(zip(COLUMNS, row, strict=True))))
    assert not registry.failures


def test_debezium(world, servers):
    """A latest row is what the last change left: a delete leaves nothing. The source's position orders what has one time."""
    server = servers(world.warehouse)
    ddl = """
        user_id VARCHAR NOT NULL, tier VARCHAR, score BIGINT, ts TIMESTAMP NOT NULL,
        PRIMARY KEY (user_id), WATERMARK FOR ts AS ts - INTERVAL '30 seconds'
    """
    server.run(world.stream_sql(ddl, **{dialect.FORMAT: "debezium"}))
    server.run(f"CREATE FEATURE VIEW profile ENTITY (user_id) AS SELECT tier, score FROM {world.name}")
    start = Flow(65).now_us
    position = iter(range(1, 1000))

    def change(op, user, at, before=None, after=None):
        number = next(position)

        def image(fields):
            return fields and {"user_id": user, **fields}

        source = {
            "connector": "postgresql",
            "db": "app",
            "table": "profiles",
            "lsn": number,
            "ts_ms": at // 1000,
            "ts_us": at,
            "ts_ns": at * 1000,
        }
        payload = {"op": op, "before": image(before), "after": image(after), "source": source, "ts_ms": at // 1000 + 5}
        # With and without the schema that the JSON converter may add.
        body = {"schema": {"type": "struct"}, "payload": payload} if number % 2 else payload
        return Sent(json.dumps(body).encode(), (), key=user.encode())

    gold, silver = {"tier": "gold", "score": 7}, {"tier": "silver", "score": None}
    changes = [
        change("r", "ann", start, after=gold),
        change("c", "bob", start, after=silver),
        change("u", "ann", start + MINUTE, before=gold, after=silver),
        # Three changes at one instant: the position decides.
        change("u", "bob", start + MINUTE, before=silver, after=gold),
        change("d", "bob", start + MINUTE, before=gold),
        change("c", "bob", start + MINUTE, after={"tier": "bronze", "score": 1}),
        change("d", "ann", start + 2 * MINUTE, before=silver),
        Sent(json.dumps({"op": "u", "after": {"tier": "x"}}).encode(), None),
        Sent(b'{"payload": {"op": "?"}}', None),
        # The tombstone that follows a delete says nothing new.
        Sent(None, None, key=b"ann"),
    ]
    # The transport gives a record again: it counts once.
    world.topic.produce([*changes[:7], *changes[:7], *changes[7:]])
    ends = world.topic.ends()
    until(lambda: world.offsets() == ends, "the changes in history")
    cases = [
        (start - 1, [("ann", None, None), ("bob", None, None)]),
        (start, [("ann", "gold", 7), ("bob", "silver", None)]),
        (start + MINUTE - SECOND, [("ann", "gold", 7), ("bob", "silver", None)]),
        (start + MINUTE, [("ann", "silver", None), ("bob", "bronze", 1)]),
        (start + 2 * MINUTE, [("ann", None, None), ("bob", "bronze", 1)]),
    ]
    for at, expected in cases:
        found = server.rows(f"SELECT * FROM profile FOR ENTITY user_id IN ({quoted('ann')}, {quoted('bob')}) AS OF {sql_time(at)}")
        assert found == expected, at
