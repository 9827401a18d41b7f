"""What happens to incidents: a status change opens or resolves one, a person acknowledges, resolves or comments.

Each of these writes the incident, its timeline and the deliveries that tell of it in the caller's transaction.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import connection, transaction

from accounts.models import User
from incidents.changes import StatusChange
from incidents.models import Incident, IncidentEvent
from notifications import outbox, routing, selectors
from notifications.messages import Message
from notifications.routing import severity_of


class IncidentClosed(Exception):
    """It is resolved already: there is nothing left to do to it."""


def apply(changes: Sequence[StatusChange], now: datetime) -> None:
    """This will open and resolve the incidents that status changes call for, and enqueue what is to be told.

    The number of statements does not grow with the number of changes. Opening what is open and resolving what
    is not are silent: somebody else was first.
    """
    opening = [change for change in changes if change.opens]
    closing = [change for change in changes if not change.opens]
    happened = []
    if opening:
        happened += _open(opening)
    if closing:
        happened += _close(closing)
    told = {message.monitor_id for message in happened}
    happened += _turned(change for change in changes if change.monitor_id not in told)
    outbox.enqueue(happened, now)


# The partial unique index decides who opens; the loser inserts nothing and is told nothing.
_OPEN = """
    INSERT INTO incidents_incident (team_id, monitor_id, monitor_name, monitor_url, severity, status, reason, detail,
                                    evidence, opened_at, resolution)
    SELECT n.*, '' FROM unnest(%s::int[], %s::int[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                           %s::text[], %s::jsonb[], %s::timestamptz[]) AS n
    ON CONFLICT (monitor_id) WHERE resolved_at IS NULL DO NOTHING
    RETURNING id, monitor_id
"""


def _open(changes: Sequence[StatusChange]) -> list[Message]:
    changes = list({change.monitor_id: change for change in reversed(changes)}.values())  # the first of each
    rows = [
        (
            change.team_id, change.monitor_id, change.monitor_name, change.monitor_url, change.severity,
            Incident.Status.OPEN.value, change.reason, change.detail,
            json.dumps(change.evidence or {}).replace("\\u0000", "\\ufffd"), change.at,
        )
        for change in changes
    ]  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(_OPEN, [list(column) for column in zip(*rows, strict=True)])
        ids = {monitor_id: incident_id for incident_id, monitor_id in cursor.fetchall()}
    opened = [change for change in changes if change.monitor_id in ids]
    IncidentEvent.objects.bulk_create(
        IncidentEvent(
            incident_id=ids[change.monitor_id],
            kind=IncidentEvent.Kind.OPENED,
            at=change.at,
            text=change.detail,
        )
        for change in opened
    )
    return [
        _told_by(
            change,
            kind="opened",
            at=change.at,
            severity=change.severity,
            incident_id=ids[change.monitor_id],
            incident_status=Incident.Status.OPEN.value,
            reason=change.reason,
            detail=change.detail,
            opened_at=change.at,
            regions=_seen_from(change.evidence or {}),
        )
        for change in opened
    ]


def _turned(changes: Iterable[StatusChange]) -> list[Message]:
    """This will return what is told of monitors that began or ceased to be slow: messages without an incident.

    One that was down and is degraded answers again; that was told as the end of its incident.
    """
    messages = []
    for change in changes:
        if change.after == "degraded" and change.before in ("new", "up"):
            kind = "degraded"
        elif change.before == "degraded" and change.after == "up":
            kind = "recovered"
        else:
            continue
        messages.append(
            _told_by(
                change,
                kind=kind,
                at=change.at,
                severity=severity_of(kind, change.severity),
                reason=change.reason,
                detail=change.detail,
            )
        )
    return messages


def _told_by(change: StatusChange, **facts: Any) -> Message:
    """This will return a message of the monitor whose status changed."""
    return Message(
        team_id=change.team_id,
        monitor_id=change.monitor_id,
        monitor_name=change.monitor_name,
        monitor_url=change.monitor_url,
        runbook_url=change.runbook_url,
        tags=change.tags,
        **facts,
    )


_CLOSE = """
    UPDATE incidents_incident i
       SET status = 'resolved', resolved_at = greatest(n.at, i.opened_at), resolution = n.resolution
      FROM unnest(%s::int[], %s::timestamptz[], %s::text[]) AS n (monitor_id, at, resolution)
     WHERE i.monitor_id = n.monitor_id AND i.resolved_at IS NULL
    RETURNING i.id, i.monitor_id, i.severity, i.reason, i.detail, i.opened_at, i.resolved_at, i.resolution
"""
_RESOLUTIONS = {"paused": Incident.Resolution.PAUSED, "deleted": Incident.Resolution.DELETED}


def _close(changes: Sequence[StatusChange]) -> list[Message]:
    by_monitor = {change.monitor_id: change for change in changes}
    columns: list[Any] = [
        list(by_monitor),
        [change.at for change in by_monitor.values()],
        [_RESOLUTIONS.get(c.after, Incident.Resolution.RECOVERED).value for c in by_monitor.values()],
    ]
    with connection.cursor() as cursor:
        cursor.execute(_CLOSE, columns)
        closed = cursor.fetchall()
    people = dict(
        User.objects.filter(id__in={c.by_user_id for c in changes if c.by_user_id}).values_list("id", "email")
    )
    messages = []
    events = []
    for incident_id, monitor_id, severity, reason, detail, opened_at, resolved_at, resolution in closed:
        change = by_monitor[monitor_id]
        events.append(
            IncidentEvent(
                incident_id=incident_id,
                kind=IncidentEvent.Kind.RESOLVED,
                at=resolved_at,
                by_id=change.by_user_id,
                text=Incident.Resolution(resolution).label,
            )
        )
        messages.append(
            _told_by(
                change,
                kind="resolved",
                at=resolved_at,
                severity=severity,
                incident_id=incident_id,
                incident_status=Incident.Status.RESOLVED.value,
                reason=reason,
                detail=detail,
                opened_at=opened_at,
                resolved_at=resolved_at,
                by=people.get(change.by_user_id or 0, ""),
                resolution=resolution,
            )
        )
    IncidentEvent.objects.bulk_create(events)
    return messages


@transaction.atomic
def acknowledge(incident: Incident, by: User | None, now: datetime, via: str = "") -> Incident:
    """This will note that somebody is on it. Acknowledging again changes nothing. Raises IncidentClosed.

    by: None where nobody knows who it is; then `via` says by what it was done, such as "link sent to Ops chat".
    """
    incident = _locked(incident)
    _acknowledge([incident], by, now, via)
    return incident


@transaction.atomic
def acknowledge_open(incident_ids: Sequence[int], now: datetime, via: str) -> list[Incident]:
    """This will acknowledge those of several incidents that are open, and return all that exist, as they are then."""
    incidents = list(
        Incident.objects.select_for_update(of=("self",))
        .select_related("monitor")
        .filter(id__in=incident_ids)
        .order_by("id")
    )
    _acknowledge(incidents, None, now, via)
    return incidents


def _acknowledge(locked: Sequence[Incident], by: User | None, now: datetime, via: str) -> None:
    fresh = [incident for incident in locked if incident.status == Incident.Status.OPEN]
    for incident in fresh:
        incident.status = Incident.Status.ACKNOWLEDGED
        incident.acknowledged_at = now
        incident.acknowledged_by = by
    Incident.objects.bulk_update(fresh, ["status", "acknowledged_at", "acknowledged_by"])
    IncidentEvent.objects.bulk_create(
        IncidentEvent(
            incident=incident,
            kind=IncidentEvent.Kind.ACKNOWLEDGED,
            at=now,
            by=by,
            text=f"by {via}" if via else "",
        )
        for incident in fresh
    )
    who = by.email if by else via
    outbox.enqueue([_message(incident, "acknowledged", who, now) for incident in fresh], now)


@transaction.atomic
def resolve(incident: Incident, by: User | None, now: datetime, via: str = "") -> Incident:
    """This will close an incident by hand; the monitor's status stays what probes say. Raises IncidentClosed.

    by: None where no person did; then `via` says by what it was done, such as "API key deploy".
    """
    incident = _locked(incident)
    incident.status = Incident.Status.RESOLVED
    incident.resolved_at = max(now, incident.opened_at)
    incident.resolution = Incident.Resolution.BY_PERSON
    incident.save(update_fields=["status", "resolved_at", "resolution"])
    how = f"by {via}" if via else Incident.Resolution.BY_PERSON.label
    incident.events.create(kind=IncidentEvent.Kind.RESOLVED, at=now, by=by, text=how)
    outbox.enqueue([_message(incident, "resolved", by.email if by else via, now)], now)
    return incident


def comment(incident: Incident, by: User | None, text: str, now: datetime, via: str = "") -> IncidentEvent:
    """This will add somebody's words to the timeline, of a resolved incident too; signed with `via` if no person said
    them.
    """
    text = f"{text}\n— {via}" if via else text
    return incident.events.create(kind=IncidentEvent.Kind.COMMENTED, at=now, by=by, text=text)


_REMIND_LOCK = 0x52656D696E64  # any number that nothing else in this database locks
REMINDERS_AT_ONCE = 500  # the others are due at the next look


@transaction.atomic
def remind(now: datetime, at_once: int = REMINDERS_AT_ONCE) -> int:
    """This will say again that incidents are still open, to the channels that want to hear, and return how often.

    Whom it is time for is read and written under one lock: of two that run at once the second has nothing to do.
    Incidents that somebody is just acknowledging or resolving are left to the next run.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_REMIND_LOCK])
        if not cursor.fetchone()[0]:
            return 0
    channels: dict[int, set[int]] = defaultdict(set)
    for incident_id, channel_id in _listening(selectors.reminders_due(now), now)[:at_once]:
        channels[incident_id].add(channel_id)
    unheeded = (
        Incident.objects.select_for_update(of=("self",), skip_locked=True)
        .select_related("monitor")
        .filter(id__in=channels, status=Incident.Status.OPEN)
        .order_by("id")
    )
    reminders = [(_message(incident, "reminder", "", now), channels[incident.id]) for incident in unheeded]
    return len(outbox.enqueue_each(reminders, now))


def _listening(due: Sequence[tuple[int, int]], now: datetime) -> list[tuple[int, int]]:
    """This will leave those (incident, channel) pairs whose channel would be told of the opening now.

    So nobody is reminded outside the hours of a subscription, nor once it is gone. Of what kinds it is does not
    matter here: how often a channel is reminded is the channel's.
    """
    openings = {
        incident_id: Message(
            kind="opened",
            team_id=team_id,
            at=now,
            severity=severity,
            monitor_id=monitor_id,
            tags=tuple(tags or ()),
        )
        for incident_id, team_id, severity, monitor_id, tags in Incident.objects.filter(
            id__in={incident_id for incident_id, _ in due}
        ).values_list("id", "team_id", "severity", "monitor_id", "monitor__tags")
    }
    interests = selectors.interests({opening.team_id for opening in openings.values()}) if openings else []
    told = {incident_id: routing.recipients(opening, interests) for incident_id, opening in openings.items()}
    return [(incident, channel) for incident, channel in due if channel in told.get(incident, ())]


def _locked(incident: Incident) -> Incident:
    locked = (
        Incident.objects.select_for_update(of=("self",))
        .select_related("monitor", "acknowledged_by")
        .get(pk=incident.pk)
    )
    if locked.resolved_at is not None:
        raise IncidentClosed("This incident is resolved already.")
    return locked


def _seen_from(evidence: Mapping[str, Any]) -> tuple[str, ...]:
    """This will return the regions that found it down, of an incident's evidence."""
    return tuple(seen["region"] for seen in evidence.get("regions", ()) if seen["status"] == "down")


def _message(incident: Incident, kind: str, by: str, now: datetime) -> Message:
    monitor = incident.monitor
    return Message(
        kind=kind,
        team_id=incident.team_id,
        at=now,
        severity=incident.severity,
        incident_id=incident.id,
        incident_status=incident.status,
        reason=incident.reason,
        detail=incident.detail,
        opened_at=incident.opened_at,
        resolved_at=incident.resolved_at,
        monitor_id=incident.monitor_id,
        monitor_name=incident.monitor_name,
        monitor_url=incident.monitor_url,
        runbook_url=monitor.runbook_url if monitor else "",
        tags=tuple(monitor.tags) if monitor else (),
        by=by,
        resolution=incident.resolution,
        regions=_seen_from(incident.evidence),
    )
