"""An S3 that misbehaves: it stands before a real one, and refuses, delays, breaks off, or does what it is asked and then says that it failed."""

import http.client
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Each has its turn about equally often.
FAULTS = ["refused", "delayed", "done, and then failed", "done, and then broken off"]
HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "server", "date"}


class FaultyS3:
    """A context manager; `rate` of the requests meet a fault, all of them where it is 1, of which then nothing is done."""

    def __init__(self, behind, seed, rate=0.0):
        self.host, self.port = behind.removeprefix("http://").split(":")
        self.rate, self.seeded, self.lock, self.met = rate, random.Random(seed), threading.Lock(), Counter()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fault = proxy.fault()
                if fault == "refused":
                    return self.answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
                if fault == "delayed":
                    time.sleep(0.3)
                status, headers, answer = proxy.forward(self.command, self.path, body, self.headers)
                if fault == "done, and then failed":
                    return self.answer(500, {}, b"<Error><Code>InternalError</Code></Error>")
                if fault == "done, and then broken off":
                    self.close_connection = True
                    return None
                return self.answer(status, headers, answer)

            def answer(self, status, headers, body):
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in HOP:
                        self.send_header(name, value)
                length = headers.get("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = any

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                """A client that was killed breaks off."""

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def fault(self):
        with self.lock:
            if self.rate >= 1:
                fault = "refused"
            else:
                fault = self.seeded.choice(FAULTS) if self.seeded.random() < self.rate else None
            self.met[fault] += 1
            return fault

    def forward(self, method, path, body, headers):
        connection = http.client.HTTPConnection(self.host, int(self.port), timeout=60)
        try:
            kept = {k: v for k, v in headers.items() if k.lower() not in HOP - {"content-length"}}
            connection.request(method, path, body, kept)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
