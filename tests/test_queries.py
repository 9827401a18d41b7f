"""What lists cost: as many queries for a page of many rows as for a page of a few. Every list there is, found by its
address, so that the next one cannot be forgotten; and every row of theirs, shown as DRF itself would show it."""

import json
from collections.abc import Iterator

import pytest
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer

from accounts.models import Role, Scope, Team, User
from accounts.services import create_key, invite
from accounts.users import UserSerializer, UserViewSet
from healthmon.lib.api import QuickModelSerializer, StrictModelSerializer
from incidents import services as incidents
from incidents.models import Incident
from monitors import recording, selectors, services
from monitors.models import Monitor, Prober, Region, Result
from monitors.serializers import MonitorSerializer, ResultSerializer
from notifications import services as notifications
from notifications.messages import KINDS
from notifications.models import Delivery, DeliveryAttempt, MessageTemplate
from tests.support.people import JsonClient, acme, alice, client_of, member
from tests.support.watching import NOON, after, monitor, outcome, subscribed, webhook
from tests.test_urls import API, OPEN

pytestmark = pytest.mark.django_db
FEW, MANY = 2, 7


def fill(number: int) -> None:
    """One more of everything that is listed; of what stands below one thing (its results), below the first."""
    Region.objects.create(slug=f"r{number}", name=f"Region {number}")
    Prober.objects.create(name=f"host-{number}", region="default", seen_at=NOON)
    alice(Team.objects.create(slug=f"team-{number}", name=f"Team {number}"))
    member(f"m{number}", Role.VIEWER, acme())
    create_key(acme(), f"Key {number}", [Scope.READ], by=alice(), now=NOON)
    invite(acme(), f"i{number}@example.com", Role.VIEWER, by=alice(), now=NOON)
    hook = subscribed(webhook(acme()), scope="all")
    delivery = notifications.test(hook, NOON)
    DeliveryAttempt.objects.create(delivery=delivery, started_at=NOON)
    MessageTemplate.objects.create(team=acme(), kind=KINDS[number], subject="Down")
    regions = ["default", f"r{number}"]
    shop = monitor(acme(), regions=regions, failures_to_open=1, tags=["prod"])
    recording.record([outcome(shop, region=regions[1], certificate_expires_at=2_000_000_000)], after(2))
    failing = {"at": after(30), "total_ms": None, "status_code": None}
    recording.record([outcome(shop, "dns", region=region, **failing) for region in regions], after(32))
    first = Monitor.objects.earliest("id")
    recording.record([outcome(first, "dns", at=after(60 + 30 * number))], after(62 + 30 * number))
    incident = Incident.objects.get(monitor=shop)
    incidents.acknowledge(incident, alice(), after(40))
    incidents.comment(Incident.objects.earliest("id"), alice(), "Looking.", after(50))


def addresses() -> list[str]:
    """Every address of the API with the ids of things that are there."""
    firsts = {
        "teams": acme(),
        "monitors": Monitor.objects.earliest("id"),
        "incidents": Incident.objects.earliest("id"),
        "deliveries": Delivery.objects.earliest("id"),
        "channels": Delivery.objects.earliest("id").channel,
    }
    found = []
    for address in set(API) - OPEN:
        parts = address.split("/")
        things = parts[3]
        if "1" in parts[4:] and things in firsts:
            parts[parts.index("1", 4)] = str(firsts[things].pk)
        found.append("/".join(parts))
    return sorted(found)


def lists(client: JsonClient) -> Iterator[tuple[str, int, int]]:
    """The address, the number of queries, and of rows, of each list."""
    for address in addresses():
        client.get(address)
        with CaptureQueriesContext(connection) as caught:
            answer = client.get(address)
        if answer.status_code == 200 and "results" in answer.json():
            yield address, len(caught), len(answer.json()["results"])


def test_no_list_asks_more_for_more_rows():
    client = client_of(alice(), acme())
    User.objects.filter(pk=alice().pk).update(is_superuser=True)  # some lists are theirs alone
    for number in range(FEW):
        fill(number)
    before = {address: (queries, rows) for address, queries, rows in lists(client)}
    for number in range(FEW, MANY):
        fill(number)
    for address, queries, rows in lists(client):
        assert rows >= before[address][1] + MANY - FEW, f"fill() makes none of what {address} lists"
        assert queries == before[address][0], f"{address}: {queries} queries for {rows} rows"
        assert queries <= 5, address
    assert len(before) >= 10


def test_no_list_compares_whole_rows():
    """DISTINCT has PostgreSQL make every row that a filter leaves, not those of a page."""
    client = client_of(alice(), acme())
    fill(0)
    for query in ("monitors/?status=new&status=up", "incidents/?status=open", "deliveries/?status=dead"):
        with CaptureQueriesContext(connection) as caught:
            assert client.get(f"/api/v1/{query}").status_code == 200
        assert not [asked["sql"] for asked in caught if "DISTINCT" in asked["sql"]], query


# --- rows ---------------------------------------------------------------------------------------------------


def quick_serializers(kind: type = QuickModelSerializer) -> Iterator[type]:
    for each in kind.__subclasses__():
        if each.__module__.partition(".")[0] != "tests":
            if each is not StrictModelSerializer:
                yield each
            yield from quick_serializers(each)


# Rows that a selector or a view adds something to before they are shown.
PREPARED = {
    MonitorSerializer: lambda: selectors.glimpsed(list(Monitor.objects.order_by("id")), after(60)),
    ResultSerializer: lambda: Result.objects.annotate(region_slug=F("region__slug")),
    UserSerializer: UserViewSet().get_queryset,
}


@pytest.mark.parametrize("kind", list(quick_serializers()), ids=lambda kind: kind.__name__)
def test_shows_every_row_as_drf_would(kind):
    for number in range(FEW):
        fill(number)
    services.create(acme(), [{"name": "New", "url": "http://127.0.0.1:9/"}], NOON, [["default"]])
    incidents.resolve(Incident.objects.earliest("id"), alice(), after(99))
    rows = list(PREPARED.get(kind, kind.Meta.model.objects.all)())
    assert rows
    for row in rows:
        assert shown(kind(row).data) == shown(serializers.ModelSerializer.to_representation(kind(row), row))


def shown(row: dict) -> str:
    """As it goes out: 1 and true, or 1 and 1.0, are equal in Python and not to a client."""
    return json.loads(JSONRenderer().render(row), parse_float=lambda text: f"float {text}")


class Odd(QuickModelSerializer):
    missing = serializers.CharField(source="nobody.name", default="none")
    skipped = serializers.CharField(source="nobody.address", required=False)
    null = serializers.CharField(source="nobody.phone", allow_null=True, read_only=True)
    called = serializers.CharField(source="get_username")
    method = serializers.SerializerMethodField()
    local = serializers.DateTimeField(source="date_joined", format="%Y")
    flag = serializers.BooleanField(source="name")
    last_login = serializers.DateTimeField()

    class Meta:
        model = User
        fields = [
            "missing", "skipped", "null", "called", "method", "local", "flag", "last_login", "date_joined",
        ]  # fmt: skip

    def get_method(self, user: User) -> str:
        return user.email


@pytest.mark.parametrize("moment", ["2026-01-02T03:04:05+02:00", "2026-01-02T03:04:05.000600Z", None])
def test_shows_odd_fields_as_drf_would(moment):
    user = User(email="odd@example.com", name="yes")
    user.last_login = serializers.DateTimeField(allow_null=True).run_validation(moment)
    found = Odd(user).data
    assert found == serializers.ModelSerializer.to_representation(Odd(user), user)
    assert (found["missing"], found["null"], found["flag"]) == ("none", None, True)
    assert "skipped" not in found


def test_says_what_a_row_lacks():
    class Lacking(QuickModelSerializer):
        nothing = serializers.CharField()

        class Meta:
            model = User
            fields = ["nothing"]

    with pytest.raises(AttributeError, match="attempting to get a value for field `nothing`"):
        Lacking(User()).data  # noqa: B018
