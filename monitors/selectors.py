"""What people ask of monitors: how much of a window was it up, and how much of it did we look."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta

from django.conf import settings
from django.db import connection
from django.db.models import Q

from incidents.selectors import count_opened
from monitors.models import DailyCount, Monitor, StatusPeriod
from monitors.state import Status
from notifications.messages import Message
from notifications.routing import severity_of

# A monitor that has not been seen for longer was paused, or is new: there is no newest result to speak of.
NEWEST_WITHIN = timedelta(days=2)

WINDOWS = {
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
    "90d": timedelta(days=90),
}


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of history as a value; `until` is where it or the window ends."""

    status: str
    since: datetime
    until: datetime
    interval_seconds: int
    regions: int


@dataclass(frozen=True, slots=True)
class Uptime:
    """`uptime` and `coverage` are ratios in 0–1, None where there is nothing to divide by."""

    uptime: float | None
    coverage: float | None
    downtime_seconds: int
    incidents: int


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What is shown of a monitor beside its own columns: where it is probed from, and its newest result if any."""

    regions: list[str]
    certificate_expires_at: datetime | None
    checked_at: datetime | None
    reason: str | None
    total_ms: float | None


# One look into the end of an index a monitor; the bounds keep all partitions but three out of the plan. As a column of
# the list's own query it was looked up for every monitor that a filter leaves, before the page was cut off.
_GLIMPSES = """
    SELECT m.id, s.regions, s.certificate_expires_at, r.scheduled_at, r.reason, r.total_ms
      FROM unnest(%s::int[]) AS m (id)
     CROSS JOIN LATERAL (
           SELECT coalesce(array_agg(region.slug::text ORDER BY region.slug COLLATE "C"), '{}') AS regions,
                  min(state.certificate_expires_at) AS certificate_expires_at
             FROM monitors_regionstate state JOIN monitors_region region ON region.id = state.region_id
            WHERE state.monitor_id = m.id) s
      LEFT JOIN LATERAL (
           SELECT scheduled_at, reason, total_ms
             FROM monitors_result
            WHERE monitor_id = m.id AND scheduled_at > %s AND scheduled_at < %s
            ORDER BY scheduled_at DESC, region_id DESC
            LIMIT 1) r ON true
"""


def glimpsed(monitors: Sequence[Monitor], now: datetime) -> Sequence[Monitor]:
    """This will set `glimpse` on each monitor, in one query for all of them, and return them."""
    if monitors:
        with connection.cursor() as cursor:
            cursor.execute(
                _GLIMPSES,
                [[monitor.pk for monitor in monitors], now - NEWEST_WITHIN, now + timedelta(hours=1)],
            )
            found = {monitor_id: Glimpse(*facts) for monitor_id, *facts in cursor.fetchall()}
        for monitor in monitors:
            monitor.glimpse = found[monitor.pk]  # type: ignore[attr-defined]
    return monitors


def message_about(monitor: Monitor, kind: str, at: datetime) -> Message:
    """This will return a message of a kind about a monitor, with as much in it as decides who is told."""
    return Message(
        kind=kind,
        team_id=monitor.team_id,
        at=at,
        severity=severity_of(kind, monitor.severity),
        monitor_id=monitor.id,
        monitor_name=monitor.name,
        tags=tuple(monitor.tags),
    )


def uptime(monitor: Monitor, window: str, now: datetime) -> Uptime:
    """This will return a monitor's uptime over `24h`, `7d`, `30d` or `90d` until now, from its history."""
    since = now - WINDOWS[window]
    periods = [
        Period(
            row.status,
            max(row.started_at, since),
            min(row.ended_at or now, now),
            row.interval_seconds,
            row.regions,
        )
        for row in StatusPeriod.objects.filter(monitor=monitor, started_at__lt=now)
        .filter(Q(ended_at__isnull=True) | Q(ended_at__gt=since))
        .order_by("started_at")
    ]
    up, down = seconds_up_and_down(periods)
    return Uptime(
        uptime=up / (up + down) if up + down else None,
        coverage=_coverage(monitor.id, periods, since, now),
        downtime_seconds=round(down),
        incidents=count_opened(monitor.id, since, now),
    )


def _coverage(monitor_id: int, periods: Iterable[Period], since: datetime, now: datetime) -> float | None:
    """Executed of scheduled slots. Past what is kept of results, it begins with a whole day: only those are counted."""
    oldest = datetime.combine(
        now.date() - timedelta(days=settings.HEALTHMON_RAW_RETENTION_DAYS), time.min, UTC
    )
    # (since, until]: to have the slot at midnight, it begins just before.
    whole_day = datetime.combine(since.date() + timedelta(days=1), time.min, UTC) - _TICK
    looked_since = since if since >= oldest else whole_day
    looked_at = [
        replace(period, since=max(period.since, looked_since))
        for period in periods
        if period.until > looked_since
    ]
    return _ratio(executed(monitor_id, looked_since, now), scheduled_slots(looked_at, monitor_id))


def executed(monitor_id: int, since: datetime, until: datetime) -> int:
    """This will count the slots executed in (since, until]: whole days from their counts, the rest from results.

    Both counts of results are answered by an index alone: everything, less the few that do not count.
    """
    counts = dict(
        DailyCount.objects.filter(monitor_id=monitor_id, day__gt=since.date(), day__lt=until.date())
        .order_by("day")
        .values_list("day", "executed")
    )
    total, parameters = 0, []
    begin = since
    for day, count in counts.items():
        midnight = datetime.combine(day, time.min, UTC)
        total += count
        # (since, until] of seconds: the slot at midnight belongs to the day that begins.
        parameters.append((begin, midnight - _TICK))
        begin = midnight + timedelta(days=1) - _TICK
    parameters.append((begin, until))
    gaps = [(monitor_id, a, b) for a, b in parameters if b > a]
    with connection.cursor() as cursor:
        cursor.execute(
            " UNION ALL ".join([_EXECUTED] * len(gaps)), [value for gap in gaps for value in gap + gap]
        )
        return total + sum(count for (count,) in cursor.fetchall())


_TICK = timedelta(microseconds=1)
_EXECUTED = """
    SELECT (SELECT count(*) FROM monitors_result WHERE monitor_id = %s AND scheduled_at > %s AND scheduled_at <= %s)
         - (SELECT count(*) FROM monitors_result WHERE monitor_id = %s AND scheduled_at > %s AND scheduled_at <= %s
               AND (urgent OR reason = 'missed'))
"""


def seconds_up_and_down(periods: Iterable[Period]) -> tuple[float, float]:
    """This will add up how long a monitor was up (degraded counts: it answered) and down. The rest is unknown."""
    up = down = 0.0
    for period in periods:
        seconds = max(0.0, (period.until - period.since).total_seconds())
        if period.status == Status.DOWN:
            down += seconds
        elif period.status in (Status.UP, Status.DEGRADED):
            up += seconds
    return up, down


def scheduled_slots(periods: Iterable[Period], monitor_id: int) -> int:
    """This will count the slots that fell into periods that were not paused, over all regions."""
    return sum(
        period.regions * slots_between(period.since, period.until, period.interval_seconds, monitor_id)
        for period in periods
        if period.status != Status.PAUSED
    )


def offset_of(monitor_id: int, interval_seconds: int) -> int:
    """This will return the second of its interval in which a monitor is due; the column's own formula."""
    return (monitor_id * 2_654_435_761 % 2**32) * interval_seconds >> 32


def slots_between(since: datetime, until: datetime, interval_seconds: int, monitor_id: int) -> int:
    """This will count the slots in (since, until]."""
    offset = offset_of(monitor_id, interval_seconds)

    def slots_until(moment: datetime) -> int:
        return (int(moment.timestamp()) - offset) // interval_seconds

    return max(0, slots_until(until) - slots_until(since))


def _ratio(part: int, whole: int) -> float | None:
    # The newest slot may be under way, and the first look at a new monitor is out of turn.
    return min(1.0, part / whole) if whole else None
