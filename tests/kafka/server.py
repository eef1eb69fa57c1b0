"""`asof serve` as a process that tests kill, stop, resume and let crash, and the questions put to it."""

import os
import re
import signal
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow as pa

import dialect
from broker import until
from delta import plain

START_S, STOP_S, READY_S = 90, 60, 30

# Nothing of the caller's environment changes what is tested.
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("ASOF_", "AWS_"))}


def binary():
    return os.environ["ASOF_BIN"]


def cli(warehouse, sql, code=0, env=None):
    """Runs `asof sql` and gives its standard output."""
    done = subprocess.run(
        [binary(), "--warehouse", str(warehouse), "sql", "--format", "csv", "-c", sql],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, **(env or {})},
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


class Server:
    """A context manager: leaving it ends the process, and asserts that it ended well, unless a test ended it before."""

    def __init__(self, warehouse, folder, *options, crash=None, env=None, wait=True, within=()):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port_file = self.folder / f"port-{time.monotonic_ns()}"
        self.lines = []
        self.port = None
        self.expected_code = 0
        self.connection = None
        crash = {} if crash is None else {dialect.CRASH: crash}
        self.process = subprocess.Popen(
            [
                *within,
                binary(),
                "--warehouse",
                str(warehouse),
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--port-file",
                str(self.port_file),
                *map(str, options),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**ENVIRONMENT, "ASOF_LOG": "warn,asof=info", **crash, **(env or {})},
        )
        self.drain = threading.Thread(target=self.drained, daemon=True)
        self.drain.start()
        if wait:
            try:
                until(self.ready, "the server's port file", START_S)
            except BaseException:
                self.end(signal.SIGKILL)
                raise

    def drained(self):
        """Keeps what the process says, for messages and, as long as the folder is there, for people."""
        with open(self.folder / "log", "w", buffering=1) as file:
            for line in self.process.stderr:
                self.lines.append(line)
                file.write(line)

    @property
    def log(self):
        return "".join(self.lines)

    def ready(self):
        if self.process.poll() is not None:
            self.drain.join(STOP_S)
            raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log}")
        found = re.fullmatch(r"(?:.*:)?(\d+)\s*", self.port_file.read_text()) if self.port_file.exists() else None
        if found:
            self.port = int(found[1])
        return found

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self.process.poll() is None:
            code = self.end(signal.SIGTERM)
            if error is None:
                assert code == 0, f"SIGTERM ended the server with {code}:\n{self.log}"
        elif error is None:
            assert self.process.returncode == self.expected_code, f"the server ended with {self.process.returncode}:\n{self.log}"
        if error is None:
            assert "panicked" not in self.log, self.log

    def end(self, how):
        """Ends the process by a signal, and gives its exit code."""
        self.disconnect()
        if self.process.poll() is None:
            self.process.send_signal(how)
            # A stopped process ends only by SIGKILL, or resumed.
            if how != signal.SIGKILL:
                self.process.send_signal(signal.SIGCONT)
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not end within {STOP_S} s of signal {how}:\n{self.log}") from None
        self.drain.join(STOP_S)
        self.expected_code = code if how == signal.SIGKILL else 0
        return code

    def kill(self):
        """kill -9."""
        assert self.end(signal.SIGKILL) == -signal.SIGKILL, f"it had ended before, with {self.process.returncode}:\n{self.log}"

    def crashed(self, seconds=60.0):
        """Waits for the process to abort at the point it was told."""
        until(lambda: self.process.poll() is not None, lambda: f"the crash; the log:\n{self.log}", seconds)
        self.drain.join(STOP_S)
        assert self.process.returncode == -signal.SIGABRT, f"it ended with {self.process.returncode}:\n{self.log}"
        self.disconnect()
        self.expected_code = self.process.returncode

    def stop(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    @property
    def uri(self):
        return f"grpc://127.0.0.1:{self.port}"

    def adbc(self):
        return adbc_driver_flightsql.dbapi.connect(self.uri, autocommit=True)

    def disconnect(self):
        if self.connection is not None:
            try:
                self.connection.close()
            except adbc_driver_manager.Error:
                pass
            self.connection = None

    def table(self, sql, spine=None):
        """The result of one statement as an Arrow table; `spine` is uploaded as a temporary table before, by its name."""
        if self.connection is None:
            self.connection = self.adbc()
        with self.connection.cursor() as cursor:
            for name, rows in (spine or {}).items():
                cursor.adbc_ingest(name, rows, mode="replace", temporary=True)
            return until(lambda: self._answer(cursor, sql), lambda: f"an answer to {sql}", READY_S)[0]

    @staticmethod
    def _answer(cursor, sql):
        """A view that has not taken in all of history yet says that it is to be asked again."""
        try:
            cursor.execute(sql)
            return (cursor.fetch_arrow_table(),)
        except adbc_driver_manager.Error as error:
            if "UNAVAILABLE" not in str(error):
                raise
            return None

    def rows(self, sql, spine=None):
        """The rows of one statement, as tuples; times are microseconds."""
        return [tuple(row.values()) for row in plain(self.table(sql, spine))]

    def run(self, sql):
        """A statement without rows."""
        if self.connection is None:
            self.connection = self.adbc()
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def refused(self, sql):
        """What a statement that must fail says."""
        try:
            found = self.table(sql)
        except adbc_driver_manager.Error as error:
            return str(error)
        raise AssertionError(f"{sql} was answered: {found.to_pylist()}")

    def status(self, stream):
        """SHOW STREAM STATUS of one stream, by partition."""
        found = [row for row in plain(self.table(dialect.STATUS)) if row["stream"] == stream]
        return {dialect.partition_number(row["partition"]): row for row in found}

    def metric(self, name, **labels):
        """The value of a metric, of a server with `--http 127.0.0.1:0`."""
        address = Path(f"{self.port_file}.http").read_text().strip()
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=READY_S) as answer:
            text = answer.read().decode()
        wanted = name + "{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "} "
        found = [line.removeprefix(wanted) for line in text.splitlines() if line.startswith(wanted)]
        assert len(found) == 1, f"{wanted} in\n{text}"
        return float(found[0])


def spine(columns, rows):
    """A spine to upload: columns as (name, Arrow type)."""
    return pa.table([pa.array([r[i] for r in rows], t) for i, (_, t) in enumerate(columns)], names=[n for n, _ in columns])
