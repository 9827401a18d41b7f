"""Many monitors at once, monitors by a name of the caller's own, and how many a team may have."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from monitors import services
from monitors.models import Monitor, Region, RegionState, StatusPeriod
from tests.monitors.test_api import GIVEN, SECRET, URL, bulk, pointers
from tests.support.people import acme, ada, client_of, globex, vera
from tests.support.racing import race
from tests.support.watching import NOON, after, monitor

pytestmark = pytest.mark.django_db

NAMED = f"{URL}by-external-id/shop.prod/"


@pytest.fixture
def client():
    return client_of(ada())


def queries(client, **lists) -> int:
    with CaptureQueriesContext(connection) as caught:
        answer = bulk(client, **lists)
    assert answer.status_code == 200, answer.content
    return len(caught)


# --- by external id ---------------------------------------------------------------------------------------


def test_makes_and_then_replaces(client):
    made = client.put(NAMED, GIVEN | {"interval_seconds": 60, "tags": ["x"], "headers": {"Cookie": SECRET}})
    assert (made.status_code, made.json()["external_id"]) == (201, "shop.prod")
    replaced = client.put(NAMED, GIVEN | {"name": "Shop 2"})
    assert (replaced.status_code, replaced.json()["id"]) == (200, made.json()["id"])
    shown = replaced.json()
    assert (shown["name"], shown["interval_seconds"], shown["tags"], shown["headers"]) == (
        "Shop 2",
        30,
        [],
        {},
    )
    assert replaced["ETag"] == client.get(f"{URL}{shown['id']}/")["ETag"]
    assert Monitor.objects.count() == 1
    assert Monitor.objects.get().sealed_headers == ""


def test_the_same_twice_changes_nothing(client):
    given = GIVEN | {"headers": {"Cookie": SECRET}, "interval_seconds": 5}
    first, second = client.put(NAMED, given), client.put(NAMED, given)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    assert StatusPeriod.objects.count() == 1


def test_what_is_paused_stays_so_unless_it_is_said(client):
    pk = client.put(NAMED, GIVEN).json()["id"]
    client.post(f"{URL}{pk}/pause/")
    assert client.put(NAMED, GIVEN).json()["status"] == "paused"
    assert client.put(NAMED, GIVEN | {"enabled": True}).json()["status"] == "new"


def test_finds_it_by_its_name(client):
    monitor(acme())
    made = client.put(NAMED, GIVEN).json()
    assert client.get(f"{URL}?external_id=shop.prod").json()["results"] == [made]


def test_each_team_has_names_of_its_own(client):
    theirs = monitor(globex(), external_id="shop.prod")
    assert client.put(NAMED, GIVEN).status_code == 201
    assert Monitor.objects.get(pk=theirs.pk).name == "Shop"
    assert Monitor.objects.filter(external_id="shop.prod").count() == 2


@pytest.mark.parametrize("wrong", ["a b", "é", "%00", "x" * 201, "a%2Fb", "%22", "$", "x\u0661"])
def test_knows_what_is_no_name(client, wrong):
    assert client.put(f"{URL}by-external-id/{wrong}/", GIVEN).status_code == 404
    if "%" not in wrong:
        assert pointers(client.post(URL, GIVEN | {"external_id": wrong})) == ["#/external_id"]


@pytest.mark.parametrize("wrong", [".", "..", "", 5, ["x"], {}])
def test_refuses_what_is_no_name_in_a_body(client, wrong):
    assert set(pointers(client.post(URL, GIVEN | {"external_id": wrong}))) == {"#/external_id"}


def test_points_at_what_is_wrong(client):
    assert pointers(client.put(NAMED, {"name": "x", "url": "ftp://x"})) == ["#/url"]
    assert pointers(client.put(NAMED, GIVEN | {"external_id": "other"})) == ["#/external_id"]
    assert pointers(client.put(NAMED, [])) == ["#"]
    assert not Monitor.objects.exists()


def test_honours_conditions(client):
    assert client.put(NAMED, GIVEN, HTTP_IF_MATCH='"x"').status_code == 412
    made = client.put(NAMED, GIVEN, HTTP_IF_NONE_MATCH="*")
    assert made.status_code == 201
    assert client.put(NAMED, GIVEN, HTTP_IF_NONE_MATCH="*").status_code == 412
    changed = client.put(NAMED, GIVEN | {"name": "x"}, HTTP_IF_MATCH=made["ETag"])
    assert changed.status_code == 200
    assert client.put(NAMED, GIVEN, HTTP_IF_MATCH=made["ETag"]).status_code == 412


def test_takes_the_role_that_a_change_takes():
    assert client_of(vera()).put(NAMED, GIVEN).status_code == 403


def test_nobody_takes_anothers_name(client):
    client.put(NAMED, GIVEN)
    other = client.post(URL, GIVEN).json()
    taken = {"external_id": "shop.prod"}
    assert pointers(client.post(URL, GIVEN | taken)) == ["#/external_id"]
    assert pointers(client.patch(f"{URL}{other['id']}/", taken)) == ["#/external_id"]
    assert pointers(bulk(client, create=[GIVEN, GIVEN | taken])) == ["#/create/1/external_id"]
    assert pointers(bulk(client, update=[{"id": other["id"]} | taken])) == ["#/update/0/external_id"]
    twice = GIVEN | {"external_id": "new"}
    assert pointers(bulk(client, create=[twice, twice])) == [
        "#/create/0/external_id",
        "#/create/1/external_id",
    ]
    assert client.patch(f"{URL}{other['id']}/", {"external_id": "own"}).status_code == 200
    assert client.patch(f"{URL}{other['id']}/", {"external_id": None}).json()["external_id"] is None


@pytest.mark.django_db(transaction=True)
def test_of_many_who_make_it_at_once_one_does():
    Region.objects.get_or_create(slug="default", defaults={"name": "Default"})
    clients = [client_of(ada()) for _ in range(5)]
    answers = race(
        *[
            lambda n=n, each=each: each.put(NAMED, GIVEN | {"name": f"Shop {n}"})
            for n, each in enumerate(clients[:3])
        ],
        lambda: bulk(clients[3], upsert=[GIVEN | {"external_id": "shop.prod"}]),
        lambda: clients[4].post(URL, GIVEN | {"external_id": "shop.prod"}),
    )
    assert {answer.status_code for answer in answers} <= {200, 201, 400}
    assert sum(answer.status_code == 201 for answer in answers[:3] + answers[4:]) <= 1
    assert Monitor.objects.filter(external_id="shop.prod").count() == 1


# --- bulk ---------------------------------------------------------------------------------------------------


def test_upserts_in_bulk(client):
    there = client.put(NAMED, GIVEN | {"tags": ["x"]}).json()
    answer = bulk(
        client,
        upsert=[GIVEN | {"external_id": "new"}, GIVEN | {"external_id": "shop.prod", "name": "Shop 2"}],
        update=[{"external_id": "third", "name": "x"}],
    )
    assert pointers(answer) == ["#/update/0/id"]
    third = client.post(URL, GIVEN | {"external_id": "third"}).json()
    answer = bulk(
        client,
        create=[GIVEN | {"name": "Made"}],
        upsert=[GIVEN | {"external_id": "new"}, GIVEN | {"external_id": "shop.prod", "name": "Shop 2"}],
        update=[{"external_id": "third", "name": "Third"}],
    )
    assert answer.status_code == 200, answer.content
    done = answer.json()
    assert [row["name"] for row in done["created"]] == ["Made"]
    assert [(row["id"], row["name"]) for row in done["updated"]] == [(third["id"], "Third")]
    assert [(row["external_id"], row["name"], row["tags"]) for row in done["upserted"]] == [
        ("new", "Shop", []),
        ("shop.prod", "Shop 2", []),
    ]
    assert done["upserted"][1]["id"] == there["id"]
    assert Monitor.objects.count() == 4


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"upsert": [GIVEN]},                                             ["#/upsert/0/external_id"]),
        ({"upsert": [GIVEN | {"external_id": None}]},                     ["#/upsert/0/external_id"]),
        ({"upsert": [GIVEN | {"external_id": "a b"}]},                    ["#/upsert/0/external_id"]),
        ({"upsert": [GIVEN | {"external_id": "a"}] * 2},                  ["#/upsert/1/external_id"]),
        ({"upsert": [{"external_id": "a", "url": "ftp://x"}]},            ["#/upsert/0/name", "#/upsert/0/url"]),
        ({"update": [{"external_id": "nobody's"}]},                       ["#/update/0/id"]),
        ({"update": [{"id": None, "external_id": "mine"}]},               ["#/update/0/id"]),
        ({"update": [{"external_id": "mine"}], "upsert": [GIVEN | {"external_id": "mine"}]},
                                                                          ["#/upsert/0/external_id"]),
        ({"upsert": [GIVEN | {"external_id": str(n)} for n in range(1001)]}, ["#"]),
    ],
)  # fmt: skip
def test_names_the_row_that_is_wrong(client, wrong, named):
    monitor(acme(), external_id="mine")
    answer = bulk(client, **wrong)
    assert answer.status_code == 400
    assert sorted(error["pointer"] for error in answer.json()["errors"] or [{"pointer": "#"}]) == named
    assert Monitor.objects.count() == 1


@pytest.mark.parametrize("which", ["create", "update", "regions", "pause", "upsert", "delete"])
def test_costs_as_many_statements_for_many_as_for_a_few(client, which):
    Region.objects.create(slug="eu", name="Europe")
    made = services.create(
        acme(), [{"name": f"Shop {n}", "url": GIVEN["url"], "external_id": f"s{n}"} for n in range(60)], NOON
    )

    def rows(of):
        return {
            "create": {"create": [GIVEN | {"regions": ["default", "eu"]} for _ in of]},
            "update": {"update": [{"id": m.id, "interval_seconds": 60, "url": "https://example.com/"} for m in of]},
            "regions": {"update": [{"id": m.id, "regions": ["eu"], "headers": {"Cookie": "a=b"}} for m in of]},
            "pause": {"update": [{"id": m.id, "enabled": False} for m in of]},
            "upsert": {"upsert": [GIVEN | {"external_id": m.external_id, "tags": ["x"]} for m in of]},
            "delete": {"delete": [m.id for m in of]},
        }[which]  # fmt: skip

    few, many = queries(client, **rows(made[:3])), queries(client, **rows(made[3:]))
    assert many == few
    assert many <= 32


def test_changes_each_row_by_its_own(client):
    Region.objects.create(slug="eu", name="Europe")
    one, other, third = (monitor(acme(), name=f"Shop {n}", tags=["old"]) for n in range(3))
    answer = bulk(
        client,
        update=[
            {"id": other.id, "interval_seconds": 60},
            {"id": one.id, "tags": ["new"], "headers": {"Cookie": "a=b"}},
            {"id": third.id, "regions": ["eu"]},
        ],
    ).json()
    assert [row["id"] for row in answer["updated"]] == [other.id, one.id, third.id]
    shown = {row["name"]: row for row in answer["updated"]}
    assert [
        (r["interval_seconds"], r["tags"], bool(r["headers"]), r["regions"]) for _, r in sorted(shown.items())
    ] == [
        (30, ["new"], True, ["default"]),
        (60, ["old"], False, ["default"]),
        (30, ["old"], False, ["eu"]),
    ]
    assert RegionState.objects.filter(monitor=third).count() == 1
    assert StatusPeriod.objects.filter(monitor=other).count() == 2
    assert StatusPeriod.objects.filter(monitor=one).count() == 1
    assert set(Monitor.objects.filter(pk=one.pk).values_list("updated_at", flat=True)) != {one.updated_at}


def test_a_bulk_update_makes_no_new_row_and_wastes_no_id(client):
    shop = monitor(acme())
    bulk(client, update=[{"id": shop.id, "name": "x"}])
    assert client.post(URL, GIVEN).json()["id"] == shop.id + 1


def test_what_it_deletes_makes_room_for_what_it_makes(client, settings):
    settings.HEALTHMON_MAX_MONITORS = 1
    shop = monitor(acme(), external_id="shop.prod")
    answer = bulk(client, delete=[shop.id], create=[GIVEN | {"external_id": "shop.prod"}])
    assert answer.status_code == 200, answer.content


# --- quotas -------------------------------------------------------------------------------------------------


def test_a_team_may_have_so_many(client, settings):
    settings.HEALTHMON_MAX_MONITORS = 2
    monitor(globex())
    assert client.post(URL, GIVEN).status_code == 201
    for refused in (
        bulk(client, create=[GIVEN, GIVEN]),
        bulk(client, upsert=[GIVEN | {"external_id": "a"}, GIVEN | {"external_id": "b"}]),
    ):
        assert (refused.status_code, refused["Content-Type"]) == (403, "application/problem+json")
        assert "HEALTHMON_MAX_MONITORS" in refused.json()["detail"]
    assert client.put(NAMED, GIVEN).status_code == 201
    assert client.put(NAMED, GIVEN).status_code == 200
    assert client.post(URL, GIVEN).status_code == 403
    assert client.put(f"{URL}by-external-id/other/", GIVEN).status_code == 403
    assert Monitor.objects.filter(team=acme()).count() == 2


@pytest.mark.django_db(transaction=True)
def test_two_who_come_at_once_do_not_both_fit(settings):
    Region.objects.get_or_create(slug="default", defaults={"name": "Default"})
    settings.HEALTHMON_MAX_MONITORS = 5
    clients = [client_of(ada()) for _ in range(3)]
    answers = race(*[lambda each=each: bulk(each, create=[GIVEN] * 3) for each in clients])
    assert sorted(answer.status_code for answer in answers) == [200, 403, 403]
    assert Monitor.objects.count() == 3


def test_intervals_may_be_so_short(client, settings):
    shop = monitor(acme(), interval_seconds=10, timeout_seconds=5)
    settings.HEALTHMON_MIN_INTERVAL_SECONDS = 60
    refused = client.post(URL, GIVEN | {"interval_seconds": 30})
    assert pointers(refused) == ["#/interval_seconds"]
    assert "HEALTHMON_MIN_INTERVAL_SECONDS" in refused.json()["errors"][0]["detail"]
    assert pointers(client.patch(f"{URL}{shop.id}/", {"interval_seconds": 30})) == ["#/interval_seconds"]
    assert client.patch(f"{URL}{shop.id}/", {"name": "x"}).status_code == 200
    assert client.patch(f"{URL}{shop.id}/", {"interval_seconds": 10}).status_code == 200
    assert client.post(URL, GIVEN).json()["interval_seconds"] == 60
    assert pointers(bulk(client, create=[GIVEN | {"interval_seconds": 5}])) == ["#/create/0/interval_seconds"]


def test_the_console_says_that_a_team_is_full(settings, client):
    settings.HEALTHMON_MAX_MONITORS = 1
    monitor(acme())
    with pytest.raises(services.QuotaReached, match="HEALTHMON_MAX_MONITORS"):
        services.create(acme(), [{"name": "x", "url": GIVEN["url"]}], after(1))
