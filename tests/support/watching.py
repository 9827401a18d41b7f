"""Monitors, outcomes and channels for tests: plain functions, every field a keyword."""

from datetime import UTC, datetime, timedelta
from typing import Any

from accounts.models import Team
from monitors import services
from monitors.models import Monitor
from monitors.probing.outcome import Outcome, Reason
from notifications import services as notifications
from notifications.models import Channel, Subscription

# The noon of these stories is a full hour, one to two hours ago: results need a partition, and the API's own clock
# has to find it in the past at whatever hour the tests run.
NOON = (datetime.now(UTC) - timedelta(hours=1)).replace(minute=0, second=0, microsecond=0)


def monitor(team: Team, *, now: datetime = NOON, regions: list[str] | None = None, **fields: Any) -> Monitor:
    columns = {"name": "Shop", "url": "http://127.0.0.1:9/", "interval_seconds": 30} | fields
    [made] = services.create(team, [columns], now, [regions] if regions else None)
    return Monitor.objects.get(pk=made.pk)


def outcome(
    monitor: Monitor,
    reason: Reason | str = Reason.ok,
    *,
    at: datetime = NOON,
    region: str = "default",
    **fields: Any,
) -> Outcome:
    epoch = int(at.timestamp())
    facts: dict[str, Any] = {"started_at": epoch + 0.25, "total_ms": 12.5, "status_code": 200}
    return Outcome(
        monitor_id=monitor.id, region=region, scheduled_at=epoch, reason=reason, **(facts | fields)
    )


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def webhook(team: Team, *, url: str = "http://127.0.0.1:9/hook", now: datetime = NOON) -> Channel:
    channel, _ = notifications.create_channel(team, "Hook", "webhook", {"url": url}, True, now)
    return channel


def subscribed(channel: Channel, **scope: Any) -> Channel:
    Subscription.objects.create(channel=channel, **scope)
    return channel
