"""What every kind of probe is handed, and what the loop asks of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import certifi

from healthmon.lib.addresses import Guard
from monitors.probing.certificates import CertificateLooks
from monitors.probing.outcome import Outcome, Target


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process lends to all its probes. ca_file: PEM file of the issuers that are trusted."""

    guard: Guard
    probe_keys: Sequence[str] = ()
    ca_file: str = field(default_factory=certifi.where)
    certificate_looks: CertificateLooks = field(default_factory=CertificateLooks)


class Unfit(Exception):
    """This target cannot be probed as it is, through no fault of the server's: the outcome is inconclusive."""


class Probe(Protocol):
    """One look at one target: a list of transfers, mostly one, each on a curl handle without options of another's.

    The loop calls `prepare`, runs the handle, and calls `finish`, until that returns an Outcome.
    Made by `PROBES[target.kind](target, surroundings, now=epoch seconds)`; that and `prepare` may raise Unfit.
    """

    def __init__(self, target: Target, surroundings: Surroundings, *, now: float) -> None: ...

    @property
    def host(self) -> str:
        """The name or address that the last transfer went to."""

    @property
    def plain(self) -> bool:
        """Whether this transfer's options are those that all plain ones share, and those that each sets itself."""

    def prepare(self, curl: Any, *, again: bool = False) -> None:
        """Set all options of the next transfer on a handle that has none.

        again: this and the handle's last transfer are plain, so the shared ones are set already.
        """

    def finish(self, curl: Any, code: int, message: str) -> Outcome | None:
        """Take in how the transfer ended (0 or pycurl.E_*, curl's words). None: there is another one to run."""
