"""What an on-call service is to do with a message: open, acknowledge or close which alarm."""

from dataclasses import dataclass
from typing import Any

from notifications.transports.base import Envelope

OPEN, ACKNOWLEDGE, CLOSE = "open", "acknowledge", "close"

_OF_INCIDENT = {
    "opened": OPEN,
    "reminder": OPEN,
    "escalated": OPEN,
    "acknowledged": ACKNOWLEDGE,
    "resolved": CLOSE,
}
_OF_SLOWNESS = {"degraded": OPEN, "recovered": CLOSE}


@dataclass(frozen=True, slots=True)
class Alarm:
    """action: `open`, `acknowledge` or `close`. key: the same for all that belongs together, so that an alarm is
    opened once however often it is told, and closed by what ends it."""

    action: str
    key: str


def alarm(envelope: Envelope) -> Alarm:
    """This will return what to do; what belongs to nothing else opens an alarm of its own, to be closed by hand."""
    if envelope.incident_id is not None and envelope.kind in _OF_INCIDENT:
        return Alarm(_OF_INCIDENT[envelope.kind], f"healthmon-incident-{envelope.incident_id}")
    monitor_id = monitor_of(envelope).get("id")
    if monitor_id is not None and envelope.kind in _OF_SLOWNESS:
        return Alarm(_OF_SLOWNESS[envelope.kind], f"healthmon-degraded-{monitor_id}")
    return Alarm(OPEN, f"healthmon-{envelope.key}")


def monitor_of(envelope: Envelope) -> dict[str, Any]:
    """Return the monitor of the payload, empty if it is of none."""
    return envelope.payload.get("data", {}).get("monitor") or {}
