"""Outcomes on their way out: batched, never in the loop's way, kept while the broker is away."""

import collections
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from kombu.exceptions import EncodeError

from monitors.probing.outcome import FAILING, Outcome

log = structlog.get_logger(__name__)

BATCH = 500  # outcomes a message, whose own cost is that of some 200 of them
FLUSH_SECONDS = 0.5  # the longest an outcome waits for company
HEARTBEAT_SECONDS = 5.0  # an empty message if there is nothing else to say: readiness listens for it
MOST_UNSENT = 20_000  # outcomes kept while the broker is away: a minute at 333 a second


class Sender:
    """Publishes outcomes in batches from a thread of its own; whoever hands them over never waits.

    publish: sends one list of outcomes in wire form, or raises. An empty list is a heartbeat.
    is_well: whether the loop turns; no heartbeat says so when it does not.
    """

    def __init__(self, publish: Callable[[list[list[Any]]], None], is_well: Callable[[], bool]) -> None:
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
        # What may open an incident does not wait for company; while one message is sent, the next gathers.
        hurry = len(self._waiting) >= BATCH or outcome.urgent or outcome.reason in FAILING
        if hurry and not self._wake.is_set():
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
            except Exception as error:  # noqa: BLE001 - away, read-only, full: each broker's client has its own words
                if not self._failing:
                    unsent = len(self._waiting) + len(self._batch)
                    log.error("outcomes cannot be sent, kept", unsent=unsent, error=repr(error))
                self._failing = True
                return
            self._sent()

    def _sent(self) -> None:
        self._batch.clear()
        self._sent_at = time.monotonic()
        if self._failing or self.dropped:
            log.warning("outcomes are sent again", unsent=len(self._waiting), dropped=self.dropped)
        self._failing, self.dropped = False, 0
