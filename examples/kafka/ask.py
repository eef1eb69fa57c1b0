"""Waits until the server has taken in what was produced, asks for features and prints them; fails when those of `ann` are others.

ask.py SERVER
"""

import sys
import time

import adbc_driver_flightsql.dbapi as flightsql


def rows(cursor, sql):
    cursor.execute(sql)
    return cursor.fetch_arrow_table().to_pylist()


with flightsql.connect(f"grpc://{sys.argv[1]}", autocommit=True) as connection, connection.cursor() as cursor:
    end = time.monotonic() + 60
    while True:
        [status] = rows(cursor, "SHOW STREAM STATUS") or [{}]
        if status.get("end_offset") == 1016 and status["lag"] == 0:
            break
        assert time.monotonic() < end, f"the stream is not there after a minute: {status}"
        time.sleep(0.05)
    print("SHOW STREAM STATUS")
    for name in ("stream", "partition", "offset", "lag", "accepted", "duplicate", "late", "rejected", "state"):
        print(f"  {name:10} {status[name]}")
    asked = "SELECT * FROM user_spend FOR ENTITY user_id IN ('ann', 'user-7', 'nobody')"
    print(asked)
    found = rows(cursor, asked)
    for row in found:
        print(" ", row)
    for table in ("payments$late", "payments$rejected"):
        [counted] = rows(cursor, 'SELECT count(*) AS n FROM "' + table + '"')
        print(f"{table}: {counted['n']}")
    assert found[0] == {"user_id": "ann", "payments_1h": 4, "spend_1h": 40.0, "largest_1h": 20.0, "payments_ever": 4}, found[0]
    assert (status["accepted"], status["duplicate"], status["late"], status["rejected"]) == (1004, 10, 1, 1), status
