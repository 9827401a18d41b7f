"""The API with 10,000 monitors and 30 days of results: latency under 16 clients, queries and their time per request."""

import http.client
import json
import subprocess
import sys
import threading
import time
from typing import Any

from bench.measure import percentiles
from bench.surroundings import EMAIL, PASSWORD, Bench
from healthmon import environment

MONITORS, WITH_HISTORY, DAYS, CLIENTS = 10_000, 500, 30, 16

_QUERIES = """
import json, sys
import django; django.setup()
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient
from accounts.authentication import open_session
from accounts.models import User
client = APIClient(); client.credentials(HTTP_AUTHORIZATION="Bearer " + open_session(User.objects.get())["access"])
said = {}
for name, path in json.loads(sys.argv[1]).items():
    client.get(path)
    times, count = [], 0
    for _ in range(20):
        with CaptureQueriesContext(connection) as caught:
            answer = client.get(path)
        assert answer.status_code == 200, (path, answer.content)
        times.append(sum(float(query["time"]) for query in caught.captured_queries) * 1000)
        count = len(caught)
    times.sort()
    said[name] = {"queries": count, "query_ms_p50": round(times[10], 1), "query_ms_p95": round(times[18], 1)}
print(json.dumps(said))
"""


def run(bench: Bench, *, quick: bool, say, **_: Any) -> dict[str, Any]:
    """This will fill the database, ask each list and object, and report."""
    ids = _fill(bench, 1 if quick else DAYS)
    chosen = ids[WITH_HISTORY // 2]
    paths = {
        "list of 100": "/api/v1/monitors/?limit=100",
        "filter": "/api/v1/monitors/?limit=100&status=up&search=bench&tag=shop",
        "retrieve": f"/api/v1/monitors/{chosen}/",
        "results": f"/api/v1/monitors/{chosen}/results/?limit=100",
        "uptime 24h": f"/api/v1/monitors/{chosen}/uptime/?window=24h",
        "uptime 30d": f"/api/v1/monitors/{chosen}/uptime/?window=30d",
        "incidents": "/api/v1/incidents/?limit=100",
    }
    environ = bench.installation.processes.environ | {"DJANGO_SETTINGS_MODULE": "healthmon.settings"}
    done = subprocess.run(
        [sys.executable, "-c", _QUERIES, json.dumps(paths)],
        env=environ, cwd=environment.PROJECT, stdout=subprocess.PIPE, check=True, text=True,
    )  # fmt: skip
    report = json.loads(done.stdout.splitlines()[-1])
    token = _token(bench)
    for name, path in paths.items():
        took = _ask(bench, token, path, 3 if quick else 10)
        p50, p95, p99 = (1000 * seconds for seconds in percentiles(took, 50, 95, 99))
        report[name] |= {"p50_ms": round(p50, 1), "p95_ms": round(p95, 1), "p99_ms": round(p99, 1),
                         "requests_per_second": round(len(took) / (3 if quick else 10))}  # fmt: skip
        say(f"api, {CLIENTS} clients, {name:12} {report[name]}")
    bench.clear()
    return report


def _fill(bench: Bench, days: int) -> list[int]:
    ids = bench.fill(MONITORS, "https://shop.example.com/health", 60, tags=["shop"], name="bench")
    bench.database.execute("UPDATE monitors_monitor SET status = 'up', enabled = true")
    bench.database.execute("UPDATE monitors_regionstate SET status = 'up'")
    bench.database.execute(
        "UPDATE monitors_statusperiod SET status = 'up', started_at = now() - interval '40 days'"
    )
    for day in range(days + 1):
        name = bench.one("SELECT to_char(now() - %s * interval '1 day', 'YYYYMMDD')", day)
        bench.database.execute(
            f"CREATE TABLE IF NOT EXISTS monitors_result_{name} PARTITION OF monitors_result FOR VALUES"
            f" FROM ('{name} 00:00+00') TO (date '{name}' + 1)"
        )
        bench.database.execute(
            "INSERT INTO monitors_result (monitor_id, region_id, scheduled_at, started_at, reason, status_code,"
            "    total_ms, dns_ms, connect_ms, tls_ms, first_byte_ms, urgent, reused, detail)"
            " SELECT id, (SELECT id FROM monitors_region), at, at, 'ok', 200, 80, 2, 10, 20, 40, false, false, ''"
            f"  FROM unnest(%s::int[]) id, generate_series('{name}'::timestamptz,"
            f"       '{name}'::timestamptz + interval '1 day' - interval '1 s', interval '60 s') at"
            " WHERE at < now() ON CONFLICT DO NOTHING",
            (ids[:WITH_HISTORY],),
        )
    bench.database.execute(
        "INSERT INTO incidents_incident (team_id, monitor_id, monitor_name, monitor_url, status, reason, detail,"
        "    evidence, opened_at, resolved_at, resolution)"
        " SELECT %s, id, 'bench', 'https://shop.example.com', 'resolved', 'timeout', '', '{}',"
        "        now() - n * interval '1 hour', now() - n * interval '1 hour' + interval '5 min', 'recovered'"
        "   FROM unnest(%s::int[]) id, generate_series(1, 20) n",
        (bench.team, ids[:WITH_HISTORY]),
    )
    bench.database.execute("VACUUM ANALYZE")
    return ids


def _token(bench: Bench) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", bench.installation.env.port, timeout=30)
    connection.request(
        "POST", "/api/v1/auth/token/", json.dumps({"email": EMAIL, "password": PASSWORD}),
        {"Content-Type": "application/json"},
    )  # fmt: skip
    token = json.loads(connection.getresponse().read())["access"]
    connection.close()
    return token


def _ask(bench: Bench, token: str, path: str, seconds: float) -> list[float]:
    took: list[float] = []
    until = time.monotonic() + seconds

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", bench.installation.env.port, timeout=30)
        while time.monotonic() < until:
            began = time.monotonic()
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{path} answered {answer.status}")
            took.append(time.monotonic() - began)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took
