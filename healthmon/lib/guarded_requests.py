"""`requests` in the hands of a library that takes no session of ours: guarded, bounded, and on a clock.

    wire = Wire(guard, seconds)
    with wire:
        library.send()      # in this thread; whatever it asks of requests or urllib3 goes over the wire
    wire.status_code, wire.problem, wire.refused, wire.expired

Every connection is dialled by `Guard.connect`, those of redirects too. Proxies, .netrc and certificates of the
environment are not looked at. All requests together end at one deadline, of each answer 1 MB is read, and urllib3
logs nothing of them.
"""

import logging
import socket
import threading
from contextlib import suppress
from contextvars import ContextVar, Token
from time import monotonic
from typing import Any, Self

import requests
import urllib3.util.connection
from requests.adapters import HTTPAdapter
from urllib3 import PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from healthmon.lib.addresses import AddressRefused, Guard
from healthmon.lib.outgoing import retry_after

MOST_BYTES = 1_048_576

_current: ContextVar["Wire | None"] = ContextVar("wire", default=None)


class Wire(HTTPAdapter):
    """A line for all that happens in its `with` block, and a note of how the last request went.

    status_code, retry_after_seconds: of the last answer; None if there was none. problem: why there was none, in a
    sentence without the URL. refused: why the guard refused an address. expired: the clock hung up.
    """

    def __init__(self, guard: Guard, timeout: float) -> None:
        self.guard = guard
        self.timeout = timeout
        self.deadline = monotonic() + timeout
        self.status_code: int | None = None
        self.retry_after_seconds: float | None = None
        self.problem = self.refused = ""
        self.expired = False
        self._handles: list[socket.socket] = []
        super().__init__(max_retries=0)

    def __enter__(self) -> Self:
        self._clock = threading.Timer(max(0, self.deadline - monotonic()), self._hang_up)
        self._clock.daemon = True
        self._clock.start()
        self._before: Token[Wire | None] = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _current.reset(self._before)
        self._clock.cancel()
        self._clock.join()
        self.close()
        for handle in self._handles:
            handle.close()

    def dial(self, host: str, port: int) -> socket.socket:
        """Return a connection. Raises AddressRefused, TimeoutError or another OSError."""
        try:
            connection = self.guard.connect(host, port, self._remaining())
        except AddressRefused as refused:
            self.refused = str(refused)
            raise
        # A duplicate, because TLS takes the descriptor away from the original: hanging up must work for both.
        self._handles.append(connection.dup())
        if self.expired:  # the clock looked before there was anything to hang up
            self._hang_up()
        return connection

    def send(self, request: requests.PreparedRequest, *_: Any, **options: Any) -> requests.Response:
        self.status_code = self.retry_after_seconds = None
        self.problem = ""
        try:
            response = super().send(
                request,
                stream=True,
                timeout=self._remaining(),
                verify=options.get("verify", True),
                cert=options.get("cert"),
                proxies={},
            )
            with response:
                content = self._content(response)
        except (requests.RequestException, HTTPError, OSError) as problem:
            self.problem = self._sentence(problem)
            raise requests.ConnectionError(self.problem) from None  # without the URL that its text holds
        response._content = content  # so the rest of the body is read by nobody
        response._content_consumed = True  # type: ignore[attr-defined]
        self.status_code = response.status_code
        self.retry_after_seconds = retry_after(response.headers.get("retry-after"))
        return response

    def _content(self, response: requests.Response) -> bytes:
        try:
            content = response.raw.read(MOST_BYTES, decode_content=True)
        except (HTTPError, OSError):
            content = b""  # it broke off, after the status was said
        if self.expired:
            raise TimeoutError
        return content

    def _remaining(self) -> float:
        left = self.deadline - monotonic()
        if left <= 0:
            self.expired = True
            raise TimeoutError
        return left

    def _hang_up(self) -> None:
        self.expired = True
        for handle in list(self._handles):
            with suppress(OSError):  # the other side was quicker
                handle.shutdown(socket.SHUT_RDWR)

    def _sentence(self, problem: Exception) -> str:
        if self.expired or isinstance(problem, (requests.Timeout, TimeoutError)):
            return f"There was no answer within {self.timeout:g} s."
        if isinstance(problem, requests.exceptions.SSLError):
            return "A TLS connection could not be made, or its certificate could not be verified."
        return "It could not be connected to, or hung up."

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        wire = self

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return wire.dial(self._dns_host, self.port)

        class Tls(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return wire.dial(self._dns_host, self.port)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class TlsPool(HTTPSConnectionPool):
            ConnectionCls = Tls

        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}


# These two of everybody's functions ask whether this thread is inside a `with` of ours; for all others nothing changes.
_session_init = requests.Session.__init__
_create_connection = urllib3.util.connection.create_connection


def _init(self: requests.Session) -> None:
    _session_init(self)
    if wire := _current.get():
        self.trust_env = False
        self.mount("https://", wire)
        self.mount("http://", wire)


def _dial(address: tuple[str, int], *args: Any, **options: Any) -> socket.socket:
    # For what came by another way than a session of requests.
    wire = _current.get()
    return wire.dial(*address) if wire else _create_connection(address, *args, **options)


def _mute(record: logging.LogRecord) -> bool:
    return _current.get() is None


requests.Session.__init__ = _init  # type: ignore[method-assign]
urllib3.util.connection.create_connection = _dial

# It logs URLs, tokens included: at DEBUG each request, at WARNING whoever answers with a crooked header.
for _name in ("connection", "connectionpool", "poolmanager", "response", "util.retry"):
    logging.getLogger(f"urllib3.{_name}").addFilter(_mute)
