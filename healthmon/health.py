"""Is healthmon itself well? `/healthz/live` asks only this process; `/healthz/ready` asks every part."""

from collections.abc import Callable, Mapping
from datetime import timedelta

from celery import current_app
from django.core.exceptions import ObjectDoesNotExist
from django.db import Error as DatabaseFailed
from django.db import connection
from django.http import HttpRequest, JsonResponse
from kombu.exceptions import OperationalError

from healthmon.lib import queues
from healthmon.lib.clock import now as read_clock
from monitors.models import Prober, Region, ScheduleClock

TICK_STALE_AFTER = timedelta(seconds=10)
PROBER_STALE_AFTER = timedelta(seconds=20)  # they are heard of every 5 s


def live(request: HttpRequest) -> JsonResponse:
    """This will answer 200 as long as this process answers at all."""
    return JsonResponse({"status": "ok"})


def ready(request: HttpRequest, checks: Mapping[str, Callable[[], str]] | None = None) -> JsonResponse:
    """This will answer 200 when every part works, else 503, and say of each part how it is."""
    parts = {name: _asked(check) for name, check in (checks or PARTS).items()}
    well = all(said == "ok" for said in parts.values())
    return JsonResponse({"status": "ok" if well else "ill", "parts": parts}, status=200 if well else 503)


def _asked(check: Callable[[], str]) -> str:
    try:
        return check()
    except (
        DatabaseFailed
    ):  # InterfaceError too, which is no DatabaseError: a connection that is closed already
        return "the database does not answer"
    except (OperationalError, OSError):
        return "the broker does not answer"


def _database() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return "ok"


def _broker() -> str:
    queues.length(current_app, "scheduler")
    return "ok"


def _ticks() -> str:
    try:
        ticked_at = ScheduleClock.objects.get().ticked_at
    except ObjectDoesNotExist:
        return "the schedule's clock is missing: run `manage.py migrate`"
    age = read_clock() - ticked_at
    if age <= TICK_STALE_AFTER:
        return "ok"
    return f"no tick for {age.total_seconds():.0f} s: is beat running, and a worker on the queue `scheduler`?"


def _probers() -> str:
    heard = set(
        Prober.objects.filter(seen_at__gt=read_clock() - PROBER_STALE_AFTER).values_list("region", flat=True)
    )
    silent = [
        slug
        for slug in Region.objects.filter(enabled=True).values_list("slug", flat=True)
        if slug not in heard
    ]
    if not silent:
        return "ok"
    return f"no prober answers in: {', '.join(silent)} (or nobody takes its results off the queue `results`)"


PARTS = {"database": _database, "broker": _broker, "ticks": _ticks, "probers": _probers}
