"""What happens to incidents: a status change opens or resolves one, a person acknowledges, resolves or comments.

Each of these writes the incident, its timeline and the deliveries that tell of it in the caller's transaction.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import connection, transaction

from accounts.models import User
from incidents.changes import StatusChange
from incidents.models import Incident, IncidentEvent
from notifications import outbox
from notifications.messages import Message


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
    outbox.enqueue(happened, now)


# The partial unique index decides who opens; the loser inserts nothing and is told nothing.
_OPEN = """
    INSERT INTO incidents_incident (team_id, monitor_id, monitor_name, monitor_url, status, reason, detail, evidence,
                                    opened_at, resolution)
    SELECT n.*, '' FROM unnest(%s::int[], %s::int[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                           %s::jsonb[], %s::timestamptz[]) AS n
    ON CONFLICT (monitor_id) WHERE resolved_at IS NULL DO NOTHING
    RETURNING id, monitor_id
"""


def _open(changes: Sequence[StatusChange]) -> list[Message]:
    changes = list({change.monitor_id: change for change in reversed(changes)}.values())  # the first of each
    rows = [
        (
            change.team_id, change.monitor_id, change.monitor_name, change.monitor_url, Incident.Status.OPEN.value,
            change.reason, change.detail, json.dumps(change.evidence or {}).replace("\\u0000", "\\ufffd"), change.at,
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
            incident_id=ids[change.monitor_id],
            incident_status=Incident.Status.OPEN.value,
            reason=change.reason,
            detail=change.detail,
            opened_at=change.at,
        )
        for change in opened
    ]


def _told_by(change: StatusChange, **incident: Any) -> Message:
    """This will return the message of an incident that a status change opened or closed."""
    return Message(
        team_id=change.team_id,
        monitor_id=change.monitor_id,
        monitor_name=change.monitor_name,
        monitor_url=change.monitor_url,
        runbook_url=change.runbook_url,
        tags=change.tags,
        **incident,
    )


_CLOSE = """
    UPDATE incidents_incident i
       SET status = 'resolved', resolved_at = greatest(n.at, i.opened_at), resolution = n.resolution
      FROM unnest(%s::int[], %s::timestamptz[], %s::text[]) AS n (monitor_id, at, resolution)
     WHERE i.monitor_id = n.monitor_id AND i.resolved_at IS NULL
    RETURNING i.id, i.monitor_id, i.reason, i.detail, i.opened_at, i.resolved_at, i.resolution
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
    for incident_id, monitor_id, reason, detail, opened_at, resolved_at, resolution in closed:
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
def acknowledge(incident: Incident, by: User, now: datetime) -> Incident:
    """This will note that somebody is on it. Acknowledging again changes nothing. Raises IncidentClosed."""
    incident = _locked(incident)
    if incident.status == Incident.Status.ACKNOWLEDGED:
        return incident
    incident.status = Incident.Status.ACKNOWLEDGED
    incident.acknowledged_at = now
    incident.acknowledged_by = by
    incident.save(update_fields=["status", "acknowledged_at", "acknowledged_by"])
    incident.events.create(kind=IncidentEvent.Kind.ACKNOWLEDGED, at=now, by=by)
    outbox.enqueue([_message(incident, "acknowledged", by, now)], now)
    return incident


@transaction.atomic
def resolve(incident: Incident, by: User, now: datetime) -> Incident:
    """This will close an incident by hand; the monitor's status stays what probes say. Raises IncidentClosed."""
    incident = _locked(incident)
    incident.status = Incident.Status.RESOLVED
    incident.resolved_at = max(now, incident.opened_at)
    incident.resolution = Incident.Resolution.BY_PERSON
    incident.save(update_fields=["status", "resolved_at", "resolution"])
    incident.events.create(
        kind=IncidentEvent.Kind.RESOLVED, at=now, by=by, text=Incident.Resolution.BY_PERSON.label
    )
    outbox.enqueue([_message(incident, "resolved", by, now)], now)
    return incident


def comment(incident: Incident, by: User, text: str, now: datetime) -> IncidentEvent:
    """This will add a person's words to the timeline, of a resolved incident too."""
    return incident.events.create(kind=IncidentEvent.Kind.COMMENTED, at=now, by=by, text=text)


def _locked(incident: Incident) -> Incident:
    locked = (
        Incident.objects.select_for_update(of=("self",))
        .select_related("monitor", "acknowledged_by")
        .get(pk=incident.pk)
    )
    if locked.resolved_at is not None:
        raise IncidentClosed("This incident is resolved already.")
    return locked


def _message(incident: Incident, kind: str, by: User, now: datetime) -> Message:
    monitor = incident.monitor
    return Message(
        kind=kind,
        team_id=incident.team_id,
        at=now,
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
        by=by.email,
        resolution=incident.resolution,
    )
