"""Alerts on their way to places that refuse, hang or come back late, and a notifier that dies meanwhile."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from redis import Redis

from healthmon import embedded
from notifications.delivering import OF_A_CHANNEL
from tests.journeys.conftest import LATER, SOON, moment
from tests.support.sinks import WebhookSink
from tests.support.stack import Stack
from tests.support.target import Hold, hang, reply

pytestmark = pytest.mark.journey

INTERVAL = 5


def test_tries_again_where_a_webhook_answered_500_and_tells_the_others_meanwhile(
    stack, target, monitor, hook, inbox
):
    hook.sink.script(
        reply(500, b"not now"), reply(500, b"nor now")
    )  # so that it is tried again after 5 and 15 s
    target.default = reply(503)
    hook.wait_for("incident.opened", "incident.opened", "incident.opened")
    refused, _, taken = hook.sink.received
    assert (refused.id, refused.json) == (taken.id, taken.json)
    assert inbox.mails()[0].at < taken.at  # the mail did not wait for the webhook
    stack.wait_until(lambda: [sent["status"] for sent in hook.deliveries()] == ["sent"], SOON, "sent")
    assert hook.deliveries()[0]["attempts"] == 3
    assert all(result["reason"] != "missed" for result in monitor.results())


def test_delivers_what_was_decided_although_the_broker_forgot_it(stack, target, monitor, hook):
    stack.stop("notifier")
    target.default = reply(503)
    monitor.wait_for_incident()
    assert [decided["status"] for decided in hook.deliveries()] == ["pending"]
    with Redis(unix_socket_path=str(embedded.broker_socket(stack.env))) as broker:
        stack.wait_until(lambda: broker.llen("alerts"), SOON, "somebody to ask for it to be sent")
        broker.flushall()
    stack.start("notifier")
    hook.wait_for("incident.opened", seconds=LATER)
    assert len(monitor.incidents()) == 1


def test_sends_again_what_a_killed_notifier_was_sending(stack, target, monitor, hook):
    held = Hold()
    hook.sink.script(held)
    target.default = reply(503)
    assert held.asked.wait(SOON)
    assert not held.left.is_set()  # the receiver has the alert in hand, and healthmon does not know
    killed = stack.kill("notifier")
    assert held.left.wait(SOON)

    hook.wait_for("incident.opened", "incident.opened", seconds=LATER)  # when the lease of 40 s has run out
    first, again = hook.sink.received
    assert (first.id, first.json) == (again.id, again.json)
    stack.wait_until(lambda: [sent["status"] for sent in hook.deliveries()] == ["sent"], SOON, "sent")
    assert stack.pid("notifier") not in {0, killed}
    assert len(hook.sink.received) == 2


@contextmanager
def attempts_held_back(stack: Stack) -> Iterator[None]:
    """No attempt can be begun or settled inside: whoever tries waits in the middle of its transaction."""
    with psycopg.connect(stack.env.database_url) as database:
        database.execute("LOCK TABLE notifications_deliveryattempt")
        yield


def waits_for_a_lock(stack: Stack) -> bool:
    with psycopg.connect(stack.env.database_url) as database:
        return bool(
            database.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchall()
        )


def test_sends_at_most_once_more_what_was_answered_and_not_written_down(stack, target, monitor, hook):
    held = Hold()
    hook.sink.script(held)
    target.default = reply(503)
    assert held.asked.wait(SOON)
    with attempts_held_back(stack):
        held.release()
        stack.wait_until(
            lambda: waits_for_a_lock(stack), SOON, "the notifier to write down that it was taken"
        )
        stack.kill("notifier")
    hook.wait_for("incident.opened", "incident.opened", seconds=LATER)
    first, again = hook.sink.received
    assert (first.id, first.json) == (again.id, again.json)
    stack.wait_until(lambda: [sent["status"] for sent in hook.deliveries()] == ["sent"], SOON, "sent")
    assert len(hook.sink.received) == 2


def test_sends_once_what_a_killed_notifier_was_about_to_send(stack, target, monitor, hook):
    with attempts_held_back(stack):
        target.default = reply(503)
        stack.wait_until(lambda: waits_for_a_lock(stack), SOON, "the notifier to begin")
        stack.kill("notifier")
    hook.wait_for("incident.opened", seconds=LATER)
    stack.wait_until(lambda: [sent["status"] for sent in hook.deliveries()] == ["sent"], SOON, "sent")
    assert len(hook.sink.received) == 1


def test_shows_what_is_dead_and_sends_each_once_when_asked_to(stack, target, monitor, hook):
    second = WebhookSink()
    with second:
        made = stack.api(
            "POST", "channels/", {"name": "Second", "kind": "webhook", "config": {"url": second.url("/hook")}}
        )
        stack.api(
            "POST", "subscriptions/", {"channel": made["id"], "scope": "monitor", "monitor": monitor.id}
        )
        hook.sink.script(reply(404, b"no such hook"))
        second.script(reply(404, b"no such hook"))
        target.default = reply(503)

        def dead():
            found = stack.api("GET", f"deliveries/?status=dead&incident={monitor.incidents()[0]['id']}")[
                "results"
            ]
            return {(letter["channel"], letter["last_error"]) for letter in found}

        monitor.wait_for_incident()
        said = "It answered 404: no such hook"
        stack.wait_until(
            lambda: dead() == {(hook.channel, said), (made["id"], said)}, SOON, "two dead letters"
        )
        answer = stack.api("POST", f"deliveries/replay/?incident={monitor.incidents()[0]['id']}")
        assert answer == {"replayed": 2}
        for sink in (hook.sink, second):
            refused, taken = sink.wait_for(2, SOON)
            assert (refused.id, refused.json) == (taken.id, taken.json)
        stack.wait_until(lambda: dead() == set(), SOON, "no dead letter")
        stack.api("DELETE", f"channels/{made['id']}/")


def test_keeps_looking_in_time_and_sends_a_mail_while_a_webhook_hangs(stack, target, monitor, hook, inbox):
    hook.sink.otherwise = hang
    for _ in range(30):
        stack.api("POST", f"channels/{hook.channel}/test/")
    hook.sink.wait_for(OF_A_CHANNEL)  # its share of the notifier waits for an answer that never comes
    began = time.time()
    target.default = reply(503)
    stack.wait_until(lambda: inbox.subjects() == ["DOWN: Shop (status)"], LATER, "the mail")
    assert "sent" not in {sent["status"] for sent in hook.deliveries()}

    def slots():
        """Of the looks in turn that came back since."""
        results = [result for result in monitor.results() if not result["urgent"]]
        return sorted(at for result in results if (at := moment(result["scheduled_at"])) > began)

    stack.wait_until(lambda: len(slots()) >= 3, SOON, "three more looks")
    looked = slots()
    assert looked == [looked[0] + INTERVAL * number for number in range(len(looked))]  # not one was left out
    assert {result["reason"] for result in monitor.results()} <= {"ok", "status"}  # … or was late
    assert monitor.status() == "down"
