"""The people's part of the admin console."""

import pytest
from django.contrib import admin
from django.test import Client

from accounts.models import Membership, Team, User
from tests.support.people import PASSWORD, acme, alice, bob

pytestmark = pytest.mark.django_db


def console() -> Client:
    user = alice()
    User.objects.filter(pk=user.pk).update(is_staff=True, is_superuser=True)
    client = Client()
    answer = client.get("/admin/", follow=True)
    assert answer.redirect_chain[-1][0] == "/account/login/?next=%2Fadmin%2F"
    answer = client.post(
        answer.redirect_chain[-1][0], {"login": "Alice@Example.COM", "password": PASSWORD, "next": "/admin/"}
    )
    assert answer["Location"] == "/admin/", answer.content
    return client


def test_keeps_those_out_who_are_no_staff():
    client = Client()
    client.force_login(bob())
    assert client.get("/admin/").status_code == 302


@pytest.mark.parametrize("model", [User, Team])
@pytest.mark.parametrize("page", ["", "add/", "{pk}/change/", "{pk}/history/", "{pk}/delete/"])
def test_shows_every_page(model, page):
    client = console()
    User.objects.create_superuser("second@example.com")  # the only one could not be deleted
    url = f"/admin/accounts/{model._meta.model_name}/{page.format(pk=model.objects.earliest('pk').pk)}"
    assert client.get(url).status_code == 200


def test_shows_the_schedule_and_lets_nobody_change_it():
    client = console()
    assert client.get("/admin/django_celery_beat/periodictask/").status_code == 200
    assert client.get("/admin/django_celery_beat/periodictask/add/").status_code == 403


def test_hides_tokens_and_groups():
    names = {model._meta.label for model in admin.site._registry}
    assert not names & {"token_blacklist.OutstandingToken", "token_blacklist.BlacklistedToken", "auth.Group"}


def form(team: Team, **fields: str) -> dict[str, str]:
    rows = {
        "memberships-TOTAL_FORMS": "1",
        "memberships-INITIAL_FORMS": "0",
        "memberships-0-team": str(team.pk),
        "memberships-0-role": "viewer",
    }
    return rows | fields


def test_adds_a_person_to_a_team_with_an_email_in_small_letters():
    client = console()
    password = {"usable_password": "true", "password1": PASSWORD, "password2": PASSWORD}
    given = form(acme(), email="Dora@Example.com", name="Dora", **password)
    answer = client.post("/admin/accounts/user/add/", given)
    assert answer.status_code == 302, answer.context["errors"]
    dora = User.objects.get(email="dora@example.com")
    assert dora.check_password(PASSWORD)
    assert Membership.objects.get(user=dora).role == "viewer"


def test_refuses_a_second_account_for_the_same_mailbox():
    client = console()
    given = form(acme(), email="ALICE@example.com", name="", usable_password="false")
    answer = client.post("/admin/accounts/user/add/", given)
    assert answer.status_code == 200
    assert "email" in answer.context["adminform"].form.errors


def test_changes_a_password():
    client, dora = console(), bob()
    new = {
        "password1": "another long password",
        "password2": "another long password",
        "usable_password": "true",
    }
    assert client.get(f"/admin/accounts/user/{dora.pk}/password/").status_code == 200
    assert client.post(f"/admin/accounts/user/{dora.pk}/password/", new).status_code == 302
    dora.refresh_from_db()
    assert dora.check_password("another long password")
