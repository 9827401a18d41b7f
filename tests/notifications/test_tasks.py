"""The notifier's two tasks, called as a worker would, with what really went over the broker."""

import json
import logging

import pytest
import structlog
from celery import current_app
from django.core.serializers import serialize

from incidents.changes import StatusChange
from incidents.services import apply
from notifications import outbox, tasks
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
    published = alerts()
    for name, kwargs, _ in published:
        assert name == "notifications.tasks.deliver"
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
    assert set(kwargs) == {"delivery_id", "leased_until"}
    assert headers["expires"], "what waits longer than its lease is not worth running"
    tasks.deliver(**kwargs)
    tasks.deliver(**kwargs)
    assert len(hook.received) == 1


def test_repeats_with_the_same_key_what_died_between_the_answer_and_the_commit(team, hook, alerts):
    subscribed(webhook(team, url=hook.url()))
    goes_down(team)
    [lease] = outbox.lease(NOON)
    assert tasks.send(outbox.begin(lease, NOON)) is None  # … and here the process is killed
    assert notify(alerts) == 1
    assert [got.id for got in hook.received] == [Delivery.objects.get().key] * 2
    assert Delivery.objects.get().status == "sent"


def test_asks_for_another_round_when_there_may_be_more(team, hook, alerts):
    channels = [subscribed(webhook(team)) for _ in range(2)]
    for n in range(tasks.LEASES_AT_ONCE // 2 + 1):
        goes_down(team, name=f"Shop {n}")
    # Some were leased before by a process that is gone: those and the fresh ones together pass the limit.
    lost = Delivery.objects.filter(channel=channels[0]).values("pk")
    Delivery.objects.filter(pk__in=lost[:5]).update(status="sending", leased_until=NOON)
    tasks.relay()
    names = [name for name, _, _ in alerts()]
    assert names.count("notifications.tasks.deliver") >= tasks.LEASES_AT_ONCE
    assert names.count("notifications.tasks.relay") == 1


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
            outbox.Parcel(None, team.id, "pigeon", {}, channel.sealed_secrets, None)
        )  # a bug of ours
        parcels = []
        Delivery.objects.update(status="pending", next_attempt_at=NOON)
        for lease in outbox.lease(NOON):
            parcels.append(repr(outbox.begin(lease, NOON)))
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
