"""Is it up? The decision, as pure functions of values: no rows, no clock, no Django.

    new ──ok/slow──▶ up ◀──────────────── successes_to_close × ok/slow ──────┐
     │                │ ▲                                                     │
     │   slow ×       ▼ │ successes_to_close × ok                             │
     │   failures_to_open                                                     │
     │               degraded ──┐                                             │
     └── failures_to_open × ────┴── failures_to_open × failing ──▶ down ──────┘

`missed` and `inconclusive` say nothing: they move neither a counter nor a status. `paused` is set and unset by
people (see `monitors.services`); a paused state does not advance.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil

from monitors.probing.outcome import FAILING, SILENT, Outcome, Reason


class Status(StrEnum):
    NEW = "new"
    UP = "up"
    DEGRADED = "degraded"
    DOWN = "down"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a monitor's owner decided: the thresholds of its decision."""

    failures_to_open: int
    successes_to_close: int
    recheck_seconds: int
    interval_seconds: int


@dataclass(frozen=True, slots=True)
class State:
    """How a monitor stands in one region. Counters are runs: `failures` failing results in a row, and so on.

    `seen_until` and `recheck_at` are epoch seconds: the slot of the newest result that counted, and when to look
    again out of turn.
    """

    status: Status = Status.NEW
    failures: int = 0
    successes: int = 0
    slows: int = 0
    seen_until: int | None = None
    recheck_at: int | None = None


# Runs longer than any threshold are all alike; a bound keeps the column small.
_MOST = 1000


def advance(state: State, outcome: Outcome, policy: Policy) -> State:
    """This will return the state after one more outcome.

    An outcome whose slot is not newer than `seen_until` returns the very same state: what is late or replayed
    cannot flip a status.
    """
    if state.status is Status.PAUSED:
        return state
    if state.seen_until is not None and outcome.scheduled_at <= state.seen_until:
        return state

    if outcome.reason in SILENT:
        return replace(state, seen_until=outcome.scheduled_at)

    if outcome.reason in FAILING:
        failures, successes, slows = min(state.failures + 1, _MOST), 0, 0
    else:
        slow = outcome.reason is Reason.slow
        failures = 0
        # What is down is glad of any answer; what is degraded leaves that only by answers that are quick.
        successes = 0 if slow and state.status is not Status.DOWN else min(state.successes + 1, _MOST)
        slows = min(state.slows + 1, _MOST) if slow else 0

    status = _status(state.status, failures, successes, slows, policy)
    recheck_at = None
    if _suspected(status, failures, successes, policy):
        seen_at = outcome.started_at + (outcome.total_ms or 0) / 1000
        # Later than the slot it follows, whatever the prober's clock says: a slot happens once.
        recheck_at = max(ceil(seen_at + policy.recheck_seconds), outcome.scheduled_at + 1)
    return State(status, failures, successes, slows, outcome.scheduled_at, recheck_at)


def _status(before: Status, failures: int, successes: int, slows: int, policy: Policy) -> Status:
    if failures:
        return Status.DOWN if failures >= policy.failures_to_open else before
    if before is Status.DOWN and successes < policy.successes_to_close:
        return Status.DOWN
    if slows >= policy.failures_to_open:
        return Status.DEGRADED
    if before is Status.DEGRADED and successes < policy.successes_to_close:
        return Status.DEGRADED
    return Status.UP


def _suspected(status: Status, failures: int, successes: int, policy: Policy) -> bool:
    """A suspicion is looked into soon: a first failure, or a first success of something that is down.

    Not if the next slot comes as soon by itself.
    """
    if policy.recheck_seconds >= policy.interval_seconds:
        return False
    if status is Status.DOWN:
        return 0 < successes < policy.successes_to_close
    return 0 < failures < policy.failures_to_open


def overall(statuses: Iterable[Status]) -> Status:
    """This will return a monitor's status from those of its regions: down if most of the regions that know say so.

    Regions that are `new` know nothing yet. One region that is down among several that are up is `degraded`.
    """
    known = [status for status in statuses if status is not Status.NEW]
    if not known:
        return Status.NEW
    if Status.PAUSED in known:
        return Status.PAUSED
    down = known.count(Status.DOWN)
    if down * 2 > len(known):
        return Status.DOWN
    if down or Status.DEGRADED in known:
        return Status.DEGRADED
    return Status.UP
