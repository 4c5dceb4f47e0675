"""An S3 server on this machine, and a proxy before it that fails as networks do."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def s3_server() -> Iterator[int]:
    """moto's server in a process of its own, at this port."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()


class Faults:
    """What the proxy does to every `every`th request, in turn; `log` has method, path and fault of each."""

    def __init__(self, every: int = 0, kinds: tuple[str, ...] = ("500", "drop", "cut", "slow")) -> None:
        self.every, self.kinds = every, kinds
        self.count = 0
        self.lock = threading.Lock()
        self.log: list[tuple[str, str, str | None]] = []

    def next(self, method: str, path: str) -> str | None:
        with self.lock:
            self.count += 1
            fault = None
            if self.every and self.count % self.every == 0:
                fault = self.kinds[self.count // self.every % len(self.kinds)]
            self.log.append((method, path, fault))
            return fault


@contextmanager
def faulty_proxy(port: int, faults: Faults) -> Iterator[int]:
    """A proxy before the server at `port`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            fault = faults.next(self.command, self.path)
            if fault == "drop":
                self.close_connection = True
                return
            if fault == "500":
                self.send_response(500)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault == "slow":
                time.sleep(0.2)
            onward = http.client.HTTPConnection("127.0.0.1", port)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            onward.request(self.command, self.path, body, headers)
            answer = onward.getresponse()
            data = answer.read()
            onward.close()
            self.send_response(answer.status)
            length = len(data)
            for name, value in answer.getheaders():
                if name.lower() == "content-length":
                    length = int(value)
                elif name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if fault == "cut" and self.command == "GET" and len(data) > 1:
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
