"""What every benchmark stands in: healthmon on a data folder of its own, and fast targets to probe."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import trustme

from bench.measure import Usage, usage
from healthmon.run import Installation

EMAIL, PASSWORD = "bench@healthmon.local", secrets.token_urlsafe(16)

_NGINX = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
worker_rlimit_nofile 40000;
events {{ worker_connections 20000; }}
http {{
    access_log off;
    keepalive_timeout 400s;
    keepalive_requests 1000000;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    ssl_certificate {folder}/target.pem;
    ssl_certificate_key {folder}/target.pem;
    ssl_session_cache off;
    ssl_session_tickets off;
    server {{
        listen 127.0.0.1:{http} backlog=8192;
        listen 127.0.0.1:{https} ssl backlog=8192;
        location / {{ return 200 "well"; }}
    }}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Target:
    """nginx in a process of its own, whose CPU is not counted."""

    def __init__(self) -> None:
        program = shutil.which("nginx")
        if program is None:
            raise SystemExit("The benchmarks need nginx as a target: install your distribution's package.")
        self.folder = Path(tempfile.mkdtemp(prefix="healthmon-bench-target-"))
        self.http, self.https = free_port(), free_port()
        trustme.CA(key_type=trustme.KeyType.ECDSA).issue_cert(
            "localhost"
        ).private_key_and_cert_chain_pem.write_to_path(self.folder / "target.pem")
        (self.folder / "nginx.conf").write_text(
            _NGINX.format(folder=self.folder, http=self.http, https=self.https)
        )
        self.process = subprocess.Popen(
            [program, "-c", str(self.folder / "nginx.conf")], stderr=subprocess.DEVNULL
        )

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder)


class Bench:
    """A running healthmon and a connection to its database."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.database = psycopg.connect(installation.env.database_url, autocommit=True)
        self.team = self.one("SELECT id FROM accounts_team ORDER BY id LIMIT 1")

    def rows(self, query: str, *values: object) -> list[tuple]:
        return self.database.execute(query, values).fetchall()

    def one(self, query: str, *values: object):
        return self.rows(query, *values)[0][0]

    def usage(self) -> dict[str, Usage]:
        """This will return what each kind of process has used; probers are counted together."""
        used: dict[str, Usage] = {}
        for name, one in usage({p.name: p.pid for p in self.installation.processes.all() if p.pid}).items():
            kind = name.partition("-")[0]
            before = used.get(kind, Usage(0, 0))
            used[kind] = Usage(before.cpu_seconds + one.cpu_seconds, before.rss_bytes + one.rss_bytes)
        return used

    def fill(self, count: int, url: str, interval: int, **columns: object) -> list[int]:
        """This will insert monitors that are not enabled yet, and return their ids."""
        fields = {
            "team_id": self.team, "name": "bench", "kind": "http", "url": url, "method": "GET", "headers": "{}",
            "sealed_headers": "", "body": "", "interval_seconds": interval, "timeout_seconds": min(5, interval),
            "expected_status": "200-299", "follow_redirects": True, "verify_tls": False, "failures_to_open": 2,
            "successes_to_close": 1, "recheck_seconds": 5, "connection": "fresh", "tags": [], "description": "",
            "severity": "critical",
            "runbook_url": "", "enabled": False, "status": "paused",
        } | columns  # fmt: skip
        names = ", ".join(fields)
        marks = ", ".join(["%s"] * len(fields))
        made = self.rows(
            f"INSERT INTO monitors_monitor ({names}, status_changed_at, created_at, updated_at)"
            f" SELECT {marks}, now(), now(), now() FROM generate_series(1, %s) RETURNING id",
            *fields.values(),
            count,
        )
        ids = [monitor_id for (monitor_id,) in made]
        self.database.execute(
            "INSERT INTO monitors_regionstate (monitor_id, region_id, status, failures, successes, slows)"
            " SELECT id, (SELECT id FROM monitors_region LIMIT 1), 'new', 0, 0, 0 FROM unnest(%s::int[]) AS id",
            [ids],
        )
        self.database.execute(
            "INSERT INTO monitors_statusperiod (monitor_id, status, started_at, interval_seconds, regions)"
            " SELECT id, 'paused', now(), %s, 1 FROM unnest(%s::int[]) AS id",
            [interval, ids],
        )
        self.database.execute("ANALYZE monitors_monitor, monitors_regionstate")
        return ids

    def enable(self, ids: list[int]) -> None:
        """This will have monitors probed as if they had been for days: what is measured is the long run."""
        self.database.execute(
            "UPDATE monitors_regionstate s SET status = 'up', failures = 0, recheck_at = NULL"
            "  FROM monitors_monitor m WHERE m.id = s.monitor_id AND m.id = ANY(%s) AND NOT m.enabled",
            [ids],
        )
        self.database.execute(
            "UPDATE monitors_monitor SET enabled = true, status = 'up' WHERE id = ANY(%s) AND NOT enabled",
            [ids],
        )

    def pause_all(self) -> None:
        self.database.execute("UPDATE monitors_monitor SET enabled = false, status = 'paused' WHERE enabled")

    def rest(self, seconds: float) -> None:
        """This will pause all monitors, wait, and tidy up behind the pausing and enabling, which no user does."""
        self.pause_all()
        time.sleep(seconds)
        self.database.execute("VACUUM ANALYZE monitors_monitor, monitors_regionstate, monitors_result")

    def clear(self) -> None:
        """This will take away all monitors and results, and let what is under way end first."""
        self.pause_all()
        time.sleep(3)
        self.database.execute("DELETE FROM monitors_statusperiod")
        self.database.execute("DELETE FROM monitors_regionstate")
        self.database.execute("TRUNCATE monitors_result")
        self.database.execute("TRUNCATE notifications_deliveryattempt, notifications_delivery")
        self.database.execute("DELETE FROM notifications_messagerecord")
        self.database.execute("DELETE FROM incidents_incidentevent")
        self.database.execute("DELETE FROM incidents_incident")
        self.database.execute("DELETE FROM notifications_subscription")
        self.database.execute("DELETE FROM notifications_channel")
        self.database.execute("DELETE FROM monitors_monitor")
        self.database.execute("VACUUM ANALYZE")


@contextmanager
def running() -> Iterator[Bench]:
    """This will start all of healthmon in a folder of its own, and take it away again."""
    folder = Path(tempfile.mkdtemp(prefix="healthmon-bench-"))
    installation = Installation(
        {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/tmp"),
            "HEALTHMON_DATA_DIR": str(folder),
            "HEALTHMON_RATE_LIMIT_FACTOR": "1000",  # counted as ever, and never reached
            "HEALTHMON_PORT": str(free_port()),
            "HEALTHMON_ALLOWED_NETS": "127.0.0.0/8",
            "HEALTHMON_ADMIN_EMAIL": EMAIL,
            "HEALTHMON_ADMIN_PASSWORD": PASSWORD,
        }
    )
    try:
        installation.start()
        bench = Bench(installation)
        yield bench
        bench.database.close()
    finally:
        installation.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def target() -> Iterator[Target]:
    made = Target()
    try:
        yield made
    finally:
        made.close()
