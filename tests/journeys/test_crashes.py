"""A part of it dies, and an outage of somebody else's is noticed none the less; none is made up."""

import signal
import time

import psycopg
import pytest
from redis import Redis

from healthmon import embedded
from tests.journeys.conftest import LATER, SOON, moment
from tests.support.target import Hold, reply

pytestmark = pytest.mark.journey


def test_looks_again_at_what_a_killed_prober_had_in_hand(stack, target, watch, hook):
    # Half a minute between slots: the sweep finds a lost one before the next is due.
    monitor = watch(target.url(), interval_seconds=30)
    monitor.wait_for("up")
    target.default = held = Hold()
    assert held.asked.wait(SOON)
    assert not held.left.is_set()  # the target has the prober's request in hand
    killed = stack.kill("prober")
    assert held.left.wait(SOON)
    asked_at, target.default = target.seen[-1].at, reply(200)

    stack.wait_until(lambda: len(monitor.results()) > 1, LATER, "a second result")
    again, first = monitor.results()
    assert stack.pid("prober") not in {0, killed}
    assert (
        moment(again["scheduled_at"]) <= asked_at < moment(again["started_at"])
    )  # the very slot that was lost
    assert (first["reason"], again["reason"]) == ("ok", "ok")
    assert (monitor.status(), monitor.incidents(), hook.types()) == ("up", [], [])

    target.default = reply(503)
    stack.api("POST", f"monitors/{monitor.id}/check/")
    hook.wait_for("incident.opened")


def test_notices_an_outage_although_the_broker_lost_everything(stack, target, monitor, hook):
    target.default = reply(503)
    with Redis(unix_socket_path=str(embedded.broker_socket(stack.env))) as broker:
        broker.flushall()
    hook.wait_for("incident.opened", seconds=LATER)


def test_notices_an_outage_although_the_broker_was_killed(stack, target, monitor, hook):
    killed = stack.kill("broker")
    target.default = reply(503)
    hook.wait_for("incident.opened", seconds=LATER)
    assert stack.pid("broker") not in {0, killed}
    assert len(monitor.incidents()) == 1


def test_blames_no_target_for_its_own_database_s_restart_and_tells_of_outages_after_it(
    stack, target, monitor, hook
):
    stack.api("POST", f"channels/{hook.channel}/test/")
    hook.wait_for("test")  # so the notifier has a connection to lose
    killed = stack.kill("postgres", signal.SIGQUIT)  # at once, as a crash: it recovers from its log
    stack.wait_until(lambda: stack.pid("postgres") not in {0, killed}, LATER, "PostgreSQL again")
    back_at = time.time()
    stack.wait_until(lambda: looked_at_since(stack, monitor, back_at), LATER, "results again")
    assert hook.types() == ["test"]
    assert monitor.incidents() == []

    target.default = reply(503)
    hook.wait_for("test", "incident.opened")


def looked_at_since(stack, monitor, moment):
    try:
        with psycopg.connect(stack.env.database_url) as connection:
            found = connection.execute(
                "SELECT count(*) FROM monitors_result WHERE monitor_id = %s AND scheduled_at > to_timestamp(%s)",
                [monitor.id, moment],
            ).fetchone()
    except psycopg.OperationalError:  # not back yet
        return False
    return found[0] > 0
