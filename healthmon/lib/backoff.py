"""When to try again."""

from collections.abc import Sequence


def delay_seconds(attempt: int, schedule: Sequence[float], jitter: float) -> float | None:
    """Return the seconds to wait after `attempt` failed attempts, or None when the schedule is exhausted.

    attempt: attempts already made, from 1. schedule: seconds after the first, second, … attempt.
    jitter: a random number in [0, 1) handed in; moves the delay by up to ±20 %, so that what failed together
        does not come back together.
    """
    if attempt > len(schedule):
        return None
    return schedule[max(attempt, 1) - 1] * (0.8 + 0.4 * jitter)
