"""The cast of the tests. Alice owns the team, Ada administers, Bob responds, Vera views; Charlie owns another
team and is refused. Ask for the same person twice and you get the same row.

    def test_shows_nobody_elses_monitor():
        monitor = ...of the team acme()...
        assert client_of(charlie()).get(f"/api/v1/monitors/{monitor.id}/").status_code == 404
"""

from datetime import UTC, datetime
from functools import cache

from django.contrib.auth.hashers import make_password
from rest_framework.test import APIClient

from accounts.authentication import open_session
from accounts.models import Membership, Role, Scope, Team, User
from accounts.services import create_key

PASSWORD = "correct horse battery staple"


class JsonClient(APIClient):
    default_format = "json"


def acme() -> Team:
    return _team("acme")


def globex() -> Team:
    return _team("globex")


def alice(team: Team | None = None) -> User:
    return member("alice", Role.OWNER, team or acme())


def ada(team: Team | None = None) -> User:
    return member("ada", Role.ADMIN, team or acme())


def bob(team: Team | None = None) -> User:
    return member("bob", Role.RESPONDER, team or acme())


def vera(team: Team | None = None) -> User:
    return member("vera", Role.VIEWER, team or acme())


def charlie(team: Team | None = None) -> User:
    return member("charlie", Role.OWNER, team or globex())


def member(name: str, role: Role, team: Team) -> User:
    """The user <name>@example.com, on the team in this role, with the password `PASSWORD`."""
    user, _ = User.objects.get_or_create(
        email=f"{name}@example.com", defaults={"name": name.title(), "password": _hashed_password()}
    )
    Membership.objects.update_or_create(team=team, user=user, defaults={"role": role})
    return user


def client_of(user: User, team: Team | None = None) -> JsonClient:
    """An API client logged in with a real access token; `team` is sent as X-Team."""
    client = JsonClient()
    headers = {"HTTP_AUTHORIZATION": f"Bearer {open_session(user)['access']}"}
    if team:
        headers["HTTP_X_TEAM"] = team.slug
    client.credentials(**headers)
    return client


def anonymous() -> JsonClient:
    return JsonClient()


def _team(slug: str) -> Team:
    return Team.objects.get_or_create(slug=slug, defaults={"name": slug.title()})[0]


@cache
def _hashed_password() -> str:
    return make_password(PASSWORD)  # once a run: Argon2 is slow on purpose


def key_client(*scopes: str, team: Team | None = None, **made: object) -> JsonClient:
    """An API client with a key of the team (acme), made by an owner of it."""
    team = team or acme()
    maker = alice() if team == acme() else charlie(team)
    given = {"by": maker, "now": datetime(2026, 1, 1, tzinfo=UTC)} | made
    _, shown = create_key(team, "deploy", [Scope(scope) for scope in scopes], **given)  # type: ignore[arg-type]
    client = JsonClient()
    client.credentials(HTTP_AUTHORIZATION=f"Api-Key {shown}")
    return client
