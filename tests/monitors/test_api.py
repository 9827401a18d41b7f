"""Monitors over HTTP: what is taken, what is refused and named, whose it is, and what people can do with it."""

from datetime import UTC, datetime, time, timedelta

import pytest
from django.db import connection

from accounts.models import User
from incidents.models import Incident
from monitors import recording, selectors, services
from monitors.models import Monitor, Prober, Region, RegionState, Result, StatusPeriod
from notifications.models import Channel, Delivery
from tests.support.people import acme, ada, alice, bob, charlie, client_of, globex, vera
from tests.support.watching import NOON, after, monitor, outcome, subscribed, webhook

pytestmark = pytest.mark.django_db

URL = "/api/v1/monitors/"
GIVEN = {"name": "Shop", "url": "https://shop.example.com/health"}
SECRET = "Bearer correct-horse-battery"


@pytest.fixture
def client():
    return client_of(ada())


@pytest.fixture
def shop() -> Monitor:
    return monitor(acme())


def at(monitor: Monitor, tail: str = "") -> str:
    return f"{URL}{monitor.id}/{tail}"


def record(*outcomes) -> None:
    latest = max(each.scheduled_at for each in outcomes)
    recording.record(outcomes, datetime.fromtimestamp(latest + 2, UTC))


def down(shop: Monitor) -> Incident:
    record(*(outcome(shop, "timeout", at=after(30 * n)) for n in range(shop.failures_to_open)))
    return Incident.objects.get(monitor=shop)


def pointers(answer) -> list[str]:
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json"), answer.content
    return [error["pointer"] for error in answer.json()["errors"]]


# --- create, read, change, delete -------------------------------------------------------------------------


def test_makes_a_monitor_with_the_defaults_of_the_product(client):
    answer = client.post(URL, GIVEN)
    assert answer.status_code == 201, answer.content
    made = answer.json()
    facts = {name: made.pop(name) for name in ("id", "status_changed_at", "created_at", "updated_at")}
    assert made == GIVEN | {
        "kind": "http", "method": "GET", "headers": {}, "body": "", "interval_seconds": 30, "timeout_seconds": 10,
        "expected_status": "200-299", "follow_redirects": True, "verify_tls": True, "degraded_after_ms": None,
        "failures_to_open": 2, "successes_to_close": 1, "recheck_seconds": 5, "connection": "fresh",
        "regions": ["default"], "tags": [], "severity": "critical", "description": "", "runbook_url": "",
        "enabled": True, "status": "new", "last_checked_at": None, "last_reason": None, "last_total_ms": None,
        "certificate_expires_at": None, "external_id": None,
    }  # fmt: skip
    assert facts["created_at"].endswith("Z")
    row = Monitor.objects.get()
    assert (row.id, row.team) == (facts["id"], acme())
    assert row.states.get().recheck_at == row.created_at, "it is looked at within two seconds"
    assert [period.status for period in row.periods.all()] == ["new"]
    assert client.get(at(row)).json() == made | facts
    assert client.get(URL).json() == {"next": None, "previous": None, "results": [made | facts]}


EVERYTHING = GIVEN | {
    "method": "POST", "headers": {"Accept": "application/json"}, "body": ' {"ping": "ü"}\n', "interval_seconds": 60,
    "timeout_seconds": 2.5, "expected_status": "200,204,301-308", "follow_redirects": False, "verify_tls": False,
    "degraded_after_ms": 800, "failures_to_open": 3, "successes_to_close": 2, "recheck_seconds": 7,
    "connection": "reuse", "regions": ["default", "eu"], "tags": ["prod", "eu"], "severity": "warning",
    "description": "two\nlines", "runbook_url": "https://wiki.example.com/shop", "enabled": False,
    "external_id": "shop.prod",
}  # fmt: skip


def test_keeps_every_field(client):
    Region.objects.create(slug="eu", name="Europe")
    made = client.post(URL, EVERYTHING).json()
    assert {name: made[name] for name in EVERYTHING} == EVERYTHING
    assert made["status"] == "paused"
    assert client.get(f"{URL}{made['id']}/").json() == made


def test_changes_every_field(client, shop):
    Region.objects.create(slug="eu", name="Europe")
    changed = client.patch(at(shop), EVERYTHING).json()
    assert {name: changed[name] for name in EVERYTHING} == EVERYTHING
    assert changed["status"] == "paused"
    assert client.patch(at(shop), {"degraded_after_ms": None}).json()["degraded_after_ms"] is None


def test_takes_back_what_it_showed(client):
    made = client.post(URL, GIVEN | {"headers": {"Authorization": SECRET, "Accept": "*/*"}}).json()
    again = client.put(f"{URL}{made['id']}/", made)
    assert again.status_code == 200, again.content
    assert again.json() == made


def test_leaves_alone_what_a_patch_does_not_name(client, shop):
    before = client.get(at(shop)).json()
    changed = client.patch(at(shop), {"name": "Store"}).json()
    assert {name for name in before if before[name] != changed[name]} == {"name", "updated_at"}


def test_shortens_the_default_timeout_to_the_interval(client):
    assert client.post(URL, GIVEN | {"interval_seconds": 5}).json()["timeout_seconds"] == 5


def test_drops_repeated_tags_and_regions(client):
    made = client.post(URL, GIVEN | {"tags": ["a", "b", "a"], "regions": ["default", "default"]}).json()
    assert (made["tags"], made["regions"]) == (["a", "b"], ["default"])


def test_deletes(client, shop):
    record(outcome(shop))
    assert client.delete(at(shop)).status_code == 204
    assert client.get(at(shop)).status_code == 404
    assert not RegionState.objects.exists()


# --- bad input --------------------------------------------------------------------------------------------

HUGE = 10**30
THRESHOLD = (0, -1, 3601, HUGE, -HUGE, 1.5, "2", "two", None, True, [])
FLAG = ("yes", "true", 1, 0, None, "", [], {})
BAD = [
    # field               is not                                                              pointer, if another
    ("intervall_seconds", [30]),
    ("team",              [1, None]),
    ("sealed_headers",    ["x"]),
    # one line of 1 to 200 characters
    ("name",              ["", "  ", None, 7, True, ["Shop"], "Shop\nBcc: x@example.com", "a\u202eb", "x" * 201]),
    # closed lists
    ("kind",              ["icmp", "", None, {}, 1]),
    ("method",            ["get", "TRACE", "GET / HTTP/1.1\r\nX: y", None, ["GET"]]),
    ("severity",            ["", None, "dire", 1]),
    ("connection",        ["keep-alive", "", None, True]),
    ("interval_seconds",  [0, -30, 1, 31, 7, 86401, HUGE, 30.5, "30", "often", None, True, [30], {}]),
    # within (0, 60] and the interval, which is 30
    ("timeout_seconds",   [0, -1, 0.05, 30.5, 31, 61, HUGE, -HUGE, "10", "nan", "inf", "soon", None, True, [10]]),
    ("failures_to_open",  THRESHOLD),
    ("successes_to_close", THRESHOLD),
    ("recheck_seconds",   THRESHOLD),
    ("degraded_after_ms", [0, -1, 60_001, HUGE, 0.5, "1", "x", False, []]),
    ("follow_redirects",  FLAG),
    ("verify_tls",        FLAG),
    ("enabled",           FLAG),
    ("expected_status",   ["", "ok", "99", "600", "2xx", "299-200", "200-", "-200", "200;201", "200,,201", "²00",
                           "2\n00", "200," * 40 + "200", 200, None, [200]]),
    ("regions",           [[], ["atlantis"], ["default", "atlantis"], "default", None, {}]),
    ("regions",           [[1], [None], [""], ["x" * 41], [["default"]]],                     "#/regions/0"),
    ("tags",              ["prod", None, {"prod": True}, [str(n) for n in range(21)]]),
    ("tags",              [["ok", bad] for bad in ("x" * 51, "", " ", 1, None, ["a"], "two\nlines", "a,b")],
                                                                                              "#/tags/1"),
    ("description",       ["x" * 5001, 5, None]),
    ("runbook_url",       ["javascript:alert(1)", "https://me:secret@wiki.example.com/", "wiki", 5, None,
                           "https://example.com/" + "x" * 2048]),
    ("body",              ["x" * 10_000_000]),
    ("body",              ["x" * 65_537, {"a": 1}, None, 5]),
    ("headers",           [[], "Accept: */*", None, [["Accept", "*/*"]], {"Accept": "a", "accept": "b"},
                           {f"X-{n}": "" for n in range(51)}]),
    ("headers",           [{"X-A": bad} for bad in (
                            "a\nb", "a\r\nX-B: c", "a\r", "\n", "tab\there", "\x7f", "ü", "x" * 8001, 1, None, True, [],
                            {}, {"secret": False}, {"secret": True}, {"value": 1}, {"value": "a", "hidden": True},
                            {"value": "a", "secret": "yes"}, {"value": "a", "secret": 1},
                            {"value": "***", "secret": True}, {"value": "a\nb", "secret": True})], "#/headers/X-A"),
    ("headers",           [{"": "x"}],                                                        "#/headers/"),
    ("headers",           [{"X A": "x"}],                                                     "#/headers/X%20A"),
    ("headers",           [{"X:A": "x"}],                                                     "#/headers/X:A"),
    ("headers",           [{"X\r\nA": "x"}],                                                  "#/headers/X%0D%0AA"),
    ("headers",           [{"Ä": "x"}],                                                       "#/headers/%C3%84"),
    ("headers",           [{"Content-Length": "5"}],                                "#/headers/Content-Length"),
    ("headers",           [{"te": "chunked"}],                                                "#/headers/te"),
    ("headers",           [{"Authorization": "***"}, {"Authorization": {}}],         "#/headers/Authorization"),
    ("url", [
        "", " ", "x", "example.com", "//example.com/", "http://", "https:///path", "http:example.com",
        "http:/example.com", "https://example.com/" + "x" * 2048, 5, None, True, ["https://example.com/"], {},
    ]),
    # other schemes, credentials, and what two parsers read differently
    ("url", [
        "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "javascript:alert(1)",
        "http://user:secret@example.com/", "http://user@example.com/", "http://@example.com/",
        "http://a#@example.com/", "http://a?@example.com/", "http://example.com\\@evil.example/",
        "http://exa mple.com/", "http://example.com/a b", "http://example.com/\tx", "http://exam\tple.com/",
        "http://example.com/\r\nHost: evil.example", "http://example.com/\x7f", "http://example.com:0/",
        "http://example.com:65536/", "http://example.com:/", "http://example.com:x/", "http://[::1",
        "http://[example.com]/", "http://.../", "http://a..b/", "http://ex%61mple.com/",
    ]),
    # private, loopback and metadata addresses, in the notations that resolvers read
    ("url", [
        "http://localhost/", "http://LOCALHOST./", "http://sub.localhost:8000/", "http://127.0.0.1/",
        "http://127.1/", "http://0x7f.1/", "http://0177.0.0.1/", "http://2130706433/", "http://0/",
        "http://0.0.0.0/", "http://[::1]/", "http://[::]/", "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/", "http://[0:0:0:0:0:ffff:10.0.0.1]/", "http://１２７.0.0.1/",
        "http://127。0。0。1/", "http://10.0.0.1/", "http://172.16.0.1/", "http://192.168.1.1/",
        "http://100.64.0.1/", "http://169.254.169.254/latest/meta-data/", "http://2852039166/",
        "http://0xa9fea9fe/", "http://0251.0376.0251.0376/", "http://[::ffff:169.254.169.254]/",
        "http://[64:ff9b::a9fe:a9fe]/", "http://[2002:a9fe:a9fe::]/", "http://[fd00:ec2::254]/",
        "http://[fe80::1]/", "http://metadata.google.internal/", "http://168.63.129.16/",
        "http://100.100.100.200/", "http://255.255.255.255/", "http://224.0.0.1/",
    ]),
]  # fmt: skip


def shown(row) -> str:
    return repr(row)[:60]


@pytest.fixture
def closed(settings):
    """The tests open loopback for their own servers; here the guard is as strict as an installation's."""
    settings.HEALTHMON_ALLOWED_NETS = ()


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("row", BAD, ids=shown)
def test_names_what_is_wrong_and_stores_nothing(client, row):
    field, values, *pointer = row
    named = pointer[0] if pointer else f"#/{field}"
    shop = monitor(acme())
    before = Monitor.objects.values().get()
    for value in values:
        given = {field: value}
        assert named in pointers(client.post(URL, GIVEN | given)), value
        assert named in pointers(client.patch(at(shop), given)), value
    rows = [GIVEN | {field: value} for value in values]
    in_bulk = [named.replace("#", f"#/create/{n}") for n in range(len(rows))]
    assert set(in_bulk) <= set(pointers(client.post(f"{URL}bulk/", {"create": rows})))
    assert named in pointers(client.put(at(shop), rows[0]))
    assert Monitor.objects.values().get() == before


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"timeout_seconds": 61, "interval_seconds": 300}, ["#/timeout_seconds"]),
        ({"timeout_seconds": 10, "interval_seconds": 5}, ["#/timeout_seconds"]),
        ({"interval_seconds": 7, "url": "ftp://x", "nam": ""}, ["#/interval_seconds", "#/nam", "#/url"]),
    ],
)
def test_names_what_does_not_go_together(client, shop, given, named):
    assert sorted(pointers(client.post(URL, GIVEN | given))) == named
    assert sorted(pointers(client.patch(at(shop), given))) == named


@pytest.mark.parametrize("missing", ["name", "url"])
def test_needs_a_name_and_a_url(client, missing):
    given = {name: value for name, value in GIVEN.items() if name != missing}
    assert pointers(client.post(URL, given)) == [f"#/{missing}"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400),
        ("[]", 400),
        ("null", 400),
        ('"monitor"', 400),
        ('{"name": "a\\u0000b", "url": "https://example.com/"}', 400),
        ('{"name": "a", "url": "https://example.com/", "timeout_seconds": NaN}', 400),
        ('{"name": "a", "url": "https://example.com/", "timeout_seconds": 1e999}', 400),
        ('{"name": "a", "url": "https://example.com/", "tags": ' + "[" * 200 + "]" * 200 + "}", 400),
        ('{"body": "' + "x" * 17_000_000 + '"}', 413),
    ],
    ids=shown,
)
def test_refuses_what_is_no_monitor_at_all(client, body, status):
    answer = client.post(URL, body, content_type="application/json")
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json")
    assert not Monitor.objects.exists()


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "HTTPS://Example.COM:8443/a?b=c&d=%20#e",
        "http://8.8.8.8/",
        "http://[2606:4700:4700::1111]/",
        "https://bücher.example/straße",
        "https://example.com/@me",
        "http://my_host.internal.example/",
    ],
)
@pytest.mark.usefixtures("closed")
def test_takes_and_keeps_every_other_url(client, url):
    answer = client.post(URL, GIVEN | {"url": url})
    assert answer.status_code == 201, answer.content
    assert answer.json()["url"] == url


# --- secret headers ---------------------------------------------------------------------------------------


def secrets_of(shop: Monitor) -> dict[str, str]:
    from monitors.headers import unseal

    return unseal(shop.team_id, Monitor.objects.get(pk=shop.pk).sealed_headers)


def all_columns() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT monitors_monitor::text FROM monitors_monitor")
        return str(cursor.fetchall())


def test_never_shows_a_secret_header_again(client):
    headers = {
        "Accept": "text/html",
        "Authorization": SECRET,  # by its name
        "X-Refresh-Token": "abc",  # too short to show the end of
        "X-Tenant": {"value": "t0p-s3cret-tenant", "secret": True},
        "X-Open": {"value": "plain", "secret": False},
        "Cookie": {"value": "session=hush", "secret": False},  # whatever its owner says
    }
    answer = client.post(URL, GIVEN | {"headers": headers})
    shop = Monitor.objects.get()
    assert answer.json()["headers"] == {
        "Accept": "text/html",
        "X-Open": "plain",
        "Authorization": {"value": "***tery", "secret": True},
        "X-Refresh-Token": {"value": "***", "secret": True},
        "X-Tenant": {"value": "***nant", "secret": True},
        "Cookie": {"value": "***", "secret": True},
    }
    assert secrets_of(shop) == {
        "Authorization": SECRET, "X-Refresh-Token": "abc", "X-Tenant": "t0p-s3cret-tenant", "Cookie": "session=hush"
    }  # fmt: skip
    everything = all_columns() + str(
        [
            answer.content,
            client.get(at(shop)).content,
            client.get(URL).content,
            client.patch(at(shop), {}).content,
        ]
    )
    for secret in ("horse", "t0p", "hush", '"abc"'):
        assert secret not in everything


def test_keeps_replaces_and_removes_secret_headers(client):
    made = client.post(URL, GIVEN | {"headers": {"Authorization": SECRET, "X-Token": "one"}}).json()
    shop = Monitor.objects.get()
    token = shop.sealed_headers

    steps = [
        # sent                                                       what the prober will be given
        ({"name": "Store"},                                          {"Authorization": SECRET, "X-Token": "one"}),
        ({"headers": made["headers"]},                               {"Authorization": SECRET, "X-Token": "one"}),
        ({"headers": made["headers"] | {"X-Token": "two"}},          {"Authorization": SECRET, "X-Token": "two"}),
        ({"headers": {"Authorization": {"secret": True}}},           {"Authorization": SECRET}),
        ({"headers": {"authorization": "***tery"}},                  {"authorization": SECRET}),
        ({"headers": {"Accept": "*/*"}},                             {}),
    ]  # fmt: skip
    for sent, kept in steps:
        answer = client.patch(at(shop), sent)
        assert answer.status_code == 200, answer.content
        assert secrets_of(shop) == kept
        if kept.get("X-Token") == "one":
            assert Monitor.objects.get().sealed_headers == token, "unchanged secrets keep their token"
    assert answer.json()["headers"] == {"Accept": "*/*"}
    assert Monitor.objects.get().sealed_headers == ""


def test_does_not_turn_a_secret_into_a_readable_header(client):
    client.post(URL, GIVEN | {"headers": {"X-A": {"value": SECRET, "secret": True}}})
    shop = Monitor.objects.get()
    assert pointers(client.patch(at(shop), {"headers": {"X-A": {"secret": False}}})) == ["#/headers/X-A"]
    shown = client.patch(at(shop), {"headers": {"X-A": {"value": "***tery", "secret": False}}})
    assert SECRET not in shown.content.decode()


# --- whose it is, and who may -----------------------------------------------------------------------------

ROUTES = [
    # verb    tail        least role that may   answer
    ("get",    "",         vera,                 200),
    ("head",   "",         vera,                 200),
    ("get",    "results/", vera,                 200),
    ("get",    "uptime/",  vera,                 200),
    ("get",    "recipients/", vera,              200),
    ("post",   "check/",   bob,                  202),
    ("post",   "pause/",   ada,                  200),
    ("post",   "resume/",  ada,                  200),
    ("patch",  "",         ada,                  200),
    ("put",    "",         ada,                  200),
    ("delete", "",         ada,                  204),
]  # fmt: skip
LADDER = [vera, bob, ada, alice]


@pytest.mark.parametrize(("verb", "tail", "least", "status"), ROUTES)
def test_hides_other_teams_monitors_and_asks_for_the_role(shop, verb, tail, least, status):
    def ask(person):
        body = GIVEN if verb in ("put", "patch") else None
        return getattr(client_of(person()), verb)(at(shop, tail), body).status_code

    assert ask(charlie) == 404
    for person in LADDER:
        if LADDER.index(person) < LADDER.index(least):
            assert ask(person) == 403
    assert Monitor.objects.filter(pk=shop.pk, name="Shop", status="new").exists()
    assert ask(least) == status


@pytest.mark.parametrize("tail", ["", "bulk/"])
@pytest.mark.parametrize(("person", "status"), [(vera, 403), (bob, 403), (ada, 201), (alice, 201)])
def test_lets_admins_create(person, status, tail):
    answer = client_of(person()).post(URL + tail, {"create": [GIVEN]} if tail else GIVEN)
    assert answer.status_code == (200 if tail and status == 201 else status)
    assert Monitor.objects.count() == (status == 201)


def test_lists_and_makes_in_the_team_that_is_named(shop):
    ada(globex())
    theirs = monitor(globex(), name="Theirs")
    assert client_of(ada()).get(URL).status_code == 400
    for team, mine, foreign in ((acme(), shop, theirs), (globex(), theirs, shop)):
        client = client_of(ada(), team)
        assert [row["id"] for row in client.get(URL).json()["results"]] == [mine.id]
        assert client.get(at(foreign)).status_code == 404
        made = client.post(URL, GIVEN).json()
        assert Monitor.objects.get(pk=made["id"]).team == team
        client.delete(f"{URL}{made['id']}/")


@pytest.mark.parametrize("wrong", ["0", "-1", "99999999999999999999", "x", "²", "1e3", "%00", "1;"])
@pytest.mark.parametrize(("verb", "tail"), [row[:2] for row in ROUTES])
def test_answers_404_for_what_is_no_id(client, verb, tail, wrong):
    assert getattr(client, verb)(f"{URL}{wrong}/{tail}").status_code == 404


# --- pause, resume, check ---------------------------------------------------------------------------------


def test_pauses_and_resumes(client, shop):
    subscribed(webhook(acme()), scope="all")
    incident = down(shop)
    paused = client.post(at(shop, "pause/")).json()
    assert (paused["status"], paused["enabled"]) == ("paused", False)
    incident.refresh_from_db()
    assert (incident.status, incident.resolution) == ("resolved", "paused")
    event = incident.events.last()
    assert (event.kind, event.by) == ("resolved", ada())
    assert list(Delivery.objects.order_by("id").values_list("message__kind", flat=True)) == [
        "opened",
        "resolved",
    ]
    state = RegionState.objects.get()
    assert (state.status, state.recheck_at) == ("paused", None)

    again = client.post(at(shop, "pause/"))
    assert (again.status_code, again.json()) == (200, paused)

    resumed = client.post(at(shop, "resume/")).json()
    assert (resumed["status"], resumed["enabled"]) == ("new", True)
    state = RegionState.objects.get()
    assert (state.status, state.failures, state.successes) == ("new", 0, 0)
    assert state.recheck_at == Monitor.objects.get().status_changed_at
    assert client.post(at(shop, "resume/")).json() == resumed
    statuses = StatusPeriod.objects.order_by("id").values_list("status", flat=True)
    assert list(statuses) == ["new", "down", "paused", "new"]
    assert StatusPeriod.objects.filter(ended_at=None).count() == 1


def test_pauses_and_resumes_by_patch(client, shop):
    incident = down(shop)
    changed = client.patch(at(shop), {"enabled": False, "name": "Store"}).json()
    assert (changed["status"], changed["name"]) == ("paused", "Store")
    incident.refresh_from_db()
    assert incident.resolution == "paused"
    assert client.patch(at(shop), {"enabled": True}).json()["status"] == "new"


def test_checks_now(client, shop):
    Region.objects.create(slug="eu", name="Europe")
    client.patch(at(shop), {"regions": ["default", "eu"]})
    shop.states.update(recheck_at=None)
    answer = client.post(at(shop, "check/"))
    assert answer.status_code == 202
    assert answer.json()["id"] == shop.id
    assert all(state.recheck_at for state in shop.states.all())


def test_does_not_check_what_is_paused(client, shop):
    client.post(at(shop, "pause/"))
    answer = client.post(at(shop, "check/"))
    assert (answer.status_code, answer["Content-Type"]) == (409, "application/problem+json")
    assert RegionState.objects.get().recheck_at is None


def test_deleting_resolves_the_incident_which_stays(client, shop):
    subscribed(webhook(acme()), scope="monitor", monitor=shop)
    incident = down(shop)
    client.delete(at(shop))
    told = client.get(f"/api/v1/incidents/{incident.id}/").json()
    assert (told["status"], told["resolution"], told["monitor"]) == ("resolved", "deleted", None)
    assert (told["monitor_name"], told["monitor_url"]) == (shop.name, shop.url)
    assert list(Delivery.objects.order_by("id").values_list("message__kind", flat=True)) == [
        "opened",
        "resolved",
    ]


def test_a_change_that_meets_a_deletion_finds_nothing(shop):
    gone = Monitor.objects.get(pk=shop.pk)
    services.delete([shop], None, after(1))
    with pytest.raises(Monitor.DoesNotExist):
        services.update(gone, {"name": "Ghost"}, after(2))


def test_an_interval_that_changes_begins_a_period_and_a_check(client, shop):
    shop.states.update(recheck_at=None)
    client.patch(at(shop), {"interval_seconds": 60})
    assert RegionState.objects.get().recheck_at is not None
    assert list(shop.periods.order_by("id").values_list("interval_seconds", flat=True)) == [30, 60]
    client.patch(at(shop), {"interval_seconds": 60})
    assert shop.periods.count() == 2


def test_a_region_less_can_be_the_end_of_an_outage(client, shop):
    """Down as seen from `eu` alone, and `eu` is not asked any more."""
    Region.objects.create(slug="eu", name="Europe")
    there = monitor(acme(), regions=["eu"], failures_to_open=1)
    record(outcome(there, "timeout", region="eu"))
    assert client.patch(at(there), {"regions": ["default"]}).json()["status"] == "new"
    assert Incident.objects.get().status == "resolved"


# --- results ----------------------------------------------------------------------------------------------


def results(client, shop: Monitor, query: str = "") -> list[dict]:
    answer = client.get(at(shop, f"results/{query}"))
    assert answer.status_code == 200, answer.content
    return answer.json()["results"]


def iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def test_shows_results_newest_first(client, shop):
    record(outcome(shop), outcome(shop, "status", at=after(30), status_code=500, detail="It answered 500."))
    rows = results(client, shop)
    assert rows[0] == {
        "scheduled_at": iso(after(30)), "started_at": iso(after(30.25)), "region": "default", "reason": "status",
        "status_code": 500, "total_ms": 12.5, "dns_ms": None, "connect_ms": None, "tls_ms": None,
        "first_byte_ms": None, "urgent": False, "reused": False, "detail": "It answered 500.",
    }  # fmt: skip
    assert [row["reason"] for row in rows] == ["status", "ok"]
    seen = client.get(at(shop)).json()
    assert (seen["last_checked_at"], seen["last_reason"]) == (iso(after(30)), "status")


@pytest.fixture
def twice(shop) -> Monitor:
    """A monitor seen five times from each of two regions, and another that is not to be shown."""
    Region.objects.create(slug="eu", name="Europe")
    both = monitor(acme(), regions=["default", "eu"])
    record(*(outcome(both, at=after(30 * n), region=slug) for n in range(5) for slug in ("default", "eu")))
    record(outcome(shop))
    return both


def test_shows_each_result_on_one_page_though_two_regions_share_their_slots(client, twice):
    whole = [(row["scheduled_at"], row["region"]) for row in results(client, twice)]
    assert len(set(whole)) == 10
    for limit in (1, 3, 10):
        pages, url = [], at(twice, f"results/?limit={limit}")
        while url:
            page = client.get(url).json()
            pages += [(row["scheduled_at"], row["region"]) for row in page["results"]]
            url = page["next"]
        assert pages == whole


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 10),
        ("?region=eu", 5),
        ("?region=atlantis", 0),
        (f"?since={iso(after(60))}", 6),  # at or after
        (f"?until={iso(after(60))}", 4),  # before
        (f"?since={iso(after(30))}&until={iso(after(90))}&region=default", 2),
        ("?since=0001-01-01T00:00:00%2B14:00", 10),
        ("?until=9999-12-31T23:59:59-14:00", 10),
        (f"?since={after(60):%Y-%m-%dT%H:%M:%S}", 6),  # UTC unless it says so
        (f"?since={after(60 + 7200):%Y-%m-%dT%H:%M:%S}%2B02:00", 6),
    ],
)
def test_cuts_results_down(client, twice, query, count):
    assert len(results(client, twice, query)) == count


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("?since=yesterday", "#/since"),
        ("?until=12", "#/until"),
        ("?since=2026-13-01T00:00:00Z", "#/since"),
        ("?region=%00", "#/region"),
        ("?limit=0", "#/limit"),
        ("?limit=201", "#/limit"),
        ("?cursor=x", "#/cursor"),
        ("?sinse=2026-01-01T00:00:00Z", "#/sinse"),
        ("?status=up", "#/status"),
    ],
)
def test_refuses_filters_of_results_it_cannot_read(client, shop, query, named):
    assert pointers(client.get(at(shop, f"results/{query}"))) == [named]


def test_pages_results_at_one_price(client, twice, django_assert_num_queries):
    with django_assert_num_queries(4):  # the caller, the team, the monitor, the results
        client.get(at(twice, "results/"))


# --- uptime -----------------------------------------------------------------------------------------------


def history(shop: Monitor, *stretches: tuple[str, int]) -> None:
    """Give a monitor statuses of so many seconds each, the last of them ending (open) at NOON."""
    shop.periods.all().delete()
    start = NOON - timedelta(seconds=sum(seconds for _, seconds in stretches))
    for number, (status, seconds) in enumerate(stretches, 1):
        end = start + timedelta(seconds=seconds)
        StatusPeriod.objects.create(
            monitor=shop, status=status, started_at=start, interval_seconds=30, regions=1,
            ended_at=None if number == len(stretches) else end,
        )  # fmt: skip
        start = end


@pytest.mark.parametrize(
    # history up to now                                               window  uptime         down for
    ("stretches", "window", "uptime", "downtime"),
    [
        ([("up", 3600)],                                               "24h", 1.0,            0),
        ([("down", 3600)],                                             "24h", 0.0,            3600),
        ([("new", 3600)],                                              "24h", None,           0),
        ([("paused", 3600)],                                           "24h", None,           0),
        ([("up", 3599), ("down", 1)],                                  "24h", 3599 / 3600,    1),
        ([("degraded", 1800), ("up", 1800)],                           "24h", 1.0,            0),
        ([("new", 999), ("up", 300), ("paused", 5000), ("down", 100)], "24h", 0.75,           100),
        ([("down", 9999), ("up", 86_300), ("down", 100)],              "24h", 86_300 / 86_400, 100),  # cut at its edge
        ([("down", 100), ("up", 86_400)],                              "24h", 1.0,            0),
        ([("down", 86_400), ("up", 86_400 * 6)],                       "7d",  6 / 7,          86_400),
        ([("down", 86_400 * 3), ("up", 86_400 * 27)],                  "30d", 0.9,            86_400 * 3),
        ([("down", 86_400 * 9), ("up", 86_400 * 81)],                  "90d", 0.9,            86_400 * 9),
    ],
)  # fmt: skip
def test_adds_uptime_up_to_the_second(shop, stretches, window, uptime, downtime):
    history(shop, *stretches)
    found = selectors.uptime(shop, window, NOON)
    assert found.uptime == pytest.approx(uptime, abs=1e-12) if uptime is not None else found.uptime is None
    assert found.downtime_seconds == downtime


def test_coverage_is_what_was_looked_at_of_what_should_have_been(shop):
    now = NOON + timedelta(seconds=300)
    shop.periods.update(started_at=NOON)
    first = next(n for n in range(1, 31) if int(after(n).timestamp()) % 30 == shop.offset_seconds)
    assert selectors.uptime(shop, "24h", now).coverage == 0.0
    slots = [after(first + 30 * n) for n in range(10)]
    record(*(outcome(shop, at=slot) for slot in slots[:4]))
    record(outcome(shop, "missed", at=slots[4]))  # not looked at
    record(outcome(shop, at=after(1), urgent=True))  # out of turn
    assert selectors.uptime(shop, "24h", now).coverage == pytest.approx(0.4)
    services.pause([shop], None, after(first + 30 * 4 - 1))  # after four slots
    assert selectors.uptime(shop, "24h", now).coverage == 1.0


def test_counts_the_incidents_of_a_window(shop):
    incident = down(shop)
    assert selectors.uptime(shop, "24h", after(60)).incidents == 1
    Incident.objects.filter(pk=incident.pk).update(opened_at=NOON - timedelta(hours=25))
    assert selectors.uptime(shop, "24h", NOON).incidents == 0
    assert selectors.uptime(shop, "7d", NOON).incidents == 1


def test_answers_uptime_and_refuses_other_windows(client, shop):
    shop.periods.update(status="up", started_at=datetime.now(UTC) - timedelta(hours=1))
    answer = client.get(at(shop, "uptime/"))
    assert answer.json() == {"uptime": 1.0, "coverage": 0.0, "downtime_seconds": 0, "incidents": 0}
    for window in ("24h", "7d", "30d", "90d"):
        assert client.get(at(shop, f"uptime/?window={window}")).status_code == 200
    for window in ("", "1h", "24H", "-7d", "7d ", "%00"):
        assert pointers(client.get(at(shop, f"uptime/?window={window}"))) == ["#/window"]


# --- who would be told ------------------------------------------------------------------------------------


def told(answer) -> dict:
    assert answer.status_code == 200, answer.content
    return {row["channel_name"]: (row["told"], row["why"]) for row in answer.json()["results"]}


@pytest.fixture
def channels(shop) -> dict[str, Channel]:
    """By what becomes of an opening on a Saturday."""
    Monitor.objects.filter(pk=shop.pk).update(tags=["shop"], severity="warning")
    office = {
        "days": [0, 1, 2, 3, 4],
        "from_time": time(9),
        "until_time": time(18),
        "time_zone": "Europe/Berlin",
    }
    made = {}
    for name, subscriptions in {
        "all": [{"scope": "all"}],
        "nothing": [],
        "other tag": [{"scope": "tag", "tag": "eu"}, {"scope": "monitor", "monitor": monitor(acme())}],
        "office": [{"scope": "tag", "tag": "shop"} | office],
        "critical": [{"scope": "all", "min_severity": "critical"}],
        "slow": [{"scope": "monitor", "monitor": shop, "kinds": ["degraded", "recovered"]}],
        "both": [{"scope": "tag", "tag": "shop"} | office, {"scope": "all", "kinds": ["resolved"]}],
        "disabled": [{"scope": "all"}],
        "broken": [{"scope": "all"}],
    }.items():
        made[name] = webhook(acme())
        made[name].name = name
        made[name].save()
        for each in subscriptions:
            subscribed(made[name], **each)
    Channel.objects.filter(name="disabled").update(enabled=False)
    Channel.objects.filter(name="broken").update(enabled=False, disabled_reason="It answered 410.")
    subscribed(webhook(globex()), scope="all")
    return made


SATURDAY, MONDAY = "2026-01-10T10:05:00Z", "2026-01-12T11:05:00%2B01:00"
HOURS = "Mon–Fri 09:00–18:00 Europe/Berlin"


def test_previews_who_would_be_told_and_why(client, shop, channels):
    assert told(client.get(at(shop, f"recipients/?at={SATURDAY}"))) == {
        "all": (True, "It hears of all monitors."),
        "nothing": (False, "No subscription of it names this monitor."),
        "other tag": (False, "No subscription of it names this monitor."),
        "office": (False, f"It hears of the tag `shop`, {HOURS}; it is Saturday 11:05 there."),
        "critical": (False, "It hears of all monitors, from critical up; this is warning."),
        "slow": (False, "It hears of this monitor, of `degraded` and `recovered`; this is `opened`."),
        "both": (False, f"It hears of the tag `shop`, {HOURS}; it is Saturday 11:05 there. "
                 "It hears of all monitors, of `resolved`; this is `opened`."),
        "disabled": (False, "It is disabled: by hand."),
        "broken": (False, "It is disabled: It answered 410."),
    }  # fmt: skip
    assert told(client.get(at(shop, f"recipients/?kind=opened&at={MONDAY}")))["office"] == (
        True, f"It hears of the tag `shop`, {HOURS}; it is Monday 11:05 there."
    )  # fmt: skip
    assert told(client.get(at(shop, f"recipients/?kind=resolved&at={SATURDAY}")))["both"] == (
        True, "It hears of all monitors, of `resolved`."
    )  # fmt: skip
    slow = told(client.get(at(shop, "recipients/?kind=degraded")))
    assert [name for name in slow if slow[name][0]] == ["slow"]
    assert told(client.get(at(shop, "recipients/")))["all"][0], "an opening, now"


def test_a_preview_names_the_channel_and_the_subscription(client, shop, channels):
    rows = client.get(at(shop, f"recipients/?at={SATURDAY}")).json()["results"]
    assert [row["channel"] for row in rows] == [channel.id for channel in channels.values()]
    assert rows[0] == {
        "channel": channels["all"].id, "channel_name": "all", "channel_kind": "webhook",
        "subscription": channels["all"].subscriptions.get().id, "told": True, "why": "It hears of all monitors.",
    }  # fmt: skip
    assert rows[1]["subscription"] is None
    assert rows[6]["subscription"] == channels["both"].subscriptions.order_by("id").first().id


def test_what_is_previewed_is_what_happens(client, shop, channels):
    previewed = told(client.get(at(shop, f"recipients/?at={NOON.isoformat().replace('+', '%2B')}")))
    shop.refresh_from_db()
    record(outcome(shop, "dns"), outcome(shop, "dns", at=after(30)))
    happened = {delivery.channel.name for delivery in Delivery.objects.filter(status="pending")}
    assert happened == {name for name in previewed if previewed[name][0]} >= {"all"}


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("kind=opend", "#/kind"),
        ("kind=test", "#/kind"),
        ("kind=channel_failing", "#/kind"),
        ("kind=", "#/kind"),
        ("at=yesterday", "#/at"),
        ("at=0001-01-01T00:00:00Z", "#/at"),
        ("at=9999-12-31T23:59:59Z", "#/at"),
        ("at=", "#/at"),
        ("knid=opened", "#/knid"),
        ("limit=0", "#/limit"),
    ],
)
def test_refuses_previews_it_cannot_make(client, shop, query, named):
    assert pointers(client.get(at(shop, f"recipients/?{query}"))) == [named]


@pytest.mark.parametrize("rows", [2, 12])
def test_previews_at_one_price_page_by_page(client, shop, rows, django_assert_num_queries):
    for _ in range(rows):
        subscribed(webhook(acme()), scope="all")
    with django_assert_num_queries(
        5
    ):  # the caller, the team, the monitor, the channels, what they subscribe to
        assert len(client.get(at(shop, "recipients/")).json()["results"]) == rows
    page = client.get(at(shop, "recipients/?limit=1&kind=resolved")).json()
    assert page["results"][0]["told"]
    assert "kind=resolved" in page["next"]


# --- lists ------------------------------------------------------------------------------------------------


@pytest.fixture
def shelf() -> dict[str, int]:
    made = {
        "alpha": monitor(acme(), name="alpha", tags=["prod", "eu"], interval_seconds=60, severity="info"),
        "beta": monitor(acme(), name="beta", tags=["prod"], url="http://127.0.0.1:9/ALPHABET"),
        "gamma": monitor(acme(), name="100%_gamma", tags=["a b"], enabled=False),
    }
    monitor(globex(), name="alpha", tags=["prod"])
    return {name: row.id for name, row in made.items()}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["gamma", "beta", "alpha"]),
        ("?status=new", ["beta", "alpha"]),
        ("?status=new&status=paused", ["gamma", "beta", "alpha"]),
        ("?status=down", []),
        ("?tag=prod", ["beta", "alpha"]),
        ("?tag=eu", ["alpha"]),
        ("?tag=e", []),
        ("?tag=a%20b", ["gamma"]),
        ("?kind=http", ["gamma", "beta", "alpha"]),
        ("?severity=info", ["alpha"]),
        ("?severity=info&severity=critical&tag=prod", ["beta", "alpha"]),
        ("?severity=warning", []),
        ("?search=alpha", ["beta", "alpha"]),
        ("?search=100%25_", ["gamma"]),
        ("?search=%25", ["gamma"]),
        ("?search=' OR 1=1 --", []),
        ("?ordering=name", ["gamma", "alpha", "beta"]),
        ("?ordering=-name", ["beta", "alpha", "gamma"]),
        ("?ordering=id", ["alpha", "beta", "gamma"]),
        ("?ordering=-interval_seconds,name", ["alpha", "gamma", "beta"]),
        ("?status=new&tag=prod&search=bet&ordering=created_at", ["beta"]),
        ("?limit=2", ["gamma", "beta"]),
    ],
)
def test_filters_and_orders(client, shelf, query, names):
    answer = client.get(URL + query)
    assert answer.status_code == 200, answer.content
    assert [row["id"] for row in answer.json()["results"]] == [shelf[name] for name in names]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("?status=broken", "#/status"),
        ("?status=up,down", "#/status"),
        ("?kind=icmp", "#/kind"),
        ("?severity=dire", "#/severity"),
        ("?tag=%00", "#/tag"),
        ("?search=%00", "#/search"),
        ("?ordering=body", "#/ordering"),
        ("?ordering=team__name", "#/ordering"),
        ("?ordering=name,nonsense", "#/ordering"),
        ("?limit=0", "#/limit"),
        ("?limit=-1", "#/limit"),
        ("?limit=201", "#/limit"),
        ("?limit=many", "#/limit"),
        ("?cursor=%00", "#/cursor"),
        ("?cursor=Wzox", "#/cursor"),
        ("?statsu=down", "#/statsu"),
        ("?page=2", "#/page"),
    ],
)
def test_refuses_filters_it_cannot_read(client, query, named):
    assert pointers(client.get(URL + query)) == [named]


@pytest.mark.parametrize("rows", [3, 30])
def test_lists_at_one_price_however_many_there_are(client, rows, django_assert_num_queries):
    Region.objects.create(slug="eu", name="Europe")
    for _ in range(rows):
        monitor(acme(), regions=["default", "eu"])
    with django_assert_num_queries(4):  # the caller, the team, the monitors, their glimpses
        assert len(client.get(URL).json()["results"]) == rows


def test_lists_regions_alike_for_everyone():
    for person in (vera, charlie):
        answer = client_of(person()).get("/api/v1/regions/")
        assert [row["slug"] for row in answer.json()["results"]] == ["default"]
        assert client_of(person()).post("/api/v1/regions/", {}).status_code == 403


# --- bulk -------------------------------------------------------------------------------------------------


def bulk(client, **lists):
    return client.post(f"{URL}bulk/", lists)


def test_creates_updates_and_deletes_at_once(client, shop):
    going, pausing = monitor(acme(), name="Going"), monitor(acme(), name="Pausing")
    incident = down(pausing)
    answer = bulk(
        client,
        create=[GIVEN, GIVEN | {"name": "Second", "headers": {"Authorization": SECRET}, "tags": ["x"]}],
        update=[{"id": shop.id, "interval_seconds": 60}, {"id": pausing.id, "enabled": False}],
        delete=[going.id],
    )
    assert answer.status_code == 200, answer.content
    done = answer.json()
    assert [row["name"] for row in done["created"]] == ["Shop", "Second"]
    assert [(row["id"], row["interval_seconds"], row["status"]) for row in done["updated"]] == [
        (shop.id, 60, "new"),
        (pausing.id, 30, "paused"),
    ]
    assert done["deleted"] == [going.id]
    for row in [*done["created"], *done["updated"]]:
        assert client.get(f"{URL}{row['id']}/").json() == row
    assert not Monitor.objects.filter(pk=going.id).exists()
    incident.refresh_from_db()
    assert incident.resolution == "paused"
    assert RegionState.objects.filter(monitor__in=[row["id"] for row in done["created"]]).count() == 2


@pytest.mark.parametrize(
    # what is wrong in it                                                named
    ("wrong", "named"),
    [
        ({"create": [GIVEN, {"name": "x", "url": "ftp://x"}]},             ["#/create/1/url"]),
        ({"create": [GIVEN, {}, GIVEN, GIVEN | {"interval_seconds": 7}]},  ["#/create/1/name", "#/create/1/url",
                                                                            "#/create/3/interval_seconds"]),
        ({"create": [GIVEN | {"id_": 1}]},                                 ["#/create/0/id_"]),
        ({"create": [GIVEN | {"tags": ["ok", ""]}]},                       ["#/create/0/tags/1"]),
        ({"create": [GIVEN | {"headers": {"X": "a\nb"}}]},                 ["#/create/0/headers/X"]),
        ({"create": [5]},                                                  ["#/create/0"]),
        ({"create": {}},                                                   ["#/create"]),
        ({"create": None},                                                 ["#/create"]),
        ({"update": [{"name": "x"}]},                                      ["#/update/0/id"]),
        ({"update": ["mine", {"id": 0}]},                                  ["#/update/1/id"]),
        ({"update": ["mine", "mine"]},                                     ["#/update/1/id"]),
        ({"update": ["mine"], "delete": ["mine"]},                         ["#/delete/0"]),
        ({"update": ["mine", "foreign"]},                                  ["#/update/1/id"]),
        ({"update": [{"id": True, "name": "x"}]},                          ["#/update/0/id"]),
        ({"update": [{"id": "1"}, {"id": 1.0}, {"id": None}, {"id": []}]}, [f"#/update/{n}/id" for n in range(4)]),
        ({"update": [{"id": HUGE}, {"id": -HUGE}]},                        ["#/update/0/id", "#/update/1/id"]),
        ({"update": ["mine"], "delete": ["foreign"]},                      ["#/delete/0"]),
        ({"delete": ["mine", "mine"]},                                     ["#/delete/1"]),
        ({"delete": ["mine", HUGE]},                                       ["#/delete/1"]),
        ({"delete": ["x", True, 0, None, 1.5, "1"]},                       [f"#/delete/{n}" for n in range(6)]),
        ({"create": [GIVEN], "remove": []},                                ["#/remove"]),
        ({"create": [GIVEN] * 1001},                                       ["#"]),
        ({"create": [GIVEN] * 500, "delete": [7] * 501},                   ["#"]),
    ],
    ids=shown,
)  # fmt: skip
def test_one_bad_row_stores_nothing(client, wrong, named):
    mine, foreign = monitor(acme(), pk=1), monitor(globex())
    ids = {"mine": mine.id, "foreign": foreign.id}

    def spelled(row, in_list):
        if not isinstance(row, str) or row not in ids:
            return row
        return {"id": ids[row], "name": "Changed"} if in_list == "update" else ids[row]

    asked = {
        name: [spelled(row, name) for row in rows] if isinstance(rows, list) else rows
        for name, rows in wrong.items()
    }
    before = list(Monitor.objects.order_by("id").values())
    assert sorted(pointers(bulk(client, **asked))) == sorted(named)
    assert list(Monitor.objects.order_by("id").values()) == before


def test_an_empty_bulk_is_nothing_to_do(client):
    for nothing in ({}, {"create": [], "update": [], "delete": []}):
        answer = bulk(client, **nothing)
        assert answer.status_code == 200
        assert answer.json() == {"created": [], "updated": [], "upserted": [], "deleted": []}


def test_keeps_secrets_of_each_row_apart_in_bulk(client):
    made = bulk(client, create=[GIVEN | {"headers": {"Cookie": f"id={n}"}} for n in range(3)]).json()[
        "created"
    ]
    assert [secrets_of(Monitor.objects.get(pk=row["id"])) for row in made] == [
        {"Cookie": f"id={n}"} for n in range(3)
    ]


@pytest.mark.parametrize("rows", [20, 200])
def test_creates_any_number_in_the_same_number_of_queries(client, rows, django_assert_num_queries):
    Region.objects.create(slug="eu", name="Europe")
    create = [GIVEN | {"name": f"Shop {n}", "regions": ["default", "eu"]} for n in range(rows)]
    with django_assert_num_queries(15):
        assert bulk(client, create=create).status_code == 200
    assert RegionState.objects.count() == 2 * rows
    assert Result.objects.count() == 0


# --- regions and probers: superusers' business -----------------------------------------------------------


@pytest.fixture
def root():
    return client_of(User.objects.create_superuser("root@example.com", "a long enough password"))


def test_a_superuser_opens_renames_and_closes_a_region(root):
    made = root.post("/api/v1/regions/", {"slug": "eu", "name": "Europe"})
    assert (made.status_code, made.json()["enabled"]) == (201, True)
    here = f"/api/v1/regions/{made.json()['id']}/"
    assert root.patch(here, {"name": "EU", "enabled": False}).json()["enabled"] is False
    refused = root.patch(here, {"slug": "us"})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, "#/slug")
    assert root.post("/api/v1/regions/", {"slug": "eu", "name": "Again"}).status_code == 400
    assert root.delete(here).status_code == 405  # its results say where they come from


def test_a_superuser_sees_which_probers_live(root):
    Prober.objects.create(name="host-1", region="default", seen_at=NOON)
    [prober] = root.get("/api/v1/probers/").json()["results"]
    assert (prober["name"], prober["region"]) == ("host-1", "default")
