"""Instants before what the online state answers: computed from history and said so, or refused where the server is set to."""

import json

import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight as fl
import pytest

import world
from server import Server, infos, sql_table
from test_exchange import answers, opened
from test_ticket import view_ticket
from world import EARLY, LATE, MIDDLE, sql_time

KEYS = [("u1",), ("nobody",)]


def said(metadata):
    """What a note says; None where there is none."""
    if not metadata:
        return None
    found = json.loads(metadata)
    assert set(found) == {"v", "note"} and found["v"] == 1, found
    return found["note"]


@pytest.mark.parametrize("at", [LATE, MIDDLE, EARLY])
def test_a_ticket_says_what_came_from_history(flight, expected, at):
    chunks = list(flight.do_get(view_ticket("user_spend", KEYS, at)))
    expected.check(pa.Table.from_batches([c.data for c in chunks]), "user_spend", KEYS, at)
    notes = [said(c.app_metadata and c.app_metadata.to_pybytes()) for c in chunks]
    if at == EARLY:
        assert any(note and "history" in note for note in notes), notes
    else:
        assert notes == [None]


@pytest.mark.parametrize("at", [LATE, EARLY])
def test_a_session_says_what_came_from_history(flight, expected, at):
    writer, reader = opened(flight, world.key_batch("user_spend", []).schema, at, views=["user_spend"])
    writer.write_batch(world.key_batch("user_spend", KEYS))
    writer.write_with_metadata(world.key_batch("user_spend", KEYS), b"mine")
    writer.done_writing()
    (first, note), (second, echo) = answers(reader)
    writer.close()
    for table in (first, second):
        expected.check(table, "user_spend", KEYS, at, with_keys=False)
    # The client's own metadata has its place first.
    assert echo == b"mine"
    assert (at == EARLY) == ("history" in (said(note) or "")), note


@pytest.mark.parametrize("at", [LATE, EARLY])
def test_a_statement_says_what_came_from_history(flight, at):
    sql = f"SELECT * FROM user_spend FOR ENTITY 'u1' AS OF {sql_time(at)}"
    metadata = (infos(flight, sql).schema.metadata or {}) | (sql_table(flight, sql).schema.metadata or {})
    assert (at == EARLY) == (b"history" in metadata.get(b"asof.note", b"")), metadata


def test_a_server_that_answers_from_the_online_state_only(copy, tmp_path, expected):
    with Server(copy(), tmp_path, "--online-only") as started:
        with started.flight() as client:
            for at in (LATE, MIDDLE):
                expected.check(client.do_get(view_ticket("user_spend", KEYS, at)).read_all(), "user_spend", KEYS, at)
            with pytest.raises((pa.ArrowException, fl.FlightError)) as refused:
                client.do_get(view_ticket("user_spend", KEYS, EARLY)).read_all()
            # The greatest event less disorder, skew and look_back: the earliest instant that is answered.
            assert "2024-05-01" in str(refused.value) and "23:4" in str(refused.value), refused.value
        with started.adbc() as db, db.cursor() as cursor:
            cursor.execute(f"SELECT * FROM user_spend FOR ENTITY 'u1' AS OF {sql_time(MIDDLE)}")
            expected.check(cursor.fetch_arrow_table(), "user_spend", [("u1",)], MIDDLE)
            with pytest.raises(adbc_driver_manager.Error, match="2024-05-01.23:4"):
                cursor.execute(f"SELECT * FROM user_spend FOR ENTITY 'u1' AS OF {sql_time(EARLY)}")
                cursor.fetchall()
