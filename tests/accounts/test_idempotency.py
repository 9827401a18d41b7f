"""A POST that is sent again is answered again, and done once."""

import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.urls import URLPattern, URLResolver, get_resolver

from accounts import idempotency
from accounts.models import KeptAnswer
from healthmon.lib.clock import now
from healthmon.lib.idempotency import Idempotent
from incidents.models import IncidentEvent
from monitors.models import Monitor, Region
from notifications.models import Channel, Delivery
from tests.support.people import acme, ada, alice, client_of, globex
from tests.support.racing import race
from tests.support.watching import NOON, monitor, webhook

pytestmark = pytest.mark.django_db

URL = "/api/v1/monitors/"
GIVEN = {"name": "Shop", "url": "https://shop.example.com/health"}
KEY = {"HTTP_IDEMPOTENCY_KEY": "5b7a3d0e"}


@pytest.fixture
def client():
    return client_of(ada())


def test_gives_the_answer_again_and_does_it_once(client):
    first = client.post(URL, GIVEN, **KEY)
    again = client.post(URL, GIVEN, **KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again["Content-Type"] == first["Content-Type"]
    assert again["ETag"] == first["ETag"]
    assert again["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first
    assert again["X-Request-ID"] != first["X-Request-ID"]
    assert Monitor.objects.count() == 1


def test_without_a_key_it_is_done_each_time(client):
    assert client.post(URL, GIVEN).json()["id"] != client.post(URL, GIVEN).json()["id"]
    assert not KeptAnswer.objects.exists()


@pytest.mark.parametrize(
    ("url", "body"),
    [(URL, GIVEN | {"name": "Other"}), (f"{URL}?x=1", GIVEN), (f"{URL}bulk/", GIVEN), (URL, {})],
)
def test_refuses_another_request_with_the_same_key(client, url, body):
    client.post(URL, GIVEN, **KEY)
    answer = client.post(url, body, **KEY)
    assert (answer.status_code, answer["Content-Type"]) == (422, "application/problem+json")
    assert "Idempotency-Key" in answer.json()["detail"]
    assert Monitor.objects.count() == 1


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "x" * 256, "a\tb"])
def test_refuses_what_is_no_key(client, key):
    answer = client.post(URL, GIVEN, HTTP_IDEMPOTENCY_KEY=key)
    assert answer.status_code == 400
    assert "255" in answer.json()["detail"]
    assert not Monitor.objects.exists()


@pytest.mark.parametrize("key", ["x", '"quoted"', "x" * 255, "!~"])
def test_takes_every_other_key(client, key):
    assert client.post(URL, GIVEN, HTTP_IDEMPOTENCY_KEY=key).status_code == 201


def test_keys_are_the_callers_and_the_teams_own():
    ada(globex())
    made = [
        client_of(*who).post(URL, GIVEN, **KEY).json()["id"]
        for who in ((ada(), acme()), (ada(), globex()), (alice(), acme()))
    ]
    assert len(set(made)) == 3


def test_gives_a_refusal_again_too(client):
    first, again = (client.post(URL, {}, **KEY) for _ in range(2))
    assert (first.status_code, again.status_code) == (400, 400)
    assert again["Idempotency-Replayed"] == "true"
    assert again["Content-Type"] == "application/problem+json"
    assert again.json() == first.json()


def test_tries_again_what_another_state_refused(client):
    shop = monitor(acme(), enabled=False)
    assert client.post(f"{URL}{shop.id}/check/", **KEY).status_code == 409
    client.post(f"{URL}{shop.id}/resume/")
    assert client.post(f"{URL}{shop.id}/check/", **KEY).status_code == 202


def test_does_it_anew_after_a_day(client):
    client.post(URL, GIVEN, **KEY)
    KeptAnswer.objects.update(created_at=now() - timedelta(hours=24, seconds=1))
    answer = client.post(URL, GIVEN | {"name": "Tomorrow"}, **KEY)
    assert (answer.status_code, answer.json()["name"]) == (201, "Tomorrow")
    assert client.post(URL, GIVEN | {"name": "Tomorrow"}, **KEY)["Idempotency-Replayed"] == "true"
    assert KeptAnswer.objects.count() == 1


def test_forgets_what_is_older_than_a_day(client):
    client.post(URL, GIVEN, **KEY)
    moment = KeptAnswer.objects.get().created_at
    assert idempotency.prune(moment + timedelta(hours=23, minutes=59)) == 0
    assert idempotency.prune(moment + timedelta(hours=24)) == 1


def test_shows_a_secret_again_but_keeps_it_sealed(client):
    given = {"name": "Hook", "kind": "webhook", "config": {"url": "https://example.com/hook"}}
    first, again = (client.post("/api/v1/channels/", given, **KEY) for _ in range(2))
    secret = first.json()["config"]["secret"]
    assert again.json() == first.json()
    assert Channel.objects.count() == 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT a::text FROM accounts_keptanswer a")
        [[row]] = cursor.fetchall()
    assert secret not in row
    assert "example.com" not in row


def test_a_sealed_answer_opens_in_its_own_row_alone(client):
    client.post(URL, GIVEN, **KEY)
    KeptAnswer.objects.update(key="another")
    answer = client.post(URL, GIVEN, HTTP_IDEMPOTENCY_KEY="another")
    assert answer.status_code == 409
    assert Monitor.objects.count() == 1


def test_covers_the_deeds(client):
    hook = webhook(acme())
    shop = monitor(acme(), now=NOON)
    for url, model in ((f"/api/v1/channels/{hook.id}/test/", Delivery), (f"{URL}{shop.id}/check/", None)):
        first, again = (
            client.post(url, HTTP_IDEMPOTENCY_KEY=f"k{shop.id}{model}".replace(" ", "")) for _ in range(2)
        )
        assert (first.status_code, again["Idempotency-Replayed"], again.json()) == (202, "true", first.json())
    assert Delivery.objects.count() == 1
    assert not IncidentEvent.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_one_does_it_and_the_others_are_told():
    Region.objects.get_or_create(slug="default", defaults={"name": "Default"})
    clients = [client_of(ada()) for _ in range(6)]
    answers = race(*[lambda client=client: client.post(URL, GIVEN, **KEY) for client in clients])
    assert Monitor.objects.count() == 1
    assert {answer.status_code for answer in answers} <= {201, 409}
    made = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    assert len(set(made)) == 1
    assert clients[0].post(URL, GIVEN, **KEY).json()["id"] == made[0]


@pytest.mark.django_db(transaction=True)
def test_says_409_while_the_first_is_under_way_and_does_not_wait():
    Region.objects.get_or_create(slug="default", defaults={"name": "Default"})
    client, name = client_of(ada()), f"idempotency:user:{ada().pk}:{acme().pk}:5b7a3d0e"
    held, done, answers = threading.Event(), threading.Event(), []

    def first():
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])
                held.set()
                done.wait(20)
        finally:
            connection.close()

    thread = threading.Thread(target=first)
    thread.start()
    assert held.wait(20)
    answers.append(client.post(URL, GIVEN, **KEY))
    done.set()
    thread.join(20)
    answers.append(client.post(URL, GIVEN, **KEY))
    assert [answer.status_code for answer in answers] == [409, 201]
    assert "under way" in answers[0].json()["detail"]


# Nobody is known there yet, or what is answered must not be answered twice: tokens.
AT_THE_DOOR = {
    "LoginView", "RefreshView", "LogoutView", "LogoutEverywhereView", "PasswordView", "AcceptView",
}  # fmt: skip


def _views(resolver: URLResolver):
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLPattern):
            yield pattern.callback
        else:
            yield from _views(pattern)


def test_every_other_post_of_the_api_honours_keys():
    found = set()
    for callback in _views(get_resolver()):
        view = getattr(callback, "cls", None)
        posts = "post" in getattr(callback, "actions", {}) or ("post" in dir(view) if view else False)
        if posts and view.__name__ not in AT_THE_DOOR and view.__module__.split(".")[0] != "drf_spectacular":
            assert issubclass(view, Idempotent), view
            found.add(view.__name__)
    assert {"MonitorViewSet", "IncidentViewSet", "ChannelViewSet", "DeliveryViewSet"} <= found
