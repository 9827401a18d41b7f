"""When a server's certificate runs out."""

import ssl
from collections.abc import Sequence

LOOK_EVERY_SECONDS = 600  # curl spells the whole chain out for us: some 140 µs on top of a handshake's 1.3 ms
_MOST = 100_000


class CertificateLooks:
    """Remembers when each monitor's certificate was last looked at; memory is bounded by forgetting all."""

    def __init__(self) -> None:
        self._looked_at: dict[int, float] = {}

    def is_due(self, monitor_id: int, now: float) -> bool:
        """Return whether the last look is LOOK_EVERY_SECONDS ago. now: any clock in seconds."""
        return now - self._looked_at.get(monitor_id, -LOOK_EVERY_SECONDS) >= LOOK_EVERY_SECONDS

    def looked(self, monitor_id: int, now: float) -> None:
        """Note a look that brought an answer."""
        if len(self._looked_at) >= _MOST:
            self._looked_at.clear()
        self._looked_at[monitor_id] = now


def expires_at(chain: Sequence[Sequence[tuple[bytes, bytes]]]) -> int | None:
    """Return the leaf's end of validity in epoch seconds, or None where it cannot be read.

    chain: CURLINFO_CERTINFO in bytes, the leaf first, (name, value) pairs each. Bytes, because the values are
        what a server wrote into its own certificate.
    """
    for pair in chain[0] if chain else ():
        if pair[0] == b"Expire date":
            try:
                return int(ssl.cert_time_to_seconds(pair[1].decode("ascii")))
            except ValueError:
                return None
    return None
