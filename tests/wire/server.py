"""The server as a process, and the clients that reach it.

What pyarrow offers no call for (Flight SQL commands, the bytes of a broken request) is written here by hand: `field` encodes protobuf.
"""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import adbc_driver_flightsql.dbapi
import grpc
import pyarrow as pa
import pyarrow.flight as fl

BINARY = os.environ["ASOF_BIN"]
START_S = 60
STOP_S = 30

# The log is part of what is tested; nothing of the caller's environment is.
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("ASOF_")}


def until(condition, what, seconds=30.0):
    """Waits until `condition()` gives something true, and gives that."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        time.sleep(0.01)


def cli(warehouse, sql, *options, code=0):
    """Runs `asof sql` and gives its standard output."""
    done = subprocess.run([BINARY, "--warehouse", str(warehouse), "sql", *options, "-c", sql], capture_output=True, env=ENVIRONMENT, timeout=300)
    assert done.returncode == code, done.stderr.decode()
    return done.stdout


def cli_table(warehouse, sql):
    """One query by `asof sql`, as a table."""
    return pa.ipc.open_stream(cli(warehouse, sql, "--format", "arrow")).read_all()


class Server:
    """`asof serve` on a port of its own choosing. A context manager: leaving it stops the process, and asserts that it stopped well."""

    def __init__(self, warehouse, folder, *options, listen="127.0.0.1:0", env=None):
        self.warehouse, self.folder = warehouse, folder
        self.tls = self.token = None
        self.port_file = os.path.join(folder, f"port-{time.monotonic_ns()}")
        self.lines = []
        self.process = subprocess.Popen(
            [BINARY, "--warehouse", str(warehouse), "serve", "--listen", listen, "--port-file", self.port_file, *map(str, options)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**ENVIRONMENT, "ASOF_LOG": "warn,asof=info", **(env or {})},
        )
        self.drain = threading.Thread(target=lambda: self.lines.extend(self.process.stderr), daemon=True)
        self.drain.start()
        try:
            until(self._ready, "the server's port file", START_S)
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _ready(self):
        if self.process.poll() is not None:
            self.drain.join(STOP_S)
            raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log}")
        try:
            with open(self.port_file) as file:
                found = re.fullmatch(r"(.*):(\d+)\s*|(\d+)\s*", file.read())
        except FileNotFoundError:
            return False
        if found:
            self.port = int(found[2] or found[3])
        return found

    @property
    def log(self):
        return "".join(self.lines)

    @property
    def pid(self):
        return self.process.pid

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def uri(self):
        return f"{'grpc+tls' if self.tls else 'grpc'}://{self.address}"

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self.process.poll() is None:
            code = self.stop()
            if error is None:
                assert code == 0, f"SIGTERM ended the server with {code}:\n{self.log}"
        if error is None:
            assert "panicked" not in self.log, self.log

    def stop(self, how=signal.SIGTERM):
        """Ends the process and gives its exit code."""
        self.process.send_signal(how)
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not end within {STOP_S} s:\n{self.log}") from None
        self.drain.join(STOP_S)
        return code

    def flight(self, **options):
        return fl.FlightClient(self.uri, **options)

    def adbc(self, **options):
        return adbc_driver_flightsql.dbapi.connect(self.uri, autocommit=True, **options)

    def rpc(self):
        return Rpc(self.address)

    def cpu_s(self):
        with open(f"/proc/{self.pid}/stat") as file:
            parts = file.read().rsplit(")", 1)[1].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self):
        with open(f"/proc/{self.pid}/status") as file:
            return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1]) / 1024

    def sockets(self):
        """How many sockets the process holds open."""
        count = 0
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                count += os.readlink(f"/proc/{self.pid}/fd/{name}").startswith("socket:")
            except FileNotFoundError:
                pass
        return count

    def idle(self, window=0.5, share=0.1):
        """Whether the process uses less than `share` of a core over `window` seconds."""
        before = self.cpu_s()
        time.sleep(window)
        return self.cpu_s() - before < window * share


class Rpc:
    """Flight with nothing checked on the client's side: bytes in, bytes out."""

    SERVICE = "/arrow.flight.protocol.FlightService/"

    def __init__(self, address):
        big = 256 << 20
        self.channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_send_message_length", big),
                ("grpc.max_receive_message_length", big),
                # A connection of its own, so that it is a session of its own.
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def unary(self, method, request, timeout=60, path=None):
        return self.channel.unary_unary(path or self.SERVICE + method)(request, timeout=timeout)

    def stream(self, method, request, timeout=60):
        return list(self.channel.unary_stream(self.SERVICE + method)(request, timeout=timeout))

    def both(self, method, requests, timeout=60):
        return list(self.channel.stream_stream(self.SERVICE + method)(iter(requests), timeout=timeout))

    def refused(self, call, *arguments, **options):
        """The code and the text with which a call is refused."""
        try:
            answer = getattr(self, call)(*arguments, **options)
        except grpc.RpcError as error:
            return error.code(), error.details()
        raise AssertionError(f"{arguments[0]} was answered: {answer!r:.300}")


# Protobuf by hand.


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, str):
        value = value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(data):
    """The fields of a message, in order: (number, value)."""

    def number(at):
        value = shift = 0
        while True:
            value |= (data[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 0x80:
                return value, at

    at, out = 0, []
    while at < len(data):
        tag, at = number(at)
        value, at = number(at)
        if tag & 7 == 2:
            value, at = data[at : at + value], at + value
        else:
            assert tag & 7 == 0, tag
        out.append((tag >> 3, value))
    return out


def command(name, *parts):
    """A Flight SQL command or request: protobuf's `Any`."""
    return field(1, f"type.googleapis.com/arrow.flight.protocol.sql.{name}") + field(2, b"".join(parts))


def query(sql):
    return command("CommandStatementQuery", field(1, sql))


def descriptor(cmd=None, path=None):
    if path is not None:
        return field(1, 1) + b"".join(field(3, p) for p in path)
    return field(1, 2) + field(2, cmd)


def flight_data(header=b"", body=b"", about=None, metadata=None):
    out = field(1, about) if about is not None else b""
    out += field(2, header) + (field(3, metadata) if metadata is not None else b"")
    return out + field(1000, body)


def ipc(table):
    """A table's IPC messages, as (header, body), the schema first."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data, out = sink.getvalue(), []
    for message in pa.ipc.MessageReader.open_stream(data):
        out.append((message.metadata.to_pybytes(), message.body.to_pybytes() if message.body else b""))
    return out


def infos(client, sql, options=None):
    """GetFlightInfo of a SQL text."""
    return client.get_flight_info(fl.FlightDescriptor.for_command(query(sql)), options)


def sql_table(client, sql):
    """A SQL text by pyarrow.flight alone: all endpoints, one after the other."""
    found = infos(client, sql)
    return pa.concat_tables([client.do_get(e.ticket).read_all() for e in found.endpoints])


def json_ticket(**parts):
    return fl.Ticket(json.dumps({"v": 1, **parts}).encode())


def silent(address):
    """A TCP connection that says nothing."""
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)))
