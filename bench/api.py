"""The API with 10,000 monitors and 30 days of results: latency under 16 clients, queries and their time per request."""

import http.client
import json
import subprocess
import sys
from typing import Any

from bench.measure import percentiles
from bench.surroundings import EMAIL, PASSWORD, Bench
from healthmon import environment
from healthmon.processes import OURS

MONITORS, WITH_HISTORY, DAYS, CLIENTS = 10_000, 500, 30, 16

_QUERIES = """
import json, sys, time
import django; django.setup()
from django.conf import settings
from django.db import connection
from rest_framework.test import APIClient
from accounts.authentication import open_session
from accounts.models import User
client = APIClient(); client.credentials(HTTP_AUTHORIZATION="Bearer " + open_session(User.objects.get())["access"])
said = {}
for name, path in json.loads(sys.argv[1]).items():
    client.get(path)
    times = []
    for _ in range(20):
        asked = []  # seconds of each query
        def timed(execute, *query):
            began = time.perf_counter()
            try:
                return execute(*query)
            finally:
                asked.append(time.perf_counter() - began)
        with connection.execute_wrapper(timed):
            answer = client.get(path)
        assert answer.status_code == 200, (path, answer.content)
        times.append(sum(asked) * 1000)
    times.sort()
    said[name] = {"queries": len(asked), "query_ms_p50": round(times[10], 1), "query_ms_p95": round(times[18], 1)}
print(json.dumps(said))
"""

# In a process of its own and without threads, parsing nothing but the length: on the cores that the server runs on too,
# it takes a quarter of a millisecond a request.
_CLIENTS = r"""
import json, re, selectors, socket, sys, time
port, token, path, clients, seconds = sys.argv[1:]
request = (f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n").encode()
length = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.I)
ready, took = selectors.DefaultSelector(), []

def send(connection):
    connection.sendall(request)
    state[connection] = [time.perf_counter(), b"", 0]

state = {}
for _ in range(int(clients)):
    connection = socket.create_connection(("127.0.0.1", int(port)), 30)
    ready.register(connection, selectors.EVENT_READ)
    send(connection)
until = time.perf_counter() + float(seconds)
while time.perf_counter() < until:
    for key, _ in ready.select(30):
        connection = key.fileobj
        now = state[connection]
        piece = connection.recv(1 << 18)
        now[1] += piece
        assert piece, "the server closed the connection"
        if not now[2]:
            head, found, _ = now[1].partition(b"\r\n\r\n")
            if not found:
                continue
            assert head.startswith(b"HTTP/1.1 200"), head
            now[2] = len(head) + 4 + int(length.search(head + b"\r\n")[1])
        if len(now[1]) == now[2]:
            took.append(time.perf_counter() - now[0])
            send(connection)
print(json.dumps({"took": took, "cpu_seconds": time.process_time()}))
"""


def run(bench: Bench, *, quick: bool, say, **_: Any) -> dict[str, Any]:
    """This will fill the database, ask each list and object, and report."""
    # Left running, they would probe 10,000 monitors of shop.example.com meanwhile, and open 10,000 incidents.
    others = [name for name in OURS if name != "web"]
    bench.installation.processes.stop(*others)
    try:
        return _report(bench, quick, say)
    finally:
        bench.clear()
        bench.installation.processes.start(*others)


def _report(bench: Bench, quick: bool, say) -> dict[str, Any]:
    ids = _fill(bench, 1 if quick else DAYS)
    chosen = ids[WITH_HISTORY // 2]
    paths = {
        "list of 100": "/api/v1/monitors/?limit=100",
        "filter": "/api/v1/monitors/?limit=100&status=up&search=bench&tag=shop",
        "retrieve": f"/api/v1/monitors/{chosen}/",
        "results": f"/api/v1/monitors/{chosen}/results/?limit=100",
        "uptime 24h": f"/api/v1/monitors/{chosen}/uptime/?window=24h",
        "uptime 7d": f"/api/v1/monitors/{chosen}/uptime/?window=7d",
        "uptime 30d": f"/api/v1/monitors/{chosen}/uptime/?window=30d",
        "uptime 90d": f"/api/v1/monitors/{chosen}/uptime/?window=90d",
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
        _ask(bench, token, path, 0.5)  # every worker has made its plans
        report[name] |= _ask(bench, token, path, 3 if quick else 10)
        say(f"api, {CLIENTS} clients, {name:12} {report[name]}")
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
            # In the order of time, as they come in: a monitor's rows lie scattered over the day's pages.
            f"  FROM generate_series('{name}'::timestamptz, '{name}'::timestamptz + interval '1 day' - interval '1 s',"
            "       interval '60 s') at, unnest(%s::int[]) id"
            " WHERE at < now() ON CONFLICT DO NOTHING",
            (ids[:WITH_HISTORY],),
        )
    bench.database.execute(
        "INSERT INTO incidents_incident (team_id, monitor_id, monitor_name, monitor_url, severity, status, reason,"
        "    detail, evidence, opened_at, resolved_at, resolution)"
        " SELECT %s, id, 'bench', 'https://shop.example.com', 'critical', 'resolved', 'timeout', '', '{}',"
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


def _ask(bench: Bench, token: str, path: str, seconds: float) -> dict[str, float]:
    """Closed loop: every client sends its next request when it has read the last answer, and thinks for no time."""
    before = bench.usage()
    done = subprocess.run(
        [sys.executable, "-c", _CLIENTS, str(bench.installation.env.port), token, path, str(CLIENTS), str(seconds)],
        stdout=subprocess.PIPE, check=True, text=True,
    )  # fmt: skip
    after = bench.usage()
    said = json.loads(done.stdout)
    took = said["took"]
    p50, p95, p99 = (1000 * seconds for seconds in percentiles(took, 50, 95, 99))
    cpu = {
        f"{name}_cpu_ms": 1000 * (after[name].cpu_seconds - before[name].cpu_seconds) / len(took)
        for name in ("web", "postgres")
    } | {"client_cpu_ms": 1000 * said["cpu_seconds"] / len(took)}
    figures = {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "requests_per_second": len(took) / seconds} | cpu
    return {name: round(figure, 2) for name, figure in figures.items()}
