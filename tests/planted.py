"""A server that tests must not reach. It answers every request as a model would, and records it."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_REPLY = {
    "id": "x",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "planted"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


@dataclass
class Planted:
    """Use ``with Planted() as planted``. ``planted.requests`` is a list of (method, path, headers, body)."""

    requests: list = field(default_factory=list)

    def __enter__(self):
        planted = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                planted.requests.append((self.command, self.path, dict(self.headers), body))
                data = json.dumps(_REPLY).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def __getattr__(self, name):  # answers every HTTP method
                if name.startswith("do_"):
                    return self.answer
                raise AttributeError(name)

            def log_message(self, *args):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(10)

    @property
    def host(self):
        return f"127.0.0.1:{self._http.server_port}"

    @property
    def base(self):
        return f"http://{self.host}/v1"
