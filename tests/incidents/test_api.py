"""Incidents over HTTP: reading them, and acknowledging, resolving and commenting them."""

from datetime import UTC, datetime

import pytest

from incidents.models import Incident
from monitors import recording
from monitors import services as monitors
from notifications.models import Delivery
from tests.support.people import acme, ada, alice, bob, charlie, client_of, globex, vera
from tests.support.watching import after, monitor, outcome, subscribed, webhook

pytestmark = pytest.mark.django_db

URL = "/api/v1/incidents/"


def outage(team, n: int = 0, **fields) -> Incident:
    """A monitor that went down at NOON and n hundred seconds."""
    shop = monitor(team, failures_to_open=1, **fields)
    seen = outcome(
        shop,
        "status",
        at=after(100 * n),
        status_code=503,
        detail="It answered 503.",
        evidence={"body": "oops"},
    )
    recording.record([seen], datetime.fromtimestamp(seen.scheduled_at + 2, UTC))
    return Incident.objects.get(monitor=shop)


@pytest.fixture
def incident() -> Incident:
    return outage(acme(), tags=["prod"])


@pytest.fixture
def client():
    return client_of(bob())


def iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def at(incident: Incident, tail: str = "") -> str:
    return f"{URL}{incident.id}/{tail}"


def test_shows_an_incident(client, incident):
    shown = client.get(at(incident)).json()
    assert shown == {
        "id": incident.id, "status": "open", "monitor": incident.monitor_id, "monitor_name": "Shop",
        "monitor_url": "http://127.0.0.1:9/", "severity": "critical", "reason": "status", "detail": "It answered 503.",
        "opened_at": iso(incident.opened_at), "acknowledged_at": None, "acknowledged_by": None, "resolved_at": None,
        "resolution": "",
    }  # fmt: skip
    assert client.get(URL).json() == {"next": None, "previous": None, "results": [shown]}


def test_explains_itself(client, incident):
    why = client.get(at(incident, "explain/")).json()
    assert set(why) == {"id", "reason", "detail", "opened_at", "evidence"}
    assert why["evidence"]["policy"]["failures_to_open"] == 1
    assert why["evidence"]["response"] == {"body": "oops"}
    assert why["evidence"]["results"][0]["reason"] == "status"
    assert why["evidence"]["regions"][0]["region"] == "default"


def test_is_acknowledged_commented_and_resolved(client, incident):
    subscribed(webhook(acme()), scope="tag", tag="prod")
    acknowledged = client.post(at(incident, "acknowledge/"))
    assert acknowledged.status_code == 200
    assert (acknowledged.json()["status"], acknowledged.json()["acknowledged_by"]) == (
        "acknowledged",
        "bob@example.com",
    )
    assert client.post(at(incident, "acknowledge/")).json() == acknowledged.json()

    said = client.post(at(incident, "comment/"), {"text": "Disk full.\n<b>On it.</b>"})
    assert (said.status_code, said.json()["kind"], said.json()["by"]) == (201, "commented", "bob@example.com")

    resolved = client.post(at(incident, "resolve/")).json()
    assert (resolved["status"], resolved["resolution"]) == ("resolved", "by_person")
    assert resolved["acknowledged_at"] == acknowledged.json()["acknowledged_at"]
    assert client.get(at(incident)).json() == resolved

    line = client.get(at(incident, "timeline/")).json()
    assert set(line) == {"next", "previous", "results"}
    assert [(event["kind"], event["by"], event["text"]) for event in line["results"]] == [
        ("opened", None, "It answered 503."),
        ("acknowledged", "bob@example.com", ""),
        ("commented", "bob@example.com", "Disk full.\n<b>On it.</b>"),
        ("resolved", "bob@example.com", "by a person"),
    ]
    kinds = Delivery.objects.order_by("id").values_list("message__kind", flat=True)
    assert list(kinds) == ["acknowledged", "resolved"]


@pytest.mark.parametrize("deed", ["acknowledge/", "resolve/"])
def test_what_is_resolved_cannot_be_acknowledged_or_resolved(client, incident, deed):
    client.post(at(incident, "resolve/"))
    before = client.get(at(incident)).json()
    answer = client.post(at(incident, deed))
    assert (answer.status_code, answer["Content-Type"]) == (409, "application/problem+json")
    assert "resolved" in answer.json()["detail"]
    assert client.get(at(incident)).json() == before
    assert client.post(at(incident, "comment/"), {"text": "After all …"}).status_code == 201


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, "#/text"),
        ({"text": ""}, "#/text"),
        ({"text": " \n"}, "#/text"),
        ({"text": None}, "#/text"),
        ({"text": 5}, "#/text"),
        ({"text": "x" * 10_001}, "#/text"),
        ({"text": "x", "at": "2020-01-01T00:00:00Z"}, "#/at"),
        ([], "#"),
    ],
)
def test_refuses_comments_that_say_nothing(client, incident, given, named):
    answer = client.post(at(incident, "comment/"), given)
    assert answer.status_code == 400
    assert [error["pointer"] for error in answer.json()["errors"]] == [named]
    assert incident.events.count() == 1


@pytest.mark.parametrize("verb", ["post", "put", "patch", "delete"])
def test_cannot_be_written_otherwise(incident, verb):
    client = client_of(alice())
    assert getattr(client, verb)(at(incident), {"status": "resolved"}).status_code == 405
    assert client.post(URL, {"monitor": incident.monitor_id}).status_code == 405


ROUTES = [
    # verb   tail            least role   sent           answer
    ("get",  "",             vera,        None,          200),
    ("get",  "timeline/",    vera,        None,          200),
    ("get",  "explain/",     vera,        None,          200),
    ("post", "comment/",     bob,         {"text": "x"}, 201),
    ("post", "acknowledge/", bob,         None,          200),
    ("post", "resolve/",     bob,         None,          200),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "tail", "least", "sent", "status"), ROUTES)
def test_hides_other_teams_incidents_and_asks_for_the_role(incident, verb, tail, least, sent, status):
    def ask(person, where):
        return getattr(client_of(person()), verb)(where, sent).status_code

    assert ask(charlie, at(incident, tail)) == 404
    for missing in ("0", "99999999999999999999", "x", "²", "%00"):
        assert ask(ada, f"{URL}{missing}/{tail}") == 404
    if least is not vera:
        assert ask(vera, at(incident, tail)) == 403
    incident.refresh_from_db()
    assert (incident.status, incident.events.count()) == ("open", 1)
    assert ask(least, at(incident, tail)) == status


def test_lists_only_those_of_the_team_newest_first(client):
    mine = [outage(acme(), n) for n in (0, 2, 1)]
    outage(globex(), 3)
    rows = client.get(URL).json()["results"]
    assert [row["id"] for row in rows] == [mine[1].id, mine[2].id, mine[0].id]
    page = client.get(f"{URL}?limit=2").json()
    assert [row["id"] for row in client.get(page["next"]).json()["results"]] == [mine[0].id]


def test_filters(client):
    first, second, third = (outage(acme(), n) for n in range(3))
    foreign = outage(globex())
    client.post(at(second, "acknowledge/"))
    client.post(at(third, "resolve/"))
    for query, wanted in [
        ("status=open", [first]),
        ("status=acknowledged", [second]),
        ("status=open&status=acknowledged", [second, first]),
        ("status=resolved", [third]),
        ("severity=critical", [third, second, first]),
        ("severity=warning&severity=info", []),
        (f"monitor={first.monitor_id}", [first]),
        (f"monitor={first.monitor_id}&status=resolved", []),
        (f"monitor={foreign.monitor_id}", []),
        ("monitor=99999999999999999999", []),
    ]:
        rows = client.get(f"{URL}?{query}").json()["results"]
        assert [row["id"] for row in rows] == [incident.id for incident in wanted], query


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("status=closed", "#/status"),
        ("severity=dire", "#/severity"),
        ("status=%00", "#/status"),
        ("monitor=shop", "#/monitor"),
        ("monitor=1.5", "#/monitor"),
        ("monitor=NaN", "#/monitor"),
        ("monitor=1e3", "#/monitor"),
        ("limit=0", "#/limit"),
        ("cursor=x", "#/cursor"),
        ("statsu=open", "#/statsu"),
    ],
)
def test_refuses_filters_it_cannot_read(client, query, named):
    answer = client.get(f"{URL}?{query}")
    assert answer.status_code == 400, answer.json()
    assert [error["pointer"] for error in answer.json()["errors"]] == [named]


@pytest.mark.parametrize("rows", [2, 12])
def test_lists_at_one_price_however_many_there_are(client, rows, django_assert_num_queries):
    for n in range(rows):
        client.post(at(outage(acme(), n), "acknowledge/"))
    with django_assert_num_queries(3):  # the caller, the team, the incidents with who acknowledged
        assert len(client.get(URL).json()["results"]) == rows


def test_outlives_its_monitor(client, incident):
    monitors.delete([incident.monitor], None, after(9))
    shown = client.get(at(incident)).json()
    assert (shown["status"], shown["monitor"], shown["monitor_name"]) == ("resolved", None, "Shop")
    assert client.get(at(incident, "explain/")).json()["evidence"]["response"] == {"body": "oops"}
    assert client.get(at(incident, "timeline/")).json()["results"][-1]["text"] == "monitor deleted"
    assert client.get(f"{URL}?monitor={incident.monitor_id}").json()["results"] == []
