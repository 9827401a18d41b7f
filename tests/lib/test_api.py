"""What the API takes, what it refuses and how it says so; on a toy view, without a team or a monitor."""

import json
from base64 import urlsafe_b64encode
from datetime import timedelta

import pytest
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.test import Client
from django.urls import path
from django.views.generic import RedirectView
from rest_framework import serializers
from rest_framework.exceptions import Throttled
from rest_framework.generics import ListAPIView
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.models import User
from healthmon.lib.api import Conflict, StrictModelSerializer, StrictSerializer, not_found, server_error
from tests.support.people import JsonClient, alice, client_of

pytestmark = pytest.mark.urls(__name__)

BREAKS = {
    "gone": Http404("No Monitor matches the given query."),
    "forbidden": PermissionDenied("not you"),
    "throttled": Throttled(wait=1.5),
    "conflict": Conflict("It is paused."),
    "bug": ZeroDivisionError("secret"),
}


class Header(StrictSerializer):
    name = serializers.CharField(max_length=5)


class Toy(StrictSerializer):
    id = serializers.IntegerField(read_only=True)
    name = serializers.CharField(required=False)
    headers = Header(many=True, required=False)
    tags = serializers.ListField(child=serializers.IntegerField(), required=False)
    anything = serializers.JSONField(required=False)

    def validate_name(self, name):
        if name == "taken":
            raise serializers.ValidationError(["There is one already.", "Take another."])
        return name

    def validate(self, given):
        if given.get("name") == "contradictory":
            raise serializers.ValidationError("This contradicts itself.")
        return given


class ToyView(APIView):
    authentication_classes = permission_classes = ()

    def get(self, request):
        raise BREAKS[request.query_params["break"]]

    def post(self, request):
        serializer = Toy(data=request.data)
        serializer.is_valid(raise_exception=True)
        return Response(serializer.validated_data)


class UserSerializer(StrictModelSerializer):
    class Meta:
        model = User
        fields = ["id", "name"]


class UserList(ListAPIView):
    authentication_classes = permission_classes = ()
    serializer_class = UserSerializer

    def get_queryset(self):
        order = self.request.query_params.get("order")
        return User.objects.order_by(*order.split(",")) if order else User.objects.all()


class ClosedView(APIView):
    def get(self, request):
        raise AssertionError("nobody gets here")


urlpatterns = [
    path("api/v1/toy/", ToyView.as_view()),
    path("api/v1/users/", UserList.as_view()),
    path("api/v1/closed/", ClosedView.as_view()),
    path("", RedirectView.as_view(url="/"), name="account_home"),  # where the pages of errors lead
]
handler404, handler500 = not_found, server_error


def post(body, content_type="application/json"):
    body = body if isinstance(body, str | bytes) else json.dumps(body)
    return JsonClient().post("/api/v1/toy/", body, content_type=content_type)


def assert_problem(answer, status, title) -> dict:
    assert answer.status_code == status
    assert answer["Content-Type"] == "application/problem+json"
    body = json.loads(answer.content)
    assert set(body) == {"type", "title", "status", "detail", "errors", "request_id"}
    assert (body["type"], body["title"], body["status"]) == ("about:blank", title, status)
    assert body["detail"]
    return body


# --- how it says no ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    # given                                       pointers
    ("given", "pointers"),
    [
        ({"nam": "x"}, ["#/nam"]),
        ({"nam": "x", "tags": "y", "zeta": 1}, ["#/tags", "#/nam", "#/zeta"]),
        ({"name": "taken"}, ["#/name", "#/name"]),
        ({"name": "contradictory"}, ["#"]),
        ({"tags": [1, "x", 3, None]}, ["#/tags/1", "#/tags/3"]),
        ({"headers": [{"name": "ok"}, {"name": "too long"}, {}]}, ["#/headers/1/name", "#/headers/2/name"]),
        ({"headers": [{"name": "ok", "value": 1}]}, ["#/headers/0/value"]),
        ({"headers": {}}, ["#/headers"]),
        ({"headers": ["x"]}, ["#/headers/0"]),
        ({"a/b~c d%é": 1}, ["#/a~1b~0c%20d%25%C3%A9"]),
        ({"": 1}, ["#/"]),
        ([], ["#"]),
        ([{}], ["#"]),
        (None, ["#"]),
        ("text", ["#"]),
        (7, ["#"]),
        (True, ["#"]),
    ],
)
def test_points_at_what_is_wrong(given, pointers):
    body = assert_problem(
        post(given if not isinstance(given, str) else json.dumps(given)), 400, "Bad Request"
    )
    assert [error["pointer"] for error in body["errors"]] == pointers
    assert all(set(error) == {"pointer", "detail"} for error in body["errors"])


def test_says_the_error_of_the_whole_in_the_detail():
    assert post({"name": "contradictory"}).json()["detail"] == "This contradicts itself."


def test_lists_no_more_errors_than_a_full_bulk_request_can_have():
    assert len(post({f"field {n}": n for n in range(3_000)}).json()["errors"]) == 1_000


def test_ignores_what_may_be_read_but_not_written():
    assert post({"id": 7, "name": "x"}).json() == {"name": "x"}


@pytest.mark.parametrize(
    ("broken", "status", "title", "detail"),
    [
        ("gone", 404, "Not Found", "No Monitor matches the given query."),
        ("forbidden", 403, "Forbidden", "not you"),
        ("conflict", 409, "Conflict", "It is paused."),
        ("throttled", 429, "Too Many Requests", "Request was throttled. Expected available in 2 seconds."),
    ],
)
def test_answers_exceptions_with_problems(broken, status, title, detail):
    answer = JsonClient().get(f"/api/v1/toy/?break={broken}")
    assert assert_problem(answer, status, title)["detail"] == detail
    assert answer.get("Retry-After") == ("2" if broken == "throttled" else None)


def test_names_the_methods_there_are():
    answer = JsonClient().delete("/api/v1/toy/")
    assert_problem(answer, 405, "Method Not Allowed")
    assert {"GET", "POST"} <= set(answer["Allow"].split(", "))


def test_asks_for_a_login():
    answer = JsonClient().get("/api/v1/closed/")
    assert_problem(answer, 401, "Unauthorized")
    assert answer["WWW-Authenticate"] == 'Bearer realm="api", Api-Key realm="api"'


def test_answers_in_json_or_not_at_all():
    assert_problem(JsonClient().get("/api/v1/closed/", headers={"Accept": "text/csv"}), 406, "Not Acceptable")


def test_tells_nothing_of_a_bug_but_that_it_was_one():
    answer = Client(raise_request_exception=False).get("/api/v1/toy/?break=bug")
    assert_problem(answer, 500, "Internal Server Error")
    assert b"secret" not in answer.content


@pytest.mark.parametrize("url", ["/api/", "/api/v1/nothing/", "/api/v1/toy/1/", "/api/v2/%00/"])
def test_answers_with_a_problem_where_there_is_nothing(url):
    assert_problem(Client().get(url), 404, "Not Found")


def test_answers_with_a_page_outside_of_the_api():
    answer = Client().get("/nothing/")
    assert (answer.status_code, answer["Content-Type"]) == (404, "text/html; charset=utf-8")


# --- what it takes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "",
        " ",
        "{'name': 'x'}",
        '{"name": "x",}',
        '{"name": "x"} {}',
        '{"anything": NaN}',
        '{"anything": [Infinity]}',
        '{"anything": -Infinity}',
        '{"anything": 1e999}',
        '{"anything": -1e999}',
        '{"anything": ' + "9" * 5_000 + "}",  # quadratic to read
        '{"name": "\x00"}',
        '{"name": "\\u0000"}',
        '{"anything": {"\\u0000": 1}}',
        '{"anything": [["\\ud800"]]}',
        '{"anything": "\\uDFFF x"}',
        '"\\u0000"',
        b'{"name": "\xff"}',
        "\ufeff{}",
        "[" * 100_000,
        '{"a":' * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"anything": ' + "[" * 32 + "]" * 32 + "}",
    ],
)
def test_refuses_what_is_no_json_or_cannot_be_kept(body):
    if body == "":  # no body at all is an empty object to DRF
        assert post(body).status_code == 200
        return
    assert assert_problem(post(body), 400, "Bad Request")["errors"] == []


@pytest.mark.parametrize(
    "given",
    [
        {"anything": {"a": [1, -0.5, 1e300, None, True, "\\u0000", "\U0001f600", "é"]}},
        {"anything": 10**400},
    ],
)
def test_takes_every_other_json(given):
    answer = post(given)
    assert (answer.status_code, answer.json()) == (200, given)


def test_takes_32_levels():
    assert post('{"anything": ' + "[" * 31 + "]" * 31 + "}").status_code == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "application/xml",
        "nonsense",
    ],
)
def test_takes_json_alone(content_type):
    assert_problem(post("name=x", content_type), 415, "Unsupported Media Type")


@pytest.mark.parametrize("charset", ["utf-16", "latin-1"])
def test_takes_utf8_alone(charset):
    body = '{"name": "é"}'.encode(charset)
    assert_problem(post(body, f"application/json; charset={charset}"), 400, "Bad Request")


def test_refuses_a_body_that_is_too_large():
    body = json.dumps({"name": "x" * settings.DATA_UPLOAD_MAX_MEMORY_SIZE})
    assert "16,777,216 bytes" in assert_problem(post(body), 413, "Request Entity Too Large")["detail"]


# --- lists ------------------------------------------------------------------------------------------------


def walk(url: str, direction: str = "next") -> list[list[int]]:
    """The ids of every page from here on."""
    pages = []
    while url:
        answer = JsonClient().get(url)
        assert answer.status_code == 200, answer.json()
        body = answer.json()
        pages.append([row["id"] for row in body["results"]])
        url = body[direction]
        assert len(pages) < 100
    return pages


@pytest.fixture
def crowd(db) -> list[User]:
    """23 people of few names, some of whom never logged in."""
    born = User(email="x").date_joined
    return User.objects.bulk_create(
        User(
            email=f"{n}@example.com",
            name="abc"[n % 3],
            date_joined=born - timedelta(microseconds=n // 2),
            last_login=born - timedelta(days=n) if n % 4 else None,
        )
        for n in range(23)
    )


@pytest.mark.parametrize(
    "order",
    ["id", "-id", "name", "-name", "name,-date_joined", "-name,date_joined", "last_login", "-last_login",
     "name,-last_login", "-last_login,name", "date_joined", "is_active", "last_login,-id"],
)  # fmt: skip
def test_shows_everyone_once_there_and_back(crowd, order):
    whole = [
        row["id"] for row in JsonClient().get(f"/api/v1/users/?order={order}&limit=200").json()["results"]
    ]
    columns = [*order.split(","), "-id" if order.split(",")[-1].startswith("-") else "id"]
    assert whole == list(User.objects.order_by(*columns).values_list("id", flat=True))

    there = walk(f"/api/v1/users/?order={order}&limit=5")
    assert [len(page) for page in there] == [5, 5, 5, 5, 3]
    assert sum(there, []) == whole

    url = f"/api/v1/users/?order={order}&limit=5"
    while (body := JsonClient().get(url).json())["next"]:
        url = body["next"]
    assert walk(url, "previous") == there[::-1]


def test_begins_with_the_newest_50(crowd):
    User.objects.bulk_create(User(email=f"more-{n}@example.com") for n in range(60))
    page = JsonClient().get("/api/v1/users/").json()["results"]
    assert [row["id"] for row in page] == list(User.objects.order_by("-id").values_list("id", flat=True)[:50])


def test_does_not_move_when_somebody_joins_or_leaves(crowd):
    first = JsonClient().get("/api/v1/users/?limit=5").json()
    seen = [row["id"] for row in first["results"]]
    User.objects.create(email="newest@example.com")
    User.objects.filter(id=seen[-1]).delete()
    second = JsonClient().get(first["next"]).json()
    assert [row["id"] for row in second["results"]] == [seen[-1] - n for n in range(1, 6)]


def test_begins_links_with_our_own_address_not_the_callers(crowd):
    body = JsonClient().get("/api/v1/users/?limit=5&order=name", headers={"Host": "evil.example"}).json()
    assert body["next"].startswith(f"{settings.HEALTHMON_BASE_URL}/api/v1/users/?")
    assert "limit=5" in body["next"]
    assert "order=name" in body["next"]


@pytest.mark.parametrize("limit", ["0", "-1", "201", "x", "", "1.5", "1e2", "٣", "9" * 5_000, "1%00"])
@pytest.mark.django_db
def test_refuses_odd_limits(limit):
    body = assert_problem(JsonClient().get(f"/api/v1/users/?limit={limit}"), 400, "Bad Request")
    assert [error["pointer"] for error in body["errors"]] == ["#/limit"]


def cursor(*what) -> str:
    return urlsafe_b64encode(json.dumps(what).encode()).decode()


@pytest.mark.parametrize(
    "tampered",
    [
        "x",
        "é",
        "%00",
        "AAAA",
        cursor(),
        cursor(False),
        cursor(False, []),
        cursor(False, 7),
        cursor(False, [[], {}]),
        cursor(False, [True, "1"]),
        cursor(False, [None, None]),
        cursor(False, ["no date", "1"]),
        cursor(False, ["2030-13-01", "1"]),
        cursor(False, ["2030-01-01T00:00Z", "x"]),
        cursor(False, ["2030-01-01T00:00Z", "1", "2"]),
        cursor(False, ["\0", "1"]),
        cursor(False, ["\ud800", "1"]),
    ],
)
@pytest.mark.django_db
def test_refuses_a_cursor_it_did_not_make(tampered):
    answer = JsonClient().get(f"/api/v1/users/?order=last_login&cursor={tampered}")
    body = assert_problem(answer, 400, "Bad Request")
    assert [error["pointer"] for error in body["errors"]] == ["#/cursor"]


@pytest.mark.parametrize("number", ["99999999999999999999", "-99999999999999999999", "0"])
@pytest.mark.django_db
def test_stands_a_cursor_beyond_all_ids(number):
    assert JsonClient().get(f"/api/v1/users/?cursor={cursor(False, [number])}").status_code == 200


def test_refuses_a_cursor_of_another_order(crowd):
    link = JsonClient().get("/api/v1/users/?order=name&limit=5").json()["next"]
    assert JsonClient().get(link.replace("order=name", "order=-last_login")).status_code == 400


def test_asks_the_database_for_one_page_and_counts_nothing(crowd, django_assert_num_queries):
    client = client_of(alice())
    with django_assert_num_queries(1):
        client.get("/api/v1/users/?limit=5")
