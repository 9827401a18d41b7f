"""The notifier's two tasks, called as a worker would, with what really went over the broker."""

import json
import logging

import pytest
import structlog
from celery import current_app
from django.core.serializers import serialize

from incidents.changes import StatusChange
from incidents.services import apply
from notifications import delivering, tasks
from notifications.models import Channel, Delivery, MessageRecord
from tests.support import people
from tests.support.target import Seen, Wire, reply
from tests.support.watching import NOON, monitor, subscribed, webhook

pytestmark = pytest.mark.django_db


@pytest.fixture
def alerts():
    """What was published to the queue `alerts` since the test began: (task, kwargs, headers) each."""
    with current_app.connection_for_read() as broker, broker.SimpleQueue("alerts") as queue:
        queue.clear()

        def published():
            found = []
            while True:
                try:
                    message = queue.get(block=False)
                except queue.Empty:
                    return found
                message.ack()
                args, kwargs, _ = message.payload
                assert args == []
                found.append((message.headers["task"], kwargs, message.headers))

        yield published


def goes_down(team, **fields):
    shop = monitor(team, **fields)
    change = StatusChange(
        team_id=team.id, monitor_id=shop.id, monitor_name=shop.name, monitor_url=shop.url, runbook_url="",
        tags=(), before="up", after="down", at=NOON, reason="status", detail="It answered 500.",
    )  # fmt: skip
    apply([change], NOON)


def notify(alerts):
    """Relay once, and deliver what that published. Returns how many there were."""
    tasks.relay(later_argument=1)  # from a newer publisher
    published = [kwargs for name, kwargs, _ in alerts() if name == "notifications.tasks.deliver"]
    for kwargs in published:
        tasks.deliver(**kwargs, later_argument=1)
    return len(published)


def test_takes_an_alert_from_the_incident_to_the_receiver(team, hook, alerts):
    subscribed(webhook(team, url=hook.url()))
    goes_down(team)
    assert notify(alerts) == 1
    delivery = Delivery.objects.get()
    assert (delivery.status, delivery.attempts, delivery.last_error) == ("sent", 1, "")
    [got] = hook.received
    assert (got.id, got.json["type"]) == (delivery.key, "incident.opened")
    assert notify(alerts) == 0


def test_sends_once_when_the_broker_delivers_a_message_twice(team, hook, alerts):
    subscribed(webhook(team, url=hook.url()))
    goes_down(team)
    tasks.relay()
    [(_, kwargs, headers)] = alerts()
    assert set(kwargs) == {"lease"}
    assert headers["expires"], "what waits longer than its lease is not worth running"
    tasks.deliver(**kwargs)
    tasks.deliver(**kwargs)
    assert len(hook.received) == 1


def test_repeats_with_the_same_key_what_died_between_the_answer_and_the_commit(team, hook, alerts):
    subscribed(webhook(team, url=hook.url()))
    goes_down(team)
    [lease] = delivering.claim(NOON)
    assert tasks.send(delivering.begin(lease, NOON)) is None  # … and here the process is killed
    assert notify(alerts) == 1
    assert [got.id for got in hook.received] == [Delivery.objects.get().key] * 2
    assert Delivery.objects.get().status == "sent"


def test_goes_on_with_what_a_channel_has_without_asking_the_broker(team, hook, alerts):
    subscribed(webhook(team, url=hook.url()))
    for n in range(delivering.OF_A_CHANNEL + 6):
        goes_down(team, name=f"Shop {n}")
    assert notify(alerts) == delivering.OF_A_CHANNEL
    assert len(hook.received) == delivering.OF_A_CHANNEL + 6
    assert set(Delivery.objects.values_list("status", flat=True)) == {"sent"}


def test_shows_a_webhooks_secret_nowhere(team, hook, alerts, caplog):
    caplog.set_level(logging.DEBUG)
    client = people.client_of(people.ada())
    made = client.post(
        "/api/v1/channels/", {"name": "Hook", "kind": "webhook", "config": {"url": hook.url()}}
    ).json()
    secret = made["config"]["secret"]
    channel = subscribed(Channel.objects.get(pk=made["id"]))

    def echo(wire: Wire, seen: Seen) -> None:
        reply(500, str(seen.headers).encode() + seen.body)(wire, seen)

    hook.script(echo)
    with structlog.testing.capture_logs() as events:
        goes_down(team)
        tasks.relay()
        published = alerts()
        for _, kwargs, _ in published:
            tasks.deliver(**kwargs)
        assert tasks.send(
            delivering.Parcel(1, NOON, (), team.id, 1, "pigeon", "{}", channel.sealed_secrets)
        )  # a bug of ours
        parcels = []
        Delivery.objects.update(status="pending", next_attempt_at=NOON, lease=None)
        for lease in delivering.claim(NOON):
            parcels.append(repr(delivering.begin(lease, NOON)))
    assert {"delivery", "transport_bug"} <= {event["event"] for event in events}
    assert Delivery.objects.get().attempts == 2

    rows = serialize("json", [*Delivery.objects.all(), *MessageRecord.objects.all(), *Channel.objects.all()])
    answers = [client.get(f"/api/v1/{path}/").json() for path in ("channels", "deliveries", "subscriptions")]
    answers.append(client.get(f"/api/v1/channels/{channel.id}/").json())
    changed = client.patch(f"/api/v1/channels/{channel.id}/", {"name": "Hooks"}).json()
    assert changed["config"]["secret"] == f"***{secret[-4:]}"
    sources = {
        "rows": rows,
        "broker": json.dumps([(kwargs, str(headers)) for _, kwargs, headers in published]),
        "events": repr(events),
        "parcels": repr(parcels),
        "logs": caplog.text + "".join(repr(vars(record)) for record in caplog.records),
        "answers": json.dumps([*answers, changed]),
    }
    bare = secret.removeprefix("whsec_")
    assert [where for where, text in sources.items() if bare in text] == []
    assert all(len(text) > 2 for where, text in sources.items() if where != "logs")
