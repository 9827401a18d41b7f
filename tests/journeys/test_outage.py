"""An outage from its first failing answer to the mail that says it is over, and who looks how often meanwhile."""

import subprocess
import sys
import time
from collections import Counter

import pytest
from standardwebhooks import Webhook as SecondOpinion

from healthmon import environment
from tests.journeys.conftest import SOON, moment
from tests.support.target import reply

pytestmark = pytest.mark.journey


def test_tells_of_an_outage_and_of_its_end_by_webhook_and_by_mail(stack, target, monitor, hook, inbox):
    target.default = reply(503, b"out of stock")
    hook.wait_for("incident.opened")
    stack.wait_until(lambda: inbox.subjects() == ["DOWN: Shop (status)"], SOON, "the mail")
    [incident] = monitor.incidents()
    assert (incident["status"], incident["reason"]) == ("open", "status")
    assert monitor.status() == "down"

    why = stack.api("GET", f"incidents/{incident['id']}/explain/")["evidence"]
    assert why["policy"]["failures_to_open"] == 2
    assert [(region["region"], region["failures"]) for region in why["regions"]] == [("default", 2)]
    assert [result["reason"] for result in why["results"][:3]] == [
        "status",
        "status",
        "ok",
    ]  # the newest first
    assert (why["response"]["status_code"], why["response"]["body"]) == (503, "out of stock")

    target.default = reply(200)
    hook.wait_for("incident.opened", "incident.resolved")
    stack.wait_until(lambda: len(inbox.mails()) > 1, SOON, "the second mail")
    assert inbox.subjects() == ["DOWN: Shop (status)", "UP: Shop"]
    [incident] = monitor.incidents()
    assert (incident["status"], incident["resolution"]) == ("resolved", "recovered")
    assert monitor.status() == "up"
    timeline = stack.api("GET", f"incidents/{incident['id']}/timeline/")["results"]
    assert [event["kind"] for event in timeline] == ["opened", "resolved"]

    opened, resolved = hook.sink.received
    assert opened.id != resolved.id
    for alert in (opened, resolved):
        said = SecondOpinion(hook.secret).verify(alert.body, dict(alert.headers))  # raises if it is not ours
        assert said["data"]["incident"]["id"] == incident["id"]
        assert said["data"]["monitor"]["url"] == target.url()


MONITORS, ROUNDS, INTERVAL = 20, 3, 5


def test_looks_once_a_slot_however_many_beats_there_are(stack, target, watch):
    shops = {f"/{number}": watch(target.url(f"/{number}")) for number in range(MONITORS)}
    for shop in shops.values():
        shop.wait_for("up")
    second = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "healthmon", "beat", "--pidfile=", "--max-interval", "1"]
        + ["--scheduler", "django_celery_beat.schedulers:DatabaseScheduler"],
        env=stack.installation.processes.environ,
        cwd=environment.PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    began = time.time()
    try:
        wait_for_rounds(stack, target, ROUNDS)
        stack.stop("beat")
        wait_for_rounds(stack, target, 2)  # by the second one alone: it was a beat like the first
    finally:
        second.kill()
        second.wait()
        stack.start("beat")

    executed = {path: looks_by_slot(target, path, shop, began) for path, shop in shops.items()}
    assert all(set(looks.values()) == {1} for looks in executed.values()), executed
    for looks in executed.values():
        slots = sorted(looks)
        assert slots == list(range(slots[0], slots[-1] + 1, INTERVAL))  # and none was left out


def wait_for_rounds(stack, target, rounds):
    enough = len(target.seen) + rounds * MONITORS
    stack.wait_until(lambda: len(target.seen) >= enough, SOON, f"{rounds} looks at each of {MONITORS}")


def looks_by_slot(target, path, shop, since):
    """How many requests for a path came in each slot (epoch seconds) that began after a moment."""
    offset = int(moment(shop.results()[0]["scheduled_at"])) % INTERVAL
    moments = [int(seen.at) for seen in target.seen if seen.path == path]
    slots = Counter(moment - (moment - offset) % INTERVAL for moment in moments)
    return {slot: count for slot, count in slots.items() if slot > since}
