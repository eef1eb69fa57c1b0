"""A schema registry over HTTP, in the part of Confluent's API that producers and consumers use:

    POST /subjects/{subject}/versions   GET /subjects/{subject}/versions/latest   GET /schemas/ids/{id}
    GET /subjects   GET /subjects/{subject}/versions   GET /subjects/{subject}/versions/{n}

A schema has one id, whichever subjects it is under; errors are the numbered ones. As a program it prints REGISTRY=http://127.0.0.1:PORT.
For tests it counts requests, and fails or delays what it is told to.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

CONTENT = "application/vnd.schemaregistry.v1+json"


class Failure(Exception):
    def __init__(self, status, code, message):
        super().__init__(message)
        self.status, self.body = status, {"error_code": code, "message": message}


class Registry:
    """A context manager: leaving it stops the server."""

    def __init__(self, port=0):
        self.lock = threading.Lock()
        self.schemas = []
        self.subjects = {}
        self.requests = []
        # What a test sets: the next answers that are failures, as HTTP statuses, and a delay before each answer.
        self.failures = []
        self.delay_s = 0.0
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                registry.answer(self)

            do_POST = do_GET

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, request):
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        path = [unquote(part) for part in request.path.split("?")[0].split("/") if part]
        with self.lock:
            self.requests.append((request.command, request.path))
            fails = self.failures.pop(0) if self.failures else None
        time.sleep(self.delay_s)
        try:
            if fails:
                raise Failure(fails, 50001, "error in the backend data store")
            with self.lock:
                status, found = 200, self.route(request.command, path, body)
        except Failure as failure:
            status, found = failure.status, failure.body
        data = json.dumps(found).encode()
        request.send_response(status)
        request.send_header("Content-Type", CONTENT)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def route(self, method, path, body):
        match method, path:
            case "GET", ["schemas", "ids", number]:
                if not number.isdigit() or not 1 <= int(number) <= len(self.schemas):
                    raise Failure(404, 40403, f"Schema {number} not found")
                kind, text = self.schemas[int(number) - 1]
                return {"schema": text} if kind == "AVRO" else {"schema": text, "schemaType": kind}
            case "GET", ["subjects"]:
                return list(self.subjects)
            case "POST", ["subjects", subject, "versions"]:
                return {"id": self.add(subject, body)}
            case "GET", ["subjects", subject, "versions"]:
                return list(range(1, len(self.known(subject)) + 1))
            case "GET", ["subjects", subject, "versions", version]:
                ids = self.known(subject)
                if version == "latest":
                    version = str(len(ids))
                if not version.isdigit() or not 1 <= int(version) < 2**31:
                    raise Failure(422, 42202, f"The specified version '{version}' is not a valid version id.")
                if int(version) > len(ids):
                    raise Failure(404, 40402, f"Version {version} not found.")
                number = ids[int(version) - 1]
                kind, text = self.schemas[number - 1]
                found = {"subject": subject, "version": int(version), "id": number, "schema": text}
                return found if kind == "AVRO" else {**found, "schemaType": kind}
        raise Failure(404, 404, "HTTP 404 Not Found")

    def known(self, subject):
        if subject not in self.subjects:
            raise Failure(404, 40401, f"Subject '{subject}' not found.")
        return self.subjects[subject]

    def add(self, subject, body):
        try:
            asked = json.loads(body)
            kind, text = asked.get("schemaType", "AVRO"), asked["schema"]
            # One schema written in two ways is one schema.
            text = json.dumps(json.loads(text), separators=(",", ":"))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Failure(422, 42201, "Invalid schema") from None
        if (kind, text) not in self.schemas:
            self.schemas.append((kind, text))
        number = self.schemas.index((kind, text)) + 1
        ids = self.subjects.setdefault(subject, [])
        if number not in ids:
            ids.append(number)
        return number


if __name__ == "__main__":
    with Registry(int(sys.argv[1]) if len(sys.argv) > 1 else 0) as started:
        print(f"REGISTRY={started.url}", flush=True)
        started.thread.join()
