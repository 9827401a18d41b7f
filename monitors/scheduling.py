"""Which slots are due, and the messages that ask for them to be probed.

A monitor with interval I is due at every second t with `t mod I = offset`, so "what is due" is a pure function of
time, answered by an index. Nothing is written to schedule a check; one row, `ScheduleClock`, says how far the
dispatching has come.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import structlog
from django.conf import settings
from django.db import connection, transaction

from healthmon.lib import sealing
from monitors import headers
from monitors.models import INTERVALS, Region
from monitors.probing.outcome import TARGET_CONTEXT, Target

log = structlog.get_logger(__name__)

# Slots are handed out this long before they fall due, so that the prober has them when their moment comes.
AHEAD_SECONDS = 1
BATCH = 250  # targets a message: one costs some 2.3 ms to publish and consume, so 9 µs a target
RECHECK_GRACE_SECONDS = 10  # to be started in; a recheck not back by its timeout and this is asked for again
_SWEEP_LOCK = 0x5357454550  # any number that nothing else in this database locks
LOST_SLACK_SECONDS = 10  # beyond its timeout, before a slot that did not come back is called lost


@dataclass(frozen=True, slots=True)
class DueSeconds:
    """The newest slot in a window, for each interval and offset that has one: three columns of equal length."""

    intervals: list[int]
    offsets: list[int]
    slots: list[int]  # epoch seconds


def due_seconds(since: int, until: int, intervals: Sequence[int] = INTERVALS) -> DueSeconds:
    """This will return which (interval, offset) pairs have a slot in (since, until], epoch seconds.

    Each pair appears once, with its newest slot: after an hour's silence a monitor is probed once, not 120 times.
    """
    due = DueSeconds([], [], [])
    for interval in intervals:
        for slot in range(max(since, until - interval) + 1, until + 1):
            due.intervals.append(interval)
            due.offsets.append(slot % interval)
            due.slots.append(slot)
    return due


@dataclass(slots=True)
class Window:
    """The seconds (since, until] to dispatch, epoch, on the database's clock; the holder has the clock's row."""

    since: int
    until: int
    _shed: int = 0

    def shed(self, count: int) -> None:
        """This will add to the number of slots that were not dispatched because a queue was full."""
        self._shed += count


@contextmanager
def window() -> Iterator[Window | None]:
    """This will lock the schedule's clock and yield what it has not dispatched, or None if another holds it.

    On a clean exit the clock moves on to `until`; on an exception it stays, and the window is dispatched again.
    It is the database's time that counts: schedulers on several machines then agree, whatever their own clocks say.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT floor(extract(epoch FROM dispatched_until))::bigint,"
            "       floor(extract(epoch FROM clock_timestamp()))::bigint + %s"
            "  FROM monitors_scheduleclock FOR UPDATE SKIP LOCKED",
            [AHEAD_SECONDS],
        )
        row = cursor.fetchone()
        if row is None:
            yield None
            return
        held = Window(*row)
        yield held
        cursor.execute(
            "UPDATE monitors_scheduleclock SET dispatched_until = greatest(dispatched_until, to_timestamp(%s)),"
            " ticked_at = clock_timestamp(), shed = shed + %s",
            [held.until, held._shed],
        )


@contextmanager
def sweeping() -> Iterator[int | None]:
    """This will yield up to when slots were dispatched (epoch seconds), or None if another sweep is under way.

    It does not take the clock's row: a sweep of a million monitors takes seconds, and ticks go on meanwhile.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT floor(extract(epoch FROM dispatched_until))::bigint FROM monitors_scheduleclock"
            " WHERE pg_try_advisory_xact_lock(%s)",
            [_SWEEP_LOCK],
        )
        row = cursor.fetchone()
        yield row[0] if row else None


def regions() -> list[str]:
    """This will return the slugs of the regions that are dispatched to."""
    return list(Region.objects.filter(enabled=True).order_by("slug").values_list("slug", flat=True))


# What a Target is made of. `s` is the state in one region, `m` the monitor, `r` the region.
_TARGET = """
    m.id, m.team_id, r.slug, m.kind, m.url, m.method, m.headers, m.sealed_headers, m.body, m.timeout_seconds,
    m.expected_status, m.follow_redirects, m.verify_tls, m.degraded_after_ms, m.connection, m.interval_seconds
"""

_DUE = f"""
    SELECT {_TARGET}, due.slot
      FROM unnest(%s::int[], %s::int[], %s::bigint[]) AS due (interval_seconds, offset_seconds, slot)
      JOIN monitors_monitor m USING (interval_seconds, offset_seconds)
      JOIN monitors_regionstate s ON s.monitor_id = m.id
      JOIN monitors_region r ON r.id = s.region_id AND r.enabled
     WHERE m.enabled
     ORDER BY m.id
"""  # noqa: S608 - the interpolated part is the constant above

# A recheck is claimed by moving it on: if its answer never comes, the row asks again.
_RECHECKS = f"""
    WITH due AS (
        SELECT monitor_id, region_id, recheck_at FROM monitors_regionstate
         WHERE recheck_at <= to_timestamp(%s)
         ORDER BY monitor_id, region_id
         LIMIT %s
           FOR UPDATE SKIP LOCKED
    ), s AS (
        UPDATE monitors_regionstate state
           SET recheck_at = to_timestamp(%s + ceil(m.timeout_seconds))
          FROM due, monitors_monitor m
         WHERE state.monitor_id = due.monitor_id AND state.region_id = due.region_id AND m.id = due.monitor_id
        RETURNING state.monitor_id, state.region_id, due.recheck_at
    )
    SELECT {_TARGET}, ceil(extract(epoch FROM s.recheck_at))::bigint
      FROM s
      JOIN monitors_monitor m ON m.id = s.monitor_id
      JOIN monitors_region r ON r.id = s.region_id AND r.enabled
     WHERE m.enabled
     ORDER BY m.id
"""  # noqa: S608

# Slots that were handed out and never came back: nothing as new as the newest slot has been seen, though there
# has been time for it. What was changed since then is left alone: it starts with a check of its own.
_LOST = f"""
    SELECT {_TARGET}, due.slot
      FROM monitors_monitor m
      JOIN monitors_regionstate s ON s.monitor_id = m.id
      JOIN monitors_region r ON r.id = s.region_id AND r.enabled
     CROSS JOIN LATERAL (
           SELECT %s::bigint - mod(%s::bigint - m.offset_seconds, m.interval_seconds) AS slot
     ) due
     WHERE m.enabled
       AND due.slot + m.timeout_seconds + %s < %s
       AND NOT EXISTS (
           SELECT FROM monitors_result r
            WHERE r.monitor_id = m.id AND r.region_id = s.region_id
              AND r.scheduled_at >= to_timestamp(due.slot) AND r.scheduled_at <= to_timestamp(%s)
       )
       AND m.updated_at < to_timestamp(due.slot)
     ORDER BY m.id
     LIMIT %s
"""  # noqa: S608


def due(since: int, until: int) -> Iterator[Target]:
    """This will yield a Target for every slot in (since, until], newest per monitor and region."""
    seconds = due_seconds(since, until)
    with connection.cursor() as cursor:
        cursor.execute(_DUE, [seconds.intervals, seconds.offsets, seconds.slots])
        while rows := cursor.fetchmany(2000):
            for row in rows:
                yield _target(row)


def rechecks(until: int, limit: int = 5000) -> list[Target]:
    """This will claim what is to be looked at again by `until` (epoch seconds), and return its Targets."""
    with connection.cursor() as cursor:
        cursor.execute(_RECHECKS, [until, limit, until + RECHECK_GRACE_SECONDS])
        return [
            _target(row, expires_at=until + RECHECK_GRACE_SECONDS, urgent=True) for row in cursor.fetchall()
        ]


def lost(until: int, limit: int = 10_000) -> list[Target]:
    """This will return the Targets of slots dispatched by `until` (epoch seconds) that never came back."""
    with connection.cursor() as cursor:
        cursor.execute(_LOST, [until, until, LOST_SLACK_SECONDS, until, until + 60, limit])
        return [_target(row) for row in cursor.fetchall()]


def _target(row: tuple, *, expires_at: int | None = None, urgent: bool = False) -> Target:
    (
        monitor_id, team_id, region, kind, url, method, plain_headers, sealed_headers, body, timeout_seconds,
        expected_status, follow_redirects, verify_tls, degraded_after_ms, connection_mode, interval_seconds, slot,
    ) = row  # fmt: skip
    return Target(
        monitor_id=monitor_id,
        region=region,
        scheduled_at=slot,
        expires_at=expires_at or slot + interval_seconds,
        kind=kind,
        url=url,
        method=method,
        headers=json.loads(plain_headers) if plain_headers != "{}" else {},
        body=None,
        sealed=_sealed_for_probers(team_id, sealed_headers, body) if sealed_headers or body else None,
        timeout_seconds=timeout_seconds,
        expected_status=expected_status,
        follow_redirects=follow_redirects,
        verify_tls=verify_tls,
        degraded_after_ms=degraded_after_ms,
        connection=connection_mode,
        urgent=urgent,
    )


# Resealing costs some 150 µs; a monitor's secrets are the same at every slot, and so may the token be.
@lru_cache(maxsize=20_000)
def _sealed_for_probers(team_id: int, sealed_headers: str, body: str) -> str:
    """This will move a monitor's secrets from the database's key to the probers', so that the broker sees none.

    What does not open is handed on as a token that does not either: that monitor is inconclusive and says why, and
    the tick goes on for all others.
    """
    try:
        secrets = {"headers": headers.unseal(team_id, sealed_headers), "body": body or None}
        return sealing.seal(settings.HEALTHMON_PROBE_KEYS, secrets, TARGET_CONTEXT)
    except (sealing.SealBroken, ValueError) as problem:
        log.error("secrets_unreadable", team_id=team_id, problem=str(problem))
        return "unreadable"


def batches(targets: Iterable[Target], size: int = BATCH) -> Iterator[list[Target]]:
    """This will group Targets into messages: one region each, at most `size`, in the order they come."""
    by_region: dict[str, list[Target]] = {}
    for target in targets:
        batch = by_region.setdefault(target.region, [])
        batch.append(target)
        if len(batch) == size:
            yield by_region.pop(target.region)
    yield from by_region.values()
