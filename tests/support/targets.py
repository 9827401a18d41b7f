"""Servers to be watched and to be told: they answer as the test says and remember what came."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class Server:
    url: str = ""
    status: int = 200  # what it answers from now on
    seen: list[tuple[dict[str, str], Any]] = field(
        default_factory=list
    )  # headers in lower case, decoded body

    def types(self) -> list[str]:
        """The kinds of alert that came, in order."""
        return [body["type"] for _, body in self.seen if body]


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            server.seen.append((headers, json.loads(body) if body else None))
            self.send_response(server.status)
            self.send_header("content-length", "0")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        thread = Thread(target=http.serve_forever)
        thread.start()
        server.url = f"http://127.0.0.1:{http.server_port}/"
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
