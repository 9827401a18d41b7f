"""What people do with monitors: create, change, pause, resume, check now, delete.

Each is one transaction that leaves the monitor, the states of its regions, its history and its incident agreeing.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog
from celery import current_app
from django.db import transaction
from kombu.exceptions import OperationalError

from accounts.models import Team, User
from incidents import services as incidents
from incidents.changes import StatusChange
from monitors import headers, periods, recording
from monitors.models import DEFAULT_REGION, Monitor, Region, RegionState
from monitors.state import Status

log = structlog.get_logger(__name__)


class MonitorPaused(Exception):
    """It is paused: nothing probes it until it is resumed."""


@transaction.atomic
def create(
    team: Team,
    rows: Sequence[Mapping[str, Any]],
    now: datetime,
    regions: Sequence[Sequence[str]] | None = None,
) -> list[Monitor]:
    """This will create monitors from validated columns and have each looked at within two seconds.

    Secret headers come in the clear as `secret_headers`, and are sealed here.

    `regions` names, for each row, where it is probed from; without it, the default region.
    """
    monitors = Monitor.objects.bulk_create(
        Monitor(
            **_sealed(team.id, row),
            team=team,
            status=Status.NEW if row.get("enabled", True) else Status.PAUSED,
            status_changed_at=now,
            created_at=now,
            updated_at=now,
        )
        for row in rows
    )
    wanted = regions or [[DEFAULT_REGION]] * len(monitors)
    ids = dict(
        Region.objects.filter(slug__in={slug for slugs in wanted for slug in slugs}).values_list("slug", "id")
    )
    RegionState.objects.bulk_create(
        _fresh_state(monitor, ids[slug], now)
        for monitor, slugs in zip(monitors, wanted, strict=True)
        for slug in slugs
    )
    periods.turn({monitor.id: now for monitor in monitors})
    transaction.on_commit(nudge)
    return monitors


def _sealed(team_id: int, columns: Mapping[str, Any], present: str = "") -> dict[str, Any]:
    """Secret headers come as `secret_headers` and go into the row sealed. The same ones keep the token they have."""
    columns = dict(columns)
    secret = columns.pop("secret_headers", None)
    if secret is not None and secret != headers.readable(team_id, present):
        columns["sealed_headers"] = headers.seal(team_id, secret)
    return columns


def _fresh_state(monitor: Monitor, region_id: int, now: datetime) -> RegionState:
    return RegionState(
        monitor=monitor,
        region_id=region_id,
        status=Status.NEW if monitor.enabled else Status.PAUSED,
        recheck_at=now if monitor.enabled else None,
    )


# What a probe asks and expects: whoever corrects it wants to know now whether that helped, not at the next slot.
_ASKED = {
    "url", "method", "headers", "sealed_headers", "body", "timeout_seconds", "expected_status", "follow_redirects",
    "verify_tls", "degraded_after_ms", "connection", "interval_seconds",
}  # fmt: skip


@transaction.atomic
def update(
    monitor: Monitor, columns: Mapping[str, Any], now: datetime, regions: Sequence[str] | None = None
) -> Monitor:
    """This will change a monitor's columns (not `enabled`: that is pause and resume) and where it is probed from.

    Raises Monitor.DoesNotExist if it was deleted meanwhile.
    """
    found = _locked([monitor.id])
    if not found:
        raise Monitor.DoesNotExist
    [monitor] = found
    columns = _sealed(monitor.team_id, columns, monitor.sealed_headers)
    changed = {name: value for name, value in columns.items() if getattr(monitor, name) != value}
    for name, value in changed.items():
        setattr(monitor, name, value)
    if changed:
        monitor.updated_at = now
        monitor.save(update_fields=[*changed, "updated_at"])
    moved = regions is not None and _set_regions(monitor, regions, now)
    if moved or "interval_seconds" in changed:
        periods.turn({monitor.id: now})  # coverage counts the slots of each cadence by itself
    if moved:
        incidents.apply(recording.settle({monitor.id: None}, now), now)
    if moved or _ASKED & changed.keys():
        _look_now([monitor.id], now)
    monitor.refresh_from_db()
    return monitor


def _set_regions(monitor: Monitor, slugs: Sequence[str], now: datetime) -> bool:
    wanted = dict(Region.objects.filter(slug__in=slugs).values_list("id", "slug"))
    present = set(monitor.states.values_list("region_id", flat=True))
    if present == set(wanted):
        return False
    monitor.states.exclude(region_id__in=wanted).delete()
    RegionState.objects.bulk_create(
        _fresh_state(monitor, region_id, now) for region_id in set(wanted) - present
    )
    return True


@transaction.atomic
def pause(monitors: Iterable[Monitor], by: User | None, now: datetime) -> int:
    """This will stop probing monitors, resolve their incidents, and return how many were not paused before."""
    stopping = [monitor for monitor in _locked([m.id for m in monitors]) if monitor.enabled]
    ids = [monitor.id for monitor in stopping]
    RegionState.objects.filter(monitor__in=ids).update(status=Status.PAUSED, recheck_at=None)
    _set_status(ids, Status.PAUSED, enabled=False, now=now)
    incidents.apply([_change(monitor, "paused", by, now) for monitor in stopping], now)
    return len(ids)


@transaction.atomic
def resume(monitors: Iterable[Monitor], now: datetime) -> int:
    """This will have paused monitors probed again, from a clean state, and return how many were paused."""
    starting = [monitor.id for monitor in _locked([m.id for m in monitors]) if not monitor.enabled]
    RegionState.objects.filter(monitor__in=starting).update(
        status=Status.NEW, failures=0, successes=0, slows=0, recheck_at=now
    )
    _set_status(starting, Status.NEW, enabled=True, now=now)
    transaction.on_commit(nudge)
    return len(starting)


def _set_status(ids: Sequence[int], status: Status, *, enabled: bool, now: datetime) -> None:
    Monitor.objects.filter(id__in=ids).update(
        status=status, status_changed_at=now, enabled=enabled, updated_at=now
    )
    periods.turn(dict.fromkeys(ids, now))


@transaction.atomic
def check_now(monitors: Iterable[Monitor], now: datetime) -> int:
    """This will have monitors probed within two seconds, out of turn. Raises MonitorPaused."""
    monitors = list(monitors)
    if paused := [monitor.name for monitor in monitors if not monitor.enabled]:
        raise MonitorPaused(f"{paused[0]} is paused; resume it first.")
    _look_now([monitor.id for monitor in monitors], now)
    return len(monitors)


def _look_now(ids: Sequence[int], now: datetime) -> None:
    _lock_states(ids)
    RegionState.objects.filter(monitor__in=ids).exclude(status=Status.PAUSED).update(recheck_at=now)
    transaction.on_commit(nudge)


@transaction.atomic
def delete(monitors: Iterable[Monitor], by: User | None, now: datetime) -> int:
    """This will delete monitors for good and resolve their incidents, which stay."""
    going = _locked([m.id for m in monitors])
    incidents.apply([_change(monitor, "deleted", by, now) for monitor in going], now)
    Monitor.objects.filter(id__in=[monitor.id for monitor in going]).delete()
    return len(going)


def _locked(ids: Sequence[int]) -> list[Monitor]:
    _lock_states(ids)
    return list(Monitor.objects.filter(id__in=ids).order_by("id").select_for_update(no_key=True))


def _lock_states(ids: Sequence[int]) -> None:
    """States before monitors, by monitor and region: the order in which recording takes them, so none deadlock."""
    list(RegionState.objects.filter(monitor__in=ids).order_by("monitor_id", "region_id").select_for_update())


def _change(monitor: Monitor, after: str, by: User | None, now: datetime) -> StatusChange:
    return StatusChange(
        team_id=monitor.team_id,
        monitor_id=monitor.id,
        monitor_name=monitor.name,
        monitor_url=monitor.url,
        runbook_url=monitor.runbook_url,
        tags=tuple(monitor.tags),
        severity=monitor.severity,
        before=monitor.status,
        after=after,
        at=now,
        by_user_id=by.id if by else None,
    )


def nudge() -> None:
    """This will ask for a tick now. If the broker is away nothing is lost: beat asks every second."""
    try:
        current_app.send_task("monitors.tasks.tick", queue="scheduler", expires=2)
    except (OperationalError, OSError) as problem:
        log.warning("nudge_failed", problem=type(problem).__name__)
