"""What catalog tools see: catalogs, schemas, tables with their columns, table types, primary keys, and the server's own description."""

import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight as fl
import pytest

import world
from server import command, field

TABLES = {"transactions", "things"}


def found_tables(db, **options):
    objects = db.adbc_get_objects(**options).read_all().to_pylist()
    out = {}
    for catalog in objects:
        for schema in catalog["catalog_db_schemas"] or []:
            for table in schema["db_schema_tables"] or []:
                out[table["table_name"]] = table
    return out


def asked(flight, name, *parts):
    found = flight.get_flight_info(fl.FlightDescriptor.for_command(command(name, *parts)))
    table = pa.concat_tables([flight.do_get(e.ticket).read_all() for e in found.endpoints])
    assert table.schema.equals(found.schema)
    return table


def test_objects(db):
    tables = found_tables(db, depth="all")
    assert TABLES | set(world.SHAPES) <= set(tables)
    columns = {t: [c["column_name"] for c in tables[t]["table_columns"]] for t in tables}
    assert columns["transactions"] == world.TRANSACTIONS.names
    # A view's event time can be named, so it is a column too.
    assert columns["user_spend"] == ["user_id", *world.SPEND, "ts"]
    assert tables["transactions"]["table_type"] != tables["user_spend"]["table_type"]


def test_objects_are_filtered(db):
    assert set(found_tables(db, depth="tables", table_name_filter="user_spend")) == {"user_spend"}
    assert set(found_tables(db, depth="tables", table_name_filter="user\\_%")) >= {"user_spend", "user_at_merchant"}
    assert "merchant_risk" not in found_tables(db, depth="tables", table_name_filter="user%")
    kind = found_tables(db, depth="tables")["user_spend"]["table_type"]
    of_views = found_tables(db, depth="tables", table_types_filter=[kind])
    assert set(world.SHAPES) <= set(of_views) and not TABLES & set(of_views)
    assert not found_tables(db, depth="tables", db_schema_filter="no such schema")
    assert not found_tables(db, depth="tables", catalog_filter="no such catalog")


def test_table_types(db):
    tables = found_tables(db, depth="tables")
    assert {tables["transactions"]["table_type"], tables["user_spend"]["table_type"]} <= set(db.adbc_get_table_types())


@pytest.mark.parametrize("name", ["transactions", "things", "user_spend", "user_at_merchant", "by_price"])
def test_table_schema(db, name):
    """The types of a table are those of its rows."""
    schema = db.adbc_get_table_schema(name)
    with db.cursor() as cursor:
        if name in TABLES:
            cursor.execute(f"SELECT * FROM {name} LIMIT 1")
        else:
            entity = world.SHAPES[name][0]
            cursor.execute(f"SELECT * FROM {name} FOR ENTITY ({', '.join(f'{e} = NULL' for e in entity)})")
        rows = cursor.fetch_arrow_table()
    kinds = {f.name: world.plain(f.type) for f in schema}
    assert {n: kinds[n] for n in rows.schema.names} == world.types(rows)
    assert set(kinds) - set(rows.schema.names) <= {"ts"}


def test_unknown_table_schema(db):
    with pytest.raises(adbc_driver_manager.Error):
        db.adbc_get_table_schema("no_such_table")


def test_primary_keys(flight):
    keys = asked(flight, "CommandGetPrimaryKeys", field(3, "transactions")).to_pylist()
    assert [(k["table_name"], k["column_name"], k["key_sequence"]) for k in keys] == [("transactions", "txn_id", 1)]
    keys = asked(flight, "CommandGetPrimaryKeys", field(3, "user_at_merchant")).to_pylist()
    assert [(k["column_name"], k["key_sequence"]) for k in keys] == [("user_id", 1), ("merchant_id", 2)]
    assert asked(flight, "CommandGetPrimaryKeys", field(3, "things")).num_rows == 0


def test_foreign_keys_are_none(flight):
    for name in ("CommandGetExportedKeys", "CommandGetImportedKeys"):
        assert asked(flight, name, field(3, "transactions")).num_rows == 0


def test_catalogs_and_schemas(flight):
    catalogs = asked(flight, "CommandGetCatalogs").column("catalog_name").to_pylist()
    schemas = asked(flight, "CommandGetDbSchemas").to_pylist()
    tables = asked(flight, "CommandGetTables", field(5, 1)).to_pylist()
    assert catalogs and {s["catalog_name"] for s in schemas} <= set(catalogs)
    mine = next(t for t in tables if t["table_name"] == "transactions")
    assert (mine["catalog_name"], mine["db_schema_name"]) in {(s["catalog_name"], s["db_schema_name"]) for s in schemas}
    assert pa.ipc.read_schema(pa.py_buffer(mine["table_schema"])).names == world.TRANSACTIONS.names


def test_info(db, flight):
    info = db.adbc_get_info()
    assert info["vendor_name"].lower() == "asof" and info["vendor_version"]
    # SqlInfo 8 is FLIGHT_SQL_SERVER_TRANSACTION: none. 3 is the Arrow version; 508 whether identifiers keep their case.
    rows = {r["info_name"]: r["value"] for r in asked(flight, "CommandGetSqlInfo").to_pylist()}
    assert rows[8] == 0
    assert {0, 1, 2, 3, 4} <= set(rows)
    only = asked(flight, "CommandGetSqlInfo", field(1, 0)).to_pylist()
    assert [r["info_name"] for r in only] == [0]


def test_type_info(flight):
    names = asked(flight, "CommandGetXdbcTypeInfo").column("type_name").to_pylist()
    assert {"BIGINT", "DOUBLE", "VARCHAR", "TIMESTAMP"} <= set(names)


def test_information_schema(db):
    with db.cursor() as cursor:
        cursor.execute("SELECT column_name FROM information_schema.columns WHERE table_name = 'transactions' ORDER BY ordinal_position")
        assert [r[0] for r in cursor.fetchall()] == world.TRANSACTIONS.names
        cursor.execute("SHOW FEATURES")
        assert ("user_spend", "spend_1h") in {r[:2] for r in cursor.fetchall()}


def test_stream_status(db):
    with db.cursor() as cursor:
        cursor.execute("SHOW STREAM STATUS FOR transactions")
        status = cursor.fetch_arrow_table()
    assert set(status["stream"].to_pylist()) == {"transactions"} and set(status["state"].to_pylist()) == {"idle"}
    assert status.schema.field("watermark").type == pa.timestamp("us", "UTC")
    assert status.schema.field("checkpoint_age").type == pa.duration("us")
