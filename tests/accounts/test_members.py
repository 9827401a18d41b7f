"""Who is on a team as what: changing it, leaving, being removed, and the owner that a team keeps."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from django.db import connection
from django.test import Client

from accounts import services
from accounts.models import ApiKey, Invitation, Membership, Role, Scope, Team, User
from tests.support.people import acme, ada, alice, bob, charlie, client_of, globex, member, vera

pytestmark = pytest.mark.django_db

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def seat(user: User) -> str:
    return f"/api/v1/teams/{acme().id}/members/{user.id}/"


def role_of(user: User) -> str | None:
    return Membership.objects.filter(team=acme(), user=user).values_list("role", flat=True).first()


CAST = {"owner": alice, "admin": ada, "responder": bob, "viewer": vera}


def other(role: str) -> User:
    """Somebody else in this role; of owners there are then two."""
    alice()
    return member(f"other-{role}", Role(role), acme())


# --- roles ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    # who             of       to              may
    ("who", "before", "after", "status"),
    [
        ("owner",     "viewer",    "owner",     200),
        ("owner",     "owner",     "viewer",    200),
        ("owner",     "admin",     "responder", 200),
        ("admin",     "viewer",    "admin",     200),
        ("admin",     "admin",     "viewer",    200),
        ("admin",     "viewer",    "owner",     403),
        ("admin",     "owner",     "admin",     403),
        ("admin",     "owner",     "owner",     403),
        ("responder", "viewer",    "responder", 403),
        ("viewer",    "viewer",    "viewer",    403),
    ],
)  # fmt: skip
def test_lets_a_role_make_others_what_it_may(who, before, after, status):
    caller, target = CAST[who](), other(before)
    answer = client_of(caller).patch(seat(target), {"role": after})
    assert answer.status_code == status, answer.content
    assert role_of(target) == (after if status == 200 else before)
    if status == 200:
        assert answer.json() == {
            "id": target.id, "email": target.email, "name": target.name, "role": after,
            "joined_at": answer.json()["joined_at"],
        }  # fmt: skip


@pytest.mark.parametrize(("who", "after"), [("admin", "owner"), ("responder", "admin"), ("viewer", "owner")])
def test_lets_nobody_promote_themselves(who, after):
    alice()
    caller = CAST[who]()
    assert client_of(caller).patch(seat(caller), {"role": after}).status_code == 403
    assert role_of(caller) == who


def test_lets_people_step_down():
    alice(), ada()
    assert client_of(ada()).patch(seat(ada()), {"role": "viewer"}).status_code == 200


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({}, "#/role"),
        ({"role": "king"}, "#/role"),
        ({"role": None}, "#/role"),
        ({"role": ["owner"]}, "#/role"),
        ({"role": "viewer", "team": 7}, "#/team"),
        ({"role": "viewer", "is_superuser": True}, "#/is_superuser"),
    ],
)
def test_refuses_an_odd_role_and_says_where(given, pointer):
    alice()
    answer = client_of(alice()).patch(seat(bob()), given)
    assert answer.status_code == 400
    assert pointer in {error["pointer"] for error in answer.json()["errors"]}
    assert role_of(bob()) == "responder"


def test_changes_the_role_and_nothing_else():
    """Mass assignment: what is read-only is ignored, of the person and of the seat."""
    user = bob()
    sent = {
        "role": "admin",
        "email": "evil@example.com",
        "name": "Evil",
        "id": alice().id,
        "joined_at": "2001-01-01T00:00Z",
    }
    assert client_of(alice()).patch(seat(user), sent).status_code == 200
    was = Membership.objects.get(user=user)
    user.refresh_from_db()
    assert (user.email, user.name, was.role) == ("bob@example.com", "Bob", "admin")
    assert was.created_at.year > 2001


@pytest.mark.parametrize("verb", ["patch", "delete"])
def test_hides_members_that_are_not_there_and_teams_that_are_not_yours(verb):
    alice(), charlie()
    client = client_of(alice())
    urls = [f"/api/v1/teams/{acme().id}/members/{pk}/" for pk in (charlie().id, 2_000_000_000, 10**20)]
    urls += [f"/api/v1/teams/{pk}/members/{charlie().id}/" for pk in (globex().id, 2_000_000_000, 10**20)]
    for url in urls:
        assert getattr(client, verb)(url, {"role": "viewer"}).status_code == 404, url
    assert Membership.objects.get(user=charlie()).role == "owner"


# --- going ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    # who      whom           answer
    ("who", "whom", "status"),
    [
        ("owner",     "owner",     204),
        ("owner",     "viewer",    204),
        ("admin",     "admin",     204),
        ("admin",     "responder", 204),
        ("admin",     "owner",     403),
        ("responder", "viewer",    403),
        ("viewer",    "viewer",    403),
    ],
)  # fmt: skip
def test_lets_a_role_remove_whom_it_may(who, whom, status):
    caller, target = CAST[who](), other(whom)
    assert client_of(caller).delete(seat(target)).status_code == status
    assert role_of(target) == (None if status == 204 else whom)


@pytest.mark.parametrize("who", ["admin", "responder", "viewer"])
def test_lets_everybody_leave(who):
    alice()
    caller = CAST[who]()
    client = client_of(caller)
    assert client.delete(seat(caller)).status_code == 204
    assert client.get("/api/v1/teams/").json()["results"] == []
    assert client.delete(seat(caller)).status_code == 404


def test_shuts_out_at_once_who_is_removed():
    alice()
    client = client_of(ada(), acme())
    assert client.get("/api/v1/monitors/").status_code == 200
    assert client_of(alice()).delete(seat(ada())).status_code == 204
    assert Membership.objects.filter(team=acme()).count() == 1
    assert client.get("/api/v1/monitors/").status_code == 404
    assert client.get("/api/v1/me/").status_code == 200  # the session is theirs, not the team's


def test_revokes_the_keys_of_who_is_removed_there_and_nowhere_else():
    alice(), member("ada", Role.ADMIN, globex())
    give = {"scopes": [Scope.READ], "now": NOW}
    theirs, _ = services.create_key(acme(), "theirs", by=ada(), **give)
    ours, _ = services.create_key(acme(), "ours", by=alice(), **give)
    elsewhere, _ = services.create_key(globex(), "elsewhere", by=ada(), **give)
    assert client_of(alice()).delete(seat(ada())).status_code == 204
    assert set(ApiKey.objects.filter(revoked_at=None)) == {ours, elsewhere}
    assert ApiKey.objects.get(revoked_at__isnull=False) == theirs


def test_leaves_their_keys_where_the_team_says_so():
    services.create_key(acme(), "CI", [Scope.READ], by=(alice(), ada())[1], now=NOW)
    client = client_of(alice())
    assert client.delete(f"{seat(ada())}?keep_keys=yes").status_code == 400
    assert client.delete(f"{seat(ada())}?keep_keys=true").status_code == 204
    assert ApiKey.objects.get().revoked_at is None


@pytest.mark.parametrize(
    # becomes    their invitations of a viewer and an owner that stand
    ("after", "standing"),
    [("admin", ["viewer"]), ("responder", []), (None, [])],
)
def test_withdraws_the_invitations_they_could_not_make_any_more(after, standing):
    """They would be a way back, by another address."""
    alice()
    second = member("second", Role.OWNER, acme())
    for role in ("viewer", "owner"):
        services.invite(acme(), f"{role}@example.com", Role(role), by=second, now=NOW)
    services.invite(acme(), "other@example.com", Role.OWNER, by=alice(), now=NOW)
    if after:
        services.set_role(acme(), second.id, Role(after), by=alice())
    else:
        services.remove_member(acme(), second.id, by=alice(), now=NOW)
    assert sorted(Invitation.objects.filter(invited_by=second).values_list("role", flat=True)) == standing
    assert Invitation.objects.filter(invited_by=alice()).count() == 1


# --- the last owner -----------------------------------------------------------------------------------------------


def test_keeps_the_last_owner():
    client = client_of(alice())
    ada()
    for answer in (client.delete(seat(alice())), client.patch(seat(alice()), {"role": "admin"})):
        assert (answer.status_code, answer["Content-Type"]) == (409, "application/problem+json")
        assert "owner" in answer.json()["detail"]
    assert role_of(alice()) == "owner"
    assert client.patch(seat(alice()), {"role": "owner"}).status_code == 200
    assert client.patch(seat(ada()), {"role": "owner"}).status_code == 200
    assert client.delete(seat(alice())).status_code == 204


def test_counts_no_owner_who_cannot_log_in():
    member("gone", Role.OWNER, acme())
    User.objects.filter(email="gone@example.com").update(is_active=False)
    assert client_of(alice()).delete(seat(alice())).status_code == 409


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("how", ["leave", "step down", "throw each other out"])
def test_of_two_owners_who_go_at_once_one_stays(how):
    one, two = alice(), member("second", Role.OWNER, acme())
    team, start = acme(), Barrier(2)

    def go(user: User, whom: User) -> bool:
        try:
            start.wait(10)
            if how == "step down":
                services.set_role(team, user.id, Role.VIEWER, by=user)
            else:
                services.remove_member(
                    team, whom.id if how.startswith("throw") else user.id, by=user, now=NOW
                )
        except (services.LastOwner, services.RoleTooLow, Membership.DoesNotExist):
            return False
        finally:
            connection.close()
        return True

    for _ in range(10):
        for user in (one, two):
            member(user.email.split("@")[0], Role.OWNER, team)
        with ThreadPoolExecutor(2) as pool:
            done = list(pool.map(go, (one, two), (two, one)))
        assert sorted(done) == [False, True]
        assert Membership.objects.filter(team=team, role=Role.OWNER).count() == 1


# --- teams --------------------------------------------------------------------------------------------------------


def test_lets_superusers_make_teams_and_own_them():
    User.objects.filter(pk=alice().pk).update(is_superuser=True)
    client = client_of(alice())
    answer = client.post("/api/v1/teams/", {"name": "Shop & Warehouse"})
    assert answer.status_code == 201, answer.content
    made = Team.objects.get(slug="shop-warehouse")
    assert answer.json() == {
        "id": made.id, "name": "Shop & Warehouse", "slug": "shop-warehouse", "role": "owner",
        "created_at": answer.json()["created_at"],
    }  # fmt: skip
    assert Membership.objects.get(team=made).user == alice()
    assert client.post("/api/v1/teams/", {"name": "X", "slug": "chosen"}).json()["slug"] == "chosen"


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({}, "#/name"),
        ({"name": "a\u2028b", "slug": "x"}, "#/name"),
        ({"name": "Acme"}, "#/slug"),  # taken
        ({"name": "店"}, "#/slug"),  # nothing left to make a slug of
        ({"name": "X", "slug": "a b"}, "#/slug"),
        ({"name": "X", "slug": 7}, "#/slug"),
        ({"name": 7}, "#/name"),
        ({"name": "X", "members": []}, "#/members"),
    ],
)
def test_refuses_an_odd_team_and_says_where(given, pointer):
    User.objects.filter(pk=alice().pk).update(is_superuser=True)
    answer = client_of(alice()).post("/api/v1/teams/", given)
    assert answer.status_code == 400, answer.content
    assert pointer in {error["pointer"] for error in answer.json()["errors"]}
    assert client_of(alice()).post("/api/v1/teams/", [1]).status_code == 400


@pytest.mark.parametrize("person", [alice, ada, bob, vera])
def test_lets_nobody_else_make_teams(person):
    assert client_of(person()).post("/api/v1/teams/", {"name": "Mine"}).status_code == 403
    assert Team.objects.count() == 1


@pytest.mark.parametrize(
    ("person", "status"), [(alice, 200), (ada, 200), (bob, 403), (vera, 403), (charlie, 404)]
)
def test_takes_an_admin_to_rename_a_team(person, status):
    team, sent = acme(), {"name": "Acme Ltd", "slug": "evil", "role": "owner", "id": 7}
    answer = client_of(person()).patch(f"/api/v1/teams/{team.id}/", sent)
    assert answer.status_code == status
    team.refresh_from_db()
    assert (team.name, team.slug) == ("Acme Ltd" if status == 200 else "Acme", "acme")


def test_reads_the_role_anew_under_the_lock():
    """What the view saw a moment ago is not what counts."""
    alice(), ada()
    member("ada", Role.VIEWER, acme())
    stale = User.objects.get(email="ada@example.com")
    with pytest.raises(services.RoleTooLow):
        services.invite(acme(), "x@example.com", Role.VIEWER, by=stale, now=NOW)
    with pytest.raises(services.RoleTooLow):
        services.create_key(acme(), "x", [Scope.READ], by=stale, now=NOW + timedelta(days=1))
    Membership.objects.filter(user=stale).delete()
    with pytest.raises(Membership.DoesNotExist):
        services.create_key(acme(), "x", [Scope.READ], by=stale, now=NOW)


# --- in the console -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"role": "admin"}, {"DELETE": "on"}])
@pytest.mark.parametrize("other_owner", [False, True])
def test_the_console_keeps_the_last_owner_too(change, other_owner):
    User.objects.filter(pk=alice().pk).update(is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(alice())
    if other_owner:
        member("second", Role.OWNER, acme())
    seats = list(Membership.objects.filter(team=acme()).order_by("id"))
    given = {"name": "Acme", "slug": "acme", "memberships-TOTAL_FORMS": len(seats)}
    given |= {"memberships-INITIAL_FORMS": len(seats)}
    for n, each in enumerate(seats):
        row = {"id": each.pk, "team": each.team_id, "user": each.user_id, "role": each.role}
        given |= {
            f"memberships-{n}-{name}": value for name, value in (row | (change if n == 0 else {})).items()
        }
    answer = client.post(f"/admin/accounts/team/{acme().pk}/change/", given)
    assert answer.status_code == (302 if other_owner else 200)
    assert Membership.objects.filter(team=acme(), role=Role.OWNER).count() == 1
    if not other_owner:
        assert "A team keeps an owner" in answer.content.decode()
