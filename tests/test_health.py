"""What healthmon says of itself, and that it names the part that is ill."""

import json
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery
from django.db import InterfaceError, connections
from django.db.utils import ConnectionHandler
from django.test import Client, RequestFactory

from healthmon import embedded, environment, health
from healthmon.lib import queues
from monitors.models import Prober, Region, ScheduleClock

pytestmark = pytest.mark.django_db

READY = "/healthz/ready"


@pytest.fixture
def well() -> None:
    """The schedule ticks and a prober has been heard of."""
    now = datetime.now(UTC)
    ScheduleClock.objects.update_or_create(defaults={"dispatched_until": now, "ticked_at": now})
    Prober.objects.create(name="p-1", region="default", seen_at=now)


def ill() -> dict[str, str]:
    """The parts that are ill, with what is said of them."""
    answer = Client().get(READY)
    parts = answer.json()["parts"]
    assert set(parts) == {"database", "broker", "ticks", "probers"}
    found = {name: said for name, said in parts.items() if said != "ok"}
    assert answer.status_code == (503 if found else 200)
    assert answer.json()["status"] == ("ill" if found else "ok")
    return found


def asked(**checks) -> tuple[int, dict]:
    answer = health.ready(RequestFactory().get(READY), checks)
    return answer.status_code, json.loads(answer.content)["parts"]


def test_lives_without_asking_anybody(django_assert_num_queries):
    with django_assert_num_queries(0):
        answer = Client().get("/healthz/live")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.usefixtures("well")
def test_is_ready_when_every_part_is():
    assert ill() == {}


@pytest.mark.usefixtures("well")
def test_says_that_nothing_ticks():
    ScheduleClock.objects.update(ticked_at=datetime.now(UTC) - timedelta(seconds=60))
    said = ill()
    assert set(said) == {"ticks"}
    assert "no tick for 60 s" in said["ticks"]
    assert "beat" in said["ticks"]
    ScheduleClock.objects.all().delete()
    assert "migrate" in ill()["ticks"]


@pytest.mark.usefixtures("well")
def test_says_which_region_has_no_prober():
    Prober.objects.update(seen_at=datetime.now(UTC) - timedelta(seconds=60))
    said = ill()
    assert set(said) == {"probers"}
    assert "default" in said["probers"]
    Region.objects.create(slug="eu", name="Europe")
    Region.objects.create(slug="mars", name="Mars", enabled=False)
    Prober.objects.create(name="p-2", region="default", seen_at=datetime.now(UTC))
    said = ill()["probers"]
    assert "eu" in said
    assert "default" not in said
    assert "mars" not in said


def test_says_that_the_database_is_away(tmp_path):
    there = connections["default"].settings_dict
    away = ConnectionHandler({"default": there | {"HOST": str(tmp_path)}})

    def closed() -> str:
        raise InterfaceError("the connection is closed")

    assert asked(database=away["default"].ensure_connection, ticks=closed, broker=lambda: "ok") == (
        503,
        {"database": "the database does not answer", "ticks": "the database does not answer", "broker": "ok"},
    )


def test_says_that_the_broker_is_away_and_when_it_is_back(tmp_path):
    """… whether it was never there, or went while we were connected."""
    env = environment.read({"HEALTHMON_DATA_DIR": str(tmp_path)})
    embedded.broker_folder(env).mkdir(parents=True, exist_ok=True)
    env.run_dir.mkdir(parents=True, exist_ok=True)
    app = Celery("ours", config_source="celeryconfig", broker=env.broker_url, set_as_current=False)

    def broker() -> str:
        return "ok" if queues.length(app, "scheduler") == 0 else "not empty"

    def start() -> subprocess.Popen:
        server = subprocess.Popen(embedded.command("broker", env, durable=False), stdout=subprocess.DEVNULL)
        assert embedded.wait("broker", env, server, 30)
        return server

    away = (503, {"broker": "the broker does not answer"})
    assert asked(broker=broker) == away
    for _ in range(2):
        server = start()
        try:
            assert asked(broker=broker) == (200, {"broker": "ok"})
        finally:
            server.kill()
            server.wait(10)
        assert asked(broker=broker) == away
        assert asked(broker=broker) == away
    app.close()


@pytest.mark.usefixtures("well")
def test_a_bug_in_a_check_is_not_taken_for_an_ill_part():
    with pytest.raises(ZeroDivisionError):
        asked(ticks=lambda: 1 / 0)


@pytest.mark.parametrize("verb", ["head", "options", "post"])
@pytest.mark.usefixtures("well")
def test_answers_to_every_verb(verb):
    assert getattr(Client(), verb)(READY).status_code == 200
