"""How often somebody may call, as they see it."""

from uuid import uuid4

import pytest
from django.conf import settings as django_settings

from accounts.limits import ADDRESS, SCOPES, USER
from healthmon.lib import throttling
from tests.support.people import acme, ada, alice, anonymous, client_of
from tests.support.watching import monitor, webhook

pytestmark = pytest.mark.django_db

BROKER_URL = django_settings.HEALTHMON_BROKER_URL
LOGIN = "/api/v1/auth/token/"
WRONG = {"email": "nobody@example.com", "password": "x" * 1_001}  # refused before a password is hashed


@pytest.fixture(autouse=True)
def limits(settings):
    settings.HEALTHMON_RATE_LIMIT_FACTOR = 1
    forget()
    yield
    forget()


def forget():
    broker = throttling.client_of(BROKER_URL)
    for key in broker.keys(f"{throttling.PREFIX}*"):
        broker.delete(key)


def test_says_how_one_stands():
    answer = client_of(ada()).get("/api/v1/me/")
    assert answer["RateLimit-Policy"] == f'"user";q={USER.quota};w=60'
    assert answer["RateLimit"] == f'"user";r={USER.quota - 1};t=1'
    assert "Retry-After" not in answer


def test_refuses_the_eleventh_sign_in_of_a_minute():
    client = anonymous()
    statuses = [client.post(LOGIN, WRONG).status_code for _ in range(SCOPES["sign-in"].quota)]
    assert set(statuses) == {400}
    answer = client.post(LOGIN, WRONG)
    assert (answer.status_code, answer["Content-Type"]) == (429, "application/problem+json")
    assert 1 <= int(answer["Retry-After"]) <= 6
    assert f'"address";q={ADDRESS.quota};w=60' in answer["RateLimit-Policy"]
    assert '"sign-in";q=10;w=60' in answer["RateLimit-Policy"]
    assert '"sign-in";r=0;t=' in answer["RateLimit"]
    assert answer.json()["request_id"] == answer["X-Request-ID"]
    # Somebody else's address, and everything but signing in, goes on.
    assert anonymous().post(LOGIN, WRONG, REMOTE_ADDR="192.0.2.9").status_code == 400
    assert client_of(ada()).get("/api/v1/me/").status_code == 200


def test_nobody_gets_out_of_it_by_a_header():
    client = anonymous()
    for n in range(10):
        client.post(LOGIN, WRONG, HTTP_X_FORWARDED_FOR=f"192.0.2.{n}")
    assert client.post(LOGIN, WRONG, HTTP_X_FORWARDED_FOR="192.0.2.99").status_code == 429


def test_counts_each_person_by_themselves(settings):
    settings.HEALTHMON_RATE_LIMIT_FACTOR = 0.0005  # three calls
    one = client_of(ada())
    assert [one.get("/api/v1/me/").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert client_of(alice()).get("/api/v1/me/").status_code == 200
    assert client_of(ada()).get("/api/v1/me/").status_code == 429  # another session is the same person


@pytest.mark.parametrize("scope", ["tests", "check-now"])
def test_is_stricter_where_a_call_costs_somebody_else(scope):
    url = {
        "tests": f"/api/v1/channels/{webhook(acme()).id}/test/",
        "check-now": f"/api/v1/monitors/{monitor(acme()).id}/check/",
    }[scope]
    assert f'"{scope}";q={SCOPES[scope].quota};' in client_of(ada()).post(url)["RateLimit-Policy"]
    assert scope not in client_of(ada()).get("/api/v1/monitors/")["RateLimit-Policy"]


def test_can_be_switched_off(settings):
    settings.HEALTHMON_RATE_LIMIT_FACTOR = 0
    client = anonymous()
    answers = [client.post(LOGIN, WRONG) for _ in range(15)]
    assert {answer.status_code for answer in answers} == {400}
    assert "RateLimit" not in answers[-1]


def test_lets_everybody_in_while_the_broker_is_away(settings):
    settings.HEALTHMON_BROKER_URL = f"redis+socket:///tmp/{uuid4().hex}.sock"
    throttling.limiter.cache_clear()
    try:
        answer = client_of(ada()).get("/api/v1/me/")
    finally:
        throttling.limiter.cache_clear()
    assert answer.status_code == 200
    assert "RateLimit" not in answer


def test_costs_the_database_nothing(django_assert_num_queries):
    client = client_of(ada())
    with django_assert_num_queries(2):
        client.get("/api/v1/me/")
