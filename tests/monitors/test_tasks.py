"""Tick, sweep and record as a worker runs them, on a real broker."""

import base64
import json
import os
from datetime import UTC, datetime

import psycopg
import pytest
from celery import current_app
from celery.exceptions import Reject
from django.db import OperationalError, connection
from redis import Redis

import healthmon.celery  # noqa: F401 - publishes go through its app
from accounts.models import Team
from healthmon.lib import queues
from monitors import services, tasks
from monitors.models import Region, RegionState, Result, ScheduleClock
from monitors.probing.outcome import Outcome, Target
from tests.support.watching import monitor, outcome

pytestmark = pytest.mark.django_db
QUEUES = ("probe.default", "urgent.default")


@pytest.fixture
def team() -> Team:
    return Team.objects.create(name="Shop", slug="shop")


@pytest.fixture(autouse=True)
def broker():
    with Redis(unix_socket_path=os.environ["BROKER_URL"].removeprefix("redis+socket://")) as client:
        client.delete(*QUEUES)
        yield client
        client.delete(*QUEUES)


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def published(broker: Redis, queue: str = "probe.default") -> list[Target]:
    targets = []
    for message in broker.lrange(queue, 0, -1):
        _, kwargs, _ = json.loads(base64.b64decode(json.loads(message)["body"]))
        targets += [Target.from_wire(wire) for wire in kwargs["targets"]]
    return targets


def clock_back(seconds: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE monitors_scheduleclock SET dispatched_until = date_trunc('second', now()) - %s * interval '1 s'",
            [seconds],
        )


class TestTick:
    def test_hands_out_what_fell_due_and_moves_the_clock_on(self, team, broker):
        shops = [monitor(team, interval_seconds=5, timeout_seconds=5) for _ in range(3)]
        RegionState.objects.update(recheck_at=None)
        clock_back(5)
        tasks.tick()
        assert sorted(t.monitor_id for t in published(broker)) == [shop.id for shop in shops]
        assert ScheduleClock.objects.get().dispatched_until > now()

    def test_hands_out_nothing_twice(self, team, broker):
        monitor(team, interval_seconds=30)
        RegionState.objects.update(recheck_at=None)
        clock_back(30)
        tasks.tick()
        tasks.tick()
        assert len(published(broker)) == 1

    def test_hands_out_a_new_monitor_on_the_urgent_queue(self, team, broker):
        shop = monitor(team, now=now())
        clock_back(0)
        tasks.tick()
        assert [(t.monitor_id, t.urgent) for t in published(broker, "urgent.default")] == [(shop.id, True)]

    def test_does_not_probe_a_slot_twice_when_a_recheck_falls_into_its_second(self, team, broker):
        shop = monitor(team, interval_seconds=86_400)
        since_midnight = int(now().timestamp()) - shop.offset_seconds
        slot = since_midnight - since_midnight % 86_400 + shop.offset_seconds
        RegionState.objects.update(recheck_at=datetime.fromtimestamp(slot, UTC))
        clock_back(int(now().timestamp()) - slot + 1)
        tasks.tick()
        slots = [t.scheduled_at for t in published(broker) + published(broker, "urgent.default")]
        assert slots == [slot]

    def test_sheds_what_a_full_queue_cannot_take_and_counts_it(self, team, broker):
        monitor(team, interval_seconds=5, timeout_seconds=5)
        RegionState.objects.update(recheck_at=None)
        broker.rpush("probe.default", *["{}"] * (tasks.BACKLOG_LEAST + 1))
        clock_back(5)
        tasks.tick()
        assert broker.llen("probe.default") == tasks.BACKLOG_LEAST + 1
        assert ScheduleClock.objects.get().shed == 1


class TestSweep:
    def test_hands_out_again_what_never_came_back(self, team, broker):
        shop = monitor(team, interval_seconds=300, now=datetime(2026, 1, 1, tzinfo=UTC))
        clock_back(0)
        tasks.sweep()
        lost = published(broker)
        seconds_since = int(now().timestamp() - shop.offset_seconds) % 300
        assert len(lost) == (1 if seconds_since > 20 else 0)

    def test_leaves_what_still_waits_in_the_queue(self, team, broker):
        monitor(team, interval_seconds=300, now=datetime(2026, 1, 1, tzinfo=UTC))
        broker.rpush("probe.default", "{}")
        clock_back(0)
        tasks.sweep()
        assert broker.llen("probe.default") == 1


class TestRecord:
    def test_writes_down_what_came_back_and_who_brought_it(self, team):
        shop = monitor(team, now=now())
        seen = outcome(shop, at=now())
        tasks.record(
            outcomes=[seen.to_wire()], prober={"name": "p-1", "region": "default"}, new_in_a_later_release=1
        )
        assert Result.objects.filter(monitor=shop).count() == 1
        with connection.cursor() as cursor:
            cursor.execute("SELECT name, region FROM monitors_prober")
            assert cursor.fetchall() == [("p-1", "default")]

    @pytest.mark.parametrize("age_seconds", [5, tasks.TRIED_FOR_SECONDS + 60])
    def test_hands_a_batch_back_while_the_database_is_away_until_it_is_old(self, team, age_seconds):
        shop = monitor(team, now=now())
        seen = outcome(shop, at=datetime.fromtimestamp(now().timestamp() - age_seconds, UTC))
        ends_as = Reject if age_seconds < tasks.TRIED_FOR_SECONDS else OperationalError
        with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as other:
            other.execute("LOCK TABLE monitors_result")
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout = '50ms'")
            with pytest.raises(ends_as):
                tasks.record(outcomes=[seen.to_wire()])


def test_a_queue_nobody_made_is_empty():
    assert queues.length(current_app, "probe.atlantis") == 0


def test_a_paused_region_gets_nothing(team, broker):
    shop = monitor(team, interval_seconds=5, timeout_seconds=5)
    Region.objects.update(enabled=False)
    clock_back(5)
    tasks.tick()
    assert published(broker) == published(broker, "urgent.default") == []
    services.delete([shop], None, now())


def test_an_outcome_of_another_release_is_understood(team):
    shop = monitor(team, now=now())
    wire = outcome(shop, at=now()).to_wire()
    assert Outcome.from_wire([*wire, "a field of tomorrow"]) == Outcome.from_wire(wire)
