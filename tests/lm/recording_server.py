"""A server on loopback that records what it receives, and answers nothing."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, NamedTuple

__all__ = ["ReceivedRequest", "RecordingServer", "recording_server"]


class ReceivedRequest(NamedTuple):
    """One request. The names of the headers are in lower case."""

    path: str
    headers: dict[str, str]
    body: Any


class RecordingServer(HTTPServer):
    """Records each request, and redirects it to ``target``, or refuses its key where there is no target."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[ReceivedRequest] = []
        self.target: str | None = None


class _Handler(BaseHTTPRequestHandler):
    server: RecordingServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append(ReceivedRequest(self.path, headers, body))
        self.send_response(307 if self.server.target else 401)
        if self.server.target:
            self.send_header("Location", self.server.target)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def recording_server() -> Iterator[RecordingServer]:
    """A server that runs in a thread until the end of the block."""
    http = RecordingServer()
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield http
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
