import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection

from accounts.models import Membership, Role, User
from accounts.services import create_first_owner
from tests.support.people import alice, anonymous

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def bootstrap() -> dict:
    said = StringIO()
    call_command("bootstrap", stdout=said)
    assert said.getvalue().count("\n") == 1
    return json.loads(said.getvalue())


@pytest.mark.django_db
def test_creates_the_first_team_and_an_owner_who_can_log_in():
    first = bootstrap()
    assert (first["email"], first["created"]) == ("admin@healthmon.local", True)
    owner = User.objects.get()
    assert owner.is_superuser
    assert owner.is_staff
    membership = Membership.objects.get()
    assert (membership.role, membership.team.slug, membership.team.name) == (Role.OWNER, "default", "Default")
    credentials = {"email": first["email"], "password": first["password"]}
    assert anonymous().post("/api/v1/auth/token/", credentials).status_code == 200


@pytest.mark.django_db
def test_takes_the_email_and_password_of_the_settings(settings):
    settings.HEALTHMON_ADMIN_EMAIL = "Root@Example.com"
    settings.HEALTHMON_ADMIN_PASSWORD = "chosen by hand"
    assert bootstrap() == {"email": "root@example.com", "password": None, "created": True}
    assert User.objects.get().check_password("chosen by hand")


@pytest.mark.django_db
def test_changes_nothing_the_second_time():
    first = bootstrap()
    assert bootstrap() == {"email": first["email"], "password": None, "created": False}
    assert User.objects.get().check_password(first["password"])


@pytest.mark.django_db
def test_leaves_an_installation_with_users_alone():
    alice()
    assert bootstrap() == {"email": "alice@example.com", "password": None, "created": False}
    assert User.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_creates_one_owner_when_started_many_times_at_once():
    def create(_):
        try:
            return create_first_owner("root@example.com", "", now=NOW).created
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(create, range(4))) == [False, False, False, True]
    assert User.objects.count() == Membership.objects.count() == 1
