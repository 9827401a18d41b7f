"""What people ask of monitors: how much of a window was it up, and how much of it did we look."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import JSONObject

from incidents.selectors import count_opened
from monitors.models import Monitor, Result, StatusPeriod
from monitors.probing.outcome import Reason
from monitors.state import Status

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


def with_newest_result(monitors: QuerySet[Monitor], now: datetime) -> QuerySet[Monitor]:
    """This will annotate monitors with `newest`: {scheduled_at (ISO text), reason, total_ms}, or None.

    One look into the end of an index a monitor; the bounds keep all partitions but three out of the plan.
    """
    newest = Result.objects.filter(
        monitor=OuterRef("pk"),
        scheduled_at__gt=now - NEWEST_WITHIN,
        scheduled_at__lt=now + timedelta(hours=1),
    ).order_by("-scheduled_at", "-region")
    columns = JSONObject(scheduled_at="scheduled_at", reason="reason", total_ms="total_ms")
    return monitors.annotate(newest=Subquery(newest.values(facts=columns)[:1]))


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
    executed = (
        Result.objects.filter(monitor=monitor, scheduled_at__gt=since, scheduled_at__lte=now, urgent=False)
        .exclude(reason=Reason.missed)
        .count()
    )
    up, down = seconds_up_and_down(periods)
    return Uptime(
        uptime=up / (up + down) if up + down else None,
        coverage=_ratio(executed, scheduled_slots(periods, monitor.id)),
        downtime_seconds=round(down),
        incidents=count_opened(monitor.id, since, now),
    )


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
