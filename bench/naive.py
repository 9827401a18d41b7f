"""The naive way, for comparison: one Celery task per check, `requests`, one ORM insert. The same servers."""

import subprocess
import sys
import textwrap
import time
from typing import Any

from bench.measure import usage
from bench.surroundings import Bench, Target
from healthmon import environment

# A worker and a publisher of their own; both import Django as any such project would.
APP = textwrap.dedent(
    """
    import os, sys, time
    os.environ["DJANGO_SETTINGS_MODULE"] = "healthmon.settings"
    import django; django.setup()
    import requests
    from celery import Celery
    from datetime import datetime, UTC
    from monitors.models import Monitor, Region, Result

    app = Celery("naive"); app.config_from_object("celeryconfig"); app.conf.task_acks_late = False

    @app.task(name="naive.check", queue="naive")
    def check(monitor_id, region_id, url, scheduled_at):
        started = time.time()
        answer = requests.get(url, timeout=5)
        Result.objects.create(
            monitor_id=monitor_id, region_id=region_id, scheduled_at=datetime.fromtimestamp(scheduled_at, UTC),
            started_at=datetime.fromtimestamp(started, UTC), reason="ok" if answer.ok else "status",
            status_code=answer.status_code, total_ms=(time.time() - started) * 1000, detail="",
        )

    if __name__ == "__main__":
        url, seconds, rate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
        ids = list(Monitor.objects.values_list("id", flat=True)[:rate]); region = Region.objects.get().id
        began = time.time()
        for second in range(seconds):
            for monitor_id in ids:
                check.delay(monitor_id, region, url, int(began) + second)
            time.sleep(max(0, began + second + 1 - time.time()))
    """
)


def run(bench: Bench, target: Target, *, quick: bool, say, **_: Any) -> dict[str, Any]:
    """This will offer more than can be done for a while, and count what was."""
    seconds, rate = (15 if quick else 60), 600
    processes = bench.installation.processes
    processes.stop("beat", "worker", "prober")
    bench.fill(rate, f"http://127.0.0.1:{target.http}/", 30)
    folder = bench.installation.env.data_dir
    (folder / "naive.py").write_text(APP)
    environ = processes.environ | {"PYTHONPATH": f"{folder}:{environment.PROJECT}"}
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "naive", "worker", "-Q", "naive", "-c", "2", "-n", "naive@%h"]
        + ["--without-gossip", "--without-mingle", "--without-heartbeat"],
        env=environ, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(5)
    publisher = subprocess.Popen(
        [sys.executable, "naive.py", f"http://127.0.0.1:{target.http}/", str(seconds), str(rate)],
        env=environ, cwd=folder,
    )  # fmt: skip
    pids = {"worker": worker.pid, "publisher": publisher.pid} | {
        p.name: p.pid for p in processes.all() if p.name in ("postgres", "broker")
    }
    time.sleep(3)
    before, had, began = usage(pids), bench.one("SELECT count(*) FROM monitors_result"), time.time()
    time.sleep(seconds - 5)
    after, have, took = usage(pids), bench.one("SELECT count(*) FROM monitors_result"), time.time() - began
    publisher.wait()
    worker.kill()
    worker.wait()
    done = max(have - had, 1)
    cpu = {name: round((after[name].cpu_seconds - before[name].cpu_seconds) / done * 1e6) for name in pids}
    bench.clear()
    processes.start("worker", "beat", "prober")
    say(f"the naive way: {done / took:.0f} checks/s at {sum(cpu.values())} µs each: {cpu}")
    return {"checks_per_second": round(done / took, 1), "cpu_us_per_check": cpu,
            "cpu_us_per_check_total": sum(cpu.values())}  # fmt: skip
