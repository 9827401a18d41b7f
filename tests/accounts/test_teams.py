"""Who you are, which teams you are on, and what a view of a team's objects lets you do."""

import pytest
from django.urls import include, path
from rest_framework import viewsets
from rest_framework.decorators import action
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter

from accounts.models import Membership, Role, User
from accounts.scoping import TeamScoped
from healthmon.lib.api import StrictModelSerializer
from tests.support.people import acme, ada, alice, anonymous, bob, charlie, client_of, globex, member, vera

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


class SeatSerializer(StrictModelSerializer):
    class Meta:
        model = Membership
        fields = ["id", "role", "user"]


class SeatViewSet(TeamScoped, viewsets.ModelViewSet):
    """A toy: the memberships of a team, as if they were monitors."""

    queryset = Membership.objects.all()
    serializer_class = SeatSerializer
    minimum_role = {"touch": Role.RESPONDER, "destroy": Role.OWNER}

    def perform_create(self, serializer):
        serializer.save(team=self.team)

    @action(detail=True, methods=["post"])
    def touch(self, request, pk):
        self.get_object()
        return Response(status=204)


router = SimpleRouter()
router.register("seats", SeatViewSet)
urlpatterns = [path("api/v1/", include("accounts.urls")), path("api/v1/", include(router.urls))]


def newcomer() -> User:
    return User.objects.get_or_create(email="newcomer@example.com")[0]


def test_tells_who_you_are():
    user, team = alice(), acme()
    member("alice", Role.VIEWER, globex())
    answer = client_of(user).get("/api/v1/me/").json()
    assert {key: answer[key] for key in ("id", "email", "name")} == {
        "id": user.id, "email": "alice@example.com", "name": "Alice"
    }  # fmt: skip
    assert [(each["slug"], each["role"]) for each in answer["teams"]] == [
        ("acme", "owner"),
        ("globex", "viewer"),
    ]
    assert answer["teams"][0]["id"] == team.id


def test_lists_the_teams_you_are_on_and_no_others():
    charlie()
    answer = client_of(alice()).get("/api/v1/teams/").json()
    assert [team["slug"] for team in answer["results"]] == ["acme"]
    assert (answer["next"], answer["previous"]) == (None, None)


def test_lists_who_is_on_a_team():
    everyone = [alice(), bob(), vera()]
    charlie()
    answer = client_of(vera()).get(f"/api/v1/teams/{acme().id}/members/").json()
    assert [one["id"] for one in answer["results"]] == [user.id for user in everyone]
    assert [one["role"] for one in answer["results"]] == ["owner", "responder", "viewer"]
    assert set(answer["results"][0]) == {"id", "email", "name", "role", "joined_at"}


@pytest.mark.parametrize("tail", ["", "members/"])
def test_hides_a_foreign_team_like_one_that_does_not_exist(tail):
    foreign = client_of(charlie()).get(f"/api/v1/teams/{acme().id}/{tail}")
    missing = client_of(charlie()).get(f"/api/v1/teams/2000000000/{tail}")
    beyond = client_of(charlie()).get(f"/api/v1/teams/99999999999999999999/{tail}")
    assert (foreign.status_code, missing.status_code, beyond.status_code) == (404, 404, 404)
    said = [answer.json() | {"request_id": ""} for answer in (foreign, missing, beyond)]
    assert said[0] == said[1] == said[2]


@pytest.mark.parametrize(
    "url", ["/api/v1/me/", "/api/v1/teams/", "/api/v1/teams/1/", "/api/v1/teams/1/members/", "/api/v1/seats/"]
)
@pytest.mark.parametrize("verb", ["get", "post", "put", "patch", "delete", "options"])
def test_lets_nobody_in_who_has_not_logged_in(url, verb):
    answer = getattr(anonymous(), verb)(url)
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith("Bearer")


# --- TeamScoped -----------------------------------------------------------------------------------------


def seats(client) -> list[int]:
    answer = client.get("/api/v1/seats/")
    assert answer.status_code == 200, answer.json()
    return [row["user"] for row in answer.json()["results"]]


def test_takes_the_only_team_when_none_is_named():
    charlie()
    assert seats(client_of(alice())) == [alice().id]


def test_takes_the_team_that_is_named():
    member("alice", Role.VIEWER, globex())
    alice(), charlie()
    assert seats(client_of(alice(), globex())) == [charlie().id, alice().id]


def test_asks_those_on_several_teams_for_the_header():
    alice(), alice(globex())
    answer = client_of(alice()).get("/api/v1/seats/")
    assert answer.status_code == 400
    assert "X-Team" in answer.json()["detail"]


def test_hides_a_foreign_team_named_in_the_header():
    client = client_of(charlie())
    for slug in (acme().slug, "no-such-team", "ACME", "acme,globex", "*", "' OR 1=1 --", "\xe9"):
        answer = client.get("/api/v1/seats/", headers={"X-Team": slug})
        assert answer.status_code == 404
        assert answer.json()["detail"] == "No such team."


def test_tells_those_on_no_team():
    assert client_of(newcomer()).get("/api/v1/seats/").status_code == 403


@pytest.mark.parametrize("verb", ["get", "put", "patch", "delete"])
def test_hides_a_foreign_object(verb):
    alice()
    foreign = Membership.objects.get(user=alice())
    answer = getattr(client_of(charlie()), verb)(f"/api/v1/seats/{foreign.id}/")
    assert answer.status_code == 404
    assert client_of(charlie()).post(f"/api/v1/seats/{foreign.id}/touch/").status_code == 404
    assert Membership.objects.filter(pk=foreign.pk).exists()


@pytest.mark.parametrize(
    # may:  read   touch  write  delete
    ("person", "may"),
    [
        (vera, (True, False, False, False)),
        (bob, (True, True, False, False)),
        (ada, (True, True, True, False)),
        (alice, (True, True, True, True)),
    ],
)
def test_lets_a_role_do_what_it_may(person, may):
    client = client_of(person())
    row = f"/api/v1/seats/{Membership.objects.get(user=person()).id}/"
    answers = [
        client.get(row),
        client.post(f"{row}touch/"),
        client.patch(row, {"role": person().memberships.get().role}),
        client.delete(row),
    ]
    assert [answer.status_code != 403 for answer in answers] == list(may)
    assert all(
        answer["Content-Type"] == "application/problem+json"
        for answer in answers
        if answer.status_code == 403
    )


def test_refuses_a_viewer_before_looking_at_what_was_sent():
    answer = client_of(vera()).post("/api/v1/seats/", "{", content_type="application/json")
    assert answer.status_code == 403


def test_looks_up_the_team_in_one_query(django_assert_num_queries):
    client = client_of(alice())
    with django_assert_num_queries(3):  # the caller, the team with the role, the rows
        client.get("/api/v1/seats/")
