"""The stretches of a monitor's history: one ends where the next begins, and one is open."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import connection

_END = """
    UPDATE monitors_statusperiod p SET ended_at = greatest(n.at, p.started_at)
      FROM unnest(%s::int[], %s::timestamptz[]) AS n (monitor_id, at)
     WHERE p.monitor_id = n.monitor_id AND p.ended_at IS NULL
"""
_BEGIN = """
    INSERT INTO monitors_statusperiod (monitor_id, status, started_at, interval_seconds, regions)
    SELECT m.id, m.status, n.at, m.interval_seconds,
           (SELECT count(*) FROM monitors_regionstate s WHERE s.monitor_id = m.id)
      FROM monitors_monitor m
      JOIN unnest(%s::int[], %s::timestamptz[]) AS n (monitor_id, at) ON n.monitor_id = m.id
"""


def turn(at: Mapping[int, datetime]) -> None:
    """This will end the open period of each monitor at its moment and begin one with the monitor's present columns.

    Call it in the transaction that changed them, with the monitors' rows locked.
    """
    columns: list[Any] = [list(at), list(at.values())]
    with connection.cursor() as cursor:
        cursor.execute(_END, columns)
        cursor.execute(_BEGIN, columns)
