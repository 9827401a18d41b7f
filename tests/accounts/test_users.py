"""Accounts, as superusers see them over the API and in the console."""

import pytest
from allauth.mfa.models import Authenticator
from django.test import Client

from accounts.models import User
from tests.support.people import PASSWORD, JsonClient, alice, client_of, vera
from tests.support.racing import race

URL = "/api/v1/users/"
pytestmark = pytest.mark.django_db


@pytest.fixture
def root() -> JsonClient:
    return client_of(User.objects.create_superuser("root@example.com", PASSWORD))


def at(user: User) -> str:
    return f"{URL}{user.pk}/"


def test_makes_an_account_that_can_log_in(root):
    given = {"email": "New@Example.com", "name": "New", "password": "a long enough password"}
    made = root.post(URL, given)
    assert made.status_code == 201
    shown = made.json()
    assert "password" not in shown
    assert (shown["email"], shown["is_active"], shown["is_staff"], shown["is_superuser"]) == (
        "new@example.com", True, False, False,
    )  # fmt: skip
    door = {"email": "new@example.com", "password": "a long enough password"}
    assert JsonClient().post("/api/v1/auth/token/", door).status_code == 200


def test_an_account_without_a_password_cannot_log_in_with_one(root):
    root.post(URL, {"email": "new@example.com"})
    assert not User.objects.get(email="new@example.com").has_usable_password()


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({}, "#/email"),
        ({"email": "no address"}, "#/email"),
        ({"email": "ALICE@example.com"}, "#/email"),
        ({"email": "b@example.com", "password": "short"}, "#/password"),
        ({"email": "b@example.com", "name": "two\nlines"}, "#/name"),
        ({"email": "b@example.com", "sessions_ended": 0}, "#/sessions_ended"),
    ],
)
def test_refuses_and_names_the_field(root, given, pointer):
    alice()
    before = User.objects.count()
    answer = root.post(URL, given)
    assert answer.status_code == 400
    assert [error["pointer"] for error in answer.json()["errors"]][0] == pointer
    assert User.objects.count() == before


def test_lists_and_finds(root):
    alice(), vera()
    assert [row["email"] for row in root.get(URL).json()["results"]] == [
        "root@example.com", "alice@example.com", "vera@example.com",
    ]  # fmt: skip
    assert len(root.get(f"{URL}?email=VERA@example.com").json()["results"]) == 1
    assert len(root.get(f"{URL}?is_superuser=true").json()["results"]) == 1


def test_who_is_deactivated_is_out_at_once_and_stays_out(root):
    person, browser = client_of(alice()), Client()
    browser.force_login(alice(), "django.contrib.auth.backends.ModelBackend")
    assert person.get("/api/v1/me/").status_code == 200
    assert root.patch(at(alice()), {"is_active": False}).status_code == 200
    assert person.get("/api/v1/me/").status_code == 401
    assert browser.get("/account/").status_code == 302
    # Active again, they log in again: what was open then is no way in.
    root.patch(at(alice()), {"is_active": True})
    assert person.get("/api/v1/me/").status_code == 401
    assert browser.get("/account/").status_code == 302


def test_a_new_password_ends_the_sessions_of_the_old_one(root):
    person = client_of(alice())
    assert root.patch(at(alice()), {"password": "another long password"}).status_code == 200
    assert person.get("/api/v1/me/").status_code == 401
    door = {"email": "alice@example.com", "password": "another long password"}
    assert JsonClient().post("/api/v1/auth/token/", door).status_code == 200


@pytest.mark.parametrize("change", [{"is_active": False}, {"is_superuser": False}])
def test_somebody_has_to_run_it(root, change):
    only = User.objects.get(email="root@example.com")
    assert root.patch(at(only), change).status_code == 409
    User.objects.create_superuser("second@example.com", PASSWORD)
    assert root.patch(at(only), change).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_of_two_last_superusers_who_go_at_once_one_stays():
    two = [User.objects.create_superuser(f"{name}@example.com", PASSWORD) for name in ("one", "two")]
    clients = [client_of(user) for user in two]
    deeds = [
        lambda client=client, user=user: client.patch(at(user), {"is_superuser": False}).status_code
        for client, user in zip(clients, two, strict=True)
    ]
    assert sorted(race(*deeds)) == [200, 409]
    assert User.objects.filter(is_superuser=True).count() == 1


def test_the_console_keeps_the_last_superuser_too(root):
    only = User.objects.get(email="root@example.com")
    console = Client()
    console.force_login(only, "django.contrib.auth.backends.ModelBackend")
    page = f"/admin/accounts/user/{only.pk}/"
    rows = {"memberships-TOTAL_FORMS": 0, "memberships-INITIAL_FORMS": 0}
    answer = console.post(f"{page}change/", {"email": only.email, "is_staff": "on", **rows})
    assert answer.status_code == 200
    assert "Somebody has to run this healthmon" in answer.content.decode()
    only.refresh_from_db()
    assert only.is_superuser and only.is_active
    assert console.post(f"{page}delete/", {"post": "yes"}).status_code == 403
    assert User.objects.filter(pk=only.pk).exists()


def test_takes_second_factors_away_from_who_has_lost_theirs(root):
    person = client_of(alice())
    Authenticator.objects.create(user=alice(), type=Authenticator.Type.TOTP, data={"secret": "sealed"})
    assert root.get(at(alice())).json()["second_factor"] is True
    answer = root.post(f"{at(alice())}take-second-factors-away/")
    assert (answer.status_code, answer.json()["second_factor"]) == (200, False)
    assert person.get("/api/v1/me/").status_code == 401
