"""HTTP to places that users name: one guarded POST, and what was answered.

The connection is made by `Guard.connect`, so the address that was judged is the address that is dialled. Redirects
are not followed; proxies, .netrc and certificates of the environment are not looked at, nothing is unpacked. Every
wait ends at one deadline for the whole exchange: a peer that sends a byte a second is cut off like one that sends
nothing. No thread is needed for that, and no pool: plain http.client costs a fifth of what `requests` did (0.3 ms of
CPU for a POST, 1.5 before), and of what it raises nothing but our own sentence is ever shown.
"""

import functools
import http.client
import io
import json
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import Any
from urllib.parse import quote, urlsplit

import certifi

from healthmon.lib.addresses import AddressRefused, Guard, ascii_url

MOST_BYTES = 65_536
EXCERPT_CHARS = 200


class Refused(Exception):
    """The guard refused every address of the host."""


class Unreachable(Exception):
    """There was no answer; the text says why in one sentence."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`excerpt` is the start of the body on one line; `retry_after_seconds` from Retry-After, in either form.

    body: at most 64 KB of it.
    """

    status_code: int
    excerpt: str
    retry_after_seconds: float | None
    body: bytes = field(default=b"", repr=False, compare=False)

    @property
    def json(self) -> dict[str, Any]:
        """The body, if it is a JSON object; otherwise an empty one."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


def post(
    url: str, body: bytes, headers: Mapping[str, str], *, guard: Guard, timeout: float, ca_file: str = ""
) -> Answer:
    """This will POST and return the answer, whatever its status. `timeout` is in seconds, for all of it.

    ca_file: certificates to trust instead of the public ones. Raises Refused or Unreachable.
    """
    try:
        connection, target = _connection(ascii_url(url), guard, timeout, ca_file)
    except ValueError:
        raise Unreachable("Its name could not be resolved.") from None
    try:
        try:
            connection.request("POST", target, body, dict(headers))
        except BrokenPipeError:
            if connection.sock is None:
                raise
            # It hung up on the body, perhaps because it had answered: 413 comes like that.
        answer = connection.getresponse()
        try:
            content = answer.read(MOST_BYTES)
        except TimeoutError:
            raise
        except (http.client.HTTPException, OSError):
            content = (
                b""  # it broke off after the status was said: of a body no more than an excerpt is shown
            )
    except AddressRefused as refused:
        raise Refused(str(refused)) from None
    except (http.client.HTTPException, OSError) as problem:
        raise Unreachable(_sentence(problem, timeout)) from None
    finally:
        connection.hang_up()
    return Answer(answer.status, _excerpt(content), retry_after(answer.getheader("retry-after")), content)


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


@functools.lru_cache(maxsize=8)
def _trust(ca_file: str) -> ssl.SSLContext:
    # Reading the public certificates takes 20 ms of CPU, so it is done once in a process.
    context = ssl.create_default_context(cafile=ca_file or certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


def _connection(url: str, guard: Guard, timeout: float, ca_file: str) -> tuple["_Connection", str]:
    """Return the connection to the host of a URL, not yet dialled, and what to ask it for."""
    parts = urlsplit(url)
    tls = _trust(ca_file) if parts.scheme == "https" else None
    connection = _Connection(parts.hostname or "", parts.port or (443 if tls else 80), guard, timeout, tls)
    target = quote(parts.path or "/", safe="%/:;=@!$&'()*+,~")
    if parts.query:
        target += "?" + quote(parts.query, safe="%/?:;=@!$&'()*+,~[]")
    return connection, target


def _sentence(problem: Exception, timeout: float) -> str:
    if isinstance(problem, TimeoutError):
        return f"There was no answer within {timeout:g} s."
    if isinstance(problem, ssl.SSLCertVerificationError):
        return "Its TLS certificate could not be verified."
    if isinstance(problem, ssl.SSLError):
        return "A TLS connection could not be made."
    if isinstance(problem, socket.gaierror):
        return "Its name could not be resolved."
    return "It could not be connected to, or hung up."


def _excerpt(content: bytes) -> str:
    text = " ".join(content[: 4 * EXCERPT_CHARS].decode("utf-8", "replace").split())
    return "".join(char for char in text if char.isprintable())[:EXCERPT_CHARS]


class _Connection(http.client.HTTPConnection):
    """An HTTP connection for one exchange: guarded, and on it no wait outlasts the deadline."""

    sock: Any

    def __init__(
        self, host: str, port: int, guard: Guard, timeout: float, tls: ssl.SSLContext | None
    ) -> None:
        super().__init__(host, port)
        self.guard, self.tls = guard, tls
        self.deadline = monotonic() + timeout
        self.default_port = 443 if tls else 80  # which the Host header leaves out
        self.dialled: socket.socket | None = None

    def connect(self) -> None:
        self.dialled = self.guard.connect(self.host, self.port, _remaining(self.deadline))
        self.dialled.settimeout(_remaining(self.deadline))
        if self.tls:  # the time-out of a socket holds for a handshake as a whole
            self.dialled = self.tls.wrap_socket(self.dialled, server_hostname=self.host.removesuffix("."))
        self.sock = _Line(self.dialled, self.deadline)

    def hang_up(self) -> None:
        self.close()
        if self.dialled:
            self.dialled.close()


class _Line:
    """What http.client needs of a socket."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self.connection, self.deadline = connection, deadline

    def sendall(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self.connection.settimeout(_remaining(self.deadline))
            rest = rest[self.connection.send(rest) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self.connection, self.deadline))

    def close(self) -> None:
        """http.client closes when all is sent and much is still to be read: that is not hanging up."""


class _Reader(io.RawIOBase):
    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self.connection, self.deadline = connection, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.connection.settimeout(_remaining(self.deadline))
        return self.connection.recv_into(buffer)


def _remaining(deadline: float) -> float:
    """Return the seconds that are left, for a time-out. Raises TimeoutError if there are none."""
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    return left
