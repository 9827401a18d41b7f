"""One installation, one outage after the other, and what must not be lost when a part of it dies meanwhile.

The limits are for a busy machine; none of them is a measurement.
"""

import signal
import subprocess
import sys
import time

import psycopg
import pytest
from redis import Redis

from healthmon import embedded, environment
from tests.support.stack import Stack
from tests.support.targets import serving

pytestmark = pytest.mark.journey
SOON = 60  # seconds: an alert, a status
LATER = 120  # seconds: the same, when a part has to be started again first


@pytest.fixture(scope="module")
def stack():
    with Stack() as running:
        yield running


@pytest.fixture
def alerts(stack):
    with serving() as sink:
        channel = stack.api(
            "POST", "channels/", {"name": sink.url, "kind": "webhook", "config": {"url": sink.url}}
        )
        stack.api("POST", "subscriptions/", {"channel": channel["id"], "scope": "all"})
        yield sink
        stack.api("DELETE", f"channels/{channel['id']}/")


@pytest.fixture
def target():
    with serving() as server:
        yield server


@pytest.fixture
def monitor(stack, target, alerts):
    made = stack.api(
        "POST",
        "monitors/",
        {
            "name": target.url,
            "url": target.url,
            "interval_seconds": 5,
            "timeout_seconds": 3,
            "recheck_seconds": 1,
        },
    )
    stack.wait_until(lambda: status(stack, made) == "up", SOON, "the first look at the target")
    yield made
    stack.api("DELETE", f"monitors/{made['id']}/")


def status(stack, monitor):
    return stack.api("GET", f"monitors/{monitor['id']}/")["status"]


def incidents(stack, monitor):
    return stack.api("GET", f"incidents/?monitor={monitor['id']}")["results"]


def test_opens_an_incident_tells_of_it_once_and_of_its_end_once(stack, target, monitor, alerts):
    target.status = 503
    stack.wait_until(lambda: alerts.types() == ["incident.opened"], SOON, "the alert")
    (incident,) = incidents(stack, monitor)
    assert (incident["status"], incident["reason"]) == ("open", "status")

    target.status = 200
    stack.wait_until(lambda: len(alerts.seen) > 1, SOON, "the all-clear")
    assert alerts.types() == ["incident.opened", "incident.resolved"]
    (incident,) = incidents(stack, monitor)
    assert incident["status"] == "resolved"
    assert status(stack, monitor) == "up"


def test_notices_an_outage_although_the_prober_was_killed(stack, target, monitor, alerts):
    killed = stack.kill("prober")
    target.status = 503
    stack.wait_until(lambda: alerts.types() == ["incident.opened"], LATER, "the alert")
    assert stack.pid("prober") not in {0, killed}
    assert len(incidents(stack, monitor)) == 1


def test_delivers_what_was_decided_although_the_notifier_was_killed(stack, target, monitor, alerts):
    stack.stop("notifier")
    target.status = 503
    stack.wait_until(lambda: incidents(stack, monitor), LATER, "the incident")
    stack.start("notifier")
    stack.wait_until(lambda: alerts.types() == ["incident.opened"], LATER, "the alert")


def test_notices_an_outage_although_the_broker_lost_everything(stack, target, monitor, alerts):
    target.status = 503
    with Redis(unix_socket_path=str(embedded.broker_socket(stack.env))) as broker:
        broker.flushall()
    stack.wait_until(lambda: alerts.types() == ["incident.opened"], LATER, "the alert")


def test_notices_an_outage_although_the_broker_was_killed(stack, target, monitor, alerts):
    stack.kill("broker")
    target.status = 503
    stack.wait_until(lambda: alerts.types() == ["incident.opened"], LATER, "the alert")


def test_blames_no_target_for_its_own_database_s_restart(stack, target, monitor, alerts):
    killed = stack.kill("postgres", signal.SIGQUIT)  # at once, as a crash: it recovers from its log
    stack.wait_until(lambda: stack.pid("postgres") not in {0, killed}, LATER, "PostgreSQL again")
    back_at = time.time()
    stack.wait_until(lambda: looked_at_since(stack, monitor, back_at), LATER, "results again")
    assert alerts.types() == []
    assert incidents(stack, monitor) == []


def looked_at_since(stack, monitor, moment):
    try:
        with psycopg.connect(stack.env.database_url) as connection:
            found = connection.execute(
                "SELECT count(*) FROM monitors_result WHERE monitor_id = %s AND scheduled_at > to_timestamp(%s)",
                [monitor["id"], moment],
            ).fetchone()
    except psycopg.OperationalError:  # not back yet
        return False
    return found[0] > 0


def test_looks_once_a_slot_however_many_beats_there_are(stack, target, monitor):
    second = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "healthmon", "beat", "--pidfile=", "--max-interval", "1"]
        + ["--scheduler", "django_celery_beat.schedulers:DatabaseScheduler"],
        env=stack.installation.processes.environ,
        cwd=environment.PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        before = len(target.seen)
        stack.wait_until(lambda: len(target.seen) >= before + 4, SOON, "four more looks")
    finally:
        second.kill()
        second.wait()
    results = stack.api("GET", f"monitors/{monitor['id']}/results/?limit=200")["results"]
    slots = [result["scheduled_at"] for result in results]
    assert len(slots) == len(set(slots))
    assert len(target.seen) <= len(slots) + 1  # one may still be on its way
