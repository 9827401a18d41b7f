"""Sustained checks a second through the whole pipeline, and what each process spends on one."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.measure import percentiles
from bench.surroundings import Bench, Target

INTERVAL = 10
SETTLE_SECONDS = 8
LAG_LIMIT_SECONDS = 1.0
SERVERS = ("web", "beat", "worker", "prober", "notifier", "postgres", "broker")


@dataclass(frozen=True, slots=True)
class Step:
    """One load, held for a while."""

    asked: float  # checks/s scheduled
    done: float  # checks/s recorded
    lag_p50_ms: float
    lag_p99_ms: float
    cpu_us: dict[str, float]  # by process, per check
    rss_mb: dict[str, float]
    total_ms_p50: float
    total_ms_p99: float
    failing: int

    @property
    def held(self) -> bool:
        return self.lag_p99_ms < LAG_LIMIT_SECONDS * 1000 and self.done > 0.99 * self.asked

    def as_dict(self) -> dict[str, Any]:
        return {
            "asked_per_second": self.asked,
            "done_per_second": round(self.done, 1),
            "held": self.held,
            "lag_ms": {"p50": round(self.lag_p50_ms, 1), "p99": round(self.lag_p99_ms, 1)},
            "reported_ms": {"p50": round(self.total_ms_p50, 2), "p99": round(self.total_ms_p99, 2)},
            "cpu_us_per_check": {name: round(us, 1) for name, us in self.cpu_us.items()},
            "cpu_us_per_check_total": round(sum(self.cpu_us.values()), 1),
            "rss_mb": {name: round(mb) for name, mb in self.rss_mb.items()},
            "failing": self.failing,
        }


def hold(bench: Bench, asked: int, seconds: int, settle: int = SETTLE_SECONDS) -> Step:
    """This will wait until the load has settled, and measure for so many seconds. Monitors are enabled already."""
    time.sleep(settle)
    began = time.time()
    before = bench.usage()
    time.sleep(seconds)
    after = bench.usage()
    ended = time.time()
    time.sleep(2.5)  # what was under way is recorded
    rows = bench.rows(
        "SELECT extract(epoch FROM started_at - scheduled_at) * 1000"
        "       - mod(mod(monitor_id::bigint * 2654435761, 4294967296), 1000), total_ms, reason::text"
        "  FROM monitors_result WHERE scheduled_at > to_timestamp(%s) AND scheduled_at <= to_timestamp(%s)"
        "   AND NOT urgent",
        int(began),
        int(ended),
    )
    probed = [row for row in rows if row[2] != "missed"]
    checks = len(probed) or 1
    lag_p50, lag_p99 = percentiles((float(row[0]) for row in probed), 50, 99)
    total_p50, total_p99 = percentiles((row[1] for row in probed if row[1] is not None), 50, 99)
    return Step(
        asked=asked,
        done=len(probed) / (int(ended) - int(began)),
        lag_p50_ms=lag_p50,
        lag_p99_ms=lag_p99,
        cpu_us={
            name: (after[name].cpu_seconds - before[name].cpu_seconds)
            / checks
            * 1e6
            * (int(ended) - int(began))
            / (ended - began)
            for name in SERVERS
            if name in before
        },
        rss_mb={name: after[name].rss_bytes / 1e6 for name in SERVERS if name in after},
        total_ms_p50=total_p50,
        total_ms_p99=total_p99,
        failing=sum(1 for row in probed if row[2] != "ok"),
    )


def run(
    bench: Bench, target: Target, *, quick: bool, say, kinds: list[str] | None, loads: range, **_: Any
) -> dict[str, Any]:
    """This will raise the load until it is no longer held, then hold the highest that was for the full time."""
    report: dict[str, Any] = {}
    plain = f"http://127.0.0.1:{target.http}/"
    secure = f"https://127.0.0.1:{target.https}/"
    ladders = {
        "http": (plain, "fresh", [1000, 2000, 3000, 3500, 4000, 4500, 5000, 5500, 6000, 7000]),
        "https": (secure, "fresh", [500, 1000, 1250, 1500]),
        "http reuse": (plain, "reuse", [3000, 4000, 5000, 6000, 7000, 8000]),
        "https reuse": (secure, "reuse", [3000, 4000, 5000, 6000, 7000]),
    }
    for name, (url, connection, ladder) in ladders.items():
        if kinds and name not in kinds:
            continue
        steps_up = [load for load in (ladder[1:4] if quick else ladder) if load in loads]
        ids = bench.fill(steps_up[-1] * INTERVAL, url, INTERVAL, connection=connection)
        steps: list[Step] = []
        for load in steps_up:
            bench.enable(ids[: load * INTERVAL])
            steps.append(hold(bench, load, 10 if quick else 15))
            say(line(name, steps[-1]))
            if not steps[-1].held:
                break
        best = _sustained(name, bench, ids, [step for step in steps if step.held], quick=quick, say=say)
        report[name] = {"steps": [step.as_dict() for step in steps], "best": best.as_dict() if best else None}
        bench.clear()
    return report


def _sustained(
    name: str, bench: Bench, ids: list[int], held: list[Step], *, quick: bool, say: Callable[[str], None]
) -> Step | None:
    """This will return the highest load that is held for a minute, too; when in haste the highest that was held."""
    if quick:
        return held[-1] if held else None
    for step in reversed(held):
        bench.rest(INTERVAL + 2)  # what the last load left behind has expired
        wanted = ids[: int(step.asked) * INTERVAL]
        for part in range(
            1, 6
        ):  # the long run is measured, not a start from nothing to full load within a second
            bench.enable(wanted[: len(wanted) * part // 5])
            time.sleep(3)
        sustained = hold(bench, int(step.asked), 60)
        say(line(f"{name}, 60 s", sustained))
        if sustained.held:
            return sustained
    return None


def line(name: str, step: Step) -> str:
    total = sum(step.cpu_us.values())
    parts = " ".join(f"{process} {us:.0f}" for process, us in step.cpu_us.items() if us >= 1)
    return (
        f"{name:18} {step.asked:6.0f}/s asked {step.done:7.1f}/s done  lag p50 {step.lag_p50_ms:6.1f} p99 "
        f"{step.lag_p99_ms:7.1f} ms  reported p50 {step.total_ms_p50:5.2f} p99 {step.total_ms_p99:6.2f} ms  "
        f"{total:5.0f} µs: {parts}" + ("" if step.held else "   NOT HELD")
    )
