"""What goes into a probe and what comes out: two frozen values, no Django, no socket."""

import functools
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum, auto
from typing import Any, Self


class Reason(StrEnum):
    """The one word for what a probe saw; also the metric label, the API value and the text shown."""

    ok = auto()
    slow = auto()
    timeout = auto()
    dns = auto()
    connect = auto()
    tls = auto()
    status = auto()
    body = auto()
    assertion = auto()
    too_large = auto()
    redirect = auto()
    blocked = auto()
    missed = auto()
    inconclusive = auto()


REASONS = tuple(reason.value for reason in Reason)

# `missed` and `inconclusive` are our own fault and move nothing; `ok` and `slow` speak for the target.
SILENT = frozenset({Reason.missed, Reason.inconclusive})
FAILING = frozenset(Reason) - SILENT - {Reason.ok, Reason.slow}


TARGET_CONTEXT = "target"  # what a Target's secrets are sealed for; see healthmon.lib.sealing


class _Wire:
    """To and from the plain dict that travels through the broker; what equals its default is left out."""

    __slots__ = ()

    def to_wire(self) -> dict[str, Any]:
        """Return the value as a JSON-able dict."""
        return {
            name: value
            for name, default in _defaults(type(self)).items()  # type: ignore[arg-type]
            if (value := getattr(self, name)) != default
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        """Return the value; what a newer publisher added is ignored. Raises TypeError when a field is missing."""
        known = _defaults(cls)  # type: ignore[arg-type]
        return cls(**{name: value for name, value in wire.items() if name in known})


@functools.cache
def _defaults(cls: Any) -> dict[str, Any]:
    """Return each field's default, or MISSING, which equals nothing that travels."""
    return {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(cls)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target(_Wire):
    """The part of a monitor that a probe needs, for one slot.

    scheduled_at, expires_at: epoch seconds of this slot and of the next: a probe that would start later than
        that is `missed`.
    sealed: `seal(probe_keys, {"headers": {…}, "body": …}, TARGET_CONTEXT)`, merged over the plain ones.
    expected_status: see `expectations.parse_expected_status`.
    connection: "fresh" (nothing is carried over from the probe before) or "reuse" (kept alive up to 300 s).
    urgent: started at once, out of turn.
    """

    monitor_id: int
    region: str
    scheduled_at: int
    expires_at: int
    kind: str = "http"
    url: str
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    sealed: str | None = None
    timeout_seconds: float = 10
    expected_status: str = "200-299"
    follow_redirects: bool = True
    verify_tls: bool = True
    degraded_after_ms: int | None = None
    connection: str = "fresh"
    urgent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(_Wire):
    """What one probe saw.

    started_at: epoch seconds. *_ms: what each phase took by itself, redirects added up, None where there was no
        such phase; first_byte_ms runs from the request sent to the first byte back.
    detail: "" when ok, else one plain sentence without secrets, at most 300 characters.
    evidence: when not ok, {"url", "status_code", "headers": {…}, "body": at most 2,048 characters}; secrets are
        replaced by "***".
    certificate_expires_at: epoch seconds, or None when this probe did not look.
    reused: no connection had to be opened.
    """

    monitor_id: int
    region: str
    scheduled_at: int
    started_at: float
    reason: Reason
    status_code: int | None = None
    total_ms: float | None = None
    dns_ms: float | None = None
    connect_ms: float | None = None
    tls_ms: float | None = None
    first_byte_ms: float | None = None
    detail: str = ""
    evidence: dict[str, Any] | None = None
    certificate_expires_at: int | None = None
    reused: bool = False
    urgent: bool = False

    def __post_init__(self) -> None:
        # Off the wire it is a plain string; `reason is Reason.slow` must hold all the same. Raises ValueError.
        object.__setattr__(self, "reason", Reason(self.reason))


def pace_ms(monitor_id: int) -> int:
    """Return a monitor's stable start offset inside its second, 0–999.

    Knuth's multiplicative hash: consecutive ids end up far apart. A second's probes fired at once made a loaded
    loop report 41 ms for a server that answers in 0.8 ms.
    """
    return monitor_id * 2654435761 % 2**32 % 1000
