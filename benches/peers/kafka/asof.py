"""Asof over the topic that fill.py filled: from CREATE STREAM until history holds the whole log, and the answers at each key's last event.

    ASOF_BIN=BINARY asof.py BROKERS TOPIC EXPECTED COMMIT_MS FOLDER

The time is that of history, which is behind the state; the view exists before the first record is read.
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests" / "kafka"))

import delta  # noqa: E402
import dialect  # noqa: E402
from broker import until  # noqa: E402
from server import Server  # noqa: E402

VIEW = """
CREATE FEATURE VIEW spend ENTITY (user_id) AS SELECT count(*) OVER hour AS n, sum(amount) OVER hour AS total
FROM payments WINDOW hour AS (RANGE INTERVAL '1 hour' PRECEDING)
"""


def main(brokers, topic, expected, commit_ms, folder):
    with open(expected) as file:
        wanted = json.load(file)
    options = {
        dialect.CONNECTOR: "kafka",
        dialect.BROKERS: brokers,
        dialect.TOPIC: topic,
        dialect.GROUP: f"{topic}-{time.monotonic_ns()}",
        dialect.START: "earliest",
        dialect.FORMAT: "json",
        dialect.COMMIT_INTERVAL: f"{commit_ms} milliseconds",
    }
    given = ", ".join(f"\"{k}\" = '{v}'" for k, v in options.items())
    columns = "user_id VARCHAR NOT NULL, amount DOUBLE, ts TIMESTAMP NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '30 seconds'"
    with Server(Path(folder) / "warehouse", folder) as server:
        start = time.monotonic()
        server.run(f"CREATE STREAM payments ({columns}) WITH ({given})")
        server.run(VIEW)
        history = delta.Table(delta.local(), f"{folder}/warehouse/{dialect.HISTORY}/payments")

        def done():
            taken = history.refresh().transactions()
            return sum(v for a, v in taken.items() if dialect.partition_number(a) is not None) == wanted["rows"]

        until(done, "the whole log in history", 3600)
        wall = time.monotonic() - start
        times = [c["timestamp"] for c in history.actions("commitInfo") if (dialect.counts_of(c) or {}).get("read")]
        for key, (n, total, at_ms) in wanted["newest"].items():
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_ms // 1000)) + f".{at_ms % 1000:03}"
            found = server.rows(f"SELECT * FROM spend FOR ENTITY '{key}' AS OF TIMESTAMP '{at}'")
            assert found == [(key, n, total)], (found, key, n, total)
        flowing = (times[-1] - times[0]) / 1000
    print(f"answer: the last values of {len(wanted['newest'])} keys are right")
    rates = f"{wanted['rows'] / wall:.0f} events/s in all, {wanted['rows'] / flowing if flowing else 0:.0f} events/s flowing"
    print(f"asof: {wanted['rows']} events, {wall:.1f} s in all, {flowing:.1f} s from the first commit to the last: {rates}")


if __name__ == "__main__":
    main(*sys.argv[1:])
