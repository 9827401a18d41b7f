"""A second opinion on names that did not resolve: is it the name, or is it our resolver?

A resolver of ours that is down makes every name fail, and must not open an incident for each of them.
"""

import socket
import threading
import time
from collections.abc import Callable

from healthmon.lib.addresses import resolve

CONTROL_NAME = "a.root-servers.net"
TIMEOUT_SECONDS = 3.0
_CONTROL_HOLDS_SECONDS = 5.0
# "No such name" and "no address for that name" are answers: somebody was asked and knew.
_ANSWERS = frozenset((socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)))


class Resolver:
    """Tells a bad name from a bad resolver. May be asked from several threads.

    look_up: like `healthmon.lib.addresses.resolve`.
    """

    def __init__(self, look_up: Callable[[str, int, float], object] = resolve) -> None:
        self._look_up = look_up
        self._lock = threading.Lock()
        self._control: tuple[float, bool] | None = None  # (monotonic seconds, did it answer)

    def blames_name(self, host: str) -> bool:
        """Return whether a failed lookup of `host` is the fault of the name. Takes up to 6 s.

        True: the resolver says that there is no such name, or has no answer to this name alone. False: it
        answers nothing, or resolves the name now.
        """
        answered = self._answered(host)
        if answered is not None:
            return answered
        with self._lock:  # a storm of failures shares one look at the control name
            now = time.monotonic()
            if self._control is None or now - self._control[0] > _CONTROL_HOLDS_SECONDS:
                self._control = (now, self._answered(CONTROL_NAME) is not None)
            return self._control[1]

    def _answered(self, host: str) -> bool | None:
        """Return True for "no such name", False for an address, None for no answer."""
        try:
            self._look_up(host, 80, TIMEOUT_SECONDS)
        except TimeoutError:
            return None
        except socket.gaierror as error:
            return True if error.errno in _ANSWERS else None
        return False
