"""`make demo`: an outage to watch, start to finish, within a minute.

A small target answers, then fails, then answers again. healthmon looks at it every five seconds and sends its
alerts to a webhook here, which checks the signature and prints what came.
"""

import base64
import hashlib
import hmac
import json
import os
import queue
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from healthmon.client import ApiFailed, Client

NAME = "demo target"
LOOKS_EVERY_SECONDS = 5
UP_SECONDS = 5
DOWN_SECONDS = 15
UP_BETWEEN_SECONDS = 90  # from the second outage on
ALERT_SECONDS = 45  # after this long without the alert we say that something is wrong
LONGEST_ALERT = 1024 * 1024

_colours = ("\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m")
GREEN, RED, YELLOW, DIM, PLAIN = (
    _colours if sys.stdout.isatty() and "NO_COLOR" not in os.environ else [""] * 5
)


class Ended(Exception):
    """healthmon stopped while the demo ran."""


@dataclass(frozen=True, slots=True)
class Alert:
    type: str  # incident.opened, incident.resolved, …
    message: str
    genuine: bool  # the signature is ours
    received_at: float  # time.monotonic()


def play(url: str, email: str, password: str, *, alive: Callable[[], bool]) -> None:
    """This function will show one outage after the other for as long as `alive` says yes."""
    secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
    alerts: queue.Queue[Alert] = queue.Queue()
    target = Target()
    with (
        suppress(Ended),
        _serving(target.handler()) as target_url,
        _serving(_sink(secret, alerts)) as sink_url,
    ):
        client = Client(url, email, password)
        monitor = set_up(client, target_url, sink_url, secret)
        story = Story(alerts, alive)
        story.tell(f"{target_url} answers 200, and healthmon looks at it every {LOOKS_EVERY_SECONDS} s")
        story.until(lambda: _status(client, monitor) == "up", "the first look at it")
        story.tell(f"healthmon finds it {GREEN}up{PLAIN}")
        story.pause(UP_SECONDS)
        while True:
            _outage(story, target)
            story.tell(
                f"{DIM}look around: {url}/admin/ · again in {UP_BETWEEN_SECONDS} s · Ctrl-C ends it{PLAIN}"
            )
            story.pause(UP_BETWEEN_SECONDS)


def _outage(story: "Story", target: "Target") -> None:
    target.up = False
    failed_at = story.tell(f"the target {RED}fails{PLAIN}: it answers 503 from now on")
    opened = story.alert("incident.opened")
    story.pause(failed_at + DOWN_SECONDS - time.monotonic())
    target.up = True
    back_at = story.tell(f"the target {GREEN}is back{PLAIN}: it answers 200")
    resolved = story.alert("incident.resolved")
    story.tell(
        f"{YELLOW}an outage, start to finish: alert after {opened.received_at - failed_at:.1f} s, "
        f"all clear {resolved.received_at - back_at:.1f} s after its end{PLAIN}"
    )


class Story:
    """What is told, with the seconds since its beginning, and the waiting between."""

    def __init__(self, alerts: queue.Queue[Alert], alive: Callable[[], bool]) -> None:
        self._began = time.monotonic()
        self._alerts = alerts
        self._alive = alive

    def tell(self, text: str) -> float:
        now = time.monotonic()
        print(f"{now - self._began:6.1f} s  {text}", flush=True)
        return now

    def pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not self._alive():
                raise Ended
            time.sleep(min(left, 0.5))

    def until(self, holds: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + ALERT_SECONDS
        while not holds():
            if time.monotonic() > end:
                self.tell(f"{RED}still waiting for {what}{PLAIN}; the folder logs/ may say why")
                end = float("inf")
            self.pause(0.2)

    def alert(self, wanted: str) -> Alert:
        """Wait for an alert of this type; tell of every one that comes."""
        arrived: list[Alert] = []

        def came() -> bool:
            while not self._alerts.empty():
                alert = self._alerts.get()
                signature = "signature valid" if alert.genuine else f"{RED}SIGNATURE INVALID{PLAIN}"
                self.tell(
                    f"{YELLOW}webhook{PLAIN} {alert.type} ({signature})\n{textwrap.indent(alert.message, ' ' * 10)}"
                )
                if alert.type == wanted:
                    arrived.append(alert)
            return bool(arrived)

        self.until(came, f"the alert {wanted}")
        return arrived[-1]


# --- what healthmon is told -------------------------------------------------------------------------------


def set_up(client: Client, target_url: str, sink_url: str, secret: str) -> int:
    """This function will make monitor, channel and subscription, or turn those of an earlier demo to the new URLs.

    Returns the monitor's id.
    """
    channel = _put(
        client,
        "channels/",
        {
            "name": "demo terminal",
            "kind": "webhook",
            "config": {"url": sink_url, "secret": secret},
            "enabled": True,
        },
    )
    try:
        client.call("POST", "subscriptions/", {"channel": channel, "scope": "all"})
    except ApiFailed as failed:
        if failed.status != 400:  # it is subscribed already
            raise
    return _put(
        client,
        "monitors/",
        {
            "name": NAME,
            "url": target_url,
            "interval_seconds": LOOKS_EVERY_SECONDS,
            "timeout_seconds": 3,
            "recheck_seconds": 1,
            "failures_to_open": 2,
            "successes_to_close": 1,
        },
    )


def _put(client: Client, path: str, wanted: dict[str, Any]) -> int:
    found = [
        item for item in client.call("GET", f"{path}?limit=200")["results"] if item["name"] == wanted["name"]
    ]
    if not found:
        return int(client.call("POST", path, wanted)["id"])
    changes = {name: value for name, value in wanted.items() if name != "kind"}
    return int(client.call("PATCH", f"{path}{found[0]['id']}/", changes)["id"])


def _status(client: Client, monitor: int) -> str:
    return str(client.call("GET", f"monitors/{monitor}/")["status"])


# --- the two servers ------------------------------------------------------------------------------------


class Target:
    up = True

    def handler(self) -> type[BaseHTTPRequestHandler]:
        target = self

        class Handler(_Quiet):
            def do_GET(self) -> None:
                self.answer(200 if target.up else 503)

        return Handler


def _sink(secret: str, alerts: queue.Queue[Alert]) -> type[BaseHTTPRequestHandler]:
    class Handler(_Quiet):
        def do_POST(self) -> None:
            body = self.rfile.read(min(int(self.headers["content-length"]), LONGEST_ALERT))
            self.answer(204)
            payload = json.loads(body)
            message = payload["data"]["message"]
            alerts.put(
                Alert(
                    type=payload["type"],
                    message=message if isinstance(message, str) else json.dumps(message),
                    genuine=is_genuine(secret, self.headers, body),
                    received_at=time.monotonic(),
                )
            )

    return Handler


def is_genuine(secret: str, headers: Any, body: bytes) -> bool:
    """This function will check a signature as https://www.standardwebhooks.com asks its receivers to."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return any(hmac.compare_digest(expected, given) for given in (headers["webhook-signature"] or "").split())


class _Quiet(BaseHTTPRequestHandler):
    timeout = 10

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing: the story is the log."""


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
