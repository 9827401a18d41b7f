"""What a human will read, as a frozen value with its words: the one place where alerts are worded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from unicodedata import category

import structlog

from notifications import team_templates

log = structlog.get_logger(__name__)

KINDS = (
    "opened", "resolved", "acknowledged", "reminder", "escalated", "degraded", "recovered", "flapping",
    "certificate_expiring", "channel_failing", "test",
)  # fmt: skip
SEVERITIES = ("critical", "warning", "info")  # the worst first
# The kinds that ask somebody to be on it.
ASKING = frozenset({"opened", "reminder", "escalated"})

MOST_SUBJECT_CHARS = 200
MOST_LISTED = 20  # of what is told as one message, so many have a line
MOST_LINE_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What happened, to whom it may matter, and the facts to word it with.

    `kind` is one of KINDS; `at` is when it happened; `by` is whose deed it was: an e-mail address, or in words
    ("link sent to Ops chat"). A message of an incident carries all of the incident and monitor fields, one of a
    monitor alone those of the monitor. `channel_name` is of what `channel_failing` is about.
    """

    kind: str
    team_id: int
    at: datetime
    severity: str = SEVERITIES[0]
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
    regions: tuple[str, ...] = ()  # that saw it
    channel_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A message as it was written down: what `grouped` makes one message of many from. `payload` is payload()'s."""

    subject: str
    text: str
    payload: dict[str, Any]


_RESOLUTIONS = {
    "recovered": "It answers again",
    "by_person": "Resolved by hand",
    "paused": "The monitor was paused",
    "deleted": "The monitor was deleted",
}
_SUBJECTS = {
    "opened": "DOWN",
    "resolved": "UP",
    "reminder": "STILL DOWN",
    "degraded": "SLOW",
    "recovered": "QUICK AGAIN",
}


# --- one ----------------------------------------------------------------------------------------------------


def worded(
    message: Message,
    *,
    team_name: str,
    incident_url: str,
    subject_template: str = "",
    text_template: str = "",
) -> tuple[str, str]:
    """This will return subject and text: the team's own words where it has a template, ours elsewhere.

    A template that does not render, or renders to nothing, must not cost the alert: it is logged, and the words
    are ours.
    """
    ours = subject(message), text(message)
    if not (subject_template or text_template):
        return ours
    facts = facts_of(message, team_name, incident_url)
    try:
        own_subject = _one_line(team_templates.rendered(subject_template, facts))
        own_text = team_templates.rendered(text_template, facts).strip()
    except team_templates.TemplateInvalid as invalid:
        log.warning("template_invalid", team_id=message.team_id, kind=message.kind, problem=str(invalid))
        return ours
    return own_subject or ours[0], own_text or ours[1]


def subject(message: Message) -> str:
    """This will return one line, such as `DOWN: Shop (status)`."""
    if message.kind == "test":
        return "Test from healthmon"
    word = _SUBJECTS.get(message.kind, message.kind.upper().replace("_", " "))
    if message.kind == "resolved" and message.resolution != "recovered":
        word = "RESOLVED"
    line = f"{word}: {message.channel_name if message.kind == 'channel_failing' else message.monitor_name}"
    if message.kind in ASKING and message.reason:
        line += f" ({message.reason})"
    return _one_line(line)


def text(message: Message) -> str:
    """This will return a few plain lines: what failed, since when, the evidence, from where. Links are not in it."""
    lines = _lines(message)
    if message.kind in ASKING and message.regions not in ((), ("default",)):
        lines.append(f"Seen from {', '.join(message.regions)}.")
    if message.monitor_url:
        lines += ["", f"Watched: {message.monitor_url}"]
    return "\n".join(lines)


def _lines(message: Message) -> list[str]:
    name, detail = message.monitor_name, message.detail
    lasted = _duration(_lasted(message))
    match message.kind:
        case "opened":
            return [
                f"{name} is down since {_clock(message.opened_at)}.",
                detail or f"Reason: {message.reason}.",
            ]
        case "reminder":
            return [f"{name} is still down, for {lasted}.", detail or f"Reason: {message.reason}."]
        case "escalated":
            return [
                f"{name} is down for {lasted}, and nobody has acknowledged it.",
                detail or f"Reason: {message.reason}.",
            ]
        case "resolved":
            what = _RESOLUTIONS.get(message.resolution, "Resolved")
            lines = [f"{name}: {what[0].lower()}{what[1:]}{_by(message)}, {_clock(message.resolved_at)}."]
            if message.opened_at and message.resolved_at:
                lines.append(f"It was down for {lasted}.")
            return lines
        case "acknowledged":
            return [f"{name}: acknowledged{_by(message)}, {_clock(message.at)}."]
        case "degraded":
            return [f"{name} is slow: {detail}" if detail else f"{name} is slow since {_clock(message.at)}."]
        case "recovered":
            return [f"{name} is quick again, {_clock(message.at)}."]
        case "flapping":
            return [f"{name} keeps going down and coming back. {detail}".strip()]
        case "certificate_expiring":
            return [f"The certificate of {name} expires soon. {detail}".strip()]
        case "channel_failing":
            return [f"The channel {message.channel_name} keeps failing: {detail}"]
    return ["This is a test from healthmon. If you can read it, alerts will reach you here."]


def links(message: Message, incident_url: str) -> dict[str, str]:
    """This will return what to call a link → where it leads, of those that stay the same for all who are told."""
    found = {"Runbook": message.runbook_url if message.kind != "resolved" else "", "Incident": incident_url}
    return {label: url for label, url in found.items() if url}


def with_links(text: str, links: Mapping[str, str]) -> str:
    """This will return a text with a line for each link, for places that have no buttons."""
    if not links:
        return text
    lines = "\n".join(f"{label}: {url}" for label, url in links.items())
    # A text of ours ends in such a line itself.
    return text + ("\n" if text.rpartition("\n")[2].startswith("Watched: ") else "\n\n") + lines


def facts_of(message: Message, team_name: str, incident_url: str) -> dict[str, str]:
    """This will return what a team's own templates may show of a message: `team_templates.NAMES` → text."""
    return {
        "monitor.name": message.monitor_name,
        "monitor.url": message.monitor_url,
        "incident.id": str(message.incident_id or ""),
        "incident.url": incident_url,
        "kind": message.kind,
        "severity": message.severity,
        "reason": message.reason,
        "detail": message.detail,
        "at": _clock(message.at),
        "since": _clock(message.opened_at) if message.opened_at else "",
        # Of what has just begun there is nothing to say yet.
        "duration": _duration(_lasted(message)) if message.opened_at and message.kind != "opened" else "",
        "regions": ", ".join(message.regions),
        "runbook": message.runbook_url,
        "tags": ", ".join(message.tags),
        "by": message.by,
        "team": team_name,
        "subject": subject(message),
        "text": text(message),
    }


_OF_A_MONITOR = frozenset({"degraded", "recovered", "certificate_expiring", "flapping"})


def _type(kind: str) -> str:
    if kind in _OF_A_MONITOR:
        return f"monitor.{kind}"
    return {"test": "test", "channel_failing": "channel.failing"}.get(kind, f"incident.{kind}")


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
            "resolution": message.resolution,
            "url": incident_url,
        }
    if message.incident_id is not None or message.monitor_id is not None:
        monitor = {
            "id": message.monitor_id,
            "name": message.monitor_name,
            "url": message.monitor_url,
            "runbook_url": message.runbook_url,
        }
    return {
        "type": _type(message.kind),
        "timestamp": _iso(message.at),
        "data": {
            "severity": message.severity,
            "incident": incident,
            "monitor": monitor,
            "team": {"slug": team_slug},
            "detail": message.detail,
            "message": with_links(text(message), links(message, incident_url)),
        },
    }


# --- many that are told as one --------------------------------------------------------------------------------

# kind → the word of the subject, and the line above the list. {n}: "1 monitor", "300 monitors"; {of}: "300 of 420
# monitors" where it is known how many there are; {is}, {goes}: in the number that fits.
_GROUPS = {
    "opened": ("DOWN", "{of} in team {team} {is} down:"),
    "reminder": ("STILL DOWN", "{of} in team {team} {is} still down:"),
    "escalated": ("ESCALATED", "{of} in team {team} {is} down, and nobody has acknowledged it:"),
    "resolved": ("UP", "{n} of team {team} {is} up again:"),
    "acknowledged": ("ACKNOWLEDGED", "Somebody is on it, for {n} of team {team}:"),
    "degraded": ("SLOW", "{of} in team {team} {is} slow:"),
    "recovered": ("QUICK AGAIN", "{n} of team {team} {is} quick again:"),
    "flapping": ("FLAPPING", "{of} in team {team} {goes} down and coming back:"),
    "certificate_expiring": ("CERTIFICATE EXPIRING", "The certificates of {n} of team {team} expire soon:"),
}


def grouped(kind: str, records: Sequence[Facts], watched: int, team_name: str) -> tuple[str, str]:
    """This will return subject and text of one message that tells of several of a kind.

    records: at least one, in the order to list them. watched: how many monitors the team has. One alone keeps its
    own words; of several the words are ours, whatever templates the team has.
    """
    if len(records) == 1:
        return records[0].subject, records[0].text
    team = _one_line(team_name)
    monitors = {record.payload["data"]["monitor"]["id"]: record for record in records if _monitor(record)}
    lines = [_shortened(f"• {_line(kind, record)}", MOST_LINE_CHARS) for record in records[:MOST_LISTED]]
    if len(records) > MOST_LISTED:
        lines.append(f"… and {len(records) - MOST_LISTED} more")
    if kind not in _GROUPS or not monitors:
        title = f"{len(records)} messages: {records[0].subject} …"
        return _one_line(title), "\n".join([f"{len(records)} messages for team {team}:", *lines])
    word, heading = _GROUPS[kind]
    n = _count(len(monitors), "monitor")
    of = f"{len(monitors)} of {_count(watched, 'monitor')}" if watched >= len(monitors) else n
    if kind == "resolved" and any(_incident(record).get("resolution") != "recovered" for record in records):
        word, heading = "RESOLVED", "The incidents of {n} of team {team} are resolved:"
    names = [_monitor(record)["name"] for record in monitors.values()]
    whom = ", ".join(names) if len(names) <= 3 else f"{of if '{of}' in heading else n} in team {team}"
    one = len(monitors) == 1
    filled = heading.format_map(
        {
            "of": of,
            "n": n,
            "team": team,
            "is": "is" if one else "are",
            "goes": "keeps going" if one else "keep going",
        }
    )
    return _one_line(f"{word}: {whom}"), "\n".join([filled, *lines])


def _line(kind: str, record: Facts) -> str:
    incident, monitor = _incident(record), _monitor(record)
    now = _moment(record.payload["timestamp"])
    opened_at, resolved_at = _moment(incident.get("opened_at")), _moment(incident.get("resolved_at"))
    if not monitor or kind == "acknowledged":
        return record.text.partition("\n")[0]
    name = _shortened(monitor["name"], 80)
    seen = _shortened(record.payload["data"].get("detail") or incident.get("reason") or "", 90).rstrip(".")
    if kind == "resolved" and opened_at and resolved_at:
        what = _RESOLUTIONS.get(incident.get("resolution", ""), "Resolved")
        return f"{name}: {what[0].lower()}{what[1:]} (after {_duration(resolved_at - opened_at)})"
    if kind in ("reminder", "escalated") and opened_at and now:
        return f"{name}: {seen} (for {_duration(now - opened_at)})"
    if kind == "opened" and opened_at:
        return f"{name}: {seen} (since {opened_at:%H:%M:%S} UTC)"
    return f"{name}: {seen}" if seen and kind in ("degraded", "flapping", "certificate_expiring") else name


def _incident(record: Facts) -> Mapping[str, Any]:
    return record.payload["data"]["incident"] or {}


def _monitor(record: Facts) -> Mapping[str, Any]:
    return record.payload["data"]["monitor"] or {}


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# --- words ----------------------------------------------------------------------------------------------------


def _one_line(line: str) -> str:
    """A name with a line break must not become a mail header, nor a control character anything at all."""
    plain = "".join(" " if category(char) == "Cc" else char for char in line)
    return " ".join(plain.split())[:MOST_SUBJECT_CHARS].rstrip()


def _shortened(text: str, most: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def _by(message: Message) -> str:
    return f" by {message.by}" if message.by else ""


def _lasted(message: Message) -> timedelta:
    return (message.resolved_at or message.at) - (message.opened_at or message.at)


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None


def _moment(iso: str | None) -> datetime | None:
    return datetime.fromisoformat(iso) if iso else None


def _clock(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else "an unknown time"


def _duration(length: timedelta) -> str:
    seconds = max(0, round(length.total_seconds()))
    days, seconds = divmod(seconds, 86_400)
    hours, seconds = divmod(seconds, 3_600)
    minutes, seconds = divmod(seconds, 60)
    parts = [f"{n} {unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")) if n]
    return " ".join(parts[:2]) or "less than a second"
