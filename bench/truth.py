"""Is the latency we report the latency there was? Against a server that takes 50 ms, under rising load."""

import asyncio
import contextlib
import multiprocessing
import os
from typing import Any

from bench.measure import percentiles
from bench.pipeline import INTERVAL, hold
from bench.surroundings import Bench, Target, free_port

DELAY_MS = 50
WATCHED = 100  # checks/s of the slow server; the load is nginx's
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nwell"


def serve(port: int) -> None:
    """This will answer every request DELAY_MS after it was read, in a process of its own, for ever."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(DELAY_MS / 1000)
        writer.write(ANSWER)
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=4096)
        await server.serve_forever()

    # Where that is allowed: on a machine that is busy by design, a server that waits for a core answers late, and
    # being told so is no error of ours.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    asyncio.run(main())


def run(bench: Bench, target: Target, *, quick: bool, say, top: int, **_: Any) -> dict[str, Any]:
    """This will report the error of the median and of the slowest hundredth at parts of the top load."""
    port = free_port()
    server = multiprocessing.Process(target=serve, args=(port,), daemon=True)
    server.start()
    report = {}
    try:
        for part in (0.1, 0.5, 0.8):
            load = int(top * part)
            bench.enable(
                bench.fill(max(load - WATCHED, 1) * INTERVAL, f"http://127.0.0.1:{target.http}/", INTERVAL)
            )
            slow = bench.fill(WATCHED * INTERVAL, f"http://127.0.0.1:{port}/", INTERVAL, name="slow")
            bench.enable(slow)
            hold(bench, load, 10 if quick else 30)
            reported = [
                total
                for (total,) in bench.rows(
                    "SELECT total_ms FROM monitors_result WHERE monitor_id = ANY(%s)"
                    " AND scheduled_at > now() - interval '15 s' AND total_ms IS NOT NULL",
                    slow,
                )
            ]
            p50, p99 = percentiles(reported, 50, 99)
            report[f"{part:.0%}"] = {
                "load_per_second": load,
                "error_ms": {"p50": round(p50 - DELAY_MS, 2), "p99": round(p99 - DELAY_MS, 2)},
                "checks": len(reported),
            }
            say(
                f"truthfulness {part:4.0%} ({load}/s): {DELAY_MS} ms reported as p50 {p50:.2f} p99 {p99:.2f} ms "
                f"({len(reported)} checks)"
            )
            bench.clear()
    finally:
        server.terminate()
        server.join()
    return report
