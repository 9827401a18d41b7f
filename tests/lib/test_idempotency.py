"""What an Idempotency-Key holds when the view breaks in the middle, on a toy view."""

import pytest
from django.db import transaction
from django.urls import path
from rest_framework.exceptions import ValidationError
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.idempotency import RetrySafe
from accounts.models import KeptAnswer, Team
from healthmon.lib.api import Conflict, not_found, server_error
from tests.support.people import ada, client_of

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

URL = "/api/v1/toy/"
KEY = {"HTTP_IDEMPOTENCY_KEY": "k"}
BREAKS = {
    "bug": ZeroDivisionError("secret"),
    "conflict": Conflict("Look again."),
    "invalid": ValidationError("No."),
}
fate = {"is": ""}


class Toy(RetrySafe):
    permission_classes = [IsAuthenticated]

    def post(self, request: Request) -> Response:
        Team.objects.create(name="Toy", slug=f"toy-{Team.objects.count()}")
        if fate["is"]:
            raise BREAKS[fate["is"]]
        return Response({"n": 1.0, "none": None}, status=201, headers={"X-Own": "yes"})

    def get(self, request: Request) -> Response:
        return Response({})


urlpatterns = [path("api/v1/toy/", Toy.as_view())]
handler404, handler500 = not_found, server_error


@pytest.fixture
def client():
    client = client_of(ada())
    client.raise_request_exception = False
    fate["is"] = ""
    yield client
    fate["is"] = ""


def toys() -> int:
    return Team.objects.filter(name="Toy").count()


@pytest.mark.parametrize(
    # it breaks by   status  is kept, so that another try gets it again
    ("by", "status", "kept"),
    [("bug", 500, False), ("conflict", 409, False), ("invalid", 400, True)],
)
def test_a_refusal_undoes_the_work(client, by, status, kept):
    fate["is"] = by
    answer = client.post(URL, {}, **KEY)
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json")
    assert toys() == 0
    assert KeptAnswer.objects.exists() is kept
    fate["is"] = ""
    again = client.post(URL, {}, **KEY)
    assert again.status_code == (status if kept else 201)
    assert again.get("Idempotency-Replayed") == ("true" if kept else None)
    assert toys() == (0 if kept else 1)


def test_the_work_and_its_answer_are_undone_together(client):
    with transaction.atomic():
        assert client.post(URL, {}, **KEY).status_code == 201
        assert (toys(), KeptAnswer.objects.count()) == (1, 1)
        transaction.set_rollback(True)  # killed before the commit
    assert (toys(), KeptAnswer.objects.count()) == (0, 0)
    assert client.post(URL, {}, **KEY).status_code == 201
    assert toys() == 1


def test_gives_status_body_and_headers_again(client):
    first, again = (client.post(URL, {}, **KEY) for _ in range(2))
    assert first.content == again.content == b'{"n":1.0,"none":null}'
    assert (again.status_code, again["X-Own"], again["Content-Type"]) == (201, "yes", "application/json")


def test_says_nothing_to_a_get(client):
    assert client.get(URL, **KEY).status_code == 200
    assert not KeptAnswer.objects.exists()


def test_knows_who_it_is_first():
    client = client_of(ada())
    client.credentials()
    assert client.post(URL, {}, **KEY).status_code == 401
