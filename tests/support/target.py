"""A server to be watched: answers as it is told, remembers who asked, and can misbehave in every way we know of.

    with TargetServer() as target:
        target.default = reply(503)
        target.answers["/slow"] = reply(delay=2)
        ... probe target.url("/slow") ...
        assert target.seen[0].path == "/slow"

An answer is a function of the connection and the request. `reply` makes the civil ones; the hostile ones follow it.
"""

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from typing import BinaryIO, Self

LONGEST_REQUEST = 1 << 20


@dataclass(frozen=True)
class Seen:
    """A request as it arrived, and when (epoch seconds). `headers` looks names up in any case."""

    method: str
    path: str
    headers: Message
    body: bytes
    at: float


@dataclass
class Wire:
    """The server's end of one connection, as an answer gets it."""

    socket: socket.socket
    closing: threading.Event  # set when the server shuts down
    keep_open: bool = field(default=False)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def wait(self, seconds: float) -> None:
        """Wait, but not for longer than the server lives."""
        if self.closing.wait(seconds):
            raise ConnectionAbortedError("the server is closing")


Answer = Callable[[Wire, Seen], None]
Headers = Iterable[tuple[str, str]]


def reply(status: int = 200, body: bytes = b"ok", headers: Headers = (), delay: float = 0) -> Answer:
    """Return a complete answer after `delay` seconds; the connection stays open."""
    lines = [*headers, ("Content-Length", str(len(body)))]

    def answer(wire: Wire, seen: Seen) -> None:
        if delay:
            wire.wait(delay)
        wire.send(_head(status, lines) + (b"" if seen.method == "HEAD" else body))
        wire.keep_open = True

    return answer


def redirect(to: str, status: int = 302) -> Answer:
    """Return a redirect."""
    return reply(status, b"", [("Location", to)])


def echo(wire: Wire, seen: Seen) -> None:
    """Answer 500 with what was sent, as careless servers do."""
    sent = "".join(f"{name}: {value}\n" for name, value in seen.headers.items())
    reply(500, sent.encode() + seen.body, [("X-Echo", seen.headers.get("Authorization", ""))])(wire, seen)


def drip(wire: Wire, seen: Seen) -> None:
    """Promise a body and send a byte of it every 50 ms."""
    wire.send(_head(200, [("Content-Length", "100000")]))
    while True:
        wire.send(b".")
        wire.wait(0.05)


def hang(wire: Wire, seen: Seen) -> None:
    """Take the request and say nothing."""
    wire.wait(3600)


class Hold:
    """Take the request, say nothing until `release`, and note that it came and that whoever asked has left.

    asked, left: threading.Event; between the two a request is held open.
    """

    def __init__(self) -> None:
        self.asked, self.left = threading.Event(), threading.Event()
        self._released = threading.Event()

    def release(self) -> None:
        """Answer 204 now."""
        self._released.set()

    def __call__(self, wire: Wire, seen: Seen) -> None:
        self.asked.set()
        while not select.select([wire.socket], [], [], 0.05)[0]:
            wire.wait(0)
            if self._released.is_set():
                reply(204, b"")(wire, seen)
                break
        self.left.set()


def hang_up(wire: Wire, seen: Seen) -> None:
    """Close the connection without a word."""


def half_headers(wire: Wire, seen: Seen) -> None:
    """Close in the middle of the headers."""
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Ty")


def half_body(wire: Wire, seen: Seen) -> None:
    """Close in the middle of the body."""
    wire.send(_head(200, [("Content-Length", "1000")]) + b"half")


def not_http(wire: Wire, seen: Seen) -> None:
    """Speak something else."""
    wire.send(b"220 mail.example.com ESMTP ready\r\n")


def huge_body(wire: Wire, seen: Seen) -> None:
    """Send a body without end."""
    wire.send(_head(200, []))
    _flood(wire, b"x" * 65_536)


def endless_headers(wire: Wire, seen: Seen) -> None:
    """Send header lines without end."""
    wire.send(b"HTTP/1.1 200 OK\r\n")
    _flood(wire, b"X-More: and more\r\n" * 1000)


def endless_header_line(wire: Wire, seen: Seen) -> None:
    """Send one header line without end."""
    wire.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    _flood(wire, b"x" * 65_536)


def early_hints(wire: Wire, seen: Seen) -> None:
    """Send 103 answers without end."""
    _flood(wire, b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n" * 100)


class TargetServer:
    """A threaded HTTP/1.1 server on a port of its own; a context manager.

    answers: by path without query; `default` is for all others. Both may be changed at any time.
    seen: requests in the order they came. connections: how many were accepted.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        self.answers: dict[str, Answer] = {}
        self.default: Answer = reply()
        self.seen: list[Seen] = []
        self.connections = 0
        self.host, self.port = host, port
        self._tls = tls
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._acceptor: threading.Thread | None = None
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        self.start_listening()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_listening()

    def url(self, path: str = "/", host: str | None = None) -> str:
        """Return the URL of a path, under another name of this host if one is given."""
        return f"http{'s' if self._tls else ''}://{host or self.host}:{self.port}{path}"

    def count(self, path: str) -> int:
        """Return how many requests a path has had."""
        return sum(seen.path == path for seen in self.seen)

    def start_listening(self) -> None:
        """Accept connections, on the same port as before if there was one."""
        self._closing = threading.Event()
        self._listener = socket.create_server((self.host, self.port), backlog=1024)
        self.port = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(
            target=self._accept, args=(self._listener, self._closing), daemon=True
        )
        self._acceptor.start()

    def stop_listening(self) -> None:
        """Close everything: from here on connections are refused."""
        self._closing.set()
        listener, self._listener = self._listener, None
        if listener is None or self._acceptor is None:
            return
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept()
        self._acceptor.join(timeout=5)
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=5)
        self._threads.clear()
        listener.close()

    def _accept(self, listener: socket.socket, closing: threading.Event) -> None:
        while not closing.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection, closing), daemon=True)
            self._threads = [old for old in self._threads if old.is_alive()] + [thread]
            thread.start()

    def _serve(self, plain: socket.socket, closing: threading.Event) -> None:
        connection = plain
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                connection = self._tls.wrap_socket(plain, server_side=True)
                with self._lock:
                    self._open = (self._open - {plain}) | {connection}
            with connection.makefile("rb") as stream:
                while seen := _read_request(stream):
                    with self._lock:
                        self.seen.append(seen)
                    wire = Wire(connection, closing)
                    self.answers.get(seen.path.partition("?")[0], self.default)(wire, seen)
                    if not wire.keep_open:
                        return
        except OSError:
            return  # the client has had enough, which is often the point
        finally:
            with self._lock:
                self._open -= {plain, connection}
            connection.close()
            plain.close()


def _read_request(stream: BinaryIO) -> Seen | None:
    start = stream.readline(LONGEST_REQUEST).split()
    if len(start) != 3:
        return None
    lines = []
    while (line := stream.readline(LONGEST_REQUEST)) not in (b"\r\n", b""):
        lines.append(line)
    headers = BytesParser().parsebytes(b"".join(lines), headersonly=True)
    body = stream.read(int(headers.get("Content-Length", "0")))
    return Seen(start[0].decode("latin-1"), start[1].decode("latin-1"), headers, body, time.time())


def _head(status: int, headers: Headers) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode("latin-1")


def _flood(wire: Wire, data: bytes) -> None:
    while not wire.closing.is_set():
        wire.send(data)
