"""What curl's callbacks collect of an answer, and the one place where a probe's socket is opened."""

import socket
from typing import Any

import pycurl

from healthmon.lib.addresses import Guard

MAX_BODY_BYTES = 1_048_576
NEARLY_ALL_HEADERS = 290_000  # bytes; curl's cap is 300 kB


class Answer:
    """What curl's callbacks collect during one hop, up to the caps.

    heard: every header line, those of 1xx answers included, by `heard.append` itself: a C function, where one of
        ours would cost a frame for each line. The cap is curl's: it ends a transfer after 300 kB or 5,000 lines of
        headers, all answers taken together.
    """

    def __init__(self, guard: Guard, keep_bytes: int) -> None:
        self._guard = guard
        self._keep_bytes = keep_bytes
        self._body_bytes = 0
        self.heard: list[bytes] = []
        self.body = bytearray()
        self.too_large = ""
        self.refusals: list[str] = []
        self.families: set[int] = set()
        self.socket_error: OSError | None = None

    @property
    def lines(self) -> list[bytes]:
        """The header lines of the last answer: those before it were 1xx."""
        for start in range(len(self.heard) - 1, 0, -1):
            if self.heard[start].startswith(b"HTTP/"):
                return self.heard[start:]
        return self.heard

    @property
    def headers_complete(self) -> bool:
        """Whether the blank line came that ends the headers; trailers may have come after it."""
        heard = self.heard
        return (bool(heard) and heard[-1].isspace()) or any(line.isspace() for line in self.lines)

    def drop(self) -> None:
        """Let go of what was collected; for when the probe is over."""
        self.heard.clear()
        self.body.clear()

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

    def take_body(self, data: bytes) -> int | None:
        self._body_bytes += len(data)
        if self._body_bytes > MAX_BODY_BYTES:
            self.too_large = f"The body is larger than {MAX_BODY_BYTES // 1_048_576} MB."
            return 0
        if len(self.body) < self._keep_bytes:
            self.body += data[: self._keep_bytes - len(self.body)]
        return None


class _HandedOver(socket.SocketType):
    """A socket whose descriptor pycurl duplicates; ours closes when dropped, without a ResourceWarning."""

    def __del__(self) -> None:
        self.close()
