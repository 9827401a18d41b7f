"""Alerts on their way to places that refuse, hang or come back late, and a notifier that dies meanwhile."""

import time

import pytest
from redis import Redis

from healthmon import embedded
from tests.journeys.conftest import LATER, SOON, moment
from tests.support.target import Hold, hang, reply

pytestmark = pytest.mark.journey

NOTIFIER_THREADS = 16  # of healthmon/processes.conf
INTERVAL = 5


def test_tries_again_where_a_webhook_answered_500_and_tells_the_others_meanwhile(
    stack, target, monitor, hook, inbox
):
    hook.sink.script(reply(500, b"not now"))
    target.default = reply(503)
    hook.wait_for("incident.opened", "incident.opened")
    refused, taken = hook.sink.received
    assert (refused.id, refused.json) == (taken.id, taken.json)
    assert inbox.mails()[0].at < taken.at  # the mail did not wait for the webhook
    stack.wait_until(lambda: [sent["status"] for sent in hook.deliveries()] == ["sent"], SOON, "sent")
    assert hook.deliveries()[0]["attempts"] == 2
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


def test_keeps_looking_in_time_and_sends_a_mail_while_a_webhook_hangs(stack, target, monitor, hook, inbox):
    hook.sink.otherwise = hang
    for _ in range(30):
        stack.api("POST", f"channels/{hook.channel}/test/")
    hook.sink.wait_for(NOTIFIER_THREADS)  # all of them wait for an answer that never comes
    began = time.time()
    target.default = reply(503)
    stack.wait_until(lambda: inbox.subjects() == ["DOWN: Shop (status)"], LATER, "the mail")

    def slots():
        """Of the looks in turn that came back since."""
        results = [result for result in monitor.results() if not result["urgent"]]
        return sorted(at for result in results if (at := moment(result["scheduled_at"])) > began)

    stack.wait_until(lambda: len(slots()) >= 3, SOON, "three more looks")
    looked = slots()
    assert looked == [looked[0] + INTERVAL * number for number in range(len(looked))]  # not one was left out
    assert {result["reason"] for result in monitor.results()} <= {"ok", "status"}  # … or was late
    assert monitor.status() == "down"
