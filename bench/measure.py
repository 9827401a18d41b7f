"""What the operating system says of whole process trees, and percentiles."""

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds (user and system, ended children included) and resident bytes of a process tree."""

    cpu_seconds: float
    rss_bytes: int


def usage(pids: Mapping[str, int]) -> dict[str, Usage]:
    """This will return the usage of each named process with all its descendants."""
    stats = _stats()
    children: dict[int, list[int]] = {}
    for pid, (parent, _, _) in stats.items():
        children.setdefault(parent, []).append(pid)
    return {name: _tree(pid, stats, children) for name, pid in pids.items()}


def _tree(root: int, stats: dict, children: dict[int, list[int]]) -> Usage:
    cpu, rss, waiting = 0.0, 0, [root]
    while waiting:
        pid = waiting.pop()
        if pid in stats:
            cpu += stats[pid][1]
            rss += stats[pid][2]
            waiting += children.get(pid, [])
    return Usage(cpu, rss)


def _stats() -> dict[int, tuple[int, float, int]]:
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        found[int(folder.name)] = (
            int(fields[1]),
            sum(map(int, fields[11:15])) / TICKS,
            int(fields[21]) * PAGE,
        )
    return found


def cpu_of_threads(pid: int) -> dict[str, float]:
    """This will return CPU seconds by thread of one process."""
    return {
        task.name: sum(map(int, (task / "stat").read_text().rpartition(")")[2].split()[11:13])) / TICKS
        for task in Path(f"/proc/{pid}/task").iterdir()
    }


def percentiles(values: Iterable[float], *wanted: float) -> list[float]:
    """This will return the nearest-rank percentiles (0–100) of values."""
    ordered = sorted(values)
    if not ordered:
        return [float("nan")] * len(wanted)
    return [ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))] for p in wanted]


def where_and_when() -> dict[str, str | int | None]:
    """This will return what a figure is worth nothing without: machine, commit and date."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
