"""One thread, one libcurl multi handle, one poll: every probe of this process.

    submit ──▶ urgent, paced ──▶ in flight ──▶ on_outcome
                    │                └─▶ second opinion (a name did not resolve) ──▶ on_outcome
                    └─▶ missed (its next slot is due already)

libcurl is driven by `socket_action`: it says which sockets and which moment it waits for, and is told when they
come. About half of a probe's CPU time is spent inside curl and the kernel.
"""

import collections
import contextlib
import heapq
import itertools
import math
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pycurl
import structlog

from monitors.probing import PROBES
from monitors.probing.names import Resolver
from monitors.probing.outcome import Outcome, Reason, Target, pace_ms
from monitors.probing.probe import Probe, Surroundings, Unfit

log = structlog.get_logger(__name__)

LATE_GAP_SECONDS = 0.0005  # between starts that are late already: a backlog must not become a burst
STARTS_PER_TURN = 16  # setting up a probe takes some 60 µs, during which no answer is read
# A loop that begins its probes later than this takes nothing more: what it took now would be later still, and past
# capacity everything would expire in its hand, ten seconds old, instead of some of it being looked at in time.
BEHIND_SECONDS = 1.0
LONGEST_TURN_SECONDS = 1.0
# Slots are handed out up to two seconds before their moment; one that seems further off than this is due, and it is
# the prober's clock that is behind.
LONGEST_AHEAD_SECONDS = 2.5
_OPINIONS_AT_ONCE = 4
_MOST_OPINIONS = 500  # asked for and not given yet; past that it is the resolver

_NEVER = math.inf
_MOST_EVENTS = 256  # a turn

# What curl asks to hear of a socket in the system's words, and what the system says in curl's. An error or a hang-up
# is whatever curl likes to try: trying tells it what happened.
_ASKED = {
    pycurl.POLL_IN: select.POLLIN,
    pycurl.POLL_OUT: select.POLLOUT,
    pycurl.POLL_INOUT: select.POLLIN | select.POLLOUT,
}
_HEARD = {select.POLLIN: pycurl.CSELECT_IN, select.POLLOUT: pycurl.CSELECT_OUT}
_ANYTHING = pycurl.CSELECT_IN | pycurl.CSELECT_OUT


class _Poll:
    """`select.poll` in the shape of `select.epoll`, for systems that have none."""

    def __init__(self) -> None:
        poll = self._poll = select.poll()
        self.register, self.modify, self.unregister = poll.register, poll.modify, poll.unregister

    def poll(self, timeout: float, maxevents: int) -> list[tuple[int, int]]:
        return self._poll.poll(math.ceil(timeout * 1000))[:maxevents]

    def close(self) -> None:
        pass


class Loop:
    """Probes targets, many at a time, in a thread of its own, and hands every Outcome to `on_outcome`.

    on_outcome: called from the loop's threads; has to be quick and thread-safe. An exception in it is logged.
    max_in_flight: probes with a socket open; urgent ones may take as many again. Four times as many targets may
        be in hand, waiting for their start included.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        on_outcome: Callable[[Outcome], None],
        max_in_flight: int = 2000,
        resolver: Resolver | None = None,
    ) -> None:
        self._surroundings = surroundings
        self._resolver = resolver or Resolver()
        self._on_outcome = on_outcome
        self._max_in_flight = max_in_flight
        self._max_in_hand = 4 * max_in_flight

        self._in_hand = 0  # submitted and not reported yet
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0  # for that condition
        self._closing = self._stopped = False
        self._inbox: collections.deque[Target] = collections.deque()
        self._urgent: collections.deque[Target] = collections.deque()
        self._paced: list[tuple[float, int, Target]] = []  # heap by monotonic start
        self._order = itertools.count()
        self._late_until = 0.0
        self._flights: dict[Any, tuple[Probe, Target]] = {}
        self._idle: list[Any] = []  # curl handles without options
        self._plain: list[Any] = []  # and those whose last transfer was a plain one
        self._opinions = ThreadPoolExecutor(_OPINIONS_AT_ONCE, thread_name_prefix="second-opinion")
        self._doubts = 0

        # Not `selectors`, whose registrations and keys cost 7 µs a probe.
        self._poll: Any = getattr(select, "epoll", _Poll)()
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._ear_fd = self._ear.fileno()
        self._poll.register(self._ear_fd, select.POLLIN)
        self._watched: set[int] = set()  # curl's sockets in the poll
        self._alarm = _NEVER  # monotonic; when curl wants to be called without an event
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_alarm)
        self._multi.setopt(pycurl.M_MAXCONNECTS, max_in_flight)
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_NOTHING)  # one monitor's stream is not another's
        self._turned_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="probing", daemon=True)
        self._thread.start()

    # --- from any thread ---------------------------------------------------------------------------------

    def submit(self, targets: Sequence[Target], timeout: float | None = None) -> bool:
        """Take targets in hand: urgent ones start at once, others at their place inside the second.

        Waits for room when too much is in hand or the loop is behind, at most `timeout` seconds and not beyond the
        last target's expiry; urgent ones do not wait. Returns False if there was no room or the loop is closing; then
        nothing was taken.
        """
        patience = max((target.expires_at for target in targets), default=0) - time.time()
        if timeout is None or timeout > patience:
            timeout, taken_anyhow = patience, True  # to be reported as missed
        else:
            taken_anyhow = False
        with self._changed:
            room = all(target.urgent for target in targets) or self._wait_for(
                lambda: self._has_room() or self._closing or self._stopped, timeout
            )
            if self._closing or self._stopped or not (room or taken_anyhow):
                return False
            self._in_hand += len(targets)
            self._inbox.extend(targets)
        self._ring()
        return True

    def _has_room(self) -> bool:
        now, next_start = time.monotonic(), self._paced[:1]
        overdue = now - next_start[0][0] if next_start else 0
        return self._in_hand < self._max_in_hand and max(overdue, self._late_until - now) < BEHIND_SECONDS

    @property
    def in_hand(self) -> int:
        """How many targets were submitted and not reported yet."""
        return self._in_hand

    @property
    def closing(self) -> bool:
        """Whether `drain` was called."""
        return self._closing

    def silent_seconds(self) -> float:
        """Return how long ago the loop last turned: about a second at most, unless it hangs; inf if it died."""
        return time.monotonic() - self._turned_at if self._thread.is_alive() else float("inf")

    def drain(self, timeout: float) -> bool:
        """Take nothing more, finish what is in hand within `timeout` seconds, and end the thread.

        What is not finished by then is not reported: its slot stays open, and the sweep dispatches it again.
        Returns whether everything was finished.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._wait_for(lambda: not self._in_hand or not self._thread.is_alive(), timeout)
            finished = not self._in_hand
            self._stopped = True
        self._ring()
        self._thread.join(timeout=5)
        self._bell.close()
        self._opinions.shutdown(wait=False, cancel_futures=True)
        return finished

    def _wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        self._waiting += 1
        try:
            return self._changed.wait_for(condition, max(timeout, 0))
        finally:
            self._waiting -= 1

    def _ring(self) -> None:
        with contextlib.suppress(OSError):  # full: it rings already; closed: nobody listens any more
            self._bell.send(b"!")

    # --- the loop's thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopped:
                self._turn()
        except Exception:
            # The thread ends and stays ended; `silent_seconds` says so, and the agent ends the process.
            log.exception("probing loop died", in_hand=self._in_hand)
        finally:
            for curl in self._flights:
                self._multi.remove_handle(curl)
            for curl in (*self._flights, *self._idle, *self._plain):
                curl.close()
            self._multi.close()
            self._poll.close()
            self._ear.close()
            with self._changed:
                self._stopped = True
                self._changed.notify_all()

    def _turn(self) -> None:
        for fd, events in self._poll.poll(self._patience(), _MOST_EVENTS):
            if fd == self._ear_fd:
                self._ear.recv(4096)
            else:
                self._multi.socket_action(fd, _HEARD.get(events, _ANYTHING))
        now = self._turned_at = time.monotonic()
        if self._inbox:
            self._sort_inbox(now)
        self._start_due(now)
        if self._alarm <= time.monotonic():  # after the starts: curl wants to be called for each, at once
            self._alarm = _NEVER
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._collect()

    def _patience(self) -> float:
        """Return the seconds until something has to be done without being told."""
        in_flight = len(self._flights)
        if self._inbox or (self._urgent and in_flight < 2 * self._max_in_flight):
            return 0
        moment = self._alarm
        if self._paced and in_flight < self._max_in_flight:
            moment = min(moment, self._paced[0][0])
        return min(max(moment - time.monotonic(), 0), LONGEST_TURN_SECONDS)

    def _watch(self, event: int, fd: int, multi: Any, data: Any) -> None:
        """Follow curl's word on which sockets to wait for (CURLMOPT_SOCKETFUNCTION)."""
        if event not in _ASKED:
            if fd in self._watched:
                self._watched.remove(fd)
                with contextlib.suppress(OSError):  # closed already
                    self._poll.unregister(fd)
        elif fd in self._watched:
            self._poll.modify(fd, _ASKED[event])
        else:
            self._watched.add(fd)
            self._poll.register(fd, _ASKED[event])

    def _set_alarm(self, timeout_ms: int) -> None:
        """Note when curl wants to be called (CURLMOPT_TIMERFUNCTION); -1 is never."""
        self._alarm = _NEVER if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000

    def _sort_inbox(self, now: float) -> None:
        """Give every new target its moment."""
        wall = time.time()
        while self._inbox:
            target = self._inbox.popleft()
            if target.urgent and target.scheduled_at <= wall:
                self._urgent.append(target)
                continue
            pace = 0 if target.urgent else pace_ms(target.monitor_id) / 1000
            delay = min(target.scheduled_at + pace - wall, LONGEST_AHEAD_SECONDS)
            start_at = now + delay
            if delay <= 0:
                start_at = self._late_until = max(now, self._late_until + LATE_GAP_SECONDS)
            if wall + start_at - now > target.expires_at:
                self._report(_missed(target, wall))
            else:
                heapq.heappush(self._paced, (start_at, next(self._order), target))

    def _start_due(self, now: float) -> None:
        for _ in range(STARTS_PER_TURN):
            in_flight = len(self._flights)
            if self._urgent and in_flight < 2 * self._max_in_flight:
                self._start(self._urgent.popleft())
            elif self._paced and self._paced[0][0] <= now and in_flight < self._max_in_flight:
                self._start(heapq.heappop(self._paced)[2])
            else:
                return

    def _start(self, target: Target) -> None:
        now = time.time()
        if now > target.expires_at:
            self._report(_missed(target, now))
            return
        curl = None
        try:
            if target.kind not in PROBES:
                raise Unfit(f"This prober does not know the kind {target.kind[:20]!r}; is it out of date?")
            probe = PROBES[target.kind](target, self._surroundings, now=now)
            again = probe.plain and bool(self._plain)
            curl = self._plain.pop() if again else self._bare_handle()
            self._launch(curl, probe, target, again=again)
        except Exception as error:  # noqa: BLE001 - _give_up logs and reports it
            self._give_up(target, curl, error)

    def _bare_handle(self) -> Any:
        if self._idle:
            return self._idle.pop()
        if not self._plain:
            return pycurl.Curl()
        curl = self._plain.pop()
        curl.reset()
        return curl

    def _launch(self, curl: Any, probe: Probe, target: Target, *, again: bool = False) -> None:
        probe.prepare(curl, again=again)
        self._multi.add_handle(curl)
        self._flights[curl] = probe, target

    def _collect(self) -> None:
        """Take in the transfers that have ended."""
        more = True
        while more:
            more, done, failed = self._multi.info_read()
            for curl in done:
                self._land(curl, pycurl.E_OK, "")
            for curl, code, message in failed:
                self._land(curl, code, message)

    def _land(self, curl: Any, code: int, message: str) -> None:
        probe, target = self._flights.pop(curl)
        self._multi.remove_handle(curl)
        try:
            plain = probe.plain and not code
            outcome = probe.finish(curl, code, message)
            if outcome is None or not plain:
                curl.reset()  # nothing of one target, not a header, reaches the next
            if outcome is None:
                self._launch(curl, probe, target)
                return
            if outcome.reason is Reason.dns:
                self._doubt(outcome, probe.host)
            else:
                self._report(outcome)
        except Exception as error:  # noqa: BLE001 - _give_up logs and reports it
            self._give_up(target, curl, error)
        else:
            (self._plain if plain else self._idle).append(curl)

    def _give_up(self, target: Target, curl: Any, error: Exception) -> None:
        """Whatever goes wrong with one target ends as its outcome, and leaves the loop and the others alone."""
        if isinstance(error, Unfit):
            detail = str(error)
        else:
            log.error("probe failed", monitor_id=target.monitor_id, kind=target.kind, exc_info=error)
            detail = "The probe itself failed; the prober's log says why."
        if curl is not None:
            curl.close()  # not back to the pool: who knows what is set on it
        self._report(_silent(target, time.time(), Reason.inconclusive, detail))

    # --- from the loop's threads -------------------------------------------------------------------------

    def _doubt(self, outcome: Outcome, host: str) -> None:
        with self._changed:
            full = self._doubts >= _MOST_OPINIONS
            self._doubts += not full
        if full:
            self._report(replace(outcome, reason=Reason.inconclusive, evidence=None, detail=_RESOLVER))
        else:
            self._opinions.submit(self._second_opinion, outcome, host)

    def _second_opinion(self, outcome: Outcome, host: str) -> None:
        try:
            blamed = self._resolver.blames_name(host)
        except Exception:
            log.exception("second opinion failed", monitor_id=outcome.monitor_id)
            blamed = False
        with self._changed:
            self._doubts -= 1
        if not blamed:
            outcome = replace(outcome, reason=Reason.inconclusive, evidence=None, detail=_RESOLVER)
        self._report(outcome)

    def _report(self, outcome: Outcome) -> None:
        try:
            self._on_outcome(outcome)
        except Exception:
            log.exception("outcome not taken", monitor_id=outcome.monitor_id)
        with self._lock:
            self._in_hand -= 1
            if self._waiting and self._has_room():
                self._changed.notify_all()


_RESOLVER = "The name did not resolve, and the prober's own resolver is in doubt."


def _missed(target: Target, now: float) -> Outcome:
    late = now - target.scheduled_at
    return _silent(target, now, Reason.missed, f"Not started in time: the prober had it {late:.0f} s late.")


def _silent(target: Target, now: float, reason: Reason, detail: str) -> Outcome:
    return Outcome(
        monitor_id=target.monitor_id,
        region=target.region,
        scheduled_at=target.scheduled_at,
        started_at=now,
        reason=reason,
        detail=detail,
        urgent=target.urgent,
    )
