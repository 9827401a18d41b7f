"""The one place that reads the wall clock; everything inside a task or a view takes `now`."""

from datetime import UTC, datetime


def now() -> datetime:
    """This will return the present moment, aware, in UTC."""
    return datetime.now(UTC)


def from_epoch(seconds: float) -> datetime:
    """This will turn epoch seconds into an aware UTC datetime (what crosses a queue into what a row holds)."""
    return datetime.fromtimestamp(seconds, UTC)
