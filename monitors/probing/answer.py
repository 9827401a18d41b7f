"""What curl's callbacks collect of an answer, and the one place where a probe's socket is opened."""

import socket
from typing import Any

import pycurl

from healthmon.lib.addresses import Guard

MAX_BODY_BYTES = 1_048_576
MAX_HEADER_BYTES = 131_072  # all header lines together, those of any number of 1xx answers included


class Answer:
    """What curl's callbacks collect during one hop, up to the caps."""

    def __init__(self, guard: Guard, keep_bytes: int) -> None:
        self._guard = guard
        self._keep_bytes = keep_bytes
        self.lines: list[bytes] = []
        self.body = bytearray()
        self.headers_complete = False
        self.too_large = ""
        self.refusals: list[str] = []
        self.families: set[int] = set()
        self.socket_error: OSError | None = None
        self._header_bytes = self._body_bytes = 0

    def open_socket(self, purpose: int, address: Any) -> Any:
        """Open the socket that curl is about to connect, unless its address is refused: then no packet leaves."""
        refusal = self._guard.refusal(address.addr[0])
        if refusal is not None:
            self.refusals.append(refusal)
            return pycurl.SOCKET_BAD
        try:
            opened = _HandedOver(address.family, address.socktype, address.protocol)
        except OSError as error:
            self.socket_error = error
            return pycurl.SOCKET_BAD
        self.families.add(address.family)
        return opened

    def take_header(self, line: bytes) -> int | None:
        self._header_bytes += len(line)
        if self._header_bytes > MAX_HEADER_BYTES:
            self.too_large = f"The headers are larger than {MAX_HEADER_BYTES // 1024} kB."
            return 0
        if line.startswith(b"HTTP/"):  # the next answer: those before it were 1xx
            self.lines.clear()
            self.headers_complete = False
        elif not line.strip():
            self.headers_complete = True
        self.lines.append(line)
        return None

    def take_body(self, data: bytes) -> int | None:
        self._body_bytes += len(data)
        if self._body_bytes > MAX_BODY_BYTES:
            self.too_large = f"The body is larger than {MAX_BODY_BYTES // 1_048_576} MB."
            return 0
        if len(self.body) < self._keep_bytes:
            self.body += data[: self._keep_bytes - len(self.body)]
        return None


class _HandedOver(socket.socket):
    """A socket whose descriptor pycurl duplicates; ours closes when dropped, without a ResourceWarning."""

    def __del__(self) -> None:
        self.close()
