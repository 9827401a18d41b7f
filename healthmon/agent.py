"""The prober: the one process that talks to strangers' servers, and so the one that knows nothing.

No Django, no database, no secret but the probe keys. Targets come off `urgent.<region>` and `probe.<region>`,
outcomes go to `results`:

    celery -A healthmon.agent worker -P threads -c 8 -Q urgent.default,probe.default

    message ──▶ probe (a Celery thread) ──▶ Loop (one thread) ──▶ Sender (one thread) ──▶ message

A task is done when its batch is in the loop's hand, not when it is probed: the broker is a hint. What was in hand
of a prober that is killed never comes back as results, and the sweep dispatches those slots again.
"""

import gc
import logging
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import structlog

if "django" not in sys.modules:
    # Both take Django's lazy strings into account where they find Django installed, and do without where not.
    # The process that talks to strangers finds none.
    sys.modules["django"] = None  # type: ignore[assignment]
    import celery.utils.collections  # noqa: F401
    import kombu.utils.json  # noqa: F401

    del sys.modules["django"]

from celery import Celery, signals
from celery.exceptions import Reject

from healthmon import environment
from healthmon.lib import logs
from healthmon.lib.addresses import Guard
from monitors.probing.loop import Loop
from monitors.probing.outcome import Target
from monitors.probing.probe import Surroundings
from monitors.probing.sender import HEARTBEAT_SECONDS, Sender

log = structlog.get_logger(__name__)

ROOM_SECONDS = 1.0  # then a batch without room goes back to its queue: urgent ones need the thread, too
FULL_AGAIN_SECONDS = 10.0  # between two log lines that say so
HANG_SECONDS = 30.0  # a loop that has not turned for so long is dead, whatever it says
DRAIN_SECONDS = 25.0  # with the next line, less than a supervisor waits before it kills
SEND_SECONDS = 5.0  # for what is unsent at shutdown
SOCKETS = 4000

try:
    # Not the secrets file: it holds more than a prober may know.
    SETTINGS = environment.read(os.environ, secrets_file=False)
except environment.EnvironmentInvalid as invalid:
    raise SystemExit(str(invalid)) from None

app = Celery("healthmon-agent", fixups=[])  # no fix-ups: the Django one would import Django
app.config_from_object("celeryconfig")
app.conf.worker_pool = "threads"  # a forked child would have no loop; this also overrides `-P prefork`


class Prober:
    """A loop, a sender, and the thread that ends the process when the loop is no more."""

    def __init__(self, settings: environment.Environment) -> None:
        self._region = settings.region
        self._full_at = -FULL_AGAIN_SECONDS
        self._told_at = -HEARTBEAT_SECONDS
        self._name = f"{socket.gethostname()}-{os.getpid()}"
        self._sender = Sender(self._publish, lambda: self._loop.silent_seconds() < HEARTBEAT_SECONDS)
        surroundings = Surroundings(Guard(settings.allowed_nets), settings.probe_keys)
        self._loop = Loop(surroundings, self._sender.put, max_in_flight=_sockets())
        self._sender.start()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        log.info("prober ready", region=self._region, name=self._name, sockets=_sockets())
        if not settings.probe_keys:
            log.warning("no HEALTHMON_PROBE_KEYS: monitors with secrets will be inconclusive")

    def take(self, targets: list[Target]) -> bool:
        """Return whether a batch was taken in hand; False when there is no room or the end is near."""
        taken = self._loop.submit(targets, ROOM_SECONDS)
        if not taken and time.monotonic() - self._full_at > FULL_AGAIN_SECONDS:
            self._full_at = time.monotonic()
            log.warning("no room, batches go back to their queue", in_hand=self._loop.in_hand)
        return taken

    def stop(self) -> None:
        """Finish what is in hand, send what is unsent, within DRAIN_SECONDS + SEND_SECONDS."""
        finished = self._loop.drain(DRAIN_SECONDS)
        unsent = self._sender.stop(SEND_SECONDS)
        log.info("prober stopped", unfinished=0 if finished else self._loop.in_hand, unsent=unsent)

    def _publish(self, outcomes: list[list[Any]]) -> None:
        kwargs: dict[str, Any] = {"outcomes": outcomes}
        # A sign of life costs the database a row written; with every batch that was a fifth of recording it.
        if not outcomes or time.monotonic() - self._told_at >= HEARTBEAT_SECONDS:
            kwargs["prober"] = {"name": self._name, "region": self._region}
            self._told_at = time.monotonic()
        app.send_task(
            "monitors.tasks.record",
            kwargs=kwargs,
            queue="results",
            retry=False,  # the next flush is the retry
            expires=None if outcomes else 6 * HEARTBEAT_SECONDS,  # old heartbeats tell nothing
            argsrepr="()",
            kwargsrepr="{}",  # for people only; spelling the outcomes out was a fifth of a message
        )

    def _watch(self) -> None:
        """A prober whose loop hangs would look alive and probe nothing; end it and let it be started anew."""
        while not self._loop.closing:
            if self._loop.silent_seconds() > HANG_SECONDS:
                log.critical("probing loop hangs or died; ending the process", in_hand=self._loop.in_hand)
                os._exit(70)
            time.sleep(1)


def _sockets() -> int:
    """Return how many probes may have a socket open, having asked the kernel for enough descriptors.

    A third of them: urgent probes may double the number, and kept connections hold theirs.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * SOCKETS + 500
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return SOCKETS if soft == resource.RLIM_INFINITY else max(min(SOCKETS, (soft - 500) // 3), 50)


_running: list[Prober] = []  # one, from start to shutdown


@app.task(name="monitors.probe")
def probe(*, targets: list[Any], **_future: Any) -> None:
    """This task will take a batch of targets (in wire form) in hand, and be done before they are probed."""
    try:
        batch = [Target.from_wire(wire) for wire in targets]
    except TypeError:  # one that a newer or broken publisher wrote does not cost the others
        batch = list(_understood(targets))
    if not _running[0].take(batch):
        raise Reject("no room", requeue=True)


def _understood(targets: list[Any]) -> Iterator[Target]:
    for wire in targets:
        try:
            yield Target.from_wire(wire)
        except TypeError as error:
            log.error("target not understood, left out", error=str(error))


@signals.setup_logging.connect
def _set_up_logging(**_future: Any) -> None:
    logs.configure("prober")
    logging.getLogger("celery.app.trace").setLevel(
        logging.ERROR
    )  # would log every batch sent back, targets and all


@signals.celeryd_after_setup.connect
def _start(**_future: Any) -> None:
    # Celery's threads decode messages while the loop waits for the interpreter; 5 ms of that, the default, would
    # be 5 ms in somebody's latency.
    sys.setswitchinterval(0.0005)
    _running.append(Prober(SETTINGS))
    # What is imported by now stays: looking through all of it for garbage stopped every thread for 77 ms.
    gc.collect()
    gc.freeze()


@signals.worker_shutdown.connect
def _stop(**_future: Any) -> None:
    while _running:
        _running.pop().stop()
