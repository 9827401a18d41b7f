"""What a human will read, as a frozen value with its words: the one place where alerts are worded."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

KINDS = (
    "opened", "resolved", "acknowledged", "reminder", "escalated", "flapping", "certificate_expiring", "test",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What happened, to whom it may matter, and the facts to word it with.

    `kind` is one of KINDS; `at` is when it happened; `by` is the e-mail address of the person whose deed it was.
    A message of an incident carries all of the incident and monitor fields.
    """

    kind: str
    team_id: int
    at: datetime
    incident_id: int | None = None
    incident_status: str = ""
    reason: str = ""
    detail: str = ""
    opened_at: datetime | None = None
    resolved_at: datetime | None = None
    monitor_id: int | None = None
    monitor_name: str = ""
    monitor_url: str = ""
    runbook_url: str = ""
    tags: tuple[str, ...] = ()
    by: str = ""
    resolution: str = ""


_RESOLUTIONS = {
    "recovered": "It answers again",
    "by_person": "Resolved by hand",
    "paused": "The monitor was paused",
    "deleted": "The monitor was deleted",
}


def subject(message: Message) -> str:
    """This will return one line, such as `DOWN: Shop (status)`."""
    if message.kind == "test":
        return "Test from healthmon"
    word = {"opened": "DOWN", "resolved": "UP", "acknowledged": "ACKNOWLEDGED"}.get(
        message.kind, message.kind.upper().replace("_", " ")
    )
    if message.kind == "resolved" and message.resolution != "recovered":
        word = "RESOLVED"
    line = f"{word}: {message.monitor_name}"
    if message.kind == "opened":
        line += f" ({message.reason})"
    return " ".join(line.split())[:200]  # a name with a line break must not become a mail header


def text(message: Message, incident_url: str) -> str:
    """This will return a few plain lines: what failed, since when, the evidence, where to go."""
    if message.kind == "test":
        return "This is a test from healthmon. If you can read it, alerts will reach you here."
    lines = []
    if message.kind == "opened":
        lines.append(f"{message.monitor_name} is down since {_clock(message.opened_at)}.")
        lines.append(message.detail or f"Reason: {message.reason}.")
    elif message.kind == "resolved":
        what = _RESOLUTIONS.get(message.resolution, "Resolved")
        lines.append(
            f"{message.monitor_name}: {what[0].lower()}{what[1:]}{_by(message)}, {_clock(message.resolved_at)}."
        )
        if message.opened_at and message.resolved_at:
            lines.append(f"It was down for {_duration(message.resolved_at - message.opened_at)}.")
    elif message.kind == "acknowledged":
        lines.append(f"{message.monitor_name}: acknowledged{_by(message)}, {_clock(message.at)}.")
    else:
        lines.append(f"{message.monitor_name}: {message.kind.replace('_', ' ')}. {message.detail}".strip())
    lines.append("")
    lines.append(f"Watched: {message.monitor_url}")
    if message.runbook_url and message.kind != "resolved":
        lines.append(f"Runbook: {message.runbook_url}")
    if incident_url:
        lines.append(f"Incident: {incident_url}")
    return "\n".join(lines)


def payload(message: Message, team_slug: str, incident_url: str) -> dict[str, Any]:
    """This will return the JSON body that a webhook receives (product.md, "What a webhook receives")."""
    incident: Mapping[str, Any] | None = None
    monitor: Mapping[str, Any] | None = None
    if message.incident_id is not None:
        incident = {
            "id": message.incident_id,
            "status": message.incident_status,
            "reason": message.reason,
            "opened_at": _iso(message.opened_at),
            "resolved_at": _iso(message.resolved_at),
            "url": incident_url,
        }
        monitor = {"id": message.monitor_id, "name": message.monitor_name, "url": message.monitor_url}
    return {
        "type": "test" if message.kind == "test" else f"incident.{message.kind}",
        "timestamp": _iso(message.at),
        "data": {
            "incident": incident,
            "monitor": monitor,
            "team": {"slug": team_slug},
            "message": text(message, incident_url),
        },
    }


def _by(message: Message) -> str:
    return f" by {message.by}" if message.by else ""


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None


def _clock(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else "an unknown time"


def _duration(length: timedelta) -> str:
    seconds = max(0, round(length.total_seconds()))
    days, seconds = divmod(seconds, 86_400)
    hours, seconds = divmod(seconds, 3_600)
    minutes, seconds = divmod(seconds, 60)
    parts = [f"{n} {unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")) if n]
    return " ".join(parts[:2]) or "less than a second"
