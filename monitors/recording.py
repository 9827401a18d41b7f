"""What came back is written down, and decided upon, in one transaction:

1. the results, each slot once;
2. the state of the regions that new results tell something of;
3. the status of the monitors whose regions moved, with the period that ends and the one that begins;
4. incidents and the deliveries that tell of them (`incidents.services.apply`).

A crash anywhere before the commit leaves nothing behind, and the slots are dispatched again; one after it leaves
all of it. The number of statements does not grow with the batch.

Most results say that what is up is up. Those touch no state: reading, locking and rewriting it was half of what
PostgreSQL spends on a check. So `seen_until` of a quiet state lags behind; whoever decides on a result that tells
something asks the results themselves what was seen since.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import Any

from django.db import IntegrityError, connection, transaction

from healthmon.lib import arrays
from healthmon.lib.clock import from_epoch
from incidents import services as incidents
from incidents.changes import StatusChange
from monitors import periods
from monitors.probing.outcome import Outcome, Reason
from monitors.state import Policy, State, Status, advance, overall

Key = tuple[int, int]  # monitor id, region id
Slot = tuple[int, int, int]  # monitor id, region id, scheduled_at in epoch seconds


def record(outcomes: Iterable[Outcome], now: datetime) -> int:
    """This will store outcomes and act on them; returns how many were new.

    Outcomes of slots that are recorded already, of monitors deleted meanwhile, of unknown regions, and of slots over
    a day old or in the future are dropped.
    """
    # Beyond these there are no partitions, and one such result must not cost a batch.
    oldest = (now - timedelta(days=1)).timestamp()
    newest = (now + timedelta(hours=1)).timestamp()
    outcomes = list(outcomes)
    regions, gone = _known(outcome.monitor_id for outcome in outcomes)
    found = {
        (outcome.monitor_id, regions[outcome.region], outcome.scheduled_at): outcome
        for outcome in outcomes
        if oldest < outcome.scheduled_at < newest
        and outcome.region in regions
        and outcome.monitor_id not in gone
    }
    if not found:
        return 0
    # Sorted, here and below: two workers that meet on the same rows take them in the same order.
    slots = {slot: found[slot] for slot in sorted(found)}
    telling = {slot[:2] for slot, outcome in slots.items() if not _says_nothing_new(outcome)}
    try:
        return _record(slots, telling, now, _copy)
    except IntegrityError:  # some of these slots are recorded already, which COPY cannot pass over
        return _record(slots, telling, now, _insert)


def _record(
    slots: Mapping[Slot, Outcome],
    telling: Collection[Key],
    now: datetime,
    store: Callable[[Mapping[Slot, Outcome]], list[Slot]],
) -> int:
    with transaction.atomic():
        _commit_without_waiting(True)
        seen = _seen_until(telling, now) if telling else {}
        new = store(slots)
        if new:
            _advance([(slot, slots[slot]) for slot in new], telling, seen, now)
    return len(new)


# Nobody would ever read the results of monitors that are gone.
_KNOWN = """
    SELECT ARRAY(SELECT slug FROM monitors_region ORDER BY id), ARRAY(SELECT id FROM monitors_region ORDER BY id),
           ARRAY(SELECT asked.id FROM unnest(%s::int[]) AS asked (id)
                  WHERE NOT EXISTS (SELECT FROM monitors_monitor m WHERE m.id = asked.id))
"""


def _known(monitor_ids: Iterable[int]) -> tuple[dict[str, int], set[int]]:
    """This will return the regions there are, slug to id, and which of these monitors there are no more."""
    with connection.cursor() as cursor:
        cursor.execute(_KNOWN, [arrays.plain(monitor_ids)])
        slugs, ids, gone = cursor.fetchone()
    return dict(zip(slugs, ids, strict=True)), set(gone)


def _says_nothing_new(outcome: Outcome) -> bool:
    """Whether an outcome changes nothing about a region that is up and quiet."""
    return outcome.reason is Reason.ok and not outcome.urgent and outcome.certificate_expires_at is None


def _commit_without_waiting(yes: bool) -> None:
    """This will say whether this transaction's commit may return before the disk has it.

    Results alone may: a server that crashes loses the last few hundred ms of them, and their slots are looked at
    again. An incident may not.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('synchronous_commit', %s, true)", ["off" if yes else "on"])


_HEARD_FROM = """
    INSERT INTO monitors_prober (name, region, seen_at) VALUES (%s, %s, %s)
    ON CONFLICT (name) DO UPDATE SET region = excluded.region, seen_at = excluded.seen_at
"""


def heard_from(name: str, region: str, now: datetime) -> None:
    """This will note that a prober's word has come all the way to the database."""
    with connection.cursor() as cursor:
        cursor.execute(_HEARD_FROM, [name[:200], region[:40], now])


_COLUMNS = {
    "monitor_id": "int4", "region_id": "int2", "scheduled_at": "timestamptz", "started_at": "timestamptz",
    "reason": "text", "status_code": "int2", "total_ms": "float4", "dns_ms": "float4", "connect_ms": "float4",
    "tls_ms": "float4", "first_byte_ms": "float4", "urgent": "bool", "reused": "bool", "detail": "text",
}  # fmt: skip


def _rows(slots: Mapping[Slot, Outcome]) -> Iterator[tuple]:
    for (monitor_id, region_id, scheduled_at), outcome in slots.items():
        yield (
            monitor_id, region_id, from_epoch(scheduled_at), from_epoch(outcome.started_at),
            outcome.reason, outcome.status_code, outcome.total_ms, outcome.dns_ms, outcome.connect_ms,
            outcome.tls_ms, outcome.first_byte_ms, outcome.urgent, outcome.reused,
            outcome.detail.replace("\0", "\N{REPLACEMENT CHARACTER}"),  # PostgreSQL's texts hold no NUL
        )  # fmt: skip


def _copy(slots: Mapping[Slot, Outcome]) -> list[Slot]:
    """This will write slots none of which is there yet, at half of what `_insert` costs; IntegrityError if one is."""
    # Binary: turned into text, a row takes four times as long here.
    statement = f"COPY monitors_result ({', '.join(_COLUMNS)}) FROM STDIN (FORMAT binary)"
    with connection.cursor() as cursor, connection.wrap_database_errors, cursor.copy(statement) as copy:
        copy.set_types(list(_COLUMNS.values()))
        for row in _rows(slots):
            copy.write_row(row)
    return list(slots)


_INSERT = """
    INSERT INTO monitors_result (monitor_id, region_id, scheduled_at, started_at, reason, status_code, total_ms,
                                 dns_ms, connect_ms, tls_ms, first_byte_ms, urgent, reused, detail)
    SELECT * FROM unnest(%s::int[], %s::smallint[], %s::timestamptz[], %s::timestamptz[], %s::monitors_reason[],
                         %s::smallint[], %s::real[], %s::real[], %s::real[], %s::real[], %s::real[], %s::bool[],
                         %s::bool[], %s::text[])
    ON CONFLICT DO NOTHING
    RETURNING monitor_id, region_id, extract(epoch FROM scheduled_at)::bigint
"""


def _insert(slots: Mapping[Slot, Outcome]) -> list[Slot]:
    """This will write what is not there yet, and return the slots that were new."""
    with connection.cursor() as cursor:
        cursor.execute(_INSERT, [list(column) for column in zip(*_rows(slots), strict=True)])
        return cursor.fetchall()


_SEEN_UNTIL = """
    SELECT k.monitor_id, k.region_id, extract(epoch FROM max(r.scheduled_at))::bigint
      FROM unnest(%s::int[], %s::smallint[]) AS k (monitor_id, region_id)
      JOIN monitors_result r ON r.monitor_id = k.monitor_id AND r.region_id = k.region_id
     WHERE r.scheduled_at > %s AND r.scheduled_at < %s
     GROUP BY k.monitor_id, k.region_id
"""


def _seen_until(keys: Iterable[Key], now: datetime) -> dict[Key, int]:
    """This will return the newest slot recorded of each region, epoch seconds, within a day."""
    monitor_ids, region_ids = zip(*keys, strict=True)
    with connection.cursor() as cursor:
        cursor.execute(
            _SEEN_UNTIL,
            [
                arrays.plain(monitor_ids),
                arrays.plain(region_ids),
                now - timedelta(days=1),
                now + timedelta(hours=1),
            ],
        )
        return {(monitor_id, region_id): slot for monitor_id, region_id, slot in cursor.fetchall()}


_LOCK = """
    SELECT s.monitor_id, s.region_id, s.status, s.failures, s.successes, s.slows,
           extract(epoch FROM s.seen_until)::bigint, ceil(extract(epoch FROM s.recheck_at))::bigint,
           m.failures_to_open, m.successes_to_close, m.recheck_seconds, m.interval_seconds
      FROM unnest(%s::int[], %s::smallint[], %s::bool[]) AS k (monitor_id, region_id, telling)
      JOIN monitors_regionstate s ON s.monitor_id = k.monitor_id AND s.region_id = k.region_id
      JOIN monitors_monitor m ON m.id = k.monitor_id
     WHERE k.telling OR NOT (s.status = 'up' AND s.failures = 0 AND s.slows = 0 AND s.recheck_at IS NULL)
     ORDER BY s.monitor_id, s.region_id
       FOR UPDATE OF s
"""

_UPDATE = """
    UPDATE monitors_regionstate s
       SET status = n.status, failures = n.failures, successes = n.successes, slows = n.slows,
           seen_until = to_timestamp(n.seen_until), recheck_at = to_timestamp(n.recheck_at),
           certificate_expires_at = coalesce(to_timestamp(n.certificate_expires_at), s.certificate_expires_at)
      FROM unnest(%s::int[], %s::smallint[], %s::text[], %s::smallint[], %s::smallint[], %s::smallint[],
                  %s::bigint[], %s::bigint[], %s::bigint[])
           AS n (monitor_id, region_id, status, failures, successes, slows, seen_until, recheck_at,
                 certificate_expires_at)
     WHERE s.monitor_id = n.monitor_id AND s.region_id = n.region_id
"""


def _advance(
    new: Sequence[tuple[Slot, Outcome]], telling: Collection[Key], seen: Mapping[Key, int], now: datetime
) -> None:
    by_key: dict[Key, list[Outcome]] = defaultdict(list)
    for (monitor_id, region_id, _), outcome in sorted(new, key=itemgetter(0)):
        by_key[monitor_id, region_id].append(outcome)  # in the order of their slots

    moved: dict[
        int, Outcome | None
    ] = {}  # monitors with a region whose status changed, and the outcome that did it
    updates = []
    for key, state, policy in _lock(by_key, telling):
        before = state = _caught_up(state, seen.get(key))
        certificate_expires_at = None
        for outcome in by_key[key]:
            after = advance(state, outcome, policy)
            if after is state:
                continue  # late, or paused: stored, and that is all
            if after.status is not state.status:
                moved[key[0]] = outcome
            state = after
            certificate_expires_at = outcome.certificate_expires_at or certificate_expires_at
        if state is not before:
            updates.append(
                (
                    *key,
                    state.status,
                    state.failures,
                    state.successes,
                    state.slows,
                    state.seen_until,
                    state.recheck_at,
                    certificate_expires_at,
                )  # fmt: skip
            )
    if updates:
        with connection.cursor() as cursor:
            cursor.execute(_UPDATE, [arrays.plain(column) for column in zip(*updates, strict=True)])
    if moved:
        _commit_without_waiting(False)
        incidents.apply(settle(moved, now), now)


def _caught_up(state: State, seen_until: int | None) -> State:
    """This will return a state that knows of the results that passed it by: each said that all was well.

    Whatever tells something is written into the state with its result, so what is recorded and newer than the
    state can only be such. It ended every run of failures; that is also how a failure and a success, recorded at
    the same moment by two workers, come out in the order of their slots.
    """
    if seen_until is None or (state.seen_until is not None and seen_until <= state.seen_until):
        return state
    return replace(state, failures=0, slows=0, seen_until=seen_until)


def _lock(keys: Iterable[Key], telling: Collection[Key]) -> Iterator[tuple[Key, State, Policy]]:
    """This will lock and return the states that may change: of what tells something, and those that are not quiet."""
    keys = list(keys)
    columns = [
        arrays.plain([key[0] for key in keys]),
        arrays.plain([key[1] for key in keys]),
        arrays.plain([key in telling for key in keys]),
    ]
    with connection.cursor() as cursor:
        cursor.execute(_LOCK, columns)
        for row in cursor.fetchall():
            yield (row[0], row[1]), State(_STATUSES[row[2]], *row[3:8]), _policy(*row[8:12])


_STATUSES = {str(status): status for status in Status}  # a third of the price of calling Status
_policy = lru_cache(maxsize=1000)(Policy)  # few differ


# The monitors are locked before their regions are read: of two workers that moved two regions of one monitor, the
# second sees what the first wrote.
_MONITORS = """
    SELECT id, team_id, name, url, runbook_url, tags, severity, status, status_changed_at,
           failures_to_open, successes_to_close, recheck_seconds, interval_seconds
      FROM monitors_monitor WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE
"""
_REGIONS = """
    SELECT s.monitor_id, r.slug, s.status, s.failures, s.successes
      FROM monitors_regionstate s JOIN monitors_region r ON r.id = s.region_id
     WHERE s.monitor_id = ANY(%s) ORDER BY s.monitor_id, r.slug
"""
_SETTLE = """
    UPDATE monitors_monitor m SET status = n.status, status_changed_at = n.at
      FROM unnest(%s::int[], %s::text[], %s::timestamptz[]) AS n (id, status, at) WHERE m.id = n.id
"""


def settle(moved: Mapping[int, Outcome | None], now: datetime) -> list[StatusChange]:
    """This will derive the status of monitors from their regions, write down those that changed, and return them.

    `moved` names for each monitor the outcome that moved one of its regions; None if a person moved the regions.
    """
    ids = sorted(moved)
    with connection.cursor() as cursor:
        cursor.execute(_MONITORS, [ids])
        monitors = cursor.fetchall()
        cursor.execute(_REGIONS, [ids])
        regions: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for monitor_id, *columns in cursor.fetchall():
            regions[monitor_id].append(
                dict(zip(("region", "status", "failures", "successes"), columns, strict=True))
            )

    changes = []
    for monitor_id, team_id, name, url, runbook_url, tags, severity, before, changed_at, *policy in monitors:
        after = overall(Status(region["status"]) for region in regions[monitor_id])
        if after == before:
            continue
        outcome = moved[monitor_id]
        changes.append(
            StatusChange(
                team_id=team_id,
                monitor_id=monitor_id,
                monitor_name=name,
                monitor_url=url,
                runbook_url=runbook_url,
                tags=tuple(tags),
                severity=severity,
                before=before,
                after=str(after),
                at=_between(changed_at, _finished_at(outcome) if outcome else now, now),
                reason=str(outcome.reason) if outcome else "",
                detail=outcome.detail if outcome else "",
                evidence={"policy": asdict(Policy(*policy)), "regions": regions[monitor_id]}
                if after is Status.DOWN
                else None,
            )
        )
    if changes:
        columns = [[c.monitor_id for c in changes], [c.after for c in changes], [c.at for c in changes]]
        with connection.cursor() as cursor:
            cursor.execute(_SETTLE, columns)
        periods.turn({change.monitor_id: change.at for change in changes})
    return _with_evidence(changes, moved, now)


def _finished_at(outcome: Outcome) -> datetime:
    return from_epoch(outcome.started_at + (outcome.total_ms or 0) / 1000)


def _between(earliest: datetime, moment: datetime, latest: datetime) -> datetime:
    """A prober's clock may run ahead or behind; a monitor's history does neither."""
    return max(earliest, min(moment, latest))


_RECENT = """
    SELECT r.monitor_id, r.scheduled_at, region.slug, r.reason::text, r.status_code, r.total_ms, r.detail
      FROM unnest(%s::int[]) AS wanted
     CROSS JOIN LATERAL (
           SELECT * FROM monitors_result
            WHERE monitor_id = wanted AND scheduled_at > %s
            ORDER BY scheduled_at DESC LIMIT 10
     ) r
      JOIN monitors_region region ON region.id = r.region_id
     ORDER BY r.monitor_id, r.scheduled_at DESC
"""


def _with_evidence(
    changes: list[StatusChange], moved: Mapping[int, Outcome | None], now: datetime
) -> list[StatusChange]:
    """This will add to the changes that open an incident what was seen before, and the answer that decided it."""
    opening = [change.monitor_id for change in changes if change.evidence is not None]
    if not opening:
        return changes
    recent: dict[int, list[dict[str, Any]]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(_RECENT, [opening, now - timedelta(days=1)])
        for monitor_id, scheduled_at, region, reason, status_code, total_ms, detail in cursor.fetchall():
            recent[monitor_id].append(
                {
                    "scheduled_at": scheduled_at.isoformat(),
                    "region": region,
                    "reason": reason,
                    "status_code": status_code,
                    "total_ms": total_ms,
                    "detail": detail,
                }
            )
    for change in changes:
        if change.evidence is not None:
            change.evidence["results"] = recent[change.monitor_id]
            outcome = moved[change.monitor_id]
            change.evidence["response"] = outcome.evidence if outcome else None
    return changes
