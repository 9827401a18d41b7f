"""Secrets are planted wherever a channel or a monitor takes one, and then looked for everywhere."""

import base64
import functools
import html
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
import structlog
from celery import current_app
from django.db import connection
from django.test import Client

from accounts.models import User
from incidents.changes import StatusChange
from incidents.services import apply
from monitors import recording
from monitors import tasks as monitor_tasks
from monitors.models import Monitor
from notifications import tasks
from notifications.models import Channel, Delivery
from notifications.transports import TRANSPORTS, DeliveryFailed
from notifications.transports.http import HttpTransport
from tests.support import people, target
from tests.support.sinks import WebhookSink
from tests.support.target import Answer, Seen, Wire, reply
from tests.support.watching import NOON, after, monitor, outcome, subscribed

pytestmark = pytest.mark.django_db

QUEUES = ("alerts", "default", "results", "scheduler", "probe.default", "urgent.default")


def plant(kind: str, port: int) -> tuple[dict[str, Any], list[str]]:
    """A configuration of a kind, and the random strings that must not be seen again."""
    a, b = secrets.token_hex(16), secrets.token_hex(16)
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    configs: dict[str, tuple[dict[str, Any], list[str]]] = {
        "webhook": ({"url": "https://hooks.example.com/1", "secret": f"whsec_{key}"}, [key]),
        "slack": ({"url": f"https://hooks.slack.com/services/T0/B0/{a}"}, [a]),
        "discord": ({"url": f"https://discord.com/api/webhooks/123456789/{a}"}, [a]),
        "teams": ({"url": f"https://prod.example.com/workflows/{a}/run?sp=%2Ft&sig={b}"}, [a, b]),
        "mattermost": ({"url": f"https://chat.example.com/hooks/{a}"}, [a]),
        "telegram": ({"token": f"123456:{a}", "chat_id": -1001}, [a]),
        "ntfy": ({"topic": "alerts", "token": f"tk_{a}"}, [a]),
        "pagerduty": ({"routing_key": a}, [a]),
        "opsgenie": ({"api_key": a}, [a]),
        "pushover": ({"token": a[:30], "user": b[:30]}, [a[:30], b[:30]]),
        "twilio": (
            {"account_sid": "AC" + "0" * 32, "auth_token": a, "from": "+15005550006", "to": "+15005550010"},
            [a],
        ),
        "apprise": ({"url": f"json://user:{a}@127.0.0.1:{port}/hook/{b}?+X-Key={b}"}, [a, b]),
    }
    return configs[kind]


# --- looking ------------------------------------------------------------------------------------------------


def trace(canary: str, text: str) -> str:
    """The first piece of ten characters of a canary that a text holds, or of twelve in base64; empty if none."""
    return next(filter(text.lower().__contains__, _pieces(canary)), "")


@functools.cache
def _pieces(canary: str) -> list[str]:
    pieces = [canary[start : start + 10] for start in range(len(canary) - 9)]
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + canary.encode()).decode()[4:-4]
        pieces += [encoded[start : start + 12] for start in range(len(encoded) - 11)]
    return [piece.lower() for piece in pieces]


def every_row() -> Iterator[tuple[str, str]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        for (table,) in cursor.fetchall():
            cursor.execute(f"SELECT string_agg(t::text, E'\\n') FROM {table} t")
            yield table, cursor.fetchone()[0] or ""


class Watch:
    """All that is said and published while it looks; `messages` are read off the broker."""

    def __init__(self, broker: Any, caplog: pytest.LogCaptureFixture) -> None:
        self.broker, self.caplog = broker, caplog
        self.events: list[Any] = []
        self.messages: list[tuple[str, dict, dict]] = []
        self.answers: list[str] = []

    def read(self, queue_name: str) -> list[tuple[str, dict, dict]]:
        found = []
        with self.broker.SimpleQueue(queue_name) as queue:
            while True:
                try:
                    message = queue.get(block=False)
                except queue.Empty:
                    self.messages += found
                    return found
                message.ack()
                found.append((message.headers["task"], message.payload[1], dict(message.headers)))

    def notify(self) -> int:
        """Send all that is pending, at once."""
        Delivery.objects.filter(status="pending").update(next_attempt_at=NOON)
        tasks.relay()
        told = [kwargs for name, kwargs, _ in self.read("alerts") if name == "notifications.tasks.deliver"]
        for kwargs in told:
            tasks.deliver(**kwargs)
        return len(told)

    def ask(self, client: Any, path: str) -> str:
        answer = client.get(path)
        assert answer.status_code == 200, (path, answer.content)
        text = b"".join(answer).decode()
        self.answers.append(text)
        return text

    def found(self, canaries: list[str]) -> list[str]:
        for queue_name in QUEUES:
            self.read(queue_name)
        records = [
            (record.getMessage(), record.exc_text, repr(record.exc_info), repr(vars(record)))
            for record in self.caplog.records
        ]
        places = [
            *((f"table {table}", rows) for table, rows in every_row()),
            ("logs", self.caplog.text + repr(records)),
            ("events", repr(self.events)),
            ("broker", repr(self.messages)),
            *(("answer", answer) for answer in self.answers),
        ]
        return [
            f"{where}: …{text[max(0, text.lower().find(piece) - 60) :][:140]}…"
            for canary in canaries
            for where, text in places
            if (piece := trace(canary, text))
        ]


@pytest.fixture
def watch(caplog) -> Iterator[Watch]:
    caplog.set_level(1)
    for chatty in ("apprise", "urllib3", "requests", "celery.app", "django"):
        caplog.set_level(1, logger=chatty)
    caplog.set_level("INFO", logger="django.template")  # a traceback for each variable that is not there
    with current_app.connection_for_read() as broker, structlog.testing.capture_logs() as events:
        for queue_name in QUEUES:
            with broker.SimpleQueue(queue_name) as queue:
                queue.clear()
        watching = Watch(broker, caplog)
        watching.events = events
        yield watching


# --- a place that says back what it was told ----------------------------------------------------------------


def echoing(status: int, written: Any = str) -> Answer:
    """Answer with the whole request in some way of writing."""

    def answer(wire: Wire, seen: Seen) -> None:
        headers = "".join(f"{name}: {value}\n" for name, value in seen.headers.items())
        # What is short comes first: an excerpt is to have it.
        secret_headers = "".join(
            f"{name}: {value}\n"
            for name, value in seen.headers.items()
            if name.lower() in ("authorization", "x-key")
        )
        whole = f"{secret_headers}{seen.body.decode('latin-1')[:400]} {seen.method} {seen.path}\n{headers}"
        reply(status, written(whole).encode())(wire, seen)

    return answer


def as_path_first(status: int) -> Answer:
    def answer(wire: Wire, seen: Seen) -> None:
        reply(status, f"Cannot POST {seen.path}".encode())(wire, seen)

    return answer


def crooked(wire: Wire, seen: Seen) -> None:
    wire.send(b"HTTP/1.1 500 Oops\r\nno header at all\r\nContent-Length: 0\r\n\r\n")


def writings(canaries: list[str]) -> list[Answer]:
    return [
        echoing(500),
        echoing(500, lambda text: json.dumps({"error": text})),
        echoing(500, lambda text: json.dumps({"error": text}).replace("/", "\\/")),
        echoing(500, html.escape),
        echoing(500, quote),
        echoing(500, lambda text: base64.b64encode(text.encode()).decode()),
        as_path_first(500),
        as_path_first(429),
        *(reply(500, b"x" * 170 + b" " + canary.encode()) for canary in canaries),
        *(reply(500, b"x" * (200 - cut) + canary.encode()) for canary in canaries for cut in (4, 12)),
        crooked,
        target.hang_up,
        target.not_http,
        echoing(400),
        echoing(404),
        echoing(302),
    ]


def here(kind: str, hook: WebhookSink) -> Any:
    """The transport of a kind as it is, only that whatever it posts is posted here."""
    transport = TRANSPORTS[kind]
    if not isinstance(transport, HttpTransport):
        return transport

    class Here(type(transport)):  # type: ignore[misc]
        def post(self, *given: Any) -> Any:
            post = super().post(*given)
            return replace(post, url=re.sub(r"^https?://[^/]+", hook.url("").rstrip("/"), post.url))

    return Here()


class Buggy(HttpTransport):
    """A bug of ours, in the middle of everything."""

    def send(self, envelope: Any, config: Any) -> None:
        try:
            raise ValueError(f"no {json.dumps(config)}")
        except ValueError as problem:
            raise RuntimeError(f"with {config!r}") from problem


class Indiscreet(HttpTransport):
    """A transport that says what it should not."""

    def send(self, envelope: Any, config: Any) -> None:
        raise DeliveryFailed(f"It did not take {json.dumps(config)}.")


KINDS = [kind for kind, transport in TRANSPORTS.items() if transport.secret_fields]


@pytest.mark.parametrize("kind", KINDS)
def test_a_channels_secret_is_seen_once_and_never_again(kind, team, hook, watch, monkeypatch):
    config, canaries = plant(kind, hook.port)
    people.alice()  # who owns the team, and hears of a channel that fails
    client = people.client_of(people.ada())
    made = client.post("/api/v1/channels/", {"name": "Hook", "kind": kind, "config": config})
    assert made.status_code == 201, made.content
    for canary in canaries:
        assert canary in made.content.decode(), "this once"
    channel = subscribed(Channel.objects.get(pk=made.json()["id"]))
    Channel.objects.update(rate_per_minute=None, gather_seconds=0)
    where = f"/api/v1/channels/{channel.id}/"
    transport = here(kind, hook)

    def send_tests(*answers: Answer | None) -> None:
        for answer in answers:
            if answer:
                hook.script(answer)
            Channel.objects.update(enabled=True)
            assert client.post(f"{where}test/").status_code == 202
            assert watch.notify() == 1
            Delivery.objects.filter(status="pending").update(status="dead", next_attempt_at=None)

    # It arrives, so the secrets are there to be found …
    hook.otherwise = reply(200)
    monkeypatch.setitem(TRANSPORTS, kind, transport)
    send_tests(reply(200), target.half_headers)
    assert [sent.last_error for sent in Delivery.objects.filter(status="sent")] == ["", ""]
    arrived = str([(got.path, got.headers.items(), got.body) for got in hook.received])
    # (of a webhook's secret only signatures are sent)
    assert kind == "webhook" or all(trace(canary, arrived) for canary in canaries)

    # … it fails in every way there is, until the team's owners are told of it …
    send_tests(*writings(canaries))
    failed = Delivery.objects.filter(channel=channel, status="dead")
    assert failed.count() == len(writings(canaries))
    assert all(failed.values_list("last_error", flat=True))
    assert Delivery.objects.filter(kind="channel_failing").exists()

    # … with an incident …
    shop = monitor(team)
    apply(
        [
            StatusChange(
                team_id=team.id, monitor_id=shop.id, monitor_name=shop.name, monitor_url=shop.url, runbook_url="",
                tags=(), before="up", after="down", at=NOON, reason="status", detail="It answered 500.",
            )
        ],
        NOON,
    )  # fmt: skip
    hook.script(echoing(500))
    assert watch.notify() >= 1

    # … because of us …
    for broken in (Buggy(), Indiscreet()):
        monkeypatch.setitem(TRANSPORTS, kind, broken)
        send_tests(None)
    assert "transport_bug" in {event["event"] for event in watch.events}

    # … and for ever.
    monkeypatch.setitem(TRANSPORTS, kind, transport)
    send_tests(echoing(410))
    assert Channel.objects.get(pk=channel.id).disabled_reason

    for path in ("channels", "deliveries", "subscriptions", "incidents", "monitors", "message-templates"):
        watch.ask(client, f"/api/v1/{path}/?limit=200")
    watch.ask(client, where)
    # The rows are looked through below; whatever is shown of one is shown of all.
    shown = Delivery.objects.order_by("-id").values_list("id", flat=True)[:2]
    for delivery_id in shown:
        watch.ask(client, f"/api/v1/deliveries/{delivery_id}/")
    watch.answers.append(client.patch(where, {"name": "Hooks"}).content.decode())
    watch.answers.append(client.patch(where, {"config": {"nonsense": 1}}).content.decode())
    console = staff()
    for path in ("channel/", f"channel/{channel.id}/change/", "delivery/"):
        watch.ask(console, f"/admin/notifications/{path}")
    for delivery_id in shown:
        watch.ask(console, f"/admin/notifications/delivery/{delivery_id}/change/")

    assert watch.found(canaries) == []


def staff() -> Client:
    user = people.alice()
    User.objects.filter(pk=user.pk).update(is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(User.objects.get(pk=user.pk))
    return client


def test_refuses_a_configuration_without_repeating_its_secrets(hook, watch):
    client = people.client_of(people.ada())
    for kind in KINDS:
        config, canaries = plant(kind, hook.port)
        spoilt = {name: f"{value} {value}" for name, value in config.items()}
        answer = client.post("/api/v1/channels/", {"name": "Hook", "kind": kind, "config": spoilt})
        assert answer.status_code == 400, kind
        watch.answers.append(answer.content.decode())
        assert watch.found(canaries) == []


def test_a_monitors_secret_header_is_never_seen_again(team, watch):
    canaries = [secrets.token_hex(16), secrets.token_hex(16)]
    client = people.client_of(people.ada())
    sent = {
        "name": "Shop",
        "url": "http://127.0.0.1:9/",
        "headers": {
            "Authorization": f"Bearer {canaries[0]}",
            "X-Tenant": {"value": canaries[1], "secret": True},
        },
    }
    made = client.post("/api/v1/monitors/", sent)
    assert made.status_code == 201, made.content
    watch.answers.append(made.content.decode())
    monitor_tasks.tick()
    shop = Monitor.objects.get(pk=made.json()["id"])
    recording.record([outcome(shop, "status", detail="It answered 500.")], after(2))
    where = f"/api/v1/monitors/{shop.id}/"
    for path in (where, "/api/v1/monitors/", "/api/v1/incidents/"):
        watch.ask(client, path)
    watch.answers.append(client.patch(where, {"name": "Shop 2"}).content.decode())
    watch.ask(staff(), f"/admin/monitors/monitor/{shop.id}/change/")
    found = watch.found(canaries)
    assert [name for name, _, _ in watch.messages if name == "monitors.probe"], "it was to be probed"
    assert found == []


def test_finds_a_canary():
    """The search is worth something."""
    canary = secrets.token_hex(16)
    login = base64.b64encode(f"user:{canary}".encode()).decode()
    for text in (canary, f"…{canary[20:]}", f"{canary[:11]}…", canary.upper(), f"Basic {login}"):
        assert trace(canary, f"so {text} it is"), text
    assert not trace(canary, f"***{canary[-4:]}")
    assert not trace(canary, secrets.token_hex(500))
