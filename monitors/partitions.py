"""Results live in a table partitioned by day: made ahead, and dropped whole when their time is over."""

from datetime import date, timedelta

from django.db import connection, transaction
from psycopg import sql

DAYS_AHEAD = 7
_PREFIX = "monitors_result_"


def partition_of(day: date) -> str:
    """This will return the name of the partition that holds a UTC day's results."""
    return f"{_PREFIX}{day:%Y%m%d}"


def keep(today: date, retention_days: int) -> tuple[list[str], list[str]]:
    """This will make the partitions of yesterday and the days ahead, drop those past retention, and name both.

    Each is made or dropped in a transaction of its own with a short lock timeout: a long reader delays this task,
    never the recording of results.
    """
    existing = _existing()
    wanted = {
        partition_of(today + timedelta(days=days)): today + timedelta(days=days)
        for days in range(-1, DAYS_AHEAD + 1)
    }
    oldest = partition_of(today - timedelta(days=retention_days))
    made = [name for name in wanted if name not in existing]
    dropped = [name for name in sorted(existing) if name < oldest]
    for name in made:
        day = wanted[name]
        _run(
            sql.SQL(
                "CREATE TABLE IF NOT EXISTS {} PARTITION OF monitors_result FOR VALUES FROM ({}) TO ({})"
            ).format(sql.Identifier(name), f"{day} 00:00+00", f"{day + timedelta(days=1)} 00:00+00")
        )
    for name in dropped:
        _run(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name)))
    return made, dropped


def _existing() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'monitors_result'::regclass"
        )
        return {name for (name,) in cursor.fetchall() if name.startswith(_PREFIX)}


def _run(statement: sql.Composed) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '3s'")
        cursor.execute(statement)
