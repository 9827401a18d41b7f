"""What people do with monitors: create, change, pause, resume, check now, delete.

Each is one transaction that leaves the monitor, the states of its regions, its history and its incident agreeing.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from celery import current_app
from django.conf import settings
from django.db import connection, transaction
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


class ExternalIdTaken(Exception):
    """Other monitors of the team have these external ids."""

    def __init__(self, taken: Collection[str]) -> None:
        super().__init__(f"Another monitor of the team has the external id {', '.join(sorted(taken)[:5])}.")
        self.taken = frozenset(taken)


class QuotaReached(Exception):
    """The team may not have so many."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is to become of a monitor: columns that validation has seen, where it is probed from (None: as it is), and
    whether it is (None: as it is)."""

    monitor: Monitor
    columns: Mapping[str, Any]
    regions: Sequence[str] | None = None
    enabled: bool | None = None


def lock_team(team_id: int) -> None:
    """This will have all others wait who create monitors of a team, or name them, until the transaction ends.

    How many there are, and which external ids are taken, is decided under it. It comes before the locks of states and
    monitors.
    """
    list(Team.objects.select_for_update(no_key=True).filter(pk=team_id).values_list("pk"))


def _within_quota(team_id: int, more: int) -> None:
    most = settings.HEALTHMON_MAX_MONITORS
    if most and (present := Monitor.objects.filter(team=team_id).count()) + more > most:
        raise QuotaReached(
            f"A team may have {most} monitors (HEALTHMON_MAX_MONITORS). This one has {present}; {more} more do not fit."
        )


def _unclaimed(team_id: int, claims: Sequence[str]) -> None:
    if not claims:
        return
    present = Monitor.objects.filter(team=team_id, external_id__in=claims)
    taken = {str(name) for name in present.values_list("external_id", flat=True)}
    if taken := taken | {claim for claim, count in Counter(claims).items() if count > 1}:
        raise ExternalIdTaken(taken)


@transaction.atomic
def create(
    team: Team,
    rows: Sequence[Mapping[str, Any]],
    now: datetime,
    regions: Sequence[Sequence[str]] | None = None,
) -> list[Monitor]:
    """This will create monitors from validated columns and have each looked at within two seconds.

    Secret headers come in the clear as `secret_headers`, and are sealed here.

    `regions` names, for each row, where it is probed from; without it, the default region. Raises QuotaReached and
    ExternalIdTaken.
    """
    if not rows:
        return []
    named = [row["external_id"] for row in rows if row.get("external_id")]
    if named or settings.HEALTHMON_MAX_MONITORS:
        lock_team(team.id)
        _within_quota(team.id, len(rows))
        _unclaimed(team.id, named)
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


def update(
    monitor: Monitor, columns: Mapping[str, Any], now: datetime, regions: Sequence[str] | None = None
) -> Monitor:
    """This will change a monitor's columns (not `enabled`: that is pause and resume) and where it is probed from.

    Raises Monitor.DoesNotExist if it was deleted meanwhile, and ExternalIdTaken.
    """
    [changed] = update_many([Change(monitor, columns, regions)], None, now)
    return changed


@transaction.atomic
def update_many(changes: Sequence[Change], by: User | None, now: datetime) -> list[Monitor]:
    """This will change monitors of one team, each at most once, and return them in the order asked.

    The number of statements does not grow with theirs. Raises Monitor.DoesNotExist if one was deleted meanwhile, and
    ExternalIdTaken.
    """
    if not changes:
        return []
    if any("external_id" in change.columns for change in changes):
        lock_team(changes[0].monitor.team_id)
    monitors = {monitor.id: monitor for monitor in locked([change.monitor.id for change in changes])}
    if len(monitors) < len(changes):
        raise Monitor.DoesNotExist
    changed = {change.monitor.id: _set(monitors[change.monitor.id], change.columns) for change in changes}
    claims = [monitors[pk].external_id for pk, names in changed.items() if "external_id" in names]
    _unclaimed(changes[0].monitor.team_id, [claim for claim in claims if claim])
    moved = _set_regions(
        monitors, {change.monitor.id: change.regions for change in changes if change.regions is not None}, now
    )
    _write([monitors[pk] for pk, names in changed.items() if names or pk in moved], changed, now)

    # Coverage counts the slots of each cadence by itself.
    turned = moved | {pk for pk, names in changed.items() if "interval_seconds" in names}
    if turned:
        periods.turn(dict.fromkeys(sorted(turned), now))
    if moved:
        incidents.apply(recording.settle(dict.fromkeys(moved), now), now)
    if asking := moved | {pk for pk, names in changed.items() if _ASKED & names}:
        _look_now(sorted(asking), now)
    if starting := [change.monitor for change in changes if change.enabled is True]:
        resume(starting, now)
    if stopping := [change.monitor for change in changes if change.enabled is False]:
        pause(stopping, by, now)
    return list(map(Monitor.objects.in_bulk(monitors).__getitem__, changed))


def _set(monitor: Monitor, columns: Mapping[str, Any]) -> set[str]:
    """This will set columns on a monitor, and return the names of those that are another now."""
    columns = _sealed(monitor.team_id, columns, monitor.sealed_headers)
    changed = {name: value for name, value in columns.items() if getattr(monitor, name) != value}
    for name, value in changed.items():
        setattr(monitor, name, value)
    return set(changed)


def _write(monitors: Sequence[Monitor], changed: Mapping[int, set[str]], now: datetime) -> None:
    """This will write, in one statement, the columns that any of several monitors has another value in now.

    All of the rows are there and locked: none is inserted, and a column that is the same is written as it was.
    """
    if not monitors:
        return
    for monitor in monitors:
        monitor.updated_at = now
    Monitor.objects.bulk_create(
        monitors,
        update_conflicts=True,
        unique_fields=["id"],
        update_fields=["updated_at", *sorted(set().union(*(changed[monitor.id] for monitor in monitors)))],
    )


_LEAVE = """
    DELETE FROM monitors_regionstate s USING unnest(%s::int[], %s::int[]) AS n (monitor_id, region_id)
     WHERE s.monitor_id = n.monitor_id AND s.region_id = n.region_id
"""


def _set_regions(
    monitors: Mapping[int, Monitor], wanted: Mapping[int, Sequence[str]], now: datetime
) -> set[int]:
    """This will have monitors probed from other regions, and return the ids of those for which that is a change."""
    if not wanted:
        return set()
    slugs = {slug for named in wanted.values() for slug in named}
    ids = dict(Region.objects.filter(slug__in=slugs).values_list("slug", "id"))
    present: dict[int, set[int]] = defaultdict(set)
    for monitor_id, region_id in RegionState.objects.filter(monitor__in=wanted).values_list(
        "monitor_id", "region_id"
    ):
        present[monitor_id].add(region_id)
    after = {pk: {ids[slug] for slug in named if slug in ids} for pk, named in wanted.items()}
    left = [(pk, region_id) for pk in wanted for region_id in sorted(present[pk] - after[pk])]
    joined = [(pk, region_id) for pk in wanted for region_id in sorted(after[pk] - present[pk])]
    if left:
        with connection.cursor() as cursor:
            cursor.execute(_LEAVE, [list(column) for column in zip(*left, strict=True)])
    RegionState.objects.bulk_create(_fresh_state(monitors[pk], region_id, now) for pk, region_id in joined)
    return {pk for pk, _ in left + joined}


@transaction.atomic
def pause(monitors: Iterable[Monitor], by: User | None, now: datetime) -> int:
    """This will stop probing monitors, resolve their incidents, and return how many were not paused before."""
    stopping = [monitor for monitor in locked([m.id for m in monitors]) if monitor.enabled]
    ids = [monitor.id for monitor in stopping]
    RegionState.objects.filter(monitor__in=ids).update(status=Status.PAUSED, recheck_at=None)
    _set_status(ids, Status.PAUSED, enabled=False, now=now)
    incidents.apply([_change(monitor, "paused", by, now) for monitor in stopping], now)
    return len(ids)


@transaction.atomic
def resume(monitors: Iterable[Monitor], now: datetime) -> int:
    """This will have paused monitors probed again, from a clean state, and return how many were paused."""
    starting = [monitor.id for monitor in locked([m.id for m in monitors]) if not monitor.enabled]
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
    going = locked([m.id for m in monitors])
    incidents.apply([_change(monitor, "deleted", by, now) for monitor in going], now)
    Monitor.objects.filter(id__in=[monitor.id for monitor in going]).delete()
    return len(going)


def locked(ids: Sequence[int]) -> list[Monitor]:
    """This will lock the monitors that are there of these ids, with their states, and return them by id."""
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
