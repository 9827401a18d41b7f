"""Deliveries: how many a second one notifier sends, what one costs, and how soon a lone one arrives when idle."""

import http.server
import threading
import time
from typing import Any

from bench.measure import percentiles
from bench.surroundings import EMAIL, PASSWORD, Bench, Target, free_port
from healthmon.client import Client

COUNT, LONE = 10_000, 50
PATIENCE_SECONDS = 300

_PAYLOAD = (
    '{"type": "incident.opened", "data": {"incident": null, "monitor": null, "message": "bench is down."}}'
)
_MESSAGES = """
    INSERT INTO notifications_messagerecord (team_id, kind, severity, subject, text, payload, created_at)
    SELECT %s, 'opened', 'critical', 'DOWN: bench', 'bench is down.', %s, now() FROM generate_series(1, %s)
    RETURNING id
"""
_DELIVERIES = """
    INSERT INTO notifications_delivery
           (message_id, channel_id, kind, key, status, attempts, next_attempt_at, last_error, created_at)
    SELECT id, %s, 'opened', 'msg_' || id, 'pending', 0, now(), '', now() FROM unnest(%s::bigint[]) AS id
"""


class Sink(http.server.ThreadingHTTPServer):
    """Takes webhooks, and notes when each came by its id."""

    daemon_threads = True

    def __init__(self) -> None:
        sink = self
        self.came: dict[str, float] = {}

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                sink.came[self.headers["webhook-id"]] = time.time()
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        super().__init__(("127.0.0.1", free_port()), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def run(bench: Bench, target: Target, *, quick: bool, say, **_: Any) -> dict[str, Any]:
    """This will time lone deliveries from their commit to their receipt, then flood a webhook."""
    client = Client(bench.installation.url, EMAIL, PASSWORD)
    report = {"lone": _lone(bench, client), "flood": _flood(bench, client, target, 2000 if quick else COUNT)}
    say(f"deliveries, idle   {report['lone']}")
    say(f"deliveries, flood  {report['flood']}")
    bench.clear()
    return report


def _channel(client: Client, url: str) -> int:
    return client.call("POST", "channels/", {"name": "sink", "kind": "webhook", "config": {"url": url}})["id"]


def _lone(bench: Bench, client: Client) -> dict[str, Any]:
    sink = Sink()
    channel = _channel(client, f"http://127.0.0.1:{sink.server_port}/")
    took = []
    for _ in range(LONE):
        # Answered after the commit, so what the answer takes to arrive is taken off: the figure is kept from above
        # by counting from the row's own time.
        delivery = client.call("POST", f"channels/{channel}/test/")
        deadline = time.monotonic() + 10
        while delivery["key"] not in sink.came and time.monotonic() < deadline:
            time.sleep(0.005)
        made = bench.one(
            "SELECT extract(epoch FROM created_at)::float8 FROM notifications_delivery WHERE id = %s",
            delivery["id"],
        )
        took.append(1000 * (sink.came[delivery["key"]] - made))
        time.sleep(0.1)
    sink.shutdown()
    p50, p95, p99 = percentiles(took, 50, 95, 99)
    return {
        "p50_ms": round(p50, 1),
        "p95_ms": round(p95, 1),
        "p99_ms": round(p99, 1),
        "deliveries": len(took),
    }


def _flood(bench: Bench, client: Client, target: Target, count: int) -> dict[str, Any]:
    channel = _channel(client, f"http://127.0.0.1:{target.http}/")
    with bench.database.transaction():
        ids = [row[0] for row in bench.rows(_MESSAGES, bench.team, _PAYLOAD, count)]
        before, transactions = bench.usage(), _transactions(bench)
        began = time.time()
        bench.database.execute(_DELIVERIES, [channel, ids])
    deadline = time.monotonic() + PATIENCE_SECONDS
    while left := bench.one(
        "SELECT count(*) FROM notifications_delivery WHERE channel_id = %s AND status <> 'sent'", channel
    ):
        if time.monotonic() > deadline:
            break
        time.sleep(0.25)
    after = bench.usage()
    ended = bench.one(
        "SELECT extract(epoch FROM max(sent_at))::float8 FROM notifications_delivery WHERE channel_id = %s",
        channel,
    )
    sent = count - left
    if not sent:
        raise SystemExit(f"Not one delivery arrived in {PATIENCE_SECONDS} s: see the notifier's log.")
    return {
        "deliveries": sent,
        "left": left,
        "per_second": round(sent / (ended - began)),
        "cpu_us_per_delivery": {
            name: round((after[name].cpu_seconds - before[name].cpu_seconds) / sent * 1e6)
            for name in ("notifier", "postgres", "broker")
        },
        "transactions_per_delivery": round((_transactions(bench) - transactions) / sent, 2),
    }


def _transactions(bench: Bench) -> int:
    return bench.one("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
