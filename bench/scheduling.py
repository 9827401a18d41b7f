"""What a tick costs with 1,000 to 1,000,000 monitors: publishing to the real broker, drained by nobody's work."""

import json
import subprocess
import sys
import threading
from typing import Any

from redis import Redis

from bench.surroundings import Bench
from healthmon import embedded, environment

INTERVAL = 60
SIZES = (1_000, 10_000, 100_000, 1_000_000)
SECONDS = 20  # one tick each

# Runs in a process of its own with Django: as many ticks as asked, one second of schedule each.
_TICKS = """
import json, sys, time
import django; django.setup()
import healthmon.celery
from django.db import connection
from monitors import tasks
def back():
    with connection.cursor() as cursor:
        cursor.execute("UPDATE monitors_scheduleclock SET dispatched_until = date_trunc('second', now())")
back(); tasks.tick()
took, cpu = [], []
for _ in range(int(sys.argv[1])):
    back()
    wall, used = time.perf_counter(), time.process_time()
    tasks.tick()
    took.append(time.perf_counter() - wall); cpu.append(time.process_time() - used)
print(json.dumps({"took": took, "cpu": cpu}))
"""


def run(bench: Bench, *, quick: bool, say, **_: Any) -> dict[str, Any]:
    """This will time ticks of one second's slots each; healthmon's own beat, worker and prober stand still."""
    processes = bench.installation.processes
    processes.stop("beat", "worker", "prober")
    drain = _Drain(bench)
    drain.start()
    report: dict[str, Any] = {}
    have = 0
    try:
        for size in SIZES[:3] if quick else SIZES:
            bench.enable(bench.fill(size - have, "https://shop.example.com/health", INTERVAL))
            bench.database.execute("VACUUM ANALYZE monitors_monitor, monitors_regionstate")
            have = size
            drain.targets = 0
            postgres = bench.usage()["postgres"].cpu_seconds
            done = subprocess.run(
                [sys.executable, "-c", _TICKS, str(SECONDS)],
                env=processes.environ | {"DJANGO_SETTINGS_MODULE": "healthmon.settings"},
                cwd=environment.PROJECT, stdout=subprocess.PIPE, check=True, text=True,
            )  # fmt: skip
            postgres = bench.usage()["postgres"].cpu_seconds - postgres
            ticks = json.loads(done.stdout.splitlines()[-1])
            slots = size / INTERVAL * SECONDS
            took = sorted(ticks["took"])
            report[str(size)] = {
                "slots_per_tick": round(size / INTERVAL),
                "tick_ms": {"p50": round(took[len(took) // 2] * 1000, 1), "max": round(took[-1] * 1000, 1)},
                "cpu_us_per_check": round(sum(ticks["cpu"]) / slots * 1e6, 1),
                "postgres_us_per_check": round(postgres / slots * 1e6, 1),
            }
            say(f"tick, {size:9,} monitors at {INTERVAL} s: {report[str(size)]}")
    finally:
        drain.stop()
        bench.clear()
        processes.start("worker", "beat", "prober")
    return report


class _Drain(threading.Thread):
    """Empties the probers' queue, so that the tick does not find it full."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(daemon=True)
        self.broker = Redis(unix_socket_path=str(embedded.broker_socket(bench.installation.env)))
        self.targets = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.02):
            self.broker.delete("probe.default", "urgent.default")

    def stop(self) -> None:
        self.ended.set()
        self.join()
        self.broker.close()
