"""`make bench`: a table on stdout, JSON under bench/results/.

python -m bench                         everything, some 25 minutes
python -m bench --quick                 everything, coarsely, some 8 minutes
python -m bench pipeline scheduling     these
python -m bench pipeline --kind "https reuse" --least 4000 --most 6000
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from bench import alerts, api, deliveries, naive, pipeline, scheduling, storage, truth
from bench.measure import where_and_when
from bench.surroundings import running, target

RESULTS = Path(__file__).parent / "results"
TOP = 3000  # checks/s, when the pipeline was not measured in this run
PARTS: dict[str, Callable[..., dict]] = {
    "pipeline": pipeline.run,
    "truth": truth.run,
    "scheduling": scheduling.run,
    "alerts": alerts.run,
    "deliveries": deliveries.run,
    "api": api.run,
    "storage": storage.run,
    "naive": naive.run,
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="bench", description="Measure healthmon on this machine.")
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="default: all")
    parser.add_argument("--quick", action="store_true", help="shorter, coarser")
    parser.add_argument(
        "--kind", action="append", help="pipeline: of these kinds alone, such as 'https reuse'"
    )
    parser.add_argument("--least", type=int, default=0, help="pipeline: begin with this many checks a second")
    parser.add_argument(
        "--top", type=int, default=TOP, help="the top load, when `pipeline` is not among the parts"
    )
    parser.add_argument("--most", type=int, default=100_000, help="pipeline: end with this many")
    asked = parser.parse_args(arguments)
    report: dict = where_and_when() | {"quick": asked.quick}
    file = RESULTS / f"{report['at'].replace(':', '')[:17]}-{report['commit']}.json"
    with running() as bench, target() as nginx:
        for name, run in PARTS.items():
            if asked.parts and name not in asked.parts:
                continue
            top = ((report.get("pipeline") or {}).get("http") or {}).get("best") or {}
            report[name] = run(
                bench=bench,
                target=nginx,
                quick=asked.quick,
                say=say,
                top=int(top.get("asked_per_second", asked.top)),
                kinds=asked.kind,
                loads=range(asked.least, asked.most + 1),
            )
            _write(file, report)  # what is measured is kept, whatever becomes of the next part
    say(f"written to {file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}")


def _write(file: Path, report: dict) -> None:
    RESULTS.mkdir(exist_ok=True)
    file.write_text(json.dumps(report, indent=2) + "\n")


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
