"""HTTP to places that users name, where convenience counts and speed does not: `requests`, through the guard.

Every connection is made by `Guard.connect`, so the address that was judged is the address that is dialled. Redirects
are not followed, environment proxies and .netrc are ignored, and a clock runs over the whole exchange: a peer that
sends a byte a second is cut off like one that sends nothing.
"""

import re
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from healthmon.lib.addresses import AddressRefused, Guard

MOST_BYTES = 65_536
EXCERPT_CHARS = 200


class Refused(Exception):
    """The guard refused every address of the host."""


class Unreachable(Exception):
    """There was no answer; the text says why in one sentence."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`excerpt` is the start of the body on one line; `retry_after_seconds` from Retry-After, in either form."""

    status_code: int
    excerpt: str
    retry_after_seconds: float | None


def post(
    url: str, body: bytes, headers: Mapping[str, str], *, guard: Guard, timeout: float, ca_file: str = ""
) -> Answer:
    """This will POST and return the answer, whatever its status. `timeout` is in seconds, for all of it.

    ca_file: certificates to trust instead of the public ones. Raises Refused or Unreachable.
    """
    line = _Line(guard, timeout)
    # Not a Session: one reads the environment, asks for compression, keeps cookies, and of a redirect that it is
    # told not to follow it still reads the whole body into memory.
    request = requests.Request("POST", url, data=body, headers=dict(headers))
    try:
        with (
            line.clock(),
            line.send(
                request.prepare(), stream=True, timeout=timeout, verify=ca_file or True, proxies={}
            ) as response,
        ):
            try:
                content = response.raw.read(MOST_BYTES, decode_content=False)
            except (HTTPError, OSError):
                content = (
                    b""  # it broke off, after the status was said: of a body no more than an excerpt is shown
                )
            if line.expired:
                raise TimeoutError
            return Answer(
                response.status_code, _excerpt(content), retry_after(response.headers.get("retry-after"))
            )
    except AddressRefused as refused:
        raise Refused(str(refused)) from None
    except Exception as problem:
        if line.refused:
            raise Refused(line.refused) from None
        if isinstance(problem, (requests.RequestException, HTTPError, OSError)) or line.expired:
            raise Unreachable(line.sentence(problem)) from None
        raise
    finally:
        line.close()


def retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """This will read a Retry-After header: seconds or an HTTP date; None if it is neither."""
    if not header:
        return None
    if re.fullmatch(r"\s*[0-9]{1,12}\s*", header):
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, TypeError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


def _excerpt(content: bytes) -> str:
    text = " ".join(content[: 4 * EXCERPT_CHARS].decode("utf-8", "replace").split())
    return "".join(char for char in text if char.isprintable())[:EXCERPT_CHARS]


class _Line(HTTPAdapter):
    """A requests adapter for one exchange: guarded connections, and a clock that hangs up."""

    def __init__(self, guard: Guard, timeout: float) -> None:
        self.guard = guard
        self.timeout = timeout
        self.deadline = monotonic() + timeout
        self.handles: list[socket.socket] = []
        self.refused = ""
        self.expired = False
        super().__init__(max_retries=0)

    def clock(self) -> "_Clock":
        return _Clock(self)

    def dial(self, host: str, port: int) -> socket.socket:
        try:
            connection = self.guard.connect(host, port, max(0.01, self.deadline - monotonic()))
        except AddressRefused as refused:
            self.refused = str(refused)
            raise
        # A duplicate, because TLS takes the descriptor away from the original: hanging up must work for both.
        self.handles.append(connection.dup())
        if self.expired:  # the clock looked before there was anything to hang up
            self.hang_up()
        return connection

    def hang_up(self) -> None:
        self.expired = True
        for handle in self.handles:
            with suppress(OSError):  # the other side was quicker
                handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        super().close()
        for handle in self.handles:
            handle.close()

    def sentence(self, problem: Exception) -> str:
        if self.expired or monotonic() >= self.deadline or isinstance(problem, requests.Timeout):
            return f"There was no answer within {self.timeout:g} s."
        if isinstance(problem, requests.exceptions.SSLError):
            if "CERTIFICATE_VERIFY_FAILED" in repr(problem) or "CertificateError" in repr(problem):
                return "Its TLS certificate could not be verified."
            return "A TLS connection could not be made."
        if "NameResolution" in repr(problem) or "gaierror" in repr(problem):
            return "Its name could not be resolved."
        if isinstance(problem, (requests.ConnectionError, HTTPError)):
            return "It could not be connected to, or hung up."
        return f"It could not be sent ({type(problem).__name__})."

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        line = self

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return line.dial(self._dns_host, self.port)

        class Tls(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return line.dial(self._dns_host, self.port)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class TlsPool(HTTPSConnectionPool):
            ConnectionCls = Tls

        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}


class _Clock:
    def __init__(self, line: _Line) -> None:
        self.timer = threading.Timer(line.timeout, line.hang_up)
        self.timer.daemon = True

    def __enter__(self) -> None:
        self.timer.start()

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()
        self.timer.join()
