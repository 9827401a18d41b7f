"""What goes into a probe and what comes out: two frozen values, no Django, no socket."""

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import StrEnum, auto
from typing import Any, Self, TypeVar, dataclass_transform


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
_BY_VALUE = {reason.value: reason for reason in Reason}  # `Reason("ok")` takes ten times as long

# `missed` and `inconclusive` are our own fault and move nothing; `ok` and `slow` speak for the target.
SILENT = frozenset({Reason.missed, Reason.inconclusive})
FAILING = frozenset(Reason) - SILENT - {Reason.ok, Reason.slow}


TARGET_CONTEXT = "target"  # what a Target's secrets are sealed for; see healthmon.lib.sealing


_Value = TypeVar("_Value", bound=type)


@dataclass_transform(frozen_default=True)
def _value(cls: _Value) -> _Value:
    """Make a dataclass that is frozen to mypy alone.

    At run time a frozen one is filled field by field through `object.__setattr__`: 4.7 µs for an Outcome instead
    of 0.7, and each check fills four of these values.
    """
    return dataclass(slots=True)(cls)  # type: ignore[return-value]


class _Wire:
    """To and from the row that travels through the broker: the values in the order of the fields.

    A new field goes to the end and has a default, nothing is ever removed or moved: then an older reader ignores
    what a newer publisher adds, and a newer reader fills in what an older publisher does not know. (By name it was
    2.5 times as expensive: each check is written and read twice.)
    """

    __slots__ = ()

    def to_wire(self) -> list[Any]:
        """Return the value as a JSON-able list, to be read by nobody but `from_wire`."""
        return list(_all_fields(type(self))(self))  # type: ignore[arg-type]

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Return the value. Raises TypeError when `wire` is not what `to_wire` gave."""
        return cls(*cls._row(wire))

    @classmethod
    def _row(cls, wire: Any) -> list[Any]:
        match wire:
            # Enough to tell a row from garbage, and to keep what is no number out of the loop's arithmetic.
            case [int(), str(), int(), int() | float(), str(), *_]:
                return wire[: len(cls.__slots__)]
        raise TypeError(f"not a {cls.__name__} as it travels; it begins with {str(wire)[:20]!r}")


@functools.cache
def _all_fields(cls: type) -> Callable[[Any], tuple[Any, ...]]:
    return operator.attrgetter(*(field.name for field in fields(cls)))


@_value
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
    url: str
    kind: str = "http"
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


@_value
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

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Return the value. Raises TypeError when `wire` is not what `to_wire` gave."""
        row = cls._row(wire)
        try:
            row[4] = _BY_VALUE[row[4]]  # so that `reason is Reason.slow` holds
        except KeyError:
            raise TypeError(f"not a reason: {row[4][:80]!r}") from None
        return cls(*row)


def pace_ms(monitor_id: int) -> int:
    """Return a monitor's stable start offset inside its second, 0–999.

    Knuth's multiplicative hash: consecutive ids end up far apart. A second's probes fired at once made a loaded
    loop report 41 ms for a server that answers in 0.8 ms.
    """
    return monitor_id * 2654435761 % 2**32 % 1000
