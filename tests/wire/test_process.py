"""The process: how it starts, what it listens on, who may connect, how it says that it is well, and how it ends."""

import json
import signal
import socket
import subprocess
import time

import adbc_driver_manager
import grpc
import pyarrow as pa
import pyarrow.flight as fl
import pytest
import trustme

import world
from server import BINARY, ENVIRONMENT, Server, cli, field, fields, query, silent, sql_table, until
from test_malformed import Waiting
from test_put import events, ids, put
from test_ticket import view_ticket
from world import LATE


def refuses_to_start(tmp_path, *options, env=None):
    """Runs a server that must not start; gives its exit code and what it says."""
    port = tmp_path / "port"
    done = subprocess.run(
        [BINARY, "--warehouse", str(tmp_path / "warehouse"), "serve", "--port-file", str(port), *map(str, options)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**ENVIRONMENT, **(env or {})},
    )
    assert not port.exists(), "it listened"
    return done.returncode, done.stderr


def test_logs_say_where_it_listens(own):
    lines = until(lambda: [line for line in list(own.lines) if "listening" in line], "the line that says so")
    assert len(lines) == 1
    found = json.loads(lines[0])
    text = json.dumps(found)
    assert '"listening"' in text and own.address in text
    for line in list(own.lines):
        assert isinstance(json.loads(line), dict), line


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_only_loopback_without_more(tmp_path, listen):
    code, text = refuses_to_start(tmp_path, "--listen", listen)
    assert code == 2 and "--insecure" in text and "--token-file" in text, (code, text)


def test_a_name_that_is_loopback(tmp_path):
    with Server(tmp_path / "warehouse", tmp_path, listen="localhost:0") as started, started.flight() as client:
        assert sql_table(client, "SELECT 1 AS one").to_pydict() == {"one": [1]}


def test_insecure_by_name(tmp_path):
    with Server(tmp_path / "warehouse", tmp_path, "--insecure", listen="0.0.0.0:0") as started, started.flight() as client:
        assert sql_table(client, "SELECT 1 AS one").to_pydict() == {"one": [1]}


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    paths = {"cert": folder / "cert.pem", "key": folder / "key.pem", "token": folder / "token"}
    paths["cert"].write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(paths["key"]))
    paths["token"].write_text("a-secret-token\n")
    return {**paths, "root": authority.cert_pem.bytes()}


SECRET = "a-secret-token"


@pytest.mark.parametrize("given", [["tls-cert"], ["tls-key"], ["tls-cert", "tls-key"], ["token-file"]])
def test_half_a_protection_is_none(tmp_path, identity, given):
    """Outside loopback both TLS and a token are wanted."""
    files = {"tls-cert": identity["cert"], "tls-key": identity["key"], "token-file": identity["token"]}
    options = [o for name in given for o in (f"--{name}", files[name])]
    code, text = refuses_to_start(tmp_path, "--listen", "0.0.0.0:0", *options)
    assert code in (2, 3) and text, (code, text)
    assert SECRET not in text


@pytest.mark.parametrize(
    "name, content", [("tls-cert", "no certificate"), ("tls-key", "no key"), ("token-file", ""), ("token-file", "\n"), ("token-file", None)]
)
def test_files_that_are_not_what_they_should_be(tmp_path, identity, name, content):
    files = {"tls-cert": identity["cert"], "tls-key": identity["key"], "token-file": identity["token"]}
    files[name] = tmp_path / "wrong"
    if content is not None:
        files[name].write_text(content)
    options = [o for n, path in files.items() for o in (f"--{n}", path)]
    code, text = refuses_to_start(tmp_path, "--listen", "127.0.0.1:0", *options)
    assert code in (2, 3) and str(files[name]) in text, (code, text)


@pytest.fixture
def guarded(copy, tmp_path, identity):
    options = ["--tls-cert", identity["cert"], "--tls-key", identity["key"], "--token-file", identity["token"]]
    with Server(copy(), tmp_path, *options, listen="0.0.0.0:0") as started:
        started.tls = True
        yield started
        assert SECRET not in started.log


def bearer(token):
    return fl.FlightCallOptions(headers=[(b"authorization", token.encode())])


def test_tls_and_token(guarded, identity, expected):
    ticket = view_ticket("user_spend", [("u1",)], LATE)
    with guarded.flight(tls_root_certs=identity["root"]) as client:
        expected.check(client.do_get(ticket, bearer(f"Bearer {SECRET}")).read_all(), "user_spend", [("u1",)], LATE)
        calls = [
            lambda options: client.do_get(ticket, options).read_all(),
            lambda options: client.get_flight_info(fl.FlightDescriptor.for_command(query("SELECT 1")), options),
            lambda options: list(client.do_action(fl.Action("CreatePreparedStatement", b""), options)),
            lambda options: list(client.list_flights(options=options)),
        ]
        for options in (
            None,
            bearer("Bearer wrong"),
            bearer("Bearer "),
            bearer(SECRET),
            bearer(f"Basic {SECRET}"),
            bearer(f"Bearer {SECRET}x"),
            bearer(f"Bearer {SECRET[:-1]}"),
        ):
            for call in calls:
                with pytest.raises(fl.FlightUnauthenticatedError):
                    call(options)
        for options in (None, bearer("Bearer wrong")):
            with pytest.raises(fl.FlightUnauthenticatedError):
                writer, reader = client.do_exchange(fl.FlightDescriptor.for_path("user_spend"), options)
                writer.begin(world.key_batch("user_spend", []).schema)
                reader.read_chunk()
            with pytest.raises(fl.FlightUnauthenticatedError):
                writer, reader = client.do_put(fl.FlightDescriptor.for_path("transactions"), world.TRANSACTIONS, options)
                writer.write_table(events(["never"]))
                writer.done_writing()
                reader.read()
                writer.close()


def test_tls_and_token_by_adbc(guarded, identity, expected):
    options = {"adbc.flight.sql.client_option.tls_root_certs": identity["root"].decode()}
    with guarded.adbc(db_kwargs={**options, "adbc.flight.sql.authorization_header": f"Bearer {SECRET}"}) as db, db.cursor() as cursor:
        cursor.execute("SELECT * FROM user_spend FOR ENTITY user_id = ? AS OF " + world.sql_time(LATE), ("u1",))
        expected.check(cursor.fetch_arrow_table(), "user_spend", [("u1",)], LATE)
        cursor.execute("SELECT count(*) AS n FROM transactions WHERE txn_id = 'never'")
        assert cursor.fetchone() == (0,)
    with pytest.raises(adbc_driver_manager.Error, match="(?i)unauthenticated"):
        with guarded.adbc(db_kwargs=options) as db, db.cursor() as cursor:
            cursor.execute("SELECT 1")


def test_without_tls_nothing_is_said(guarded):
    with fl.FlightClient(f"grpc://{guarded.address}") as client, pytest.raises((pa.ArrowException, fl.FlightError)):
        client.do_get(view_ticket("user_spend", [("u1",)]), fl.FlightCallOptions(timeout=5)).read_all()


def test_a_token_on_loopback(copy, tmp_path, identity):
    with Server(copy(), tmp_path, "--token-file", identity["token"]) as started, started.flight() as client:
        with pytest.raises(fl.FlightUnauthenticatedError):
            client.do_get(view_ticket("user_spend", [("u1",)])).read_all()
        assert client.do_get(view_ticket("user_spend", [("u1",)]), bearer(f"Bearer {SECRET}")).read_all().num_rows == 1
        # Health is asked by those who hold no token.
        with started.rpc() as rpc:
            until(lambda: fields(rpc.unary("", b"", path="/grpc.health.v1.Health/Check")) == [(1, 1)], "the server to serve")


def test_health(own):
    with own.rpc() as rpc, own.flight() as client:
        # SERVING is 1; it is 2, NOT_SERVING, until every view has its online state.
        until(lambda: fields(rpc.unary("", b"", path="/grpc.health.v1.Health/Check")) == [(1, 1)], "the server to serve")
        code, _ = rpc.refused("unary", "", field(1, "no.such.Service"), path="/grpc.health.v1.Health/Check")
        assert code == grpc.StatusCode.NOT_FOUND
        assert [json.loads(r.body.to_pybytes()) for r in client.do_action(fl.Action("health", b""))] == [{"v": 1, "status": "SERVING"}]
        assert "health" in [a.type for a in client.list_actions()]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_well(copy, tmp_path, how):
    with Server(copy(), tmp_path) as started:
        with started.flight() as client:
            assert put(client, events(["a"])) == (1, 1, 0, 0, 0, 0)
        code = started.stop(how)
        assert code == 0 if how == signal.SIGTERM else code in (0, 130)
        with pytest.raises(ConnectionRefusedError):
            silent(started.address)


def test_a_client_that_says_nothing_is_given_up(copy, tmp_path):
    """After the time that is set: one that never begins, one that begins with half a word, and sessions that name nothing."""
    with Server(copy(), tmp_path, "--idle-seconds", 1, 2) as started:
        mute = [silent(started.address) for _ in range(3)]
        mute[1].sendall(b"PRI * HT")
        for connection in mute:
            connection.settimeout(20)
            # What the server says of itself, then the end; a timeout where it does not come.
            while connection.recv(1000):
                pass
            connection.close()
        with started.rpc() as rpc:
            for method in ("DoExchange", "DoPut"):
                waits = Waiting()
                try:
                    code, text = rpc.refused("both", method, waits)
                finally:
                    waits.end()
                assert code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE) and text, (code, text)


def test_it_ends_with_clients_that_say_nothing(copy, tmp_path):
    """Connections and sessions that wait for their client do not hold up the end."""
    with Server(copy(), tmp_path) as started:
        mute = [silent(started.address) for _ in range(5)]
        rpc, waits = started.rpc(), [Waiting(), Waiting()]
        calls = [rpc.channel.stream_stream(rpc.SERVICE + method)(w) for method, w in zip(("DoExchange", "DoPut"), waits)]
        with started.flight() as client:
            assert client.do_get(view_ticket("user_spend", [("u1",)])).read_all().num_rows == 1
        began = time.monotonic()
        assert started.stop() == 0
        # What runs has 20 seconds to end; nothing runs.
        assert time.monotonic() - began < 8, "the end was held up"
        for call in calls:
            with pytest.raises(grpc.RpcError) as error:
                next(call)
            assert error.value.code() == grpc.StatusCode.UNAVAILABLE and "stopping" in error.value.details()
        for connection in mute:
            connection.close()
        for w in waits:
            w.end()
        rpc.channel.close()


def test_what_runs_is_finished(copy, tmp_path):
    """SIGTERM takes no new connection, and lets what runs come to its end: every row acknowledged, every result whole."""
    warehouse = copy()
    with Server(warehouse, tmp_path) as started:
        client = started.flight()
        sql = "SELECT a.txn_id, b.txn_id AS other FROM transactions a, transactions b WHERE a.merchant_id = b.merchant_id AND a.status = 'declined'"
        (endpoint,) = client.get_flight_info(fl.FlightDescriptor.for_command(query(sql + " ORDER BY 1, 2"))).endpoints
        reader = client.do_get(endpoint.ticket)
        rows = reader.read_chunk().data.num_rows
        started.process.send_signal(signal.SIGTERM)

        def refused():
            try:
                silent(started.address).close()
                return False
            except OSError:
                return True

        until(refused, "the port to close", 20)
        for chunk in reader:
            rows += chunk.data.num_rows
        declined, all_of = {}, {}
        for event in world.transactions().to_pylist():
            all_of[event["merchant_id"]] = all_of.get(event["merchant_id"], 0) + 1
            declined[event["merchant_id"]] = declined.get(event["merchant_id"], 0) + (event["status"] == "declined")
        assert rows == sum(declined[m] * all_of[m] for m in all_of)
        assert started.process.wait(30) == 0
        client.close()


def test_a_port_that_is_taken(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, text = refuses_to_start(tmp_path, "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert code != 0 and str(taken) not in text and "address" in text.lower(), (code, text)


@pytest.mark.parametrize("listen", ["", "7070", "127.0.0.1", "127.0.0.1:70000", "127.0.0.1:port", "no.such.host.invalid:1"])
def test_an_address_that_is_none(tmp_path, listen):
    code, text = refuses_to_start(tmp_path, "--listen", listen)
    assert code in (2, 3) and text, (code, text)


def test_another_process_reads_and_is_told_who_writes(own):
    """The warehouse is open to readers beside the server; who would write is told where to."""
    found = cli(own.warehouse, "SELECT count(*) AS n FROM transactions", "--format", "csv").decode().split()
    assert found == ["n", str(world.EVENTS)]
    with own.flight() as client:
        assert put(client, events(["a"])) == (1, 1, 0, 0, 0, 0)
    done = subprocess.run(
        [
            BINARY,
            "--warehouse",
            str(own.warehouse),
            "sql",
            "-c",
            "INSERT INTO transactions VALUES ('b', 'put', 'm1', 1.0, 'ok', TIMESTAMP '2024-05-03 02:00:00')",
        ],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    assert done.returncode == 4 and f"--connect {own.uri}" in done.stderr, (done.returncode, done.stderr)
    with own.flight() as client:
        assert ids(client) == ["a"]


def connected(server, *arguments):
    return subprocess.run([BINARY, "sql", "--connect", server.uri, *arguments], capture_output=True, text=True, timeout=120, env=ENVIRONMENT)


def test_sql_by_connection(own, expected):
    """`asof sql --connect` is a client like the others, with the same answers and the same errors."""
    done = connected(own, "--format", "csv", "-c", "SELECT count_ever FROM user_spend FOR ENTITY 'u1' AS OF " + world.sql_time(LATE))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["count_ever", str(expected.row("user_spend", ["u1"], LATE, features=["count_ever"])[0])]
    done = connected(own, "-c", "INSERT INTO transactions VALUES ('c1', 'put', 'm1', 1.0, 'ok', TIMESTAMP '2024-05-03 02:00:00')")
    assert done.returncode == 0, done.stderr
    with own.flight() as client:
        assert ids(client) == ["c1"]
    done = connected(own, "-c", "SELECT * FROM user_spen FOR ENTITY 'u1'")
    assert done.returncode == 3 and "error[E0201]" in done.stderr and "^^^^^^^^^" in done.stderr and '"user_spend"' in done.stderr, done.stderr


def test_sql_by_connection_with_tls_and_token(guarded, identity, tmp_path):
    root = tmp_path / "root.pem"
    root.write_bytes(identity["root"])
    trusted = ["--tls-ca", str(root)]
    done = connected(guarded, *trusted, "--token-file", str(identity["token"]), "--format", "csv", "-c", "SELECT count(*) AS n FROM transactions")
    assert done.returncode == 0 and done.stdout.split() == ["n", str(world.EVENTS)], done.stderr
    done = connected(guarded, *trusted, "-c", "SELECT 1")
    assert done.returncode != 0 and "token" in done.stderr, done.stderr
    done = connected(guarded, "--token-file", str(identity["token"]), "-c", "SELECT 1")
    assert done.returncode != 0 and done.stderr, "a certificate of nobody was trusted"


def test_connection_to_nobody():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        done = subprocess.run(
            [BINARY, "sql", "--connect", f"grpc://127.0.0.1:{unused.getsockname()[1]}", "-c", "SELECT 1"],
            capture_output=True,
            text=True,
            timeout=120,
            env=ENVIRONMENT,
        )
    assert done.returncode == 4 and done.stderr, (done.returncode, done.stderr)
