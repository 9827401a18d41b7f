"""What machines do: tick, sweep, record, keep partitions. Thin: each reads the clock once and calls the engine."""

import time
from collections import Counter
from collections.abc import Iterable

import structlog
from celery import current_app, shared_task
from celery.exceptions import Reject
from celery.signals import worker_ready
from django.conf import settings
from django.db import InterfaceError, OperationalError

from healthmon.lib import queues
from healthmon.lib.clock import now as read_clock
from monitors import daily, partitions, recording, scheduling
from monitors.probing.outcome import Outcome, Target

log = structlog.get_logger(__name__)

# Messages waiting for the probers of a region beyond which its slots are shed: so many seconds behind, and a few.
BACKLOG_SECONDS = 2
BACKLOG_LEAST = 20
# A batch that the database cannot take is tried again this often and this long; after that its slots are history.
PATIENCE_SECONDS = 1.0
TRIED_FOR_SECONDS = 600


@shared_task(name="monitors.tasks.tick")
def tick(**_future) -> None:
    """Hand out the slots that fell due since the last tick, and the rechecks whose time has come.

    The clock moves on in the transaction that hands them out, after the publishing: killed in between, the window
    is handed out again, and the identity of a slot makes that harmless.
    """
    with scheduling.window() as window:
        if window is None:
            return  # another tick has the clock
        rechecks = scheduling.rechecks(window.until)
        publish(rechecks, window.until, urgent=True)
        if window.since < window.until:
            asked = {(target.monitor_id, target.region, target.scheduled_at) for target in rechecks}
            targets = [
                target
                for target in scheduling.due(window.since, window.until)
                # A recheck in the very second of a slot is that slot: it is not probed twice.
                if (target.monitor_id, target.region, target.scheduled_at) not in asked
            ]
            wanted = Counter(target.region for target in targets)
            full = {region for region, count in wanted.items() if _behind(region, count)}
            publish((target for target in targets if target.region not in full), window.until)
            if shed := sum(wanted[region] for region in full):
                window.shed(shed)
                log.warning("checks_shed", count=shed, regions=sorted(full))


@shared_task(name="monitors.tasks.sweep")
def sweep(**_future) -> None:
    """Hand out again the slots that were handed out and never came back: a killed prober, a flushed broker."""
    with scheduling.sweeping() as dispatched_until:
        if dispatched_until is None:
            return  # another sweep is under way
        # Behind is not lost: what waits in the queue will be probed, or be `missed`, when its turn comes.
        full = {region for region in scheduling.regions() if queues.length(current_app, f"probe.{region}")}
        targets = [target for target in scheduling.lost(dispatched_until) if target.region not in full]
        publish(targets, dispatched_until)
    if targets:
        log.warning("slots_dispatched_again", count=len(targets))


def _behind(region: str, targets: int) -> bool:
    """Whether what waits for a region's probers is more than they should be given with these targets."""
    waiting = queues.length(current_app, f"probe.{region}")
    return waiting > BACKLOG_LEAST + BACKLOG_SECONDS * targets // scheduling.BATCH


def publish(targets: Iterable[Target], until: int, *, urgent: bool = False) -> None:
    """This will put Targets on their regions' queues, a batch to a message."""
    for batch in scheduling.batches(targets):
        current_app.send_task(
            "monitors.probe",
            kwargs={"targets": [target.to_wire() for target in batch]},
            argsrepr="()",
            kwargsrepr="{}",  # for people only; left to Celery, spelling out targets costs what encoding them does
            queue=f"{'urgent' if urgent else 'probe'}.{batch[0].region}",
            # The prober reports what is late as missed; this only empties a queue that no prober reads.
            expires=max(target.expires_at for target in batch) - until + 60,
        )


@shared_task(name="monitors.tasks.record")
def record(*, outcomes: list[dict], prober: dict | None = None, **_future) -> None:
    """Write down what came back. While the database is away the message goes back to its queue, until it is old."""
    now = read_clock()
    came_back = [Outcome.from_wire(wire) for wire in outcomes]
    try:
        if prober:
            recording.heard_from(prober["name"], prober["region"], now)
        recording.record(came_back, now)
    except (OperationalError, InterfaceError) as problem:
        newest = max((outcome.scheduled_at for outcome in came_back), default=0)
        if newest < now.timestamp() - TRIED_FOR_SECONDS:
            raise
        log.warning("not_recorded_yet", outcomes=len(came_back), problem=str(problem).partition("\n")[0])
        time.sleep(PATIENCE_SECONDS)
        raise Reject("the database is away", requeue=True) from problem


@shared_task(name="monitors.tasks.keep_partitions")
def keep_partitions(**_future) -> None:
    today = read_clock().date()
    counted = daily.keep(today, settings.HEALTHMON_RAW_RETENTION_DAYS)  # before what it counts is dropped
    made, dropped = partitions.keep(today, settings.HEALTHMON_RAW_RETENTION_DAYS)
    if made or dropped or counted:
        log.info("partitions", made=made, dropped=dropped, counted=[str(day) for day in counted])


@worker_ready.connect
def look_after_partitions(**_: object) -> None:
    """A worker that was away for longer than partitions are made ahead must not wait for beat's hour."""
    keep_partitions.delay()
