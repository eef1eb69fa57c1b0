"""Compares Asof with DuckDB, value by value and bit by bit: AS OF joins between tables, and feature views at the instants of a spine.

    check.py [--seed N] [--rounds N] [--keep DIR]        ASOF_BIN names the binary

DuckDB shares no code with Asof. Where its arithmetic is not exact, the inputs are made so that it is: doubles are small integers over 1024,
so every sum is exact in any order, and no two events have one time, so nothing depends on how ties are broken. Variances, which DuckDB
does not compute exactly on any input, are finished here from DuckDB's integer sums with rationals.

Every feature is written twice, in Asof's SQL and in DuckDB's, in the tables WINDOWS and AGGREGATES below. DuckDB's form is the
definition spelled out: all events up to the instant joined to each label, and a FILTER for what the window holds.
Exits 1 on any difference, and when fewer values were compared than a whole run compares.
"""

import argparse
import datetime
import decimal
import math
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from fractions import Fraction

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

START = datetime.datetime(2024, 1, 20)
DAYS = 140  # over a leap day and four ends of months
MICROSECOND = datetime.timedelta(microseconds=1)
HOUR = datetime.timedelta(hours=1)

# (name, Asof's frame, DuckDB's condition on an event up to the instant t; rn counts the events from the newest)
WINDOWS = [
    ("h1", "RANGE INTERVAL '1 hour' PRECEDING", "ts >= t - INTERVAL 1 HOUR"),
    ("d1", "RANGE INTERVAL '24 hours' PRECEDING", "ts >= t - INTERVAL 24 HOUR"),
    ("d7", "RANGE BETWEEN INTERVAL '7 days' PRECEDING AND CURRENT ROW", "ts >= t - INTERVAL 168 HOUR"),
    ("mo", "RANGE INTERVAL '1 month' PRECEDING", "ts >= t - INTERVAL 1 MONTH"),
    (
        "gap",
        "RANGE BETWEEN INTERVAL '2 days' PRECEDING AND INTERVAL '1 hour' PRECEDING",
        "ts >= t - INTERVAL 48 HOUR AND ts <= t - INTERVAL 1 HOUR",
    ),
    ("ever", "RANGE UNBOUNDED PRECEDING", "true"),
    ("r3", "ROWS 2 PRECEDING", "rn <= 3"),
    ("one_back", "ROWS BETWEEN 1 PRECEDING AND 1 PRECEDING", "rn = 2"),
    ("r7", "ROWS BETWEEN 6 PRECEDING AND 2 PRECEDING", "rn BETWEEN 3 AND 7"),
]

# (name, Asof's function, Asof's FILTER, DuckDB's function where {f} is its FILTER, DuckDB's condition beside the window's)
AGGREGATES = [
    ("count_all", "count(*)", None, "count(id) {f}", None),
    ("count_x", "count(x)", None, "count(x) {f}", None),
    ("count_s", "count(DISTINCT s)", None, "count(DISTINCT s) {f}", None),
    ("count_b", "count(*)", "b", "count(id) {f}", "b"),
    ("sum_x", "sum(x)", None, "sum(x) {f}", None),
    ("sum_n", "sum(n)", None, "CAST(sum(n) {f} AS BIGINT)", None),
    ("sum_d", "sum(d)", None, "sum(d) {f}", None),
    ("sum_r", "sum(r)", None, "sum(r) {f}", None),
    ("sum_x_some", "sum(x)", "n > 0 AND s <> 'b'", "sum(x) {f}", "n > 0 AND s <> 'b'"),
    ("sum_distinct", "sum(DISTINCT n)", None, "CAST(sum(DISTINCT n) {f} AS BIGINT)", None),
    ("avg_x", "avg(x)", None, "avg(x) {f}", None),
    ("avg_n", "avg(n)", None, "avg(n) {f}", None),
    ("avg_distinct", "avg(DISTINCT x)", None, "avg(DISTINCT x) {f}", None),
    ("min_x", "min(x)", None, "min(x) {f}", None),
    ("max_x", "max(x)", None, "max(x) {f}", None),
    ("min_s", "min(s)", None, "min(s) {f}", None),
    ("max_n", "max(n)", "NOT b", "max(n) {f}", "NOT b"),
    ("min_due", "min(due)", None, "min(due) {f}", None),
    ("max_d", "max(d)", None, "max(d) {f}", None),
    ("first_s", "first_value(s)", None, "first(s ORDER BY ts) {f}", None),
    ("last_s", "last_value(s)", None, "last(s ORDER BY ts) {f}", None),
    ("last_x", "last_value(x)", "b", "last(x ORDER BY ts) {f}", "b"),
    ("median_x", "median(x)", None, "quantile_cont(x, 0.5) {f}", None),
    ("median_n", "median(n)", None, "quantile_cont(n, 0.5) {f}", None),
    ("quartile_x", "percentile_cont(x, 0.25)", None, "quantile_cont(x, 0.25) {f}", None),
    ("eighth_n", "percentile_cont(n, 0.875)", None, "quantile_cont(n, 0.875) {f}", None),
    ("array_n", "array_agg(n)", None, "array_agg(n ORDER BY ts) {f}", None),
    ("first_two", "first_n(s, 2)", None, "array_agg(s ORDER BY ts) {f}", None),
    ("last_two", "last_n(x, 2)", None, "array_agg(x ORDER BY ts) {f}", None),
    # DuckDB gives the integers (count, sum, sum of squares) of 1024 x, from which FINISH makes the variance.
    ("var_pop_x", "var_pop(x)", None, "[count(x) {f}, sum(CAST(x * 1024 AS HUGEINT)) {f}, sum(CAST(x * 1024 AS HUGEINT) * CAST(x * 1024 AS HUGEINT)) {f}]", None),
    ("stddev_x", "stddev_samp(x)", None, "[count(x) {f}, sum(CAST(x * 1024 AS HUGEINT)) {f}, sum(CAST(x * 1024 AS HUGEINT) * CAST(x * 1024 AS HUGEINT)) {f}]", None),
]


def variance(parts, sample):
    """The exact variance of x, rounded once, from the count and sums of 1024 x and its square."""
    count, total, squares = (int(part or 0) for part in parts)
    if count < (2 if sample else 1):
        return None
    below = count * (count - 1) if sample else count * count
    return float(Fraction(count * squares - total * total, below * 1024 * 1024))


# What DuckDB's value still needs before it is the feature.
FINISH = {
    "first_two": lambda value: value and value[:2],
    "last_two": lambda value: value and value[-2:],
    "var_pop_x": lambda value: variance(value, False),
    "stddev_x": lambda value: None if variance(value, True) is None else math.sqrt(variance(value, True)),
}


def feature(window, aggregate, over):
    """One feature in both dialects: (name, Asof's expression, DuckDB's expression)."""
    name, ours, our_filter, theirs, their_filter = aggregate
    condition = f"id IS NOT NULL AND ({window[2]})" + (f" AND ({their_filter})" if their_filter else "")
    filtered = f"{ours} FILTER (WHERE {our_filter})" if our_filter else ours
    return f"{window[0]}_{name}", f"{filtered} OVER {window[0]}" if over else filtered, theirs.format(f=f"FILTER (WHERE {condition})")


class View:
    """A feature view in both dialects."""

    def __init__(self, name, entity, body, features, events, keys=("k",), ttl=None):
        self.name, self.entity, self.body, self.features, self.events, self.keys, self.ttl = name, entity, body, features, events, keys, ttl

    def create(self):
        columns = ",\n  ".join(f"{ours} AS {name}" for name, ours, _ in self.features)
        ttl = f", ttl = '{self.ttl} hours'" if self.ttl else ""
        return f"CREATE FEATURE VIEW {self.name} ENTITY ({self.entity}) WITH (look_back = '400 days'{ttl}) AS\nSELECT\n  {columns}\n{self.body};\n"

    def expected(self, spine, strict):
        """DuckDB's query: every feature for every row of `spine` (lid, t, keys), NULL where t is."""
        before = "<" if strict else "<="
        on = " AND ".join(f"l.{key} = e.{key}" for key in self.keys)
        columns = ", ".join(f"CASE WHEN any_value(t) IS NULL THEN NULL ELSE {theirs} END AS {name}" for name, _, theirs in self.features)
        alive = f"t <= newest + INTERVAL {self.ttl} HOUR" if self.ttl else "true"
        return f"""
            WITH joined AS (
              SELECT l.lid, l.t, e.* EXCLUDE (k, k2), max(e.ts) OVER (PARTITION BY l.lid) AS newest,
                     row_number() OVER (PARTITION BY l.lid ORDER BY e.ts DESC) AS rn,
                     lead(e.ts) OVER (PARTITION BY l.lid ORDER BY e.ts) AS next_ts
              FROM {spine} l LEFT JOIN ({self.events}) e ON {on} AND e.ts {before} l.t
            ), breaks AS (
              -- A session ends after an event whose successor, or the instant where there is none, is more than 30 minutes away.
              SELECT *, max(ts) FILTER (WHERE coalesce(next_ts, t) - ts > INTERVAL 30 MINUTE) OVER (PARTITION BY lid) AS broken
              FROM joined
            ), visible AS (
              SELECT * REPLACE (CASE WHEN {alive} THEN id END AS id) FROM breaks
            )
            SELECT lid, {columns} FROM visible GROUP BY lid ORDER BY lid"""


def window_clause(names):
    """Asof's WINDOW clause for the windows of these names."""
    return "WINDOW " + ",\n       ".join(f"{name} AS ({frame})" for name, frame, _ in WINDOWS if name in names)


def make_views():
    by_name = {window[0]: window for window in WINDOWS}
    aggregates = {aggregate[0]: aggregate for aggregate in AGGREGATES}
    some = [aggregates[name] for name in ("count_all", "sum_x", "avg_n", "min_s", "last_x", "count_s", "array_n", "stddev_x")]
    rolling = [feature(window, aggregate, True) for window in WINDOWS for aggregate in AGGREGATES]
    pair = [feature(by_name[name], aggregate, True) for name in ("d1", "ever", "r3") for aggregate in some]
    ticket = (
        "ticket",
        "coalesce(sum(x) OVER d7 / nullif(count(*) OVER d7, 0), 0)",
        "coalesce(sum(x) FILTER (WHERE id IS NOT NULL AND ts >= t - INTERVAL 168 HOUR) / nullif(count(id) FILTER (WHERE ts >= t - INTERVAL 168 HOUR), 0), 0)",
    )
    day = "86400000000"
    tumble = ("tumble", None, f"epoch_us(ts) // {day} = epoch_us(t) // {day} - 1")
    hop_floor = "(epoch_us(t) // 3600000000 * 3600000000)"
    hop = ("hop", None, f"epoch_us(ts) >= {hop_floor} - 21600000000 AND epoch_us(ts) < {hop_floor}")
    session = ("session", None, "broken IS NULL OR ts > broken")
    everything = ("everything", None, "true")
    tumble_start = ("tumble_start", "window_start()", f"(epoch_us(any_value(t)) // {day} - 1) * {day}")
    session_start = ("session_start", "window_start()", "epoch_us(min(ts) FILTER (WHERE id IS NOT NULL AND (broken IS NULL OR ts > broken)))")
    session_end = ("session_end", "window_end()", "epoch_us(max(ts) FILTER (WHERE id IS NOT NULL AND (broken IS NULL OR ts > broken)))")
    enriched = "SELECT e.*, f.rate FROM events e ASOF LEFT JOIN rates f ON e.k2 = f.k2 AND e.ts >= f.ts"
    both = "FROM events SELECT id, k, k2, x, n, s, b, d, r, due, ts UNION ALL FROM events_b SELECT id, k, k2, y, n, s, b, d, r, due, ts"
    latest = [
        (f"latest_{column}", column, f"last({column} ORDER BY ts) FILTER (WHERE id IS NOT NULL)") for column in ("x", "n", "s", "b", "d", "due")
    ]
    worth = [
        (f"{window}_{name}", f"{ours} OVER {window}", f"{theirs} FILTER (WHERE id IS NOT NULL AND ({by_name[window][2]}))")
        for window in ("h1", "d7", "ever", "r3")
        for name, ours, theirs in (
            ("worth", "sum(e.x * f.rate)", "sum(x * rate)"),
            ("rated", "count(f.rate)", "count(rate)"),
            ("rate_last", "last_value(f.rate)", "last(rate ORDER BY ts)"),
            ("rate_max", "max(f.rate)", "max(rate)"),
        )
    ]
    all_windows = window_clause([name for name, _, _ in WINDOWS])
    three, four = window_clause(["d1", "ever", "r3"]), window_clause(["h1", "d7", "ever", "r3"])
    shape = "id, k, k2, {x}, n, s, b, d, r, due, ts"
    union = f"(\n  SELECT {shape.format(x='x')} FROM events\n  UNION ALL\n  SELECT {shape.format(x='y AS x')} FROM events_b\n)"
    asof_join = "FROM events e\nASOF JOIN rates f MATCH_CONDITION (e.ts >= f.ts) ON e.k2 = f.k2\n"
    grouped = {window[0]: [feature(window, aggregate, False) for aggregate in AGGREGATES] for window in (tumble, hop, session, everything)}
    events = "SELECT * FROM events"
    return [
        View("rolling", "k", f"FROM events\n{all_windows}", rolling + [ticket], events),
        View("filtered", "k", f"FROM events\nWHERE n > -200 AND b\n{three}", pair, "SELECT * FROM events WHERE n > -200 AND b"),
        View("mortal", "k", f"FROM events\n{three}", pair, events, ttl=30),
        View("pair", "k, k2", f"FROM events\n{three}", pair, events, keys=("k", "k2")),
        View("united", "k", f"FROM {union}\n{three}", pair, both),
        View("enriched", "k", f"{asof_join}{four}", worth, enriched),
        View("rated", "k", f"{asof_join}WHERE f.rate > 1\n{four}", worth, f"SELECT * FROM ({enriched}) WHERE rate > 1"),
        View("tumbling", "k", "FROM events\nGROUP BY k, TUMBLE(ts, INTERVAL '1 day')", grouped["tumble"] + [tumble_start], events),
        View("hopping", "k", "FROM events\nGROUP BY k, HOP(ts, INTERVAL '1 hour', INTERVAL '6 hours')", grouped["hop"], events),
        View("sessions", "k", "FROM events\nGROUP BY k, SESSION(ts, INTERVAL '30 minutes')", grouped["session"] + [session_start, session_end], events),
        View("total", "k", "FROM events\nGROUP BY k", grouped["everything"], events),
        View("latest", "k", "FROM events", latest, events),
    ]


STREAM_COLUMNS = "id BIGINT, k VARCHAR, k2 INTEGER, {value} DOUBLE, n BIGINT, s VARCHAR, b BOOLEAN, d DECIMAL(12, 3), r REAL, due DATE, ts TIMESTAMP NOT NULL"


class Data:
    """Random inputs in which no two times are equal and every sum is exact."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.used = set()
        events, events_b = self.events(3000, 0, "x"), self.events(1000, 1_000_000, "y")
        rates = [
            {"k2": k2, "rate": None if self.random.random() < 0.05 else self.random.randrange(1, 64) / 16, "ts": self.time()}
            for k2 in range(4)
            for _ in range(40)
        ]
        stamp = pa.timestamp("us")
        types = [("id", pa.int64()), ("k", pa.string()), ("k2", pa.int32()), ("x", pa.float64()), ("n", pa.int64()), ("s", pa.string())]
        types += [("b", pa.bool_()), ("d", pa.decimal128(12, 3)), ("r", pa.float32()), ("due", pa.date32()), ("ts", stamp)]
        types_b = [("y", kind) if name == "x" else (name, kind) for name, kind in types]
        self.tables = {
            "events": pa.Table.from_pylist(events, pa.schema(types)),
            "events_b": pa.Table.from_pylist(events_b, pa.schema(types_b)),
            "rates": pa.Table.from_pylist(rates, pa.schema([("k2", pa.int32()), ("rate", pa.float64()), ("ts", stamp)])),
            "labels": pa.Table.from_pylist(self.labels(events), pa.schema([("lid", pa.int64()), ("k", pa.string()), ("k2", pa.int32()), ("t", stamp)])),
        }

    def time(self, near=None):
        """A time that no event has: anywhere, or within two hours of `near`."""
        while True:
            start, width = (START, DAYS * 24) if near is None else (near, 2)
            at = start + datetime.timedelta(microseconds=self.random.randrange(width * 3_600_000_000))
            # A third of the times are whole seconds, so that edges of windows and of days are met.
            at = at.replace(microsecond=0) if self.random.random() < 0.3 else at
            if at not in self.used:
                self.used.add(at)
                return at

    def maybe(self, value):
        return None if self.random.random() < 0.07 else value

    def events(self, count, first, value):
        rows = []
        while len(rows) < count:
            centre, key = self.time(), self.random.randrange(14)
            for _ in range(self.random.randrange(1, 16)):
                k = key if self.random.random() < 0.8 else self.random.randrange(14)
                at = self.time(centre)
                rows.append(
                    {
                        "id": first + len(rows),
                        "k": self.maybe(f"k{k}"),
                        "k2": self.maybe(self.random.randrange(5)),
                        value: self.maybe(self.random.randrange(-(2**20), 2**20) / 1024),
                        "n": self.maybe(self.random.randrange(-300, 300)),
                        "s": self.maybe(self.random.choice(["", "a", "b", "c", "é", "zz", "Z"])),
                        "b": self.maybe(self.random.random() < 0.6),
                        "d": self.maybe(decimal.Decimal(self.random.randrange(-(10**6), 10**6)).scaleb(-3)),
                        "r": self.maybe(self.random.randrange(-(2**12), 2**12) / 64),
                        "due": self.maybe(at.date()),
                        "ts": at,
                    }
                )
        self.random.shuffle(rows)
        return rows

    def labels(self, events):
        """Instants at random, at events, and at the edges of windows to the microsecond; NULLs, strangers and repeated rows among them."""
        widths = [HOUR, 24 * HOUR, 48 * HOUR, 168 * HOUR, 30 * HOUR, HOUR / 2, 0 * HOUR]
        rows = []
        for _ in range(900):
            event = self.random.choice(events)
            at = event["ts"] + self.random.choice(widths) + self.random.choice([-1, 0, 0, 1]) * MICROSECOND
            if self.random.random() < 0.3:
                at = START + datetime.timedelta(microseconds=self.random.randrange(DAYS * 24 * 3_600_000_000))
            if self.random.random() < 0.05:
                at = at.replace(hour=0, minute=0, second=0, microsecond=0)
            key = event["k"] if self.random.random() < 0.95 else self.random.choice([None, "nobody"])
            rows.append({"k": key, "k2": event["k2"], "t": None if self.random.random() < 0.02 else at})
        rows += self.random.sample(rows, 30)
        return [{"lid": number, **row} for number, row in enumerate(rows)]


class Check:
    """One round: the same inputs to both, all answers compared."""

    def __init__(self, binary, folder, seed):
        self.binary, self.folder, self.seed = binary, folder, seed
        self.values, self.differences = 0, 0
        self.duck = duckdb.connect()
        self.duck.execute("SET TimeZone = 'UTC'")
        self.data = Data(seed)
        for name, table in self.data.tables.items():
            pq.write_table(table, self.path(f"{name}.parquet"))
            self.duck.execute(f"CREATE TABLE {name} AS SELECT * FROM read_parquet('{self.path(f'{name}.parquet')}')")
        # Two COPYs in the wrong order, the second half first.
        half = self.data.tables["events"].num_rows // 2
        pq.write_table(self.data.tables["events"].slice(half), self.path("events_1.parquet"))
        pq.write_table(self.data.tables["events"].slice(0, half), self.path("events_2.parquet"))

    def path(self, name):
        return os.path.join(self.folder, name)

    def asof(self, *arguments):
        done = subprocess.run([self.binary, "sql", "--warehouse", self.path("warehouse"), *arguments], capture_output=True)
        if done.returncode != 0:
            sys.stderr.write(done.stderr.decode(errors="replace"))
            sys.exit(f"asof sql {' '.join(arguments)[:200]} ended with {done.returncode} (seed {self.seed})")
        return done.stdout

    def script(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        self.asof("-f", self.path(name))

    def compare(self, what, names, ours, theirs):
        """Compares rows of values; `theirs` may need finishing."""
        if len(ours) != len(theirs):
            self.differences += 1
            print(f"{what}: {len(ours)} rows, DuckDB has {len(theirs)}")
            return
        for our_row, their_row in zip(ours, theirs):
            for name, our, their in zip(names, our_row, their_row, strict=True):
                finish = next((FINISH[end] for end in FINISH if name.endswith("_" + end)), None)
                their = finish(their) if finish and their is not None else their
                self.values += 1
                if bits(our) != bits(their):
                    self.differences += 1
                    if self.differences <= 20:
                        print(f"{what}: {name} of row {our_row[0]}: {our!r}, DuckDB {their!r}")

    def read(self, name):
        return sorted(rows_of(pq.read_table(self.path(name))), key=lambda row: row[0])

    def joins(self):
        """AS OF joins between tables, in every direction, with one key, two, and none."""
        cases = []
        for number, operator in enumerate([">=", ">", "<=", "<"]):
            for keys in ([], ["k"], ["k", "k2"]):
                cases.append((f"join_{number}_{len(keys)}", "labels", "lid", "t", "events", "ts", operator, keys, ["id", "x", "s", "d"]))
        cases.append(("join_integers", "events", "id", "n", "numbers", "m", ">=", ["k2"], ["m", "word"]))
        cases.append(("join_doubles", "events", "id", "x", "numbers", "v", "<", [], ["m", "v"]))
        numbers = [{"k2": m % 5, "m": m, "v": m / 2 + 0.25, "word": f"w{m}"} for m in range(-250, 250, 3)]
        self.data.random.shuffle(numbers)
        table = pa.Table.from_pylist(numbers, pa.schema([("k2", pa.int32()), ("m", pa.int64()), ("v", pa.float64()), ("word", pa.string())]))
        pq.write_table(table, self.path("numbers.parquet"))
        self.duck.execute(f"CREATE TABLE numbers AS SELECT * FROM read_parquet('{self.path('numbers.parquet')}')")
        text = "".join(
            f"CREATE EXTERNAL TABLE IF NOT EXISTS {name} STORED AS PARQUET LOCATION '{self.path(source)}.parquet';\n"
            for name, source in (("labels", "labels"), ("events_table", "events"), ("numbers", "numbers"))
        )
        for name, left, row, left_at, right, right_at, operator, keys, columns in cases:
            columns_sql = ", ".join(f"r.{column} AS r_{column}" for column in columns)
            on = " ON " + " AND ".join(f"l.{key} = r.{key}" for key in keys) if keys else ""
            tables = {"events": "events_table"}
            text += (
                f"COPY (SELECT l.{row} AS lid, {columns_sql} FROM {tables.get(left, left)} l ASOF JOIN {tables.get(right, right)} r "
                f"MATCH_CONDITION (l.{left_at} {operator} r.{right_at}){on} ORDER BY lid) TO '{self.path(name)}.parquet' (FORMAT parquet);\n"
            )
        self.script("joins.sql", text)
        for name, left, row, left_at, right, right_at, operator, keys, columns in cases:
            on = " AND ".join([f"l.{key} = r.{key}" for key in keys] + [f"l.{left_at} {operator} r.{right_at}"])
            columns_sql = ", ".join(f"r.{column}" for column in columns)
            theirs = self.duck.execute(f"SELECT l.{row}, {columns_sql} FROM {left} l ASOF LEFT JOIN {right} r ON {on} ORDER BY 1").fetchall()
            self.compare(name, ["lid", *columns], self.read(f"{name}.parquet"), theirs)

    def training(self, views):
        """Every view at every label, with `>=` and with `>`; and several views on one spine."""
        text = f"CREATE STREAM events ({STREAM_COLUMNS.format(value='x')}, PRIMARY KEY (id), WATERMARK FOR ts AS ts - INTERVAL '1 minute');\n"
        text += f"CREATE STREAM events_b ({STREAM_COLUMNS.format(value='y')}, WATERMARK FOR ts AS ts - INTERVAL '1 minute');\n"
        text += "CREATE STREAM rates (k2 INTEGER, rate DOUBLE, ts TIMESTAMP NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '1 minute');\n"
        text += f"CREATE EXTERNAL TABLE IF NOT EXISTS labels STORED AS PARQUET LOCATION '{self.path('labels.parquet')}';\n"
        # Half of the history before the views are made, half after; what enriches comes last.
        text += f"COPY events FROM '{self.path('events_1.parquet')}' (FORMAT parquet);\n"
        text += "\n".join(view.create() for view in views)
        text += f"COPY events FROM '{self.path('events_2.parquet')}' (FORMAT parquet);\n"
        text += f"COPY events_b FROM '{self.path('events_b.parquet')}' (FORMAT parquet);\n"
        text += f"COPY rates FROM '{self.path('rates.parquet')}' (FORMAT parquet);\n"
        for view in views:
            for strict, operator in ((False, ">="), (True, ">")):
                names = ", ".join(f"v.{name}" for name, _, _ in view.features)
                on = " AND ".join(f"l.{key} = v.{key}" for key in view.keys)
                text += f"COPY (SELECT l.lid, {names} FROM labels l ASOF JOIN {view.name} v MATCH_CONDITION (l.t {operator} v.ts) ON {on} ORDER BY l.lid)"
                text += f" TO '{self.path(f'{view.name}_{strict}.parquet')}' (FORMAT parquet);\n"
        first, second, third = views[1], views[3], views[9]
        names = ", ".join(f"{view.name}.{name} AS {view.name}_{name}" for view in (first, second, third) for name, _, _ in view.features)
        text += f"COPY (SELECT l.lid, {names} FROM labels l"
        for view in (first, second, third):
            on = " AND ".join(f"l.{key} = {view.name}.{key}" for key in view.keys)
            text += f"\n  ASOF JOIN {view.name} MATCH_CONDITION (l.t >= {view.name}.ts) ON {on}"
        text += f"\n  ORDER BY l.lid) TO '{self.path('several.parquet')}' (FORMAT parquet);\n"
        self.script("training.sql", text)

        answers = {}
        for view in views:
            names = ["lid"] + [name for name, _, _ in view.features]
            for strict in (False, True):
                theirs = self.duck.execute(view.expected("labels", strict)).fetchall()
                answers[view.name, strict] = theirs
                self.compare(f"{view.name} {'>' if strict else '>='}", names, self.read(f"{view.name}_{strict}.parquet"), theirs)
        theirs = [a + b[1:] + c[1:] for a, b, c in zip(*(answers[view.name, False] for view in (first, second, third)))]
        names = ["lid"] + [name for view in (first, second, third) for name, _, _ in view.features]
        self.compare("several views", names, self.read("several.parquet"), theirs)

    def serving(self, views):
        """Every view by FOR ENTITY at a few instants, at and before them."""
        keys = [f"k{number}" for number in range(14)] + ["nobody", "k3"]
        stamps = [row["t"] for row in self.data.tables["labels"].to_pylist() if row["t"] is not None]
        for view in views:
            for strict, word in ((False, "AS OF"), (True, "BEFORE")):
                at = self.data.random.choice(stamps)
                pairs = [(key, number % 5) for number, key in enumerate(keys)]
                spine = ", ".join(f"({lid}, '{key}', {other}, TIMESTAMP '{at}')" for lid, (key, other) in enumerate(pairs))
                names = [name for name, _, _ in view.features]
                if view.keys == ("k",):
                    asked = "k IN (" + ", ".join(f"'{key}'" for key in keys) + ")"
                else:
                    asked = "(k, k2) IN (" + ", ".join(f"('{key}', {other})" for key, other in pairs) + ")"
                query = f"SELECT {', '.join(names)} FROM {view.name} FOR ENTITY {asked} {word} TIMESTAMP '{at}'"
                with pa.ipc.open_stream(self.asof("--format", "arrow", "-c", query)) as reader:
                    ours = rows_of(reader.read_all())
                self.duck.execute(f"CREATE OR REPLACE TEMP TABLE asked AS SELECT * FROM (VALUES {spine}) s(lid, k, k2, t)")
                theirs = [row[1:] for row in self.duck.execute(view.expected("asked", strict)).fetchall()]
                self.compare(f"{view.name} {word} {at}", names, ours, theirs)


def rows_of(table):
    """A table's rows as tuples; timestamps as microseconds since the Unix epoch, UTC."""
    columns = []
    for column in table.columns:
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("us", tz=column.type.tz)).cast(pa.int64())
        columns.append(column.to_pylist())
    return list(zip(*columns))


def bits(value):
    """A value so that equality is equality of type and bits."""
    if isinstance(value, float):
        return ("float", struct.pack("<d", value))
    if isinstance(value, (list, tuple)):
        return ("list", tuple(bits(item) for item in value))
    return (type(value).__name__, str(value))


def main():
    arguments = argparse.ArgumentParser(description="Compares Asof with DuckDB, bit by bit.")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--keep", help="a folder for inputs and scripts, kept")
    arguments = arguments.parse_args()
    binary = os.environ.get("ASOF_BIN")
    if not binary:
        sys.exit("ASOF_BIN names no binary; tests/duckdb/run.sh sets it")

    differences = 0
    for seed in range(arguments.seed, arguments.seed + arguments.rounds):
        folder = os.path.join(arguments.keep, str(seed)) if arguments.keep else tempfile.mkdtemp(prefix="asof-duckdb-")
        folder = os.path.abspath(folder)
        os.makedirs(folder, exist_ok=True)
        check, views = Check(os.path.abspath(binary), folder, seed), make_views()
        check.joins()
        check.training(views)
        check.serving(views)
        print(f"seed {seed}: {check.values} values compared with DuckDB, {check.differences} differ")
        differences += check.differences
        if check.values < 500_000:
            sys.exit(f"only {check.values} values were compared")
        if check.differences:
            print(f"inputs and scripts: {folder}")
        elif not arguments.keep:
            shutil.rmtree(folder)
    sys.exit(1 if differences else 0)


if __name__ == "__main__":
    main()
