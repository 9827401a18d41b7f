"""Counts of whole days: the same coverage as from the results themselves, and still there when those are not."""

from datetime import UTC, datetime, time, timedelta

import pytest
from django.db import connection

from monitors import daily, partitions, selectors
from monitors.models import DailyCount, Monitor, Result
from tests.support.people import acme
from tests.support.watching import monitor

pytestmark = pytest.mark.django_db

NOW = datetime.now(UTC).replace(microsecond=0)
TODAY = NOW.date()


def results(
    shop: Monitor, since: datetime, until: datetime, reason: str = "ok", urgent: bool = False
) -> None:
    """One every ten minutes, the first at `since`."""
    for days in range((until.date() - since.date()).days + 1):
        day = since.date() + timedelta(days=days)
        with connection.cursor() as cursor:
            cursor.execute(
                f"CREATE TABLE IF NOT EXISTS {partitions.partition_of(day)} PARTITION OF monitors_result"
                f" FOR VALUES FROM ('{day} 00:00+00') TO ('{day + timedelta(days=1)} 00:00+00')"
            )
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO monitors_result (monitor_id, region_id, scheduled_at, started_at, reason, urgent, reused,"
            "                             detail)"
            " SELECT %s, %s, at, at, %s, %s, false, ''"
            "   FROM generate_series(%s, %s - interval '1 s', interval '10 min') at",
            [shop.id, shop.states.get().region_id, reason, urgent, since, until],
        )


@pytest.mark.parametrize(
    "since", [NOW - timedelta(days=6), datetime.combine(TODAY - timedelta(days=4), time.min, UTC)]
)
def test_counts_the_same_before_and_after(since):
    shop, other = monitor(acme(), interval_seconds=600), monitor(acme(), interval_seconds=600)
    begin = datetime.combine(TODAY - timedelta(days=5), time.min, UTC)
    results(shop, begin, NOW)
    results(shop, begin + timedelta(seconds=1), begin + timedelta(hours=9), "missed")
    results(shop, begin + timedelta(days=1, seconds=2), begin + timedelta(days=2), urgent=True)
    results(other, begin, begin + timedelta(days=1))
    expected = Result.objects.filter(
        monitor=shop, scheduled_at__gt=since, scheduled_at__lte=NOW, urgent=False, reason="ok"
    ).count()
    assert selectors.executed(shop.id, since, NOW) == expected
    assert daily.keep(TODAY, 30) == [TODAY - timedelta(days=days) for days in (5, 4, 3, 2)]
    assert daily.keep(TODAY, 30) == [], "each day once"
    assert selectors.executed(shop.id, since, NOW) == expected
    DailyCount.objects.filter(day=TODAY - timedelta(days=3)).delete()
    assert selectors.executed(shop.id, since, NOW) == expected, (
        "a day nobody counted is counted from its results"
    )


def test_outlives_the_results(settings):
    settings.HEALTHMON_RAW_RETENTION_DAYS = 3
    shop = monitor(acme(), interval_seconds=600)
    begin = datetime.combine(TODAY - timedelta(days=6), time.min, UTC)
    shop.periods.update(started_at=begin, status="up", interval_seconds=600)
    results(shop, begin, NOW)
    daily.keep(TODAY, 30)
    partitions.keep(TODAY, 3)
    assert Result.objects.earliest("scheduled_at").scheduled_at.date() == TODAY - timedelta(days=3)
    assert selectors.uptime(shop, "7d", NOW).coverage == pytest.approx(1, abs=0.01)


def test_forgets_what_no_window_reaches():
    shop = monitor(acme())
    for age in (daily.KEPT_DAYS, daily.KEPT_DAYS + 1):
        DailyCount.objects.create(monitor=shop, day=TODAY - timedelta(days=age), executed=1)
    daily.keep(TODAY, 30)
    assert DailyCount.objects.get().day == TODAY - timedelta(days=daily.KEPT_DAYS)
