"""The prober: the one process that talks to strangers' servers, and so the one that knows nothing.

No Django, no database, no secret but the probe keys. Targets come off `urgent.<region>` and `probe.<region>`,
outcomes go to `results`:

    celery -A healthmon.agent worker -P threads -c 8 -Q urgent.default,probe.default

    message ──▶ probe (a Celery thread) ──▶ Loop (one thread) ──▶ Sender (one thread) ──▶ message

A task is done when its batch is in the loop's hand, not when it is probed: the broker is a hint. What was in hand
of a prober that is killed never comes back as results, and the sweep dispatches those slots again.
"""

import collections
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery, signals
from celery.exceptions import Reject
from kombu.exceptions import EncodeError, OperationalError

from healthmon import environment
from healthmon.lib import logs
from healthmon.lib.addresses import Guard
from monitors.probing.loop import Loop
from monitors.probing.outcome import Outcome, Target
from monitors.probing.probe import Surroundings

log = structlog.get_logger(__name__)

BATCH = 100  # outcomes a message
FLUSH_SECONDS = 0.5  # the longest an outcome waits for company
HEARTBEAT_SECONDS = 5.0  # an empty message if there is nothing else to say: readiness listens for it
MOST_UNSENT = 20_000  # outcomes kept while the broker is away; about a minute at full load
ROOM_SECONDS = (
    1.0  # a batch that finds no room goes back to its queue after this: urgent ones need the thread
)
HANG_SECONDS = 30.0  # a loop that has not turned for so long is dead, whatever it says
DRAIN_SECONDS = 25.0  # with the next line, less than a supervisor waits before it kills
SEND_SECONDS = 5.0  # for what is unsent at shutdown
SOCKETS = 4000

app = Celery("healthmon-agent", fixups=[])  # no fix-ups: the Django one would import Django
app.config_from_object("celeryconfig")
app.conf.worker_pool = "threads"  # a forked child would have no loop
# Our tasks end within a second by themselves, and threads cannot be cancelled.
app.conf.worker_cancel_long_running_tasks_on_connection_loss = False


class Sender:
    """Publishes outcomes in batches from a thread of its own; whoever hands them over never waits.

    publish: sends one list of outcomes in wire form, or raises. An empty list is a heartbeat.
    is_well: whether the loop turns; no heartbeat says so when it does not.
    """

    def __init__(self, publish: Callable[[list[dict[str, Any]]], None], is_well: Callable[[], bool]) -> None:
        self._publish = publish
        self._is_well = is_well
        self._waiting: collections.deque[Outcome] = collections.deque(maxlen=MOST_UNSENT)
        self._batch: list[Outcome] = []  # taken, not known to be sent
        self._wake = threading.Event()
        self._stopping = False
        self._sent_at = 0.0
        self._failing = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def put(self, outcome: Outcome) -> None:
        """Take an outcome; when too many are unsent the oldest is dropped, and its slot dispatched again."""
        if len(self._waiting) == MOST_UNSENT:
            self.dropped += 1
        self._waiting.append(outcome)
        if len(self._waiting) >= BATCH:
            self._wake.set()

    def stop(self, timeout: float) -> int:
        """Send what there is within `timeout` seconds, and end the thread. Returns how many were left unsent."""
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout)
        return len(self._waiting) + len(self._batch)

    def _run(self) -> None:
        while not (self._stopping and not self._waiting and not self._batch):
            if not self._stopping or self._failing:
                self._wake.wait(FLUSH_SECONDS)
                self._wake.clear()
            self._flush()

    def _flush(self) -> None:
        """Send all that waits; stop at the first failure and keep the batch for the next time."""
        while True:
            while self._waiting and len(self._batch) < BATCH:
                self._batch.append(self._waiting.popleft())
            heartbeat_due = time.monotonic() - self._sent_at >= HEARTBEAT_SECONDS and self._is_well()
            if not self._batch and not heartbeat_due:
                return
            try:
                self._publish([outcome.to_wire() for outcome in self._batch])
            except EncodeError:
                log.exception("outcomes cannot be encoded, dropped", outcomes=len(self._batch))
            except (OperationalError, OSError) as error:
                self._not_sent(str(error))
                return
            except Exception:  # a broker that is read-only or out of memory says so in its client's own words
                log.exception("outcomes refused")
                self._not_sent("see above")
                return
            self._sent()

    def _not_sent(self, error: str) -> None:
        if not self._failing:
            unsent = len(self._waiting) + len(self._batch)
            log.error("outcomes cannot be sent, kept", unsent=unsent, error=error)
        self._failing = True

    def _sent(self) -> None:
        self._batch.clear()
        self._sent_at = time.monotonic()
        if self._failing or self.dropped:
            log.warning("outcomes are sent again", unsent=len(self._waiting), dropped=self.dropped)
        self._failing, self.dropped = False, 0


class Prober:
    """A loop, a sender, and the thread that ends the process when the loop is no more."""

    def __init__(self, settings: environment.Environment) -> None:
        self._region = settings.region
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
        return self._loop.submit(targets, ROOM_SECONDS)

    def stop(self) -> None:
        """Finish what is in hand, send what is unsent, within DRAIN_SECONDS + SEND_SECONDS."""
        finished = self._loop.drain(DRAIN_SECONDS)
        unsent = self._sender.stop(SEND_SECONDS)
        log.info("prober stopped", unfinished=0 if finished else self._loop.in_hand, unsent=unsent)

    def _publish(self, outcomes: list[dict[str, Any]]) -> None:
        app.send_task(
            "monitors.tasks.record",
            kwargs={"outcomes": outcomes, "prober": {"name": self._name, "region": self._region}},
            queue="results",
            retry=False,  # the next flush is the retry
            expires=None if outcomes else 6 * HEARTBEAT_SECONDS,  # old heartbeats tell nothing
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


_running: list[Prober] = []  # one, between worker_init and worker_shutdown


@app.task(name="monitors.probe")
def probe(*, targets: list[dict[str, Any]], **_future: Any) -> None:
    """This task will take a batch of targets (in wire form) in hand, and be done before they are probed."""
    batch = []
    for wire in targets:
        try:
            batch.append(Target.from_wire(wire))
        except TypeError as error:  # one that a newer or broken publisher wrote does not cost the others
            log.error("target not understood, left out", monitor_id=wire.get("monitor_id"), error=str(error))
    if not _running[0].take(batch):
        raise Reject("no room", requeue=True)


@signals.setup_logging.connect
def _set_up_logging(**_future: Any) -> None:
    logs.configure("prober")


@signals.worker_init.connect
def _start(**_future: Any) -> None:
    # Celery's threads decode messages while the loop waits for the interpreter: 5 ms of that, the default, would
    # be 5 ms in somebody's latency.
    sys.setswitchinterval(0.0005)
    try:
        settings = environment.read(os.environ, secrets_file=False)
    except environment.EnvironmentInvalid as invalid:
        raise SystemExit(str(invalid)) from None
    _running.append(Prober(settings))


@signals.worker_shutdown.connect
def _stop(**_future: Any) -> None:
    _running.pop().stop()
