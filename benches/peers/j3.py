"""The offline jobs of a peer: one peer, one job, one process; prints one JSON line.

  j3.py PEER JOB EVENTS LABELS          (data from $ASOF_BENCH/data, default ~/.cache/asof-bench/data; see gen.py)

asof   for each label the user's latest event at or before the label, none if older than 7 days
       -> label_id, event_id, amount, merchant_id, status, event ts
roll   for each label, over the user's events in [ts-W, ts] for W = 1h, 24h, 7d:
       count, sum, avg, min, max, stddev(sample) of amount and count distinct merchant (21 features)
PEER   duckdb polars; a suffix picks another plan of the same job (duckdb.join, polars.join, polars.nodistinct).
Timed: Parquet files -> result in memory as Arrow (or the peer's own frame). Check sums are outside the timing
and must agree between peers.
"""
import json, os, sys, time

peer, job, n_ev, n_lb = sys.argv[1:5]
D = os.path.join(os.environ.get("ASOF_BENCH", os.path.expanduser("~/.cache/asof-bench")), "data")
EV, LB = f"{D}/events_{n_ev}.parquet", f"{D}/labels_{n_lb}.parquet"
HOURS = {"1h": 1, "24h": 24, "7d": 168}

# ---------------------------------------------------------------- SQL shared by the SQL engines
UNION = """SELECT user_id, ts, merchant_id, amount, CAST(NULL AS BIGINT) AS label_id FROM {ev}
           UNION ALL SELECT user_id, ts, NULL, NULL, label_id FROM {lb}"""


def aggs(w, over, std="stddev_samp", cols=("amount", "merchant_id")):
    a, m = cols
    return (f"count({a}) {over} cnt_{w}, sum({a}) {over} sum_{w}, avg({a}) {over} avg_{w}, min({a}) {over} min_{w}, "
            f"max({a}) {over} max_{w}, {std}({a}) {over} std_{w}, count(DISTINCT {m}) {over} dm_{w}")


def roll_window(ev, lb, interval="INTERVAL '{h} hours'"):
    feats = ", ".join(aggs(w, f"OVER w{w}") for w in HOURS)
    wins = ", ".join(f"w{w} AS (PARTITION BY user_id ORDER BY ts RANGE BETWEEN {interval.format(h=h)} PRECEDING "
                     f"AND CURRENT ROW)" for w, h in HOURS.items())
    return (f"SELECT * FROM (SELECT label_id, {feats} FROM ({UNION.format(ev=ev, lb=lb)}) u WINDOW {wins}) x "
            "WHERE label_id IS NOT NULL")


def roll_join(ev, lb):
    feats = ", ".join(aggs(w, f"FILTER (WHERE e.ts >= l.ts - INTERVAL {h} HOUR)", cols=("e.amount", "e.merchant_id"))
                      for w, h in HOURS.items())
    return (f"SELECT l.label_id, {feats} FROM {lb} l LEFT JOIN {ev} e ON l.user_id = e.user_id AND e.ts <= l.ts "
            f"AND e.ts >= l.ts - INTERVAL 168 HOUR GROUP BY l.label_id")


# ---------------------------------------------------------------- peers
def duckdb_(plan):
    import duckdb
    ev, lb = f"'{EV}'", f"'{LB}'"
    if job == "asof":
        q = f"""SELECT l.label_id, CASE WHEN ok THEN event_id END event_id, CASE WHEN ok THEN amount END amount,
                CASE WHEN ok THEN merchant_id END merchant_id, CASE WHEN ok THEN status END status,
                CASE WHEN ok THEN ets END ets FROM (
                  SELECT l.label_id, e.event_id, e.amount, e.merchant_id, e.status, e.ts ets,
                         e.ts >= l.ts - INTERVAL 7 DAY ok
                  FROM {lb} l ASOF LEFT JOIN {ev} e ON l.user_id = e.user_id AND l.ts >= e.ts) l"""
    else:
        q = roll_join(ev, lb) if plan == "join" else roll_window(ev, lb)
    return duckdb.sql(q).to_arrow_table()


def polars_(plan):
    import polars as pl
    ev, lb = pl.scan_parquet(EV), pl.scan_parquet(LB)
    if job == "asof":
        r = ev.with_columns(ets=pl.col("ts")).select("user_id", "ts", "event_id", "amount", "merchant_id", "status", "ets")
        return (lb.select("label_id", "user_id", "ts").sort("ts")
                .join_asof(r.sort("ts"), on="ts", by="user_id", tolerance="7d", strategy="backward")
                .drop("ts", "user_id").collect().to_arrow())
    u = pl.concat([ev.select("user_id", "ts", "merchant_id", "amount", label_id=pl.lit(None, pl.Int64)),
                   lb.select("user_id", "ts", merchant_id=pl.lit(None, pl.String), amount=pl.lit(None, pl.Float64),
                             label_id="label_id")]).sort("user_id", "ts")
    if plan == "nodistinct":  # incremental rolling expressions; there is none for count distinct
        k = pl.col("amount").is_not_null().cast(pl.Int64)
        a, f = pl.col("amount"), []
        for w in HOURS:
            o = dict(window_size=w, closed="both")
            f += [k.rolling_sum_by("ts", **o).over("user_id").alias(f"cnt_{w}")]
            f += [getattr(a, f"rolling_{m}_by")("ts", **o).over("user_id").alias(f"{n}_{w}")
                  for m, n in [("sum", "sum"), ("mean", "avg"), ("min", "min"), ("max", "max"), ("std", "std")]]
        return u.with_columns(f).filter(pl.col("label_id").is_not_null()).collect().to_arrow()
    if plan == "join":  # equi-join, filter, conditional aggregates, on the streaming engine
        j = (lb.select("label_id", "user_id", lts="ts").join(ev.select("user_id", "ts", "merchant_id", "amount"),
                                                             on="user_id")
             .filter(pl.col("ts") <= pl.col("lts"), pl.col("ts") >= pl.col("lts") - pl.duration(days=7)))
        f = []
        for w, h in HOURS.items():
            c = pl.col("ts") >= pl.col("lts") - pl.duration(hours=h)
            a, m = pl.col("amount").filter(c), pl.col("merchant_id").filter(c)
            f += [a.count().alias(f"cnt_{w}"), a.sum().alias(f"sum_{w}"), a.mean().alias(f"avg_{w}"),
                  a.min().alias(f"min_{w}"), a.max().alias(f"max_{w}"), a.std().alias(f"std_{w}"),
                  m.n_unique().alias(f"dm_{w}")]
        return (lb.select("label_id").join(j.group_by("label_id").agg(f), on="label_id", how="left")
                .collect(engine="streaming").to_arrow())
    out = None
    for w in HOURS:  # generic rolling: every window is re-evaluated from its rows
        a, m = pl.col("amount"), pl.col("merchant_id")
        r = (u.rolling("ts", period=w, group_by="user_id", closed="both")
             .agg(pl.col("label_id").last(), a.count().alias(f"cnt_{w}"), a.sum().alias(f"sum_{w}"),
                  a.mean().alias(f"avg_{w}"), a.min().alias(f"min_{w}"), a.max().alias(f"max_{w}"),
                  a.std().alias(f"std_{w}"), m.drop_nulls().n_unique().alias(f"dm_{w}"))
             .filter(pl.col("label_id").is_not_null()).drop("user_id", "ts"))
        out = r if out is None else out.join(r, on="label_id")
    return out.collect().to_arrow()


name, _, plan = peer.partition(".")
run = {"duckdb": duckdb_, "polars": polars_}[name]
__import__(name)  # import time is not the job's
t = time.perf_counter()
res = run(plan)
secs = time.perf_counter() - t

import pyarrow.compute as pc


def total(c):  # NULL, NaN and inf (a sample stddev of one row) count as 0
    v = pc.cast(res[c], "float64")
    return pc.sum(pc.if_else(pc.is_finite(v), v, 0.0)).as_py() or 0.0


cols = ["event_id", "amount"] if job == "asof" else [c for w in HOURS for c in
                                                    (f"cnt_{w}", f"sum_{w}", f"max_{w}", f"std_{w}", f"dm_{w}")]
print(json.dumps({"peer": peer, "job": job, "events": int(n_ev), "labels": int(n_lb), "rows": res.num_rows,
                  "secs": round(secs, 3), "check": {c: float(f"{total(c):.8g}") for c in cols if c in res.column_names}}))
