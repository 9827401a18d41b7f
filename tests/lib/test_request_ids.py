"""One id for a request, its answer, its log lines and its tasks."""

import json
import uuid

import pytest
import structlog
from celery import shared_task
from celery.signals import task_postrun, task_prerun
from django.conf import settings
from django.http import HttpResponse, JsonResponse
from django.test import Client
from django.urls import path

from healthmon.celery import app
from healthmon.lib import request_ids
from healthmon.lib.api import not_found, server_error
from healthmon.lib.throttling import client_of

pytestmark = pytest.mark.urls(__name__)
QUEUE = "test-request-ids"


def bound(request):
    return JsonResponse(structlog.contextvars.get_contextvars())


def breaks(request):
    raise ZeroDivisionError("secret")


def publishes(request):
    app.send_task("tests.nothing", queue=QUEUE)
    return HttpResponse()


urlpatterns = [
    path("api/v1/bound/", bound),
    path("api/v1/breaks/", breaks),
    path("api/v1/publishes/", publishes),
]
handler404, handler500 = not_found, server_error


def get(url, **headers):
    return Client(raise_request_exception=False).get(f"/api/v1/{url}", headers=headers)


@pytest.mark.parametrize("given", ["a", "Root=1-67891233-abcdef", str(uuid.uuid4()), "x" * 128])
def test_keeps_the_id_that_came_along(given):
    given = given.replace("=", "_")
    answer = get("bound/", **{"X-Request-ID": given})
    assert answer["X-Request-ID"] == given
    assert answer.json()["request_id"] == given


@pytest.mark.parametrize("given", [None, "", "a b", "é", "x" * 129, 'a"b', "a/b", "{}"])
def test_makes_one_where_none_came_that_a_log_line_can_hold(given):
    answer = get("bound/", **({} if given is None else {"X-Request-ID": given}))
    assert uuid.UUID(answer["X-Request-ID"])
    assert answer.json()["request_id"] == answer["X-Request-ID"]


@pytest.mark.parametrize(("url", "status"), [("nothing/", 404), ("breaks/", 500)])
def test_names_it_in_every_problem(url, status):
    answer = get(url, **{"X-Request-ID": "the-one"})
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json")
    assert (answer["X-Request-ID"], answer.json()["request_id"]) == ("the-one", "the-one")
    assert b"secret" not in answer.content
    assert b"Traceback" not in answer.content


def test_is_forgotten_with_the_request():
    get("breaks/", **{"X-Request-ID": "the-one"})
    assert request_ids.current() is None


def test_goes_along_with_the_tasks_that_the_request_starts():
    broker = client_of(settings.HEALTHMON_BROKER_URL)
    broker.delete(QUEUE)
    get("publishes/", **{"X-Request-ID": "the-one"})
    app.send_task("tests.nothing", queue=QUEUE)
    without, with_id = [json.loads(message) for message in broker.lrange(QUEUE, 0, -1)]
    broker.delete(QUEUE)
    assert with_id["headers"]["request_id"] == "the-one"
    assert "request_id" not in without["headers"]


@shared_task(name="tests.lib.test_request_ids.asked")
def asked():
    return request_ids.current()


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ({"request_id": "the-one"}, "the-one"),
        ({}, None),
        ({"request_id": "a\nb"}, None),
        ({"request_id": 7}, None),
    ],
)
def test_a_task_takes_it_up_and_puts_it_down(given, seen):
    asked.push_request(**given, is_eager=False)
    try:
        task_prerun.send(sender=asked, task=asked)
        assert request_ids.current() == seen
        task_postrun.send(sender=asked, task=asked)
        assert request_ids.current() is None
    finally:
        asked.pop_request()
