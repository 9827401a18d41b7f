"""From a failing answer to the webhook's receipt: one monitor at a time, then 500 in the same second."""

import http.server
import json
import threading
import time
from typing import Any

from bench.measure import percentiles
from bench.pipeline import INTERVAL
from bench.surroundings import EMAIL, PASSWORD, Bench, Target, free_port
from healthmon.client import Client

FAILING_EVERY = 5  # seconds
SINGLES, STORM = 20, 500


class Place(threading.Thread):
    """A target that fails on demand by path, and the webhook that hears of it; notes when each happened."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.port = free_port()
        self.failing: set[str] = set()
        self.failed_at: dict[str, float] = {}
        self.told_at: dict[str, float] = {}
        place = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                down = self.path in place.failing
                self.send_response(500 if down else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()
                if down:
                    place.failed_at.setdefault(self.path, time.time())

            def do_POST(self) -> None:
                told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(204)
                self.send_header("Content-Length", "0")
                self.end_headers()
                if told["type"] == "incident.opened":
                    path = "/" + told["data"]["monitor"]["url"].rpartition("/")[2]
                    place.told_at.setdefault(path, time.time())

            def log_message(self, *_: object) -> None: ...

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 2048
            daemon_threads = True

        self.server = Server(("127.0.0.1", self.port), Handler)

    def run(self) -> None:
        self.server.serve_forever()


def run(bench: Bench, target: Target, *, quick: bool, say, top: int, **_: Any) -> dict[str, Any]:
    """This will fail monitors while the pipeline runs at half its top load, and time each alert."""
    load = top // 2
    place = Place()
    place.start()
    client = Client(bench.installation.url, EMAIL, PASSWORD)
    channel = client.call(
        "POST",
        "channels/",
        {"name": "sink", "kind": "webhook", "config": {"url": f"http://127.0.0.1:{place.port}/hook"}},
    )
    client.call("POST", "subscriptions/", {"channel": channel["id"], "scope": "all"})
    bench.enable(bench.fill(load * INTERVAL, f"http://127.0.0.1:{target.http}/", INTERVAL))
    watched = [
        bench.fill(1, f"http://127.0.0.1:{place.port}/{n}", FAILING_EVERY, failures_to_open=1)[0]
        for n in range(STORM)
    ]
    bench.enable(watched)
    time.sleep(10)
    singles = []
    for n in range(5 if quick else SINGLES):
        singles += _fail(place, [f"/{n}"])
        time.sleep(1)
    report = {"load_per_second": load, "one": _said(singles, "one monitor", say)}
    # Slots differ by monitor, so "in the same second" is made by failing what is due in that second, and looking
    # at all of it now.
    storm = [f"/{n}" for n in range(SINGLES, STORM)]
    place.failing.update(storm)
    bench.database.execute(
        "UPDATE monitors_regionstate SET recheck_at = now() WHERE monitor_id = ANY(%s)", [watched[SINGLES:]]
    )
    report["storm"] = _said(_wait(place, storm), f"{len(storm)} monitors at once", say)
    place.server.shutdown()
    bench.clear()
    return report


def _fail(place: Place, paths: list[str]) -> list[float]:
    place.failing.update(paths)
    return _wait(place, paths)


def _wait(place: Place, paths: list[str], seconds: float = 20) -> list[float]:
    deadline = time.monotonic() + seconds
    while any(path not in place.told_at for path in paths) and time.monotonic() < deadline:
        time.sleep(0.01)
    return [place.told_at[path] - place.failed_at[path] for path in paths if path in place.told_at]


def _said(delays: list[float], what: str, say) -> dict[str, Any]:
    p50, p95, p99 = (1000 * seconds for seconds in percentiles(delays, 50, 95, 99))
    say(f"alert delay, {what}: p50 {p50:.0f} p95 {p95:.0f} p99 {p99:.0f} ms ({len(delays)} alerts)")
    return {"p50_ms": round(p50, 1), "p95_ms": round(p95, 1), "p99_ms": round(p99, 1), "alerts": len(delays)}
