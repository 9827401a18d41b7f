"""What Prometheus is told of deliveries, read from the database when it asks."""

from collections.abc import Iterable, Iterator

from django.db import connection
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import REGISTRY, Collector

# What has ended well is not counted: it grows without end, and nobody is woken by it.
_COUNTS = """
    SELECT 'pending', count(*) FROM notifications_delivery WHERE status = 'pending'
    UNION ALL SELECT 'sending', count(*) FROM notifications_delivery WHERE status = 'sending'
    UNION ALL SELECT 'dead', count(*) FROM notifications_delivery WHERE status = 'dead'
"""
_OVERDUE = """
    SELECT coalesce(greatest(extract(epoch FROM now() - min(next_attempt_at)), 0), 0)::float8
      FROM notifications_delivery WHERE status = 'pending'
"""
_FAILING = "SELECT count(*) FROM notifications_channel WHERE enabled AND failures > 0"


class Deliveries(Collector):
    """Deliveries by status, how late the most overdue one is, and how many channels are failing."""

    def describe(self) -> Iterable[Metric]:
        return _families()  # so that registering asks no database

    def collect(self) -> Iterator[Metric]:
        deliveries, overdue, failing = _families()
        with connection.cursor() as cursor:
            cursor.execute(_COUNTS)
            for status, count in cursor.fetchall():
                deliveries.add_metric([status], count)
            cursor.execute(_OVERDUE)
            overdue.add_metric([], cursor.fetchone()[0])
            cursor.execute(_FAILING)
            failing.add_metric([], cursor.fetchone()[0])
        yield from (deliveries, overdue, failing)


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
    return (
        GaugeMetricFamily(
            "healthmon_deliveries", "Deliveries that are not sent, by status.", labels=["status"]
        ),
        GaugeMetricFamily(
            "healthmon_delivery_overdue_seconds", "How late the most overdue delivery is.", labels=[]
        ),
        GaugeMetricFamily(
            "healthmon_channels_failing", "Enabled channels whose last attempt failed.", labels=[]
        ),
    )


def register() -> None:
    """This will have /metrics tell of deliveries."""
    REGISTRY.register(Deliveries())
