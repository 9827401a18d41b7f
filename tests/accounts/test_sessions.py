"""Logging in, staying in, and every way of being thrown out."""

import json
from base64 import urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from django.conf import settings
from django.db import connection
from django.test import Client
from rest_framework_simplejwt.exceptions import InvalidToken
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken

from accounts.authentication import LONGEST_SESSION, close_sessions, renew_session
from accounts.models import User
from healthmon.lib import sealing
from tests.support.people import PASSWORD, JsonClient, alice, anonymous, bob, client_of

pytestmark = pytest.mark.django_db

LOGIN, REFRESH, LOGOUT, ME = (
    "/api/v1/auth/token/",
    "/api/v1/auth/token/refresh/",
    "/api/v1/auth/logout/",
    "/api/v1/me/",
)


def log_in(email: str = "alice@example.com", password: str = PASSWORD) -> dict[str, str]:
    answer = anonymous().post(LOGIN, {"email": email, "password": password})
    assert answer.status_code == 200, answer.json()
    return answer.json()


def refreshed(refresh: str):
    return anonymous().post(REFRESH, {"refresh": refresh})


def me(access: str):
    client = JsonClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {access}")
    return client.get(ME)


def test_logs_in_with_email_and_password():
    user = alice()
    tokens = log_in()
    assert set(tokens) == {"access", "refresh"}
    assert me(tokens["access"]).json()["id"] == user.id
    user.refresh_from_db()
    assert user.last_login is not None


def test_reads_the_email_in_any_case():
    alice()
    log_in("  Alice@EXAMPLE.com ")


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("alice@example.com", "wrong"),
        ("alice@example.com", PASSWORD + " "),  # a password is not trimmed
        ("nobody@example.com", PASSWORD),
        ("no address", PASSWORD),
    ],
)
def test_refuses_wrong_credentials_alike(email, password):
    alice()
    answer = anonymous().post(LOGIN, {"email": email, "password": password})
    assert answer.status_code == 401
    assert answer["Content-Type"] == "application/problem+json"
    assert answer["WWW-Authenticate"].startswith("Bearer")
    assert answer.json()["detail"] == "No active account has this e-mail address and password."


@pytest.mark.parametrize(
    ("given", "pointers"),
    [
        ({}, {"#/email", "#/password"}),
        ({"email": "alice@example.com"}, {"#/password"}),
        ({"email": ["a"], "password": {"$ne": 1}}, {"#/email", "#/password"}),
        ({"email": "a\x01\x02", "password": "x" * 1_001}, {"#/password"}),
        ({"email": "a@b.c", "password": "x", "is_staff": True}, {"#/is_staff"}),
    ],
)
def test_names_what_is_missing_or_odd_at_login(given, pointers):
    answer = anonymous().post(LOGIN, given)
    assert answer.status_code == 400
    assert {error["pointer"] for error in answer.json()["errors"]} == pointers


def test_refuses_an_inactive_user():
    alice()
    tokens = log_in()
    User.objects.update(is_active=False)
    assert anonymous().post(LOGIN, {"email": "alice@example.com", "password": PASSWORD}).status_code == 401
    assert refreshed(tokens["refresh"]).status_code == 401
    assert me(tokens["access"]).status_code == 401


def test_puts_nothing_personal_into_a_token():
    alice()
    for kind, token in log_in().items():
        claims = jwt.decode(token, options={"verify_signature": False})
        assert set(claims) == {
            "token_type", "exp", "iat", "jti", "user_id", "hash_password", "session", "iss", "aud",
            *(["began"] if kind == "refresh" else []),
        }  # fmt: skip


def test_keeps_no_token_in_the_database():
    alice()
    tokens = log_in()
    assert not OutstandingToken.objects.filter(token__contains=tokens["refresh"]).exists()


def test_looks_a_caller_up_in_one_query(django_assert_num_queries):
    client = client_of(alice())
    with django_assert_num_queries(2):  # the caller, and the teams that are shown
        client.get(ME)


def test_hands_out_a_new_pair_for_a_refresh_token_and_spends_it():
    alice()
    first = log_in()
    second = refreshed(first["refresh"]).json()
    assert second["refresh"] != first["refresh"]
    assert me(second["access"]).status_code == 200
    assert refreshed(second["refresh"]).status_code == 200


def test_ends_the_session_when_a_spent_refresh_token_comes_back():
    alice()
    stolen = log_in()["refresh"]
    other_session = log_in()
    thief = refreshed(stolen).json()
    assert refreshed(stolen).status_code == 401
    assert refreshed(thief["refresh"]).status_code == 401
    assert me(thief["access"]).status_code == 401
    assert me(other_session["access"]).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_lets_one_of_two_refreshes_at_once_win():
    alice()
    refresh = log_in()["refresh"]

    def attempt(_):
        try:
            return refreshed(refresh).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(attempt, range(2))) == [200, 401]


def test_ends_the_session_at_logout():
    alice()
    tokens = log_in()
    other_session = log_in()
    answer = anonymous().post(LOGOUT, {"refresh": tokens["refresh"]})
    assert (answer.status_code, answer.content) == (204, b"")
    assert refreshed(tokens["refresh"]).status_code == 401
    assert me(tokens["access"]).status_code == 401
    assert refreshed(other_session["refresh"]).status_code == 200


def test_logs_out_twice_without_complaint():
    alice()
    tokens = log_in()
    assert anonymous().post(LOGOUT, {"refresh": tokens["refresh"]}).status_code == 204
    assert anonymous().post(LOGOUT, {"refresh": tokens["refresh"]}).status_code == 204


def test_logs_out_with_a_stale_access_token_in_the_header():
    alice()
    client = JsonClient()
    client.credentials(HTTP_AUTHORIZATION="Bearer stale")
    assert client.post(LOGOUT, {"refresh": log_in()["refresh"]}).status_code == 204


def test_ends_every_session_when_the_password_changes():
    user = alice()
    tokens = log_in()
    user.set_password("another horse, another battery")
    user.save()
    assert me(tokens["access"]).status_code == 401
    assert refreshed(tokens["refresh"]).status_code == 401


def test_ends_every_session_by_one_request():
    user = alice()
    one, other = log_in(), log_in()
    browser = Client()
    browser.force_login(user)
    assert signed_in(browser)
    bystander = client_of(bob())
    client = JsonClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {one['access']}")
    answer = client.post("/api/v1/auth/logout-everywhere/")
    assert (answer.status_code, answer.content) == (204, b"")
    for tokens in (one, other):
        assert me(tokens["access"]).status_code == 401
        assert refreshed(tokens["refresh"]).status_code == 401
    assert not signed_in(browser)
    assert bystander.get(ME).status_code == 200
    assert me(log_in()["access"]).status_code == 200


def signed_in(browser: Client) -> bool:
    user = browser.get("/admin/").wsgi_request.user
    return user.is_authenticated


@pytest.mark.django_db(transaction=True)
def test_a_refresh_under_way_does_not_outlive_the_end_of_all_sessions():
    user = alice()
    for _ in range(5):
        refresh = log_in()["refresh"]

        def end():
            try:
                close_sessions(user)
            finally:
                connection.close()

        def renew(refresh=refresh):
            try:
                return refreshed(refresh)
            finally:
                connection.close()

        with ThreadPoolExecutor(2) as pool:
            ended, answer = pool.submit(end), pool.submit(renew)
        ended.result()
        if answer.result().status_code == 200:
            assert me(answer.result().json()["access"]).status_code == 401


PASSWORD_URL = "/api/v1/me/password/"


def test_changes_the_password_and_ends_all_other_sessions():
    user = alice()
    one, other = log_in(), log_in()
    browser = Client()
    browser.force_login(user)
    client = JsonClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {one['access']}")
    answer = client.post(PASSWORD_URL, {"old": PASSWORD, "new": "another horse, another battery"})
    assert answer.status_code == 200, answer.content
    for tokens in (one, other):
        assert me(tokens["access"]).status_code == 401
        assert refreshed(tokens["refresh"]).status_code == 401
    assert not signed_in(browser)
    assert me(answer.json()["access"]).status_code == 200
    assert refreshed(answer.json()["refresh"]).status_code == 200
    log_in(password="another horse, another battery")
    assert anonymous().post(LOGIN, {"email": user.email, "password": PASSWORD}).status_code == 401


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({}, "#/old"),
        ({"old": PASSWORD}, "#/new"),
        ({"old": "wrong", "new": "another horse, another battery"}, "#/old"),
        ({"old": PASSWORD + " ", "new": "another horse, another battery"}, "#/old"),
        ({"old": PASSWORD, "new": "short"}, "#/new"),
        ({"old": PASSWORD, "new": "password1234"}, "#/new"),
        ({"old": PASSWORD, "new": "alice@example.com"}, "#/new"),
        ({"old": PASSWORD, "new": 7}, "#/new"),
        ({"old": PASSWORD, "new": "x" * 1_001}, "#/new"),
        ({"old": PASSWORD, "new": "another horse, another battery", "user": 7}, "#/user"),
    ],
)
def test_refuses_an_odd_password_and_changes_nothing(given, pointer):
    client = client_of(alice())
    answer = client.post(PASSWORD_URL, given)
    assert answer.status_code == 400, answer.content
    assert pointer in {error["pointer"] for error in answer.json()["errors"]}
    assert client.get(ME).status_code == 200
    log_in()


def test_a_session_lasts_thirty_days_however_often_it_is_refreshed():
    alice()
    tokens = log_in()
    began = jwt.decode(tokens["refresh"], options={"verify_signature": False})["began"]
    end = datetime.fromtimestamp(began, UTC) + LONGEST_SESSION
    tokens = renew_session(tokens["refresh"], end - timedelta(seconds=1))
    assert jwt.decode(tokens["refresh"], options={"verify_signature": False})["began"] == began
    with pytest.raises(InvalidToken):
        renew_session(tokens["refresh"], end)
    assert me(tokens["access"]).status_code == 401


def test_signs_tokens_with_a_key_of_their_own():
    key = settings.SIMPLE_JWT["SIGNING_KEY"]
    assert key == sealing.derived(settings.SECRET_KEY, "access and refresh tokens")
    assert settings.SECRET_KEY not in key
    assert len(bytes.fromhex(key)) == 32
    assert sealing.derived(settings.SECRET_KEY, "something else") != key


def test_access_tokens_last_five_minutes_and_refresh_tokens_a_day():
    alice()
    for kind, lasts in (("access", 300), ("refresh", 86_400)):
        claims = jwt.decode(log_in()[kind], options={"verify_signature": False})
        assert claims["exp"] - claims["iat"] == lasts


def test_shuts_out_at_once_who_is_deactivated_or_removed_from_the_team():
    user = alice()
    client = client_of(user)
    assert client.get("/api/v1/monitors/").status_code == 200
    user.memberships.all().delete()
    assert client.get("/api/v1/monitors/").status_code == 403
    User.objects.update(is_active=False)
    assert client.get("/api/v1/monitors/").status_code == 401
    User.objects.update(is_active=True)
    assert client.get(ME).status_code == 200


def test_somebody_elses_session_is_no_session():
    """The caller's query asks for user and session together."""
    user, session = alice(), client_of(bob())._credentials["HTTP_AUTHORIZATION"][7:]
    claims = jwt.decode(session, options={"verify_signature": False})
    token = AccessToken.for_user(user)
    token["session"] = claims["session"]
    assert me(str(token)).status_code == 401


def test_ends_every_session_when_the_user_is_deleted():
    user = alice()
    tokens = log_in()
    user.delete()
    assert me(tokens["access"]).status_code == 401
    assert refreshed(tokens["refresh"]).status_code == 401
    assert anonymous().post(LOGOUT, {"refresh": tokens["refresh"]}).status_code == 204


def test_forgets_expired_tokens_at_the_next_login():
    user = alice()
    log_in()
    OutstandingToken.objects.update(expires_at="2020-01-01T00:00Z")
    log_in()
    assert OutstandingToken.objects.filter(user=user).count() == 1


def unsigned(claims: dict, algorithm: str | None) -> str:
    parts = ({"typ": "JWT", "alg": algorithm}, claims)
    return ".".join(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


def forgeries() -> dict[str, str]:
    """Tokens that look right and were not issued: by what is wrong with them."""
    user = bob()
    key = settings.SIMPLE_JWT["SIGNING_KEY"]
    good = jwt.decode(
        client_of(user)._credentials["HTTP_AUTHORIZATION"][7:], options={"verify_signature": False}
    )
    return {
        "nonsense": "nonsense",
        "three nonsenses": "a.b.c",
        "no signature": jwt.encode(good, None, algorithm="none"),
        "another key": jwt.encode(good, "another key, as long as one should be", algorithm="HS256"),
        "the session key": jwt.encode(good, settings.SECRET_KEY, algorithm="HS256"),
        "expired": jwt.encode(good | {"exp": 1}, key, algorithm="HS256"),
        "another audience": jwt.encode(good | {"aud": "elsewhere"}, key, algorithm="HS256"),
        "no audience": jwt.encode({n: v for n, v in good.items() if n != "aud"}, key, algorithm="HS256"),
        "another issuer": jwt.encode(good | {"iss": "elsewhere"}, key, algorithm="HS256"),
        "no issuer": jwt.encode({n: v for n, v in good.items() if n != "iss"}, key, algorithm="HS256"),
        "no end": jwt.encode({n: v for n, v in good.items() if n != "exp"}, key, algorithm="HS256"),
        "nobody": jwt.encode({n: v for n, v in good.items() if n != "user_id"}, key, algorithm="HS256"),
        "another password": jwt.encode(good | {"hash_password": "0" * 32}, key, algorithm="HS256"),
        "no password": jwt.encode(
            {n: v for n, v in good.items() if n != "hash_password"}, key, algorithm="HS256"
        ),
        "another HMAC": jwt.encode(good, key, algorithm="HS512"),
        # Our key as if it were a public one, which everybody has: an RSA or ES check would let anybody sign.
        "a signature of RSA": jwt.encode(good, rsa.generate_private_key(65537, 2048), algorithm="RS256"),
        "none under another name": unsigned(good, "NONE"),
        "no algorithm": unsigned(good, None),
        "the key in the header": jwt.encode(good, "x" * 64, headers={"jwk": {"kty": "oct", "k": "eHh4"}}),
        "somebody else's session": jwt.encode(good | {"user_id": str(alice().id)}, key, algorithm="HS256"),
        "no session": str(AccessToken.for_user(user)),
        "a refresh token": str(RefreshToken.for_user(user)),
    }


def test_refuses_forged_access_tokens():
    for flaw, token in forgeries().items():
        assert me(token).status_code == 401, flaw


def test_refuses_forged_refresh_tokens():
    for flaw, token in forgeries().items():
        assert refreshed(token).status_code == 401, flaw
        assert anonymous().post(LOGOUT, {"refresh": token}).status_code == 401, flaw


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer a b", "Basic YTpi", "Api-Key hm_x", "Bearer \xff"])
def test_refuses_odd_authorization_headers(header):
    client = JsonClient()
    client.credentials(HTTP_AUTHORIZATION=header)
    answer = client.get(ME)
    assert answer.status_code == 401
    assert answer["Content-Type"] == "application/problem+json"
