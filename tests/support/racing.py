"""Several at once, each with a connection of its own. For tests with `django_db(transaction=True)`."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

from django.db import connection

T = TypeVar("T")


def race(*deeds: Callable[[], T]) -> list[T]:
    """Begin all deeds at the same moment, and return what they return."""
    start = Barrier(len(deeds), timeout=20)

    def run(deed: Callable[[], T]) -> T:
        try:
            start.wait()
            return deed()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(deeds)) as pool:
        return list(pool.map(run, deeds))
