"""How many slots of a monitor were executed on a day: counted once it is over, and kept longer than its results."""

from datetime import date, timedelta

from django.db import connection, transaction

# A result can be late: it waits in its queue while the database is away. What is younger is counted when it is asked.
SETTLED_AFTER_DAYS = 2
KEPT_DAYS = 100  # the longest window is 90

_COUNT = """
    INSERT INTO monitors_dailycount (monitor_id, day, executed)
    SELECT monitor_id, %(day)s::date, count(*) FROM monitors_result
     WHERE scheduled_at >= %(from)s AND scheduled_at < %(to)s AND NOT urgent AND reason <> 'missed'
     GROUP BY monitor_id
    ON CONFLICT DO NOTHING
"""


def keep(today: date, retention_days: int) -> list[date]:
    """This will count the settled days that were not counted yet, forget the oldest, and return those counted.

    To be called before the partitions past retention are dropped. A day that nobody counts is counted from its
    results by whoever asks, so nothing is wrong while this has not run; only slower.
    """
    settled = {today - timedelta(days=days) for days in range(SETTLED_AFTER_DAYS, retention_days + 1)}
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM monitors_dailycount WHERE day < %s", [today - timedelta(days=KEPT_DAYS)])
        cursor.execute("SELECT DISTINCT day FROM monitors_dailycount")
        missing = sorted(settled - {day for (day,) in cursor.fetchall()})
    counted = []
    for day in missing:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "SET LOCAL statement_timeout = '10min'"
            )  # a large installation's day takes a while
            following = day + timedelta(days=1)
            cursor.execute(
                _COUNT, {"day": str(day), "from": f"{day} 00:00+00", "to": f"{following} 00:00+00"}
            )
            if cursor.rowcount:
                counted.append(day)
    return counted
