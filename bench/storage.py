"""How many bytes a result takes, table and index."""

from typing import Any

from bench.surroundings import Bench

MONITORS, SLOTS = 2000, 500


def run(bench: Bench, *, say, **_: Any) -> dict[str, Any]:
    """This will write a million results the way they come (a slot of every monitor after the other) and weigh them."""
    bench.fill(MONITORS, "http://127.0.0.1:9/", 30)
    # In the order of time, monitors in the order in which their offsets and paces deliver them.
    bench.database.execute(
        "INSERT INTO monitors_result (monitor_id, region_id, scheduled_at, started_at, reason, status_code, total_ms,"
        "                             dns_ms, connect_ms, tls_ms, first_byte_ms, urgent, reused, detail)"
        " SELECT m.id, (SELECT id FROM monitors_region LIMIT 1), at, at + interval '300 ms', 'ok', 200,"
        "        12.5, 0.4, 2.5, null, 9.5, false, false, ''"
        "   FROM generate_series(0, %s - 1) slot"
        "   JOIN monitors_monitor m ON true"
        "  CROSS JOIN LATERAL"
        "        (SELECT date_trunc('day', now()) + (slot * 30 + m.offset_seconds) * interval '1 s' AS at) t"
        "  ORDER BY at, m.id",
        (SLOTS,),
    )
    heap, index, rows = bench.rows(
        "SELECT sum(pg_relation_size(inhrelid)), sum(pg_indexes_size(inhrelid)),"
        "       (SELECT count(*) FROM monitors_result)"
        "  FROM pg_inherits WHERE inhparent = 'monitors_result'::regclass"
    )[0]
    bench.clear()
    say(
        f"storage: {(heap + index) / rows:.1f} bytes a result: {heap / rows:.1f} table, {index / rows:.1f} index"
    )
    return {"bytes_per_result": round(float((heap + index) / rows), 1), "table": round(float(heap / rows), 1),
            "index": round(float(index / rows), 1), "rows": rows}  # fmt: skip
