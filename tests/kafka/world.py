"""Payments: a stream over a topic, a view over it, records with everything that can be wrong with them, and the comparison of all there is.

`World.check` is what the tests are about. From the log as Kafka has it the oracle says what must be in history, `$late` and `$rejected`,
and what each question must answer; compared are rows by their coordinates, and values by their bits.
"""

import json
import random
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import pyarrow as pa

import delta
import dialect
import oracle
from broker import until
from oracle import ACCEPTED, DAY, DUPLICATE, HOUR, LATE, MINUTE, REJECTED, SECOND, Feature, View, Window, bits
from server import spine

COLUMNS = ["user_id", "payment_id", "amount", "quantity", "status", "ts"]
USER, PAYMENT, AMOUNT, QUANTITY, STATUS, TIME = range(6)
DISORDER_US = 30 * SECOND

DDL = f"""
    user_id    VARCHAR NOT NULL,
    payment_id VARCHAR,
    amount     DOUBLE,
    quantity   BIGINT,
    status     VARCHAR,
    ts         TIMESTAMP NOT NULL,
    PRIMARY KEY (user_id, payment_id),
    WATERMARK FOR ts AS ts - INTERVAL '{DISORDER_US // SECOND} seconds'
"""

WINDOWS = {"hour": Window(HOUR), "day": Window(DAY), "before": Window(HOUR, 5 * MINUTE), "ever": Window(None)}
WINDOW_SQL = """
WINDOW hour   AS (RANGE INTERVAL '1 hour' PRECEDING),
       day    AS (RANGE INTERVAL '24 hours' PRECEDING),
       before AS (RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND INTERVAL '5 minutes' PRECEDING),
       ever   AS (RANGE UNBOUNDED PRECEDING)
"""


def feature(window, aggregate, column=None, declined=False):
    name = "_".join([aggregate, *([COLUMNS[column]] if column is not None else []), *(["declined"] if declined else []), window])
    return Feature(name, aggregate, column, WINDOWS[window], (lambda r: r[STATUS] == "declined") if declined else None), window, declined


WRITTEN = [
    feature("hour", "count"),
    feature("hour", "sum", AMOUNT),
    feature("hour", "min", AMOUNT),
    feature("hour", "max", AMOUNT),
    feature("hour", "last_value", STATUS),
    feature("before", "count"),
    feature("before", "sum", AMOUNT),
    feature("day", "count", AMOUNT),
    feature("day", "sum", AMOUNT),
    feature("day", "sum", QUANTITY),
    feature("day", "max", QUANTITY),
    feature("day", "count", None, True),
    feature("day", "sum", AMOUNT, True),
    feature("ever", "count"),
    feature("ever", "sum", AMOUNT),
    feature("ever", "last_value", PAYMENT),
]
VIEW = View(USER, [f for f, _, _ in WRITTEN])


def view_sql(name, stream):
    def written(f, window, declined):
        argument = "*" if f.column is None else COLUMNS[f.column]
        filtered = " FILTER (WHERE status = 'declined')" if declined else ""
        return f"{f.aggregate}({argument}){filtered} OVER {window} AS {f.name}"

    return f"CREATE FEATURE VIEW {name} ENTITY (user_id) AS SELECT {', '.join(written(*w) for w in WRITTEN)} FROM {stream} {WINDOW_SQL}"


def quoted(text):
    return "NULL" if text is None else "'" + text.replace("'", "''") + "'"


def instant(us):
    return (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=us)).strftime("%Y-%m-%d %H:%M:%S.%f")


def sql_time(us):
    return f"TIMESTAMP '{instant(us)}'"


def now_us():
    return int(datetime.now(timezone.utc).timestamp() * 1e6)


@dataclass(frozen=True)
class Sent:
    """A record for a topic, and the row that it stands for: None where it must be rejected as it is."""

    value: bytes | None
    row: tuple | None
    partition: int | None = 0
    key: bytes | None = None
    taken_us: int | None = None
    headers: tuple = ()


def as_json(row, seeded=None):
    """A row as JSON, its time in one of the ways in which times are written; what is NULL is null or absent."""
    seeded = seeded or random.Random(0)
    at = datetime(1970, 1, 1) + timedelta(microseconds=row[TIME])
    text = at.strftime("%Y-%m-%dT%H:%M:%S.%f")
    ahead = (at + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S.%f")
    written = seeded.choice([text, text + "Z", text.replace("T", " "), text + "999Z", ahead + "+02:00"])
    fields = {c: row[i] for i, c in enumerate(COLUMNS) if i != TIME and (row[i] is not None or seeded.random() < 0.5)}
    fields["ts"] = written
    names = list(fields)
    seeded.shuffle(names)
    if seeded.random() < 0.1:
        names.insert(0, "unknown")
        fields["unknown"] = {"nested": [1, None, "x"]}
    return json.dumps({n: fields[n] for n in names}, ensure_ascii=seeded.random() < 0.5).encode()


def malformed(row, seeded):
    """Bytes near those of a row that are none: what the decoder or the declaration refuses."""
    good = json.loads(as_json(row))
    text = as_json(row)

    def changed(**fields):
        return json.dumps({**good, **fields}).encode()

    return seeded.choice(
        [
            b"",
            b"no JSON",
            b"[1, 2]",
            b'"text"',
            b"null",
            b"\xff\xfe\x00",
            text[: len(text) // 2],
            text + b"}",
            text.replace(b'"ts"', b'"tz"'),
            b"[" * 100_000,
            None,
            changed(user_id=None),
            changed(payment_id=None),
            changed(ts=None),
            changed(ts="yesterday"),
            changed(ts="2024-02-30T00:00:00Z"),
            changed(ts=row[TIME]),
            changed(amount="much"),
            changed(amount=[1.0]),
            changed(quantity=1.5),
            changed(quantity=2**63),
            changed(user_id=7),
            changed(status={"a": 1}),
        ]
    )


class Flow:
    """Records of some users in the order in which a careless producer sends them: with disorder, copies, conflicts, late ones, malformed
    ones and ones of the future. The seed decides; event times run ahead of `start_us` by `step_us` a record.

    `spread` is the share of copies that go to another partition than the first one; `keyed` leaves the partition to the producer, by the
    user; without `wrong` only disorder is left.
    """

    def __init__(self, seed, partitions=1, users=8, start_us=None, step_us=8 * SECOND, spread=0.0, keyed=False, wrong=True):
        self.seeded = random.Random(seed)
        self.partitions, self.users, self.step_us, self.spread, self.keyed = partitions, users, step_us, spread, keyed
        self.wrong = wrong
        self.now_us = (now_us() - 2 * DAY if start_us is None else start_us) // SECOND * SECOND
        self.number = 0
        self.recent = []

    def amount(self):
        s = self.seeded
        if s.random() < 0.05:
            return None
        return s.choice(
            [round(s.uniform(-50, 500), 2), s.uniform(-1, 1) * 10.0 ** s.randint(-30, 30), s.choice([0.0, -0.0, 0.1, 1e16, -1e16])]
        )

    def fresh(self, late=0):
        s = self.seeded
        self.number += 1
        self.now_us += s.randint(0, 2 * self.step_us)
        at = self.now_us - (late or s.choice([0, 0, s.randint(0, DISORDER_US), DISORDER_US])) + s.choice([0, 0, s.randint(0, 999_999)])
        return (
            f"user-{s.randrange(self.users)}",
            f"payment-{self.number}",
            self.amount(),
            s.choice([None, 0, 1, s.randint(-(2**40), 2**40), 2**62]),
            s.choice(["approved", "declined", None, "é'\"\\"]),
            at,
        )

    def partition_of(self, user):
        return None if self.keyed else hash_of(user) % self.partitions

    def sent(self, row, value, valid=True, partition=None, **rest):
        where = self.partition_of(row[USER]) if partition is None else partition
        return Sent(value, row if valid else None, where, row[USER].encode(), **rest)

    def take(self, count):
        return [self.one() for _ in range(count)]

    def one(self):
        s = self.seeded
        what = s.random() if self.wrong else 1.0
        if what < 0.06 and self.recent:
            row = s.choice(self.recent[-s.choice([3, 3, 50]) :])
            elsewhere = s.randrange(self.partitions) if s.random() < self.spread else None
            return self.sent(row, as_json(row, s), partition=elsewhere)
        if what < 0.09 and self.recent:
            row = list(s.choice(self.recent[-s.choice([3, 3, 50]) :]))
            row[s.choice([AMOUNT, QUANTITY, STATUS])] = None
            return self.sent(tuple(row), as_json(row, s))
        if what < 0.13:
            row = self.fresh()
            return self.sent(row, malformed(row, s), valid=False)
        if what < 0.15:
            # Further ahead of the broker's timestamp than is believed.
            row = self.fresh()
            return self.sent(row, as_json(row, s), taken_us=row[TIME] - 10 * MINUTE - SECOND)
        row = self.fresh(late=s.randint(DISORDER_US + SECOND, 3 * HOUR) if what < 0.19 else 0)
        self.recent = [*self.recent[-200:], row]
        return self.sent(row, as_json(row, s))


def hash_of(text):
    """Some pinned hash."""
    return int.from_bytes(random.Random(text).randbytes(4))


class World:
    """One stream over one topic with its view, in one warehouse, and what the oracle knows of it."""

    def __init__(self, topic, warehouse, files=None, name="payments"):
        self.topic, self.warehouse, self.name, self.view = topic, warehouse, name, f"{name}_spend"
        self.files = files or delta.local()
        path = str(warehouse).removeprefix("s3://")
        self.tables = {k: delta.Table(self.files, f"{path}/{k}/{name}") for k in (dialect.HISTORY, dialect.LATE, dialect.REJECTED)}
        self.oracle = oracle.Stream(COLUMNS, TIME, key=[USER, PAYMENT], disorder_us=DISORDER_US)

    def options(self, **more):
        return {
            dialect.CONNECTOR: "kafka",
            dialect.BROKERS: self.topic.broker.address,
            dialect.TOPIC: self.topic.name,
            dialect.GROUP: f"{self.topic.name}-asof",
            dialect.START: "earliest",
            dialect.FORMAT: "json",
            dialect.COMMIT_ROWS: "200",
            dialect.COMMIT_INTERVAL: "200 milliseconds",
            dialect.SESSION: str(dialect.SESSION_MS),
            dialect.INSTANCE: f"{self.topic.name}-1",
            **more,
        }

    def stream_sql(self, ddl=DDL, **more):
        given = {k: v for k, v in self.options(**more).items() if v is not None}
        return f"CREATE STREAM {self.name} ({ddl}) WITH (" + ", ".join(f'"{k}" = {quoted(v)}' for k, v in given.items()) + ")"

    def create(self, server, **more):
        server.run(self.stream_sql(**more))
        server.run(view_sql(self.view, self.name))

    def pull(self):
        """Tells the oracle what the log has more than before; gives the offsets that follow."""
        for partition, offset, taken_us, sent, value in self.topic.pull():
            self.oracle.feed(oracle.Record(partition, offset, taken_us, sent.row, value))
        return {p: self.oracle.next[p] for p in range(self.topic.partitions)}

    def offsets(self):
        """The next offset of each partition, by the history table itself."""
        found = self.tables[dialect.HISTORY].refresh().transactions()
        found = {a.removeprefix(dialect.OFFSETS): v for a, v in found.items() if a.startswith(dialect.OFFSETS)}
        return {p: v for p, v in ((dialect.partition_number(a), v) for a, v in found.items()) if p is not None}

    def caught_up(self, server=None, seconds=90.0):
        """Waits until history has taken in all that the log has now."""
        ends = {p: o for p, o in self.pull().items() if o}

        def reached():
            if server is not None and server.process.poll() is not None:
                raise AssertionError(f"the server ended with {server.process.returncode}:\n{server.log}")
            found = self.offsets()
            assert all(o <= ends.get(p, 0) for p, o in found.items()), f"history has {found}, the log ends at {ends}"
            # A partition without a record is at its beginning.
            return {p: o for p, o in found.items() if o} == ends

        log = "" if server is None else server.log
        until(reached, lambda: f"history at {self.offsets()} of {ends}; the server says:\n{log}", seconds)

        if server is not None:
            self.settled(server)

    def settled(self, server):
        """Waits until the view counts as many events as it should; the comparison that follows is strict, and waits for nothing."""
        users = self.entities()
        at = max(self.oracle.greatest.values(), default=0) + DAY
        counted = VIEW.features.index(next(f for f in VIEW.features if f.name == "count_ever")) + 1
        asked = f"SELECT user_id, count_ever FROM {self.view} FOR ENTITY user_id IN ({', '.join(map(quoted, users))}) AS OF {sql_time(at)}"
        expected = [(row[0], row[counted]) for row in self.expected(users, at)]
        until(lambda: server.rows(asked) == expected, lambda: f"the view to count {expected}, not {server.rows(asked)}", 30)

    # The comparisons. Each is of all there is, and says what differs.

    def check_stored(self):
        """History, `$late` and `$rejected`, row by row: nothing lost, nothing twice, nothing changed."""
        stored = {kind: table.refresh().rows() for kind, table in self.tables.items()}
        at = {k: [(dialect.partition_number(r[dialect.PARTITION]), r[dialect.OFFSET]) for r in rows] for k, rows in stored.items()}
        for kind, found in at.items():
            twice = {c: n for c, n in Counter(found).items() if n > 1}
            assert not twice, f"{kind}: more than once: {twice}"
        same(set(at[dialect.LATE]), self.oracle.having(LATE), "late")
        same(set(at[dialect.REJECTED]), self.oracle.having(REJECTED), "rejected")
        history = set(at[dialect.HISTORY])
        classes = self.oracle.classes()
        same(history, set().union(*(c & history for c in classes)), "history")
        for copies in classes:
            assert len(copies & history) == 1, f"of the equal records {sorted(copies)} history has {sorted(copies & history)}"
        for kind in (dialect.HISTORY, dialect.LATE):
            for coordinates, row in zip(at[kind], stored[kind], strict=True):
                self.same_row([row[c] for c in COLUMNS], self.oracle.records[coordinates].row, f"{kind} {coordinates}")
        for coordinates, row in zip(at[dialect.REJECTED], stored[dialect.REJECTED], strict=True):
            # A record without a value has no bytes.
            assert (row[dialect.RAW] or b"") == (self.oracle.records[coordinates].raw or b""), f"rejected {coordinates}: {row}"
            assert row[dialect.REASON], f"rejected {coordinates} has no reason"

    def check_counts(self):
        """Conservation, commit by commit and in all."""
        total = Counter()
        for information in self.tables[dialect.HISTORY].refresh().actions("commitInfo"):
            counts = dialect.counts_of(information)
            if counts is not None:
                assert counts["read"] == counts["accepted"] + counts["duplicate"] + counts["late"] + counts["rejected"], counts
                total.update(counts)
        expected = self.oracle.counts()
        expected["read"] = sum(expected.values())
        kinds = ("read", ACCEPTED, DUPLICATE, LATE, REJECTED)
        assert {k: total[k] for k in kinds} == {k: expected[k] for k in kinds}

    def check_table(self, server):
        """`SELECT * FROM stream`: the accepted events, of a conflict the greatest."""
        # Many small commits are many small batches over two endpoints, which the ADBC driver reads at once, with a short queue for each.
        found = Counter(tuple(map(bits, r)) for r in server.rows(f"SELECT {', '.join(COLUMNS)} FROM {self.name}"))
        same_counts(found, Counter(tuple(map(bits, r)) for r in self.oracle.visible()), f"SELECT FROM {self.name}")

    def instants(self):
        """Instants that the online state answers: at the edges of windows, and at events."""
        greatest = max(self.oracle.greatest.values())
        return [greatest - DISORDER_US, greatest, greatest + 1, greatest + 20 * MINUTE, greatest + HOUR, greatest + DAY]

    def entities(self):
        return sorted({r[USER] for r in self.oracle.visible()}) + ["nobody"]

    def expected(self, users, at, strict=False):
        rows = VIEW.of(self.oracle.visible())
        return [(u, *map(bits, VIEW.values(self.oracle, rows[u], at, strict))) for u in users]

    def check_served(self, server, users=None, instants=None):
        """FOR ENTITY, with AS OF and BEFORE."""
        users = self.entities() if users is None else users
        names = ", ".join(map(quoted, users))
        for at in self.instants() if instants is None else instants:
            for word, strict in (("AS OF", False), ("BEFORE", True)):
                found = server.rows(f"SELECT * FROM {self.view} FOR ENTITY user_id IN ({names}) {word} {sql_time(at)}")
                self.same_values(found, self.expected(users, at, strict), f"FOR ENTITY {word} {instant(at)}")

    def check_trained(self, server, instants=None):
        """Training over the same entities and instants, by both matches."""
        instants = [*self.instants(), min(r[TIME] for r in self.oracle.visible()) + HOUR] if instants is None else instants
        users = self.entities()
        labels = [(i, u, at) for i, (u, at) in enumerate((u, at) for at in instants for u in users)]
        table = spine([("id", pa.int64()), ("user_id", pa.string()), ("ts", pa.timestamp("us"))], labels)
        for match, strict in ((">=", False), (">", True)):
            features = ", ".join(f"v.{f.name}" for f in VIEW.features)
            join = f"ASOF JOIN {self.view} v MATCH_CONDITION (l.ts {match} v.ts) ON l.user_id = v.user_id"
            found = server.rows(f"SELECT l.id, l.user_id, {features} FROM labels l {join}", {"labels": table})
            assert sorted(r[0] for r in found) == list(range(len(labels))), "each label comes out once"
            expected = [row for at in instants for row in self.expected(users, at, strict)]
            self.same_values([r[1:] for r in sorted(found)], expected, f"training with {match}")

    def check(self, server):
        self.check_stored()
        self.check_counts()
        self.check_table(server)
        self.check_served(server)
        self.check_trained(server)

    def same_row(self, found, expected, what):
        assert tuple(map(bits, found)) == tuple(map(bits, expected)), f"{what}: {found} instead of {expected}"

    def same_values(self, found, expected, what):
        assert len(found) == len(expected), what
        names = ["user_id", *(f.name for f in VIEW.features)]
        for row, wanted in zip(found, expected, strict=True):
            for name, value, want in zip(names, row, wanted, strict=True):
                assert bits(value) == want, f"{what}: {name} of {row[0]} is {value!r}, not {want!r}"


def same(found, expected, what):
    assert found == expected, f"{what}: missing {sorted(expected - found)[:10]}, too much {sorted(found - expected)[:10]}"


def same_counts(found, expected, what):
    assert found == expected, f"{what}: missing {list((expected - found).items())[:5]}, too much {list((found - expected).items())[:5]}"
